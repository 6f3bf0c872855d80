//! What clients saw: every operation with the time it was called and the time its answer came, and its file.
//!
//! The file is JSON Lines: one operation a line, in any order. All times are of one clock that never steps
//! back, in microseconds since 1970 UTC. `call_us` is read before the request is sent, `answer_us` after the
//! whole answer has come. An `answer` is the HTTP answer: `status`, `replayed` (whether it carried
//! `Idempotent-Replayed: true`), and the JSON `body` as it came. It is null, or absent, where none came in
//! time or whole.
//!
//! ```json
//! {"create":{"call_us":1000,"answer_us":3000,"answer":{"status":201,"body":{"id":42,"total_quantity":500,"per_user_limit":1,…}}}}
//! {"issue":{"call_us":5000,"answer_us":9000,"coupon":42,"user":"alice","key":"k1","answer":{"status":201,"replayed":false,"body":{"id":"42-1",…}}}}
//! {"issue":{"call_us":6000,"answer_us":8000,"coupon":42,"user":"bob","answer":{"status":409,"body":{"code":"SOLD_OUT","total_quantity":500}}}}
//! {"issue":{"call_us":7000,"coupon":42,"user":"eve","key":"k2","answer":null}}
//! {"change":{"call_us":9500,"answer_us":9900,"coupon":42,"change":{"patch":{"total_quantity":600}},"if_match":1,"answer":{"status":200,"body":{"id":42,…}}}}
//! {"change":{"call_us":9950,"coupon":42,"change":"pause","answer":null}}
//! ```
//!
//! Other changes are `"resume"` and `"close"`; a patch holds what was sent. A request without `key` was sent
//! without `Idempotency-Key`. What an answer means is decided here, and strictly: a 503 with `applied:
//! false`, a 429 and any other 4xx without a refusal changed nothing; a 5xx without `applied: false` is as
//! unknown as no answer.

use std::fmt;
use std::io::{BufRead, Write};

use crate::ids::{CouponId, RequestKey, UserId};
use crate::time::Timestamp;

use crate::rows::{CouponRow, IssuanceRow};

pub mod file;
mod line;

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct InputError {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
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

/// From the call to the answer, by the clients' clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before the request was sent.
    pub call: Timestamp,
    /// After the answer came; `None` if none did.
    pub answer: Option<Timestamp>,
}

/// One thing that a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// An administrator made a coupon.
    Create(Create),
    /// An administrator changed one.
    Change(ChangeCall),
    /// A user asked for one.
    Issue(Issue),
}

/// A coupon made, or perhaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// When.
    pub span: Span,
    /// What came of it.
    pub answer: CreateAnswer,
}

/// What came of making a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateAnswer {
    /// There is this coupon; `replayed`: since an earlier request with the same key.
    Created {
        /// The coupon.
        coupon: CouponRow,
        /// Whether an earlier request made it.
        replayed: bool,
    },
    /// Nothing was made; the code, or the status.
    NotApplied(String),
    /// Nobody knows.
    Unknown,
}

/// What an administrator set, as far as it decides who is given a coupon; within `Some`, `None` clears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// New or no quantity.
    pub total_quantity: Option<Option<u64>>,
    /// New or no beginning.
    pub starts_at: Option<Option<Timestamp>>,
    /// New or no end.
    pub ends_at: Option<Option<Timestamp>>,
    /// New or no expiry.
    pub use_within_days: Option<Option<u16>>,
}

/// What an administrator wanted of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set these parts of the offer.
    Patch(Patch),
    /// Issue no more until resumed.
    Pause,
    /// Issue again.
    Resume,
    /// Issue no more, for ever.
    Close,
}

/// A change by an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCall {
    /// When.
    pub span: Span,
    /// Of which coupon.
    pub coupon: CouponId,
    /// What was wanted.
    pub change: Change,
    /// Only if the coupon had this version.
    pub if_match: Option<u64>,
    /// What came of it.
    pub answer: ChangeAnswer,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeAnswer {
    /// The coupon as it was then, changed or as before.
    Done(CouponRow),
    /// Nothing was changed; the code, or the status.
    NotApplied(String),
    /// Nobody knows.
    Unknown,
}

/// A user's request for a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// When.
    pub span: Span,
    /// Which coupon.
    pub coupon: CouponId,
    /// Who asked.
    pub user: UserId,
    /// The `Idempotency-Key`, if one was sent.
    pub key: Option<RequestKey>,
    /// What came of it.
    pub answer: IssueAnswer,
}

/// What came of a request for a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueAnswer {
    /// It was given.
    Issued {
        /// What was given.
        issuance: IssuanceRow,
        /// Whether an earlier request with the same key was given it.
        replayed: bool,
    },
    /// It was not.
    Refused(Refusal),
    /// Nothing was decided; the code, or the status.
    NotApplied(String),
    /// Nobody knows.
    Unknown,
}

impl IssueAnswer {
    /// What it is counted as: the code of a refusal or setback, else `issued`, `replayed` or `unknown`.
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

/// Why a coupon was not given, with what the answer told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// The user has as many as allowed; this is the latest.
    AlreadyIssued(Box<IssuanceRow>),
    /// Closed by an administrator.
    Closed,
    /// Paused by an administrator.
    Paused,
    /// The window has not begun.
    NotStarted {
        /// When it begins.
        starts_at: Timestamp,
        /// The service's clock.
        server_time: Timestamp,
    },
    /// The window is over.
    Ended {
        /// When it ended.
        ends_at: Timestamp,
        /// The service's clock.
        server_time: Timestamp,
    },
    /// All are given out.
    SoldOut {
        /// How many there were.
        total_quantity: u64,
    },
}

impl Refusal {
    /// Its stable name.
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

/// Reads a history one operation at a time; the first error ends it.
pub fn read(input: impl BufRead) -> impl Iterator<Item = Result<Operation, InputError>> {
    (1..).zip(input.lines()).map(|(number, line)| {
        let line = line.map_err(|error| InputError::new(number, error))?;
        line::parse(&line).map_err(|error| InputError::new(number, error))
    })
}

/// Writes a history one operation at a time. What is not flushed when the process is killed is lost: a line
/// written in part is an error to [`read`].
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// A writer to this file, which should be buffered.
    pub fn new(output: W) -> Self {
        Self(output)
    }

    /// Writes one line.
    pub fn write(&mut self, operation: &Operation) -> std::io::Result<()> {
        line::write(&mut self.0, operation)?;
        self.0.write_all(b"\n")
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.0
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Operation {
    /// When it was called and answered.
    pub fn span(&self) -> Span {
        match self {
            Self::Create(create) => create.span,
            Self::Change(change) => change.span,
            Self::Issue(issue) => issue.span,
        }
    }

    /// The coupon it is about, if that is known.
    pub fn coupon(&self) -> Option<CouponId> {
        match self {
            Self::Create(Create {
                answer: CreateAnswer::Created { coupon, .. },
                ..
            }) => Some(coupon.id),
            Self::Create(_) => None,
            Self::Change(change) => Some(change.coupon),
            Self::Issue(issue) => Some(issue.coupon),
        }
    }
}

/// As its line in the file, which says everything.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        line::write(&mut text, self).map_err(|_| fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests;
