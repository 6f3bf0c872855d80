//! Requests for a coupon that is being loaded.

use super::*;

#[test]
fn requests_wait_for_a_coupon_that_is_being_loaded() {
    let mut world = World::after([Step::Claim, Step::Ask(1), Step::Ask(1), Step::Ask(1)]);
    assert_eq!((world.loading[&id(1)], world.delivered.len()), (1, 0));
    world.steps([Step::EndLoad(1, Load::Read)]);
    assert_eq!(world.delivered.len(), 3);
}

#[test]
fn as_many_requests_wait_for_a_load_as_the_queue_of_an_owner_takes() {
    let steps = std::iter::repeat_n(Step::Ask(1), WAITING_MAX + 1);
    let mut world = World::after(std::iter::once(Step::Claim).chain(steps));
    let last = world.answers.last_mut().unwrap().try_recv();
    assert_eq!(last, Ok(Err(Setback::Overloaded)));
    world.steps([Step::EndLoad(1, Load::Read)]);
    assert_eq!(world.delivered.len(), WAITING_MAX);
}

#[test]
fn only_requests_before_a_read_are_answered_not_found() {
    let mut world = World::after([
        Step::Claim,
        Step::Ask(1),
        Step::Ask(1),
        Step::EndLoad(1, Load::Absent),
    ]);
    // Only the first request was there before the read. For the second request, the coupon is loaded again
    // and found.
    assert_eq!(world.answered().len(), 1);
    world.steps([Step::EndLoad(1, Load::Read)]);
    assert_eq!(world.delivered.len(), 1);
}

#[test]
fn a_read_that_began_before_the_shard_was_away_does_not_answer_not_found() {
    // The coupon may be created while the shard is away, and the read may still be under way when it is back.
    let mut world = World::after([
        Step::Claim,
        Step::Ask(1),
        Step::Lose,
        Step::Claim,
        Step::Ask(1),
        Step::EndLoad(1, Load::Absent),
    ]);
    let mut answers = world.answers.iter_mut().map(|answer| answer.try_recv().ok());
    assert_eq!(
        (answers.next(), answers.next()),
        (Some(Some(Err(Setback::Moved))), Some(None)),
        "the second request waits for a read of its own"
    );
}

#[test]
fn a_request_without_a_waiting_caller_is_dropped() {
    let mut world = World::after([Step::Claim, Step::Ask(1), Step::Ask(1), Step::Ask(1)]);
    world.answers.truncate(1);
    world.steps([Step::Sweep, Step::EndLoad(1, Load::Read)]);
    assert_eq!(world.delivered.len(), 1);
}

#[test]
fn the_absence_of_a_coupon_is_not_remembered() {
    let mut world = World::after([Step::Claim]);
    for _ in 0..2 {
        world.steps([Step::Ask(1), Step::EndLoad(1, Load::Absent)]);
    }
    assert!(world.lifecycle.slots.is_empty());
    let answers = world.answered();
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}
