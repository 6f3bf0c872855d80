//! What a load balancer does: asks every node whether it is ready, and sends people to those that are.

use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Time between two questions: far below the time for which a node goes on serving after it has said no.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long a node may take to answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Sends people to nodes that are ready; until it is dropped.
pub struct Balancer(JoinHandle<()>);

impl Balancer {
    /// Over these nodes. While none is ready, people go where they went before.
    pub fn over(nodes: Vec<String>, people: watch::Sender<Vec<String>>) -> Self {
        // Connections of its own: it must not wait for anybody else.
        let client = Client::builder().timeout(LIMIT).build().unwrap();
        Self(tokio::spawn(async move {
            loop {
                let mut ready = Vec::new();
                for node in &nodes {
                    let answer = client.get(format!("http://{node}/readyz")).send().await;
                    if answer.is_ok_and(|answer| answer.status() == 200) {
                        ready.push(node.clone());
                    }
                }
                people.send_if_modified(|before| {
                    let changes = !ready.is_empty() && *before != ready;
                    if changes {
                        *before = ready;
                    }
                    changes
                });
                tokio::time::sleep(ASK_EVERY).await;
            }
        }))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
