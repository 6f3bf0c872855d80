//! Whether each refusal was true at some moment between its call and its answer.

use std::ops::Range;

use crate::rows::Status;

use super::attribution::same_request;
use super::report::{Kind, Reporter};
use super::{Case, Entry, answered, micros};
use crate::history::{Change, ChangeAnswer, Issue, IssueAnswer, Operation, Refusal};
use crate::rows::IssuanceRow;

/// A refusal that is looked at.
#[derive(Debug, Clone, Copy)]
struct Told<'h> {
    issue: &'h Issue,
    refusal: &'h Refusal,
    place: usize,
    user: u32,
    call: i64,
    answer: i64,
}

impl<'h> Case<'h> {
    /// Checks every refusal.
    pub(super) fn check_refusals(&self, entries: &[Entry], reporter: &mut Reporter<'_>) {
        for request in entries.chunk_by(|one, other| one.user == other.user && same_request(one, other)) {
            let attempts = || {
                request
                    .iter()
                    .filter_map(|entry| Some((entry, self.issue(entry.place)?)))
            };
            let issued = attempts().filter(|(_, issue)| matches!(issue.answer, IssueAnswer::Issued { .. }));
            let first = issued
                .map(|(entry, issue)| (answered(issue.span.answer), entry.place))
                .min();
            for (entry, issue) in attempts() {
                let IssueAnswer::Refused(refusal) = &issue.answer else {
                    continue;
                };
                let (call, answer) = (issue.span.call.as_micros(), answered(issue.span.answer));
                let told = Told {
                    issue,
                    refusal,
                    place: entry.place,
                    user: entry.user,
                    call,
                    answer,
                };
                if let Some((_, place)) = first.filter(|(answer, _)| *answer < call) {
                    let message = || "the same request had been given a coupon".to_owned();
                    reporter.find(
                        Kind::Precedence,
                        self.coupon.id,
                        message,
                        &[place, told.place],
                        &[],
                    );
                }
                self.check_refusal(told, reporter);
            }
        }
    }

    fn check_refusal(&self, told: Told<'h>, reporter: &mut Reporter<'_>) {
        match told.refusal {
            Refusal::UnknownCoupon => {
                let by_row = self
                    .coupon
                    .created_at
                    .as_micros()
                    .saturating_add(micros(self.options.clock_tolerance));
                if self.timeline.created_by.min(by_row) < told.call {
                    let message = || "it existed before it was said not to".to_owned();
                    reporter.find(
                        Kind::UntrueUnknownCoupon,
                        self.coupon.id,
                        message,
                        &[told.place],
                        &[],
                    );
                }
            }
            Refusal::AlreadyIssued(issuance) => self.check_already_issued(told, issuance, reporter),
            Refusal::Closed
            | Refusal::Paused
            | Refusal::NotStarted { .. }
            | Refusal::Ended { .. }
            | Refusal::SoldOut { .. } => {
                self.check_by_version(told, reporter);
                self.check_precedence(told, reporter);
            }
        }
    }

    fn check_already_issued(&self, told: Told<'h>, issuance: &IssuanceRow, reporter: &mut Reporter<'_>) {
        let position = self
            .position(issuance.id.sequence)
            .filter(|position| self.rows[*position] == issuance);
        let decided = self
            .positions_of(told.user)
            .filter(|position| self.bounds[*position].0 <= told.answer)
            .count();
        let later = |position: usize| {
            self.positions_of(told.user)
                .find(|other| *other > position && self.facts[*other].answered < told.call)
        };
        let (message, row) = match position {
            None => ("the issuance it names is not stored so", None),
            Some(position) if issuance.user != told.issue.user => {
                ("the issuance it names is another user's", Some(position))
            }
            Some(position) if self.bounds[position].0 > told.answer => {
                ("the issuance it names was decided later", Some(position))
            }
            Some(position) if decided < self.coupon.per_user_limit as usize => {
                ("the user had fewer than allowed", Some(position))
            }
            Some(position) => match later(position) {
                Some(later) => ("the user had a later one", Some(later)),
                None => return,
            },
        };
        let rows: Vec<&IssuanceRow> = row.map(|position| self.rows[position]).into_iter().collect();
        reporter.find(
            Kind::UntrueAlreadyIssued,
            self.coupon.id,
            || message.to_owned(),
            &[told.place],
            &rows,
        );
    }

    /// Some version that may have been in force between call and answer must give this refusal.
    fn check_by_version(&self, told: Told<'h>, reporter: &mut Reporter<'_>) {
        if let Refusal::SoldOut { total_quantity } = told.refusal
            && *total_quantity > self.rows.len() as u64
        {
            let message = || {
                format!(
                    "{total_quantity} were said to be given out, and {} are",
                    self.rows.len()
                )
            };
            return reporter.find(Kind::NotExhausted, self.coupon.id, message, &[told.place], &[]);
        }
        let mut range = self.with_lag(self.timeline.in_force(told.call, told.answer), told.call);
        if range.clone().any(|index| self.gives(index, told, true)) {
            return;
        }
        if (0..range.start).rev().any(|index| self.gives(index, told, false)) {
            let message =
                || "refused by a version that a later one had surely replaced before the call".to_owned();
            return reporter.find(Kind::StaleRefusal, self.coupon.id, message, &[told.place], &[]);
        }
        let early = matches!(told.refusal, Refusal::SoldOut { .. })
            && range.any(|index| self.gives(index, told, false));
        if early && let Refusal::SoldOut { total_quantity } = told.refusal {
            let row: Vec<&IssuanceRow> = self
                .rows
                .get((*total_quantity as usize).saturating_sub(1))
                .copied()
                .into_iter()
                .collect();
            let message = || {
                format!(
                    "the {total_quantity}th was decided after the answer, or after that quantity was in force"
                )
            };
            return reporter.find(Kind::SoldOutTooSoon, self.coupon.id, message, &[told.place], &row);
        }
        let message =
            || "no version that may have been in force between call and answer refuses so".to_owned();
        reporter.find(Kind::UntrueRefusal, self.coupon.id, message, &[told.place], &[]);
    }

    /// The range with those before it that may still be told by [`super::Options::narrowing_lag`].
    fn with_lag(&self, range: Range<usize>, call: i64) -> Range<usize> {
        let lag = micros(self.options.narrowing_lag);
        let versions = &self.timeline.versions;
        let mut start = range.start;
        while lag > 0
            && start > 0
            && versions[start].latest >= call.saturating_sub(lag)
            && !versions[start].may_widen(&versions[start - 1])
        {
            start -= 1;
        }
        start..range.end
    }

    /// Whether this version may give the refusal; `timely`: and at a moment that fits.
    fn gives(&self, index: usize, told: Told<'h>, timely: bool) -> bool {
        let version = &self.timeline.versions[index];
        let tolerance = micros(self.options.clock_tolerance);
        let fits = |time: i64| {
            !timely
                || (told.call.saturating_sub(tolerance)..=told.answer.saturating_add(tolerance))
                    .contains(&time)
        };
        match told.refusal {
            Refusal::Closed => version.status.may(|status| status == Status::Closed),
            Refusal::Paused => version.status.may(|status| status == Status::Paused),
            Refusal::NotStarted {
                starts_at,
                server_time,
            } => {
                version.starts_at.may(|time| time == Some(*starts_at))
                    && server_time < starts_at
                    && fits(server_time.as_micros())
            }
            Refusal::Ended { ends_at, server_time } => {
                version.ends_at.may(|time| time == Some(*ends_at))
                    && server_time >= ends_at
                    && fits(server_time.as_micros())
            }
            Refusal::SoldOut { total_quantity } => {
                let latest = told.answer.min(self.timeline.ended(index));
                version.quantity.may(|quantity| quantity == Some(*total_quantity))
                    && self
                        .may_have_issued(*total_quantity)
                        .is_some_and(|moment| !timely || moment <= latest)
            }
            Refusal::UnknownCoupon | Refusal::AlreadyIssued(_) => true,
        }
    }

    /// No answer that comes first in the contract's table was surely due.
    fn check_precedence(&self, told: Told<'h>, reporter: &mut Reporter<'_>) {
        let had: Vec<usize> = self
            .positions_of(told.user)
            .filter(|position| self.facts[*position].answered < told.call)
            .collect();
        if had.len() >= self.coupon.per_user_limit as usize {
            let rows: Vec<&IssuanceRow> = had.iter().map(|position| self.rows[*position]).collect();
            let message = || {
                "the user had as many as allowed before the call, and was refused for another reason"
                    .to_owned()
            };
            reporter.find(Kind::Precedence, self.coupon.id, message, &[told.place], &rows);
        }
        let tolerance = micros(self.options.clock_tolerance);
        let (from, to) = (
            told.call.saturating_sub(tolerance),
            told.answer.saturating_add(tolerance),
        );
        let mut versions = self
            .with_lag(self.timeline.in_force(told.call, told.answer), told.call)
            .map(|index| &self.timeline.versions[index]);
        let due = match told.refusal {
            Refusal::NotStarted { .. } | Refusal::Ended { .. } => {
                versions.any(|version| version.status.may(|status| status == Status::Open))
            }
            Refusal::SoldOut { .. } => versions.any(|version| version.may_be_live(from, to)),
            Refusal::UnknownCoupon | Refusal::AlreadyIssued(_) | Refusal::Closed | Refusal::Paused => true,
        };
        if !due {
            let message = || {
                "the coupon was not open, or outside its window, all the while: that is to be told first"
                    .to_owned()
            };
            reporter.find(Kind::Precedence, self.coupon.id, message, &[told.place], &[]);
        }
    }

    /// Changes are refused for reasons that were there.
    pub(super) fn check_change_refusals(&self, changes: &[usize], reporter: &mut Reporter<'_>) {
        for place in changes {
            let Operation::Change(call) = &self.history[*place] else {
                continue;
            };
            let ChangeAnswer::NotApplied(code) = &call.answer else {
                continue;
            };
            let (from, to) = (call.span.call.as_micros(), answered(call.span.answer));
            let mut versions = self.timeline.versions[self.timeline.in_force(from, to)].iter();
            let true_enough = match (code.as_str(), &call.change) {
                ("UNKNOWN_COUPON", _) => self.timeline.created_by >= from,
                ("CLOSED", _) => {
                    versions.any(|version| version.status.may(|status| status == Status::Closed))
                }
                ("VERSION_MISMATCH", _) => {
                    versions.any(|version| version.is_gap || Some(version.number) != call.if_match)
                }
                ("QUANTITY_BELOW_ISSUED", Change::Patch(patch)) => patch
                    .total_quantity
                    .flatten()
                    .and_then(|quantity| self.may_have_issued(quantity + 1))
                    .is_some_and(|moment| moment <= to),
                _ => true,
            };
            if !true_enough {
                let message = || format!("{code} was not true between call and answer");
                reporter.find(Kind::UntrueChangeRefusal, self.coupon.id, message, &[*place], &[]);
            }
        }
    }
}
