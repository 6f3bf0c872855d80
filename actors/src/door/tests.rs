//! The door against the truth: an owner whose coupon sells out, is changed and changed back, and heartbeats that arrive late and out of order.

use proptest::prelude::*;

use super::*;
use crate::offer::{Offer, Status};
use crate::time::Timestamp;

fn at(millis: u64) -> Moment {
    Moment::at(Duration::from_millis(millis))
}

fn now(millis: u64) -> Now {
    Now { moment: at(millis), timestamp: Timestamp::from_micros(millis as i64 * 1_000).unwrap() }
}

fn coupon(total: u64, version: u64, status: Status) -> Coupon {
    let offer = Offer {
        title: "test".to_owned(),
        discount: None,
        min_order_amount: None,
        total_quantity: Some(total),
        per_user_limit: 1,
        starts_at: None,
        ends_at: None,
        use_within_days: None,
    };
    let (created_at, updated_at) = (Timestamp::from_micros(0).unwrap(), Timestamp::from_micros(0).unwrap());
    Coupon { id: CouponId::new(1).unwrap(), offer, status, version, created_at, updated_at }
}

fn user(number: u64) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn notice(total: u64, version: u64, status: Status) -> Arc<Notice> {
    let winners: Vec<String> = (0..total).map(|number| format!("user-{number}")).collect();
    Arc::new(Notice::new(coupon(total, version, status), Sequence::new(total), winners.iter().map(String::as_str)))
}

#[test]
fn whoever_has_a_coupon_is_sent_on_to_the_owner() {
    let mut door = Knowledge::default();
    door.hear(at(0), [notice(100, 1, Status::Open)]);
    let id = CouponId::new(1).unwrap();
    assert!((0..100).all(|winner| door.answer(id, &user(winner), now(1)).is_none()));
    assert_eq!(door.answer(id, &user(1_000), now(1)), Some(Refusal::SoldOut { total_quantity: 100 }));
}

#[test]
fn what_was_heard_counts_for_its_time_from_before_it_was_asked() {
    let mut door = Knowledge::default();
    door.hear(at(1_000), [notice(1, 1, Status::Open)]);
    let id = CouponId::new(1).unwrap();
    assert!(door.answer(id, &user(7), now(2_999)).is_some());
    assert!(door.answer(id, &user(7), now(3_000)).is_none());
}

#[test]
fn the_door_answers_in_the_owners_order_of_precedence() {
    let mut door = Knowledge::default();
    door.hear(at(0), [notice(1, 2, Status::Paused)]);
    assert_eq!(door.answer(CouponId::new(1).unwrap(), &user(7), now(0)), Some(Refusal::Paused));
}

#[test]
fn answering_marks_the_notice_as_used_once() {
    let mut door = Knowledge::default();
    let posted = notice(1, 1, Status::Open);
    door.hear(at(0), [Arc::clone(&posted)]);
    assert!(!posted.take_used());
    door.answer(CouponId::new(1).unwrap(), &user(7), now(0));
    assert!(posted.take_used());
    assert!(!posted.take_used());
}

#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Pass(u64),
    /// A heartbeat is sent: it carries what is posted now, and arrives later or never.
    Ask,
    /// One of those under way arrives.
    Arrive(usize),
    /// An administrator raises the quantity by one: the owner takes the notice down, the door's floor is raised, then he is answered.
    Widen,
    /// The last one goes, and the owner posts.
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
    fn no_refusal_is_told_after_a_widening_change_was_answered(steps in prop::collection::vec(step(), 1..120)) {
        let (mut door, board, me) = (Knowledge::default(), Board::default(), Incarnation::new(1).unwrap());
        let id = CouponId::new(1).unwrap();
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
                    board.withdraw(id);
                    (total, version, sold_out) = (total + 1, version + 1, false);
                    door.raise_floor(id, version, at(millis));
                }
                Step::SellOut => {
                    sold_out = true;
                    board.post(me, notice(total, version, Status::Open));
                }
            }
            let told = door.answer(id, &user(1_000), now(millis));
            prop_assert!(told.is_none() || sold_out, "told {:?} though {} are on offer", told, total);
        }
    }
}

#[test]
fn winners_are_told_apart_by_case() {
    let mut door = Knowledge::default();
    door.hear(at(0), [Arc::new(Notice::new(coupon(1, 1, Status::Open), Sequence::new(1), ["Alice"].into_iter()))]);
    let id = CouponId::new(1).unwrap();
    assert!(door.answer(id, &UserId::parse("Alice").unwrap(), now(0)).is_none());
    assert!(door.answer(id, &UserId::parse("alice").unwrap(), now(0)).is_some());
}

#[test]
fn what_was_asked_for_before_the_database_went_backwards_is_neither_kept_nor_learnt() {
    let mut door = Knowledge::default();
    door.hear(at(100), [notice(1, 1, Status::Open)]);
    assert_eq!(door.notices(), 1);
    door.forget(at(200));
    assert_eq!(door.notices(), 0);
    door.hear(at(200), [notice(1, 1, Status::Open)]);
    assert_eq!(door.notices(), 0, "asked before, heard after");
    door.hear(at(201), [notice(1, 1, Status::Open)]);
    assert_eq!(door.notices(), 1);
}

#[test]
fn what_an_ended_incarnation_posted_is_not_told_under_its_successors_lease() {
    let (board, before, after) = (Board::default(), Incarnation::new(1).unwrap(), Incarnation::new(2).unwrap());
    board.post(before, notice(1, 1, Status::Open));
    assert_eq!((board.read(before).len(), board.read(after).len()), (1, 0));
    board.post(after, notice(1, 2, Status::Open));
    assert_eq!((board.read(before).len(), board.read(after).len()), (0, 1));
}
