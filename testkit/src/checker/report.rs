//! What the checker found, capped in what is shown and exact in what is counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::CouponId;
use serde::Serialize;

use crate::history::Operation;
use crate::rows::IssuanceRow;

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// More issuances than the quantity, in the end or while a version was in force.
    OverQuantity,
    /// A user has more than the per-user limit.
    OverUserLimit,
    /// A sequence is missing.
    SequenceGap,
    /// A sequence is there twice.
    SequenceTwice,
    /// The coupon's `issued` is not the number of its rows.
    IssuedDiffers,
    /// A 201 names a row that is not stored.
    ToldNotStored,
    /// A 201 says something else than the row, or than was asked.
    ToldOtherwise,
    /// Two requests with different keys were given the same issuance.
    ToldTwice,
    /// The same user, coupon and key were given two issuances.
    ReplayDiffers,
    /// The same user, coupon and key were told twice to be the first.
    ReplayUnmarked,
    /// A request answered before another was sent has the larger sequence.
    OutOfOrder,
    /// A row belongs to no request in the history.
    UnaskedRow,
    /// A row belongs to a user whose requests were all told that nothing was issued for them.
    RefusedButStored,
    /// `issued_at` is not between the call and the answer.
    TimeOutside,
    /// Issued while no version of the coupon allowed it, or with another expiry than any gave.
    AgainstTerms,
    /// `SOLD_OUT` when that many cannot have been issued yet.
    SoldOutTooSoon,
    /// `SOLD_OUT`, but in the end fewer are issued than there were.
    NotExhausted,
    /// A refusal that no version of the coupon between call and answer gives.
    UntrueRefusal,
    /// A refusal that only an earlier version gives, though a later one was surely in force.
    StaleRefusal,
    /// A refusal though another answer takes precedence.
    Precedence,
    /// `ALREADY_ISSUED` without the user having as many as allowed, or naming the wrong issuance.
    UntrueAlreadyIssued,
    /// `UNKNOWN_COUPON` though its creation had been answered.
    UntrueUnknownCoupon,
    /// An answer or a row of a coupon that is not stored.
    NoSuchCoupon,
    /// A coupon whose creation was answered is not stored.
    CouponLost,
    /// The stored coupon has an earlier version than an answer showed.
    ChangeLost,
    /// A change was answered with a coupon that does not show it.
    ChangeNotMade,
    /// Answers show one version differently, or versions in another order than they were made.
    VersionsConflict,
    /// A version that no change in the history made.
    UnaskedChange,
    /// A change was refused for a reason that was not there.
    UntrueChangeRefusal,
}

/// In the words of the report: `over quantity`.
impl fmt::Display for Kind {
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

/// One broken promise, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which promise.
    pub kind: Kind,
    /// Of which coupon.
    pub coupon: CouponId,
    /// What is wrong.
    pub message: String,
    /// The operations and rows that show it, one a line.
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

/// Everything found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many findings there are of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The first of each kind, up to [`Options::shown_max`](super::Options::shown_max).
    pub findings: Vec<Finding>,
    /// How many requests got which answer.
    pub answers: BTreeMap<String, u64>,
    /// How many coupons were looked at.
    pub coupons: u64,
    /// How many issuances were.
    pub issuances: u64,
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether there is a finding of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.counts.contains_key(&kind)
    }
}

/// Takes findings; those beyond the cap are counted and never written out.
#[derive(Debug)]
pub(super) struct Reporter<'h> {
    history: &'h [Operation],
    shown_max: u64,
    pub(super) report: Report,
}

/// Operations shown for one finding: enough to see it.
const EVIDENCE_MAX: usize = 6;

impl<'h> Reporter<'h> {
    pub(super) fn new(history: &'h [Operation], shown_max: u64) -> Self {
        Self {
            history,
            shown_max,
            report: Report::default(),
        }
    }

    /// Takes one finding, shown by these operations (by their place in the history) and rows.
    pub(super) fn find(
        &mut self,
        kind: Kind,
        coupon: CouponId,
        message: impl FnOnce() -> String,
        operations: &[usize],
        rows: &[&IssuanceRow],
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
            .map(|row| format!("row: {}", Written(*row)));
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
