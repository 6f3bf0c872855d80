//! Tasks without which a node cannot run.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Exit status of a process that lost a critical part: `EX_SOFTWARE` of sysexits.
const EXIT_SOFTWARE: i32 = 70;

/// Runs a task whose panic ends the process. If the process went on, the node would be half alive: ready, but
/// unable to answer. Ending is safe at any moment, and the process's supervisor restarts it.
pub(crate) async fn critical(name: &'static str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        end_process(name);
    }
}

/// Ends the process, because a critical part of it failed.
pub(crate) fn end_process(lost: &'static str) -> ! {
    tracing::error!(lost, "this process lost a critical part");
    std::process::exit(EXIT_SOFTWARE);
}
