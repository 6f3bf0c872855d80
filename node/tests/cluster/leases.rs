//! Nodes with different leases, as while `cluster.lease` is changed node by node. For each node, the others
//! wait as long as the lease of that node. So no refusal is untrue, and no node is ended while it may still
//! decide.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actors::owning::door::DOOR_TTL;
use serde_json::json;
use testkit::database_proxy::DatabaseMode;
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind};

use crate::stage::{NODES, Stage};

const KEYS: [&str; 3] = [
    "cluster.lease=1500ms",
    "cluster.beat=150ms",
    "http.change_deadline=15s",
];
/// A longer lease, also with the time of doors after a short one.
const LONG: Duration = Duration::from_secs(7);
const LONG_KEY: &str = "7s";

impl Stage {
    /// Makes a coupon with a quantity of one that this node owns.
    async fn last_coupon_of(&self, which: usize) -> u64 {
        for _ in 0..100 {
            let coupon = self.coupon(Some(1)).await;
            if self.owner(which, coupon).await.as_deref() == Some(&self.members[which].name) {
                return coupon;
            }
        }
        panic!("{} owns nothing", self.members[which].name);
    }

    /// Requests the coupon for a new user. Returns the code of the answer, or `issued`.
    async fn ask(&self, asked: usize, coupon: u64, user: &str) -> String {
        let address = &self.members[asked].address;
        let answer = self
            .history
            .issue(&self.client, address, coupon, user, "key")
            .await;
        match answer.expect("the node answers") {
            (201, _) => "issued".to_owned(),
            (_, problem) => problem["code"].as_str().expect("a problem has a code").to_owned(),
        }
    }
}

/// The second node has a longer lease than the first and loses the database. Until its lease ends, it refuses
/// requests because its coupon is sold out. So the quantity must not be raised before that.
async fn no_refusal_is_untrue_while_leases_differ(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::unstarted(server, 2, &KEYS, false).await;
    stage.members[1].set("cluster.lease", LONG_KEY);
    stage.start(&[0, 1]);
    stage.settled().await;
    let coupon = stage.last_coupon_of(1).await;
    assert_eq!(stage.ask(0, coupon, "winner").await, "issued");
    assert_eq!(stage.ask(1, coupon, "loser").await, "SOLD_OUT");
    stage.members[1].database.set(DatabaseMode::Refuse);
    let (begun, raised) = (Instant::now(), AtomicBool::new(false));
    let raising = async {
        let patch = json!({"patch": {"total_quantity": 2}});
        let address = &stage.members[0].address;
        eventually("the quantity is raised", async || {
            let change = stage
                .history
                .change(&stage.client, address, coupon, patch.clone());
            matches!(change.await, Some((200, _)))
        })
        .await;
        raised.store(true, Ordering::SeqCst);
        begun.elapsed()
    };
    let asking = async {
        let (mut number, mut refused) = (0, 0);
        while begun.elapsed() < LONG + DOOR_TTL {
            let is_raised = raised.load(Ordering::SeqCst);
            number += 1;
            let code = stage.ask(1, coupon, &format!("other-{number}")).await;
            assert!(!is_raised || code != "SOLD_OUT", "after {:?}", begun.elapsed());
            refused += u32::from(code == "SOLD_OUT");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        refused
    };
    let (raised_after, refused) = tokio::join!(raising, asking);
    assert!(
        refused > 0,
        "the second node decided nothing without the database"
    );
    assert!(
        raised_after >= LONG - Duration::from_secs(1),
        "raised after {raised_after:?}"
    );
    stage.members[1].database.set(DatabaseMode::Pass);
    stage.settled().await;
    stage.judge().await;
}

async fn the_lease_can_be_changed_node_by_node(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::on(server, &KEYS, false).await;
    let (clients, _) = stage.clients().await;
    for lease in [LONG_KEY, "1500ms"] {
        for changed in 0..NODES {
            stage.stop(changed);
            stage.members[changed].set("cluster.lease", lease);
            stage.start(&[changed]);
            stage.settled().await;
            stage.goes_on().await;
            // In the middle of the change, a node hangs whose lease differs from that of the other nodes.
            if changed == 0 {
                let coupon = stage.coupon_of(0).await;
                stage.members[0].suspend();
                let took = stage.until_issued(1, coupon).await;
                println!("a node with the lease {lease} hangs: taken over after {took:?}");
                stage.members[0].resume();
                stage.settled().await;
                let (is_long, limit) = (lease == LONG_KEY, Duration::from_secs(5));
                assert_eq!(took > limit, is_long, "{took:?} with the lease {lease}");
            }
        }
    }
    clients.end().await;
    stage.judge().await;
}

/// A node with a long lease is killed. A change that widens waits for its door, until its lease is over. From
/// then on its row makes no change wait, also of a node that starts and has not known it.
async fn a_node_that_was_ended_long_ago_makes_no_change_wait(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::unstarted(server, 2, &KEYS, false).await;
    stage.members[1].set("cluster.lease", LONG_KEY);
    stage.start(&[0, 1]);
    stage.settled().await;
    let coupon = stage.coupon(Some(1)).await;
    stage.members[1].kill();
    let killed_at = Instant::now();
    let mut raises = Vec::new();
    for total_quantity in [2, 3] {
        stage.stop(0);
        // A wait for the lease would begin during the start.
        let begun = Instant::now();
        stage.start(&[0]);
        let address = &stage.members[0].address;
        let patch = json!({"patch": {"total_quantity": total_quantity}});
        eventually("the quantity is raised", async || {
            let change = stage
                .history
                .change(&stage.client, address, coupon, patch.clone());
            matches!(change.await, Some((200, _)))
        })
        .await;
        raises.push((killed_at.elapsed(), begun.elapsed()));
    }
    let [(first, _), (_, second)] = raises[..] else {
        panic!("two raises: {raises:?}")
    };
    assert!(first >= LONG, "its door may refuse for that long: {raises:?}");
    assert!(second < LONG, "{raises:?}");
}

on_each_server! {
    a_node_that_was_ended_long_ago_makes_no_change_wait
    no_refusal_is_untrue_while_leases_differ
    the_lease_can_be_changed_node_by_node
}
