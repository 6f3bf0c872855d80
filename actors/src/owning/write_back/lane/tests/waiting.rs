//! What becomes of portions that wait behind a batch.

use super::*;

fn given_back(effects: &[Effect]) -> Vec<u64> {
    let given_back = effects.iter().filter_map(|effect| match effect {
        Effect::GiveBack(submission) => Some(submission.mailbox),
        _ => None,
    });
    given_back.collect()
}

/// Returns the mailboxes that were told that the store does not accept their portions.
fn delayed(effects: &[Effect]) -> Vec<u64> {
    let delayed = effects.iter().filter_map(|effect| match effect {
        Effect::Delay(submission) => Some(submission.mailbox),
        _ => None,
    });
    delayed.collect()
}

fn submit(lane: &mut Lane, coupon: u64, effects: &mut Vec<Effect>) {
    let submission = Submission {
        portion: portion(coupon, 1, 1, false),
        mailbox: coupon,
        traces: Vec::new(),
    };
    lane.handle(Event::Submitted(submission), effects);
}

#[test]
fn what_waits_behind_a_batch_that_must_be_sent_again_is_given_back() {
    let (mut lane, mut effects) = lane_with(&[(1, 1), (2, 3), (3, 4)]);
    let refused = || Event::Written(Err(StoreError::NotStored("locked".to_owned())));
    effects.clear();
    lane.handle(refused(), &mut effects);
    assert_eq!((delayed(&effects), given_back(&effects)), (vec![1], vec![2, 3]));
    // What comes back found no other lane, and waits here.
    submit(&mut lane, 2, &mut effects);
    assert_eq!(delayed(&effects), [1, 2]);
    effects.clear();
    lane.handle(Event::RetryDue { lease_holds: true }, &mut effects);
    lane.handle(refused(), &mut effects);
    assert_eq!((delayed(&effects), given_back(&effects)), (vec![], vec![]));
    lane.handle(Event::RetryDue { lease_holds: true }, &mut effects);
    lane.handle(Event::Written(Ok(1)), &mut effects);
    effects.clear();
    lane.handle(Event::Written(Ok(1)), &mut effects);
    assert_eq!(settled(&effects), [(2, Fate::Stored)]);
}

/// Portions of a batch that clashed may be stored by an attempt that is still under way, until their fate is
/// known.
#[test]
fn what_waits_behind_a_batch_that_takes_long_is_given_back_and_the_batch_is_not() {
    let (mut lane, mut effects) = lane_with(&[(9, 1), (1, 2), (2, 2)]);
    lane.handle(Event::Written(Ok(1)), &mut effects);
    lane.handle(
        Event::Written(Err(StoreError::Clash("taken".to_owned()))),
        &mut effects,
    );
    submit(&mut lane, 3, &mut effects);
    effects.clear();
    lane.handle(Event::TakesLong, &mut effects);
    assert_eq!(given_back(&effects), [3]);
    let absent = Found {
        fence_holds: true,
        rows: FoundRows::Absent,
    };
    lane.handle(Event::ReadBack(Ok(vec![absent, absent])), &mut effects);
    submit(&mut lane, 4, &mut effects);
    effects.clear();
    lane.handle(Event::TakesLong, &mut effects);
    assert_eq!(given_back(&effects), [4], "each of the others is written alone");
    effects.clear();
    lane.handle(Event::Written(Ok(2)), &mut effects);
    lane.handle(Event::Written(Ok(2)), &mut effects);
    assert_eq!(settled(&effects), [(1, Fate::Stored), (2, Fate::Stored)]);
    effects.clear();
    lane.handle(Event::TakesLong, &mut effects);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn when_the_lease_ends_everything_is_unknown() {
    let (mut lane, mut effects) = lane_with(&[(1, 1), (2, 3)]);
    lane.handle(
        Event::Written(Err(StoreError::Unknown("cut off".to_owned()))),
        &mut effects,
    );
    assert!(lane.is_delayed());
    // No other lane is free.
    submit(&mut lane, 2, &mut effects);
    assert_eq!(delayed(&effects), [1, 2]);
    effects.clear();
    lane.handle(Event::RetryDue { lease_holds: false }, &mut effects);
    assert_eq!(settled(&effects), [(1, Fate::Unknown), (2, Fate::Unknown)]);
    assert!(!lane.is_delayed());
}
