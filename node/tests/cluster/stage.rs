//! Several nodes over one database, clients of all of them, and an operator's view.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testkit::poll::eventually;

use actors::cluster::placement::Plan;
use actors::ids::{NodeId, SHARDS, ShardId};
use actors::owning::door::DOOR_TTL;
use reqwest::Client;
use serde_json::Value;
use testkit::checker::{Options, Report};
use testkit::servers::Server;

use crate::member::Member;
use testkit::clients::{Clients, from_environment};
use testkit::node::ADMIN_TOKEN;
use testkit::recorder::HttpRecorder;

/// Number of nodes unless a test needs another.
pub const NODES: usize = 3;

/// Number of clients, and the pause of each client between requests. The load is high enough for every fault
/// to affect requests, and low enough for two processors to run all these processes.
const CLIENTS: u64 = 12;
const PACE: Duration = Duration::from_millis(10);

/// Longer than any request takes until it is answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Nodes with their database.
pub struct Stage {
    pub members: Vec<Member>,
    pub client: Client,
    pub history: Arc<HttpRecorder>,
    next: AtomicU64,
}

impl Stage {
    /// Prepares this many nodes with these keys over an empty database of the server, without starting them.
    pub async fn unstarted(server: &Server, nodes: usize, keys: &[&str], has_link_proxies: bool) -> Self {
        let name = server.make_writable_database().await;
        let mut members = Vec::new();
        for number in 1..=nodes {
            members.push(Member::new(number, server, &name, keys, has_link_proxies).await);
        }
        let client = Client::builder().timeout(ANSWER_LIMIT).build().unwrap();
        Self {
            members,
            client,
            history: Arc::default(),
            next: AtomicU64::new(1),
        }
    }

    /// Starts three nodes. Returns once they are ready and share the shards as planned.
    pub async fn on(server: &Server, keys: &[&str], has_link_proxies: bool) -> Self {
        let mut stage = Self::unstarted(server, NODES, keys, has_link_proxies).await;
        stage.start(&[0, 1, 2]);
        stage.settled().await;
        stage
    }

    /// Starts these nodes at the same time. Returns once they are ready.
    pub fn start(&mut self, which: &[usize]) {
        let members = self
            .members
            .iter_mut()
            .enumerate()
            .filter(|(number, _)| which.contains(number));
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| members.for_each(|(_, member)| drop(scope.spawn(|| member.start()))));
        });
    }

    /// Asks a node to stop. Returns once it has stopped.
    pub fn stop(&mut self, which: usize) {
        tokio::task::block_in_place(|| self.members[which].stop());
    }

    /// Returns the nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_running())
    }

    /// Returns the addresses of all nodes, running or not.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// Starts clients and an administrator of three coupons, at the nodes that run now.
    pub async fn clients(&self) -> (Clients, [u64; 3]) {
        let seed = from_environment("FIRSTCOME_SEED").unwrap_or_else(rand::random);
        println!("FIRSTCOME_SEED={seed}");
        let addresses: Vec<String> = self.running().map(|member| member.address.clone()).collect();
        let coupons = Clients::coupons(&self.client, &addresses[0], &self.history).await;
        (
            Clients::begin(
                CLIENTS,
                PACE,
                seed,
                &self.client,
                &addresses,
                &self.history,
                coupons,
            ),
            coupons,
        )
    }

    /// Makes a coupon with a limit of one per user.
    pub async fn coupon(&self, total_quantity: Option<u64>) -> u64 {
        let member = self.running().next().expect("a running node");
        self.history
            .create(&self.client, &member.address, total_quantity, 1)
            .await
    }

    /// Makes a coupon without a limit that this node owns.
    pub async fn coupon_of(&self, which: usize) -> u64 {
        // A third of all coupons have this owner.
        for _ in 0..100 {
            let coupon = self.coupon(None).await;
            if self.owner(which, coupon).await.as_deref() == Some(&self.members[which].name) {
                return coupon;
            }
        }
        panic!("{} owns nothing", self.members[which].name);
    }

    /// Returns the name of the coupon's owner, as a node sees it.
    pub async fn owner(&self, asked: usize, coupon: u64) -> Option<String> {
        let (status, body) = self
            .operator(asked, &format!("/v1/cluster/coupons/{coupon}"))
            .await?;
        assert_eq!(status, 200, "{body}");
        body["owner"].as_str().map(str::to_owned)
    }

    /// Returns the incarnation of a node, as another node sees it.
    pub async fn incarnation(&self, asked: usize, of: usize) -> String {
        let (status, view) = self.operator(asked, "/v1/cluster").await.expect("an answer");
        assert_eq!(status, 200, "{view}");
        let node = view["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|node| node["id"] == self.members[of].name.as_str());
        node.expect("a node with a row")["incarnation"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Returns a node's answer to an administrator; `None` if there is no answer.
    pub async fn operator(&self, asked: usize, path: &str) -> Option<(u16, Value)> {
        let request = self
            .client
            .get(format!("http://{}{path}", self.members[asked].address))
            .bearer_auth(ADMIN_TOKEN);
        let response = request.send().await.ok()?;
        Some((response.status().as_u16(), response.json().await.ok()?))
    }

    /// Requests the coupon at a node, for one user with one key, until it is issued. Returns how long that
    /// took.
    pub async fn until_issued(&self, asked: usize, coupon: u64) -> Duration {
        let (number, begun) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        let (user, key) = (format!("prober-{number}"), format!("probe-{number}"));
        let address = &self.members[asked].address;
        eventually("the coupon is issued", async || {
            matches!(
                self.history
                    .issue(&self.client, address, coupon, &user, &key)
                    .await,
                Some((201, _))
            )
        })
        .await;
        begun.elapsed()
    }

    /// Waits until more coupons have been issued.
    pub async fn goes_on(&self) {
        let before = self.history.issued();
        eventually("coupons are issued", async || {
            self.history.issued() > before + CLIENTS
        })
        .await;
    }

    /// Returns the reasons why a node is not ready; empty if the node is ready.
    pub async fn reasons(&self, asked: usize) -> Vec<String> {
        let Ok(response) = self
            .client
            .get(format!("http://{}/readyz", self.members[asked].address))
            .send()
            .await
        else {
            return vec!["no answer".to_owned()];
        };
        let (is_ready, body) = (response.status() == 200, response.json::<Value>().await.unwrap());
        let reasons: Vec<String> = body.get("reasons").map_or(Vec::new(), |reasons| {
            serde_json::from_value(reasons.clone()).unwrap()
        });
        assert_eq!(is_ready, reasons.is_empty(), "{body}");
        reasons
    }

    /// Waits until a node says that it is not ready, for one of these reasons.
    pub async fn not_ready(&self, asked: usize, reasons: &[&str]) {
        eventually(&format!("/readyz says one of {reasons:?}"), async || {
            self.reasons(asked)
                .await
                .iter()
                .any(|said| reasons.contains(&said.as_str()))
        })
        .await;
    }

    /// Waits until all running nodes are ready and share all shards as planned.
    pub async fn settled(&self) {
        let all: Vec<usize> = (0..self.members.len())
            .filter(|number| self.members[*number].is_running())
            .collect();
        self.settled_among(&all).await;
    }

    /// Waits until these nodes are ready and share all shards as planned.
    pub async fn settled_among(&self, which: &[usize]) {
        eventually(&format!("nodes {which:?} share all shards"), async || {
            for number in which {
                if !self.reasons(*number).await.is_empty() || !self.sees_shared(*number, which).await {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// True if `asked` reports for every shard the owner that the plan for these nodes gives.
    async fn sees_shared(&self, asked: usize, which: &[usize]) -> bool {
        let Some((200, view)) = self.operator(asked, "/v1/cluster").await else {
            return false;
        };
        let shards = view["shards"].as_array().unwrap();
        assert_eq!(shards.len(), usize::from(SHARDS));
        let plan = Plan::new(
            which
                .iter()
                .map(|number| NodeId::parse(&self.members[*number].name).unwrap()),
        );
        ShardId::all()
            .zip(shards)
            .all(|(id, shard)| shard["owner"].as_str() == plan.owner_of(id).map(NodeId::as_str))
    }

    /// Returns the value of a node's metric; 0 if the metric is missing. `name` includes the labels, as they
    /// are written.
    pub async fn metric(&self, asked: usize, name: &str) -> f64 {
        let response = self
            .client
            .get(format!("http://{}/metrics", self.members[asked].address))
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        testkit::prometheus::value(&text, name)
    }

    /// Checks what clients saw against the stored rows, read through a running node. Also checks that no
    /// running node counted a contradiction or a panic.
    pub async fn judge(&self) -> Report {
        for (number, member) in self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.is_running())
        {
            for never in ["coupon_contradictions_total", "coupon_owner_panics_total"] {
                assert_eq!(
                    self.metric(number, never).await,
                    0.0,
                    "{never} at {}",
                    member.name
                );
            }
        }
        let member = self.running().last().expect("a running node");
        // Only a change that widens waits for doors. After any other change, other nodes may use the former
        // version for this long.
        let options = Options {
            narrowing_lag: DOOR_TTL,
            ..Options::default()
        };
        self.history.judge_by(&member.address, &options).await
    }
}
