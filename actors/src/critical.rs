//! Tasks that a node cannot do without.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Exit status of a process that lost a part of itself: `EX_SOFTWARE` of sysexits.
const EXIT_SOFTWARE: i32 = 70;

/// Runs a task whose panic ends the process. Without it the node would go on half alive: ready, and answering
/// nobody. Ending is safe at any moment, and whoever started the process starts it again.
pub(crate) async fn critical(name: &'static str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        end_process(name);
    }
}

/// Ends the process, as a part of it is lost.
pub(crate) fn end_process(lost: &'static str) -> ! {
    tracing::error!(lost, "this process lost a part that it cannot do without");
    std::process::exit(EXIT_SOFTWARE);
}
