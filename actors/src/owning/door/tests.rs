//! Tests of the door, with an owner whose coupon sells out, is changed and sells out again, and with
//! heartbeats that arrive late and out of order. Coupons are the sample kind.

use proptest::prelude::*;

use super::*;
use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::notice::SoldOutNotice;
use crate::coupon::offer::{Coupon, Offer, Status};
use crate::coupon::{CouponKind, CouponOutcome};
use crate::ids::{RequestKey, UserId};
use crate::owning::door::filter::Filter;
use crate::time::Timestamp;

type Knowledge = super::Knowledge<CouponKind>;
type Notice = super::Notice<CouponKind>;
type Board = super::Board<CouponKind>;
type Changes = board::Changes<CouponKind>;

fn at(millis: u64) -> Moment {
    Moment::at(Duration::from_millis(millis))
}

fn now(millis: u64) -> Now {
    Now {
        moment: at(millis),
        timestamp: Timestamp::from_micros(millis as i64 * 1_000).unwrap(),
    }
}

fn coupon(total: u64, version: u64, status: Status) -> Coupon {
    let offer = Offer {
        total_quantity: Some(total),
        ..Offer::titled("test")
    };
    let (created_at, updated_at) = (
        Timestamp::from_micros(0).unwrap(),
        Timestamp::from_micros(0).unwrap(),
    );
    Coupon {
        id: id(1),
        offer,
        status,
        version,
        created_at,
        updated_at,
    }
}

fn id(number: u64) -> CouponId {
    CouponId::new(number).unwrap()
}

fn user(number: u64) -> String {
    format!("user-{number}")
}

fn notice_of<'a>(coupon: Coupon, issued: u64, winners: impl Iterator<Item = &'a str>) -> Arc<Notice> {
    let content = SoldOutNotice::new(coupon, Sequence::new(issued), 0, Filter::of(winners).into());
    Arc::new(Notice::new(content))
}

fn notice(total: u64, version: u64, status: Status) -> Arc<Notice> {
    let winners: Vec<String> = (0..total).map(user).collect();
    notice_of(
        coupon(total, version, status),
        total,
        winners.iter().map(String::as_str),
    )
}

/// Returns what the door answers when this user asks for the coupon.
fn refusal(door: &Knowledge, id: CouponId, user: &str, now: Now) -> Option<Refusal> {
    let request = IssueRequest {
        user: UserId::parse(user).unwrap(),
        key: RequestKey::parse("key").unwrap(),
    };
    match door.refusal(id, &request.into(), now)? {
        CouponOutcome::Issue(IssueOutcome::Refused(refusal)) => Some(refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_of_a_user_who_has_a_coupon_is_left_to_the_owner() {
    let mut door = Knowledge::default();
    door.hear(at(0), [notice(100, 1, Status::Open)]);
    assert!((0..100).all(|winner| refusal(&door, id(1), &user(winner), now(1)).is_none()));
    assert_eq!(
        refusal(&door, id(1), &user(1_000), now(1)),
        Some(Refusal::SoldOut { total_quantity: 100 })
    );
}

#[test]
fn the_time_for_which_a_notice_counts_begins_before_the_door_asks_for_it() {
    let mut door = Knowledge::default();
    door.hear(at(1_000), [notice(1, 1, Status::Open)]);
    assert!(refusal(&door, id(1), &user(7), now(2_999)).is_some());
    assert!(refusal(&door, id(1), &user(7), now(3_000)).is_none());
}

#[test]
fn the_door_answers_in_the_owners_order_of_precedence() {
    let mut door = Knowledge::default();
    door.hear(at(0), [notice(1, 2, Status::Paused)]);
    assert_eq!(refusal(&door, id(1), &user(7), now(0)), Some(Refusal::Paused));
}

#[test]
fn a_refusal_marks_the_notice_as_used_until_the_mark_is_taken() {
    let mut door = Knowledge::default();
    let posted = notice(1, 1, Status::Open);
    door.hear(at(0), [Arc::clone(&posted)]);
    assert!(!posted.take_used());
    refusal(&door, id(1), &user(7), now(0));
    assert!(posted.take_used());
    assert!(!posted.take_used());
}

#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Pass(u64),
    /// A heartbeat is sent. It carries the notices that are posted now, and arrives later or never.
    Ask,
    /// One of the heartbeats under way arrives.
    Arrive(usize),
    /// An administrator raises the quantity by one: the owner withdraws the notice, the door's floor is
    /// raised, and then the change is answered.
    Widen,
    /// The last coupon is issued, and the owner posts a notice.
    SellOut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..700_u64).prop_map(Step::Pass),
        4 => Just(Step::Ask),
        4 => (0..4_usize).prop_map(Step::Arrive),
        1 => Just(Step::Widen),
        1 => Just(Step::SellOut),
    ]
}

proptest! {
    #[test]
    fn no_door_refuses_after_a_widening_change_was_answered(steps in prop::collection::vec(step(), 1..120)) {
        let (mut door, board, me) = (Knowledge::default(), Board::default(), Incarnation::new(1).unwrap());
        let (mut millis, mut total, mut version, mut sold_out) = (0, 3, 1, true);
        board.post(me, notice(total, version, Status::Open));
        let mut under_way: Vec<(Moment, Vec<Arc<Notice>>)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(passed) => millis += passed,
                Step::Ask => under_way.push((at(millis), board.read(me))),
                Step::Arrive(which) if which < under_way.len() => {
                    let (asked_at, notices) = under_way.remove(which);
                    door.hear(asked_at, notices);
                }
                Step::Arrive(_) => {}
                Step::Widen => {
                    board.withdraw(id(1));
                    (total, version, sold_out) = (total + 1, version + 1, false);
                    door.raise_floor(id(1), version, at(millis));
                }
                Step::SellOut => {
                    sold_out = true;
                    board.post(me, notice(total, version, Status::Open));
                }
            }
            let told = refusal(&door, id(1), &user(1_000), now(millis));
            prop_assert!(told.is_none() || sold_out, "told {:?} though {} are on offer", told, total);
        }
    }
}

#[test]
fn users_whose_ids_differ_only_in_case_are_told_apart() {
    let mut door = Knowledge::default();
    door.hear(
        at(0),
        [notice_of(coupon(1, 1, Status::Open), 1, ["Alice"].into_iter())],
    );
    assert!(refusal(&door, id(1), "Alice", now(0)).is_none());
    assert!(refusal(&door, id(1), "alice", now(0)).is_some());
}

#[test]
fn notices_from_before_the_database_went_backwards_are_neither_kept_nor_learnt() {
    let mut door = Knowledge::default();
    door.hear(at(100), [notice(1, 1, Status::Open)]);
    assert_eq!(door.notices(), 1);
    door.forget(at(200));
    assert_eq!(door.notices(), 0);
    door.hear(at(200), [notice(1, 1, Status::Open)]);
    assert_eq!(door.notices(), 0, "asked for before, heard after");
    door.hear(at(201), [notice(1, 1, Status::Open)]);
    assert_eq!(door.notices(), 1);
}

#[test]
fn a_notice_of_an_ended_incarnation_is_not_sent_under_its_successors_lease() {
    let (board, before, after) = (
        Board::default(),
        Incarnation::new(1).unwrap(),
        Incarnation::new(2).unwrap(),
    );
    board.post(before, notice(1, 1, Status::Open));
    assert_eq!((board.read(before).len(), board.read(after).len()), (1, 0));
    board.post(after, notice(1, 2, Status::Open));
    assert_eq!((board.read(before).len(), board.read(after).len()), (0, 1));
}

fn peer(number: u64) -> Incarnation {
    Incarnation::new(number).unwrap()
}

fn of_coupon(number: u64, version: u64) -> Arc<Notice> {
    let coupon = Coupon {
        id: id(number),
        ..coupon(1, version, Status::Open)
    };
    notice_of(coupon, 1, ["user-0"].into_iter())
}

/// Returns for which of these coupons the door refuses requests at that time.
fn refused(door: &Knowledge, ids: std::ops::RangeInclusive<u64>, millis: u64) -> Vec<u64> {
    let refuses = |number: &u64| refusal(door, id(*number), &user(9), now(millis)).is_some();
    ids.filter(refuses).collect()
}

fn all(upto: u64, posted: Vec<Arc<Notice>>) -> Changes {
    changes(0, upto, vec![], posted)
}

fn changes(since: u64, upto: u64, withdrawn: Vec<CouponId>, posted: Vec<Arc<Notice>>) -> Changes {
    Changes {
        since,
        upto,
        withdrawn,
        posted,
    }
}

#[test]
fn notices_of_a_peer_expire_unless_an_answer_of_that_peer_confirms_them() {
    let mut door = Knowledge::default();
    let both = || vec![of_coupon(1, 1), of_coupon(2, 1)];
    door.hear_peer(peer(1), at(0), all(2, both()));
    assert_eq!(
        (refused(&door, 1..=3, 1_999), door.upto(peer(1))),
        (vec![1, 2], 2)
    );
    door.hear_peer(peer(1), at(1_500), changes(2, 3, vec![id(1)], vec![]));
    assert_eq!(refused(&door, 1..=3, 3_499), [2]);
    assert_eq!(refused(&door, 1..=3, 3_500), [0; 0]);
    // Two answers are ignored: an answer to an older question, and changes since a state that the door no
    // longer has.
    door.hear_peer(peer(1), at(1_000), all(9, both()));
    door.hear_peer(peer(1), at(1_600), changes(2, 9, vec![], vec![of_coupon(3, 1)]));
    assert_eq!((refused(&door, 1..=3, 1_700), door.upto(peer(1))), (vec![2], 3));
    // The peer did not confirm its notices for too long, so everything must be sent again.
    door.hear(at(4_000), []);
    assert_eq!((door.notices(), door.upto(peer(1))), (0, 0));
}

#[test]
fn the_newer_of_two_notices_counts_and_a_peer_withdraws_only_its_own_notice() {
    let mut door = Knowledge::default();
    let told = |number, version| all(1, vec![of_coupon(number, version)]);
    door.hear_peer(peer(2), at(0), told(1, 5));
    door.hear_peer(peer(1), at(1), told(1, 4));
    door.hear_peer(peer(1), at(2), changes(1, 2, vec![id(1)], vec![]));
    assert_eq!(refused(&door, 1..=1, 3), [1]);
    door.raise_floor(id(1), 6, at(4));
    door.hear_peer(peer(2), at(5), told(1, 5));
    assert_eq!(refused(&door, 1..=1, 6), [0; 0], "the notice is below the floor");
    door.hear_peer(peer(2), at(7), told(1, 6));
    assert_eq!(refused(&door, 1..=1, 8), [1]);
}

#[test]
fn a_reader_with_an_unknown_or_too_old_state_is_told_everything() {
    let board = Board::default();
    let me = peer(1);
    board.post(me, of_coupon(1, 1));
    board.post(peer(2), of_coupon(2, 1));
    assert_eq!(board.changes(me, 77, 10_000).since, 0);
    let first = board.changes(me, 0, 10_000);
    assert_eq!((first.upto, first.posted.len()), (2, 1));
    for _ in 0..board::WITHDRAWN_MAX {
        board.post(me, of_coupon(1, 1));
    }
    assert_eq!(board.changes(me, first.upto, 10_000).since, first.upto);
    board.post(me, of_coupon(1, 1));
    let anew = board.changes(me, first.upto, 10_000);
    assert_eq!((anew.since, anew.posted.len(), anew.withdrawn.len()), (0, 1, 0));
    board.clear();
    assert_eq!(board.changes(me, anew.upto, 10_000).since, 0);
}

proptest! {
    /// However few notices fit into an answer, a door that has just heard an answer knows only notices that
    /// are posted. In the end the door knows all posted notices.
    #[test]
    fn a_door_follows_a_board(steps in prop::collection::vec((0..4_u8, 1..6_u64, 1..9_u64), 1..60)) {
        let (board, mut door, me) = (Board::default(), Knowledge::default(), peer(1));
        let room = of_coupon(1, 1).encoded().len() + board::NOTICE_AROUND_BYTES;
        let mut posted: HashMap<u64, u64> = HashMap::new();
        let mut millis = 0;
        let mut hear = |board: &Board, door: &mut Knowledge| {
            millis += 1;
            let changes = board.changes(me, door.upto(me), room + 2);
            door.hear_peer(me, at(millis), changes);
            millis
        };
        for (step, number, version) in steps {
            match step {
                0 => {
                    board.post(me, of_coupon(number, version));
                    posted.insert(number, version);
                }
                1 => {
                    board.withdraw(id(number));
                    posted.remove(&number);
                }
                _ => {
                    let millis = hear(&board, &mut door);
                    prop_assert!(refused(&door, 1..=6, millis).iter().all(|id| posted.contains_key(id)));
                    for (id, known) in &door.notices {
                        prop_assert_eq!(posted.get(&id.get()), Some(&known.notice.version()));
                    }
                }
            }
        }
        let last = (0..8).map(|_| hear(&board, &mut door)).last().unwrap();
        let mut all: Vec<u64> = posted.keys().copied().collect();
        all.sort_unstable();
        prop_assert_eq!(refused(&door, 1..=6, last), all);
    }
}

/// Returns how long it takes to encode a notice of these winners, and the longest time that another owner
/// waited meanwhile to withdraw its notice.
fn writing_and_waiting(winners: &Arc<Filter>) -> (Duration, Duration) {
    let board = Board::default();
    let (owner, other) = (Incarnation::new(1).unwrap(), id(99));
    let content = SoldOutNotice::new(
        coupon(1, 1, Status::Open),
        Sequence::new(1),
        0,
        Arc::clone(winners),
    );
    board.post(owner, Arc::new(Notice::new(content)));
    let begin = std::sync::Barrier::new(2);
    let written = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            begin.wait();
            let begun = std::time::Instant::now();
            assert_eq!(board.changes(owner, 0, usize::MAX).posted.len(), 1);
            written.store(true, std::sync::atomic::Ordering::Release);
            begun.elapsed()
        });
        begin.wait();
        let mut waited = Duration::ZERO;
        while !written.load(std::sync::atomic::Ordering::Acquire) {
            let begun = std::time::Instant::now();
            board.withdraw(other);
            waited = waited.max(begun.elapsed());
        }
        (asking.join().unwrap(), waited)
    })
}

#[test]
fn writing_a_notice_does_not_block_owners() {
    // One quick round is enough, because the machine may be busy. A lock that is held during the encoding
    // would block in every round.
    let names: Vec<String> = (0..2_000_000).map(user).collect();
    let winners = Arc::new(Filter::of(names.iter().map(String::as_str)));
    let rounds = std::iter::repeat_with(|| writing_and_waiting(&winners)).take(10);
    let mut rounds =
        rounds.inspect(|(written, waited)| println!("written in {written:?}, waited for {waited:?}"));
    assert!(rounds.any(|(written, waited)| waited < written / 4));
}
