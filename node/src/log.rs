//! The log of this program, on its standard error.
//!
//! Lines go through a bounded queue to a thread that writes them, so that no task ever waits for the log or
//! fails with it: the reader of a pipe may stall or be gone, and a disk may be full. Panics go the same way.

mod queue;
mod quoted;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

pub(crate) use self::queue::WAITING_BYTES_MAX;
use self::queue::{LineWriter, Queue};
pub(crate) use self::quoted::Quoted;
use crate::config::{Log, LogFormat, log_targets};

/// How long the end of the program waits for a log that is slow or blocked.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();

/// The format of lines, once [`start`] was called.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Logs to the standard error from now on; the standard output is for [`crate::cli`]. Only the first call
/// counts.
pub fn start(log: &Log) -> io::Result<()> {
    if FORMAT.set(log.format).is_err() {
        return Ok(());
    }
    let targets = log_targets(&log.level).expect("the configuration has checked the levels");
    // A descriptor of its own: a blocked write must not hold the lock of the standard error.
    let mut output = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || QUEUE.write_to(&mut output))?;
    let layer = fmt::layer()
        .with_writer(|| LineWriter(&QUEUE))
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false);
    let registry = registry().with(targets);
    // A test may have set a subscriber before.
    let _ = match log.format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    std::panic::set_hook(Box::new(report_panic));
    actors::critical::flush_log_with(|limit| QUEUE.flush(limit));
    Ok(())
}

/// Reports why the program fails: in the log if it was started, whatever its levels are, otherwise on the
/// standard error.
pub(crate) fn fail(error: &dyn Display) {
    match FORMAT.get() {
        // A full pipe or a full disk must not turn one failure into another.
        None => drop(writeln!(io::stderr(), "firstcome: {error}")),
        Some(LogFormat::Text) => QUEUE.push(format!("firstcome: {error}\n").as_bytes()),
        Some(LogFormat::Json) => {
            QUEUE.push(&json_line("the program failed", [("error", error.to_string())]));
        }
    }
}

/// Writes out what was logged, as far as that is possible within a second.
pub(crate) fn flush() {
    if FORMAT.get().is_some() {
        QUEUE.flush(FLUSH_LIMIT);
    }
}

/// The number of lines that were dropped: the queue was full, or they could not be written.
pub(crate) fn dropped_lines() -> u64 {
    QUEUE.dropped()
}

/// Returns how many bytes of lines wait to be written.
pub(crate) fn waiting_bytes() -> usize {
    QUEUE.waiting_bytes()
}

/// Logs a panic. The standard library's hook would write to the standard error itself, and wait for it. This
/// one does not go through the subscriber either, as the panic may have come from there.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let location = panic.location().map_or_else(String::new, ToString::to_string);
    // This captures nothing unless RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => Some(backtrace.to_string()),
        _ => None,
    };
    if FORMAT.get() == Some(&LogFormat::Json) {
        let fields = [
            ("panic", message.to_owned()),
            ("thread", thread.to_owned()),
            ("location", location),
        ];
        let backtrace = backtrace.map(|backtrace| ("backtrace", backtrace));
        QUEUE.push(&json_line(
            "a thread panicked",
            fields.into_iter().chain(backtrace),
        ));
    } else {
        let mut line = format!(
            "{} ERROR panic: {message} thread={thread} location={location}\n",
            now()
        );
        if let Some(backtrace) = backtrace {
            let _ = writeln!(line, "{backtrace}");
        }
        QUEUE.push(line.as_bytes());
    }
}

/// A line with the fields that all lines have.
fn json_line(message: &str, fields: impl IntoIterator<Item = (&'static str, String)>) -> Vec<u8> {
    let own = [
        ("timestamp", now()),
        ("level", "ERROR".to_owned()),
        ("message", message.to_owned()),
    ];
    let fields = own
        .into_iter()
        .chain(fields)
        .chain([("target", "firstcome".to_owned())]);
    let object: Map<String, Value> = fields
        .map(|(name, text)| (name.to_owned(), Value::String(text)))
        .collect();
    let mut line = Value::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The time, as in the other lines.
fn now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use testkit::output;
    use testkit::process::{Process, Spawn};

    use super::*;
    use crate::config::Sources;

    /// Tells the child process of a test the format of its log.
    const CHILD: &str = "FIRSTCOME_TEST_LOG";
    const LIMIT: Duration = Duration::from_secs(30);

    /// A child process panics in a thread, fails, and ends with status 7.
    fn child(format: &str) {
        let flags = vec![("log.format".to_owned(), format.to_owned())];
        start(&Sources { file: None, flags }.load().unwrap().log).unwrap();
        tracing::info!("started");
        let _ = thread::spawn(|| panic!("on\npurpose")).join();
        fail(&"of\ncourse");
        flush();
        std::process::exit(7);
    }

    fn spawn(test: &str, format: &str, log: std::path::PathBuf) -> Spawn {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = format!("log::tests::{test}");
        command.args(["--exact", &name, "--nocapture"]).env(CHILD, format);
        Spawn::new(command, log)
    }

    fn ended(process: &Process) -> Option<i32> {
        process.wait(LIMIT).unwrap().and_then(|status| status.code())
    }

    #[test]
    fn a_panic_does_not_wait_for_the_log() {
        if let Ok(format) = std::env::var(CHILD) {
            child(&format);
        }
        let directory = tempfile::tempdir().unwrap();
        let (_reader, stalled) = output::stalled().unwrap();
        let name = "a_panic_does_not_wait_for_the_log";
        let spawn = spawn(name, "text", directory.path().join("log"));
        let process = spawn.error_output(stalled).start().unwrap();
        assert_eq!(ended(&process), Some(7));
    }

    #[test]
    fn every_line_of_a_json_log_is_one_object() {
        if let Ok(format) = std::env::var(CHILD) {
            child(&format);
        }
        let directory = tempfile::tempdir().unwrap();
        let name = "every_line_of_a_json_log_is_one_object";
        let spawn = spawn(name, "json", directory.path().join("log"));
        let process = spawn.start().unwrap();
        assert_eq!(ended(&process), Some(7));
        let log = process.log();
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        let messages: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
        assert_eq!(
            messages,
            ["started", "a thread panicked", "the program failed"],
            "{log}"
        );
        assert_eq!(lines[1]["panic"], "on\npurpose");
        assert_eq!(lines[2]["error"], "of\ncourse");
        let has_time = |line: &Value| {
            let time = line["timestamp"].as_str();
            time.is_some_and(|time| time.ends_with('Z') && time.starts_with("20"))
        };
        assert!(lines.iter().all(has_time), "{log}");
    }
}
