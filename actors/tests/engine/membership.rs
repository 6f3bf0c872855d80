//! Members over one database, with the links told by the test: what the tasks and actors around the pure
//! parts do.

mod links;
mod shards;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::admission::Admission;
use actors::cluster::lease::Lease;
use actors::cluster::membership::{Membership, MembershipContext, Options};
use actors::cluster::ownership::{Holder, Ownership};
use actors::cluster::peers::Peers;
use actors::cluster::placement::Plan;
use actors::coupon::CouponKind;
use actors::engine::local::EngineShards;
use actors::ids::{Incarnation, NodeId, PeerAddress, SHARDS, ShardId};
use actors::owning::door::{Board, Door};
use actors::owning::owner::actor::OwnerContext;
use actors::owning::shard::{ShardContext, ShardHandle};
use actors::owning::write_back::Lanes;
use actors::store::sqlite::{Options as SqliteOptions, SqliteStore};
use actors::store::{ClusterStore, NodeState, ShardRow, Store, StoreError};
use actors::time;
use testkit::poll::eventually;
use tokio::sync::Semaphore;

use self::links::{Links, Mesh};
use self::shards::Shards;
use super::faults::{Faults, Faulty};

const LEASE: Duration = Duration::from_millis(1_500);
const BEAT: Duration = Duration::from_millis(100);

/// A database and who is at it.
struct Cluster {
    store: Arc<SqliteStore>,
    mesh: Arc<Mutex<Mesh>>,
    _folder: tempfile::TempDir,
}

struct Node {
    id: NodeId,
    membership: Membership,
    lease: Lease,
    ownership: Ownership,
    faults: Arc<Faults>,
    links: Arc<Links>,
}

impl Cluster {
    async fn new() -> Self {
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

    async fn start(&self, name: &str, cluster: &str) -> Result<Node, StoreError> {
        self.start_with(name, cluster, Faults::default()).await
    }

    async fn start_with(&self, name: &str, cluster: &str, faults: Faults) -> Result<Node, StoreError> {
        let faults = Arc::new(faults);
        faults.share();
        let store: Arc<dyn Store<CouponKind>> =
            Arc::new(Faulty::new(Arc::clone(&self.store), Arc::clone(&faults)));
        let number = {
            let mut mesh = self.mesh.lock().unwrap();
            mesh.links_made += 1;
            mesh.links_made
        };
        let links = Arc::new(Links {
            mesh: Arc::clone(&self.mesh),
            number,
            known: Mutex::default(),
        });
        let (lease, ownership, peers) = (
            Lease::default(),
            Ownership::default(),
            Arc::clone(&links) as Arc<dyn Peers>,
        );
        let (door, board) = (Arc::new(Door::default()), Arc::new(Board::default()));
        let context = ShardContext {
            store: Arc::clone(&store),
            owners: OwnerContext {
                lease: lease.clone(),
                lanes: Lanes::start(1, 16, &store, &lease),
                board: Arc::clone(&board),
                door: Arc::clone(&door),
                idle: Duration::from_secs(60),
                requests_max: 16,
            },
            loads: Arc::new(Semaphore::new(1)),
            loads_waiting: Admission::new(16),
            loads_ahead: Arc::new(Semaphore::new(1)),
            places: Admission::new(16),
            ownership: ownership.clone(),
            peers: Arc::clone(&peers),
        };
        let mut shards = Vec::new();
        for id in ShardId::all() {
            shards.push(ShardHandle::start(id, context.clone()).await.unwrap());
        }
        let id = NodeId::parse(name).unwrap();
        let options = Options {
            node: id.clone(),
            http: String::new(),
            cluster: cluster.to_owned(),
            lease: LEASE,
            beat: BEAT,
        };
        let shards = EngineShards {
            shards: shards.into(),
            door,
            board,
            links: None,
        };
        let context = MembershipContext {
            store,
            lease: lease.clone(),
            local: Arc::new(Shards {
                shards,
                mesh: Arc::clone(&self.mesh),
            }),
            ownership: ownership.clone(),
            peers,
        };
        let membership = Membership::start(options, context).await?;
        Ok(Node {
            id,
            membership,
            lease,
            ownership,
            faults,
            links,
        })
    }

    async fn rows(&self) -> Vec<ShardRow> {
        self.store.shards().await.unwrap()
    }

    async fn incarnation(&self, node: &Node) -> Incarnation {
        self.store
            .nodes()
            .await
            .unwrap()
            .into_iter()
            .find(|row| row.id == node.id)
            .unwrap()
            .incarnation
    }

    /// As its links were told.
    fn mesh_incarnation(&self, node: &Node) -> Incarnation {
        let mesh = self.mesh.lock().unwrap();
        mesh.nodes
            .iter()
            .find(|(number, _)| *number == node.links.number)
            .unwrap()
            .1
    }

    /// All shards are where the plan over these nodes has them, and these nodes know it.
    async fn is_placed_on(&self, nodes: &[&Node]) -> bool {
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_is_handed_its_shards_and_hands_them_back_when_it_leaves() {
    let cluster = Cluster::new().await;
    let one = cluster.start("one", "1:1").await.unwrap();
    eventually("one has all", async || cluster.is_placed_on(&[&one]).await).await;
    eventually("its claims are told of", async || {
        cluster.mesh.lock().unwrap().moved.len() == usize::from(SHARDS)
    })
    .await;
    cluster.mesh.lock().unwrap().moved.clear();
    let before = cluster.rows().await;
    let two = cluster.start("two", "2:2").await.unwrap();
    eventually("both have theirs", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    let known = two.links.known.lock().unwrap().clone();
    let expected = PeerAddress {
        node: one.id.clone(),
        incarnation: cluster.mesh_incarnation(&one),
        address: "1:1".to_owned(),
    };
    assert_eq!(known, [expected]);
    let moved: Vec<ShardId> = before
        .iter()
        .zip(cluster.rows().await)
        .filter(|(old, new)| *old != new)
        .map(|(old, _)| old.id)
        .collect();
    assert!(
        (64..192).contains(&moved.len()),
        "{} of 256 shards moved",
        moved.len()
    );
    let told = |mesh: &Mesh| {
        let mut told: Vec<ShardId> = mesh.moved.iter().map(|(shard, _)| *shard).collect();
        told.sort_unstable();
        // By who gave it, and by who found it in the rows and raised its epoch: nobody here hears the first.
        told.dedup();
        told
    };
    eventually("each is told of, and no other moved", async || {
        told(&cluster.mesh.lock().unwrap()) == moved
    })
    .await;
    let asked_ahead = |shard: &ShardId| {
        let mesh = cluster.mesh.lock().unwrap();
        mesh.asked_ahead.iter().any(|(_, asked)| asked == shard)
    };
    assert!(
        moved.iter().all(asked_ahead),
        "each was to be loaded ahead before"
    );
    two.membership.begin_leaving();
    eventually("one has all again", async || cluster.is_placed_on(&[&one]).await).await;
    two.membership.leave().await;
    let ended = cluster
        .store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .find(|row| row.id == two.id)
        .unwrap();
    assert_eq!(ended.state, NodeState::Ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_loses_the_database_is_ended_by_the_other_and_joins_anew_by_itself() {
    let cluster = Cluster::new().await;
    let (one, two) = (
        cluster.start("one", "1:1").await.unwrap(),
        cluster.start("two", "2:2").await.unwrap(),
    );
    eventually("both have theirs", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    let before = cluster.incarnation(&two).await;
    two.faults.refuse_beats(true);
    eventually("one has all", async || cluster.is_placed_on(&[&one]).await).await;
    eventually("two knows that it has none", async || !two.membership.is_ready()).await;
    two.faults.refuse_beats(false);
    eventually("both have theirs again", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    assert_ne!(cluster.incarnation(&two).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_lose_the_database_nobody_is_ended_for_it() {
    let cluster = Cluster::new().await;
    let (one, two) = (
        cluster.start("one", "1:1").await.unwrap(),
        cluster.start("two", "2:2").await.unwrap(),
    );
    eventually("both have theirs", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    let before = cluster.store.nodes().await.unwrap();
    [&one, &two]
        .iter()
        .for_each(|node| node.faults.refuse_beats(true));
    eventually("nobody has a lease", async || {
        !one.membership.is_ready() && !two.membership.is_ready()
    })
    .await;
    [&one, &two]
        .iter()
        .for_each(|node| node.faults.refuse_beats(false));
    eventually("both have theirs again", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    let after = cluster.store.nodes().await.unwrap();
    assert!(
        before
            .iter()
            .zip(after)
            .all(|(old, new)| old.incarnation == new.incarnation),
        "the same lives as before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_reached_gives_its_shards_up_and_gets_them_back_when_it_is() {
    let cluster = Cluster::new().await;
    let (one, two) = (
        cluster.start("one", "1:1").await.unwrap(),
        cluster.start("two", "2:2").await.unwrap(),
    );
    eventually("both have theirs", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    // Of two who do not reach each other the smaller name stays.
    let begun = Instant::now();
    cluster.mesh.lock().unwrap().cut_off = Some(two.links.number);
    eventually("two says that it is left out", async || {
        two.membership.is_outside() && !two.membership.is_ready()
    })
    .await;
    eventually("one has all", async || {
        cluster.is_placed_on(&[&one]).await && !two.membership.is_ready()
    })
    .await;
    assert!(two.membership.is_outside() && !one.membership.is_outside());
    assert!(
        begun.elapsed() >= 2 * LEASE,
        "a link that fails for a moment moves nothing"
    );
    cluster.mesh.lock().unwrap().cut_off = None;
    eventually("both have theirs again", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    assert!(!two.membership.is_outside());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_lives_elsewhere_is_refused_and_one_that_is_dead_there_is_replaced_after_a_lease() {
    let cluster = Cluster::new().await;
    let one = cluster.start("one", "1:1").await.unwrap();
    let refused = cluster.start("one", "2:2").await.err().unwrap();
    assert!(
        matches!(&refused, StoreError::NotStored(why) if why.contains("lives at 1:1")),
        "{refused}"
    );
    eventually("the first is not disturbed", async || {
        cluster.is_placed_on(&[&one]).await
    })
    .await;
    one.faults.refuse_beats(true);
    let begun = Instant::now();
    let second = cluster.start("one", "2:2").await.unwrap();
    assert!(begun.elapsed() >= LEASE);
    eventually("the second has all", async || {
        cluster.is_placed_on(&[&second]).await
    })
    .await;
    // The same address is a restart, which need not wait.
    second.faults.refuse_beats(true);
    let begun = Instant::now();
    let third = cluster.start("one", "2:2").await.unwrap();
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    eventually("the third has all", async || third.membership.was_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_too_slow_for_all_claims_of_a_beat_gives_some_with_each() {
    let (cluster, faults) = (Cluster::new().await, Faults::default());
    // All together take twice as long as a beat waits for what follows from it.
    faults.slow_claims(2 * (LEASE / 3) / u32::from(SHARDS));
    let one = cluster.start_with("one", "1:1", faults).await.unwrap();
    eventually("one has all", async || cluster.is_placed_on(&[&one]).await).await;
}

/// A balancer that dropped whoever takes over would have nobody left.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_more_than_a_beat_allows_is_ready_meanwhile() {
    let cluster = Cluster::new().await;
    let (one, two) = (
        cluster.start("one", "1:1").await.unwrap(),
        cluster.start("two", "2:2").await.unwrap(),
    );
    eventually("both have theirs", async || {
        cluster.is_placed_on(&[&one, &two]).await
    })
    .await;
    one.faults.slow_claims(2 * (LEASE / 3) / u32::from(SHARDS));
    two.faults.refuse_beats(true);
    eventually("one has all", async || {
        assert!(one.membership.is_ready(), "it is not ready in the middle of it");
        cluster.is_placed_on(&[&one]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_counts_from_before_its_beat_was_sent() {
    const LATE: Duration = Duration::from_millis(300);
    let cluster = Cluster::new().await;
    let one = cluster.start("one", "1:1").await.unwrap();
    eventually("one has all", async || cluster.is_placed_on(&[&one]).await).await;
    one.faults.late_beats(LATE);
    // What the answers that came at once were worth is used up.
    eventually("late answers count", async || {
        one.lease.remaining(time::moment()) < LEASE - LATE
    })
    .await;
    let begun = Instant::now();
    let mut most = Duration::ZERO;
    while begun.elapsed() < 4 * LATE {
        most = most.max(one.lease.remaining(time::moment()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        most <= LEASE - LATE,
        "an answer that was {LATE:?} late is worth {most:?} of {LEASE:?}"
    );
    assert!(most > Duration::ZERO, "and it is worth something");
}
