//! What clients saw: every operation with the times of its call and its answer, and the file format.
//!
//! The file is JSON Lines: one operation a line, in any order. All times are of one clock that never steps
//! back, in microseconds since 1970 UTC. `call_us` is read before the request is sent, `answer_us` after the
//! whole answer was received. An `answer` is the HTTP answer: `status`, `replayed` (true if it carried
//! `Idempotent-Replayed: true`), and the JSON `body` as received. `answer` is null or absent if no whole
//! answer came in time.
//!
//! ```json
//! {"create":{"call_us":1000,"answer_us":3000,"answer":{"status":201,"body":{"id":42,"total_quantity":500,"per_user_limit":1,…}}}}
//! {"issue":{"call_us":5000,"answer_us":9000,"coupon":42,"user":"alice","key":"k1","answer":{"status":201,"replayed":false,"body":{"id":"42-1",…}}}}
//! {"issue":{"call_us":6000,"answer_us":8000,"coupon":42,"user":"bob","answer":{"status":409,"body":{"code":"SOLD_OUT","total_quantity":500}}}}
//! {"issue":{"call_us":7000,"coupon":42,"user":"eve","key":"k2","answer":null}}
//! {"change":{"call_us":9500,"answer_us":9900,"coupon":42,"change":{"patch":{"total_quantity":600}},"if_match":1,"answer":{"status":200,"body":{"id":42,…}}}}
//! {"change":{"call_us":9950,"coupon":42,"change":"pause","answer":null}}
//! {"step":{"call_us":9960,"answer_us":9990,"issuance":"42-1","step":"reserve","body":{"order_id":"A-1","order_amount":45000,"hold":900},"answer":{"status":200,"replayed":false,"body":{"id":"42-1",…,"use":{…}}}}}
//! {"quote":{"call_us":9970,"answer_us":9980,"issuance":"42-1","order_amount":45000,"answer":{"status":200,"body":{"discount":10000,…}}}}
//! ```
//!
//! Other steps are `"redeem"`, `"release"`, `"refund"` and `"revoke"`, with the body that was sent.
//! Other changes are `"resume"` and `"close"`; a patch holds the fields that were sent. A request without
//! `key` was sent without `Idempotency-Key`. This module decides strictly what an answer means: a 503 with
//! `applied: false`, a 429 and any other 4xx without a refusal changed nothing. The outcome of a 5xx without
//! `applied: false` is unknown, like the outcome of a request without an answer.

use std::fmt;
use std::io::{BufRead, Write};

use crate::ids::{CouponId, RequestKey, UserId};
use crate::time::Timestamp;

use smol_str::SmolStr;

use crate::rows::{CouponRow, Discount, IssuanceRow};

pub mod file;
mod line;
mod step;

pub use step::{Quote, QuoteAnswer, Step, StepAnswer, StepCall, StepRefusal};

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct InputError {
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with the line.
    pub reason: String,
}

impl InputError {
    pub(crate) fn new(line: u64, reason: impl ToString) -> Self {
        Self {
            line,
            reason: reason.to_string(),
        }
    }
}

/// The times of a call and its answer, by the clients' clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Time before the request was sent.
    pub call: Timestamp,
    /// Time after the answer was received; `None` if there was no answer.
    pub answer: Option<Timestamp>,
}

/// One request of a client, with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// An administrator's request to make a coupon.
    Create(Create),
    /// An administrator's request to change a coupon.
    Change(Box<ChangeCall>),
    /// A user's request for a coupon.
    Issue(Issue),
    /// A request to use an issuance.
    Step(StepCall),
    /// A question what an order would get.
    Quote(Quote),
}

/// A request to make a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The times of the call and the answer.
    pub span: Span,
    /// The answer.
    pub answer: CreateAnswer,
}

/// The answer to a request to make a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateAnswer {
    /// The coupon exists.
    Created {
        /// The coupon.
        coupon: Box<CouponRow>,
        /// True if an earlier request with the same key made the coupon.
        replayed: bool,
    },
    /// Nothing was made. Holds the answer's code, or its status if the answer had no code.
    NotApplied(String),
    /// The outcome is unknown.
    Unknown,
}

/// The fields of an administrator's patch that decide whether a coupon is issued, when it expires and what it
/// takes off. `None` leaves a field, `Some(None)` clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// The new quantity.
    pub total_quantity: Option<Option<u64>>,
    /// The new beginning.
    pub starts_at: Option<Option<Timestamp>>,
    /// The new end.
    pub ends_at: Option<Option<Timestamp>>,
    /// The new expiry.
    pub use_within_days: Option<Option<u16>>,
    /// The new end of use.
    pub use_until: Option<Option<Timestamp>>,
    /// The new time zone.
    pub time_zone: Option<Option<SmolStr>>,
    /// The new discount; `Some(Some(None))` if only its kind or its value was sent.
    pub discount: Option<Option<Option<Discount>>>,
    /// The new maximum of a rate.
    pub max_discount: Option<Option<u64>>,
    /// The new smallest order.
    pub min_order_amount: Option<Option<u64>>,
}

/// A change of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets parts of the offer.
    Patch(Patch),
    /// Stops issuing until the coupon is resumed.
    Pause,
    /// Issues again.
    Resume,
    /// Stops issuing for good.
    Close,
}

impl Change {
    /// True if this change may widen a coupon.
    pub(crate) fn may_widen(&self) -> bool {
        match self {
            Self::Patch(patch) => {
                patch.total_quantity.is_some() || patch.starts_at.is_some() || patch.ends_at.is_some()
            }
            Self::Resume => true,
            Self::Pause | Self::Close => false,
        }
    }
}

/// An administrator's request to change a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCall {
    /// The times of the call and the answer.
    pub span: Span,
    /// The coupon.
    pub coupon: CouponId,
    /// The requested change.
    pub change: Change,
    /// The version that the coupon must have, if one was required.
    pub if_match: Option<u64>,
    /// The answer.
    pub answer: ChangeAnswer,
}

/// The answer to a request to change a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeAnswer {
    /// The coupon after the change, which may have changed nothing.
    Done(Box<CouponRow>),
    /// Nothing was changed. Holds the answer's code, or its status if the answer had no code.
    NotApplied(String),
    /// The outcome is unknown.
    Unknown,
}

/// A user's request for a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The times of the call and the answer.
    pub span: Span,
    /// The coupon.
    pub coupon: CouponId,
    /// The user.
    pub user: UserId,
    /// The `Idempotency-Key`, if one was sent.
    pub key: Option<RequestKey>,
    /// The answer.
    pub answer: IssueAnswer,
}

/// The answer to a request for a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueAnswer {
    /// The coupon was issued.
    Issued {
        /// The issuance.
        issuance: IssuanceRow,
        /// True if an earlier request with the same key obtained the issuance.
        replayed: bool,
    },
    /// The coupon was refused.
    Refused(Refusal),
    /// Nothing was decided. Holds the answer's code, or its status if the answer had no code.
    NotApplied(String),
    /// The outcome is unknown.
    Unknown,
}

impl IssueAnswer {
    /// Returns the name under which the answer is counted: the code of a refusal or failure, else `issued`,
    /// `replayed` or `unknown`.
    pub fn code(&self) -> &str {
        match self {
            Self::Issued { replayed: false, .. } => "issued",
            Self::Issued { replayed: true, .. } => "replayed",
            Self::Refused(refusal) => refusal.code(),
            Self::NotApplied(code) => code,
            Self::Unknown => "unknown",
        }
    }
}

/// A refusal, with the fields of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// The user has as many as allowed. Holds the user's latest issuance.
    AlreadyIssued(Box<IssuanceRow>),
    /// An administrator closed the coupon.
    Closed,
    /// An administrator paused the coupon.
    Paused,
    /// The window has not begun.
    NotStarted {
        /// Beginning of the window.
        starts_at: Timestamp,
        /// Time by the service's clock.
        server_time: Timestamp,
    },
    /// The window has ended.
    Ended {
        /// End of the window.
        ends_at: Timestamp,
        /// Time by the service's clock.
        server_time: Timestamp,
    },
    /// The whole quantity is issued.
    SoldOut {
        /// The quantity.
        total_quantity: u64,
    },
}

impl Refusal {
    /// Returns the code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownCoupon => "UNKNOWN_COUPON",
            Self::AlreadyIssued(_) => "ALREADY_ISSUED",
            Self::Closed => "CLOSED",
            Self::Paused => "PAUSED",
            Self::NotStarted { .. } => "NOT_STARTED",
            Self::Ended { .. } => "ENDED",
            Self::SoldOut { .. } => "SOLD_OUT",
        }
    }
}

/// Reads a history one operation at a time. Reading ends at the first error.
pub fn read(input: impl BufRead) -> impl Iterator<Item = Result<Operation, InputError>> {
    (1..).zip(input.lines()).map(|(number, line)| {
        let line = line.map_err(|error| InputError::new(number, error))?;
        line::parse(&line).map_err(|error| InputError::new(number, error))
    })
}

/// Writes a history one operation at a time. Lines that are not flushed when the process is killed are lost,
/// and [`read`] fails on a partial line.
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// Writes to this output, which should be buffered.
    pub fn new(output: W) -> Self {
        Self(output)
    }

    /// Writes one line.
    pub fn write(&mut self, operation: &Operation) -> std::io::Result<()> {
        line::write(&mut self.0, operation)?;
        self.0.write_all(b"\n")
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.0
    }

    /// Flushes the output.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Operation {
    /// Returns the times of the call and the answer.
    pub fn span(&self) -> Span {
        match self {
            Self::Create(create) => create.span,
            Self::Change(change) => change.span,
            Self::Issue(issue) => issue.span,
            Self::Step(step) => step.span,
            Self::Quote(quote) => quote.span,
        }
    }

    /// Returns the coupon, if it is known.
    pub fn coupon(&self) -> Option<CouponId> {
        match self {
            Self::Create(Create {
                answer: CreateAnswer::Created { coupon, .. },
                ..
            }) => Some(coupon.id),
            Self::Create(_) => None,
            Self::Change(change) => Some(change.coupon),
            Self::Issue(issue) => Some(issue.coupon),
            Self::Step(step) => Some(step.issuance.coupon),
            Self::Quote(quote) => Some(quote.issuance.coupon),
        }
    }
}

/// Writes the operation as a line of the file.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        line::write(&mut text, self).map_err(|_| fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests;
