//! Issuing: a user asks for the coupon.

use crate::coupon::CouponKind;
use crate::coupon::entry::CouponEntry;
use crate::coupon::ids::Sequence;
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, Issuance, Phase};
use crate::coupon::uses::UsedIssuance;
use crate::coupon::{CouponAsk, CouponOutcome};
use crate::ids::{RequestKey, UserId};
use crate::owning::kind::Verdict;
use crate::time::Timestamp;

/// A user asks for the coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The user.
    pub user: UserId,
    /// The identity of this request. A request with the same key gets the same answer again.
    pub key: RequestKey,
}

impl From<IssueRequest> for CouponAsk {
    fn from(request: IssueRequest) -> Self {
        Self::Issue(request)
    }
}

/// The owner's decision on an issue request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueOutcome {
    /// The coupon was issued now.
    Issued(Issuance),
    /// The coupon was issued to this user for this key before.
    Replayed(Box<UsedIssuance>),
    /// The coupon was not issued.
    Refused(Refusal),
}

/// Why a coupon is not issued, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// The user has as many coupons as allowed. This is the user's latest issuance.
    AlreadyIssued(Box<UsedIssuance>),
    /// An administrator closed the coupon.
    Closed,
    /// An administrator paused the coupon.
    Paused,
    /// The window has not begun.
    NotStarted {
        /// When the window begins.
        starts_at: Timestamp,
        /// The owner's clock when it decided.
        server_time: Timestamp,
    },
    /// The window is over.
    Ended {
        /// When the window ended.
        ends_at: Timestamp,
        /// The owner's clock when it decided.
        server_time: Timestamp,
    },
    /// All coupons are issued.
    SoldOut {
        /// How many there were.
        total_quantity: u64,
    },
}

/// Returns the verdict on an issue request, by the first rule that fits, in the order of the API's table.
pub fn judge(ledger: &Ledger, now: Timestamp, request: &IssueRequest) -> Verdict<CouponKind> {
    let IssueRequest { user, key } = request;
    if let Some(earlier) = ledger.issued().answered(user, key) {
        return Verdict::Known(CouponOutcome::Issue(IssueOutcome::Replayed(used(
            ledger, earlier,
        ))));
    }
    let count = ledger.issued().count_of(user);
    let limit = ledger.coupon().offer.per_user_limit;
    if limit.is_some_and(|limit| count >= u32::from(limit))
        && let Some(latest) = ledger.issued().latest(user)
    {
        let refusal = Refusal::AlreadyIssued(used(ledger, latest));
        return Verdict::Known(CouponOutcome::Issue(IssueOutcome::Refused(refusal)));
    }
    match refusal(ledger.coupon(), now, ledger.taken()) {
        Some(refusal) => Verdict::Refused(CouponOutcome::Issue(IssueOutcome::Refused(refusal))),
        None => Verdict::Enter(CouponEntry::Issuance(ledger.next(now, user, key, count + 1))),
    }
}

/// Returns the issuance with what became of it.
fn used(ledger: &Ledger, issuance: Issuance) -> Box<UsedIssuance> {
    let latest = ledger.uses().latest(issuance.id.sequence);
    Box::new(UsedIssuance { issuance, latest })
}

/// Returns the first reason, in order of precedence, why no user can get this coupon at `now` if so many
/// issuances count against its quantity. Returns `None` if users can get it.
///
/// Doors use the same function, so that their answers cannot differ from the owner's.
pub fn refusal(coupon: &Coupon, now: Timestamp, taken: Sequence) -> Option<Refusal> {
    let offer = &coupon.offer;
    match coupon.phase(now, taken) {
        Phase::Live => None,
        Phase::Closed => Some(Refusal::Closed),
        Phase::Paused => Some(Refusal::Paused),
        Phase::Scheduled => offer.starts_at.map(|starts_at| Refusal::NotStarted {
            starts_at,
            server_time: now,
        }),
        Phase::Ended => offer.ends_at.map(|ends_at| Refusal::Ended {
            ends_at,
            server_time: now,
        }),
        Phase::SoldOut => offer
            .total_quantity
            .map(|total_quantity| Refusal::SoldOut { total_quantity }),
    }
}
