//! Histories of several nodes, which may refuse for a while based on the version before a change that does
//! not widen.

use std::time::Duration;

use super::world::{World, patch};
use super::{FindingKind, LIMIT, Refusal, finds, is_clean, sale};
use crate::history::Change;

#[test]
fn refusing_with_paused_after_a_close_is_a_finding_unless_lag_is_allowed() {
    let mut world = World::new(Some(3), LIMIT);
    world.change(10, 14, Change::Pause);
    world.change(30, 34, Change::Close);
    world.refused(35, 40, "alice", Refusal::Paused);
    finds(&world, FindingKind::StaleRefusal);
    world.options.narrowing_lag = Duration::from_secs(2);
    is_clean(&world);
}

/// A node that has not heard of a pause may refuse for a while based on the version before the pause, which
/// may come from a raise without an answer. Once a change that widens is answered, no node may.
#[test]
fn a_node_may_lag_behind_a_pause_after_a_raise_of_unknown_outcome() {
    let mut world = sale();
    world.options.narrowing_lag = Duration::from_secs(2);
    world.lost_change(50, patch(Some(4)), true);
    world.issued(60, 64, "erin", Some("e"), 4);
    world.change(70, 74, Change::Pause);
    world.refused(80, 84, "frank", Refusal::SoldOut { total_quantity: 4 });
    is_clean(&world);
    let mut late = world.clone();
    late.refused(2_075, 2_079, "frank", Refusal::SoldOut { total_quantity: 4 });
    finds(&late, FindingKind::Precedence);
    world.change(90, 94, patch(Some(5)));
    world.refused(95, 99, "frank", Refusal::SoldOut { total_quantity: 4 });
    finds(&world, FindingKind::StaleRefusal);
}

/// The answer to a pause of a paused coupon shows a raise of unknown outcome. It does not mean that other
/// nodes know of the raise.
#[test]
fn a_raise_that_only_other_answers_show_ends_no_lag() {
    let mut world = sale();
    world.options.narrowing_lag = Duration::from_secs(2);
    world.change(50, 54, Change::Pause);
    world.lost_change(60, patch(Some(4)), true);
    world.done(70, 74, Change::Pause);
    world.refused(80, 84, "frank", Refusal::SoldOut { total_quantity: 3 });
    is_clean(&world);
    world.done(90, 94, patch(Some(4)));
    world.refused(95, 99, "frank", Refusal::SoldOut { total_quantity: 3 });
    finds(&world, FindingKind::StaleRefusal);
}
