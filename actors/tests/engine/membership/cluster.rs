//! A database with nodes on it, each of which has only what membership needs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::admission::Admission;
use actors::cluster::lease::Lease;
use actors::cluster::membership::life_record::LifeRecord;
use actors::cluster::membership::{JoinError, Membership, MembershipContext, Options};
use actors::cluster::ownership::{Holder, Ownership};
use actors::cluster::peers::Peers;
use actors::cluster::placement::Plan;
use actors::coupon::CouponKind;
use actors::engine::local::EngineShards;
use actors::ids::{Incarnation, NodeId, ShardId};
use actors::owning::door::{Board, Door};
use actors::owning::owner::actor::OwnerContext;
use actors::owning::shard::moves::Moves;
use actors::owning::shard::{ShardContext, ShardHandle};
use actors::owning::write_back::Lanes;
use actors::store::sqlite::{Options as SqliteOptions, SqliteStore};
use actors::store::{ClusterStore, NodeRow, ShardRow, Store};
use actors::trace::Spans;
use testkit::poll::eventually;
use tokio::sync::Semaphore;

use super::links::{Links, Mesh};
use super::shards::Shards;
use crate::faults::{Faults, Faulty};

pub const LEASE: Duration = Duration::from_millis(1_500);
const BEAT: Duration = Duration::from_millis(100);

/// A database, and the links between the nodes on it.
pub struct Cluster {
    pub store: Arc<SqliteStore>,
    pub mesh: Arc<Mutex<Mesh>>,
    _folder: tempfile::TempDir,
}

pub struct Node {
    pub id: NodeId,
    pub membership: Membership,
    pub lease: Lease,
    ownership: Ownership,
    pub faults: Arc<Faults>,
    pub links: Arc<Links>,
}

/// What the parts of a node share.
struct Parts {
    store: Arc<dyn Store<CouponKind>>,
    lease: Lease,
    ownership: Ownership,
    peers: Arc<dyn Peers>,
}

impl Parts {
    /// Starts the actors of all shards.
    async fn start_shards(&self) -> EngineShards<CouponKind> {
        let (door, board) = (Arc::new(Door::default()), Arc::new(Board::default()));
        let context = self.shard_context(&door, &board);
        let mut shards = Vec::new();
        for id in ShardId::all() {
            shards.push(ShardHandle::start(id, context.clone()).await.unwrap());
        }
        EngineShards {
            shards: shards.into(),
            door,
            board,
            links: None,
        }
    }

    fn shard_context(
        &self,
        door: &Arc<Door<CouponKind>>,
        board: &Arc<Board<CouponKind>>,
    ) -> ShardContext<CouponKind> {
        ShardContext {
            store: Arc::clone(&self.store),
            moves: Moves::start(Arc::clone(&self.store) as Arc<dyn ClusterStore>),
            owners: OwnerContext {
                lease: self.lease.clone(),
                lanes: Lanes::start(2, 16, &self.store, &self.lease, &Spans::default()),
                board: Arc::clone(board),
                door: Arc::clone(door),
                idle: Duration::from_secs(60),
                requests_max: 16,
            },
            loads: Arc::new(Semaphore::new(1)),
            loads_waiting: Admission::new(16),
            loads_ahead: Arc::new(Semaphore::new(1)),
            places: Admission::new(16),
            ownership: self.ownership.clone(),
            peers: Arc::clone(&self.peers),
        }
    }
}

impl Cluster {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(
            SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
                .await
                .unwrap(),
        );
        store.check().await.unwrap();
        Self {
            store,
            mesh: Arc::default(),
            _folder: folder,
        }
    }

    /// Starts one node, and waits until it has all shards.
    pub async fn with_one() -> (Self, Node) {
        let cluster = Self::new().await;
        let one = cluster.start("one", "1:1").await.unwrap();
        cluster.placed_on(&[&one]).await;
        (cluster, one)
    }

    /// Starts two nodes, and waits until each has its shards.
    pub async fn with_two() -> (Self, Node, Node) {
        let cluster = Self::new().await;
        let one = cluster.start("one", "1:1").await.unwrap();
        let two = cluster.start("two", "2:2").await.unwrap();
        cluster.placed_on(&[&one, &two]).await;
        (cluster, one, two)
    }

    pub async fn start(&self, name: &str, cluster: &str) -> Result<Node, JoinError> {
        self.start_with(name, cluster, Faults::default()).await
    }

    pub async fn start_with(&self, name: &str, cluster: &str, faults: Faults) -> Result<Node, JoinError> {
        self.start_again(name, cluster, faults, LifeRecord::default())
            .await
    }

    /// Starts a node that has this record of its incarnations.
    pub async fn start_again(
        &self,
        name: &str,
        cluster: &str,
        faults: Faults,
        record: LifeRecord,
    ) -> Result<Node, JoinError> {
        let faults = Arc::new(faults);
        faults.share();
        let links = self.new_links();
        let parts = Parts {
            store: Arc::new(Faulty::new(Arc::clone(&self.store), Arc::clone(&faults))),
            lease: Lease::default(),
            ownership: Ownership::default(),
            peers: Arc::clone(&links) as Arc<dyn Peers>,
        };
        let local = Shards {
            shards: parts.start_shards().await,
            mesh: Arc::clone(&self.mesh),
        };
        let id = NodeId::parse(name).unwrap();
        let options = Options {
            node: id.clone(),
            http: String::new(),
            cluster: cluster.to_owned(),
            lease: LEASE,
            beat: BEAT,
            record,
        };
        let context = MembershipContext {
            store: parts.store,
            lease: parts.lease.clone(),
            local: Arc::new(local),
            ownership: parts.ownership.clone(),
            peers: parts.peers,
        };
        let membership = Membership::start(options, context).await?;
        Ok(Node {
            id,
            membership,
            lease: parts.lease,
            ownership: parts.ownership,
            faults,
            links,
        })
    }

    fn new_links(&self) -> Arc<Links> {
        let mut mesh = self.mesh.lock().unwrap();
        mesh.links_made += 1;
        Arc::new(Links {
            mesh: Arc::clone(&self.mesh),
            number: mesh.links_made,
            known: Mutex::default(),
        })
    }

    pub async fn rows(&self) -> Vec<ShardRow> {
        self.store.shards().await.unwrap()
    }

    pub async fn row_of(&self, node: &Node) -> NodeRow {
        let rows = self.store.nodes().await.unwrap();
        rows.into_iter().find(|row| row.id == node.id).unwrap()
    }

    /// Returns the incarnation that the node's links were given.
    pub fn mesh_incarnation(&self, node: &Node) -> Incarnation {
        let mesh = self.mesh.lock().unwrap();
        mesh.nodes
            .iter()
            .find(|(number, _)| *number == node.links.number)
            .unwrap()
            .1
    }

    /// Waits until these nodes have all shards, and each node has the shards that the plan gives it.
    pub async fn placed_on(&self, nodes: &[&Node]) {
        let names: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
        let condition = format!("the shards are placed on {names:?}");
        eventually(&condition, async || self.is_placed_on(nodes).await).await;
    }

    /// True if all shards are where the plan for these nodes puts them, and these nodes know it.
    pub async fn is_placed_on(&self, nodes: &[&Node]) -> bool {
        let plan = Plan::new(nodes.iter().map(|node| node.id.clone()));
        for row in self.rows().await {
            for node in nodes {
                let is_planned = plan.owner_of(row.id) == Some(&node.id);
                let is_owner = row.owner == Some(self.mesh_incarnation(node));
                let location = node.ownership.location(row.id);
                if is_planned != is_owner
                    || is_planned != (location.holder == Holder::Local)
                    || location.epoch != row.epoch
                {
                    return false;
                }
            }
        }
        nodes.iter().all(|node| node.membership.is_ready())
    }

    /// Returns the shards whose rows now differ from `before`.
    pub async fn changed_since(&self, before: &[ShardRow]) -> Vec<ShardId> {
        let now = self.rows().await;
        let changed = before.iter().zip(now).filter(|(old, new)| *old != new);
        changed.map(|(old, _)| old.id).collect()
    }

    /// Returns the shards whose moves were published to peers, without duplicates.
    pub fn published(&self) -> Vec<ShardId> {
        let mesh = self.mesh.lock().unwrap();
        let mut shards: Vec<ShardId> = mesh.moved.iter().map(|(shard, _)| *shard).collect();
        shards.sort_unstable();
        // The node that handed a shard off publishes the move. These links deliver nothing, so the next owner
        // finds the shard in the rows, raises the epoch, and publishes the shard again.
        shards.dedup();
        shards
    }

    /// True if some node was asked to load the shard ahead.
    pub fn is_load_ahead_requested(&self, shard: ShardId) -> bool {
        let mesh = self.mesh.lock().unwrap();
        mesh.asked_ahead.iter().any(|(_, asked)| *asked == shard)
    }
}
