//! Histories of uses: each has one fault, and clean ones differ little from them.

use super::shop::{self, END, Shop, order, redeem, refund, release, reserve};
use super::world::at;
use super::*;
use crate::history::{Change, Patch, Step, StepRefusal};
use crate::rows::{Discount, OrderFigures};

/// Issuance 1 is reserved and redeemed by order o, and refunded; order p has it then.
fn checkout() -> Shop {
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &reserve("o", 999), 149);
    shop.made(1_100, 1_110, 1, &redeem("o", None), 149);
    shop.made(2_000, 2_010, 1, &refund("o"), 149);
    shop.made(3_000, 3_010, 1, &redeem("p", Some(10_000)), 500);
    shop
}

#[test]
fn a_checkout_is_clean_with_replays_lost_answers_and_a_release() {
    let mut shop = checkout();
    shop.told(3_100, 3_110, 1, &redeem("p", None), 3, true);
    // The late retry of a refund, after which another order used the issuance.
    shop.told(3_200, 3_210, 1, &refund("o"), 3, true);
    shop.row(3_300, 3_310, 2, &reserve("q", 200), 30);
    shop.lost(3_300, 2, &reserve("q", 200));
    shop.told(3_400, 3_410, 2, &reserve("q", 200), 4, true);
    shop.made(3_500, 3_510, 2, &release("q"), 30);
    shop.lost(3_600, 2, &reserve("q", 300));
    shop.is_clean();
}

#[test]
fn a_second_order_that_redeems_or_reserves_is_a_finding() {
    let mut shop = checkout();
    shop.made(4_000, 4_010, 1, &redeem("q", Some(1_000)), 150);
    shop.finds(FindingKind::RedeemedTwice);
    let mut shop = checkout();
    shop.made(4_000, 4_010, 1, &reserve("q", 1_000), 150);
    shop.finds(FindingKind::HeldByTwoOrders);
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
    let mut later = shop.clone();
    shop.made(2_000, 2_010, 1, &redeem("p", Some(1_000)), 150);
    shop.finds(FindingKind::HeldByTwoOrders);
    // The hold has lapsed.
    later.made(3_100, 3_110, 1, &redeem("p", Some(1_000)), 150);
    later.is_clean();
}

#[test]
fn an_order_that_redeems_again_after_its_refund_is_a_finding_unless_it_reserved() {
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &redeem("o", Some(1_000)), 150);
    shop.made(1_100, 1_110, 1, &refund("o"), 150);
    let mut reserved = shop.clone();
    shop.made(1_200, 1_210, 1, &redeem("o", Some(1_000)), 150);
    shop.finds(FindingKind::RedeemedTwice);
    reserved.made(1_200, 1_210, 1, &reserve("o", 1_000), 150);
    reserved.made(1_300, 1_310, 1, &redeem("o", None), 150);
    reserved.is_clean();
}

#[test]
fn a_refund_is_forgotten_after_sixteen_other_orders() {
    for (others, is_clean) in [(15, false), (16, true)] {
        let mut shop = Shop::new();
        shop.made(1_000, 1_010, 1, &redeem("o", Some(1_000)), 150);
        shop.made(1_100, 1_110, 1, &refund("o"), 150);
        for other in 0..others {
            let (call, name) = (1_200 + 100 * other, format!("p{other}"));
            shop.made(call, call + 10, 1, &reserve(&name, 1_000), 150);
            shop.made(call + 50, call + 60, 1, &release(&name), 150);
        }
        shop.refused(4_000, 4_010, 1, &refund("o"), StepRefusal::NotRedeemed);
        shop.made(4_100, 4_110, 1, &redeem("o", Some(1_000)), 150);
        if is_clean {
            shop.is_clean();
        } else {
            shop.finds(FindingKind::RedeemedTwice);
            shop.finds(FindingKind::UntrueStepRefusal);
        }
    }
}

#[test]
fn an_answered_step_that_is_not_stored_is_a_finding() {
    let mut shop = checkout();
    shop.used().pop();
    shop.finds(FindingKind::StepNotStored);
    let mut shop = checkout();
    shop.used()[3].shown.figures = Some(OrderFigures {
        amount: 10_000,
        discount: 499,
    });
    shop.finds(FindingKind::AnswerDiffers);
    // A refusal shows a use as well.
    let mut shop = checkout();
    let mut shown = shop.shown(3);
    shop.refused(
        4_000,
        4_010,
        1,
        &redeem("q", Some(1_000)),
        StepRefusal::Redeemed(shown.clone()),
    );
    shop.is_clean();
    shown.as_mut().unwrap().order = Some(order("nobody"));
    shop.refused(
        4_100,
        4_110,
        1,
        &redeem("q", Some(1_000)),
        StepRefusal::Redeemed(shown),
    );
    shop.finds(FindingKind::StepNotStored);
}

#[test]
fn an_answer_that_lacks_a_step_answered_before_is_a_finding() {
    let mut shop = checkout();
    shop.told(2_005, 2_500, 1, &redeem("o", None), 1, true);
    shop.is_clean();
    shop.told(2_100, 2_500, 1, &redeem("o", None), 1, true);
    shop.finds(FindingKind::StaleAnswer);
    let mut shop = checkout();
    let hold_until = shop.hold(0);
    shop.refused(
        1_050,
        1_060,
        1,
        &reserve("q", 100),
        StepRefusal::Reserved { hold_until },
    );
    shop.is_clean();
    shop.refused(
        1_150,
        1_160,
        1,
        &reserve("q", 100),
        StepRefusal::Reserved { hold_until },
    );
    shop.finds(FindingKind::StaleAnswer);
}

#[test]
fn a_discount_that_is_not_the_fixed_or_the_defined_one_is_a_finding() {
    for (row, discount) in [(0, 150), (1, 150), (2, 148), (3, 501)] {
        let mut shop = checkout();
        let figures = shop.used()[row].shown.figures.unwrap();
        shop.used()[row].shown.figures = Some(OrderFigures { discount, ..figures });
        shop.finds(FindingKind::DiscountDiffers);
    }
    // The coupon is changed while an order holds the issuance, and nothing changes for that order.
    for (discount, is_clean) in [(150, true), (200, false)] {
        let mut shop = Shop::new();
        shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
        let patch = Patch {
            discount: Some(Some(Some(Discount::Rate(20)))),
            ..Patch::default()
        };
        shop.world.change(1_400, 1_410, Change::Patch(patch));
        shop.made(2_500, 2_510, 1, &redeem("o", None), discount);
        shop.made(2_600, 2_610, 2, &redeem("p", Some(1_000)), 200);
        match is_clean {
            true => shop.is_clean(),
            false => shop.finds(FindingKind::DiscountDiffers),
        }
    }
}

#[test]
fn an_order_below_the_minimum_is_a_finding() {
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &reserve("o", 100), 15);
    shop.is_clean();
    shop.made(1_000, 1_010, 2, &reserve("p", 99), 14);
    shop.finds(FindingKind::AgainstTerms);
}

#[test]
fn a_use_after_the_end_is_a_finding_unless_its_hold_began_before() {
    let mut shop = Shop::new();
    shop.made(END - 100, END - 90, 1, &reserve("o", 1_000), 150);
    shop.made(END + 100, END + 110, 1, &redeem("o", None), 150);
    shop.is_clean();
    shop.made(END + 200, END + 210, 2, &redeem("p", Some(1_000)), 150);
    shop.finds(FindingKind::UsedAfterEnd);
}

#[test]
fn uses_that_cannot_follow_each_other_are_findings() {
    let lives: [&[Step]; 6] = [
        &[release("o")],
        &[refund("o")],
        &[reserve("o", 1_000), refund("o")],
        &[redeem("o", Some(1_000)), release("o")],
        &[Step::Revoke { returns: false }, reserve("o", 1_000)],
        &[redeem("o", Some(1_000)), Step::Revoke { returns: false }],
    ];
    for life in lives {
        let mut shop = Shop::new();
        for (place, step) in life.iter().enumerate() {
            let call = 1_000 + 100 * place as i64;
            shop.made(call, call + 10, 1, step, 150);
        }
        let report = shop.report();
        assert!(
            report.has(FindingKind::IllegalUse),
            "{life:?}: {:?}",
            report.counts
        );
    }
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &Step::Revoke { returns: true }, 0);
    shop.is_clean();
    shop.used()[0].shown.order = Some(order("o"));
    shop.finds(FindingKind::IllegalUse);
    let mut shop = checkout();
    shop.row(9_000, 9_010, 3, &redeem("o", Some(1_000)), 150);
    shop.finds(FindingKind::UseOfNoIssuance);
    // The clock of the next owner may be behind by the tolerance.
    for (at_ms, is_clean) in [(760, true), (750, false)] {
        let mut shop = Shop::new();
        shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
        shop.row(1_008, 1_012, 1, &release("o"), 150);
        shop.used()[1].shown.at = at(at_ms);
        shop.told(1_008, 1_012, 1, &release("o"), 1, false);
        assert_eq!(!shop.report().has(FindingKind::IllegalUse), is_clean, "{at_ms}");
    }
}

#[test]
fn a_refusal_that_was_not_true_is_a_finding() {
    let shop = checkout();
    let hold_until = shop.hold(0);
    let reserved = StepRefusal::Reserved { hold_until };
    let q = reserve("q", 1_000);
    let at_end = StepRefusal::Expired {
        usable_until: at(END),
    };
    let minimum = |min_order_amount| StepRefusal::BelowMinimum { min_order_amount };
    for (call, step, refusal, is_true) in [
        (1_050, &q, &reserved, true),
        (500, &q, &reserved, false),
        (
            1_050,
            &reserve("o", 1_000),
            &StepRefusal::OrderMismatch(shop.shown(0)),
            true,
        ),
        (
            1_050,
            &reserve("o", 999),
            &StepRefusal::OrderMismatch(shop.shown(0)),
            false,
        ),
        (1_500, &q, &StepRefusal::Redeemed(None), true),
        (2_500, &q, &StepRefusal::Redeemed(None), false),
        (2_500, &q, &StepRefusal::Revoked, false),
        (2_500, &release("q"), &StepRefusal::NotReserved, true),
        (1_050, &release("o"), &StepRefusal::NotReserved, false),
        (2_500, &refund("q"), &StepRefusal::NotRedeemed, true),
        // It was refunded, so the refund must be answered as a replay.
        (2_500, &refund("o"), &StepRefusal::NotRedeemed, false),
        (3_500, &refund("o"), &StepRefusal::Redeemed(None), false),
        (2_500, &reserve("q", 99), &minimum(100), true),
        (2_500, &reserve("q", 99), &minimum(120), false),
        (2_500, &reserve("q", 100), &minimum(100), false),
        (2_500, &q, &at_end, false),
        (2_500, &q, &StepRefusal::UnknownIssuance, false),
    ] {
        assert_judged(&shop, call, step, refusal, is_true);
    }
}

/// Asserts that this refusal is found to be true, or to be untrue.
fn assert_judged(shop: &Shop, call: i64, step: &Step, refusal: &StepRefusal, is_true: bool) {
    let mut shop = shop.clone();
    shop.refused(call, call + 10, 1, step, refusal.clone());
    let report = shop.report();
    let is_found = report.has(FindingKind::UntrueStepRefusal) || report.has(FindingKind::StaleAnswer);
    assert!(
        report.is_clean() == is_true && is_found != is_true,
        "{call} {step:?} {refusal:?}: {:?}",
        report.findings
    );
}

#[test]
fn an_order_that_redeemed_it_may_not_reserve_it_with_any_amount() {
    let shop = checkout();
    let (same, other) = (reserve("o", 999), reserve("o", 1_000));
    let mismatch = StepRefusal::OrderMismatch(shop.shown(1));
    for (step, refusal, is_true) in [
        (&same, &StepRefusal::Redeemed(None), true),
        (&same, &mismatch, false),
        (&other, &StepRefusal::Redeemed(None), false),
        (&other, &mismatch, true),
    ] {
        assert_judged(&shop, 1_500, step, refusal, is_true);
    }
}

#[test]
fn an_end_of_use_counts_within_the_tolerance_of_clocks() {
    let refusal = StepRefusal::Expired {
        usable_until: at(END),
    };
    for (call, is_true) in [(END - 600, false), (END - 200, true), (END + 9_000, true)] {
        let mut shop = Shop::new();
        shop.refused(call, call + 10, 1, &reserve("o", 1_000), refusal.clone());
        assert_eq!(
            !shop.report().has(FindingKind::UntrueStepRefusal),
            is_true,
            "{call}"
        );
    }
    // This is not the end of use of the issuance.
    let mut shop = Shop::new();
    let refusal = StepRefusal::Expired {
        usable_until: at(END + 1),
    };
    shop.refused(END + 9_000, END + 9_010, 1, &reserve("o", 1_000), refusal);
    shop.finds(FindingKind::UntrueStepRefusal);
}

#[test]
fn a_step_that_overtook_one_answered_before_it_was_sent_is_a_finding() {
    let mut shop = Shop::new();
    shop.world.options.clock_tolerance = Duration::from_secs(60);
    shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
    shop.made(1_005, 1_020, 2, &reserve("p", 1_000), 150);
    let mut late = shop.clone();
    shop.used().swap(0, 1);
    for (index, row) in shop.used().iter_mut().enumerate() {
        row.number = index as u64 + 1;
    }
    shop.is_clean();
    late.made(1_100, 1_110, 2, &release("p"), 150);
    late.is_clean();
    late.used().swap(0, 2);
    for (index, row) in late.used().iter_mut().enumerate() {
        row.number = index as u64 + 1;
    }
    late.finds(FindingKind::OutOfOrder);
}

#[test]
fn a_number_of_a_use_that_is_missing_or_given_twice_is_a_finding() {
    let mut shop = checkout();
    for row in &mut shop.used()[2..] {
        row.number += 1;
    }
    shop.finds(FindingKind::UseNumberGap);
    let mut shop = checkout();
    shop.used()[3].number = 3;
    shop.finds(FindingKind::UseNumberTwice);
}

#[test]
fn a_use_without_a_request_is_a_finding_unless_others_used_the_coupon() {
    let mut shop = checkout();
    shop.row(9_000, 9_010, 2, &redeem("q", Some(1_000)), 150);
    shop.finds(FindingKind::UseWithoutRequest);
    let mut foreign = shop.clone();
    foreign.world.options.foreign = true;
    foreign.is_clean();
    let refusal = StepRefusal::BelowMinimum {
        min_order_amount: 100,
    };
    shop.refused(9_000, 9_010, 2, &redeem("q", Some(1_000)), refusal);
    shop.finds(FindingKind::RefusedButStored);
}

#[test]
fn a_replay_of_a_step_that_was_not_taken_is_a_finding() {
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
    shop.told(1_100, 1_110, 1, &reserve("o", 1_000), 0, true);
    shop.is_clean();
    let mut other = shop.clone();
    shop.told(1_200, 1_210, 1, &reserve("q", 1_000), 0, true);
    shop.finds(FindingKind::UntrueReplay);
    other.told(1_200, 1_210, 1, &reserve("o", 1_000), 0, false);
    other.finds(FindingKind::ReplayUnmarked);
}

#[test]
fn counts_that_are_not_those_of_the_rows_are_a_finding() {
    let mut shop = checkout();
    let mut counts = shop::counts(&shop.world.rows.uses);
    counts.redeemed += 1;
    shop.world.coupon.uses = Some(counts);
    shop.finds(FindingKind::UseCountsDiffer);
    for wrong in [0, 1] {
        let mut shop = checkout();
        for number in 1..=4 {
            let mut counts = shop::counts(&shop.used()[..number]);
            counts.reserved += u64::from(number == 3) * wrong;
            shop.used()[number - 1].counts = Some(counts);
        }
        match wrong {
            0 => shop.is_clean(),
            _ => shop.finds(FindingKind::UseCountsDiffer),
        }
    }
}

#[test]
fn a_revocation_that_returns_quantity_allows_one_more_issuance() {
    for (returns, is_clean) in [(true, true), (false, false)] {
        let mut shop = Shop::new();
        shop.world
            .refused(500, 510, "carol", Refusal::SoldOut { total_quantity: 2 });
        shop.made(1_000, 1_010, 1, &Step::Revoke { returns }, 0);
        shop.world.issued(1_500, 1_510, "carol", Some("c"), 3);
        shop.world
            .refused(2_000, 2_010, "dave", Refusal::SoldOut { total_quantity: 2 });
        match is_clean {
            true => shop.is_clean(),
            false => shop.finds(FindingKind::OverQuantity),
        }
    }
    // The quantity that was given back had not been issued again when this was refused.
    let mut shop = Shop::new();
    shop.made(1_000, 1_010, 1, &Step::Revoke { returns: true }, 0);
    shop.world
        .refused(2_000, 2_010, "dave", Refusal::SoldOut { total_quantity: 2 });
    shop.finds(FindingKind::NotExhausted);
    // Until the revocation is answered, nodes may refuse based on the quantity before.
    for (call, is_clean) in [(4_000, true), (5_010, false)] {
        let (mut shop, revoke) = (Shop::new(), Step::Revoke { returns: true });
        shop.row(1_000, 1_010, 1, &revoke, 0);
        shop.told(1_000, 5_000, 1, &revoke, 0, false);
        shop.world
            .refused(call, call + 10, "dave", Refusal::SoldOut { total_quantity: 2 });
        match is_clean {
            true => shop.is_clean(),
            false => shop.finds(FindingKind::NotExhausted),
        }
    }
}

#[test]
fn a_quote_that_was_not_true_is_a_finding() {
    let shop = checkout();
    for (call, amount, discount, refused, is_true) in [
        (500, 1_000, 150, None, true),
        (500, 1_000, 151, None, false),
        (500, 99, 0, Some("BELOW_MINIMUM"), true),
        (500, 100, 0, Some("BELOW_MINIMUM"), false),
        (1_050, 1_000, 0, Some("RESERVED"), true),
        (500, 1_000, 0, Some("RESERVED"), false),
        (1_500, 1_000, 0, Some("REDEEMED"), true),
        (1_500, 1_000, 150, None, false),
        (2_500, 1_000, 0, Some("EXPIRED"), false),
    ] {
        let mut shop = shop.clone();
        shop.quote(call, call + 10, amount, discount, refused);
        let report = shop.report();
        assert_eq!(
            !report.has(FindingKind::UntrueQuote),
            is_true,
            "{call} {amount} {discount} {refused:?}"
        );
    }
}
