//! Decides whether what clients saw and what is stored can be of one service that keeps its promises.
//!
//! Pure: from a history, the final rows and [`Options`] to a [`Report`]. It knows nothing of how the service
//! works, only what it promises:
//! - `stored`: the rows alone — sequences 1…n, the quantity, the per-user limit;
//! - `attribution`: every 201 stored as it was told, every row asked for, replays equal, and the order of
//!   arrival;
//! - `timeline`: which versions of the coupon may have been in force when, from administrators' calls and
//!   answers;
//! - `bounds`: when each issuance was decided at the earliest and at the latest, and that some version
//!   allowed it then;
//! - `refusals`: each true at some moment between its call and its answer.
//!
//! Whatever is not known is taken in the service's favour, so that a finding is always a fault: of the
//! service, or of the clocks ([`Options::clock_tolerance`]), or of the record. What is *not* seen is
//! therefore part of the contract of this module: a fault inside the width of overlapping calls, and one that
//! an operation without an answer could explain.
//!
//! Client times bound decisions exactly; `issued_at` bounds them by the tolerance. Everything is sorted once,
//! so the cost is n log n; a refusal is also held against every version that may have been in force during
//! it, of which there are few.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::CouponId;
use crate::time::Timestamp;
use hashbrown::HashMap;

use crate::history::{CreateAnswer, IssueAnswer, Operation, Refusal};
use crate::rows::{CouponRow, IssuanceRow, Rows};

mod attribution;
mod bounds;
mod refusals;
mod report;
mod stored;
mod timeline;

pub use report::{Finding, Kind, Report};

use report::Reporter;
use timeline::Timeline;

/// What is to be believed.
#[derive(Debug, Clone)]
pub struct Options {
    /// How far the service's clocks and the clients' may be apart, either way.
    pub clock_tolerance: Duration,
    /// How long after a change that does not widen was answered a refusal may still be in the words of the
    /// version before it. Zero is the contract; doors of other nodes, which are waited for only where a
    /// change widens, keep it to their `door_ttl`.
    pub narrowing_lag: Duration,
    /// Others used the coupons too: rows and versions need no request in the history.
    pub foreign: bool,
    /// Findings of one kind that are shown; the others are counted.
    pub shown_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock_tolerance: Duration::from_millis(250),
            narrowing_lag: Duration::ZERO,
            foreign: false,
            shown_max: 10,
        }
    }
}

/// In place of a request key: none was sent, so the request is one of its own.
const KEYLESS: u32 = u32::MAX;

/// A request for a coupon, sortable: all of a coupon, in it all of a user, in them all of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    coupon: CouponId,
    user: u32,
    key: u32,
    /// Its place in the history.
    place: usize,
}

/// One coupon, with all that is known of it.
#[derive(Debug)]
struct Case<'h> {
    history: &'h [Operation],
    options: &'h Options,
    coupon: &'h CouponRow,
    timeline: Timeline,
    /// Its rows, by sequence and each sequence once.
    rows: Vec<&'h IssuanceRow>,
    /// The users of its rows, and the places of these in `rows`.
    rows_by_user: Vec<(u32, usize)>,
    /// What requests tell about each row.
    facts: Vec<Facts>,
    /// When each row was decided, at the earliest and at the latest.
    bounds: Vec<(i64, i64)>,
}

/// What requests tell about a row: it was decided after `called`, and before `answered`.
#[derive(Debug, Clone, Copy)]
struct Facts {
    called: i64,
    caller: Option<usize>,
    answered: i64,
    answerer: Option<usize>,
    /// The request that was given it.
    given_to: Option<Entry>,
    explained: bool,
}

impl Facts {
    const NONE: Self = Self {
        called: i64::MIN,
        caller: None,
        answered: i64::MAX,
        answerer: None,
        given_to: None,
        explained: false,
    };
}

/// Everything that is wrong with this history and these rows.
pub fn check(history: &[Operation], rows: &Rows, options: &Options) -> Report {
    let mut reporter = Reporter::new(history, options.shown_max);
    let sorted = Sorted::of(history, rows);
    tally(history, &mut reporter);
    let mut coupons: BTreeMap<CouponId, &CouponRow> = BTreeMap::new();
    for coupon in &rows.coupons {
        if coupons
            .insert(coupon.id, coupon)
            .is_some_and(|before| before != coupon)
        {
            reporter.find(
                Kind::VersionsConflict,
                coupon.id,
                || "the coupon is stored twice, differently".to_owned(),
                &[],
                &[],
            );
        }
    }
    for coupon in coupons.values() {
        check_coupon(coupon, history, &sorted, options, &mut reporter);
    }
    check_missing(history, &coupons, &sorted, &mut reporter);
    reporter.report.coupons = coupons.len() as u64;
    reporter.report.issuances = rows.issuances.len() as u64;
    reporter.report
}

/// The history and the rows, by coupon.
#[derive(Debug)]
struct Sorted<'h> {
    entries: Vec<Entry>,
    /// Operations of administrators.
    changes: HashMap<CouponId, Vec<usize>>,
    rows: Vec<(&'h IssuanceRow, u32)>,
}

impl<'h> Sorted<'h> {
    fn of(history: &'h [Operation], rows: &'h Rows) -> Self {
        let (mut users, mut keys) = (Numbers::default(), Numbers::default());
        let mut entries = Vec::new();
        let mut changes: HashMap<CouponId, Vec<usize>> = HashMap::new();
        for (place, operation) in history.iter().enumerate() {
            match operation {
                Operation::Issue(issue) => {
                    let key = issue
                        .key
                        .as_ref()
                        .map_or(KEYLESS, |key| keys.number(key.as_str()));
                    entries.push(Entry {
                        coupon: issue.coupon,
                        user: users.number(issue.user.as_str()),
                        key,
                        place,
                    });
                }
                Operation::Create(_) | Operation::Change(_) => {
                    if let Some(coupon) = operation.coupon() {
                        changes.entry(coupon).or_default().push(place);
                    }
                }
            }
        }
        entries.sort_unstable();
        let mut rows: Vec<_> = rows
            .issuances
            .iter()
            .map(|row| (row, users.number(row.user.as_str())))
            .collect();
        rows.sort_by_key(|(row, _)| (row.id.coupon, row.id.sequence));
        Self {
            entries,
            changes,
            rows,
        }
    }

    fn entries_of(&self, coupon: CouponId) -> &[Entry] {
        let begin = self.entries.partition_point(|entry| entry.coupon < coupon);
        let end = self.entries.partition_point(|entry| entry.coupon <= coupon);
        &self.entries[begin..end]
    }

    fn rows_of(&self, coupon: CouponId) -> &[(&'h IssuanceRow, u32)] {
        let begin = self.rows.partition_point(|(row, _)| row.id.coupon < coupon);
        let end = self.rows.partition_point(|(row, _)| row.id.coupon <= coupon);
        &self.rows[begin..end]
    }
}

/// Numbers for texts, so that they are compared once.
#[derive(Debug, Default)]
struct Numbers<'h>(HashMap<&'h str, u32>);

impl<'h> Numbers<'h> {
    fn number(&mut self, text: &'h str) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(KEYLESS - 1);
        *self.0.entry(text).or_insert(next)
    }
}

fn check_coupon<'h>(
    coupon: &'h CouponRow,
    history: &'h [Operation],
    sorted: &Sorted<'h>,
    options: &'h Options,
    reporter: &mut Reporter<'h>,
) {
    let changes = sorted.changes.get(&coupon.id).map_or(&[][..], Vec::as_slice);
    let entries = sorted.entries_of(coupon.id);
    // What the history does not mention was not its clients' doing.
    let foreign = options.foreign || (changes.is_empty() && entries.is_empty());
    let timeline = Timeline::of(coupon, changes, history, foreign, reporter);
    let (rows, mut rows_by_user) = stored::check(coupon, sorted.rows_of(coupon.id), reporter);
    rows_by_user.sort_unstable();
    let facts = vec![Facts::NONE; rows.len()];
    let mut case = Case {
        history,
        options,
        coupon,
        timeline,
        rows,
        rows_by_user,
        facts,
        bounds: Vec::new(),
    };
    case.attribute(entries, foreign, reporter);
    case.check_order(reporter);
    case.bound(reporter);
    case.check_quantities(reporter);
    case.check_terms(reporter);
    case.check_refusals(entries, reporter);
    case.check_change_refusals(changes, reporter);
}

/// What was told of coupons that are not stored.
fn check_missing(
    history: &[Operation],
    coupons: &BTreeMap<CouponId, &CouponRow>,
    sorted: &Sorted<'_>,
    reporter: &mut Reporter<'_>,
) {
    for (coupon, places) in sorted
        .changes
        .iter()
        .filter(|(coupon, _)| !coupons.contains_key(coupon))
    {
        for place in places {
            if matches!(&history[*place], Operation::Create(create) if matches!(create.answer, CreateAnswer::Created { .. }))
            {
                reporter.find(
                    Kind::CouponLost,
                    *coupon,
                    || "its creation was answered, and it is not stored".to_owned(),
                    &[*place],
                    &[],
                );
            }
        }
    }
    for entry in sorted
        .entries
        .iter()
        .filter(|entry| !coupons.contains_key(&entry.coupon))
    {
        let Operation::Issue(issue) = &history[entry.place] else {
            continue;
        };
        if matches!(
            &issue.answer,
            IssueAnswer::Issued { .. } | IssueAnswer::Refused(_)
        ) && issue.answer != IssueAnswer::Refused(Refusal::UnknownCoupon)
        {
            let message = || "an answer is about a coupon that is not stored".to_owned();
            reporter.find(Kind::NoSuchCoupon, entry.coupon, message, &[entry.place], &[]);
        }
    }
    for (row, _) in sorted
        .rows
        .iter()
        .filter(|(row, _)| !coupons.contains_key(&row.id.coupon))
    {
        reporter.find(
            Kind::NoSuchCoupon,
            row.id.coupon,
            || "a row is of a coupon that is not stored".to_owned(),
            &[],
            &[row],
        );
    }
}

/// Counts answers, for the summary.
fn tally(history: &[Operation], reporter: &mut Reporter<'_>) {
    let mut answers: HashMap<&str, u64> = HashMap::new();
    for operation in history {
        let Operation::Issue(issue) = operation else {
            continue;
        };
        *answers.entry(issue.answer.code()).or_default() += 1;
    }
    reporter.report.answers = answers
        .into_iter()
        .map(|(answer, count)| (answer.to_owned(), count))
        .collect();
}

/// A duration in the unit of every time here.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// When an answer came, or never.
fn answered(answer: Option<Timestamp>) -> i64 {
    answer.map_or(i64::MAX, Timestamp::as_micros)
}

#[cfg(test)]
mod tests;
