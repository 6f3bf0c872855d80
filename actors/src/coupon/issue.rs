//! Issuing: a user asks for the coupon.

use crate::coupon::CouponKind;
use crate::coupon::entry::CouponEntry;
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, Issuance, Phase};
use crate::coupon::{Ask, Outcome};
use crate::ids::{RequestKey, Sequence, UserId};
use crate::owning::kind::Verdict;
use crate::time::Timestamp;

/// A user asks for the coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The user.
    pub user: UserId,
    /// The identity of this request; asking again with it gives the same answer.
    pub key: RequestKey,
}

impl From<IssueRequest> for Ask {
    fn from(request: IssueRequest) -> Self {
        Self::Issue(request)
    }
}

/// The owner's decision on an issue request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueOutcome {
    /// The coupon was issued now.
    Issued(Issuance),
    /// It was issued to this user for this key before.
    Replayed(Issuance),
    /// It was not issued.
    Refused(Refusal),
}

/// Why a coupon is not issued, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// The user has as many as allowed; this is the latest.
    AlreadyIssued(Box<Issuance>),
    /// An administrator closed it.
    Closed,
    /// An administrator paused it.
    Paused,
    /// The window has not begun.
    NotStarted {
        /// When it begins.
        starts_at: Timestamp,
        /// The owner's clock when it decided.
        server_time: Timestamp,
    },
    /// The window is over.
    Ended {
        /// When it ended.
        ends_at: Timestamp,
        /// The owner's clock when it decided.
        server_time: Timestamp,
    },
    /// All are issued.
    SoldOut {
        /// How many there were.
        total_quantity: u64,
    },
}

/// Returns what an issue request leads to: the first rule that fits, in the order of the API's table.
pub fn judge(ledger: &Ledger, now: Timestamp, request: &IssueRequest) -> Verdict<CouponKind> {
    let IssueRequest { user, key } = request;
    if let Some(earlier) = ledger.issued().answered(user, key) {
        return Verdict::Known(Outcome::Issue(IssueOutcome::Replayed(earlier)));
    }
    let count = ledger.issued().count_of(user);
    if count >= ledger.coupon().offer.per_user_limit
        && let Some(latest) = ledger.issued().latest(user)
    {
        let refusal = Refusal::AlreadyIssued(Box::new(latest));
        return Verdict::Known(Outcome::Issue(IssueOutcome::Refused(refusal)));
    }
    match refusal(ledger.coupon(), now, ledger.last()) {
        Some(refusal) => Verdict::Refused(Outcome::Issue(IssueOutcome::Refused(refusal))),
        None => Verdict::Enter(CouponEntry::Issuance(ledger.next(now, user, key, count + 1))),
    }
}

/// Returns why this coupon is issued to no user at `now` with `issued` out, in order of precedence; `None` if
/// it is issued.
///
/// Doors answer by this very function, so that they and the owner cannot differ.
pub fn refusal(coupon: &Coupon, now: Timestamp, issued: Sequence) -> Option<Refusal> {
    let offer = &coupon.offer;
    match coupon.phase(now, issued) {
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
