//! A child process, as its parent holds it.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

use super::child::{CONFIGURATION, MARK};

/// How long anything may take that is to happen.
pub const LIMIT: Duration = Duration::from_secs(120);

/// How long a node may take to stop.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Who waits for which answer; nothing once the node is dead.
type Answers = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>>;

pub struct Node {
    pub name: String,
    process: tokio::sync::Mutex<Child>,
    input: tokio::sync::Mutex<ChildStdin>,
    answers: Answers,
    commands: AtomicU64,
}

impl Node {
    /// A node of this name on this database, as soon as it has joined.
    pub async fn start(name: &str, url: &str) -> Arc<Self> {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_node", "--nocapture", "--test-threads=1"])
            .env(CONFIGURATION, json!({"node": name, "url": url}).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(process.stderr.take().unwrap()).lines();
        let label = name.to_owned();
        tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                // Shown if the test fails.
                eprintln!("{label}: {line}");
            }
        });
        let answers: Answers = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let (started, is_started) = oneshot::channel();
        let (mut started, waiting) = (Some(started), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let Some(line) = line.split_once(MARK).map(|(_, line)| line) else {
                    continue;
                };
                let mut said: Value = serde_json::from_str(line).unwrap();
                if let Some(started) = started.take() {
                    started.send(()).unwrap();
                } else if let Some(asker) = waiting
                    .lock()
                    .unwrap()
                    .as_mut()
                    .and_then(|waiting| waiting.remove(&said["id"].as_u64().unwrap()))
                {
                    let _ = asker.send(said["answer"].take());
                }
            }
            // Whoever still waits is told by the end of its channel.
            waiting.lock().unwrap().take();
        });
        tokio::time::timeout(LIMIT, is_started).await.unwrap().unwrap();
        let (process, input) = {
            let input = process.stdin.take().unwrap();
            (tokio::sync::Mutex::new(process), tokio::sync::Mutex::new(input))
        };
        Arc::new(Self {
            name: name.to_owned(),
            process,
            input,
            answers,
            commands: AtomicU64::new(1),
        })
    }

    /// Says something, and waits for the answer; `None` if the node died before it gave one.
    pub async fn try_ask(&self, mut command: Value) -> Option<Value> {
        let id = self.commands.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        let (asker, answer) = oneshot::channel();
        self.answers.lock().unwrap().as_mut()?.insert(id, asker);
        self.input
            .lock()
            .await
            .write_all(format!("{command}\n").as_bytes())
            .await
            .ok()?;
        tokio::time::timeout(LIMIT, answer)
            .await
            .unwrap_or_else(|_| panic!("{}: no answer: {command}", self.name))
            .ok()
    }

    /// The same of a node that lives.
    pub async fn ask(&self, command: Value) -> Value {
        self.try_ask(command)
            .await
            .unwrap_or_else(|| panic!("{} died", self.name))
    }

    pub async fn is_ready(&self) -> bool {
        self.ask(json!({"do": "ready"})).await == true
    }

    /// Asks for a coupon, as a user whose name is the key too.
    pub async fn issue(&self, coupon: u64, user: &str) -> Value {
        self.ask(json!({"do": "issue", "coupon": coupon, "user": user, "key": user}))
            .await
    }

    /// The value of the series that begin so, together.
    pub async fn metric(&self, name: &str) -> f64 {
        self.ask(json!({"do": "metric", "name": name}))
            .await
            .as_f64()
            .unwrap()
    }

    /// kill -9.
    pub async fn kill(&self) {
        self.process.lock().await.kill().await.unwrap();
    }

    /// Leaves as a node that was told to end does; whether it stored, answered and handed over everything in
    /// time.
    pub async fn stop(&self) -> bool {
        self.ask(json!({"do": "stop", "limit_ms": STOP_LIMIT.as_millis() as u64}))
            .await
            == true
    }
}

/// Polls until it is so; a test that waits in vain says for what.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    within(LIMIT, what, condition).await;
}

/// The same, in less time.
pub async fn within(limit: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let polls = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(limit, polls).await.is_ok(),
        "not within {limit:?}: {what}"
    );
}
