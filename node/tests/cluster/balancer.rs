//! A load balancer: it polls the readiness of every node and sends clients to the nodes that are ready.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Response};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Time between two polls, far below the time for which a node serves after it reports that it is not ready.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a node may take to answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Sends clients to ready nodes until it is dropped.
pub struct Balancer(JoinHandle<()>);

impl Balancer {
    /// Polls these nodes, and gives clients the addresses of ready nodes. While no node is ready, clients
    /// keep the addresses that they have.
    pub fn over(nodes: Vec<String>, clients: watch::Sender<Vec<String>>) -> Self {
        // The balancer has its own connections, so that it does not wait for other requests.
        let client = Client::builder().timeout(LIMIT).build().unwrap();
        Self(tokio::spawn(async move {
            loop {
                // All nodes are polled at once, so that a slow answer does not delay the others.
                let answers = join_all(
                    nodes
                        .iter()
                        .map(|node| client.get(format!("http://{node}/readyz")).send()),
                )
                .await;
                let is_ready = |answer: &reqwest::Result<Response>| {
                    answer.as_ref().is_ok_and(|answer| answer.status() == 200)
                };
                let ready = nodes
                    .iter()
                    .zip(&answers)
                    .filter(|(_, answer)| is_ready(answer))
                    .map(|(node, _)| node.clone());
                let ready: Vec<String> = ready.collect();
                clients.send_if_modified(|before| {
                    let changes = !ready.is_empty() && *before != ready;
                    if changes {
                        *before = ready;
                    }
                    changes
                });
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
