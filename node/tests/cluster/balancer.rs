//! What a load balancer does: asks every node whether it is ready, and sends people to those that are.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Response};
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
                // All at once: one that is slow to answer must not keep what another says.
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
