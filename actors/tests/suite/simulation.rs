//! The state machines of production in one thread, with a scheduler that picks the next step by a seed.
//! Several nodes share one database. They join, leave, hang beyond their lease, die, lose the database, lose
//! links, and hand the shard off. Messages are late, statements go on after their connection is lost, and
//! owners panic.
//!
//! Each answer is compared with the database at the moment it leaves, and a node that decides must be the
//! owner in the shard's row. `FIRSTCOME_SEED=n` runs one seed again.

mod checks;
mod clients;
mod database;
mod faults;
mod member;
mod node;
mod owner;
mod shard;
mod store;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use self::world::{Breakage, World};

/// Number of seeds that each `cargo test` runs. A seed takes about a thousand steps.
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
    run_all(Breakage::None).unwrap_or_else(|error| panic!("{error}"));
}

/// Runs all seeds, each in one thread, on all processors of the machine. Returns the first error.
fn run_all(breakage: Breakage) -> Result<(), String> {
    let next = AtomicU64::new(0);
    let run_some = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return Ok(());
            }
            if let Err(error) = run(seed, breakage) {
                // No thread needs to run another seed.
                next.store(SEEDS, Ordering::Relaxed);
                return Err(format!("FIRSTCOME_SEED={seed}: {error}"));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run_some)).collect();
        let mut results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.find(Result::is_err).unwrap_or(Ok(()))
    })
}

/// Takes one mechanism out and expects the checks to notice that. If they did not, they would prove nothing.
fn is_noticed(breakage: Breakage) {
    let noticed = run_all(breakage).is_err();
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
fn the_simulation_notices_a_node_that_is_ended_while_it_beats() {
    is_noticed(Breakage::EndsBlindly);
}

#[test]
fn the_simulation_notices_an_owner_that_is_taken_for_dead_because_it_joined_just_now() {
    is_noticed(Breakage::NodesReadFirst);
}

#[test]
fn the_simulation_notices_serving_before_the_hand_off_is_committed() {
    is_noticed(Breakage::HandedOffBeforeStored);
}

#[test]
fn the_simulation_notices_a_coupon_loaded_ahead_without_its_tail() {
    is_noticed(Breakage::NoTail);
}

#[test]
fn the_simulation_notices_a_hand_off_that_keeps_the_epoch() {
    is_noticed(Breakage::HandOffKeepsEpoch);
}

#[test]
fn the_simulation_notices_a_door_that_does_not_learn_of_changes() {
    is_noticed(Breakage::StaleDoor);
}

#[test]
fn the_simulation_notices_a_hold_that_is_not_loaded() {
    is_noticed(Breakage::ForgetsHolds);
}

#[test]
fn the_simulation_notices_a_repeated_step_that_is_not_recognised() {
    is_noticed(Breakage::ForgetsRepeats);
}

#[test]
fn the_simulation_notices_a_use_that_is_stored_without_the_fence() {
    is_noticed(Breakage::NoFenceForUses);
}

#[test]
fn the_simulation_notices_a_lapse_that_is_decided_without_a_lease() {
    is_noticed(Breakage::LapsesWithoutLease);
}

#[test]
fn the_simulation_notices_a_node_that_is_judged_by_the_lease_of_another() {
    is_noticed(Breakage::LeaseUnknown);
}
