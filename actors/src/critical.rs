//! Critical tasks, and the end of the process when one of them fails.
//!
//! Ending the process depends neither on the log, which may be broken or blocked, nor on the functions that
//! libraries have registered to run at exit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use signal_hook::low_level::exit;

/// Exit status of a process of which a critical part failed: `EX_SOFTWARE` of sysexits.
const EXIT_SOFTWARE: i32 = 70;

/// Time limit for logging why the process ends. This takes about a millisecond unless the log is blocked.
const REPORT_LIMIT: Duration = Duration::from_millis(200);

/// Writes what was logged, within a limit.
static FLUSH_LOG: OnceLock<fn(Duration)> = OnceLock::new();

/// Sets the function that flushes the log before the process ends. Its argument is its time limit; after
/// that, the process ends anyway. Only the first call counts.
pub fn flush_log_with(flush: fn(Duration)) {
    let _ = FLUSH_LOG.set(flush);
}

/// Runs a task whose panic ends the process. Otherwise the node would stay ready, but no longer answer
/// requests. Ending is safe at any moment, and the process's supervisor restarts it.
pub async fn critical(name: &'static str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        end_process(name);
    }
}

/// Ends the process, because a critical part of it failed.
pub(crate) fn end_process(lost: &'static str) -> ! {
    end(EXIT_SOFTWARE, || {
        tracing::error!(lost, "a critical part of this process failed; the process ends");
    })
}

/// Ends the process with this status, once `report` is logged or its time is over. It ends even if logging
/// panics or blocks, or if no thread can be started that watches the time; then nothing is reported.
///
/// The exit is immediate (`_exit`), as functions that run at a usual exit may block or fail.
pub(crate) fn end(status: i32, report: impl FnOnce()) -> ! {
    let watch = thread::Builder::new().spawn(move || {
        thread::sleep(REPORT_LIMIT);
        exit(status)
    });
    if watch.is_ok() {
        let reported = catch_unwind(AssertUnwindSafe(|| {
            report();
            if let Some(flush) = FLUSH_LOG.get() {
                flush(REPORT_LIMIT);
            }
        }));
        // Dropping the payload of a panic could panic as well.
        std::mem::forget(reported);
    }
    exit(status)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use testkit::process::Process;

    use super::*;

    /// Tells the child process of the test how its report fails.
    const REPORT: &str = "FIRSTCOME_TEST_REPORT";

    #[test]
    fn a_process_ends_though_its_report_panics_or_blocks() {
        match std::env::var(REPORT).as_deref() {
            Ok("panics") => end(71, || panic!("on purpose")),
            Ok("blocks") => end(71, || {
                loop {
                    thread::park();
                }
            }),
            Ok("is not written") => {
                flush_log_with(|_| {
                    loop {
                        thread::park();
                    }
                });
                end(71, || {})
            }
            _ => {}
        }
        let directory = tempfile::tempdir().unwrap();
        for report in ["panics", "blocks", "is not written"] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let name = "critical::tests::a_process_ends_though_its_report_panics_or_blocks";
            command.args(["--exact", name]).env(REPORT, report);
            let process = Process::start(command, directory.path().join("log")).unwrap();
            let status = process.wait(Duration::from_secs(30)).unwrap();
            assert_eq!(
                status.and_then(|status| status.code()),
                Some(71),
                "its report {report}"
            );
        }
    }
}
