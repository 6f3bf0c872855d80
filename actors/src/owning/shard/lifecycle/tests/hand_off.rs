//! Handing a shard off, reclaiming it when the outcome is unknown, and draining it.

use super::*;

const DONE: Step = Step::EndHandOff {
    done: true,
    answered: true,
};

fn stopped(coupon: u64) -> Step {
    Step::Stop {
        coupon,
        unsettled: false,
    }
}

#[test]
fn a_shard_is_handed_off_when_everything_is_stored_and_may_be_claimed_again() {
    let mut world = World::after([
        Step::Claim,
        Step::Ask(1),
        Step::EndLoad(1, Load::Read),
        Step::Ask(2),
        Step::HandOff { to: true },
        Step::Ask(1),
    ]);
    // No request is admitted, waiting requests are set back, and the owner stores everything first.
    assert_eq!(world.answered(), [Err(Setback::Moved), Err(Setback::Moved)]);
    assert_eq!(
        (
            world.lifecycle.serving(),
            world.handing_off.len(),
            world.delivered.len()
        ),
        (ServingState::Moving, 0, 1)
    );
    world.steps([stopped(1)]);
    assert_eq!(world.handing_off.len(), 0, "a coupon is still being loaded");
    world.steps([Step::EndLoad(2, Load::Read)]);
    assert_eq!(world.handing_off.len(), 1);
    world.steps([DONE]);
    assert_eq!(
        (world.lifecycle.serving(), world.ours),
        (ServingState::Unserved, false)
    );
    world.steps([Step::Claim, Step::Ask(1), Step::EndLoad(1, Load::Read)]);
    assert_eq!(
        (world.lifecycle.serving(), world.delivered.len()),
        (ServingState::Serving(Epoch::new(3)), 2)
    );
}

#[test]
fn a_shard_that_is_owned_here_only_in_the_store_is_handed_off_after_earlier_owners_have_stopped() {
    let mut world = World::after([
        Step::Claim,
        Step::Ask(1),
        Step::EndLoad(1, Load::Read),
        Step::Lose,
        Step::HandOff { to: true },
    ]);
    assert_eq!(
        (world.owners.len(), world.handing_off.len()),
        (1, 0),
        "the owner has not handled the command to stop yet"
    );
    world.steps([stopped(1)]);
    assert_eq!(world.handing_off.len(), 1);
}

#[test]
fn after_an_unknown_hand_off_a_shard_is_served_only_under_a_higher_epoch() {
    for done in [true, false] {
        let mut world = World::after([
            Step::Claim,
            Step::HandOff { to: true },
            Step::EndHandOff {
                done,
                answered: false,
            },
            Step::Ask(1),
        ]);
        assert_eq!(
            (world.lifecycle.serving(), world.loading.len()),
            (ServingState::Moving, 0)
        );
        world.steps([Step::Raise { answered: true }]);
        let expected = if done {
            ServingState::Unserved
        } else {
            ServingState::Serving(Epoch::new(2))
        };
        assert_eq!(world.lifecycle.serving(), expected);
    }
}

#[test]
fn a_claim_that_is_reported_after_its_shard_was_handed_off_is_stale() {
    let mut world = World::after([Step::Claim, Step::HandOff { to: true }, DONE]);
    world.steps([Step::HearClaimAgain(1)]);
    assert_eq!(world.lifecycle.fence(), None);
    // The same holds for a shard that is ours in the store when the state machine does not know it: after the
    // hand-off, a late report of the claim does not make the shard served.
    let mut world = World::ours_in_the_store(7);
    world.steps([Step::HandOff { to: false }, DONE, Step::HearClaimAgain(0)]);
    assert_eq!((world.lifecycle.fence(), world.ours), (None, false));
}

#[test]
fn a_drained_shard_stays_drained() {
    let world = World::after([Step::Drain, Step::Claim, Step::Ask(1)]);
    assert_eq!(
        (world.drained, world.lifecycle.fence(), world.loading.len()),
        (1, None, 0)
    );
}
