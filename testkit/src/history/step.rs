//! Requests to use an issuance, and requests for quotes.

use super::Span;
use crate::ids::{IssuanceId, OrderId};
use crate::rows::{ShownUse, UseKind, UsedIssuance};
use crate::time::Timestamp;

/// A request to use an issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCall {
    /// The times of the call and the answer.
    pub span: Span,
    /// The issuance.
    pub issuance: IssuanceId,
    /// What was asked for.
    pub step: Step,
    /// The answer.
    pub answer: StepAnswer,
}

/// What is asked for about one issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Hold it for an order.
    Reserve {
        /// The order.
        order: OrderId,
        /// The amount of the order.
        amount: u64,
        /// How long it is held.
        hold_seconds: u32,
    },
    /// Use it for an order that is paid.
    Redeem {
        /// The order.
        order: OrderId,
        /// The amount of the order, if it was sent.
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
        /// True if it is given back to the quantity.
        returns: bool,
    },
}

impl Step {
    /// Returns the name in paths of the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reserve { .. } => "reserve",
            Self::Redeem { .. } => "redeem",
            Self::Release { .. } => "release",
            Self::Refund { .. } => "refund",
            Self::Revoke { .. } => "revoke",
        }
    }

    /// Returns the kind of use that the step makes.
    pub const fn kind(&self) -> UseKind {
        match self {
            Self::Reserve { .. } => UseKind::Reserved,
            Self::Redeem { .. } => UseKind::Redeemed,
            Self::Release { .. } => UseKind::Released,
            Self::Refund { .. } => UseKind::Refunded,
            Self::Revoke { .. } => UseKind::Revoked,
        }
    }

    /// Returns the order; `None` for a revocation.
    pub const fn order(&self) -> Option<&OrderId> {
        match self {
            Self::Reserve { order, .. }
            | Self::Redeem { order, .. }
            | Self::Release { order }
            | Self::Refund { order } => Some(order),
            Self::Revoke { .. } => None,
        }
    }

    /// Returns the amount of the order, if it was sent.
    pub const fn amount(&self) -> Option<u64> {
        match self {
            Self::Reserve { amount, .. } => Some(*amount),
            Self::Redeem { amount, .. } => *amount,
            Self::Release { .. } | Self::Refund { .. } | Self::Revoke { .. } => None,
        }
    }
}

/// The answer to a request to use an issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepAnswer {
    /// It was done.
    Done {
        /// The issuance with its latest use.
        used: Box<UsedIssuance>,
        /// True if the same step had been taken before.
        replayed: bool,
    },
    /// It was refused.
    Refused(StepRefusal),
    /// Nothing was decided. Holds the answer's code, or its status if the answer had no code.
    NotApplied(String),
    /// The outcome is unknown.
    Unknown,
}

impl StepAnswer {
    /// Returns the name under which the answer is counted: the code of a refusal or failure, else `done`,
    /// `replayed` or `unknown`.
    pub fn code(&self) -> &str {
        match self {
            Self::Done { replayed: false, .. } => "done",
            Self::Done { replayed: true, .. } => "replayed",
            Self::Refused(refusal) => refusal.code(),
            Self::NotApplied(code) => code,
            Self::Unknown => "unknown",
        }
    }
}

/// Why an issuance is not used, with the fields of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepRefusal {
    /// There is no such issuance.
    UnknownIssuance,
    /// The step was taken before with other figures. Holds the use, if the answer shows it.
    OrderMismatch(Option<Box<ShownUse>>),
    /// It was revoked.
    Revoked,
    /// It was redeemed. Holds the use, if the answer shows it.
    Redeemed(Option<Box<ShownUse>>),
    /// Another order holds it.
    Reserved {
        /// When that hold lapses.
        hold_until: Timestamp,
    },
    /// It can no longer be used.
    Expired {
        /// Since when.
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

impl StepRefusal {
    /// Returns the code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownIssuance => "UNKNOWN_ISSUANCE",
            Self::OrderMismatch(_) => "ORDER_MISMATCH",
            Self::Revoked => "REVOKED",
            Self::Redeemed(_) => "REDEEMED",
            Self::Reserved { .. } => "RESERVED",
            Self::Expired { .. } => "EXPIRED",
            Self::BelowMinimum { .. } => "BELOW_MINIMUM",
            Self::NotReserved => "NOT_RESERVED",
            Self::NotRedeemed => "NOT_REDEEMED",
        }
    }

    /// Returns the use that the answer shows.
    pub fn shown(&self) -> Option<&ShownUse> {
        match self {
            Self::OrderMismatch(shown) | Self::Redeemed(shown) => shown.as_deref(),
            _ => None,
        }
    }
}

/// A request for a quote: what an order would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The times of the call and the answer.
    pub span: Span,
    /// The issuance.
    pub issuance: IssuanceId,
    /// The amount of the order.
    pub amount: u64,
    /// The answer.
    pub answer: QuoteAnswer,
}

/// The answer to a request for a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuoteAnswer {
    /// What it would get.
    Told {
        /// The amount of the order.
        amount: u64,
        /// What would be taken off.
        discount: u64,
        /// What would be left to pay.
        payable: u64,
        /// The code of the refusal, if the issuance cannot be used.
        refused: Option<String>,
    },
    /// Any other answer. Holds its code or status, or `unknown` without an answer.
    Failed(String),
}

impl QuoteAnswer {
    /// Returns the name under which the answer is counted.
    pub fn code(&self) -> &str {
        match self {
            Self::Told { refused: None, .. } => "usable",
            Self::Told {
                refused: Some(code), ..
            }
            | Self::Failed(code) => code,
        }
    }
}
