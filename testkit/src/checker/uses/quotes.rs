//! Each quote was true at some moment between its call and its answer.

use super::super::report::{FindingKind, Reporter};
use super::super::timeline::{Timeline, Version};
use super::moments::Moments;
use super::{Uses, interval};
use crate::history::{Operation, Quote, QuoteAnswer};
use crate::rows::{IssuanceRow, UseKind};

/// How old a coupon in answers may be, in microseconds. Quotes are computed from such a coupon.
const COUPON_AGE_MAX: i64 = 1_000_000;

impl Uses<'_> {
    /// Checks a quote. `issuance` is the stored row.
    pub(in super::super) fn check_quote(
        &self,
        place: usize,
        issuance: Option<&IssuanceRow>,
        timeline: &Timeline,
        reporter: &mut Reporter<'_>,
    ) {
        let Operation::Quote(quote) = &self.history[place] else {
            return;
        };
        let QuoteAnswer::Told {
            amount,
            discount,
            payable,
            refused,
        } = &quote.answer
        else {
            return;
        };
        let mut find = |message: &str| {
            let message = || format!("{}: {message}", quote.issuance);
            reporter.find_uses(FindingKind::UntrueQuote, self.coupon.id, message, &[place], &[]);
        };
        let Some(issuance) = issuance else {
            return find("a quote of an issuance that is not stored");
        };
        let is_whole = *amount == quote.amount && discount.checked_add(*payable) == Some(*amount);
        if !is_whole || (refused.is_some() && *discount > 0) {
            return find("the figures do not fit each other");
        }
        let (call, answer) = interval(quote.span);
        let moments = self.moments(issuance.id.sequence, call, answer);
        let lagging = timeline.in_force(call.saturating_sub(COUPON_AGE_MAX), answer);
        let versions = &timeline.versions[lagging];
        let is_true = moments.iter().any(|moments| match refused.as_deref() {
            None => {
                moments.may_be_free()
                    && moments.may_be_usable(issuance.expires_at)
                    && versions.iter().any(|version| {
                        version.may_allow_order(*amount) && version.may_take_off(*amount, *discount)
                    })
            }
            Some(code) => may_refuse(code, quote, moments, issuance, versions),
        });
        if !is_true {
            find("the quote was not true at any moment between call and answer");
        }
    }
}

/// True if this code was true at some of the moments, for an order that has nothing to do with the uses so
/// far.
fn may_refuse(
    code: &str,
    quote: &Quote,
    moments: &Moments<'_, '_>,
    issuance: &IssuanceRow,
    versions: &[Version],
) -> bool {
    let is_latest = |kind| moments.latest().filter(|latest| latest.shown.kind == kind);
    match code {
        "REVOKED" => is_latest(UseKind::Revoked).is_some(),
        "REDEEMED" => is_latest(UseKind::Redeemed).is_some(),
        "RESERVED" => is_latest(UseKind::Reserved).is_some_and(|latest| moments.may_hold(latest)),
        "EXPIRED" => moments.may_be_free() && moments.may_be_expired(issuance.expires_at),
        "BELOW_MINIMUM" => {
            moments.may_be_free()
                && moments.may_be_usable(issuance.expires_at)
                && versions
                    .iter()
                    .any(|version| version.may_refuse_order(quote.amount, None))
        }
        _ => false,
    }
}
