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
const LIMIT: Duration = Duration::from_secs(60);

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

pub struct Node {
    pub name: String,
    pub incarnation: u64,
    pub port: u16,
    process: Child,
    input: tokio::sync::Mutex<ChildStdin>,
    answers: Answers,
    log: Arc<Mutex<Vec<String>>>,
    commands: AtomicU64,
}

impl Node {
    /// A node of this name and incarnation, otherwise as all are.
    pub async fn start(name: &str, incarnation: u64) -> Self {
        Self::start_with(name, incarnation, json!({})).await
    }

    /// The same with some of its configuration otherwise.
    pub async fn start_with(name: &str, incarnation: u64, other: Value) -> Self {
        let mut configuration =
            json!({"node": name, "incarnation": incarnation, "cluster": "test", "cookie": "crumbs"});
        configuration
            .as_object_mut()
            .unwrap()
            .extend(other.as_object().unwrap().clone());
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_node", "--nocapture", "--test-threads=1"])
            .env(CONFIGURATION, configuration.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut errors = BufReader::new(process.stderr.take().unwrap()).lines();
        let (kept, label) = (Arc::clone(&log), format!("{name}/{incarnation}"));
        tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                // Shown if the test fails.
                eprintln!("{label}: {line}");
                kept.lock().unwrap().push(line);
            }
        });
        let answers = Answers::default();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let (port, started) = oneshot::channel();
        let (mut port, waiting) = (Some(port), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let Some(line) = line.split_once(MARK).map(|(_, line)| line) else {
                    continue;
                };
                let mut said: Value = serde_json::from_str(line).unwrap();
                if let Some(port) = port.take() {
                    port.send(said).unwrap();
                } else if let Some(asker) = waiting.lock().unwrap().remove(&said["id"].as_u64().unwrap()) {
                    let _ = asker.send(said["answer"].take());
                }
            }
        });
        let started = tokio::time::timeout(LIMIT, started).await.unwrap().unwrap();
        let port = u16::try_from(started["port"].as_u64().unwrap_or_else(|| panic!("{started}"))).unwrap();
        let input = tokio::sync::Mutex::new(process.stdin.take().unwrap());
        Self {
            name: name.to_owned(),
            incarnation,
            port,
            process,
            input,
            answers,
            log,
            commands: AtomicU64::new(1),
        }
    }

    /// Says that these are its peers, each at its own port or at another.
    pub async fn know(&self, peers: &[(&Node, u16)]) {
        let peer = |(peer, port): &(&Node, u16)| json!({"node": peer.name, "incarnation": peer.incarnation, "address": format!("127.0.0.1:{port}")});
        let peers: Vec<Value> = peers.iter().map(peer).collect();
        self.say(&json!({"do": "know", "peers": peers})).await;
    }

    /// Says something that has no answer.
    pub async fn say(&self, command: &Value) {
        let line = format!("{command}\n");
        self.input.lock().await.write_all(line.as_bytes()).await.unwrap();
    }

    /// Says something, and waits for the answer.
    pub async fn ask(&self, mut command: Value) -> Value {
        let id = self.commands.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        let (asker, answer) = oneshot::channel();
        self.answers.lock().unwrap().insert(id, asker);
        self.say(&command).await;
        tokio::time::timeout(LIMIT, answer)
            .await
            .unwrap_or_else(|_| panic!("no answer: {command}"))
            .unwrap()
    }

    /// Asks for a coupon of an owner at the peer.
    pub async fn issue(&self, peer: &Node, coupon: u64, key: &str) -> Value {
        self.ask(json!({"do": "ask", "incarnation": peer.incarnation, "coupon": coupon, "key": key}))
            .await
    }

    pub async fn is_linked(&self, peer: &Node) -> bool {
        self.ask(json!({"do": "linked"}))
            .await
            .as_array()
            .unwrap()
            .contains(&peer.incarnation.into())
    }

    pub async fn refuses(&self, peer: &Node) -> bool {
        self.ask(json!({"do": "refuses", "incarnation": peer.incarnation}))
            .await
            == true
    }

    /// The value of the series that begin so, together.
    pub async fn metric(&self, name: &str) -> f64 {
        self.ask(json!({"do": "metric", "name": name}))
            .await
            .as_f64()
            .unwrap()
    }

    /// How many lines of its log hold this.
    pub fn logged(&self, what: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.contains(what))
            .count()
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// With which status it ends by itself.
    pub async fn ends(&mut self) -> Option<i32> {
        tokio::time::timeout(LIMIT, self.process.wait())
            .await
            .expect("it ends")
            .unwrap()
            .code()
    }

    /// The process, for signals.
    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }
}

/// Polls until it is so; a test that waits in vain says for what.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let polls = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, polls).await.is_ok(), "never: {what}");
}

/// Two nodes that know each other, linked.
pub async fn linked_pair() -> (Node, Node) {
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start("b", 2));
    link(&a, &b).await;
    (a, b)
}

/// Lets two nodes know each other, and waits until both are linked.
pub async fn link(a: &Node, b: &Node) {
    a.know(&[(b, b.port)]).await;
    b.know(&[(a, a.port)]).await;
    both_linked(a, b).await;
}

pub async fn both_linked(a: &Node, b: &Node) {
    eventually("both are linked", async || {
        a.is_linked(b).await && b.is_linked(a).await
    })
    .await;
}
