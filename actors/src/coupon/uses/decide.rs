//! The rules of uses, as a function of the offer, the latest use, the clock and the request.

use crate::coupon::offer::{Discount, Offer};
use crate::coupon::uses::latest::OrderUses;
use crate::coupon::uses::{Figures, LatestUse, UseKind};
use crate::ids::OrderId;
use crate::time::Timestamp;

/// Shortest hold, in seconds.
pub const HOLD_SECONDS_MIN: u32 = 1;
/// Longest hold, in seconds: a day.
pub const HOLD_SECONDS_MAX: u32 = 86_400;

/// What is asked about one issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Hold it for an order.
    Reserve {
        /// The order.
        order: OrderId,
        /// The amount of the order.
        amount: u64,
        /// How long it is held, from [`HOLD_SECONDS_MIN`] to [`HOLD_SECONDS_MAX`].
        hold_seconds: u32,
    },
    /// Use it for an order that is paid.
    Redeem {
        /// The order.
        order: OrderId,
        /// The amount of the order; not needed if the order holds it.
        amount: Option<u64>,
    },
    /// Give it back, as the order that holds it.
    Release {
        /// The order.
        order: OrderId,
    },
    /// Give it back, as the order that was paid with it.
    Refund {
        /// The order.
        order: OrderId,
    },
    /// Take it away for ever.
    Revoke {
        /// Why.
        reason: Option<String>,
        /// True if it is given back to the quantity, so that another one can be issued.
        returns: bool,
    },
}

impl Step {
    /// Returns the reason, if it has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Revoke { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }

    /// Returns the name of the step.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reserve { .. } => "reserve",
            Self::Redeem { .. } => "redeem",
            Self::Release { .. } => "release",
            Self::Refund { .. } => "refund",
            Self::Revoke { .. } => "revoke",
        }
    }

    /// Returns the order that takes the step; `None` for a revocation.
    pub fn order(&self) -> Option<&OrderId> {
        match self {
            Self::Reserve { order, .. }
            | Self::Redeem { order, .. }
            | Self::Release { order }
            | Self::Refund { order } => Some(order),
            Self::Revoke { .. } => None,
        }
    }
}

/// Why nothing is done, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UseRefusal {
    /// There is no such issuance, or it belongs to another user.
    UnknownIssuance,
    /// The step was taken before with other figures.
    OrderMismatch(Box<LatestUse>),
    /// It was revoked.
    Revoked,
    /// It was redeemed.
    Redeemed(Box<LatestUse>),
    /// Another order holds it.
    Reserved {
        /// When that hold lapses.
        hold_until: Timestamp,
    },
    /// It can no longer be used.
    Expired {
        /// When it could be used last.
        usable_until: Timestamp,
    },
    /// The order is too small.
    BelowMinimum {
        /// The smallest order.
        min_order_amount: u64,
    },
    /// No order holds it.
    NotReserved,
    /// No order was paid with it.
    NotRedeemed,
}

impl UseRefusal {
    /// Returns true if an earlier use is the reason.
    pub(super) fn rests_on_a_use(&self) -> bool {
        match self {
            Self::OrderMismatch(_) | Self::Revoked | Self::Redeemed(_) | Self::Reserved { .. } => true,
            Self::UnknownIssuance
            | Self::Expired { .. }
            | Self::BelowMinimum { .. }
            | Self::NotReserved
            | Self::NotRedeemed => false,
        }
    }
}

/// What a step leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This use becomes the next entry.
    Enter(LatestUse),
    /// The step was taken before. It is answered again, and nothing is done.
    Replay,
    /// Nothing is done.
    Refuse(UseRefusal),
}

/// What an order would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The figures; without a discount if there is a refusal.
    pub figures: Figures,
    /// Why a reservation would be refused.
    pub refusal: Option<UseRefusal>,
}

/// What an issuance may be used for.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The offer as it is now.
    pub offer: &'a Offer,
    /// When the issuance can no longer be used.
    pub expires_at: Option<Timestamp>,
}

impl Terms<'_> {
    /// Returns what a step leads to at `now`. `latest` is the issuance's latest use, and `own` what the order
    /// of the step did with the issuance before.
    pub fn decide(
        &self,
        latest: Option<&LatestUse>,
        own: Option<&OrderUses>,
        now: Timestamp,
        step: &Step,
    ) -> Decision {
        let figures = match latest.and_then(|latest| repeated(latest, own, now, step)) {
            Some(decision) => return decision,
            None => self.check(latest, now, step),
        };
        figures.map_or_else(Decision::Refuse, |figures| {
            let hold_until = match step {
                Step::Reserve { hold_seconds, .. } => Some(now.plus_seconds(*hold_seconds)),
                _ => None,
            };
            Decision::Enter(LatestUse {
                kind: kind(step),
                order: step.order().cloned(),
                figures,
                hold_until,
                returns: matches!(step, Step::Revoke { returns: true, .. }),
                // If the clock was set back, this may be before the use before. Were it not the time of the
                // decision, rows would not show which hold had lapsed, and a hold would last too long.
                at: now,
            })
        })
    }

    /// Returns what a reservation by a new order of this amount would fix at `now`.
    pub fn quote(&self, latest: Option<&LatestUse>, now: Timestamp, amount: u64) -> Quote {
        let figures = match latest.and_then(|latest| held(latest, now)) {
            Some(held) => Err(held),
            None => self.check_end(now).and_then(|()| self.figures(amount)),
        };
        match figures {
            Ok(figures) => Quote {
                figures,
                refusal: None,
            },
            Err(refusal) => Quote {
                figures: Figures { amount, discount: 0 },
                refusal: Some(refusal),
            },
        }
    }

    /// Returns the figures of the use that a new step makes, or why it is refused.
    fn check(
        &self,
        latest: Option<&LatestUse>,
        now: Timestamp,
        step: &Step,
    ) -> Result<Option<Figures>, UseRefusal> {
        if let Some(latest) = latest {
            let is_own = step.order().is_some() && step.order() == latest.order.as_ref();
            match (latest.holds(now), step) {
                (Some(UseKind::Redeemed), Step::Refund { .. }) if is_own => return Ok(latest.figures),
                (Some(UseKind::Reserved), Step::Redeem { .. } | Step::Release { .. }) if is_own => {
                    return Ok(latest.figures);
                }
                // The order holds the issuance, but was not paid with it.
                (Some(UseKind::Reserved), Step::Refund { .. }) if is_own => {}
                _ => {
                    if let Some(refusal) = held(latest, now) {
                        return Err(refusal);
                    }
                }
            }
        }
        self.check_end(now)?;
        self.of_a_free_one(latest, step)
    }

    /// Returns the figures for an issuance that no order holds, and that can still be used.
    fn of_a_free_one(&self, latest: Option<&LatestUse>, step: &Step) -> Result<Option<Figures>, UseRefusal> {
        match step {
            Step::Reserve { amount, .. } => self.figures(*amount).map(Some),
            Step::Redeem { order, amount } => {
                // The hold of this order lapsed, and the issuance was not used since. The figures of the hold
                // still apply.
                let fixed = latest
                    .filter(|latest| latest.kind == UseKind::Reserved && latest.order.as_ref() == Some(order))
                    .and_then(|latest| latest.figures)
                    .filter(|fixed| amount.is_none_or(|amount| amount == fixed.amount));
                let amount = fixed.map(|fixed| fixed.amount).or(*amount);
                let figures = self.figures(amount.ok_or(UseRefusal::NotReserved)?)?;
                Ok(Some(fixed.unwrap_or(figures)))
            }
            Step::Release { .. } => Err(UseRefusal::NotReserved),
            Step::Refund { .. } => Err(UseRefusal::NotRedeemed),
            Step::Revoke { .. } => Ok(None),
        }
    }

    /// Returns the figures of a new order, unless it is too small.
    fn figures(&self, amount: u64) -> Result<Figures, UseRefusal> {
        match self.offer.min_order_amount {
            Some(min_order_amount) if amount < min_order_amount => {
                Err(UseRefusal::BelowMinimum { min_order_amount })
            }
            _ => Ok(Figures {
                amount,
                discount: discount(self.offer, amount),
            }),
        }
    }

    fn check_end(&self, now: Timestamp) -> Result<(), UseRefusal> {
        match self.expires_at {
            Some(usable_until) if now >= usable_until => Err(UseRefusal::Expired { usable_until }),
            _ => Ok(()),
        }
    }
}

fn kind(step: &Step) -> UseKind {
    match step {
        Step::Reserve { .. } => UseKind::Reserved,
        Step::Redeem { .. } => UseKind::Redeemed,
        Step::Release { .. } => UseKind::Released,
        Step::Refund { .. } => UseKind::Refunded,
        Step::Revoke { .. } => UseKind::Revoked,
    }
}

/// Returns what the coupon takes off an order of this amount.
fn discount(offer: &Offer, amount: u64) -> u64 {
    match offer.discount {
        None => 0,
        Some(Discount::Amount(value)) => value.min(amount),
        Some(Discount::Rate(percent)) => {
            let part = u128::from(amount) * u128::from(percent) / 100;
            // The percentage is at most 100, so this fits.
            let part = u64::try_from(part).unwrap_or(u64::MAX);
            part.min(offer.max_discount.unwrap_or(u64::MAX)).min(amount)
        }
    }
}

/// Returns the decision on a step that its order took before, or that contradicts one; `None` if it may be
/// meant as a new step.
///
/// A hold that has ended is no repetition: an order may reserve again. A redemption is repeated until its
/// order reserves again, even if it was refunded, so that a late retry does not use the coupon for an order
/// that was cancelled. A release or a refund is repeated while its order does not have the issuance, whatever
/// other orders did since.
fn repeated(latest: &LatestUse, own: Option<&OrderUses>, now: Timestamp, step: &Step) -> Option<Decision> {
    if let Step::Revoke { returns, .. } = step {
        let is_same = (latest.kind == UseKind::Revoked).then_some(latest.returns == *returns)?;
        return Some(replay_or_mismatch(is_same, latest));
    }
    let own = own?;
    let is_amount = |amount: u64| own.latest.figures.is_some_and(|figures| figures.amount == amount);
    // Only the latest use of an issuance can hold it. This is `Some` if it is one of this order.
    let has = latest.holds(now).filter(|_| latest.order == own.latest.order);
    let is_same = match (step, own.latest.kind) {
        (Step::Reserve { amount, .. }, UseKind::Reserved) if has.is_some() => is_amount(*amount),
        // With the right amount this is refused because the order redeemed already.
        (Step::Reserve { amount, .. }, UseKind::Redeemed) if has.is_some() && !is_amount(*amount) => false,
        (Step::Redeem { amount, .. }, UseKind::Redeemed | UseKind::Refunded) => amount.is_none_or(is_amount),
        // With the right amount this is a new step, which redeems.
        (
            Step::Redeem {
                amount: Some(amount), ..
            },
            UseKind::Reserved,
        ) if has.is_some() && !is_amount(*amount) => false,
        (Step::Release { .. }, _) if own.has_released && has.is_none() => true,
        (Step::Refund { .. }, _) if own.was_refunded && has.is_none() => true,
        _ => return None,
    };
    Some(replay_or_mismatch(is_same, &own.latest))
}

fn replay_or_mismatch(is_same: bool, before: &LatestUse) -> Decision {
    if is_same {
        Decision::Replay
    } else {
        Decision::Refuse(UseRefusal::OrderMismatch(Box::new(before.clone())))
    }
}

/// Returns why an issuance with this latest use cannot be used by another order.
fn held(latest: &LatestUse, now: Timestamp) -> Option<UseRefusal> {
    match latest.holds(now)? {
        UseKind::Revoked => Some(UseRefusal::Revoked),
        UseKind::Redeemed => Some(UseRefusal::Redeemed(Box::new(latest.clone()))),
        _ => latest
            .hold_until
            .map(|hold_until| UseRefusal::Reserved { hold_until }),
    }
}

#[cfg(test)]
mod tests;
