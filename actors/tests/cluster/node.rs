//! A node in a process of its own, as a test sees it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::worker::Worker;

/// How long a node may take to stop.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Node {
    pub name: String,
    worker: Worker,
}

impl Node {
    /// Starts a node of this name on this database. Returns it once it has joined.
    pub async fn start(name: &str, url: &str) -> Arc<Self> {
        let (worker, _) = Worker::start("a_node", name, &json!({"node": name, "url": url})).await;
        Arc::new(Self {
            name: name.to_owned(),
            worker,
        })
    }

    /// Sends a command and waits for the answer; `None` if the node died before it gave one.
    pub async fn try_ask(&self, command: Value) -> Option<Value> {
        self.worker.request(command).await
    }

    /// Sends a command to a node that is alive, and waits for the answer.
    pub async fn ask(&self, command: Value) -> Value {
        self.try_ask(command)
            .await
            .unwrap_or_else(|| panic!("{} died", self.name))
    }

    pub async fn is_ready(&self) -> bool {
        self.ask(json!({"do": "ready"})).await == true
    }

    /// Asks for a coupon. The name of the user is also the request key.
    pub async fn issue(&self, coupon: u64, user: &str) -> Value {
        self.ask(json!({"do": "issue", "coupon": coupon, "user": user, "key": user}))
            .await
    }

    /// Returns the value of a metric: the sum over all labels, unless the name includes labels.
    pub async fn metric(&self, name: &str) -> f64 {
        self.ask(json!({"do": "metric", "name": name}))
            .await
            .as_f64()
            .unwrap()
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(&self) {
        self.worker.process().kill();
    }

    /// Stops the engine. Returns true if it stored, answered and handed off everything in time.
    pub async fn stop(&self) -> bool {
        self.ask(json!({"do": "stop", "limit_ms": STOP_LIMIT.as_millis() as u64}))
            .await
            == true
    }
}
