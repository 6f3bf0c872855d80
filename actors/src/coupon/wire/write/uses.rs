//! Conversion of uses to messages.

use super::issuance;
use crate::coupon::uses::decide::{Step, UseRefusal};
use crate::coupon::uses::{LatestUse, UseCounts, UseDone, UseKind, UseOutcome, UseRequest};
use crate::coupon::wire::messages;

/// Writes a request for a use.
pub(super) fn request(request: UseRequest) -> messages::Use {
    let mut wire = messages::Use {
        sequence: request.sequence.get(),
        of_user: request.of_user.map(|user| user.as_str().to_owned()),
        author: request.author.as_str().to_owned(),
        ..messages::Use::default()
    };
    let (kind, order) = match request.step {
        Step::Reserve {
            order,
            amount,
            hold_seconds,
        } => {
            (wire.amount, wire.hold_seconds) = (Some(amount), hold_seconds);
            (messages::UseKind::Reserved, Some(order))
        }
        Step::Redeem { order, amount } => {
            wire.amount = amount;
            (messages::UseKind::Redeemed, Some(order))
        }
        Step::Release { order } => (messages::UseKind::Released, Some(order)),
        Step::Refund { order } => (messages::UseKind::Refunded, Some(order)),
        Step::Revoke { reason, returns } => {
            (wire.reason, wire.returns) = (reason, returns);
            (messages::UseKind::Revoked, None)
        }
    };
    wire.kind = kind.into();
    wire.order = order.map(|order| order.as_str().to_owned());
    wire
}

/// Writes the outcome of a use.
pub(super) fn outcome(outcome: UseOutcome) -> messages::UseOutcome {
    let mut wire = messages::UseOutcome::default();
    let result = match outcome {
        UseOutcome::Done(done) => {
            take(&mut wire, *done);
            messages::UseResult::Done
        }
        UseOutcome::Replayed(done) => {
            take(&mut wire, *done);
            messages::UseResult::Replayed
        }
        UseOutcome::Refused(refusal) => match refusal {
            UseRefusal::UnknownIssuance => messages::UseResult::UnknownIssuance,
            UseRefusal::OrderMismatch(latest) => {
                wire.latest = Some(latest_use(*latest));
                messages::UseResult::OrderMismatch
            }
            UseRefusal::Revoked => messages::UseResult::Revoked,
            UseRefusal::Redeemed(latest) => {
                wire.latest = Some(latest_use(*latest));
                messages::UseResult::Redeemed
            }
            UseRefusal::Reserved { hold_until } => {
                wire.until = hold_until.as_micros();
                messages::UseResult::Reserved
            }
            UseRefusal::Expired { usable_until } => {
                wire.until = usable_until.as_micros();
                messages::UseResult::Expired
            }
            UseRefusal::BelowMinimum { min_order_amount } => {
                wire.min_order_amount = min_order_amount;
                messages::UseResult::BelowMinimum
            }
            UseRefusal::NotReserved => messages::UseResult::NotReserved,
            UseRefusal::NotRedeemed => messages::UseResult::NotRedeemed,
        },
    };
    wire.result = result.into();
    wire
}

/// Writes counts in the order of their fields.
pub(super) fn counts(counts: UseCounts) -> Vec<u64> {
    let UseCounts {
        reserved,
        redeemed,
        revoked,
        returned,
    } = counts;
    vec![reserved, redeemed, revoked, returned]
}

fn take(wire: &mut messages::UseOutcome, done: UseDone) {
    wire.issuance = Some(issuance(done.used.issuance));
    wire.latest = done.used.latest.map(latest_use);
    wire.supersedes = done.supersedes;
}

pub(super) fn latest_use(latest: LatestUse) -> messages::LatestUse {
    let kind = match latest.kind {
        UseKind::Reserved => messages::UseKind::Reserved,
        UseKind::Redeemed => messages::UseKind::Redeemed,
        UseKind::Released => messages::UseKind::Released,
        UseKind::Refunded => messages::UseKind::Refunded,
        UseKind::Revoked => messages::UseKind::Revoked,
    };
    messages::LatestUse {
        kind: kind.into(),
        order: latest.order.map(|order| order.as_str().to_owned()),
        amount: latest.figures.map(|figures| figures.amount),
        discount: latest.figures.map(|figures| figures.discount),
        hold_until: latest.hold_until.map(|until| until.as_micros()),
        returns: latest.returns,
        at: latest.at.as_micros(),
    }
}
