//! Users who send requests to any of the nodes, and a check of their answers against the rows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fixture::TestCluster;
use super::node::Node;

/// Number of users who send requests at the same time.
const USERS: u64 = 24;

/// The answer that a user got.
#[derive(Debug, Clone)]
pub struct Told {
    pub coupon: u64,
    pub user: String,
    /// `None` if the node died before it answered.
    pub answer: Option<Value>,
}

pub struct Crowd {
    nodes: watch::Sender<Vec<Arc<Node>>>,
    told: Arc<Mutex<Vec<Told>>>,
    stopping: Arc<AtomicBool>,
    users: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts the users. Each user repeatedly asks one of the nodes for one of the coupons, and takes a new
    /// name for each request.
    pub fn start(coupons: Vec<u64>) -> Self {
        let (nodes, told) = (
            watch::Sender::new(Vec::<Arc<Node>>::new()),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (stopping, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |_| {
            let (mut nodes, told, stopping, numbers) = (
                nodes.subscribe(),
                Arc::clone(&told),
                Arc::clone(&stopping),
                Arc::clone(&numbers),
            );
            let coupons = coupons.clone();
            tokio::spawn(async move {
                while !stopping.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let node = match nodes.wait_for(|nodes| !nodes.is_empty()).await {
                        Ok(nodes) => Arc::clone(&nodes[number as usize % nodes.len()]),
                        Err(_it_is_over) => return,
                    };
                    let (coupon, user) = (
                        coupons[number as usize / 7 % coupons.len()],
                        format!("user-{number}"),
                    );
                    let answer =
                        node.try_ask(json!({"do": "issue", "coupon": coupon, "user": user, "key": user, "limit_ms": 10_000})).await;
                    told.lock().unwrap().push(Told { coupon, user, answer });
                }
            })
        };
        let users = (0..USERS).map(one).collect();
        Self {
            nodes,
            told,
            stopping,
            users,
        }
    }

    /// Makes the users ask these nodes from now on.
    pub fn ask(&self, nodes: &[&Arc<Node>]) {
        self.nodes
            .send_replace(nodes.iter().map(|node| Arc::clone(node)).collect());
    }

    pub fn told(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Ends the crowd. Returns all answers that it got.
    pub async fn end(self) -> Vec<Told> {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.nodes);
        for user in self.users {
            user.await.unwrap();
        }
        let told = self.told.lock().unwrap();
        told.clone()
    }
}

/// Checks the answers against the rows. Every issuance that a user was told of must be stored with that
/// sequence, and a user who was refused must not have an issuance.
pub async fn check(fixture: &TestCluster, coupons: &[u64], told: &[Told]) {
    for coupon in coupons {
        let holders = fixture.holders(*coupon).await;
        assert_eq!(
            holders.iter().collect::<HashSet<_>>().len(),
            holders.len(),
            "a user has coupon {coupon} twice"
        );
        for Told { user, answer, .. } in told.iter().filter(|told| told.coupon == *coupon) {
            let Some(answer) = answer else { continue };
            match answer["issued"].as_u64().or_else(|| answer["replayed"].as_u64()) {
                Some(sequence) => assert_eq!(
                    holders.get(sequence as usize - 1),
                    Some(user),
                    "coupon {coupon}: {answer}"
                ),
                None if answer["setback"] == "Unknown" => {}
                None => assert!(
                    !holders.contains(user),
                    "{user} has coupon {coupon} and was told {answer}"
                ),
            }
        }
    }
}
