//! What peers are told: by shards over an empty database, and by a board.

use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::*;
use crate::cluster::peers::{PeerAddress, Peers};
use crate::coupon::offer::{Coupon, Offer, Status};
use crate::ids::{RequestKey, Sequence, UserId};
use crate::owning::admission::Admission;
use crate::owning::message::{IssueAnswer, IssueOutcome, IssueRequest, Refusal, Reply};
use crate::owning::owner::actor as coupon;
use crate::owning::shard::ShardSurroundings;
use crate::owning::write_back::Lanes;
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{NewCoupon, Store};
use crate::time::{Timestamp, moment};

const LIMIT: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(30);

fn incarnation(number: u64) -> Incarnation {
    Incarnation::new(number).unwrap()
}

/// The peers of a node, as far as they hear that it has loaded ahead.
struct Hears(mpsc::UnboundedSender<(Incarnation, ShardId)>);

impl Peers for Hears {
    fn live_as(&self, _me: Incarnation) {}

    fn know(&self, _asked_at: Moment, _peers: Vec<PeerAddress>) {}

    fn linked(&self) -> Vec<Incarnation> {
        Vec::new()
    }

    fn refuses(&self, _peer: Incarnation) -> bool {
        false
    }

    fn expect(&self, _peer: Incarnation, _shard: ShardId, _coupons: Vec<CouponId>) {}

    fn loaded_ahead(&self, peer: Incarnation, shard: ShardId) {
        self.0.send((peer, shard)).unwrap();
    }

    fn moved(&self, _shard: ShardId, _to: Fence) {}
}

/// A node that lives as 1, with 2 for a peer.
struct House {
    talk: Talk,
    lease: Lease,
    ownership: Ownership,
    board: Arc<Board>,
    store: Arc<dyn Store>,
    /// Whom the shards here tell that they have loaded ahead.
    loaded_ahead: mpsc::UnboundedReceiver<(Incarnation, ShardId)>,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(
            SqliteStore::open(&Options::new(folder.path().join("test.db")))
                .await
                .unwrap(),
        );
        let (lease, ownership) = (Lease::default(), Ownership::default());
        let (door, board) = (Arc::new(Door::default()), Arc::new(Board::default()));
        let (hears, loaded_ahead) = mpsc::unbounded_channel();
        let surroundings = ShardSurroundings {
            store: Arc::clone(&store),
            owners: coupon::Surroundings {
                lease: lease.clone(),
                lanes: Lanes::start(1, 16, &store, &lease),
                board: Arc::clone(&board),
                door: Arc::clone(&door),
                idle: LIMIT,
                requests_max: 16,
            },
            loads: Arc::new(Semaphore::new(1)),
            loads_waiting: Admission::new(16),
            loads_ahead: Arc::new(Semaphore::new(1)),
            places: Admission::new(16),
            ownership: ownership.clone(),
            peers: Arc::new(Hears(hears)),
        };
        let mut shards = Vec::new();
        for id in ShardId::all() {
            shards.push(ShardHandle::start(id, surroundings.clone()).await.unwrap());
        }
        ownership.live_as(incarnation(1));
        lease.set(incarnation(1), moment() + LEASE);
        let mut acquaintances = Acquaintances::new(LEASE);
        acquaintances.know(moment(), moment(), vec![incarnation(2)]);
        let doors = (door, Arc::clone(&board));
        let talk = Talk::new(
            shards.into(),
            ownership.clone(),
            doors,
            lease.clone(),
            acquaintances,
        );
        Self {
            talk,
            lease,
            ownership,
            board,
            store,
            loaded_ahead,
            _folder: folder,
        }
    }

    /// Asks for a coupon that there is not: only who serves its shard can say so.
    async fn ask(&self, epoch: u64) -> IssueAnswer {
        let (reply, answer): (_, oneshot::Receiver<IssueAnswer>) =
            Reply::new(Admission::new(1).admit().unwrap());
        let (user, key) = (UserId::parse("alice").unwrap(), RequestKey::parse("key").unwrap());
        let request = Request::Issue(
            IssueRequest {
                user,
                key,
                expires: moment() + LIMIT,
            },
            reply,
        );
        self.talk.ask(coupon(), Epoch::new(epoch), request);
        tokio::time::timeout(LIMIT, answer).await.unwrap().unwrap()
    }

    fn hear_of_a_hand_over(&self, epoch: u64, owner: u64) {
        let to = Fence {
            epoch: Epoch::new(epoch),
            owner: incarnation(owner),
        };
        assert!(
            self.talk.news(
                incarnation(2),
                News::Moved {
                    shard: coupon().shard(),
                    to
                }
                .write()
            )
        );
    }

    /// How many notices a peer is told that knows none; nothing, if it is told nothing.
    fn told(&self, peer: u64) -> Option<usize> {
        let answer = self
            .talk
            .answer(incarnation(peer), Question { upto: 0 }.encode_to_vec());
        if answer.is_empty() {
            None
        } else {
            Some(Told::decode(answer.as_slice()).unwrap().posted.len())
        }
    }
}

fn coupon() -> CouponId {
    CouponId::new(1).unwrap()
}

fn served() -> IssueAnswer {
    Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
}

#[tokio::test]
async fn a_shard_is_served_from_the_news_of_its_hand_over_on_and_in_that_epoch_alone() {
    let house = House::new().await;
    assert_eq!(house.ask(3).await, Err(Setback::Moved));
    house.hear_of_a_hand_over(3, 1);
    // There was no beat, and there is none.
    assert_eq!(house.ask(3).await, served());
    for another in [2, 4] {
        assert_eq!(
            house.ask(another).await,
            Err(Setback::Moved),
            "asked in epoch {another}"
        );
    }
    // Late news of before take nothing back.
    house.hear_of_a_hand_over(2, 2);
    assert_eq!(house.ask(3).await, served());
    house.hear_of_a_hand_over(4, 2);
    assert_eq!(
        [house.ask(3).await, house.ask(4).await],
        [Err(Setback::Moved), Err(Setback::Moved)]
    );
    assert_eq!(house.ownership.entry(coupon().shard()).epoch, Epoch::new(4));
}

#[tokio::test]
async fn a_shard_says_when_it_is_loaded_ahead_and_knows_who_has_loaded_its_own() {
    let mut house = House::new().await;
    let offer = Offer {
        total_quantity: Some(1),
        ..Offer::titled("test")
    };
    let created_at = Timestamp::from_micros(0).unwrap();
    house
        .store
        .create_coupon(&NewCoupon {
            key: RequestKey::random(),
            offer,
            status: Status::Open,
            created_at,
        })
        .await
        .unwrap();
    let shard = coupon().shard();
    house.talk.preload(incarnation(2), shard, vec![coupon()]);
    let said = tokio::time::timeout(LIMIT, house.loaded_ahead.recv())
        .await
        .unwrap();
    assert_eq!(said, Some((incarnation(2), shard)));
    // Now it is ours, and about to be handed to 2. Its owner is made of what was loaded ahead.
    house.hear_of_a_hand_over(3, 1);
    let ours = house.talk.shard(shard);
    let has_an_owner = async {
        while ours.owners() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, has_an_owner).await.unwrap();
    assert_eq!(
        (ours.announced(), ours.is_loaded_ahead(incarnation(2))),
        (vec![coupon()], false)
    );
    assert!(
        house
            .talk
            .news(incarnation(2), News::LoadedAhead { shard }.write())
    );
    assert_eq!(
        [2, 3].map(|peer| ours.is_loaded_ahead(incarnation(peer))),
        [true, false]
    );
    ours.announced();
    assert!(
        !ours.is_loaded_ahead(incarnation(2)),
        "that was said of what was announced before"
    );
}

#[tokio::test]
async fn whoever_asks_an_owner_without_a_lease_is_sent_on_to_the_next() {
    let house = House::new().await;
    house.hear_of_a_hand_over(3, 1);
    assert_eq!(house.ask(3).await, served());
    house.lease.end();
    assert_eq!(house.ask(3).await, Err(Setback::Moved));
}

#[tokio::test]
async fn news_that_make_no_sense_are_not_heard() {
    let house = House::new().await;
    assert!(
        house.talk.news(
            incarnation(2),
            News::Widened {
                coupon: coupon(),
                version: 3
            }
            .write()
        )
    );
    assert!(!house.talk.news(incarnation(2), vec![0xff; 40]) && !house.talk.news(incarnation(2), Vec::new()));
}

#[tokio::test]
async fn nothing_is_confirmed_without_a_lease_nor_to_whom_the_rows_do_not_name() {
    let house = House::new().await;
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
    house.board.post(
        incarnation(1),
        Arc::new(Notice::new(row, Sequence::new(1), ["alice"].into_iter())),
    );
    assert_eq!((house.told(2), house.told(3)), (Some(1), None), "3 is nobody");
    house.lease.end();
    assert_eq!(house.told(2), None, "the lease is over");
    house.lease.set(incarnation(1), moment());
    assert_eq!(house.told(2), None, "it holds no more");
    // A successor's lease confirms nothing that an owner of before posted.
    house.lease.set(incarnation(9), moment() + LEASE);
    assert_eq!(house.told(2), Some(0));
}

#[test]
fn news_are_read_as_they_were_written_and_nothing_else_is_news() {
    let to = Fence {
        epoch: Epoch::new(9),
        owner: Incarnation::new(7).unwrap(),
    };
    let moved = News::Moved {
        shard: ShardId::new(255).unwrap(),
        to,
    };
    let widened = News::Widened {
        coupon: CouponId::new(1 << 52).unwrap(),
        version: 3,
    };
    let loaded = [0, 255].map(|shard| News::LoadedAhead {
        shard: ShardId::new(shard).unwrap(),
    });
    for news in [moved, widened, loaded[0], loaded[1]] {
        assert_eq!(News::read(&news.write()), Ok(news));
    }
    assert!(
        News::read(
            &WireNews {
                kind: Some(Kind::LoadedAhead(256))
            }
            .encode_to_vec()
        )
        .is_err()
    );
    for wrong in [
        Moved {
            shard: 256,
            epoch: 1,
            owner: 1,
        },
        Moved {
            shard: 70_000,
            epoch: 1,
            owner: 1,
        },
        Moved {
            shard: 1,
            epoch: 1,
            owner: 0,
        },
    ] {
        assert!(
            News::read(
                &WireNews {
                    kind: Some(Kind::Moved(wrong))
                }
                .encode_to_vec()
            )
            .is_err()
        );
    }
    assert!(News::read(&[]).is_err() && News::read(&[0xff; 40]).is_err());
}
