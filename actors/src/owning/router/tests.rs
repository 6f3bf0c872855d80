//! The router over peers that answer as they are told to.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::coupon::offer::Issuance;
use crate::ids::{Fence, IssuanceId, NodeId, RequestKey, Sequence, UserId};
use crate::owning::message::{Change, IssueOutcome};
use crate::store::{NodeRow, NodeState};
use crate::time::timestamp;

const LIMIT: Duration = Duration::from_secs(10);

/// What a peer does with a request.
#[derive(Debug, Clone, Copy)]
enum Does {
    SetBack(Setback),
    Replay,
    /// It stands still.
    Nothing,
}

/// Peers, each with what it does with one request after the other; the last one stays.
#[derive(Default)]
struct Peers {
    script: Mutex<Vec<(u64, VecDeque<Does>)>>,
    asked: Mutex<Vec<(u64, u64)>>,
    unanswered: Mutex<Vec<Request>>,
}

impl Peers {
    fn with(script: impl IntoIterator<Item = (u64, Vec<Does>)>) -> Arc<Self> {
        let script = script
            .into_iter()
            .map(|(peer, does)| (peer, does.into()))
            .collect();
        Arc::new(Self {
            script: Mutex::new(script),
            ..Self::default()
        })
    }

    fn asked(&self) -> Vec<(u64, u64)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Remote for Peers {
    fn ask(&self, to: Incarnation, epoch: Epoch, coupon: CouponId, request: Request) {
        self.asked.lock().unwrap().push((to.get(), epoch.get()));
        let does = {
            let mut script = self.script.lock().unwrap();
            let does = &mut script.iter_mut().find(|(peer, _)| *peer == to.get()).unwrap().1;
            if does.len() > 1 {
                does.pop_front().unwrap()
            } else {
                does[0]
            }
        };
        self.carry_out(does, coupon, request);
    }
}

impl Peers {
    fn carry_out(&self, does: Does, coupon: CouponId, request: Request) {
        match (does, request) {
            (Does::SetBack(setback), request) => request.set_back(setback),
            (Does::Replay, Request::Issue(IssueRequest { user, key, .. }, reply)) => {
                let id = IssuanceId {
                    coupon,
                    sequence: Sequence::new(1),
                };
                reply.send(Ok(IssueOutcome::Replayed(Issuance {
                    id,
                    user,
                    nth: 1,
                    key,
                    issued_at: timestamp(),
                    expires_at: None,
                })));
            }
            (Does::Nothing, request) => self.unanswered.lock().unwrap().push(request),
            (Does::Replay, Request::Change(..)) => panic!("nobody replays a change"),
        }
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

/// A router of the incarnation 1, and what it knows: that the coupon's shard is 2's in epoch 5.
fn router(peers: &Arc<Peers>) -> (Router, Ownership) {
    let ownership = Ownership::default();
    let me = Incarnation::new(1).unwrap();
    let node = |number: u64| NodeRow {
        id: NodeId::parse(&format!("node-{number}")).unwrap(),
        incarnation: Incarnation::new(number).unwrap(),
        beat: 1,
        state: NodeState::Ready,
        http: String::new(),
        cluster: String::new(),
        links: Vec::new(),
    };
    ownership.live_as(me);
    ownership.publish(me, &[node(1), node(2), node(3)], &[]);
    ownership.learn(coupon().shard(), fence(2, 5));
    let (remote, lease) = (Arc::clone(peers) as Arc<dyn Remote>, Lease::default());
    lease.set(me, time::moment() + 10 * LIMIT);
    (
        Router::new(
            Arc::new([]),
            ownership.clone(),
            remote,
            lease,
            Admission::new(100),
        ),
        ownership,
    )
}

async fn issue(router: &Router, limit: Duration) -> IssueAnswer {
    let (user, key) = (UserId::parse("alice").unwrap(), RequestKey::parse("key").unwrap());
    let request = IssueRequest {
        user,
        key,
        expires: time::moment() + limit,
    };
    router.issue(coupon(), request, Instant::now() + limit).await
}

#[tokio::test]
async fn a_request_waits_while_its_shard_moves_and_follows_it_to_its_next_owner() {
    let peers = Peers::with([(2, vec![Does::SetBack(Setback::Moved)]), (3, vec![Does::Replay])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn({
        let router = router.clone();
        async move { issue(&router, LIMIT).await }
    });
    while router.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    ownership.learn(coupon().shard(), fence(3, 6));
    assert!(matches!(asking.await.unwrap(), Ok(IssueOutcome::Replayed(_))));
    let asked = peers.asked();
    assert_eq!((asked.first(), asked.last()), (Some(&(2, 5)), Some(&(3, 6))));
    assert_eq!((router.waiting(), router.admitted()), (0, 0));
}

#[tokio::test]
async fn a_peer_that_stands_still_is_not_waited_for_once_its_shard_has_another_owner() {
    let peers = Peers::with([(2, vec![Does::Nothing]), (3, vec![Does::Replay])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn(async move { issue(&router, LIMIT).await });
    while peers.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    ownership.learn(coupon().shard(), fence(3, 6));
    let answer = tokio::time::timeout(LIMIT / 2, asking)
        .await
        .expect("it is asked for elsewhere")
        .unwrap();
    assert!(matches!(answer, Ok(IssueOutcome::Replayed(_))));
    assert_eq!(peers.asked(), [(2, 5), (3, 6)]);
}

#[tokio::test]
async fn an_owner_that_raised_its_epoch_is_waited_for_as_before() {
    let peers = Peers::with([(2, vec![Does::Nothing, Does::SetBack(Setback::Unknown)])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn(async move { issue(&router, LIMIT).await });
    while peers.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    ownership.learn(coupon().shard(), fence(2, 6));
    tokio::time::sleep(2 * OVERDUE).await;
    let held = peers.unanswered.lock().unwrap().pop().unwrap();
    peers.carry_out(Does::Replay, coupon(), held);
    assert!(matches!(asking.await.unwrap(), Ok(IssueOutcome::Replayed(_))));
    assert_eq!(peers.asked(), [(2, 5)], "asked once");
}

/// How long a request that waits is not asked for at its shard's next owner.
async fn from_news_to_answer() -> Duration {
    let peers = Peers::with([(2, vec![Does::SetBack(Setback::Moved)]), (3, vec![Does::Replay])]);
    let (router, ownership) = router(&peers);
    let asking = tokio::spawn({
        let router = router.clone();
        async move { issue(&router, LIMIT).await }
    });
    // Until its pauses are the longest, and one begins.
    while peers.asked().len() < 10 || router.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let told_at = Instant::now();
    ownership.learn(coupon().shard(), fence(3, 6));
    assert!(matches!(asking.await.unwrap(), Ok(IssueOutcome::Replayed(_))));
    told_at.elapsed()
}

#[tokio::test]
async fn whoever_waits_for_a_shard_goes_on_at_the_news_of_its_next_owner_and_not_after_its_pause() {
    // Once is enough, on a machine that may be busy: without the news it is never that soon.
    for _ in 0..20 {
        if from_news_to_answer().await < Duration::from_millis(50) {
            return;
        }
    }
    panic!("the news wake nobody");
}

#[tokio::test]
async fn whoever_may_have_been_decided_for_is_settled_by_an_owner_alone() {
    let setbacks = [
        Setback::Unknown,
        Setback::Overloaded,
        Setback::StoreUnavailable,
        Setback::Moved,
    ]
    .map(Does::SetBack);
    let peers = Peers::with([(2, [&setbacks[..], &[Does::Replay]].concat())]);
    assert!(matches!(
        issue(&router(&peers).0, LIMIT).await,
        Ok(IssueOutcome::Replayed(_))
    ));
    assert_eq!(peers.asked().len(), 5);
    // Not settled in time, it stays unknown whatever came last.
    for last in [
        Setback::Overloaded,
        Setback::StoreUnavailable,
        Setback::Moved,
        Setback::Expired,
    ] {
        let peers = Peers::with([(2, vec![Does::SetBack(Setback::Unknown), Does::SetBack(last)])]);
        assert_eq!(
            issue(&router(&peers).0, Duration::from_millis(300)).await,
            Err(Setback::Unknown),
            "{last:?}"
        );
    }
    // And what nobody can have decided is said to be so.
    let peers = Peers::with([(2, vec![Does::SetBack(Setback::Moved)])]);
    assert_eq!(
        issue(&router(&peers).0, Duration::from_millis(300)).await,
        Err(Setback::Moved)
    );
}

#[tokio::test]
async fn a_change_that_may_have_been_made_is_not_asked_for_again() {
    let peers = Peers::with([(
        2,
        vec![Does::SetBack(Setback::Moved), Does::SetBack(Setback::Unknown)],
    )]);
    let request = ChangeRequest {
        change: Change::Pause,
        if_version: None,
        expires: time::moment() + LIMIT,
    };
    let answer = router(&peers)
        .0
        .change(coupon(), request, Instant::now() + LIMIT)
        .await;
    assert_eq!(answer, Err(Setback::Unknown));
    assert_eq!(peers.asked().len(), 2);
}

#[tokio::test]
async fn who_reads_no_rows_any_more_does_not_wait_for_a_shard_that_moves() {
    let peers = Peers::with([(2, vec![Does::SetBack(Setback::Moved)])]);
    let (router, _) = router(&peers);
    router.lease.end();
    let begun = Instant::now();
    assert_eq!(issue(&router, LIMIT).await, Err(Setback::StoreUnavailable));
    assert!(begun.elapsed() < LIMIT / 2, "told at once");
}

#[tokio::test]
async fn no_more_wait_for_a_shard_than_there_are_places() {
    let peers = Peers::with([(2, vec![Does::SetBack(Setback::Moved)])]);
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
