//! Each answer to a step was true at some moment between its call and its answer.

use super::super::report::{FindingKind, Reporter};
use super::super::timeline::{Timeline, Version};
use super::moments::Moments;
use super::{Uses, fits, interval};
use crate::history::{Operation, Step, StepAnswer, StepCall, StepRefusal};
use crate::rows::{IssuanceRow, ShownUse, UseKind, UseRow, UsedIssuance};
use crate::time::Timestamp;

impl Uses<'_> {
    /// Checks the answer to a step. `issuance` is the stored row, `known_by` the time by which the issuance
    /// had certainly been answered.
    pub(in super::super) fn check_step(
        &self,
        place: usize,
        issuance: Option<&IssuanceRow>,
        known_by: i64,
        timeline: &Timeline,
        reporter: &mut Reporter<'_>,
    ) {
        let Operation::Step(call) = &self.history[place] else {
            return;
        };
        match (&call.answer, issuance) {
            (StepAnswer::Done { .. }, None) => {
                let message = || format!("{} is used, but it is not stored", call.issuance);
                let kind = FindingKind::UseOfNoIssuance;
                reporter.find_uses(kind, self.coupon.id, message, &[place], &[]);
            }
            (StepAnswer::Done { used, replayed }, Some(issuance)) => {
                self.check_done(place, call, used, *replayed, issuance, reporter);
            }
            (StepAnswer::Refused(StepRefusal::UnknownIssuance), _) => {
                if known_by < call.span.call.as_micros() {
                    let message = || format!("{} was issued before the call", call.issuance);
                    let kind = FindingKind::UntrueStepRefusal;
                    reporter.find_uses(kind, self.coupon.id, message, &[place], &[]);
                }
            }
            (StepAnswer::Refused(refusal), issuance) => {
                self.check_refused(place, call, refusal, issuance, timeline, reporter);
            }
            (StepAnswer::NotApplied(_) | StepAnswer::Unknown, _) => {}
        }
    }

    fn check_done(
        &self,
        place: usize,
        call: &StepCall,
        used: &UsedIssuance,
        replayed: bool,
        issuance: &IssuanceRow,
        reporter: &mut Reporter<'_>,
    ) {
        let sequence = call.issuance.sequence;
        let life: Vec<&UseRow> = self
            .life(sequence)
            .iter()
            .map(|index| self.rows[*index])
            .collect();
        let mut find = |kind, message: &str| {
            let message = || format!("{}: {message}", call.issuance);
            reporter.find_uses(kind, self.coupon.id, message, &[place], &life);
        };
        if used.row != *issuance {
            return find(FindingKind::AnswerDiffers, "the issuance is stored differently");
        }
        let Some(latest) = &used.latest else {
            return find(FindingKind::AnswerDiffers, "the answer shows no use");
        };
        let Some(index) = self.shown(sequence, latest) else {
            let is_like = |row: &&UseRow| {
                (row.shown.kind, &row.shown.order, row.shown.at) == (latest.kind, &latest.order, latest.at)
            };
            return match life.iter().find(|row| is_like(row)) {
                Some(_) => find(FindingKind::AnswerDiffers, "the use is stored differently"),
                None => find(FindingKind::StepNotStored, "the use in the answer is not stored"),
            };
        };
        if !replayed && !fits(&call.step, self.rows[index]) {
            return find(
                FindingKind::AnswerDiffers,
                "the use is another one than the request's",
            );
        }
        let (from, to) = interval(call.span);
        let moments = self.moments(sequence, from, to);
        let mut shown = moments.iter().filter(|moments| {
            moments
                .latest()
                .is_some_and(|row| row.number == self.rows[index].number)
        });
        let Some(shown) = shown.next() else {
            return match self.bounds[index].0 > to {
                true => find(FindingKind::TimeOutside, "the use in the answer was made later"),
                false => find(
                    FindingKind::StaleAnswer,
                    "a later use had been made before the call",
                ),
            };
        };
        if replayed && !may_be_replayed(&call.step, shown) {
            find(FindingKind::UntrueReplay, "the step had not been taken before");
        }
    }

    fn check_refused(
        &self,
        place: usize,
        call: &StepCall,
        refusal: &StepRefusal,
        issuance: Option<&IssuanceRow>,
        timeline: &Timeline,
        reporter: &mut Reporter<'_>,
    ) {
        let (from, to) = interval(call.span);
        let sequence = call.issuance.sequence;
        let expires_at = issuance.and_then(|issuance| issuance.expires_at);
        let versions = &timeline.versions[timeline.in_force(from, to)];
        let refused = Refused {
            step: &call.step,
            refusal,
            expires_at,
            versions,
        };
        let moments = self.moments(sequence, from, to);
        let (kind, message) = if issuance.is_none() {
            (
                FindingKind::UseOfNoIssuance,
                "a refusal rests on an issuance that is not stored",
            )
        } else if refusal
            .shown()
            .is_some_and(|shown| self.shown(sequence, shown).is_none())
        {
            (FindingKind::StepNotStored, "the use in the answer is not stored")
        } else if moments.iter().any(|moments| refused.may_be_true(moments)) {
            return;
        } else if self
            .before(sequence, from)
            .iter()
            .any(|moments| refused.rests_on_a_use() && refused.may_be_true(moments))
        {
            (
                FindingKind::StaleAnswer,
                "the refusal rests on a use after which another one had been answered",
            )
        } else {
            (
                FindingKind::UntrueStepRefusal,
                "the refusal was not true at any moment between call and answer",
            )
        };
        let life: Vec<&UseRow> = self
            .life(sequence)
            .iter()
            .map(|index| self.rows[*index])
            .collect();
        let message = || format!("{}: {message}", call.issuance);
        reporter.find_uses(kind, self.coupon.id, message, &[place], &life);
    }
}

/// True if at one of the moments the step had been taken before, so that its answer may be a replay.
fn may_be_replayed(step: &Step, moments: &Moments<'_, '_>) -> bool {
    match step {
        Step::Reserve { .. } => moments
            .own(step.order(), UseKind::Reserved)
            .is_some_and(|row| moments.may_hold(row) && fits(step, row)),
        Step::Redeem { .. } => is_redeemed(step, moments),
        Step::Revoke { .. } => moments.latest().is_some_and(|row| fits(step, row)),
        // Other orders may have used the issuance since.
        Step::Release { .. } | Step::Refund { .. } => moments.past().any(|row| fits(step, row)),
    }
}

/// True if at each of the moments the step had been taken before, so that its answer must be a replay.
fn is_replayed(step: &Step, moments: &Moments<'_, '_>) -> bool {
    let has = || match moments.latest() {
        Some(row) if row.shown.order.as_ref() == step.order() => match row.shown.kind {
            UseKind::Reserved => moments.may_hold(row),
            UseKind::Redeemed => true,
            UseKind::Released | UseKind::Refunded | UseKind::Revoked => false,
        },
        _ => false,
    };
    may_be_replayed(step, moments)
        && moments.remembers(step.order())
        && match step {
            Step::Reserve { .. } => !moments.may_be_free(),
            Step::Redeem { .. } | Step::Revoke { .. } => true,
            Step::Release { .. } | Step::Refund { .. } => !has(),
        }
}

/// True if the latest use of the issuance by the order of this step is a redemption or its refund.
fn is_redeemed(step: &Step, moments: &Moments<'_, '_>) -> bool {
    let own = moments.latest_of(step.order()).filter(|row| {
        let kind = row.shown.kind;
        kind == UseKind::Redeemed || kind == UseKind::Refunded
    });
    own.is_some_and(|row| {
        let amount = row.shown.figures.map(|figures| figures.amount);
        step.amount().is_none_or(|asked| amount == Some(asked))
    })
}

/// A refused step.
#[derive(Debug, Clone, Copy)]
struct Refused<'a> {
    step: &'a Step,
    refusal: &'a StepRefusal,
    expires_at: Option<Timestamp>,
    versions: &'a [Version],
}

impl Refused<'_> {
    fn rests_on_a_use(&self) -> bool {
        matches!(
            self.refusal,
            StepRefusal::OrderMismatch(_)
                | StepRefusal::Revoked
                | StepRefusal::Redeemed(_)
                | StepRefusal::Reserved { .. }
        )
    }

    /// True if this refusal may have been true at one of the moments.
    fn may_be_true(&self, moments: &Moments<'_, '_>) -> bool {
        if is_replayed(self.step, moments) && *self.refusal != StepRefusal::UnknownIssuance {
            return false;
        }
        let latest = moments.latest();
        let is_latest = |kind| latest.filter(|row| row.shown.kind == kind);
        let is_shown = |row: &UseRow, shown: &Option<Box<ShownUse>>| {
            shown.as_deref().is_none_or(|shown| *shown == row.shown)
        };
        let is_own =
            |row: &UseRow| self.step.order().is_some() && row.shown.order.as_ref() == self.step.order();
        match self.refusal {
            StepRefusal::UnknownIssuance => true,
            StepRefusal::OrderMismatch(shown) => {
                let before = match self.step {
                    Step::Revoke { .. } => latest,
                    step => moments.latest_of(step.order()),
                };
                before.is_some_and(|row| is_shown(row, shown) && self.contradicts(row, moments))
            }
            StepRefusal::Revoked => {
                is_latest(UseKind::Revoked).is_some() && !matches!(self.step, Step::Revoke { .. })
            }
            StepRefusal::Redeemed(shown) => is_latest(UseKind::Redeemed).is_some_and(|row| {
                let goes_on = matches!(self.step, Step::Redeem { .. } | Step::Refund { .. });
                is_shown(row, shown) && !(is_own(row) && goes_on) && !self.contradicts(row, moments)
            }),
            StepRefusal::Reserved { hold_until } => is_latest(UseKind::Reserved).is_some_and(|row| {
                row.shown.hold_until == Some(*hold_until) && moments.may_hold(row) && !is_own(row)
            }),
            StepRefusal::Expired { usable_until } => {
                self.expires_at == Some(*usable_until)
                    && moments.may_be_expired(self.expires_at)
                    && (moments.may_be_free() || self.may_refund(moments))
            }
            StepRefusal::BelowMinimum { min_order_amount } => {
                moments.may_be_free()
                    && moments.may_be_usable(self.expires_at)
                    && self.amount(moments).is_some_and(|amount| {
                        let mut versions = self.versions.iter();
                        versions.any(|version| version.may_refuse_order(amount, Some(*min_order_amount)))
                    })
            }
            StepRefusal::NotReserved => {
                let asks = matches!(
                    self.step,
                    Step::Release { .. } | Step::Redeem { amount: None, .. }
                );
                // The amount is known from the order's own hold, even if that has lapsed.
                let knows = matches!(self.step, Step::Redeem { .. })
                    && moments.own(self.step.order(), UseKind::Reserved).is_some();
                asks && !knows && moments.may_be_free() && moments.may_be_usable(self.expires_at)
            }
            StepRefusal::NotRedeemed => {
                let is_refund = matches!(self.step, Step::Refund { .. });
                is_refund
                    && (moments.may_be_free() || self.may_refund(moments))
                    && moments.may_be_usable(self.expires_at)
            }
        }
    }

    /// True if the step is a refund of an issuance that its order holds, which is refused as if it were free.
    fn may_refund(&self, moments: &Moments<'_, '_>) -> bool {
        matches!(self.step, Step::Refund { .. })
            && moments.own(self.step.order(), UseKind::Reserved).is_some()
    }

    /// Returns the amount of the order: that of the step, or of the order's hold, even if that has lapsed.
    fn amount(&self, moments: &Moments<'_, '_>) -> Option<u64> {
        match self.step {
            Step::Reserve { amount, .. } => Some(*amount),
            Step::Redeem { order, amount } => amount.or_else(|| {
                let lapsed = moments.own(Some(order), UseKind::Reserved)?;
                lapsed.shown.figures.map(|figures| figures.amount)
            }),
            Step::Release { .. } | Step::Refund { .. } | Step::Revoke { .. } => None,
        }
    }

    /// True if the step contradicts this use: the same order, and another amount.
    fn contradicts(&self, row: &UseRow, moments: &Moments<'_, '_>) -> bool {
        let amount = row.shown.figures.map(|figures| figures.amount);
        let differs = self.step.amount().is_some_and(|asked| amount != Some(asked));
        let is_own = row.shown.order.as_ref() == self.step.order();
        match (self.step, row.shown.kind) {
            (Step::Reserve { .. } | Step::Redeem { .. }, UseKind::Reserved) => {
                let is_latest = moments.latest().is_some_and(|latest| latest.number == row.number);
                is_latest && is_own && differs && moments.may_hold(row)
            }
            (Step::Reserve { .. } | Step::Redeem { .. }, UseKind::Redeemed)
            | (Step::Redeem { .. }, UseKind::Refunded) => is_own && differs,
            (Step::Revoke { returns }, UseKind::Revoked) => *returns != row.returns,
            _ => false,
        }
    }
}
