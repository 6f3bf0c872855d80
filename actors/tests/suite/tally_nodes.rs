//! Tallies over nodes in processes of their own, on a real database: a cluster's promises hold for a kind
//! that the engine does not know, while shards are handed off and a node is killed.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::cluster::membership::life_record::LifeRecord;
use actors::coupon::CouponKind;
use actors::engine::{ClusterOptions, Engine, Options};
use actors::ids::{NodeId, RequestKey};
use actors::owning::owner::actor::OWNER_PLACES;
use actors::owning::pair::Either::Second;
use actors::owning::pair::Pair;
use actors::owning::router::REQUESTS_MAX;
use actors::store::mysql::{self, MySqlStore};
use actors::store::{ClusterStore, NodeState};
use actors::trace::{Span, Spans};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind};
use testkit::worker::{self, Worker};
use tokio::net::TcpListener;
use tokio::sync::RwLockReadGuard;

use crate::tally::{Add, AddOutcome, Addition, Tally, TallyId, bound};

type Both = Pair<CouponKind, Tally>;

const LEASE: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The tallies that callers add to: enough for every node to own some. Some reach their bound soon, others
/// never.
const TALLIES: std::ops::Range<u64> = 1..25;
const CALLERS: usize = 8;
/// Number of additions answered in each phase.
const ANSWERED: u64 = 300;

/// Not a test: the tests below run this program again with this name, as a node.
#[test]
fn a_tally_node() {
    worker::run(async |configuration| serve(&configuration).await);
}

async fn serve(configuration: &Value) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertise = listener.local_addr().unwrap().to_string();
    let options = Options {
        node: NodeId::parse(configuration["node"].as_str().unwrap()).unwrap(),
        http: String::new(),
        lease: LEASE,
        beat: BEAT,
        idle: Duration::from_secs(60),
        requests_max: REQUESTS_MAX,
        owner_requests_max: OWNER_PLACES,
        record: LifeRecord::default(),
        lanes: 2,
        cluster: Some(ClusterOptions {
            name: "test".to_owned(),
            listener: Arc::new(listener),
            advertise,
            cookie: "crumbs".to_owned(),
            tls: None,
            heartbeat: HEARTBEAT,
        }),
        spans: Spans::default(),
    };
    let store = open(configuration["url"].as_str().unwrap()).await;
    let engine = Engine::start(options, Arc::new(store)).await.unwrap();
    worker::started(&json!({}));
    worker::serve(|command| {
        let engine = engine.clone();
        async move { carry_out(&command, &engine).await }
    })
    .await;
}

async fn open(url: &str) -> MySqlStore {
    let options = mysql::Options::new(url).with_tables_of::<Both>();
    MySqlStore::open(&options).await.unwrap()
}

async fn carry_out(command: &Value, engine: &Engine<Both>) -> Value {
    match command["do"].as_str().unwrap() {
        "add" => {
            let add = Add {
                key: RequestKey::parse(command["key"].as_str().unwrap()).unwrap(),
                amount: command["amount"].as_u64().unwrap(),
            };
            let tally = TallyId(command["tally"].as_u64().unwrap());
            match engine
                .request(Second(tally), Second(add), DEADLINE, &Span::default())
                .await
            {
                Ok(outcome) => match outcome.second().expect("an answer of the requested kind") {
                    AddOutcome::Added(addition) | AddOutcome::Replayed(addition) => {
                        json!({"added": [addition.number, addition.amount, addition.total]})
                    }
                    AddOutcome::BeyondBound { bound } => json!({"beyond": bound}),
                    AddOutcome::UnknownTally => panic!("the tally is there"),
                },
                Err(setback) => json!({"setback": format!("{setback:?}")}),
            }
        }
        "ready" => engine.not_ready().is_empty().into(),
        "stop" => engine.stop(STOP_LIMIT).await.into(),
        other => panic!("{other}"),
    }
}

/// A database of its own on a shared server.
pub struct TallyCluster {
    store: MySqlStore,
    url: String,
    _beside: RwLockReadGuard<'static, ()>,
}

impl TallyCluster {
    pub async fn new(kind: ServerKind) -> Self {
        let _beside = crate::beside(kind).await;
        let server = Server::shared(kind);
        let url = server.url(&server.make_database("").await.unwrap(), None);
        let store = open(&url).await;
        ClusterStore::check(&store).await.unwrap();
        Self { store, url, _beside }
    }

    /// Starts a node. Returns it once it is ready.
    async fn start(&self, name: &str) -> Arc<Worker> {
        let configuration = json!({"node": name, "url": self.url});
        let (node, _) = Worker::start("tally_nodes::a_tally_node", name, &configuration).await;
        eventually("a node is ready", async || {
            node.request(json!({"do": "ready"})).await == Some(true.into())
        })
        .await;
        Arc::new(node)
    }

    /// Waits until each of these nodes owns shards, and no other node does.
    async fn spread_over(&self, names: &[&str]) {
        eventually("the shards are spread over the nodes", async || {
            let nodes = self.store.nodes().await.unwrap();
            let living: HashMap<_, _> = nodes
                .iter()
                .filter(|node| node.state != NodeState::Ended)
                .map(|node| (node.incarnation, node.id.to_string()))
                .collect();
            let rows = self.store.shards().await.unwrap();
            let owners: Option<BTreeSet<_>> = rows.iter().map(|row| living.get(&row.owner?)).collect();
            owners.is_some_and(|owners| owners.into_iter().eq(names))
        })
        .await;
    }

    /// Returns the stored additions, by tally and number.
    async fn stored(&self) -> Vec<Addition> {
        let mut connection = MySqlConnection::connect(&self.url).await.unwrap();
        let query =
            "SELECT tally_id, number, amount, total, request_key FROM additions ORDER BY tally_id, number";
        let rows: Vec<(i64, i64, i64, i64, String)> =
            sqlx::query_as(query).fetch_all(&mut connection).await.unwrap();
        let natural = |value: i64| u64::try_from(value).unwrap();
        let addition = |(tally, number, amount, total, key): (_, _, _, _, String)| Addition {
            tally: TallyId(natural(tally)),
            number: natural(number),
            amount: natural(amount),
            total: natural(total),
            key: RequestKey::parse(&key).unwrap(),
        };
        rows.into_iter().map(addition).collect()
    }
}

/// One request, and its final answer.
struct Answered {
    tally: u64,
    key: String,
    amount: u64,
    answer: Value,
}

/// Callers that send one addition after the other to the nodes that serve.
#[derive(Default)]
struct Crowd {
    nodes: Mutex<Vec<Arc<Worker>>>,
    answered: AtomicU64,
    ends: AtomicBool,
}

impl Crowd {
    /// Sends the next requests to these nodes.
    fn use_nodes(&self, nodes: &[&Arc<Worker>]) {
        *self.nodes.lock().unwrap() = nodes.iter().map(|node| Arc::clone(node)).collect();
    }

    /// Sends a request until it is answered, each time to another node.
    async fn request(&self, number: usize, command: &Value) -> Value {
        for attempt in number.. {
            let node = {
                let nodes = self.nodes.lock().unwrap();
                Arc::clone(&nodes[attempt % nodes.len()])
            };
            match node.request(command.clone()).await {
                Some(answer) if answer["setback"].is_null() => return answer,
                // The node died, or the outcome is not known. A retry with the key finds it.
                _ => tokio::time::sleep(BEAT).await,
            }
        }
        unreachable!("attempts have no end")
    }

    /// Adds until the crowd ends, with keys of this caller.
    async fn add(self: Arc<Self>, caller: usize) -> Vec<Answered> {
        let mut answered = Vec::new();
        for number in 0.. {
            if self.ends.load(Ordering::Acquire) {
                break;
            }
            let tally = TALLIES.start + (number * 7 + caller as u64) % (TALLIES.end - TALLIES.start);
            let (key, amount) = (format!("key-{caller}-{number}"), 1 + number % 3);
            let command = json!({"do": "add", "tally": tally, "key": key, "amount": amount});
            let answer = self.request(caller + answered.len(), &command).await;
            answered.push(Answered {
                tally,
                key,
                amount,
                answer,
            });
            self.answered.fetch_add(1, Ordering::AcqRel);
        }
        answered
    }

    /// Waits until [`ANSWERED`] more additions are answered.
    async fn go_on(&self) {
        let until = self.answered.load(Ordering::Acquire) + ANSWERED;
        eventually("the callers are answered", async || {
            self.answered.load(Ordering::Acquire) >= until
        })
        .await;
    }
}

/// Checks that tallies are exact, and that every answer agrees with the stored rows.
fn check(stored: &[Addition], answered: &[Answered]) {
    let (mut totals, mut by_key) = (HashMap::<u64, (u64, u64)>::new(), HashMap::new());
    for addition in stored {
        let (number, total) = totals.entry(addition.tally.0).or_default();
        (*number, *total) = (*number + 1, *total + addition.amount);
        assert_eq!(
            (addition.number, addition.total),
            (*number, *total),
            "{addition:?}"
        );
        assert!(*total <= bound(addition.tally), "beyond the bound: {addition:?}");
        let before = by_key.insert((addition.tally.0, addition.key.to_string()), addition);
        assert_eq!(before, None, "added twice for one key");
    }
    let mut added = 0;
    for Answered {
        tally,
        key,
        amount,
        answer,
    } in answered
    {
        let row = by_key.get(&(*tally, key.clone()));
        let row = row.map(|row| json!([row.number, row.amount, row.total]));
        if answer["added"].is_array() {
            assert_eq!(row.as_ref(), Some(&answer["added"]), "{key} of tally {tally}");
            added += 1;
        } else {
            assert_eq!(
                answer["beyond"],
                bound(TallyId(*tally)),
                "{key} of tally {tally}: {answer}"
            );
            assert_eq!(row, None, "{key} of tally {tally} was refused");
            let total = totals.get(tally).map_or(0, |(_, total)| *total);
            assert!(
                total + amount > bound(TallyId(*tally)),
                "{key} of tally {tally} had room"
            );
        }
    }
    assert_eq!(added, stored.len(), "every stored addition was answered");
}

pub async fn tallies_are_exact_while_shards_are_handed_off_and_a_node_is_killed(cluster: TallyCluster) {
    let (a, b) = tokio::join!(cluster.start("a"), cluster.start("b"));
    cluster.spread_over(&["a", "b"]).await;
    let crowd = Arc::new(Crowd::default());
    crowd.use_nodes(&[&a, &b]);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(Arc::clone(&crowd).add(caller)))
        .collect();
    crowd.go_on().await;
    let c = cluster.start("c").await;
    crowd.use_nodes(&[&a, &b, &c]);
    cluster.spread_over(&["a", "b", "c"]).await;
    crowd.go_on().await;
    crowd.use_nodes(&[&b, &c]);
    assert_eq!(
        a.request(json!({"do": "stop"})).await,
        Some(true.into()),
        "node a does not stop in time"
    );
    cluster.spread_over(&["b", "c"]).await;
    crowd.go_on().await;
    b.process().kill();
    crowd.use_nodes(&[&c]);
    cluster.spread_over(&["c"]).await;
    crowd.go_on().await;
    crowd.ends.store(true, Ordering::Release);
    let mut answered = Vec::new();
    for caller in callers {
        answered.extend(caller.await.unwrap());
    }
    assert_eq!(
        c.request(json!({"do": "stop"})).await,
        Some(true.into()),
        "node c does not stop in time"
    );
    check(&cluster.stored().await, &answered);
}
