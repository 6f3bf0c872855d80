//! The versions of one coupon, and when each may have been in force.
//!
//! A change takes effect at one moment between its call and its answer. A change without an answer takes
//! effect at any moment after its call, or never. A version in an answer or in the final row is known
//! completely. Other versions can only come from changes without an answer. They form one *gap*, in which
//! each part of the offer may have any value that those changes set.

use std::collections::BTreeMap;
use std::ops::Range;

use smol_str::SmolStr;

use crate::rows::Status;
use crate::time::Timestamp;

use super::report::{FindingKind, Reporter};
use crate::history::{Change, ChangeAnswer, ChangeCall, CreateAnswer, Operation};
use crate::rows::{CouponRow, Discount};

mod terms;

/// The beginning and the end of time, in microseconds.
pub(super) const NEVER: Range<i64> = i64::MIN..i64::MAX;

/// The values that a part of an offer may have.
#[derive(Debug, Clone)]
pub(super) enum Choice<T> {
    Any,
    Of(Vec<T>),
}

impl<T: Clone + PartialEq> Choice<T> {
    pub(super) fn may(&self, fits: impl Fn(T) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Of(values) => values.iter().any(|value| fits(value.clone())),
        }
    }

    fn must(&self, fits: impl Fn(T) -> bool) -> bool {
        match self {
            Self::Any => false,
            Self::Of(values) => values.iter().all(|value| fits(value.clone())),
        }
    }

    fn add(&mut self, value: Option<T>) {
        if let (Self::Of(values), Some(value)) = (self, value)
            && !values.contains(&value)
        {
            values.push(value);
        }
    }
}

/// A version, or a gap between two known versions.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// The number of the version; the first number of a gap.
    pub(super) number: u64,
    /// True if this is a gap, or a version about which nothing is known.
    pub(super) is_gap: bool,
    pub(super) quantity: Choice<Option<u64>>,
    pub(super) starts_at: Choice<Option<Timestamp>>,
    pub(super) ends_at: Choice<Option<Timestamp>>,
    days: Choice<Option<u16>>,
    use_until: Choice<Option<Timestamp>>,
    time_zone: Choice<Option<SmolStr>>,
    discount: Choice<Option<Discount>>,
    max_discount: Choice<Option<u64>>,
    min_order_amount: Choice<Option<u64>>,
    pub(super) status: Choice<Status>,
    /// The earliest moment at which the version may have come into force.
    pub(super) earliest: i64,
    /// The latest moment at which the version may have come into force.
    pub(super) latest: i64,
    /// Time of the first answer to a widening change that shows this version or a later one. Until then,
    /// nodes may refuse based on earlier versions, even if other answers have shown this one.
    widened_by: i64,
}

impl Version {
    fn any(number: u64) -> Self {
        Self {
            number,
            is_gap: true,
            quantity: Choice::Any,
            starts_at: Choice::Any,
            ends_at: Choice::Any,
            days: Choice::Any,
            use_until: Choice::Any,
            time_zone: Choice::Any,
            discount: Choice::Any,
            max_discount: Choice::Any,
            min_order_amount: Choice::Any,
            status: Choice::Any,
            earliest: NEVER.start,
            latest: NEVER.start,
            widened_by: NEVER.end,
        }
    }

    fn known(number: u64, known: &Known<'_>) -> Self {
        let CouponRow { terms, status, .. } = known.row;
        Self {
            number,
            is_gap: false,
            quantity: Choice::Of(vec![terms.total_quantity]),
            starts_at: Choice::Of(vec![terms.starts_at]),
            ends_at: Choice::Of(vec![terms.ends_at]),
            days: Choice::Of(vec![terms.use_within_days]),
            use_until: Choice::Of(vec![terms.use_until]),
            time_zone: Choice::Of(vec![terms.time_zone.clone()]),
            discount: Choice::Of(vec![terms.discount]),
            max_discount: Choice::Of(vec![terms.max_discount]),
            min_order_amount: Choice::Of(vec![terms.min_order_amount]),
            status: Choice::Of(vec![*status]),
            earliest: known.earliest,
            latest: known.latest,
            widened_by: known.widened_by,
        }
    }

    /// Returns the gap that changes without an answer may have made after this version.
    fn gap<'c>(&self, lost: impl Iterator<Item = &'c ChangeCall>, latest: i64) -> Self {
        let mut gap = Self {
            number: self.number + 1,
            is_gap: true,
            latest,
            widened_by: NEVER.end,
            ..self.clone()
        };
        let mut first = NEVER.end;
        for call in lost {
            first = first.min(call.span.call.as_micros());
            match &call.change {
                Change::Patch(patch) => {
                    gap.quantity.add(patch.total_quantity);
                    gap.starts_at.add(patch.starts_at);
                    gap.ends_at.add(patch.ends_at);
                    gap.days.add(patch.use_within_days);
                    gap.use_until.add(patch.use_until);
                    gap.time_zone.add(patch.time_zone.clone());
                    match patch.discount {
                        // A part of the former discount stays.
                        Some(Some(None)) => gap.discount = Choice::Any,
                        discount => gap.discount.add(discount.map(Option::flatten)),
                    }
                    gap.max_discount.add(patch.max_discount);
                    gap.min_order_amount.add(patch.min_order_amount);
                }
                Change::Pause => gap.status.add(Some(Status::Paused)),
                Change::Resume => gap.status.add(Some(Status::Open)),
                Change::Close => gap.status.add(Some(Status::Closed)),
            }
        }
        gap.earliest = self
            .earliest
            .max(if first == NEVER.end { NEVER.start } else { first });
        gap
    }

    /// Returns the maximum number of issuances; `None` if there is no limit or the limit is not known.
    pub(super) fn quantity_max(&self) -> Option<u64> {
        match &self.quantity {
            Choice::Any => None,
            Choice::Of(values) => values
                .iter()
                .copied()
                .collect::<Option<Vec<u64>>>()?
                .into_iter()
                .max(),
        }
    }

    /// True if no refusal based on `before` may be given at this moment or later, because a change to this
    /// version was answered that certainly widened the coupon.
    pub(super) fn has_widened(&self, before: &Self, moment: i64) -> bool {
        if self.widened_by >= moment {
            return false;
        }
        let more =
            |new: Option<u64>, old: Option<u64>| old.is_some_and(|old| new.is_none_or(|new| new > old));
        let earlier = |new: Option<Timestamp>, old: Option<Timestamp>| {
            old.is_some_and(|old| new.is_none_or(|new| new < old))
        };
        let later = |new: Option<Timestamp>, old: Option<Timestamp>| {
            old.is_some_and(|old| new.is_none_or(|new| new > old))
        };
        let opens = || {
            self.status.must(|status| status == Status::Open)
                && before.status.must(|status| status != Status::Open)
        };
        opens()
            || self
                .quantity
                .must(|new| before.quantity.must(|old| more(new, old)))
            || self
                .starts_at
                .must(|new| before.starts_at.must(|old| earlier(new, old)))
            || self
                .ends_at
                .must(|new| before.ends_at.must(|old| later(new, old)))
    }

    /// True if this version may be open, with a window that includes some moment from `from` to `to`.
    pub(super) fn may_be_live(&self, from: i64, to: i64) -> bool {
        self.status.may(|status| status == Status::Open)
            && self
                .starts_at
                .may(|starts| starts.is_none_or(|starts| starts.as_micros() <= to))
            && self
                .ends_at
                .may(|ends| ends.is_none_or(|ends| ends.as_micros() > from))
    }
}

/// A version in an answer or in the final row.
#[derive(Debug)]
struct Known<'h> {
    row: &'h CouponRow,
    earliest: i64,
    latest: i64,
    /// Time of the first answer to a widening change that shows this version.
    widened_by: i64,
    operation: Option<usize>,
}

/// All versions, in order.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) versions: Vec<Version>,
    /// Time by which the coupon certainly existed.
    pub(super) created_by: i64,
}

impl Timeline {
    /// Returns the versions that may have been in force at some moment from `from` to `to`.
    pub(super) fn in_force(&self, from: i64, to: i64) -> Range<usize> {
        let begun = self.versions.partition_point(|version| version.latest < from);
        let end = self.versions.partition_point(|version| version.earliest <= to);
        begun.saturating_sub(1)..end.max(begun.saturating_sub(1))
    }

    /// Returns the latest moment at which this version may have been replaced.
    pub(super) fn ended(&self, index: usize) -> i64 {
        self.versions.get(index + 1).map_or(NEVER.end, |next| next.latest)
    }

    /// Builds the versions from administrators' operations on this coupon and from its final row.
    pub(super) fn of(
        row: &CouponRow,
        operations: &[usize],
        history: &[Operation],
        foreign: bool,
        reporter: &mut Reporter<'_>,
    ) -> Self {
        let mut builder = Builder {
            row,
            history,
            known: BTreeMap::new(),
            lost: Vec::new(),
            reporter,
        };
        builder.read(operations);
        let created_by = builder
            .known
            .values()
            .map(|known| known.latest)
            .min()
            .unwrap_or(NEVER.end);
        builder.read_final_row(foreign);
        let mut versions = builder.versions(foreign);
        builder.narrow(&mut versions);
        Self { versions, created_by }
    }
}

#[derive(Debug)]
struct Builder<'a, 'h, 'r> {
    row: &'h CouponRow,
    history: &'h [Operation],
    known: BTreeMap<u64, Known<'h>>,
    lost: Vec<(usize, &'h ChangeCall)>,
    reporter: &'a mut Reporter<'r>,
}

impl<'h> Builder<'_, 'h, '_> {
    /// Reads every answer.
    fn read(&mut self, operations: &[usize]) {
        for place in operations {
            let span = self.history[*place].span();
            let latest = span.answer.map_or(NEVER.end, Timestamp::as_micros);
            match &self.history[*place] {
                Operation::Create(create) => {
                    if let CreateAnswer::Created { coupon, replayed } = &create.answer {
                        let earliest = if *replayed {
                            NEVER.start
                        } else {
                            span.call.as_micros()
                        };
                        self.see(coupon, earliest, latest, Some(*place));
                    }
                }
                Operation::Change(call) => match &call.answer {
                    ChangeAnswer::Done(coupon) => {
                        self.see(coupon, span.call.as_micros(), latest, Some(*place));
                        if call.change.may_widen()
                            && let Some(known) = self.known.get_mut(&coupon.version)
                        {
                            known.widened_by = known.widened_by.min(latest);
                        }
                        if !shows(&call.change, coupon) {
                            let message = || "the answer to a change does not show the change".to_owned();
                            self.reporter.find(
                                FindingKind::ChangeNotMade,
                                coupon.id,
                                message,
                                &[*place],
                                &[],
                            );
                        }
                    }
                    ChangeAnswer::Unknown => self.lost.push((*place, call)),
                    ChangeAnswer::NotApplied(_) => {}
                },
                Operation::Issue(_) | Operation::Step(_) | Operation::Quote(_) => {}
            }
        }
        // An answer shows the version, but a change without an answer may have made it.
        for (number, known) in self.known.iter_mut().filter(|(number, _)| **number > 1) {
            let makers = self
                .lost
                .iter()
                .filter(|(_, call)| call.if_match.is_none_or(|version| version + 1 == *number));
            let fitting = makers.filter(|(_, call)| shows(&call.change, known.row));
            let first = fitting.map(|(_, call)| call.span.call.as_micros()).min();
            known.earliest = known.earliest.min(first.unwrap_or(NEVER.end));
        }
    }

    fn see(&mut self, row: &'h CouponRow, earliest: i64, latest: i64, operation: Option<usize>) {
        let known = self.known.entry(row.version).or_insert(Known {
            row,
            earliest,
            latest,
            widened_by: NEVER.end,
            operation,
        });
        known.earliest = known.earliest.min(earliest);
        known.latest = known.latest.min(latest);
        if (&known.row.terms, known.row.status, known.row.per_user_limit)
            != (&row.terms, row.status, row.per_user_limit)
        {
            let places: Vec<usize> = [known.operation, operation].into_iter().flatten().collect();
            let message = || {
                format!(
                    "version {} is shown with different contents, one of them {:?}, {:?}",
                    row.version, row.status, row.terms
                )
            };
            self.reporter
                .find(FindingKind::VersionsConflict, row.id, message, &places, &[]);
        }
    }

    /// Reads the final row. It is the last version, and perhaps no answer shows it.
    fn read_final_row(&mut self, foreign: bool) {
        let row = self.row;
        if let Some((last, known)) = self.known.last_key_value()
            && *last > row.version
        {
            let (last, place) = (*last, known.operation);
            let message = || {
                format!(
                    "version {} is stored in the end, but version {last} was answered",
                    row.version
                )
            };
            self.reporter
                .find(FindingKind::ChangeLost, row.id, message, place.as_slice(), &[]);
        }
        let unseen = !self.known.contains_key(&row.version);
        let calls = self
            .lost
            .iter()
            .filter(|(_, call)| shows(&call.change, row))
            .map(|(_, call)| call.span.call.as_micros());
        let first = calls.min();
        if unseen && row.version > 1 && first.is_none() && !foreign && !self.known.is_empty() {
            let message = || {
                format!(
                    "no change in the history made the stored version {}, {:?}, {:?}",
                    row.version, row.status, row.terms
                )
            };
            self.reporter
                .find(FindingKind::ChangeWithoutRequest, row.id, message, &[], &[]);
        }
        if !unseen {
            return self.see(row, NEVER.end, NEVER.end, None);
        }
        // If no request in the history made or changed the coupon, it always had this version.
        let always = row.version == 1 || (!foreign && self.known.is_empty() && self.lost.is_empty());
        let (earliest, latest) = if always {
            (NEVER.start, NEVER.start)
        } else {
            (first.unwrap_or(NEVER.start), NEVER.end)
        };
        self.see(row, earliest, latest, None);
    }

    /// Returns all versions in order, with gaps filled.
    fn versions(&mut self, foreign: bool) -> Vec<Version> {
        let mut versions: Vec<Version> = Vec::new();
        for (number, known) in &self.known {
            let next = Version::known(*number, known);
            match versions.last() {
                None if *number > 1 => versions.push(Version::any(1)),
                Some(before) if number - before.number > 1 => {
                    let lost = || {
                        self.lost
                            .iter()
                            .map(|(_, call)| *call)
                            .filter(|call| call.span.call.as_micros() <= next.latest)
                    };
                    let missing = number - before.number - 1;
                    if missing > lost().count() as u64 && !foreign {
                        let message = || {
                            format!(
                                "no change in the history made {missing} versions before version {number}"
                            )
                        };
                        self.reporter.find(
                            FindingKind::ChangeWithoutRequest,
                            self.row.id,
                            message,
                            known.operation.as_slice(),
                            &[],
                        );
                    }
                    versions.push(if foreign {
                        Version {
                            latest: next.latest,
                            ..Version::any(before.number + 1)
                        }
                    } else {
                        before.gap(lost(), next.latest)
                    });
                }
                None | Some(_) => {}
            }
            versions.push(next);
        }
        versions
    }

    /// Bounds the time of each version by the versions before and after it.
    fn narrow(&mut self, versions: &mut [Version]) {
        let mut earliest = NEVER.start;
        for version in versions.iter_mut() {
            earliest = earliest.max(version.earliest);
            version.earliest = earliest;
        }
        let (mut latest, mut widened_by) = (NEVER.end, NEVER.end);
        for version in versions.iter_mut().rev() {
            latest = latest.min(version.latest);
            version.latest = latest;
            widened_by = widened_by.min(version.widened_by);
            version.widened_by = widened_by;
            if version.earliest > latest {
                let places: Vec<usize> = self
                    .known
                    .get(&version.number)
                    .and_then(|known| known.operation)
                    .into_iter()
                    .collect();
                let message = || {
                    format!(
                        "version {} was answered before it or a former version was requested",
                        version.number
                    )
                };
                self.reporter
                    .find(FindingKind::VersionsConflict, self.row.id, message, &places, &[]);
            }
        }
    }
}

/// True if this coupon shows the change.
pub(super) fn shows(change: &Change, row: &CouponRow) -> bool {
    match change {
        Change::Patch(patch) => terms::shows(patch, &row.terms),
        Change::Pause => row.status == Status::Paused,
        Change::Resume => row.status == Status::Open,
        Change::Close => row.status == Status::Closed,
    }
}
