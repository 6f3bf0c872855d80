//! Findings of the checker: all are counted, and the first of each kind are shown.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::CouponId;
use serde::Serialize;

use crate::history::Operation;
use crate::rows::{IssuanceRow, UseRow};

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// More issuances than the quantity, in the end or while a version was in force.
    OverQuantity,
    /// A user has more than the per-user limit.
    OverUserLimit,
    /// A sequence is missing.
    SequenceGap,
    /// A sequence is stored twice.
    SequenceTwice,
    /// The coupon's `issued` is not the number of its rows.
    IssuedDiffers,
    /// A 201 names a row that is not stored.
    AnsweredNotStored,
    /// A 201 differs from the row or from the request.
    AnswerDiffers,
    /// Two requests with different keys were answered with the same issuance.
    AnsweredTwice,
    /// Requests with the same user, coupon and key were answered with two issuances.
    ReplayDiffers,
    /// Two answers for the same user, coupon and key are not marked as replays.
    ReplayUnmarked,
    /// A request that was answered before another one was sent has the larger sequence.
    OutOfOrder,
    /// A row belongs to no request in the history.
    RowWithoutRequest,
    /// A row belongs to a user whose requests were all refused.
    RefusedButStored,
    /// `issued_at` is not between the call and the answer.
    TimeOutside,
    /// An issuance or an expiry that was allowed by no version of the coupon in force at that time.
    AgainstTerms,
    /// `SOLD_OUT` at a time when the whole quantity cannot have been issued yet.
    SoldOutTooSoon,
    /// `SOLD_OUT` although fewer than the quantity are issued in the end.
    NotExhausted,
    /// A refusal that does not follow from any version of the coupon that may have been in force between the
    /// call and the answer.
    UntrueRefusal,
    /// A refusal that follows only from a version that was certainly replaced before the call.
    StaleRefusal,
    /// A refusal where another answer takes precedence.
    Precedence,
    /// `ALREADY_ISSUED` to a user below the limit, or with the wrong issuance.
    UntrueAlreadyIssued,
    /// `UNKNOWN_COUPON` although the creation of the coupon had been answered.
    UntrueUnknownCoupon,
    /// An answer or a row of a coupon that is not stored.
    NoSuchCoupon,
    /// A coupon whose creation was answered is not stored.
    CouponLost,
    /// The stored coupon has an earlier version than an answer showed.
    ChangeLost,
    /// A change was answered with a coupon that does not show it.
    ChangeNotMade,
    /// Answers show one version with different contents, or versions in the wrong order.
    VersionsConflict,
    /// A version that no change in the history made.
    ChangeWithoutRequest,
    /// A change was refused for a reason that did not hold.
    UntrueChangeRefusal,
    /// A use has a number that is not the next one.
    UseNumberGap,
    /// A number is given to two uses.
    UseNumberTwice,
    /// A use, or an answer to a step, is of an issuance that is not stored.
    UseOfNoIssuance,
    /// A use that no request made.
    UseWithoutRequest,
    /// The counts of the coupon differ from the states of its issuances.
    UseCountsDiffer,
    /// An order reserved or redeemed an issuance that another order held.
    HeldByTwoOrders,
    /// An issuance that was redeemed, and not refunded, is redeemed again.
    RedeemedTwice,
    /// An issuance is used after its end of use.
    UsedAfterEnd,
    /// A use does not follow from the use before it, or has values that no use has.
    IllegalUse,
    /// A discount that was not fixed by the reservation, or that the coupon did not define.
    DiscountDiffers,
    /// A use in an answer is not stored.
    StepNotStored,
    /// An answer shows an earlier use although a later one had been answered before.
    StaleAnswer,
    /// A step was refused for a reason that did not hold.
    UntrueStepRefusal,
    /// A step is answered as a replay although it had not been taken.
    UntrueReplay,
    /// A quote that was not true.
    UntrueQuote,
}

/// The name in the report, such as `over quantity`.
impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !text.is_empty() {
                text.push(' ');
            }
            text.push(letter.to_ascii_lowercase());
        }
        f.pad(&text)
    }
}

/// One broken promise, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of promise.
    pub kind: FindingKind,
    /// The coupon.
    pub coupon: CouponId,
    /// What is wrong.
    pub message: String,
    /// The operations and rows that show the fault, one a line.
    pub evidence: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: coupon {}: {}", self.kind, self.coupon, self.message)?;
        self.evidence
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// The result of a check.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Number of findings of each kind.
    pub counts: BTreeMap<FindingKind, u64>,
    /// The first findings of each kind, up to [`Options::shown_max`](super::Options::shown_max).
    pub findings: Vec<Finding>,
    /// Number of requests by their answers.
    pub answers: BTreeMap<String, u64>,
    /// Number of coupons that were checked.
    pub coupons: u64,
    /// Number of issuances that were checked.
    pub issuances: u64,
    /// Number of uses that were checked.
    pub uses: u64,
}

impl Report {
    /// True if every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// True if there is a finding of this kind.
    pub fn has(&self, kind: FindingKind) -> bool {
        self.counts.contains_key(&kind)
    }
}

/// Collects findings. Findings beyond the maximum are only counted.
#[derive(Debug)]
pub(super) struct Reporter<'h> {
    history: &'h [Operation],
    shown_max: u64,
    pub(super) report: Report,
}

/// Maximum number of operations, and of rows, that are shown for one finding.
const EVIDENCE_MAX: usize = 6;

impl<'h> Reporter<'h> {
    pub(super) fn new(history: &'h [Operation], shown_max: u64) -> Self {
        Self {
            history,
            shown_max,
            report: Report::default(),
        }
    }

    /// Adds a finding with its evidence: operations, by their indices in the history, and rows.
    pub(super) fn find(
        &mut self,
        kind: FindingKind,
        coupon: CouponId,
        message: impl FnOnce() -> String,
        operations: &[usize],
        rows: &[&IssuanceRow],
    ) {
        self.add(kind, coupon, message, operations, rows);
    }

    /// Adds a finding about uses.
    pub(super) fn find_uses(
        &mut self,
        kind: FindingKind,
        coupon: CouponId,
        message: impl FnOnce() -> String,
        operations: &[usize],
        rows: &[&UseRow],
    ) {
        self.add(kind, coupon, message, operations, rows);
    }

    fn add(
        &mut self,
        kind: FindingKind,
        coupon: CouponId,
        message: impl FnOnce() -> String,
        operations: &[usize],
        rows: &[impl Serialize],
    ) {
        let count = self.report.counts.entry(kind).or_default();
        *count += 1;
        if *count > self.shown_max {
            return;
        }
        let mut operations = operations.to_vec();
        operations.dedup();
        let operations = operations
            .iter()
            .take(EVIDENCE_MAX)
            .map(|place| format!("line {}: {}", place + 1, self.history[*place]));
        let rows = rows
            .iter()
            .take(EVIDENCE_MAX)
            .map(|row| format!("row: {}", Written(row)));
        let evidence = operations.chain(rows).collect();
        self.report.findings.push(Finding {
            kind,
            coupon,
            message: message(),
            evidence,
        });
    }
}

/// A value as its JSON.
struct Written<T>(T);

impl<T: Serialize> fmt::Display for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(&self.0).map_err(|_| fmt::Error)?)
    }
}
