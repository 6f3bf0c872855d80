//! Waits, after a change that may widen what users may have, until no door refuses based on the old state.
//!
//! Live peers are told of the change, and acknowledge it. If a peer does not acknowledge it, or is gone, the
//! wait lasts as long as the notices of its door may be valid: at most a lease and the time for which notices
//! count, from the change on. A peer that closed its door before it left does not prolong the wait.

use std::time::Duration;

use crate::engine::exchange::news::News;
use crate::engine::links::NodeLinks;
use crate::ids::Incarnation;
use crate::owning::kind::Kind;
use crate::peer_names;
use crate::store::{ClusterStore, NodeRow, NodeState};
use crate::time::{self, Moment};

/// Time to wait for a peer's acknowledgement before the peer is told again, because its link may have been
/// lost.
const TELL_LIMIT: Duration = Duration::from_millis(500);
/// Pause before a peer without a link is told again.
const TELL_PAUSE: Duration = Duration::from_millis(50);

/// Returns once no door refuses based on a version below this one. Only the validity of notices limits the
/// wait, so the caller sets a time limit.
pub(super) async fn spread<K: Kind>(links: &NodeLinks<K>, store: &dyn ClusterStore, id: K::Id, version: u64) {
    let changed_at = time::moment();
    let Some(mut until) = links.unacknowledged_until(changed_at) else {
        return;
    };
    let (me, asked_at) = (links.incarnation(), time::moment());
    // The nodes are read after the change: a peer that got a notice before the change is among these nodes,
    // or was ended.
    match store.nodes().await {
        Ok(nodes) => {
            let others = nodes.into_iter().filter(|node| Some(node.incarnation) != me);
            let others: Vec<NodeRow> = others.collect();
            // A peer that was ended since this node's last beat cannot be told. It is noted here as gone, so
            // that the wait below includes it.
            links.know_living(asked_at, &others);
            // A node that was not known here before may have a longer lease than all known nodes.
            until = until.max(links.unacknowledged_until(changed_at).unwrap_or(until));
            let living = others.iter().filter(|node| node.state != NodeState::Ended);
            let told = living
                .map(|node| node.incarnation)
                .filter(|peer| !links.is_door_closed(*peer))
                .map(|peer| tell(links, peer, id, version, until));
            futures_util::future::join_all(told).await;
        }
        Err(error) => {
            tracing::warn!(%error, %id, "reading the nodes failed; waiting until no peer may refuse");
            sleep_until(until).await;
        }
    }
    if let Some(departed_until) = links.departed_until() {
        // Notices from before the change are valid no longer than this, even if this node learned only after
        // the change that a peer is gone.
        let until = departed_until.min(until);
        let wait = until.since(time::moment());
        tracing::info!(%id, version, ?wait, "a node is gone; the change is answered once its door refuses nothing");
        sleep_until(until).await;
    }
}

/// Tells one peer of the change until it acknowledges, or until its notices are no longer valid.
async fn tell<K: Kind>(links: &NodeLinks<K>, peer: Incarnation, id: K::Id, version: u64, until: Moment) {
    let news = News::Widened { id, version };
    let limit = || TELL_LIMIT.min(until.since(time::moment()));
    while !links.tell(peer, &news, limit()).await {
        if links.is_door_closed(peer) {
            return;
        }
        if time::moment() >= until {
            let peer = peer_names::of(peer);
            tracing::warn!(peer, %id, "peer did not acknowledge the change; its notices are no longer valid");
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
    use crate::admission::Admission;
    use crate::cluster::lease::Lease;
    use crate::cluster::ownership::Ownership;
    use crate::coupon::CouponKind;
    use crate::coupon::ids::CouponId;
    use crate::engine::exchange::Exchange;
    use crate::engine::links::ClusterOptions;
    use crate::ids::NodeId;
    use crate::owning::door::peers::KnownPeers;
    use crate::owning::door::{Board, DOOR_TTL, Door};
    use crate::store::sqlite::{Options as SqliteOptions, SqliteStore};

    const LEASE: Duration = Duration::from_millis(200);

    /// Makes the links of a node that reaches no peer and has known these peers for long.
    async fn node_links(peers: &[NodeRow]) -> NodeLinks<CouponKind> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ClusterOptions {
            name: "test".to_owned(),
            advertise: listener.local_addr().unwrap().to_string(),
            listener: Arc::new(listener),
            cookie: "crumbs".to_owned(),
            tls: None,
            heartbeat: Duration::from_millis(100),
        };
        let links = NodeLinks::new(NodeId::parse("me").unwrap(), options).unwrap();
        let (now, mut known) = (time::moment(), KnownPeers::new(LEASE));
        for lease in (0..50).rev() {
            let at = Moment::at(now.since(Moment::ORIGIN) - LEASE * lease);
            known.know(at, at, peers);
        }
        assert_eq!(known.departed_until(now), None, "no peer is gone");
        let doors = (Arc::new(Door::default()), Arc::new(Board::default()));
        links.start(Arc::new(Exchange::new(
            Arc::new([]),
            Ownership::default(),
            doors,
            Lease::default(),
            Admission::new(1),
            known,
        )));
        links
    }

    fn node(number: u64, state: NodeState) -> NodeRow {
        NodeRow {
            state,
            ..NodeRow::ready(number, 0)
        }
    }

    #[tokio::test]
    async fn a_change_waits_for_a_peer_that_was_ended_since_the_last_beat() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
            .await
            .unwrap();
        store.check().await.unwrap();
        let coupon = CouponId::new(1).unwrap();
        let begun = time::moment();
        spread(&node_links(&[]).await, &store, coupon, 2).await;
        assert!(
            time::moment().since(begun) < DOOR_TTL / 2,
            "there is no peer, and there was none"
        );
        let gone = node(2, NodeState::Ended);
        assert!(store.join(&gone, None).await.unwrap());
        let begun = time::moment();
        let alive = node(2, NodeState::Ready);
        spread(&node_links(&[alive]).await, &store, coupon, 2).await;
        assert!(
            time::moment().since(begun) >= LEASE + DOOR_TTL,
            "its door may refuse for that long"
        );
    }

    /// A node that joined since this node's last beat has a lease that this node learns only from the rows.
    #[tokio::test]
    async fn an_unknown_peer_is_waited_for_as_long_as_its_own_lease_demands() {
        const LONG: Duration = Duration::from_millis(800);
        let waits = async |state: NodeState| {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
                .await
                .unwrap();
            store.check().await.unwrap();
            let unknown = NodeRow {
                lease: Some(LONG),
                ..node(2, state)
            };
            assert!(store.join(&unknown, None).await.unwrap());
            let (links, begun) = (node_links(&[]).await, time::moment());
            spread(&links, &store, CouponId::new(1).unwrap(), 2).await;
            time::moment().since(begun)
        };
        let (live, ended) = tokio::join!(waits(NodeState::Ready), waits(NodeState::Ended));
        for waited in [live, ended] {
            assert!(waited >= LONG + DOOR_TTL, "{waited:?}");
        }
    }
}
