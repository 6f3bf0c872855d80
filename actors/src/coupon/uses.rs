//! What becomes of an issuance: it is reserved for an order, redeemed, released, refunded or revoked.
//!
//! Each of these is a *use*, an entry like an issuance. Uses are only added, with numbers without a gap, so
//! that the rows are the history. The state of an issuance follows from its latest use and the clock: a hold
//! lapses without a use, and the next request finds it lapsed.
//!
//! [`decide`] has the rules. [`latest`] keeps in memory the latest use of each used issuance, and the orders
//! for which repeated steps are recognised. `holds` counts the holds that have not lapsed.

pub mod decide;
mod holds;
pub mod latest;

use crate::coupon::CouponKind;
use crate::coupon::entry::CouponEntry;
use crate::coupon::ids::{CouponId, Sequence, dense_number};
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::Issuance;
use crate::coupon::uses::decide::{Decision, Step, Terms, UseRefusal};
use crate::coupon::{CouponAsk, CouponOutcome};
use crate::ids::{Author, OrderId, UserId};
use crate::owning::kind::Verdict;
use crate::time::Timestamp;

/// Maximum length of the reason of a revocation, in Unicode scalar values.
pub const REASON_CHARS_MAX: usize = 500;

dense_number! {
    /// The number of a use within its coupon.
    UseNumber
}

/// What a use does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UseKind {
    /// An order holds the issuance for a while.
    Reserved,
    /// An order was paid with it.
    Redeemed,
    /// The order that held it gave it back.
    Released,
    /// The order that was paid with it gave it back.
    Refunded,
    /// An administrator took it away for ever.
    Revoked,
}

impl UseKind {
    const ALL: [Self; 5] = [
        Self::Reserved,
        Self::Redeemed,
        Self::Released,
        Self::Refunded,
        Self::Revoked,
    ];

    /// Returns the name in the API and in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Redeemed => "redeemed",
            Self::Released => "released",
            Self::Refunded => "refunded",
            Self::Revoked => "revoked",
        }
    }

    /// Returns the value with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The figures of an order, in the currency's smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The amount of the order.
    pub amount: u64,
    /// What the coupon takes off, at most the amount.
    pub discount: u64,
}

/// A use, as answers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestUse {
    /// What it does.
    pub kind: UseKind,
    /// The order; `None` if revoked.
    pub order: Option<OrderId>,
    /// The figures of the order; `None` if revoked.
    pub figures: Option<Figures>,
    /// When the hold lapses, if it is a reservation.
    pub hold_until: Option<Timestamp>,
    /// True if a revocation gave the issuance back to the quantity.
    pub returns: bool,
    /// When it was decided.
    pub at: Timestamp,
}

/// How many issuances of a coupon are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UseCounts {
    /// Reserved issuances. In a [`Use`], a hold that has lapsed counts until the next use of its issuance;
    /// elsewhere it does not count.
    pub reserved: u64,
    /// Redeemed issuances.
    pub redeemed: u64,
    /// Revoked issuances.
    pub revoked: u64,
    /// Revoked issuances that were given back to the quantity.
    pub returned: u64,
}

impl UseCounts {
    /// Returns the counts after a use of this kind, by an issuance whose latest use was of the kind `before`.
    #[must_use]
    pub fn after(mut self, before: Option<UseKind>, kind: UseKind, returns: bool) -> Self {
        match before {
            Some(UseKind::Reserved) => self.reserved = self.reserved.saturating_sub(1),
            Some(UseKind::Redeemed) => self.redeemed = self.redeemed.saturating_sub(1),
            Some(UseKind::Released | UseKind::Refunded | UseKind::Revoked) | None => {}
        }
        match kind {
            UseKind::Reserved => self.reserved += 1,
            UseKind::Redeemed => self.redeemed += 1,
            UseKind::Revoked => {
                self.revoked += 1;
                self.returned += u64::from(returns);
            }
            UseKind::Released | UseKind::Refunded => {}
        }
        self
    }
}

/// A use of an issuance, which is one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The coupon.
    pub coupon: CouponId,
    /// Its number within the coupon.
    pub number: UseNumber,
    /// The issuance.
    pub sequence: Sequence,
    /// What answers show of it.
    pub shown: LatestUse,
    /// Why an issuance was revoked, if that was said.
    pub reason: Option<String>,
    /// Who asked for it.
    pub author: Author,
    /// The counts of the coupon after it.
    pub counts: UseCounts,
    /// When the hold lapses that it begins, or that was the latest use before it. So the holds that have not
    /// lapsed can be counted by an index: those that begin one count, and those that follow one are
    /// subtracted.
    pub lapses_at: Option<Timestamp>,
}

/// A request for a use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseRequest {
    /// The issuance.
    pub sequence: Sequence,
    /// The user that the issuance must belong to, if a user asks.
    pub of_user: Option<UserId>,
    /// Who asks.
    pub author: Author,
    /// What is asked for.
    pub step: Step,
}

impl From<UseRequest> for CouponAsk {
    fn from(request: UseRequest) -> Self {
        Self::Use(Box::new(request))
    }
}

/// An issuance with its latest use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedIssuance {
    /// The issuance.
    pub issuance: Issuance,
    /// Its latest use; `None` if it was never used.
    pub latest: Option<LatestUse>,
}

impl From<Issuance> for UsedIssuance {
    fn from(issuance: Issuance) -> Self {
        Self {
            issuance,
            latest: None,
        }
    }
}

/// The state of an issuance at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UseState {
    /// It can be used.
    Issued,
    /// An order holds it.
    Reserved,
    /// An order was paid with it.
    Redeemed,
    /// It was taken away.
    Revoked,
    /// It can no longer be used.
    Expired,
}

impl UseState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Issued,
        Self::Reserved,
        Self::Redeemed,
        Self::Revoked,
        Self::Expired,
    ];

    /// Returns the name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Reserved => "reserved",
            Self::Redeemed => "redeemed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// Returns the state with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl UsedIssuance {
    /// Returns the state at `now`.
    pub fn state(&self, now: Timestamp) -> UseState {
        match self.latest.as_ref().and_then(|latest| latest.holds(now)) {
            Some(UseKind::Reserved) => UseState::Reserved,
            Some(UseKind::Redeemed) => UseState::Redeemed,
            Some(UseKind::Revoked) => UseState::Revoked,
            _ if self.issuance.expires_at.is_some_and(|end| now >= end) => UseState::Expired,
            _ => UseState::Issued,
        }
    }
}

impl LatestUse {
    /// Returns why the issuance cannot be used by a new order at `now`: a hold, a redemption or a revocation;
    /// `None` if it can.
    pub fn holds(&self, now: Timestamp) -> Option<UseKind> {
        match self.kind {
            UseKind::Reserved => self
                .hold_until
                .is_some_and(|until| now < until)
                .then_some(self.kind),
            UseKind::Redeemed | UseKind::Revoked => Some(self.kind),
            UseKind::Released | UseKind::Refunded => None,
        }
    }
}

/// A use, as its coupon's owner decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseEntry {
    /// The use.
    pub made: Use,
    /// The version below which notices are untrue, if it gave an issuance back to the quantity.
    pub supersedes: Option<u64>,
}

/// The result of a use that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseDone {
    /// The issuance with its latest use.
    pub used: UsedIssuance,
    /// The version below which notices are untrue, if the latest use gave the issuance back to the quantity.
    pub supersedes: Option<u64>,
}

/// The owner's decision on a use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UseOutcome {
    /// The use was made now.
    Done(Box<UseDone>),
    /// The same use was made before. This is the issuance as it is now.
    Replayed(Box<UseDone>),
    /// Nothing was done.
    Refused(UseRefusal),
}

/// Returns the verdict on a use, in the order of the API's table.
pub fn judge(ledger: &Ledger, now: Timestamp, request: &UseRequest) -> Verdict<CouponKind> {
    let outcome = |refusal| CouponOutcome::Use(UseOutcome::Refused(refusal));
    let issuance = ledger.issued().get(request.sequence);
    let issuance = issuance.filter(|issuance| {
        let user = request.of_user.as_ref();
        user.is_none_or(|user| *user == issuance.user)
    });
    let Some(issuance) = issuance else {
        return Verdict::Refused(outcome(UseRefusal::UnknownIssuance));
    };
    let latest = ledger.uses().latest(request.sequence);
    let order = request.step.order();
    let own = order.and_then(|order| ledger.uses().by_order(request.sequence, order));
    let terms = Terms {
        offer: &ledger.coupon().offer,
        expires_at: issuance.expires_at,
    };
    match terms.decide(latest.as_ref(), own.as_ref(), now, &request.step) {
        Decision::Enter(shown) => {
            let before = latest.as_ref().map(|latest| latest.kind);
            let counts = ledger.uses().counts().after(before, shown.kind, shown.returns);
            let ended = latest.and_then(|latest| latest.hold_until);
            Verdict::Enter(CouponEntry::Use(Box::new(UseEntry {
                supersedes: shown.returns.then_some(ledger.coupon().version + counts.returned),
                made: Use {
                    coupon: ledger.coupon().id,
                    number: ledger.uses().last().next(),
                    sequence: request.sequence,
                    lapses_at: shown.hold_until.or(ended),
                    shown,
                    reason: request.step.reason().map(str::to_owned),
                    author: request.author.clone(),
                    counts,
                },
            })))
        }
        Decision::Replay => {
            let returns = latest.as_ref().is_some_and(|latest| latest.returns);
            let done = UseDone {
                used: UsedIssuance { issuance, latest },
                supersedes: returns.then_some(ledger.door_version()),
            };
            Verdict::Known(CouponOutcome::Use(UseOutcome::Replayed(Box::new(done))))
        }
        Decision::Refuse(refusal) if refusal.rests_on_a_use() => Verdict::Known(outcome(refusal)),
        Decision::Refuse(refusal) => Verdict::Refused(outcome(refusal)),
    }
}
