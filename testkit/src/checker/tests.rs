//! Histories with one fault each, and clean histories.

use super::*;
use crate::history::{Change, Patch};
use world::{World, at, patch};

mod holds;
mod lag;
mod model;
mod model_uses;
mod shop;
mod uses;
mod world;

const LIMIT: u32 = 1;

/// A coupon with quantity 3, issued three times, and then a refusal.
fn sale() -> World {
    let mut world = World::new(Some(3), LIMIT);
    world.issued(10, 14, "alice", Some("a"), 1);
    world.issued(20, 24, "bob", None, 2);
    world.issued(22, 30, "carol", Some("c"), 3);
    world.refused(40, 44, "dave", Refusal::SoldOut { total_quantity: 3 });
    world
}

#[track_caller]
fn finds(world: &World, kind: FindingKind) {
    let report = world.report();
    assert!(report.has(kind), "not found: {kind}, but {:?}", report.counts);
}

#[track_caller]
fn is_clean(world: &World) {
    let report = world.report();
    let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{}", text.join("\n"));
}

#[test]
fn a_sale_is_clean() {
    is_clean(&sale());
}

#[test]
fn issuing_more_than_the_quantity_is_a_finding() {
    let mut world = sale();
    world.issued(50, 52, "erin", None, 4);
    finds(&world, FindingKind::OverQuantity);
}

#[test]
fn lowering_the_quantity_below_the_issued_count_is_a_finding() {
    let mut world = sale();
    world.change(50, 51, patch(Some(2)));
    world.change(60, 61, patch(Some(5)));
    finds(&world, FindingKind::OverQuantity);
}

#[test]
fn issuing_more_than_the_per_user_limit_is_a_finding() {
    let mut world = World::new(Some(3), LIMIT);
    world.issued(10, 14, "alice", Some("a"), 1);
    world.issued(20, 24, "alice", Some("b"), 2);
    finds(&world, FindingKind::OverUserLimit);
}

#[test]
fn a_gap_is_a_finding() {
    let mut world = sale();
    world.rows.issuances.remove(1);
    finds(&world, FindingKind::SequenceGap);
    finds(&world, FindingKind::AnsweredNotStored);
}

#[test]
fn storing_a_sequence_twice_is_a_finding() {
    let mut world = sale();
    world.row("eve", 2, 22);
    finds(&world, FindingKind::SequenceTwice);
}

#[test]
fn an_issued_count_that_is_not_the_number_of_rows_is_a_finding() {
    let mut world = sale();
    world.issued_offset = 1;
    finds(&world, FindingKind::IssuedDiffers);
}

#[test]
fn an_answered_issuance_that_is_not_stored_is_a_finding() {
    let mut world = sale();
    world.rows.issuances.pop();
    finds(&world, FindingKind::AnsweredNotStored);
    finds(&world, FindingKind::NotExhausted);
}

#[test]
fn an_answer_that_differs_from_its_row_in_user_time_or_expiry_is_a_finding() {
    let mut world = sale();
    world.rows.issuances[1].user = world::user("mallory");
    finds(&world, FindingKind::AnswerDiffers);
    let mut world = sale();
    world.rows.issuances[1].issued_at = at(23);
    finds(&world, FindingKind::AnswerDiffers);
    let mut world = sale();
    world.rows.issuances[1].expires_at = Some(at(1_000));
    finds(&world, FindingKind::AnswerDiffers);
}

#[test]
fn answering_two_requests_with_one_issuance_is_a_finding() {
    let mut world = World::new(Some(3), 2);
    world.issued(10, 14, "alice", Some("a"), 1);
    world.answered(20, 24, "alice", Some("b"), 1, false);
    finds(&world, FindingKind::AnsweredTwice);
}

#[test]
fn replays_are_equal_and_marked() {
    let mut world = sale();
    world.answered(50, 54, "alice", Some("a"), 1, true);
    is_clean(&world);
    world.answered(60, 64, "alice", Some("a"), 1, false);
    finds(&world, FindingKind::ReplayUnmarked);
    let mut world = World::new(Some(3), 2);
    world.issued(10, 14, "alice", Some("a"), 1);
    world.issued(20, 24, "alice", Some("a"), 2);
    finds(&world, FindingKind::ReplayDiffers);
}

#[test]
fn overtaking_a_request_is_a_finding_unless_the_two_requests_overlap() {
    let mut world = World::new(None, LIMIT);
    world.issued(10, 20, "alice", None, 2);
    world.issued(15, 30, "bob", None, 1);
    is_clean(&world);
    let mut world = World::new(None, LIMIT);
    world.issued(10, 14, "alice", None, 2);
    world.issued(15, 30, "bob", None, 1);
    finds(&world, FindingKind::OutOfOrder);
}

#[test]
fn a_smaller_sequence_for_an_unanswered_request_that_was_sent_later_is_a_finding() {
    let mut world = World::new(None, LIMIT);
    world.issued(10, 14, "alice", None, 2);
    world.unknown(20, "bob", Some("b"));
    world.row("bob", 1, 21);
    finds(&world, FindingKind::OutOfOrder);
}

#[test]
fn a_row_without_a_request_is_a_finding_unless_other_clients_are_allowed() {
    let mut world = World::new(None, LIMIT);
    world.row("mallory", 1, 15);
    finds(&world, FindingKind::RowWithoutRequest);
    world.options.foreign = true;
    is_clean(&world);
}

#[test]
fn an_unknown_outcome_explains_at_most_one_row_and_no_row_before_its_call() {
    let mut world = World::new(None, 3);
    world.unknown(10, "alice", Some("a"));
    is_clean(&world);
    world.row("alice", 1, 12);
    is_clean(&world);
    world.row("alice", 2, 13);
    finds(&world, FindingKind::RefusedButStored);
    let mut world = World::new(None, 3);
    world.unknown(1_000, "alice", Some("a"));
    world.row("alice", 1, 12);
    finds(&world, FindingKind::RefusedButStored);
}

#[test]
fn a_row_of_an_unapplied_request_is_a_finding() {
    let mut world = World::new(None, LIMIT);
    world.not_applied(10, 14, "alice", Some("a"));
    world.row("alice", 1, 12);
    finds(&world, FindingKind::RefusedButStored);
}

#[test]
fn an_issuance_outside_its_call_is_a_finding() {
    let mut world = World::new(None, LIMIT);
    world.issued(1_000, 1_004, "alice", None, 1);
    world.restamp(1, at(5_000));
    finds(&world, FindingKind::TimeOutside);
}

#[test]
fn issuing_while_paused_or_outside_the_window_or_with_a_wrong_expiry_is_a_finding() {
    let mut world = World::new(None, LIMIT);
    world.change(10, 14, Change::Pause);
    world.issued(20, 24, "alice", None, 1);
    finds(&world, FindingKind::AgainstTerms);
    let mut world = World::new(None, LIMIT);
    world.change(
        10,
        14,
        Change::Patch(Patch {
            starts_at: Some(Some(at(30))),
            ..Patch::default()
        }),
    );
    world.issued(20, 24, "alice", None, 1);
    finds(&world, FindingKind::AgainstTerms);
    let mut world = World::new(None, LIMIT);
    world.change(
        10,
        14,
        Change::Patch(Patch {
            use_within_days: Some(Some(3)),
            ..Patch::default()
        }),
    );
    world.issued(20, 24, "alice", None, 1);
    finds(&world, FindingKind::AgainstTerms);
}

#[test]
fn refusing_with_sold_out_too_soon_is_a_finding() {
    let mut world = World::new(Some(2), LIMIT);
    world.options.clock_tolerance = Duration::ZERO;
    world.issued(10, 14, "alice", None, 1);
    world.refused(20, 24, "dave", Refusal::SoldOut { total_quantity: 2 });
    world.issued(30, 34, "bob", None, 2);
    finds(&world, FindingKind::SoldOutTooSoon);
}

#[test]
fn refusing_with_sold_out_while_coupons_are_left_is_a_finding() {
    let mut world = World::new(Some(2), LIMIT);
    world.issued(10, 14, "alice", None, 1);
    world.refused(20, 24, "dave", Refusal::SoldOut { total_quantity: 2 });
    finds(&world, FindingKind::NotExhausted);
}

#[test]
fn refusing_with_sold_out_of_another_quantity_is_a_finding() {
    let mut world = sale();
    world.refused(50, 54, "erin", Refusal::SoldOut { total_quantity: 2 });
    finds(&world, FindingKind::UntrueRefusal);
}

#[test]
fn refusing_with_sold_out_after_an_answered_raise_is_a_finding() {
    let mut world = sale();
    world.change(50, 54, patch(Some(5)));
    world.refused(52, 60, "erin", Refusal::SoldOut { total_quantity: 3 });
    is_clean(&world);
    world.refused(55, 60, "frank", Refusal::SoldOut { total_quantity: 3 });
    finds(&world, FindingKind::StaleRefusal);
}

#[test]
fn refusing_with_sold_out_after_an_unanswered_raise_is_clean_whether_or_not_the_raise_was_made() {
    let mut world = sale();
    world.lost_change(50, patch(Some(5)), false);
    world.refused(55, 60, "frank", Refusal::SoldOut { total_quantity: 3 });
    is_clean(&world);
    world.lost_change(70, patch(Some(5)), true);
    world.refused(75, 80, "erin", Refusal::SoldOut { total_quantity: 3 });
    is_clean(&world);
    world.issued(90, 94, "gina", None, 4);
    is_clean(&world);
    world.refused(500, 501, "henry", Refusal::SoldOut { total_quantity: 5 });
    finds(&world, FindingKind::NotExhausted);
}

#[test]
fn a_change_without_an_answer_explains_refusals_before_the_next_version() {
    let mut world = World::new(Some(3), LIMIT);
    world.lost_change(10, Change::Pause, true);
    world.refused(15, 18, "alice", Refusal::Paused);
    world.change(20, 24, patch(Some(5)));
    is_clean(&world);
    world.refused(25, 28, "bob", Refusal::Closed);
    finds(&world, FindingKind::UntrueRefusal);
}

#[test]
fn refusing_by_a_status_or_window_that_never_applied_is_a_finding() {
    for refusal in [
        Refusal::Paused,
        Refusal::Closed,
        Refusal::NotStarted {
            starts_at: at(100),
            server_time: at(11),
        },
        Refusal::Ended {
            ends_at: at(5),
            server_time: at(11),
        },
    ] {
        let mut world = World::new(Some(3), LIMIT);
        world.refused(10, 14, "alice", refusal);
        finds(&world, FindingKind::UntrueRefusal);
    }
}

#[test]
fn refusing_by_the_window_at_a_wrong_time_is_a_finding() {
    let window = Change::Patch(Patch {
        starts_at: Some(Some(at(500))),
        ends_at: Some(Some(at(2_000))),
        ..Patch::default()
    });
    let told = |server_time| Refusal::NotStarted {
        starts_at: at(500),
        server_time: at(server_time),
    };
    let mut world = World::new(Some(3), LIMIT);
    world.change(10, 14, window);
    world.refused(20, 24, "alice", told(22));
    world.refused(
        2_010,
        2_014,
        "alice",
        Refusal::Ended {
            ends_at: at(2_000),
            server_time: at(2_011),
        },
    );
    is_clean(&world);
    let mut late = world.clone();
    late.refused(600, 604, "bob", told(601));
    finds(&late, FindingKind::UntrueRefusal);
    world.refused(1_600, 1_604, "bob", told(400));
    finds(&world, FindingKind::UntrueRefusal);
}

#[test]
fn refusing_with_paused_after_a_resume_is_a_finding() {
    let mut world = World::new(Some(3), LIMIT);
    world.change(10, 14, Change::Pause);
    world.refused(20, 24, "alice", Refusal::Paused);
    world.change(30, 34, Change::Resume);
    is_clean(&world);
    world.refused(35, 40, "alice", Refusal::Paused);
    finds(&world, FindingKind::StaleRefusal);
}

#[test]
fn refusing_with_sold_out_while_paused_is_a_finding() {
    let mut world = sale();
    world.change(50, 54, Change::Pause);
    world.refused(60, 64, "erin", Refusal::SoldOut { total_quantity: 3 });
    finds(&world, FindingKind::Precedence);
}

#[test]
fn refusing_with_sold_out_a_user_who_has_a_coupon_is_a_finding() {
    let mut world = sale();
    world.refused(60, 64, "alice", Refusal::SoldOut { total_quantity: 3 });
    finds(&world, FindingKind::Precedence);
}

#[test]
fn refusing_a_request_that_was_issued_before_is_a_finding() {
    let mut world = sale();
    let row = Box::new(world.rows.issuances[0].clone());
    world.refused_with(60, 64, "alice", Some("a"), Refusal::AlreadyIssued(row));
    finds(&world, FindingKind::Precedence);
}

#[test]
fn already_issued_must_name_the_latest_stored_issuance_of_the_user() {
    let mut world = sale();
    let rows = world.rows.issuances.clone();
    world.refused(50, 54, "alice", Refusal::AlreadyIssued(Box::new(rows[0].clone())));
    is_clean(&world);
    let mut other = sale();
    other.refused(50, 54, "alice", Refusal::AlreadyIssued(Box::new(rows[1].clone())));
    finds(&other, FindingKind::UntrueAlreadyIssued);
    let mut absent = sale();
    let row = IssuanceRow {
        issued_at: at(1),
        ..rows[0].clone()
    };
    absent.refused(50, 54, "alice", Refusal::AlreadyIssued(Box::new(row)));
    finds(&absent, FindingKind::UntrueAlreadyIssued);
    let mut early = sale();
    early.refused(4, 8, "alice", Refusal::AlreadyIssued(Box::new(rows[0].clone())));
    finds(&early, FindingKind::UntrueAlreadyIssued);
    let mut fewer = World::new(None, 2);
    fewer.issued(10, 14, "alice", Some("a"), 1);
    let row = Box::new(fewer.rows.issuances[0].clone());
    fewer.refused(50, 54, "alice", Refusal::AlreadyIssued(row));
    finds(&fewer, FindingKind::UntrueAlreadyIssued);
    let mut not_latest = fewer.clone();
    not_latest.issued(20, 24, "alice", Some("b"), 2);
    finds(&not_latest, FindingKind::UntrueAlreadyIssued);
}

#[test]
fn refusing_with_unknown_coupon_after_the_creation_is_a_finding() {
    let mut world = sale();
    world.refused(0, 1, "zoe", Refusal::UnknownCoupon);
    is_clean(&world);
    world.refused(300, 301, "zoe", Refusal::UnknownCoupon);
    finds(&world, FindingKind::UntrueUnknownCoupon);
}

#[test]
fn a_lost_coupon_is_reported() {
    let mut world = sale();
    world.lose_coupon();
    finds(&world, FindingKind::CouponLost);
    finds(&world, FindingKind::NoSuchCoupon);
}

#[test]
fn a_lost_change_is_reported() {
    let mut world = sale();
    let before = world.coupon.clone();
    world.change(50, 54, patch(Some(5)));
    world.coupon = before;
    finds(&world, FindingKind::ChangeLost);
}

#[test]
fn answering_a_change_that_was_not_made_is_a_finding() {
    let mut world = sale();
    world.done(50, 54, patch(Some(5)));
    finds(&world, FindingKind::ChangeNotMade);
}

#[test]
fn versions_that_are_out_of_order_or_shown_differently_are_a_finding() {
    let mut world = sale();
    world.change(60, 64, patch(Some(5)));
    world.change(50, 54, patch(Some(6)));
    finds(&world, FindingKind::VersionsConflict);
    let mut world = sale();
    world.change(60, 64, patch(Some(5)));
    world.coupon.terms.total_quantity = Some(6);
    finds(&world, FindingKind::VersionsConflict);
}

#[test]
fn a_version_without_a_request_is_a_finding() {
    let mut world = sale();
    world.coupon.version = 2;
    world.coupon.terms.total_quantity = Some(6);
    finds(&world, FindingKind::ChangeWithoutRequest);
}

#[test]
fn refusing_a_change_without_reason_is_a_finding() {
    for code in [
        "CLOSED",
        "VERSION_MISMATCH",
        "QUANTITY_BELOW_ISSUED",
        "UNKNOWN_COUPON",
    ] {
        let mut world = sale();
        world.refused_change(50, 54, patch(Some(3)), Some(1), code);
        finds(&world, FindingKind::UntrueChangeRefusal);
    }
    let mut world = sale();
    world.refused_change(50, 54, patch(Some(2)), None, "QUANTITY_BELOW_ISSUED");
    is_clean(&world);
}

#[test]
fn findings_beyond_the_maximum_are_counted() {
    let mut world = World::new(None, LIMIT);
    for sequence in 1..=50 {
        world.row("mallory", sequence, 15);
    }
    let report = world.report();
    assert_eq!(report.counts[&FindingKind::RowWithoutRequest], 50);
    assert_eq!(
        report
            .findings
            .iter()
            .filter(|finding| finding.kind == FindingKind::RowWithoutRequest)
            .count(),
        10
    );
}
