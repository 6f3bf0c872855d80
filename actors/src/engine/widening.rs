//! After a change that may widen a coupon: waiting until no door refuses any more by what the coupon was.
//!
//! Whoever lives is told, and says that it has heard; whoever does not, or is gone, is waited for as long as
//! what it knows can count.

use std::time::Duration;

use crate::engine::exchange::News;
use crate::engine::links::Lives;
use crate::ids::{CouponId, Incarnation};
use crate::store::{NodeState, Store};
use crate::time::{self, Moment};

/// How long an answer of a peer is waited for before it is told again: its link may have been lost.
const TELL_LIMIT: Duration = Duration::from_millis(500);
/// Pause before a peer without a link is told again.
const TELL_PAUSE: Duration = Duration::from_millis(50);

/// Returns once no door refuses by versions of the coupon below this one. Without a limit of its own beyond
/// what notices count: the caller sets one.
pub(super) async fn spread(lives: &Lives, store: &dyn Store, coupon: CouponId, version: u64) {
    let Some(until) = lives.unheard_until(time::moment()) else {
        return;
    };
    let (me, asked_at) = (lives.incarnation(), time::moment());
    // Read after the change: whoever was told before it that the coupon is sold out is among them, or was
    // ended.
    match store.nodes().await {
        Ok(nodes) => {
            let living = nodes
                .iter()
                .filter(|node| node.state != NodeState::Ended && Some(node.incarnation) != me);
            let others: Vec<Incarnation> = living.map(|node| node.incarnation).collect();
            // Whoever was ended since this node's last beat is nobody to be told, and must not be taken for
            // one that never was either.
            lives.acquainted(asked_at, others.clone());
            let told = others
                .into_iter()
                .map(|peer| tell(lives, peer, coupon, version, until));
            futures_util::future::join_all(told).await;
        }
        Err(error) => {
            tracing::warn!(%error, %coupon, "nobody knows who may refuse by what the coupon was; waiting until nobody can");
            sleep_until(until).await;
        }
    }
    if let Some(until) = lives.departed_until() {
        sleep_until(until).await;
    }
}

/// Tells one peer until it has heard, or what it knows counts no more.
async fn tell(lives: &Lives, peer: Incarnation, coupon: CouponId, version: u64, until: Moment) {
    let news = News::Widened { coupon, version };
    while !lives
        .tell(peer, &news, TELL_LIMIT.min(until.since(time::moment())))
        .await
    {
        if time::moment() >= until {
            tracing::warn!(%peer, %coupon, "a peer was not heard to forget what a change made untrue; it counts there no more");
            return;
        }
        tokio::time::sleep(TELL_PAUSE).await;
    }
}

async fn sleep_until(until: Moment) {
    tokio::time::sleep(until.since(time::moment())).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::lease::Lease;
    use crate::cluster::ownership::Ownership;
    use crate::engine::exchange::Talk;
    use crate::engine::links::Options;
    use crate::ids::NodeId;
    use crate::owning::admission::Admission;
    use crate::owning::door::peers::Acquaintances;
    use crate::owning::door::{Board, DOOR_TTL, Door};
    use crate::store::NodeRow;
    use crate::store::sqlite::{Options as SqliteOptions, SqliteStore};

    const LEASE: Duration = Duration::from_millis(200);

    /// A node's links, with nobody at the other ends, that has known these peers for long.
    async fn lives(peers: &[Incarnation]) -> Lives {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            name: "test".to_owned(),
            advertise: listener.local_addr().unwrap().to_string(),
            listener: Arc::new(listener),
            cookie: "crumbs".to_owned(),
            tls: None,
            heartbeat: Duration::from_millis(100),
        };
        let lives = Lives::new(NodeId::parse("me").unwrap(), options, Admission::new(1)).unwrap();
        let (now, mut known) = (time::moment(), Acquaintances::new(LEASE));
        for lease in (0..50).rev() {
            let at = Moment::at(now.since(Moment::ORIGIN) - LEASE * lease);
            known.know(at, at, peers.to_vec());
        }
        assert_eq!(known.departed_until(now), None, "nobody is gone");
        let doors = (Arc::new(Door::default()), Arc::new(Board::default()));
        lives.start(Arc::new(Talk::new(
            Arc::new([]),
            Ownership::default(),
            doors,
            Lease::default(),
            known,
        )));
        lives
    }

    fn node(number: u64, state: NodeState) -> NodeRow {
        NodeRow {
            id: NodeId::parse(&format!("node-{number}")).unwrap(),
            incarnation: Incarnation::new(number).unwrap(),
            beat: 0,
            state,
            http: String::new(),
            cluster: String::new(),
            links: Vec::new(),
        }
    }

    #[tokio::test]
    async fn whoever_was_ended_since_the_last_beat_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
            .await
            .unwrap();
        store.check().await.unwrap();
        let coupon = CouponId::new(1).unwrap();
        let begun = time::moment();
        spread(&lives(&[]).await, &store, coupon, 2).await;
        assert!(
            time::moment().since(begun) < DOOR_TTL / 2,
            "nobody is there, or was"
        );
        let gone = node(2, NodeState::Ended);
        assert!(store.join(&gone, None).await.unwrap());
        let begun = time::moment();
        spread(&lives(&[gone.incarnation]).await, &store, coupon, 2).await;
        assert!(
            time::moment().since(begun) >= LEASE + DOOR_TTL,
            "its door may refuse for so long"
        );
    }
}
