//! A node, the proxy in front of its database server, and clients.

use crate::FIRSTCOME;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::poll::eventually;

use reqwest::Client;
use serde_json::Value;
use sqlx::mysql::MySqlConnection;
use tempfile::TempDir;
use testkit::database_proxy::DatabaseProxy;
use testkit::servers::Server;

use testkit::clients::{Clients, Quiet, from_environment};
use testkit::node::Node;
use testkit::recorder::{Answer, HttpRecorder};

/// A node with its database.
pub struct Stage<'s> {
    pub server: &'s Server,
    pub database: String,
    pub proxy: DatabaseProxy,
    pub node: Node,
    pub client: Client,
    pub history: Arc<HttpRecorder>,
    _data: TempDir,
}

impl<'s> Stage<'s> {
    /// Starts a node with these keys on an empty database of the server. Returns once the node is ready.
    pub async fn on(server: &'s Server, keys: &[&str]) -> Self {
        let (proxy, database, data) = (
            DatabaseProxy::before(server.port()).await,
            server.make_writable_database().await,
            tempfile::tempdir().unwrap(),
        );
        let mut all = vec![format!("store.url={}", server.url(&database, Some(proxy.port())))];
        all.extend(keys.iter().map(|key| (*key).to_owned()));
        let node = tokio::task::block_in_place(|| Node::start(FIRSTCOME, data.path(), &all));
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        Self {
            server,
            database,
            proxy,
            node,
            client,
            history: Arc::default(),
            _data: data,
        }
    }

    /// Starts this many clients and an administrator of three coupons.
    pub async fn clients(&self, number: u64) -> (Clients, [u64; 3]) {
        let seed = from_environment("FIRSTCOME_SEED").unwrap_or_else(rand::random);
        println!("FIRSTCOME_SEED={seed}");
        let coupons = Clients::coupons(&self.client, &self.node.address, &self.history).await;
        let clients = Clients::begin(
            number,
            Duration::ZERO,
            seed,
            &self.client,
            std::slice::from_ref(&self.node.address),
            &self.history,
            coupons,
        );
        (clients, coupons)
    }

    /// Makes a coupon with a limit of one per user.
    pub async fn coupon(&self, total_quantity: Option<u64>) -> u64 {
        self.history
            .create(&self.client, &self.node.address, total_quantity, 1)
            .await
    }

    /// Requests the coupon for a user. Returns the answer and how long it took.
    pub async fn issue(&self, coupon: u64, user: &str, key: &str) -> (Answer, Duration) {
        let begun = Instant::now();
        let answer = self
            .history
            .issue(&self.client, &self.node.address, coupon, user, key)
            .await;
        (answer.expect("the node answers"), begun.elapsed())
    }

    /// Changes a coupon as an administrator.
    pub async fn change(&self, coupon: u64, change: impl Into<Value>) {
        let answer = self
            .history
            .change(&self.client, &self.node.address, coupon, change.into())
            .await;
        assert!(matches!(answer, Some((200, _))), "{answer:?}");
    }

    /// Opens all coupons and keeps them and their issuances from being changed until the guard is dropped.
    pub async fn without_changes(&self, clients: &Clients, coupons: [u64; 3]) -> Quiet {
        let quiet = clients.without_changes().await;
        for coupon in coupons {
            self.change(coupon, "resume").await;
        }
        quiet
    }

    /// Connects to the node's database as the server's administrator, past the proxy.
    pub async fn shell(&self) -> MySqlConnection {
        self.server.shell(&self.database).await.unwrap()
    }

    /// Returns the reasons why the node is not ready; empty if the node is ready.
    pub async fn reasons(&self) -> Vec<String> {
        let response = self
            .client
            .get(format!("http://{}/readyz", self.node.address))
            .send()
            .await
            .unwrap();
        let (is_ready, body) = (response.status() == 200, response.json::<Value>().await.unwrap());
        let reasons: Vec<String> = body.get("reasons").map_or(Vec::new(), |reasons| {
            serde_json::from_value(reasons.clone()).unwrap()
        });
        assert_eq!(is_ready, reasons.is_empty(), "{body}");
        reasons
    }

    /// Waits until the node is not ready for this reason.
    pub async fn not_ready(&self, reason: &str) {
        eventually(&format!("/readyz says {reason}"), async || {
            self.reasons().await.iter().any(|said| said == reason)
        })
        .await;
    }

    /// Waits until the node is ready.
    pub async fn ready(&self) {
        eventually("/readyz says 200", async || self.reasons().await.is_empty()).await;
    }

    /// Returns the value of a metric; 0 if the metric is missing. `name` includes the labels, as they are
    /// written.
    pub async fn metric(&self, name: &str) -> f64 {
        let response = self
            .client
            .get(format!("http://{}/metrics", self.node.address))
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        testkit::prometheus::value(&text, name)
    }

    /// Waits until another coupon is issued.
    pub async fn goes_on(&self) {
        let issued = r#"coupon_issue_total{outcome="issued"}"#;
        let before = self.metric(issued).await;
        eventually("coupons are issued", async || self.metric(issued).await > before).await;
    }

    /// Waits until the log contains this text more often than before.
    pub async fn logs(&self, what: &str, before: usize) {
        eventually(&format!("the log says {what}"), async || {
            self.logged(what) > before
        })
        .await;
    }

    /// Returns how often the log contains this text.
    pub fn logged(&self, what: &str) -> usize {
        self.node.log().matches(what).count()
    }
}
