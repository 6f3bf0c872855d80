//! A database of its own on a shared server, with its coupons and nodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::offer::{Offer, Status};
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::ids::RequestKey;
use actors::store::mysql::{MySqlStore, Options};
use actors::store::{ClusterStore, NodeState};
use actors::time::timestamp;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use testkit::database_proxy::DatabaseProxy;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind, run};

use super::node::Node;

/// Lets one test run at a time, because each starts several processes.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub struct TestCluster {
    pub store: MySqlStore,
    url: String,
    /// The proxy between the nodes and the database, if there is one.
    proxy: Option<DatabaseProxy>,
    /// The server of this cluster alone; `None` on the shared server.
    server: Option<Server>,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl TestCluster {
    /// Makes a database on the shared server of this kind.
    pub async fn new(kind: ServerKind) -> Self {
        Self::on(Server::shared(kind), None).await
    }

    /// Makes a database on the shared server of this kind. Its nodes connect through a proxy.
    pub async fn behind_a_proxy(kind: ServerKind) -> Self {
        let server = Server::shared(kind);
        Self::on(server, Some(DatabaseProxy::before(server.port()).await)).await
    }

    /// Makes a database on a server of its own, whose commits can be delayed.
    pub async fn with_binary_log(kind: ServerKind) -> Self {
        let server = Server::own(kind, &["--log-bin=binlog", "--sync-binlog=0"]);
        let fixture = Self::on(&server, None).await;
        Self {
            server: Some(server),
            ..fixture
        }
    }

    async fn on(server: &Server, proxy: Option<DatabaseProxy>) -> Self {
        let turn = TURN.lock().await;
        let name = server.make_database("").await.unwrap();
        let store = MySqlStore::open(&Options::new(server.url(&name, None)))
            .await
            .unwrap();
        store.check().await.unwrap();
        Self {
            store,
            url: server.url(&name, proxy.as_ref().map(DatabaseProxy::port)),
            proxy,
            server: None,
            _turn: turn,
        }
    }

    /// Delays everything between the nodes and the database by this time, in each direction.
    pub fn delay_network(&self, each_way: Duration) {
        self.proxy.as_ref().unwrap().delay(each_way);
    }

    /// Delays every commit of the server by this time, and checks that a commit takes this long.
    pub async fn delay_commits(&self, delay: Duration) {
        let server = self.server.as_ref().unwrap();
        let settings = match server.kind() {
            ServerKind::MySql => format!(
                "SET GLOBAL binlog_group_commit_sync_delay = {}",
                delay.as_micros()
            ),
            ServerKind::MariaDb => format!(
                "SET GLOBAL binlog_commit_wait_count = 100000; SET GLOBAL binlog_commit_wait_usec = {}",
                delay.as_micros()
            ),
        };
        let probe = server.make_database("").await.unwrap();
        let mut shell = server.shell(&probe).await.unwrap();
        run(&mut shell, "CREATE TABLE probe (number INT)").await;
        sqlx::raw_sql(AssertSqlSafe(settings))
            .execute(&mut shell)
            .await
            .unwrap();
        let begun = Instant::now();
        run(&mut shell, "INSERT INTO probe VALUES (1)").await;
        assert!(begun.elapsed() >= delay, "a commit takes {:?}", begun.elapsed());
    }

    pub async fn coupon(&self, key: &str, total: Option<u64>) -> u64 {
        let offer = Offer {
            total_quantity: total,
            ..Offer::titled("test")
        };
        let new = NewCoupon {
            key: RequestKey::parse(key).unwrap(),
            offer,
            status: Status::Open,
            created_at: timestamp(),
            record: None,
        };
        match self.store.create_coupon(&new).await.unwrap() {
            Created::New(coupon) => coupon.id.get(),
            other => panic!("{other:?}"),
        }
    }

    /// Locks the rows of all shards until the connection is dropped, so that no entry can be stored.
    pub async fn lock_shards(&self) -> MySqlConnection {
        let mut connection = self
            .url
            .parse::<MySqlConnectOptions>()
            .unwrap()
            .connect()
            .await
            .unwrap();
        sqlx::raw_sql("BEGIN; SELECT * FROM shards FOR UPDATE")
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// Starts a node, and returns it once it is ready.
    pub async fn start(&self, name: &str) -> Arc<Node> {
        let node = Node::start(name, &self.url).await;
        eventually("a node is ready", async || node.is_ready().await).await;
        node
    }

    /// Returns how many shards each of these nodes owns according to the rows. Returns `None` if a shard has
    /// another owner or no owner.
    pub async fn shares(&self, names: &[&str]) -> Option<HashMap<String, usize>> {
        let nodes = self.store.nodes().await.unwrap();
        let living: HashMap<_, _> = nodes
            .iter()
            .filter(|node| node.state != NodeState::Ended)
            .map(|node| (node.incarnation, node.id.to_string()))
            .collect();
        let mut shares = HashMap::new();
        for row in self.store.shards().await.unwrap() {
            let owner = living.get(&row.owner?)?;
            names.contains(&owner.as_str()).then_some(())?;
            *shares.entry(owner.clone()).or_default() += 1;
        }
        Some(shares)
    }

    /// Waits until these nodes own all shards, and each node owns some.
    pub async fn spread_over(&self, names: &[&str]) {
        eventually("shards are spread", async || {
            self.shares(names)
                .await
                .is_some_and(|shares| shares.len() == names.len())
        })
        .await;
    }

    /// Waits until no shard has moved for five beats of every node. A hand-off that was due would have
    /// happened in that time.
    pub async fn at_rest(&self) {
        const BEATS: u64 = 5;
        let seen = Mutex::new((Vec::new(), HashMap::new()));
        let rested = async || {
            let (shards, nodes) = (
                self.store.shards().await.unwrap(),
                self.store.nodes().await.unwrap(),
            );
            let nodes = nodes.into_iter().filter(|node| node.state != NodeState::Ended);
            let beats: HashMap<_, _> = nodes.map(|node| (node.incarnation, node.beat)).collect();
            let mut seen = seen.lock().unwrap();
            if seen.0 != shards || seen.1.len() != beats.len() {
                *seen = (shards, beats);
                return false;
            }
            seen.1
                .iter()
                .all(|(node, before)| beats.get(node).is_some_and(|beat| *beat >= before + BEATS))
        };
        eventually("shards are at rest", rested).await;
    }

    /// Returns the name of the node that has the coupon's shard.
    pub async fn owner_of(&self, coupon: u64) -> Option<String> {
        let shard = CouponId::new(coupon).unwrap().shard();
        let row = self
            .store
            .shards()
            .await
            .unwrap()
            .into_iter()
            .find(|row| row.id == shard)?;
        let nodes = self.store.nodes().await.unwrap();
        nodes
            .into_iter()
            .find(|node| Some(node.incarnation) == row.owner)
            .map(|node| node.id.to_string())
    }

    /// Returns the users who have the coupon, in order of sequence. Checks that sequences run 1, 2, 3 …
    /// without a gap.
    pub async fn holders(&self, coupon: u64) -> Vec<String> {
        let coupon = CouponId::new(coupon).unwrap();
        let mut holders = Vec::new();
        loop {
            let after = Sequence::new(holders.len() as u64);
            let page = self
                .store
                .issuances_of_coupon(coupon, None, after, 200)
                .await
                .unwrap();
            if page.is_empty() {
                return holders;
            }
            for issuance in page {
                assert_eq!(
                    issuance.id.sequence.get(),
                    holders.len() as u64 + 1,
                    "coupon {coupon} has a gap"
                );
                holders.push(issuance.user.to_string());
            }
        }
    }
}
