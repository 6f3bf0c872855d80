//! Tests the answers that a node gives to peers. The node has shards over an empty database, and a board.
//! Coupons are the sample kind.

use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::admission::Admission;
use crate::cluster::peers::Peers;
use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::notice::SoldOutNotice;
use crate::coupon::offer::{Coupon, Offer, Status};
use crate::coupon::rows::{CouponRows, NewCoupon};
use crate::coupon::{CouponKind, CouponOutcome};
use crate::ids::{Epoch, RequestKey, UserId};
use crate::link::probe;
use crate::owning::door::filter::Filter;
use crate::owning::owner::actor::OwnerContext;
use crate::owning::shard::ShardContext;
use crate::owning::shard::moves::Moves;
use crate::owning::write_back::Lanes;
use crate::store::Store;
use crate::store::sqlite::{Options, SqliteStore};
use crate::time::{Timestamp, moment};
use crate::trace::Spans;

type Answer = super::Answer<CouponKind>;
type Board = super::Board<CouponKind>;
type Exchange = super::Exchange<CouponKind>;
type News = super::News<CouponKind>;

const LIMIT: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(30);

fn incarnation(number: u64) -> Incarnation {
    Incarnation::new(number).unwrap()
}

fn row(number: u64) -> NodeRow {
    NodeRow::ready(number, 1)
}

/// The peers of a node. Only reports of loading ahead are recorded.
struct RecordedPeers(mpsc::UnboundedSender<(Incarnation, ShardId)>);

impl Peers for RecordedPeers {
    fn live_as(&self, _me: Incarnation) {}

    fn know(&self, _asked_at: Moment, _others: &[NodeRow]) {}

    fn linked(&self) -> Vec<Incarnation> {
        Vec::new()
    }

    fn refuses(&self, _peer: Incarnation) -> bool {
        false
    }

    fn loaded_ahead(&self, peer: Incarnation, shard: ShardId) {
        self.0.send((peer, shard)).unwrap();
    }

    fn publish(&self, _shard: ShardId, _fence: Fence) {}
}

/// A node with incarnation 1 and the peer 2.
struct Node {
    exchange: Exchange,
    lease: Lease,
    ownership: Ownership,
    board: Arc<Board>,
    /// The node's queue.
    places: Admission,
    store: Arc<SqliteStore>,
    /// The shards that were reported as loaded ahead, each with the peer that was told.
    loaded_ahead: mpsc::UnboundedReceiver<(Incarnation, ShardId)>,
    _folder: tempfile::TempDir,
}

/// Places in the node's queue.
const PLACES: usize = 1;

impl Node {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join("test.db"));
        let sqlite = Arc::new(SqliteStore::open(&options).await.unwrap());
        let store: Arc<dyn Store<CouponKind>> = sqlite.clone();
        let (lease, ownership) = (Lease::default(), Ownership::default());
        let (door, board) = (Arc::new(Door::default()), Arc::new(Board::default()));
        let (reports, loaded_ahead) = mpsc::unbounded_channel();
        let context = ShardContext {
            owners: OwnerContext {
                lease: lease.clone(),
                lanes: Lanes::start(1, 16, &store, &lease, &Spans::default()),
                board: Arc::clone(&board),
                door: Arc::clone(&door),
                idle: LIMIT,
                requests_max: 16,
            },
            moves: Moves::start(sqlite.clone()),
            store,
            loads: Arc::new(Semaphore::new(1)),
            loads_waiting: Admission::new(16),
            loads_ahead: Arc::new(Semaphore::new(1)),
            places: Admission::new(16),
            ownership: ownership.clone(),
            peers: Arc::new(RecordedPeers(reports)),
        };
        let mut shards = Vec::new();
        for id in ShardId::all() {
            shards.push(ShardHandle::start(id, context.clone()).await.unwrap());
        }
        ownership.live_as(incarnation(1));
        lease.set(incarnation(1), moment() + LEASE);
        let mut peers = KnownPeers::new(LEASE);
        peers.know(moment(), moment(), &[row(2)]);
        let places = Admission::new(PLACES);
        let exchange = Exchange::new(
            shards.into(),
            ownership.clone(),
            (door, Arc::clone(&board)),
            lease.clone(),
            places.clone(),
            peers,
        );
        Self {
            exchange,
            lease,
            ownership,
            board,
            places,
            store: sqlite,
            loaded_ahead,
            _folder: folder,
        }
    }

    /// Sends a peer's request for a coupon that does not exist, in this epoch. Only a node that serves the
    /// coupon's shard answers that the coupon does not exist.
    async fn request(&self, epoch: u64) -> Answer {
        self.request_until(epoch, moment() + LIMIT).await
    }

    async fn request_until(&self, epoch: u64, expires: Moment) -> Answer {
        let (user, key) = (UserId::parse("alice").unwrap(), RequestKey::parse("key").unwrap());
        let ask = RemoteAsk {
            id: coupon(),
            epoch: Epoch::new(epoch),
            ask: IssueRequest { user, key }.into(),
            trace: None,
        };
        let (path, mut answers) = probe::answer_path(expires).await;
        self.exchange.handle(ask, expires, path);
        let answer = tokio::time::timeout(LIMIT, answers.recv()).await;
        answer.unwrap().unwrap()
    }

    fn hear_of_a_hand_off(&self, epoch: u64, owner: u64) {
        let to = Fence {
            epoch: Epoch::new(epoch),
            owner: incarnation(owner),
        };
        let shard = coupon().shard();
        assert!(self.hear(&News::Owned { shard, to }));
    }

    /// Takes news from peer 2.
    fn hear(&self, news: &News) -> bool {
        self.exchange.news(incarnation(2), news.write())
    }

    /// Returns how many notices are sent to this peer, which knows no notice; `None` if the peer gets no
    /// answer.
    fn notices_for(&self, peer: u64) -> Option<usize> {
        let query = WireBoardQuery { upto: 0 }.encode_to_vec();
        let answer = self.exchange.heartbeat_answer(incarnation(peer), query);
        if answer.is_empty() {
            None
        } else {
            Some(WireBoardChanges::decode(answer.as_slice()).unwrap().posted.len())
        }
    }

    async fn create_coupon(&self) {
        let offer = Offer {
            total_quantity: Some(1),
            ..Offer::titled("test")
        };
        let new = NewCoupon {
            key: RequestKey::random(),
            offer,
            status: Status::Open,
            created_at: Timestamp::from_micros(0).unwrap(),
            record: None,
        };
        self.store.create_coupon(&new).await.unwrap();
    }
}

fn coupon() -> CouponId {
    CouponId::new(1).unwrap()
}

fn served() -> Answer {
    Ok(CouponOutcome::Issue(IssueOutcome::Refused(
        Refusal::UnknownCoupon,
    )))
}

#[tokio::test]
async fn after_news_of_a_hand_off_the_shard_is_served_only_in_that_epoch() {
    let node = Node::new().await;
    assert_eq!(node.request(3).await, Err(Setback::Moved));
    node.hear_of_a_hand_off(3, 1);
    // This node has sent no beat, and sends none.
    assert_eq!(node.request(3).await, served());
    for other in [2, 4] {
        let answer = node.request(other).await;
        assert_eq!(answer, Err(Setback::Moved), "requested in epoch {other}");
    }
    // Late news of an earlier epoch change nothing.
    node.hear_of_a_hand_off(2, 2);
    assert_eq!(node.request(3).await, served());
    node.hear_of_a_hand_off(4, 2);
    assert_eq!(
        [node.request(3).await, node.request(4).await],
        [Err(Setback::Moved), Err(Setback::Moved)]
    );
    assert_eq!(node.ownership.location(coupon().shard()).epoch, Epoch::new(4));
}

#[tokio::test]
async fn a_shard_reports_that_it_is_loaded_ahead_and_notes_which_peer_has_loaded_it_ahead() {
    let mut node = Node::new().await;
    node.create_coupon().await;
    let shard = coupon().shard();
    let ids = vec![coupon()];
    assert!(node.hear(&News::LoadAhead { shard, ids }));
    let reported = tokio::time::timeout(LIMIT, node.loaded_ahead.recv()).await;
    assert_eq!(reported.unwrap(), Some((incarnation(2), shard)));
    // Now this node has the shard and is about to hand it to peer 2. The coupon's owner is made from the rows
    // loaded ahead.
    node.hear_of_a_hand_off(3, 1);
    let local = node.exchange.shard(shard);
    let has_an_owner = async {
        while local.owners() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, has_an_owner).await.unwrap();
    assert_eq!(
        (local.ids_to_load_ahead(), local.is_loaded_ahead(incarnation(2))),
        (vec![coupon()], false)
    );
    assert!(node.hear(&News::LoadedAhead { shard }));
    assert_eq!(
        [2, 3].map(|peer| local.is_loaded_ahead(incarnation(peer))),
        [true, false]
    );
    local.ids_to_load_ahead();
    assert!(
        !local.is_loaded_ahead(incarnation(2)),
        "the report was about earlier ids"
    );
}

#[tokio::test]
async fn a_request_to_an_owner_without_a_lease_is_answered_moved() {
    let node = Node::new().await;
    node.hear_of_a_hand_off(3, 1);
    assert_eq!(node.request(3).await, served());
    node.lease.end();
    assert_eq!(node.request(3).await, Err(Setback::Moved));
}

#[tokio::test]
async fn a_request_is_answered_expired_once_it_has_expired_and_overloaded_if_a_queue_is_full() {
    let node = Node::new().await;
    node.hear_of_a_hand_off(3, 1);
    assert_eq!(node.request_until(3, moment()).await, Err(Setback::Expired));
    let taken: Vec<_> = (0..PLACES).map(|_| node.places.admit().unwrap()).collect();
    assert_eq!(node.request(3).await, Err(Setback::Overloaded));
    drop(taken);
    assert_eq!(node.request(3).await, served());
}

#[tokio::test]
async fn invalid_news_are_not_acknowledged() {
    let node = Node::new().await;
    assert!(node.hear(&News::Widened {
        id: coupon(),
        version: 3
    }));
    for unreadable in [vec![0xff; 40], Vec::new()] {
        assert!(!node.exchange.news(incarnation(2), unreadable));
    }
}

#[tokio::test]
async fn notices_are_confirmed_only_under_a_lease_and_only_to_peers_that_the_rows_name() {
    let node = Node::new().await;
    let offer = Offer {
        total_quantity: Some(1),
        ..Offer::titled("test")
    };
    let at = Timestamp::from_micros(0).unwrap();
    let row = Coupon {
        id: coupon(),
        offer,
        status: Status::Open,
        version: 1,
        created_at: at,
        updated_at: at,
    };
    let notice = SoldOutNotice::new(row, Sequence::new(1), 0, Filter::of(["alice"].into_iter()).into());
    node.board.post(incarnation(1), Arc::new(Notice::new(notice)));
    let notices = (node.notices_for(2), node.notices_for(3));
    assert_eq!(notices, (Some(1), None), "no row names 3");
    node.lease.end();
    assert_eq!(node.notices_for(2), None, "the lease was ended");
    node.lease.set(incarnation(1), moment());
    assert_eq!(node.notices_for(2), None, "the lease has expired");
    // A notice that an owner posted under an earlier incarnation is not confirmed under the lease of a later
    // incarnation.
    node.lease.set(incarnation(9), moment() + LEASE);
    assert_eq!(node.notices_for(2), Some(0));
}
