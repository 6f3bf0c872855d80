//! Histories with holds of orders.

use super::shop::{self, HOLD, Shop, redeem, reserve};
use super::world::at;
use super::*;
use crate::history::{Change, Patch};
use crate::rows::{Discount, UseCounts};
use crate::time::Timestamp;

#[test]
fn a_hold_that_is_not_as_long_as_it_was_asked_for_is_a_finding() {
    let held = i64::from(HOLD) * 1_000_000;
    // No tolerance of clocks applies to two times of one row. If the answer was lost, the hold that was asked
    // for is not known to be that of the row.
    for (until, is_told, is_right) in [
        (held, true, true),
        (held - 1, true, false),
        (held + 1, true, false),
        (1_000_000, false, true),
        (999_999, false, false),
        (-1, false, false),
        (86_400_000_000, false, true),
        (86_400_000_001, false, false),
    ] {
        let mut shop = Shop::new();
        shop.row(1_000, 1_010, 1, &reserve("o", 1_000), 150);
        shop.used()[0].shown.hold_until = Timestamp::from_micros(at(1_005).as_micros() + until);
        if is_told {
            shop.told(1_000, 1_010, 1, &reserve("o", 1_000), 0, false);
        } else {
            shop.lost(1_000, 1, &reserve("o", 1_000));
        }
        assert_eq!(!shop.report().has(FindingKind::IllegalUse), is_right, "{until}");
    }
}

#[test]
fn a_lapsed_hold_fixes_the_discount_of_its_order_for_the_same_amount() {
    for (amount, discount, is_clean) in [
        (None, 150, true),
        (Some(1_000), 150, true),
        (Some(2_000), 500, true),
        (None, 250, false),
        (Some(2_000), 300, false),
    ] {
        let mut shop = Shop::new();
        shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
        let patch = Patch {
            discount: Some(Some(Some(Discount::Rate(25)))),
            ..Patch::default()
        };
        shop.world.change(1_400, 1_410, Change::Patch(patch));
        shop.made(4_000, 4_010, 1, &redeem("o", amount), discount);
        match is_clean {
            true => shop.is_clean(),
            false => shop.finds(FindingKind::DiscountDiffers),
        }
    }
}

#[test]
fn a_coupon_that_counts_holds_that_had_lapsed_or_not_those_that_lasted_is_a_finding() {
    // The first hold ends at 3,005 ms. It may have lapsed when the coupon was read, but not before the last
    // use. What must be counted depends on the time of the read, if that is known.
    for (last, read_at, reserved, is_clean) in [
        (1_100, None, 3, false),
        (1_100, None, 2, true),
        (1_100, None, 1, true),
        (1_100, None, 0, true),
        (3_300, None, 2, false),
        (3_300, None, 1, true),
        (2_000, Some(2_100), 2, true),
        (2_000, Some(2_100), 1, false),
        (2_000, Some(2_100), 0, false),
        (2_000, Some(2_750), 1, false),
        (2_000, Some(2_755), 1, true),
        (2_000, Some(2_755), 0, false),
        // The second hold ends at 4,005 ms.
        (2_000, Some(3_750), 0, false),
        (2_000, Some(3_755), 0, true),
    ] {
        let mut shop = Shop::new();
        shop.made(1_000, 1_010, 1, &reserve("o", 1_000), 150);
        shop.made(last, last + 10, 2, &reserve("p", 1_000), 150);
        let counts = shop::counts(&shop.world.rows.uses);
        shop.world.coupon.uses = Some(UseCounts { reserved, ..counts });
        shop.world.coupon.read_at = read_at.map(at);
        match is_clean {
            true => shop.is_clean(),
            false => shop.finds(FindingKind::UseCountsDiffer),
        }
    }
}
