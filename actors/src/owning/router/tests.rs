//! Tests of the router, with peers that answer by a script. Coupons are the sample kind.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::coupon::change::{Change, ChangeRequest};
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::issue::{IssueOutcome, IssueRequest};
use crate::coupon::offer::Issuance;
use crate::coupon::{CouponAsk, CouponKind, CouponOutcome};
use crate::ids::{Fence, RequestKey, UserId};
use crate::store::NodeRow;
use crate::time::timestamp;
use crate::trace::Span;

type Router = super::Router<CouponKind>;
type Request = super::Request<CouponKind>;
type Answer = super::Answer<CouponKind>;

const LIMIT: Duration = Duration::from_secs(10);

/// What a peer does with a request.
#[derive(Debug, Clone, Copy)]
enum Reaction {
    SetBack(Setback),
    Replay,
    /// The peer does not answer.
    Nothing,
}

/// Peers, each with its reactions to the requests in turn. The last reaction repeats.
#[derive(Default)]
struct Peers {
    script: Mutex<Vec<(u64, VecDeque<Reaction>)>>,
    /// The peer and epoch of each request.
    forwarded: Mutex<Vec<(u64, u64)>>,
    unanswered: Mutex<Vec<Request>>,
}

impl Peers {
    fn with(script: impl IntoIterator<Item = (u64, Vec<Reaction>)>) -> Arc<Self> {
        let script = script
            .into_iter()
            .map(|(peer, reactions)| (peer, reactions.into()))
            .collect();
        Arc::new(Self {
            script: Mutex::new(script),
            ..Self::default()
        })
    }

    fn forwarded(&self) -> Vec<(u64, u64)> {
        let forwarded = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        forwarded.clone()
    }

    fn react(&self, reaction: Reaction, coupon: CouponId, request: Request) {
        match (reaction, request.ask.clone()) {
            (Reaction::SetBack(setback), _) => request.set_back(setback),
            (Reaction::Replay, CouponAsk::Issue(IssueRequest { user, key })) => {
                let id = IssuanceId {
                    coupon,
                    sequence: Sequence::new(1),
                };
                let issuance = Issuance {
                    id,
                    user,
                    nth: 1,
                    key,
                    issued_at: timestamp(),
                    expires_at: None,
                };
                request
                    .reply
                    .send(Ok(CouponOutcome::Issue(IssueOutcome::Replayed(Box::new(
                        issuance.into(),
                    )))));
            }
            (Reaction::Nothing, _) => self.unanswered.lock().unwrap().push(request),
            (Reaction::Replay, CouponAsk::Change(_) | CouponAsk::Use(_)) => {
                panic!("no peer replays anything else")
            }
        }
    }
}

impl Remote<CouponKind> for Peers {
    fn forward(&self, to: Incarnation, epoch: Epoch, coupon: CouponId, request: Request) {
        self.forwarded.lock().unwrap().push((to.get(), epoch.get()));
        let reaction = {
            let mut script = self.script.lock().unwrap();
            let (_, reactions) = script.iter_mut().find(|(peer, _)| *peer == to.get()).unwrap();
            if reactions.len() > 1 {
                reactions.pop_front().unwrap()
            } else {
                reactions[0]
            }
        };
        self.react(reaction, coupon, request);
    }
}

fn fence(owner: u64, epoch: u64) -> Fence {
    Fence {
        epoch: Epoch::new(epoch),
        owner: Incarnation::new(owner).unwrap(),
    }
}

fn coupon() -> CouponId {
    CouponId::new(1).unwrap()
}

/// Makes the router of incarnation 1, and its ownership table, in which incarnation 2 owns the coupon's shard
/// in epoch 5.
fn router(peers: &Arc<Peers>) -> (Router, Ownership) {
    let ownership = Ownership::default();
    let me = Incarnation::new(1).unwrap();
    let nodes = [1, 2, 3].map(|number| NodeRow::ready(number, 1));
    ownership.live_as(me);
    ownership.publish(me, &nodes, &[]);
    ownership.learn(coupon().shard(), fence(2, 5));
    let (remote, lease) = (Arc::clone(peers) as Arc<dyn Remote<CouponKind>>, Lease::default());
    lease.set(me, time::moment() + 10 * LIMIT);
    let shards = Arc::new([]);
    let router = Router::new(shards, ownership.clone(), remote, lease, Admission::new(100));
    (router, ownership)
}

async fn issue(router: &Router, limit: Duration) -> Answer {
    let request = IssueRequest {
        user: UserId::parse("alice").unwrap(),
        key: RequestKey::parse("key").unwrap(),
    };
    let (expires, deadline) = (time::moment() + limit, Instant::now() + limit);
    router
        .route(coupon(), request.into(), expires, deadline, &Span::default())
        .await
}

fn is_replayed(answer: &Answer) -> bool {
    matches!(answer, Ok(CouponOutcome::Issue(IssueOutcome::Replayed(_))))
}

#[tokio::test]
async fn a_request_waits_while_its_shard_moves_and_then_goes_to_the_next_owner() {
    let peers = Peers::with([
        (2, vec![Reaction::SetBack(Setback::Moved)]),
        (3, vec![Reaction::Replay]),
    ]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn({
        let router = router.clone();
        async move { issue(&router, LIMIT).await }
    });
    while router.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    ownership.learn(coupon().shard(), fence(3, 6));
    assert!(is_replayed(&asking.await.unwrap()));
    let forwarded = peers.forwarded();
    assert_eq!(
        (forwarded.first(), forwarded.last()),
        (Some(&(2, 5)), Some(&(3, 6)))
    );
    assert_eq!((router.waiting(), router.admitted()), (0, 0));
}

#[tokio::test]
async fn a_request_to_a_peer_that_does_not_answer_goes_to_the_shards_next_owner() {
    let peers = Peers::with([(2, vec![Reaction::Nothing]), (3, vec![Reaction::Replay])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn(async move { issue(&router, LIMIT).await });
    while peers.forwarded().is_empty() {
        tokio::task::yield_now().await;
    }
    ownership.learn(coupon().shard(), fence(3, 6));
    let answer = tokio::time::timeout(LIMIT / 2, asking)
        .await
        .expect("it is sent to the next owner")
        .unwrap();
    assert!(is_replayed(&answer));
    assert_eq!(peers.forwarded(), [(2, 5), (3, 6)]);
}

#[tokio::test]
async fn a_raised_epoch_of_the_same_owner_does_not_end_the_wait() {
    let peers = Peers::with([(2, vec![Reaction::Nothing, Reaction::SetBack(Setback::Unknown)])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn(async move { issue(&router, LIMIT).await });
    while peers.forwarded().is_empty() {
        tokio::task::yield_now().await;
    }
    ownership.learn(coupon().shard(), fence(2, 6));
    tokio::time::sleep(2 * MOVED_ANSWER_GRACE).await;
    let held = peers.unanswered.lock().unwrap().pop().unwrap();
    peers.react(Reaction::Replay, coupon(), held);
    assert!(is_replayed(&asking.await.unwrap()));
    assert_eq!(peers.forwarded(), [(2, 5)], "sent once");
}

/// Returns the time from the news of a shard's next owner to the answer of a request that waits for it.
async fn answer_time_after_news() -> Duration {
    let peers = Peers::with([
        (2, vec![Reaction::SetBack(Setback::Moved)]),
        (3, vec![Reaction::Replay]),
    ]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn({
        let router = router.clone();
        async move { issue(&router, LIMIT).await }
    });
    // Waits until the pauses of the request have their maximum length and a pause has begun.
    while peers.forwarded().len() < 10 || router.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let told_at = Instant::now();
    ownership.learn(coupon().shard(), fence(3, 6));
    assert!(is_replayed(&asking.await.unwrap()));
    told_at.elapsed()
}

#[tokio::test]
async fn a_waiting_request_is_sent_as_soon_as_news_name_the_next_owner() {
    // One quick answer is enough, because the machine may be busy. Without the news, no answer is that quick.
    for _ in 0..20 {
        if answer_time_after_news().await < Duration::from_millis(50) {
            return;
        }
    }
    panic!("the news did not end the pause");
}

#[tokio::test]
async fn only_an_owner_settles_a_request_that_may_have_been_decided() {
    let setbacks = [
        Setback::Unknown,
        Setback::Overloaded,
        Setback::StoreUnavailable,
        Setback::Moved,
    ]
    .map(Reaction::SetBack);
    let peers = Peers::with([(2, [&setbacks[..], &[Reaction::Replay]].concat())]);
    assert!(is_replayed(&issue(&router(&peers).0, LIMIT).await));
    assert_eq!(peers.forwarded().len(), 5);
    // A request that is not settled in time stays unknown, whatever the last setback was.
    for last in [
        Setback::Overloaded,
        Setback::StoreUnavailable,
        Setback::Moved,
        Setback::Expired,
    ] {
        let peers = Peers::with([(
            2,
            vec![Reaction::SetBack(Setback::Unknown), Reaction::SetBack(last)],
        )]);
        assert_eq!(
            issue(&router(&peers).0, Duration::from_millis(300)).await,
            Err(Setback::Unknown),
            "{last:?}"
        );
    }
    // A request that cannot have been decided is not unknown.
    let peers = Peers::with([(2, vec![Reaction::SetBack(Setback::Moved)])]);
    assert_eq!(
        issue(&router(&peers).0, Duration::from_millis(300)).await,
        Err(Setback::Moved)
    );
}

#[tokio::test]
async fn a_change_that_may_have_been_made_is_not_sent_again() {
    let peers = Peers::with([(
        2,
        vec![
            Reaction::SetBack(Setback::Moved),
            Reaction::SetBack(Setback::Unknown),
        ],
    )]);
    let request = ChangeRequest::from(Change::Pause);
    let (expires, deadline) = (time::moment() + LIMIT, Instant::now() + LIMIT);
    let (router, _) = router(&peers);
    let answer = router
        .route(coupon(), request.into(), expires, deadline, &Span::default())
        .await;
    assert_eq!(answer, Err(Setback::Unknown));
    assert_eq!(peers.forwarded().len(), 2);
}

#[tokio::test]
async fn a_node_without_a_lease_does_not_wait_for_a_shard_that_moves() {
    let peers = Peers::with([(2, vec![Reaction::SetBack(Setback::Moved)])]);
    let (router, _) = router(&peers);
    router.lease.end();
    let begun = Instant::now();
    assert_eq!(issue(&router, LIMIT).await, Err(Setback::StoreUnavailable));
    assert!(begun.elapsed() < LIMIT / 2, "answered at once");
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_shard_whose_owner_is_alive_but_not_reached() {
    let peers = Peers::with([(2, vec![Reaction::SetBack(Setback::Moved)])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn({
        let router = router.clone();
        async move { issue(&router, LIMIT).await }
    });
    while router.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let (me, owner) = (Incarnation::new(1).unwrap(), Incarnation::new(2).unwrap());
    let begun = Instant::now();
    ownership.know_unreachable(me, &[owner]);
    assert_eq!(
        asking.await.unwrap(),
        Err(Setback::Moved),
        "a request that waited"
    );
    let forwarded = peers.forwarded();
    assert_eq!(issue(&router, LIMIT).await, Err(Setback::Moved));
    assert!(begun.elapsed() < LIMIT / 2, "answered at once");
    assert_eq!(peers.forwarded(), forwarded, "nothing is sent");
}

#[tokio::test]
async fn a_request_that_may_have_been_decided_waits_until_its_owner_is_reached_again() {
    let unknown_then_replay = vec![Reaction::SetBack(Setback::Unknown), Reaction::Replay];
    let (me, owner) = (Incarnation::new(1).unwrap(), Incarnation::new(2).unwrap());
    let peers = Peers::with([(2, vec![Reaction::Nothing])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn({
        let router = router.clone();
        async move { issue(&router, LIMIT).await }
    });
    while peers.forwarded().is_empty() {
        tokio::task::yield_now().await;
    }
    ownership.know_unreachable(me, &[owner]);
    *peers.script.lock().unwrap() = vec![(2, unknown_then_replay.into())];
    while router.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    ownership.know_unreachable(me, &[]);
    assert!(is_replayed(&asking.await.unwrap()));
}

#[tokio::test]
async fn no_more_requests_wait_for_a_shard_than_there_are_places() {
    let peers = Peers::with([(2, vec![Reaction::SetBack(Setback::Moved)])]);
    let router = Router {
        waiting: Admission::new(1),
        ..router(&peers).0
    };
    let place = router.waiting.admit().unwrap();
    assert_eq!(issue(&router, LIMIT).await, Err(Setback::Overloaded));
    drop(place);
    assert_eq!(
        issue(&router, Duration::from_millis(100)).await,
        Err(Setback::Moved)
    );
}
