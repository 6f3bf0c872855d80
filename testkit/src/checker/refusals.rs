//! Checks that each refusal was true at some moment between its call and its answer.

use std::ops::Range;

use crate::rows::Status;

use super::attribution::same_request;
use super::report::{FindingKind, Reporter};
use super::{Attempt, Case, answered, micros};
use crate::history::{Change, ChangeAnswer, Issue, IssueAnswer, Operation, Refusal};
use crate::rows::IssuanceRow;

/// A refused request.
#[derive(Debug, Clone, Copy)]
struct RefusedIssue<'h> {
    issue: &'h Issue,
    refusal: &'h Refusal,
    place: usize,
    user: u32,
    call: i64,
    answer: i64,
}

impl<'h> Case<'h> {
    /// Checks every refusal.
    pub(super) fn check_refusals(&self, attempts: &[Attempt], reporter: &mut Reporter<'_>) {
        for request in attempts.chunk_by(|one, other| one.user == other.user && same_request(one, other)) {
            let issues = || {
                request
                    .iter()
                    .filter_map(|attempt| Some((attempt, self.issue(attempt.place)?)))
            };
            let issued = issues().filter(|(_, issue)| matches!(issue.answer, IssueAnswer::Issued { .. }));
            let first = issued
                .map(|(attempt, issue)| (answered(issue.span.answer), attempt.place))
                .min();
            for (attempt, issue) in issues() {
                let IssueAnswer::Refused(refusal) = &issue.answer else {
                    continue;
                };
                let (call, answer) = (issue.span.call.as_micros(), answered(issue.span.answer));
                let refused = RefusedIssue {
                    issue,
                    refusal,
                    place: attempt.place,
                    user: attempt.user,
                    call,
                    answer,
                };
                if let Some((_, place)) = first.filter(|(answer, _)| *answer < call) {
                    let message = || "the same request had been answered with an issuance".to_owned();
                    reporter.find(
                        FindingKind::Precedence,
                        self.coupon.id,
                        message,
                        &[place, refused.place],
                        &[],
                    );
                }
                self.check_refusal(refused, reporter);
            }
        }
    }

    fn check_refusal(&self, refused: RefusedIssue<'h>, reporter: &mut Reporter<'_>) {
        match refused.refusal {
            Refusal::UnknownCoupon => {
                let by_row = self
                    .coupon
                    .created_at
                    .as_micros()
                    .saturating_add(micros(self.options.clock_tolerance));
                if self.timeline.created_by.min(by_row) < refused.call {
                    let message = || "the coupon existed before the call".to_owned();
                    reporter.find(
                        FindingKind::UntrueUnknownCoupon,
                        self.coupon.id,
                        message,
                        &[refused.place],
                        &[],
                    );
                }
            }
            Refusal::AlreadyIssued(issuance) => self.check_already_issued(refused, issuance, reporter),
            Refusal::Closed
            | Refusal::Paused
            | Refusal::NotStarted { .. }
            | Refusal::Ended { .. }
            | Refusal::SoldOut { .. } => {
                self.check_by_version(refused, reporter);
                self.check_precedence(refused, reporter);
            }
        }
    }

    fn check_already_issued(
        &self,
        refused: RefusedIssue<'h>,
        issuance: &IssuanceRow,
        reporter: &mut Reporter<'_>,
    ) {
        let position = self
            .position(issuance.id.sequence)
            .filter(|position| self.rows[*position] == issuance);
        let decided = self
            .positions_of(refused.user)
            .filter(|position| self.bounds[*position].0 <= refused.answer)
            .count();
        let later = |position: usize| {
            self.positions_of(refused.user)
                .find(|other| *other > position && self.facts[*other].answered < refused.call)
        };
        let (message, row) = match position {
            None => (
                "the issuance in the answer is stored differently or not at all",
                None,
            ),
            Some(position) if issuance.user != refused.issue.user => {
                ("the issuance in the answer is another user's", Some(position))
            }
            Some(position) if self.bounds[position].0 > refused.answer => {
                ("the issuance in the answer was decided later", Some(position))
            }
            Some(position) if decided < self.coupon.per_user_limit as usize => {
                ("the user had fewer than allowed", Some(position))
            }
            Some(position) => match later(position) {
                Some(later) => ("the user had a later issuance", Some(later)),
                None => return,
            },
        };
        let rows: Vec<&IssuanceRow> = row.map(|position| self.rows[position]).into_iter().collect();
        reporter.find(
            FindingKind::UntrueAlreadyIssued,
            self.coupon.id,
            || message.to_owned(),
            &[refused.place],
            &rows,
        );
    }

    /// Checks that this refusal follows from a version that may have been in force between call and answer.
    fn check_by_version(&self, refused: RefusedIssue<'h>, reporter: &mut Reporter<'_>) {
        let mut find = |kind, message: &dyn Fn() -> String, rows: &[&IssuanceRow]| {
            reporter.find(kind, self.coupon.id, message, &[refused.place], rows);
        };
        let returned = self.returned(refused.call).0;
        if let Refusal::SoldOut { total_quantity } = refused.refusal
            && total_quantity.saturating_add(returned) > self.rows.len() as u64
        {
            let message = || {
                format!(
                    "{total_quantity} were issued according to the answer, but {} are stored, and {returned} of them were given back",
                    self.rows.len()
                )
            };
            return find(FindingKind::NotExhausted, &message, &[]);
        }
        let mut range = self.with_lag(self.timeline.in_force(refused.call, refused.answer), refused.call);
        if range.clone().any(|index| self.gives(index, refused, true)) {
            return;
        }
        if (0..range.start)
            .rev()
            .any(|index| self.gives(index, refused, false))
        {
            let message = || "the version that refused was certainly replaced before the call".to_owned();
            return find(FindingKind::StaleRefusal, &message, &[]);
        }
        let early = matches!(refused.refusal, Refusal::SoldOut { .. })
            && range.any(|index| self.gives(index, refused, false));
        if early && let Refusal::SoldOut { total_quantity } = refused.refusal {
            let row: Vec<&IssuanceRow> = self
                .rows
                .get((*total_quantity as usize).saturating_sub(1))
                .copied()
                .into_iter()
                .collect();
            let message = || {
                format!(
                    "issuance {total_quantity} was decided after the answer or after that quantity applied"
                )
            };
            return find(FindingKind::SoldOutTooSoon, &message, &row);
        }
        let message = || "no version that may have been in force gives this refusal".to_owned();
        find(FindingKind::UntrueRefusal, &message, &[]);
    }

    /// Extends the range by earlier versions that [`super::Options::narrowing_lag`] still allows.
    fn with_lag(&self, range: Range<usize>, call: i64) -> Range<usize> {
        let lag = micros(self.options.narrowing_lag);
        let versions = &self.timeline.versions;
        let mut start = range.start;
        while lag > 0
            && start > 0
            && versions[start].latest >= call.saturating_sub(lag)
            && !versions[start..=range.start]
                .iter()
                .any(|version| version.has_widened(&versions[start - 1], call))
        {
            start -= 1;
        }
        start..range.end
    }

    /// True if this version gives the refusal. If `timely` is true, the moment of the refusal must be between
    /// its call and its answer.
    fn gives(&self, index: usize, refused: RefusedIssue<'h>, timely: bool) -> bool {
        let version = &self.timeline.versions[index];
        let tolerance = micros(self.options.clock_tolerance);
        let fits = |time: i64| {
            !timely
                || (refused.call.saturating_sub(tolerance)..=refused.answer.saturating_add(tolerance))
                    .contains(&time)
        };
        match refused.refusal {
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
                let latest = refused.answer.min(self.timeline.ended(index));
                let taken = total_quantity.saturating_add(self.returned(refused.call).0);
                version.quantity.may(|quantity| quantity == Some(*total_quantity))
                    && self
                        .may_have_issued(taken)
                        .is_some_and(|moment| !timely || moment <= latest)
            }
            Refusal::UnknownCoupon | Refusal::AlreadyIssued(_) => true,
        }
    }

    /// Checks that no answer from an earlier row of the contract's table was certainly due instead of this
    /// refusal.
    fn check_precedence(&self, refused: RefusedIssue<'h>, reporter: &mut Reporter<'_>) {
        let had: Vec<usize> = self
            .positions_of(refused.user)
            .filter(|position| self.facts[*position].answered < refused.call)
            .collect();
        if had.len() >= self.coupon.per_user_limit as usize {
            let rows: Vec<&IssuanceRow> = had.iter().map(|position| self.rows[*position]).collect();
            let message = || {
                "before the call the user had as many as allowed, but the refusal has another reason"
                    .to_owned()
            };
            reporter.find(
                FindingKind::Precedence,
                self.coupon.id,
                message,
                &[refused.place],
                &rows,
            );
        }
        let tolerance = micros(self.options.clock_tolerance);
        let (from, to) = (
            refused.call.saturating_sub(tolerance),
            refused.answer.saturating_add(tolerance),
        );
        let mut versions = self
            .with_lag(self.timeline.in_force(refused.call, refused.answer), refused.call)
            .map(|index| &self.timeline.versions[index]);
        let due = match refused.refusal {
            Refusal::NotStarted { .. } | Refusal::Ended { .. } => {
                versions.any(|version| version.status.may(|status| status == Status::Open))
            }
            Refusal::SoldOut { .. } => versions.any(|version| version.may_be_live(from, to)),
            Refusal::UnknownCoupon | Refusal::AlreadyIssued(_) | Refusal::Closed | Refusal::Paused => true,
        };
        if !due {
            let message = || {
                "from call to answer the coupon was closed, paused or outside its window, which takes precedence"
                    .to_owned()
            };
            reporter.find(
                FindingKind::Precedence,
                self.coupon.id,
                message,
                &[refused.place],
                &[],
            );
        }
    }

    /// Checks that each refusal of a change was true between call and answer.
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
            let may_hold = match (code.as_str(), &call.change) {
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
                    .and_then(|quantity| self.may_have_issued(quantity + 1 + self.returned(from).0))
                    .is_some_and(|moment| moment <= to),
                _ => true,
            };
            if !may_hold {
                let message = || format!("{code} was not true between call and answer");
                reporter.find(
                    FindingKind::UntrueChangeRefusal,
                    self.coupon.id,
                    message,
                    &[*place],
                    &[],
                );
            }
        }
    }
}
