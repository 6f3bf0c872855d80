//! The rules of uses, as a function of the offer, the latest use, the clock and the request.

use crate::coupon::offer::{Discount, Offer};
use crate::coupon::uses::{Figures, LatestUse, UseKind};
use crate::ids::OrderId;
use crate::time::Timestamp;

/// Shortest hold, in seconds.
pub const HOLD_SECONDS_MIN: u32 = 1;
/// Longest hold, in seconds: a day.
pub const HOLD_SECONDS_MAX: u32 = 86_400;

/// What somebody asks for about one issuance.
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

    fn order(&self) -> Option<&OrderId> {
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
    /// This use is made.
    Make(LatestUse),
    /// The latest use is this step already.
    Made,
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
    /// Returns what a step leads to at `now`, if this is the latest use.
    pub fn decide(&self, latest: Option<&LatestUse>, now: Timestamp, step: &Step) -> Decision {
        // The clock may have been set back, or another node's clock may be behind.
        let at = latest.map_or(now, |latest| now.max(latest.at));
        self.check(latest, now, step).map_or_else(
            |refused_or_made| refused_or_made,
            |figures| {
                let hold_until = match step {
                    Step::Reserve { hold_seconds, .. } => Some(now.plus_seconds(*hold_seconds)),
                    _ => None,
                };
                Decision::Make(LatestUse {
                    kind: kind(step),
                    order: step.order().cloned(),
                    figures,
                    hold_until,
                    returns: matches!(step, Step::Revoke { returns: true, .. }),
                    at,
                })
            },
        )
    }

    /// Returns what a reservation by a new order of this amount would fix at `now`.
    pub fn quote(&self, latest: Option<&LatestUse>, now: Timestamp, amount: u64) -> Quote {
        let held = latest.and_then(|latest| held(latest, now));
        let figures = match held {
            Some(held) => Err(held),
            None => self.figures(now, amount),
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

    /// Returns the figures of the use that a step makes, or that it makes none.
    fn check(
        &self,
        latest: Option<&LatestUse>,
        now: Timestamp,
        step: &Step,
    ) -> Result<Option<Figures>, Decision> {
        if let Some(latest) = latest {
            if let Some(decision) = repeated(latest, now, step) {
                return Err(decision);
            }
            let is_own = step.order().is_some() && step.order() == latest.order.as_ref();
            match (latest.holds(now), step) {
                (Some(UseKind::Redeemed), Step::Refund { .. }) if is_own => return Ok(latest.figures),
                (Some(UseKind::Reserved), Step::Redeem { .. } | Step::Release { .. }) if is_own => {
                    return Ok(latest.figures);
                }
                // What it holds is not a redemption.
                (Some(UseKind::Reserved), Step::Refund { .. }) if is_own => {}
                _ => {
                    if let Some(refusal) = held(latest, now) {
                        return Err(Decision::Refuse(refusal));
                    }
                }
            }
        }
        self.of_a_free_one(latest, now, step).map_err(Decision::Refuse)
    }

    /// Returns the figures for an issuance that no order holds.
    fn of_a_free_one(
        &self,
        latest: Option<&LatestUse>,
        now: Timestamp,
        step: &Step,
    ) -> Result<Option<Figures>, UseRefusal> {
        match step {
            Step::Reserve { amount, .. } => self.figures(now, *amount).map(Some),
            Step::Redeem { order, amount } => {
                // The hold of this order lapsed, and no other order reserved it since. Its figures stay.
                let fixed = latest
                    .filter(|latest| latest.kind == UseKind::Reserved && latest.order.as_ref() == Some(order))
                    .and_then(|latest| latest.figures)
                    .filter(|fixed| amount.is_none_or(|amount| amount == fixed.amount));
                let amount = fixed.map(|fixed| fixed.amount).or(*amount);
                let Some(amount) = amount else {
                    self.check_end(now)?;
                    return Err(UseRefusal::NotReserved);
                };
                let figures = self.figures(now, amount)?;
                Ok(Some(fixed.unwrap_or(figures)))
            }
            Step::Release { .. } => Err(UseRefusal::NotReserved),
            Step::Refund { .. } => Err(UseRefusal::NotRedeemed),
            Step::Revoke { .. } => Ok(None),
        }
    }

    /// Returns the figures of a new order, unless the issuance cannot be used for it.
    fn figures(&self, now: Timestamp, amount: u64) -> Result<Figures, UseRefusal> {
        self.check_end(now)?;
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
            // A part of the amount is not above the amount.
            let part = u64::try_from(part).unwrap_or(u64::MAX);
            part.min(offer.max_discount.unwrap_or(u64::MAX)).min(amount)
        }
    }
}

/// Returns what becomes of a step that is the latest use already, or contradicts it.
fn repeated(latest: &LatestUse, now: Timestamp, step: &Step) -> Option<Decision> {
    let is_own = step.order() == latest.order.as_ref();
    let is_amount = |amount: u64| latest.figures.is_some_and(|figures| figures.amount == amount);
    // `None` if the latest use has nothing to do with the step.
    let is_same = match (step, latest.kind) {
        (Step::Reserve { amount, .. }, UseKind::Reserved) if is_own && latest.holds(now).is_some() => {
            Some(is_amount(*amount))
        }
        (Step::Redeem { amount, .. }, UseKind::Redeemed) if is_own => Some(amount.is_none_or(is_amount)),
        (Step::Redeem { amount, .. }, UseKind::Reserved) if is_own && latest.holds(now).is_some() => {
            // The right amount goes on to redeem.
            (!amount.is_none_or(is_amount)).then_some(false)
        }
        (Step::Release { .. }, UseKind::Released) | (Step::Refund { .. }, UseKind::Refunded) if is_own => {
            Some(true)
        }
        (Step::Revoke { returns, .. }, UseKind::Revoked) => Some(*returns == latest.returns),
        _ => None,
    };
    Some(match is_same? {
        true => Decision::Made,
        false => Decision::Refuse(UseRefusal::OrderMismatch(Box::new(latest.clone()))),
    })
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
