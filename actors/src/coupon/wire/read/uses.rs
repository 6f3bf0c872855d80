//! Conversion of messages to uses.

use super::{Required, Result, maybe_text, maybe_timestamp, number, sequence, timestamp};
use crate::coupon::uses::decide::{HOLD_SECONDS_MAX, HOLD_SECONDS_MIN, Step, UseRefusal};
use crate::coupon::uses::{
    Figures, LatestUse, UseCounts, UseDone, UseKind, UseOutcome, UseRequest, UsedIssuance,
};
use crate::coupon::wire::messages;
use crate::ids::{Author, OrderId, UserId};
use crate::owning::kind::DecodeError;

/// Reads a request for a use.
pub(super) fn request(request: messages::Use) -> Result<UseRequest> {
    let user = request.of_user.as_deref().map(UserId::parse);
    let order = request.order.as_deref().map(OrderId::parse).transpose();
    let order = order.required("order")?;
    let amount = request.amount.map(number).transpose()?;
    let step = match (kind(request.kind)?, order, amount) {
        (UseKind::Reserved, Some(order), Some(amount)) => Step::Reserve {
            order,
            amount,
            hold_seconds: (HOLD_SECONDS_MIN..=HOLD_SECONDS_MAX)
                .contains(&request.hold_seconds)
                .then_some(request.hold_seconds)
                .required("hold")?,
        },
        (UseKind::Redeemed, Some(order), amount) => Step::Redeem { order, amount },
        (UseKind::Released, Some(order), None) => Step::Release { order },
        (UseKind::Refunded, Some(order), None) => Step::Refund { order },
        (UseKind::Revoked, None, None) => Step::Revoke {
            reason: maybe_text(request.reason, "reason")?,
            returns: request.returns,
        },
        _ => return Err(DecodeError::Wrong("use")),
    };
    Ok(UseRequest {
        sequence: sequence(request.sequence)?,
        of_user: user.transpose().required("user")?,
        author: Author::parse(&request.author).required("author")?,
        step,
    })
}

/// Reads the outcome of a use.
pub(super) fn outcome(outcome: messages::UseOutcome) -> Result<UseOutcome> {
    let result = messages::UseResult::try_from(outcome.result).required("result")?;
    let latest = outcome.latest.map(latest_use).transpose()?;
    let (issuance, supersedes) = (outcome.issuance, outcome.supersedes);
    let done = |latest| -> Result<_> {
        let issuance = super::issuance(issuance.required("issuance")?)?;
        Ok(Box::new(UseDone {
            used: UsedIssuance { issuance, latest },
            supersedes,
        }))
    };
    Ok(UseOutcome::Refused(match result {
        messages::UseResult::Done => return Ok(UseOutcome::Done(done(latest)?)),
        messages::UseResult::Replayed => return Ok(UseOutcome::Replayed(done(latest)?)),
        messages::UseResult::UnknownIssuance => UseRefusal::UnknownIssuance,
        messages::UseResult::OrderMismatch => UseRefusal::OrderMismatch(Box::new(latest.required("use")?)),
        messages::UseResult::Revoked => UseRefusal::Revoked,
        messages::UseResult::Redeemed => UseRefusal::Redeemed(Box::new(latest.required("use")?)),
        messages::UseResult::Reserved => UseRefusal::Reserved {
            hold_until: timestamp(outcome.until)?,
        },
        messages::UseResult::Expired => UseRefusal::Expired {
            usable_until: timestamp(outcome.until)?,
        },
        messages::UseResult::BelowMinimum => UseRefusal::BelowMinimum {
            min_order_amount: number(outcome.min_order_amount)?,
        },
        messages::UseResult::NotReserved => UseRefusal::NotReserved,
        messages::UseResult::NotRedeemed => UseRefusal::NotRedeemed,
        messages::UseResult::None => return Err(DecodeError::Wrong("result")),
    }))
}

/// Reads counts. A node of the release before sends none.
pub(super) fn counts(counts: &[u64]) -> Result<Option<UseCounts>> {
    match *counts {
        [] => Ok(None),
        [reserved, redeemed, revoked, returned] => Ok(Some(UseCounts {
            reserved: number(reserved)?,
            redeemed: number(redeemed)?,
            revoked: number(revoked)?,
            returned: number(returned)?,
        })),
        _ => Err(DecodeError::Wrong("counts")),
    }
}

fn kind(code: i32) -> Result<UseKind> {
    Ok(match messages::UseKind::try_from(code).required("use")? {
        messages::UseKind::Reserved => UseKind::Reserved,
        messages::UseKind::Redeemed => UseKind::Redeemed,
        messages::UseKind::Released => UseKind::Released,
        messages::UseKind::Refunded => UseKind::Refunded,
        messages::UseKind::Revoked => UseKind::Revoked,
        messages::UseKind::None => return Err(DecodeError::Wrong("use")),
    })
}

/// Reads the latest use of an issuance.
pub(super) fn latest_use(latest: messages::LatestUse) -> Result<LatestUse> {
    let order = latest.order.as_deref().map(OrderId::parse);
    let figures = match (latest.amount, latest.discount) {
        (Some(amount), Some(discount)) => Some(Figures {
            amount: number(amount)?,
            discount: number(discount)?,
        }),
        (None, None) => None,
        _ => return Err(DecodeError::Wrong("figures")),
    };
    Ok(LatestUse {
        kind: kind(latest.kind)?,
        order: order.transpose().required("order")?,
        figures,
        hold_until: maybe_timestamp(latest.hold_until)?,
        returns: latest.returns,
        at: timestamp(latest.at)?,
    })
}
