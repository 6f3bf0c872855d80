//! A test program that runs again as a child process and carries out commands of its parent.
//!
//! Some code keeps its state in statics of the process, so that a test of several nodes needs a process each.
//! The parent starts its own program with the name of one test, which calls [`run`]. Commands are JSON
//! objects on the child's standard input, one a line; an answer is a marked line on its standard output.

use std::collections::HashMap;
use std::future::Future;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::poll::LIMIT;
use crate::process::{Process, Spawn};

/// The variable with the configuration of a child.
const CONFIGURATION: &str = "FIRSTCOME_TEST_WORKER";

/// Precedes each line of a child that is meant for its parent. The test harness prints other lines.
const MARK: &str = "@@ ";

/// If this process is a worker, runs `main` with the worker's configuration and ends the process. Otherwise
/// does nothing.
///
/// # Panics
/// If the configuration is not JSON.
pub fn run(main: impl AsyncFnOnce(Value)) {
    let Ok(configuration) = std::env::var(CONFIGURATION) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let configuration = serde_json::from_str(&configuration).expect("the parent writes JSON");
    runtime.block_on(main(configuration));
    // The thread that reads standard input would keep the process waiting.
    std::process::exit(0);
}

/// Tells the parent that this worker has started, and what the parent needs to know about it.
pub fn started(what: &Value) {
    println!("{MARK}{what}");
}

/// Writes the log of this process to standard error, without most of what libraries log. `links` is the level
/// for the library under links.
///
/// # Panics
/// If the process has a subscriber already.
pub fn log_to_stderr(links: Level) {
    let targets = Targets::new()
        .with_default(Level::WARN)
        .with_target("actors", Level::INFO)
        .with_target("ractor_cluster", links);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    registry().with(lines).with(targets).init();
}

/// Carries out the parent's commands until the parent ends. `carry_out` is called for each command in order,
/// and the futures that it returns run at the same time.
///
/// # Panics
/// If a command is not JSON.
pub async fn serve<A>(mut carry_out: impl FnMut(Value) -> A)
where
    A: Future<Output = Value> + Send + 'static,
{
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lines().map_while(Result::ok);
        lines.try_for_each(|line| sender.send(line))
    });
    while let Some(line) = lines.recv().await {
        let command: Value = serde_json::from_str(&line).expect("the parent writes JSON");
        let id = command["id"].clone();
        let answer = carry_out(command);
        tokio::spawn(async move {
            let answer = answer.await;
            if !id.is_null() {
                println!("{MARK}{}", json!({"id": id, "answer": answer}));
            }
        });
    }
}

/// Commands that are not answered yet, by their ids; `None` once the worker has ended.
type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>;

fn lock(waiting: &Waiting) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Value>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dropped when the worker's output ends. Every request that still waits for an answer then gets `None`.
struct Answers(Arc<Waiting>);

impl Drop for Answers {
    fn drop(&mut self) {
        lock(&self.0).take();
    }
}

/// A worker, as its parent sees it.
#[derive(Debug)]
pub struct Worker {
    name: String,
    process: Process,
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    _folder: TempDir,
}

impl Worker {
    /// Starts the test of this name in the calling program as a worker. Returns the worker and what it
    /// reported by [`started`].
    ///
    /// # Panics
    /// If the worker does not start in time.
    pub async fn start(test: &str, name: &str, configuration: &Value) -> (Self, Value) {
        let folder = tempfile::tempdir().expect("a folder is made");
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CONFIGURATION, configuration.to_string());
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(Some(HashMap::new())));
        let answers = Answers(Arc::clone(&waiting));
        let (sender, first) = oneshot::channel();
        let mut sender = Some(sender);
        let spawn = Spawn::new(command, folder.path().join(name)).with_input();
        let process = spawn.start_with(move |line| {
            let Some(said) = line.split_once(MARK).map(|(_, said)| said) else {
                return;
            };
            let mut said: Value = serde_json::from_str(said).expect("a worker writes JSON");
            if let Some(sender) = sender.take() {
                let _ = sender.send(said);
            } else if let Some(id) = said["id"].as_u64()
                && let Some(answer) = lock(&answers.0).as_mut().and_then(|waiting| waiting.remove(&id))
            {
                let _ = answer.send(said["answer"].take());
            }
        });
        let worker = Self {
            name: name.to_owned(),
            process: process.unwrap_or_else(|error| panic!("{name} does not start: {error}")),
            waiting,
            next_id: AtomicU64::new(1),
            _folder: folder,
        };
        match tokio::time::timeout(LIMIT, first).await {
            Ok(Ok(started)) => (worker, started),
            _ => panic!("{name} did not start"),
        }
    }

    /// Returns the worker's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends a command that is not answered.
    ///
    /// # Panics
    /// If the worker has ended.
    pub fn send(&self, command: &Value) {
        let sent = self.process.write_line(&command.to_string());
        sent.unwrap_or_else(|error| panic!("{} takes no command: {error}", self.name));
    }

    /// Sends a command and waits for its answer; `None` if the worker ended without an answer.
    ///
    /// # Panics
    /// If there is no answer in time.
    pub async fn request(&self, mut command: Value) -> Option<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).as_mut()?.insert(id, sender);
        self.process.write_line(&command.to_string()).ok()?;
        match tokio::time::timeout(LIMIT, answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => panic!("{} did not answer {command}", self.name),
        }
    }
}
