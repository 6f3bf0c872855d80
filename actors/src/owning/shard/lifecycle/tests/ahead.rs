//! What is read ahead of a shard that is about to be handed to us.

use super::*;

#[test]
fn what_was_read_ahead_is_completed_under_the_fence_before_anybody_is_heard() {
    let mut world = World::default();
    for step in [
        Step::Expect(1),
        Step::Expect(2),
        Step::ReadAhead(1, true),
        Step::Ask(1),
    ] {
        world.step(step).unwrap();
    }
    assert_eq!(
        (world.kept.len(), world.reading.len(), world.delivered.len()),
        (1, 0, 0),
        "nothing is decided yet"
    );
    world.step(Step::Claim).unwrap();
    assert_eq!(
        (world.kept.len(), world.reading[&id(1)]),
        (0, 1),
        "its tail is read though nobody asked"
    );
    for step in [Step::Ask(1), Step::Ask(2), Step::Read(1, Load::Read)] {
        world.step(step).unwrap();
    }
    assert_eq!((world.owners.len(), world.delivered.len()), (1, 1));
    // The other was not read ahead by then, and whoever asks for it does not wait for that. What comes of it
    // late is not kept.
    assert_eq!(world.reading[&id(2)], 1);
    for step in [Step::ReadAhead(2, true), Step::Read(2, Load::Read)] {
        world.step(step).unwrap();
    }
    assert_eq!(
        (world.owners.len(), world.delivered.len(), world.kept.len()),
        (2, 2, 0)
    );
}

#[test]
fn what_is_still_being_read_ahead_when_its_shard_comes_is_completed_after_that() {
    let mut world = World::default();
    for step in [Step::Expect(1), Step::Claim] {
        world.step(step).unwrap();
    }
    assert_eq!(world.reading.get(&id(1)), None);
    for step in [Step::ReadAhead(1, true), Step::Read(1, Load::Read), Step::Ask(1)] {
        world.step(step).unwrap();
    }
    assert_eq!((world.owners.len(), world.delivered.len()), (1, 1));
}

#[test]
fn that_all_is_loaded_ahead_is_said_once_all_was_read_or_could_not_be() {
    let mut world = World::default();
    for step in [Step::Expect(1), Step::Expect(2), Step::ReadAhead(1, true)] {
        world.step(step).unwrap();
        assert_eq!(world.loaded_ahead, 0);
    }
    world.step(Step::ReadAhead(2, false)).unwrap();
    assert_eq!(world.loaded_ahead, 1);
    world.take(Event::Expect(Vec::new())).unwrap();
    assert_eq!(world.loaded_ahead, 2, "there is nothing to read");
}

#[test]
fn what_is_expected_in_vain_is_forgotten() {
    let mut world = World::default();
    for step in [Step::Expect(1), Step::ReadAhead(1, true), Step::Expect(2)] {
        world.step(step).unwrap();
    }
    for _ in 0..10 {
        assert_eq!((world.kept.len(), world.life.seats.len()), (1, 2));
        world.step(Step::Sweep).unwrap();
    }
    assert_eq!((world.kept.len(), world.life.seats.len()), (0, 0));
    // Its reading ends late: it is not kept.
    world.step(Step::ReadAhead(2, true)).unwrap();
    assert!(world.kept.is_empty() && world.life.seats.is_empty());
    let many = (1..=200).map(id).collect();
    world.take(Event::Expect(many)).unwrap();
    assert_eq!(world.life.seats.len(), EXPECTED_MAX);
}
