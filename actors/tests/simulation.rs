//! The state machines of production, wired by hand in one thread, with a scheduler that picks the next step by a seed: messages are late, statements go on
//! at the database after their connection is lost, owners panic, leases end, another node takes the shard over and gives it back.
//!
//! What must hold is checked where it is told: at the moment an answer leaves, the database says the same. `FIRSTCOME_SEED=n` runs one seed again.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod simulation {
    mod clients;
    pub mod database;
    mod faults;
    mod node;
    pub mod world;
}

use simulation::world::{Breakage, World};

/// Seeds run by every `cargo test`; each is some hundred steps.
const SEEDS: u64 = 3_000;

fn run(seed: u64, breakage: Breakage) -> Result<(), String> {
    let mut world = World::new(seed, breakage);
    world.run()
}

#[test]
fn every_promise_holds_under_every_fault() {
    if let Ok(seed) = std::env::var("FIRSTCOME_SEED") {
        let seed = seed.parse().expect("FIRSTCOME_SEED is a number");
        run(seed, Breakage::None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        return;
    }
    for seed in 0..SEEDS {
        run(seed, Breakage::None).unwrap_or_else(|error| panic!("FIRSTCOME_SEED={seed}: {error}"));
    }
}

/// Takes one mechanism out and expects the same checks to notice it: otherwise they prove nothing.
fn is_noticed(breakage: Breakage) {
    let noticed = (0..SEEDS).any(|seed| run(seed, breakage).is_err());
    assert!(noticed, "nothing notices {breakage:?} in {SEEDS} seeds");
}

#[test]
fn the_simulation_notices_answers_that_do_not_wait_at_the_gate() {
    is_noticed(Breakage::AnswersBeforeStored);
}

#[test]
fn the_simulation_notices_a_store_that_does_not_fence() {
    is_noticed(Breakage::NoFence);
}

#[test]
fn the_simulation_notices_loading_before_the_epoch_is_raised() {
    is_noticed(Breakage::LoadBeforeClaim);
}

#[test]
fn the_simulation_notices_deciding_without_a_lease() {
    is_noticed(Breakage::NoLease);
}

#[test]
fn the_simulation_notices_a_door_that_is_not_told_of_changes() {
    is_noticed(Breakage::StaleDoor);
}
