//! A node as a child process, a proxy between it and its database server, and clients.

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
use tokio::sync::OwnedMutexGuard;

use testkit::clients::{Clients, TOTAL, from_environment};
use testkit::node::Node;
use testkit::recorder::{Answer, HttpRecorder};

/// A node before its database.
pub struct Stage<'s> {
    pub server: &'s Server,
    pub database: String,
    pub proxy: DatabaseProxy,
    pub process: Node,
    pub client: Client,
    pub history: Arc<HttpRecorder>,
    _data: TempDir,
}

impl<'s> Stage<'s> {
    /// A node that is ready, with these keys, on an empty database of the server.
    pub async fn on(server: &'s Server, keys: &[&str]) -> Self {
        let (proxy, database, data) = (
            DatabaseProxy::before(server.port()).await,
            server.make_writable_database().await,
            tempfile::tempdir().unwrap(),
        );
        let mut all = vec![format!("store.url={}", server.url(&database, Some(proxy.port())))];
        all.extend(keys.iter().map(|key| (*key).to_owned()));
        let process = tokio::task::block_in_place(|| Node::start(FIRSTCOME, data.path(), &all));
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        Self {
            server,
            database,
            proxy,
            process,
            client,
            history: Arc::default(),
            _data: data,
        }
    }

    /// So many clients and an administrator at work on two coupons.
    pub async fn clients(&self, number: u64) -> (Clients, [u64; 2]) {
        let seed = from_environment("FIRSTCOME_SEED").unwrap_or_else(rand::random);
        println!("FIRSTCOME_SEED={seed}");
        let coupons = [self.coupon(Some(TOTAL)).await, self.coupon(None).await];
        let clients = Clients::begin(
            number,
            Duration::ZERO,
            seed,
            &self.client,
            std::slice::from_ref(&self.process.address),
            &self.history,
            coupons,
        );
        (clients, coupons)
    }

    /// A coupon of which a user may have one.
    pub async fn coupon(&self, total_quantity: Option<u64>) -> u64 {
        self.history
            .create(&self.client, &self.process.address, total_quantity, 1)
            .await
    }

    /// A user asks, on record; the answer, and how long it took.
    pub async fn issue(&self, coupon: u64, user: &str, key: &str) -> (Answer, Duration) {
        let begun = Instant::now();
        let answer = self
            .history
            .issue(&self.client, &self.process.address, coupon, user, key)
            .await;
        (answer.expect("the process answers"), begun.elapsed())
    }

    /// An administrator changes a coupon, on record.
    pub async fn change(&self, coupon: u64, change: impl Into<Value>) {
        let answer = self
            .history
            .change(&self.client, &self.process.address, coupon, change.into())
            .await;
        assert!(matches!(answer, Some((200, _))), "{answer:?}");
    }

    /// Both coupons are open, and the administrator leaves them so until what this gives is dropped.
    pub async fn without_changes(&self, clients: &Clients, coupons: [u64; 2]) -> OwnedMutexGuard<()> {
        let quiet = clients.without_changes().await;
        for coupon in coupons {
            self.change(coupon, "resume").await;
        }
        quiet
    }

    /// A connection of the server's administrator, in the node's database, past the proxy.
    pub async fn shell(&self) -> MySqlConnection {
        self.server.shell(&self.database).await.unwrap()
    }

    /// Why it is not ready; nothing if it is.
    pub async fn reasons(&self) -> Vec<String> {
        let response = self
            .client
            .get(format!("http://{}/readyz", self.process.address))
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

    /// Waits until it says of itself that it is not ready, and why.
    pub async fn not_ready(&self, reason: &str) {
        eventually(&format!("/readyz says {reason}"), async || {
            self.reasons().await.iter().any(|said| said == reason)
        })
        .await;
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        eventually("/readyz says 200", async || self.reasons().await.is_empty()).await;
    }

    /// A metric, by its name and labels as they are shown; 0 where it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let response = self
            .client
            .get(format!("http://{}/metrics", self.process.address))
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until coupons are issued, from now on.
    pub async fn goes_on(&self) {
        let issued = r#"coupon_issue_total{outcome="issued"}"#;
        let before = self.metric(issued).await;
        eventually("coupons are issued", async || self.metric(issued).await > before).await;
    }

    /// Waits until the log says this once more than it did before.
    pub async fn logs(&self, what: &str, before: usize) {
        eventually(&format!("the log says {what}"), async || {
            self.logged(what) > before
        })
        .await;
    }

    /// How often the log has said this.
    pub fn logged(&self, what: &str) -> usize {
        self.process.log().matches(what).count()
    }
}
