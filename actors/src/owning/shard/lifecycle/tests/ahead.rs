//! Loading ahead of a shard that is about to be handed to this node.

use super::*;

#[test]
fn rows_loaded_ahead_are_completed_under_the_fence_before_a_request_is_delivered() {
    let mut world = World::after([
        Step::LoadAhead(1),
        Step::LoadAhead(2),
        Step::EndLoadAhead(1, true),
        Step::Ask(1),
    ]);
    assert_eq!(
        (world.kept.len(), world.loading.len(), world.delivered.len()),
        (1, 0, 0),
        "nothing is decided yet"
    );
    world.steps([Step::Claim]);
    assert_eq!(
        (world.kept.len(), world.loading[&id(1)]),
        (0, 1),
        "the rest is loaded without a request"
    );
    world.steps([Step::Ask(1), Step::Ask(2), Step::EndLoad(1, Load::Read)]);
    assert_eq!((world.owners.len(), world.delivered.len()), (1, 1));
    // Coupon 2 was not loaded ahead when the shard was claimed. Its request does not wait for loading ahead,
    // and the rows that arrive late are not kept.
    assert_eq!(world.loading[&id(2)], 1);
    world.steps([Step::EndLoadAhead(2, true), Step::EndLoad(2, Load::Read)]);
    assert_eq!(
        (world.owners.len(), world.delivered.len(), world.kept.len()),
        (2, 2, 0)
    );
}

#[test]
fn rows_are_completed_even_if_the_shard_is_claimed_while_they_are_loaded_ahead() {
    let mut world = World::after([Step::LoadAhead(1), Step::Claim]);
    assert_eq!(world.loading.get(&id(1)), None);
    world.steps([
        Step::EndLoadAhead(1, true),
        Step::EndLoad(1, Load::Read),
        Step::Ask(1),
    ]);
    assert_eq!((world.owners.len(), world.delivered.len()), (1, 1));
}

#[test]
fn loading_ahead_is_reported_when_every_coupon_was_loaded_or_failed() {
    let mut world = World::default();
    for step in [
        Step::LoadAhead(1),
        Step::LoadAhead(2),
        Step::EndLoadAhead(1, true),
    ] {
        world.steps([step]);
        assert_eq!(world.reported_loaded_ahead, 0);
    }
    world.steps([Step::EndLoadAhead(2, false)]);
    assert_eq!(world.reported_loaded_ahead, 1);
    world.take(Event::LoadAhead(Vec::new())).unwrap();
    assert_eq!(world.reported_loaded_ahead, 2, "there is nothing to load");
}

#[test]
fn coupons_loaded_ahead_in_vain_are_dropped() {
    let mut world = World::after([
        Step::LoadAhead(1),
        Step::EndLoadAhead(1, true),
        Step::LoadAhead(2),
    ]);
    for _ in 0..10 {
        assert_eq!((world.kept.len(), world.lifecycle.slots.len()), (1, 2));
        world.steps([Step::Sweep]);
    }
    assert_eq!((world.kept.len(), world.lifecycle.slots.len()), (0, 0));
    // The load of coupon 2 ends late, and its rows are not kept.
    world.steps([Step::EndLoadAhead(2, true)]);
    assert!(world.kept.is_empty() && world.lifecycle.slots.is_empty());
    let many = (1..=200).map(id).collect();
    world.take(Event::LoadAhead(many)).unwrap();
    assert_eq!(world.lifecycle.slots.len(), AHEAD_MAX);
}
