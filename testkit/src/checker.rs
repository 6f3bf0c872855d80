//! Decides whether what clients saw and what is stored can come from a service that keeps its promises.
//!
//! [`check`] is a pure function from a history, the final rows and [`Options`] to a [`Report`]. It does not
//! know how the service works, only what the service promises:
//! - `stored`: the rows alone — sequences 1…n, the quantity, the per-user limit;
//! - `attribution`: every 201 is stored as it was answered, every row was requested, replays are equal,
//!   and sequences are in the order of arrival;
//! - `timeline`: the versions of the coupon and when each may have been in force, from administrators'
//!   calls and answers;
//! - `bounds`: the earliest and the latest time of each decision, and whether a version of the coupon allowed
//!   the decision then;
//! - `refusals`: each refusal was true at some moment between its call and its answer;
//! - `uses`: what became of the issuances, checked in the same manner.
//!
//! In doubt the checker decides in the service's favour, so that a finding is always a fault of the service,
//! of the clocks ([`Options::clock_tolerance`]) or of the record. Two kinds of faults are therefore *not*
//! found: faults within overlapping calls, and faults that an operation without an answer could explain.
//!
//! The time of a decision is bounded exactly by client times, and within the tolerance by `issued_at`.
//! Everything is sorted once, so the cost is n log n. A refusal is also compared with every version that may
//! have been in force between its call and its answer, but there are only a few such versions.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::CouponId;
use crate::time::Timestamp;
use hashbrown::HashMap;

use crate::history::{
    CreateAnswer, IssueAnswer, Operation, Quote, Refusal, StepAnswer, StepCall, StepRefusal,
};
use crate::rows::{CouponRow, IssuanceRow, Rows, UseRow};

mod attribution;
mod bounds;
mod refusals;
mod report;
mod stored;
mod timeline;
mod uses;

pub use report::{Finding, FindingKind, Report};

use report::Reporter;
use timeline::Timeline;
use uses::{Asked, Uses};

/// What the checker assumes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest difference between the service's clocks and the clients', in either direction.
    pub clock_tolerance: Duration,
    /// How long refusals may still follow from the former version after the answer to a change that does not
    /// widen the coupon. The contract says zero for one node. The doors of other nodes may lag by their
    /// `door_ttl`, because only a widening change waits for doors.
    pub narrowing_lag: Duration,
    /// True if other clients used the coupons too. Rows and versions then need no request in the history.
    pub foreign: bool,
    /// Maximum number of findings of one kind that are shown. Further findings are only counted.
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

/// Stands for the key of a request that was sent without one. Two such requests are never the same.
const KEYLESS: u32 = u32::MAX;

/// One attempt of a request for a coupon. Attempts are sorted by coupon, user, key and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    coupon: CouponId,
    user: u32,
    key: u32,
    /// The index of the attempt's operation in the history.
    place: usize,
}

/// One coupon, with everything that is known about it.
#[derive(Debug)]
struct Case<'h> {
    history: &'h [Operation],
    options: &'h Options,
    coupon: &'h CouponRow,
    timeline: Timeline,
    /// The coupon's rows in the order of their sequences, one for each sequence.
    rows: Vec<&'h IssuanceRow>,
    /// The user of each row with the index of the row in `rows`, sorted.
    rows_by_user: Vec<(u32, usize)>,
    /// The earliest and the latest time at which issuances were given back to the quantity, in order.
    returns: Vec<(i64, i64)>,
    /// What requests say about each row.
    facts: Vec<Facts>,
    /// The earliest and the latest time at which each row was decided.
    bounds: Vec<(i64, i64)>,
}

/// What requests say about a row: it was decided after `called` and before `answered`.
#[derive(Debug, Clone, Copy)]
struct Facts {
    called: i64,
    caller: Option<usize>,
    answered: i64,
    answerer: Option<usize>,
    /// The attempt that was answered with the row.
    given_to: Option<Attempt>,
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

/// Finds everything that is wrong with a history and the final rows.
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
                FindingKind::VersionsConflict,
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
    reporter.report.uses = rows.uses.len() as u64;
    reporter.report
}

/// The history and the rows, sorted by coupon.
#[derive(Debug)]
struct Sorted<'h> {
    attempts: Vec<Attempt>,
    /// Indices of administrators' operations.
    changes: HashMap<CouponId, Vec<usize>>,
    /// Steps and quotes.
    asked: Vec<Asked>,
    rows: Vec<(&'h IssuanceRow, u32)>,
    uses: Vec<&'h UseRow>,
}

impl<'h> Sorted<'h> {
    fn of(history: &'h [Operation], rows: &'h Rows) -> Self {
        let (mut users, mut keys) = (Numbers::default(), Numbers::default());
        let mut attempts = Vec::new();
        let mut changes: HashMap<CouponId, Vec<usize>> = HashMap::new();
        let mut asked = Vec::new();
        for (place, operation) in history.iter().enumerate() {
            match operation {
                Operation::Issue(issue) => {
                    let key = issue
                        .key
                        .as_ref()
                        .map_or(KEYLESS, |key| keys.number(key.as_str()));
                    attempts.push(Attempt {
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
                Operation::Step(StepCall { issuance, .. }) | Operation::Quote(Quote { issuance, .. }) => {
                    asked.push(Asked {
                        coupon: issuance.coupon,
                        sequence: issuance.sequence,
                        place,
                    });
                }
            }
        }
        attempts.sort_unstable();
        asked.sort_unstable();
        let mut uses: Vec<&UseRow> = rows.uses.iter().collect();
        uses.sort_by_key(|row| (row.issuance.coupon, row.number));
        let mut rows: Vec<_> = rows
            .issuances
            .iter()
            .map(|row| (row, users.number(row.user.as_str())))
            .collect();
        rows.sort_by_key(|(row, _)| (row.id.coupon, row.id.sequence));
        Self {
            attempts,
            changes,
            asked,
            rows,
            uses,
        }
    }

    fn attempts_of(&self, coupon: CouponId) -> &[Attempt] {
        let begin = self.attempts.partition_point(|attempt| attempt.coupon < coupon);
        let end = self.attempts.partition_point(|attempt| attempt.coupon <= coupon);
        &self.attempts[begin..end]
    }

    fn asked_of(&self, coupon: CouponId) -> &[Asked] {
        let begin = self.asked.partition_point(|asked| asked.coupon < coupon);
        let end = self.asked.partition_point(|asked| asked.coupon <= coupon);
        &self.asked[begin..end]
    }

    fn uses_of(&self, coupon: CouponId) -> &[&'h UseRow] {
        let begin = self.uses.partition_point(|row| row.issuance.coupon < coupon);
        let end = self.uses.partition_point(|row| row.issuance.coupon <= coupon);
        &self.uses[begin..end]
    }

    fn rows_of(&self, coupon: CouponId) -> &[(&'h IssuanceRow, u32)] {
        let begin = self.rows.partition_point(|(row, _)| row.id.coupon < coupon);
        let end = self.rows.partition_point(|(row, _)| row.id.coupon <= coupon);
        &self.rows[begin..end]
    }
}

/// Gives each text a number, so that only numbers are sorted and compared.
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
    sorted: &'h Sorted<'h>,
    options: &'h Options,
    reporter: &mut Reporter<'h>,
) {
    let changes = sorted.changes.get(&coupon.id).map_or(&[][..], Vec::as_slice);
    let attempts = sorted.attempts_of(coupon.id);
    // If the history does not mention the coupon, other clients used it.
    let foreign = options.foreign || (changes.is_empty() && attempts.is_empty());
    let timeline = Timeline::of(coupon, changes, history, foreign, reporter);
    let asked = sorted.asked_of(coupon.id);
    let tolerance = micros(options.clock_tolerance);
    let uses = Uses::of(
        coupon,
        sorted.uses_of(coupon.id),
        asked,
        history,
        tolerance,
        reporter,
    );
    let is_used_by_others = options.foreign || (foreign && asked.is_empty());
    if !is_used_by_others {
        uses.check_requested(reporter);
    }
    uses.check_counts(reporter);
    let returns = uses.returns();
    let (rows, mut rows_by_user) =
        stored::check(coupon, returns.len() as u64, sorted.rows_of(coupon.id), reporter);
    rows_by_user.sort_unstable();
    let facts = vec![Facts::NONE; rows.len()];
    let mut case = Case {
        history,
        options,
        coupon,
        timeline,
        rows,
        rows_by_user,
        returns,
        facts,
        bounds: Vec::new(),
    };
    case.attribute(attempts, foreign, reporter);
    case.check_order(reporter);
    case.bound(reporter);
    case.check_quantities(reporter);
    case.check_terms(reporter);
    case.check_refusals(attempts, reporter);
    case.check_change_refusals(changes, reporter);
    case.check_uses(&uses, asked, reporter);
}

impl Case<'_> {
    /// Checks all uses, steps and quotes.
    fn check_uses(&self, uses: &Uses<'_>, asked: &[Asked], reporter: &mut Reporter<'_>) {
        let issuance = |sequence| self.position(sequence).map(|position| self.rows[position]);
        for sequence in uses.used() {
            uses.check_life(sequence, issuance(sequence), &self.timeline, reporter);
        }
        for Asked { sequence, place, .. } in asked {
            let position = self.position(*sequence);
            let known_by = position.map_or(i64::MAX, |position| self.facts[position].answered);
            uses.check_step(*place, issuance(*sequence), known_by, &self.timeline, reporter);
            uses.check_quote(*place, issuance(*sequence), &self.timeline, reporter);
        }
    }
}

/// Finds answers and rows of coupons that are not stored.
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
                    FindingKind::CouponLost,
                    *coupon,
                    || "its creation was answered, but the coupon is not stored".to_owned(),
                    &[*place],
                    &[],
                );
            }
        }
    }
    for attempt in sorted
        .attempts
        .iter()
        .filter(|attempt| !coupons.contains_key(&attempt.coupon))
    {
        let Operation::Issue(issue) = &history[attempt.place] else {
            continue;
        };
        if matches!(
            &issue.answer,
            IssueAnswer::Issued { .. } | IssueAnswer::Refused(_)
        ) && issue.answer != IssueAnswer::Refused(Refusal::UnknownCoupon)
        {
            let message = || "an answer is about a coupon that is not stored".to_owned();
            reporter.find(
                FindingKind::NoSuchCoupon,
                attempt.coupon,
                message,
                &[attempt.place],
                &[],
            );
        }
    }
    check_missing_uses(history, coupons, sorted, reporter);
    for (row, _) in sorted
        .rows
        .iter()
        .filter(|(row, _)| !coupons.contains_key(&row.id.coupon))
    {
        reporter.find(
            FindingKind::NoSuchCoupon,
            row.id.coupon,
            || "a row is of a coupon that is not stored".to_owned(),
            &[],
            &[row],
        );
    }
}

/// Finds answers about uses, and uses, of coupons that are not stored.
fn check_missing_uses(
    history: &[Operation],
    coupons: &BTreeMap<CouponId, &CouponRow>,
    sorted: &Sorted<'_>,
    reporter: &mut Reporter<'_>,
) {
    for asked in sorted
        .asked
        .iter()
        .filter(|asked| !coupons.contains_key(&asked.coupon))
    {
        let is_known = matches!(&history[asked.place], Operation::Step(call) if match &call.answer {
            StepAnswer::Done { .. } => true,
            StepAnswer::Refused(refusal) => *refusal != StepRefusal::UnknownIssuance,
            StepAnswer::NotApplied(_) | StepAnswer::Unknown => false,
        });
        if is_known {
            let message = || "an answer is about a coupon that is not stored".to_owned();
            let kind = FindingKind::NoSuchCoupon;
            reporter.find(kind, asked.coupon, message, &[asked.place], &[]);
        }
    }
    for row in sorted
        .uses
        .iter()
        .filter(|row| !coupons.contains_key(&row.issuance.coupon))
    {
        let message = || "a use is of a coupon that is not stored".to_owned();
        let kind = FindingKind::NoSuchCoupon;
        reporter.find_uses(kind, row.issuance.coupon, message, &[], &[*row]);
    }
}

/// Counts answers by their codes; those about uses with the name of the step.
fn tally(history: &[Operation], reporter: &mut Reporter<'_>) {
    let mut answers: HashMap<(&str, &str), u64> = HashMap::new();
    for operation in history {
        let answer = match operation {
            Operation::Create(_) | Operation::Change(_) => continue,
            Operation::Issue(issue) => ("", issue.answer.code()),
            Operation::Step(call) => (call.step.name(), call.answer.code()),
            Operation::Quote(quote) => ("quote", quote.answer.code()),
        };
        *answers.entry(answer).or_default() += 1;
    }
    let name = |step: &str, code: &str| match step {
        "" => code.to_owned(),
        step => format!("{step} {code}"),
    };
    reporter.report.answers = answers
        .into_iter()
        .map(|((step, code), count)| (name(step, code), count))
        .collect();
}

/// Returns a duration in microseconds, the unit of all times in the checker.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Returns the time of an answer; the largest number if there was no answer.
fn answered(answer: Option<Timestamp>) -> i64 {
    answer.map_or(i64::MAX, Timestamp::as_micros)
}

#[cfg(test)]
mod tests;
