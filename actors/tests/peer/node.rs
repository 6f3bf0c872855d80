//! A node in a process of its own, as a test sees it.

use serde_json::{Value, json};
use testkit::poll::{LIMIT, eventually};
use testkit::process::Signal;
use testkit::worker::Worker;

pub struct Node {
    pub name: String,
    pub incarnation: u64,
    pub port: u16,
    worker: Worker,
}

impl Node {
    /// Starts a node of this name and incarnation, with the usual configuration.
    pub async fn start(name: &str, incarnation: u64) -> Self {
        Self::start_with(name, incarnation, json!({})).await
    }

    /// Starts a node with these changes to the usual configuration.
    pub async fn start_with(name: &str, incarnation: u64, other: Value) -> Self {
        let mut configuration =
            json!({"node": name, "incarnation": incarnation, "cluster": "test", "cookie": "crumbs"});
        configuration
            .as_object_mut()
            .unwrap()
            .extend(other.as_object().unwrap().clone());
        let label = format!("{name}-{incarnation}");
        let (worker, started) = Worker::start("a_node", &label, &configuration).await;
        let port = started["port"].as_u64().unwrap_or_else(|| panic!("{started}"));
        Self {
            name: name.to_owned(),
            incarnation,
            port: u16::try_from(port).unwrap(),
            worker,
        }
    }

    /// Tells this node its peers, each with the port at which to dial the peer: the peer's own port or the
    /// port of a proxy.
    pub async fn know(&self, peers: &[(&Node, u16)]) {
        let peer = |(peer, port): &(&Node, u16)| json!({"node": peer.name, "incarnation": peer.incarnation, "address": format!("127.0.0.1:{port}")});
        let peers: Vec<Value> = peers.iter().map(peer).collect();
        self.say(&json!({"do": "know", "peers": peers})).await;
    }

    /// Sends a command that has no answer.
    pub async fn say(&self, command: &Value) {
        self.worker.send(command);
    }

    /// Sends a command and waits for the answer.
    pub async fn ask(&self, command: Value) -> Value {
        let answer = self.worker.request(command).await;
        answer.unwrap_or_else(|| panic!("{} died", self.name))
    }

    /// Asks the coupon's owner at the peer for the coupon.
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

    /// Returns the value of a metric: the sum over all labels, unless the name includes labels.
    pub async fn metric(&self, name: &str) -> f64 {
        self.ask(json!({"do": "metric", "name": name}))
            .await
            .as_f64()
            .unwrap()
    }

    /// Returns how many lines of the node's log contain `what`.
    pub fn logged(&self, what: &str) -> usize {
        let log = self.worker.process().log();
        log.lines().filter(|line| line.contains(what)).count()
    }

    /// Returns the node's log.
    pub fn log(&self) -> String {
        self.worker.process().log()
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(&mut self) {
        self.worker.process().kill();
    }

    /// Waits until the process ends by itself, and returns its exit code.
    pub async fn ends(&mut self) -> Option<i32> {
        let status = self.worker.process().ended(LIMIT).await.unwrap();
        status.expect("the node ends").code()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.worker.process().signal(signal).unwrap();
    }
}

/// Starts two nodes, and links them.
pub async fn linked_pair() -> (Node, Node) {
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start("b", 2));
    link(&a, &b).await;
    (a, b)
}

/// Names two nodes to each other, and waits until both are linked.
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
