//! Three nodes of one cluster, over one store, as child processes.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use actors::ids::SHARDS;
use reqwest::{Client, StatusCode};
use serde::Deserialize;

use super::ANSWER_LIMIT;
use super::children::ADMIN_TOKEN;
use crate::cluster::node::ClusterNode;
use crate::load::Failed;
use testkit::ports::free_port;

/// Number of nodes.
pub(crate) const NODES: usize = 3;
/// How long nodes may take to start, to stop, or to share the shards.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two checks.
const POLL: Duration = Duration::from_millis(20);

/// The nodes, by index.
pub(crate) struct Three {
    nodes: Vec<ClusterNode>,
    client: Client,
}

/// The owner of each shard, by its number.
pub(crate) type Owners = HashMap<u16, Option<String>>;

#[derive(Debug, Deserialize)]
struct View {
    shards: Vec<Shard>,
}

#[derive(Debug, Deserialize)]
struct Shard {
    id: u16,
    owner: Option<String>,
}

impl Three {
    /// Starts nodes of this program over this store, and waits until they share the shards and no shard
    /// moves. `scratch` is a directory for their logs and their data.
    pub(crate) async fn start(program: &Path, scratch: &Path, store_url: &str) -> Result<Self, Failed> {
        let program = program.canonicalize()?;
        let directory = tempfile::Builder::new()
            .prefix("three-")
            .tempdir_in(scratch)?
            .keep();
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let name = format!("node-{number}");
            let keys = [
                ("data_dir", "data".to_owned()),
                ("node.id", name.clone()),
                ("http.listen", free_address()),
                ("store.url", store_url.to_owned()),
                ("cluster.listen", free_address()),
                ("cluster.cookie", "a-cookie-of-no-importance".to_owned()),
                ("auth.admin_token", ADMIN_TOKEN.to_owned()),
                ("log.level", "error".to_owned()),
                // Time for clients to switch to other nodes.
                ("shutdown.delay", "200ms".to_owned()),
            ];
            nodes.push(ClusterNode::start(
                &name,
                &program,
                &directory.join(&name),
                &keys,
                &[],
            )?);
        }
        let three = Self {
            nodes,
            client: Client::builder().timeout(ANSWER_LIMIT).no_proxy().build()?,
        };
        three.settled().await?;
        three.at_rest().await?;
        Ok(three)
    }

    /// Returns a client for requests that are not part of the load.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn node(&self, place: usize) -> &ClusterNode {
        &self.nodes[place % NODES]
    }

    /// Returns the index of the node with this name.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name() == name)
    }

    /// Returns the URLs of the running nodes, without that of the node at the index `but`.
    pub(crate) fn urls(&self, but: Option<usize>) -> Vec<String> {
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(place, node)| node.is_running() && Some(*place) != but);
        others.map(|(_, node)| node.url().to_owned()).collect()
    }

    /// Returns the shards' owners, as this node sees them.
    pub(crate) async fn owners(&self, node: &ClusterNode) -> Result<Owners, Failed> {
        let request = self
            .client
            .get(format!("{}/v1/cluster", node.url()))
            .bearer_auth(ADMIN_TOKEN);
        let view: View = request.send().await?.error_for_status()?.json().await?;
        Ok(view
            .shards
            .into_iter()
            .map(|shard| (shard.id, shard.owner))
            .collect())
    }

    /// Waits until all running nodes are ready and share the shards: each has at least half of an equal
    /// share.
    pub(crate) async fn settled(&self) -> Result<(), Failed> {
        let begun = Instant::now();
        let running: Vec<&ClusterNode> = self.nodes.iter().filter(|node| node.is_running()).collect();
        let share = usize::from(SHARDS) / running.len() / 2;
        loop {
            let mut all = true;
            for node in &running {
                let ready = self
                    .client
                    .get(format!("{}/readyz", node.url()))
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status() == StatusCode::OK);
                let owners = if ready {
                    self.owners(node).await.unwrap_or_default()
                } else {
                    HashMap::new()
                };
                let of = |name: &str| {
                    owners
                        .values()
                        .filter(|owner| owner.as_deref() == Some(name))
                        .count()
                };
                let shares: Vec<usize> = running.iter().map(|node| of(node.name())).collect();
                all &= shares.iter().all(|has| *has >= share)
                    && shares.iter().sum::<usize>() == usize::from(SHARDS);
            }
            if all {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                let log: Vec<String> = running.iter().map(|node| node.last_lines()).collect();
                return Err(format!(
                    "the nodes do not share the shards within {LIMIT:?}\n{}",
                    log.join("\n")
                )
                .into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until no shard has moved for longer than five beats. That is how long a hand-off waits for the
    /// next owner to load ahead.
    pub(crate) async fn at_rest(&self) -> Result<(), Failed> {
        const REST: Duration = Duration::from_millis(2_400);
        let begun = Instant::now();
        let node = self
            .nodes
            .iter()
            .find(|node| node.is_running())
            .ok_or("no node runs")?;
        loop {
            let before = self.owners(node).await?;
            tokio::time::sleep(REST).await;
            if self.owners(node).await? == before {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("shards still move after {LIMIT:?}").into());
            }
        }
    }

    /// Stops a node with SIGTERM.
    pub(crate) async fn stop(&mut self, place: usize) -> Result<(), Failed> {
        let node = &mut self.nodes[place];
        node.stop(LIMIT)
            .await
            .map_err(|how| format!("{} did not stop as it should: {how}", node.name()).into())
    }

    /// Stops all nodes one after the other.
    pub(crate) async fn stop_all(&mut self) -> Result<(), Failed> {
        for place in 0..NODES {
            self.stop(place).await?;
        }
        Ok(())
    }

    /// Starts a stopped node again.
    pub(crate) fn start_again(&mut self, place: usize) -> Result<(), Failed> {
        self.nodes[place].start_again()
    }
}

/// Returns a free address. The system does not give the port to a connection before the node listens there.
fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}
