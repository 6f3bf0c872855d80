//! Each use follows the use before it as the life of an issuance allows, and takes off what was defined.

use super::super::report::{FindingKind, Reporter};
use super::super::timeline::Timeline;
use super::Uses;
use super::moments::REMEMBERED_MIN;
use crate::history::{Operation, Step, StepAnswer};
use crate::ids::Sequence;
use crate::rows::{IssuanceRow, OrderFigures, ShownUse, UseKind, UseRow};
use crate::time::Timestamp;

/// The shortest hold, in microseconds.
const HOLD_MICROS_MIN: i64 = 1_000_000;
/// The longest hold, in microseconds.
const HOLD_MICROS_MAX: i64 = 86_400_000_000;

/// What a use must take off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figures {
    /// What was fixed before.
    Fixed(Option<OrderFigures>),
    /// What the coupon defines at the time of the use.
    Defined,
    /// None, as it is a revocation.
    None,
}

impl Uses<'_> {
    /// Checks the uses of this issuance.
    pub(in super::super) fn check_life(
        &self,
        sequence: Sequence,
        issuance: Option<&IssuanceRow>,
        timeline: &Timeline,
        reporter: &mut Reporter<'_>,
    ) {
        let life = self.life(sequence);
        let Some(issuance) = issuance else {
            let rows: Vec<&UseRow> = life.iter().map(|index| self.rows[*index]).collect();
            let message = || format!("{} uses are of an issuance that is not stored", rows.len());
            return reporter.find_uses(FindingKind::UseOfNoIssuance, self.coupon.id, message, &[], &rows);
        };
        let mut before: Option<&UseRow> = None;
        for index in life {
            let row = self.rows[*index];
            let evidence: Vec<&UseRow> = before.into_iter().chain([row]).collect();
            let places: Vec<usize> = self.facts[*index].fresh.into_iter().collect();
            let mut find = |kind, message: &str| {
                let message = || format!("{}: {message}", row.issuance);
                reporter.find_uses(kind, self.coupon.id, message, &places, &evidence);
            };
            let is_again = is_redeemed_again(row, life.iter().map(|other| self.rows[*other]));
            if is_again {
                find(
                    FindingKind::RedeemedTwice,
                    "an order redeems it again after its refund, and has not reserved it",
                );
            }
            let shown = before.map(|row| &row.shown);
            match figures(shown, row, issuance.expires_at, self.tolerance) {
                Err((kind, message)) => find(kind, message),
                Ok(Figures::Fixed(fixed)) if fixed != row.shown.figures => {
                    find(
                        FindingKind::DiscountDiffers,
                        "the figures are not those that the reservation fixed",
                    );
                }
                Ok(Figures::Defined) => {
                    if let Some((kind, message)) = self.wrong_discount(*index, timeline) {
                        find(kind, message);
                    }
                }
                Ok(_) => {}
            }
            if let Some(message) = self.wrong_hold(*index) {
                find(FindingKind::IllegalUse, message);
            }
            before = Some(row);
        }
    }

    /// Checks figures that do not follow from an earlier use. Returns what is wrong.
    fn wrong_discount(&self, index: usize, timeline: &Timeline) -> Option<(FindingKind, &'static str)> {
        let figures = self.rows[index].shown.figures?;
        let (from, to) = self.bounds[index];
        // Contradictory bounds were reported already.
        if from > to {
            return None;
        }
        let versions = &timeline.versions[timeline.in_force(from, to)];
        let is_allowed = |amount| versions.iter().any(|version| version.may_allow_order(amount));
        let is_defined = versions.iter().any(|version| {
            version.may_allow_order(figures.amount) && version.may_take_off(figures.amount, figures.discount)
        });
        if is_defined {
            None
        } else if is_allowed(figures.amount) {
            Some((
                FindingKind::DiscountDiffers,
                "no version of the coupon that may have been in force takes that off",
            ))
        } else {
            Some((
                FindingKind::AgainstTerms,
                "the order is smaller than any version that may have been in force allows",
            ))
        }
    }

    /// Checks the end of a hold. Returns what is wrong.
    fn wrong_hold(&self, index: usize) -> Option<&'static str> {
        let shown = &self.rows[index].shown;
        let Some(hold_until) = shown.hold_until else {
            let message = "a reservation has no end of its hold";
            return (shown.kind == UseKind::Reserved).then_some(message);
        };
        if shown.kind != UseKind::Reserved {
            return Some("a use that is no reservation has an end of a hold");
        }
        let held = hold_until.as_micros() - shown.at.as_micros();
        let asked = self.facts[index]
            .fresh
            .and_then(|place| match &self.history[place] {
                Operation::Step(call) => match (&call.step, &call.answer) {
                    (Step::Reserve { hold_seconds, .. }, StepAnswer::Done { .. }) => Some(*hold_seconds),
                    _ => None,
                },
                _ => None,
            });
        match asked.map(|seconds| i64::from(seconds) * 1_000_000) {
            Some(asked) if held != asked => Some("the hold is not as long as it was asked for"),
            _ if !(HOLD_MICROS_MIN..=HOLD_MICROS_MAX).contains(&held) => {
                Some("the hold is shorter or longer than holds may be")
            }
            _ => None,
        }
    }
}

/// True if an order redeems an issuance again, after its refund and without a reservation, although the
/// service must remember the refund.
fn is_redeemed_again<'r>(row: &UseRow, life: impl Iterator<Item = &'r UseRow>) -> bool {
    if row.shown.kind != UseKind::Redeemed {
        return false;
    }
    let (mut own, mut given_back) = (None, 0);
    for before in life.take_while(|other| other.number < row.number) {
        let kind = before.shown.kind;
        if before.shown.order == row.shown.order {
            (own, given_back) = (Some(kind), 0);
        } else if matches!(kind, UseKind::Released | UseKind::Refunded) {
            given_back += 1;
        }
    }
    own == Some(UseKind::Refunded) && given_back < REMEMBERED_MIN
}

/// Returns what a use must take off, or why it cannot follow the use before it. The clocks of two owners may
/// differ by the tolerance; each decides by its own.
fn figures(
    before: Option<&ShownUse>,
    row: &UseRow,
    expires_at: Option<Timestamp>,
    tolerance: i64,
) -> Result<Figures, (FindingKind, &'static str)> {
    let shown = &row.shown;
    let illegal = |message| Err((FindingKind::IllegalUse, message));
    let is_revoked = shown.kind == UseKind::Revoked;
    if shown.order.is_none() != is_revoked || shown.figures.is_none() != is_revoked {
        return illegal("a use has an order with its figures if, and only if, it is no revocation");
    }
    if row.returns && !is_revoked {
        return illegal("a use that is no revocation gives the issuance back to the quantity");
    }
    let earliest = shown.at.as_micros().saturating_add(tolerance);
    if before.is_some_and(|before| earliest < before.at.as_micros()) {
        return illegal("the use is earlier than the use before it");
    }
    let is_own = before.is_some_and(|before| before.order.is_some() && before.order == shown.order);
    let holds = before.filter(|before| match before.kind {
        UseKind::Reserved => before.hold_until.is_some_and(|until| shown.at < until),
        UseKind::Redeemed | UseKind::Revoked => true,
        UseKind::Released | UseKind::Refunded => false,
    });
    if let Some(before) = holds {
        return match (before.kind, shown.kind) {
            (UseKind::Reserved, UseKind::Redeemed | UseKind::Released) if is_own => {
                Ok(Figures::Fixed(before.figures))
            }
            (UseKind::Redeemed, UseKind::Refunded) if is_own => Ok(Figures::Fixed(before.figures)),
            (UseKind::Redeemed, UseKind::Redeemed) => Err((
                FindingKind::RedeemedTwice,
                "it is redeemed although it was redeemed, and not refunded",
            )),
            (UseKind::Reserved | UseKind::Redeemed, UseKind::Reserved | UseKind::Redeemed) if !is_own => {
                Err((
                    FindingKind::HeldByTwoOrders,
                    "an order has it that another order has at that time",
                ))
            }
            (UseKind::Revoked, _) => illegal("it is used after it was revoked"),
            _ => illegal("the use before does not allow this one"),
        };
    }
    if expires_at.is_some_and(|end| shown.at >= end) {
        return Err((FindingKind::UsedAfterEnd, "it is used after its end of use"));
    }
    let lapsed = before.filter(|before| before.kind == UseKind::Reserved && is_own);
    match shown.kind {
        UseKind::Released => illegal("it is released although its order does not hold it"),
        UseKind::Refunded => illegal("it is refunded although its order was not paid with it"),
        UseKind::Revoked => Ok(Figures::None),
        UseKind::Redeemed => {
            let amount = shown.figures.map(|figures| figures.amount);
            let fixed = lapsed.and_then(|lapsed| lapsed.figures);
            match fixed.filter(|fixed| Some(fixed.amount) == amount) {
                Some(fixed) => Ok(Figures::Fixed(Some(fixed))),
                None => Ok(Figures::Defined),
            }
        }
        UseKind::Reserved => Ok(Figures::Defined),
    }
}
