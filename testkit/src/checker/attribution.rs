//! Finds the request of each row, and what the request says about the time of the row's decision.

use crate::ids::Sequence;

use super::report::{FindingKind, Reporter};
use super::{Attempt, Case, KEYLESS, answered, micros};
use crate::history::{Issue, IssueAnswer, Operation, Refusal};
use crate::rows::IssuanceRow;

/// What the answers to all attempts of one request say.
#[derive(Debug, Default)]
struct RequestOutcome {
    /// The sequence in the first answer that names a row, and the index of the attempt that got the answer.
    given: Option<(Sequence, usize)>,
    /// An attempt whose answer was not marked as a replay.
    fresh: Option<usize>,
    /// The call time and the index of the first attempt that may have been decided.
    maker: Option<(i64, usize)>,
    /// True if the outcome of an attempt is unknown.
    unknown: bool,
}

impl<'h> Case<'h> {
    /// Returns the request at this index of the history.
    pub(super) fn issue(&self, place: usize) -> Option<&'h Issue> {
        match &self.history[place] {
            Operation::Issue(issue) => Some(issue),
            _ => None,
        }
    }

    /// Returns the index of the row with this sequence.
    pub(super) fn position(&self, sequence: Sequence) -> Option<usize> {
        self.rows
            .binary_search_by_key(&sequence, |row| row.id.sequence)
            .ok()
    }

    /// Returns the indices of this user's rows, by sequence.
    pub(super) fn positions_of(&self, user: u32) -> impl Iterator<Item = usize> + use<'_, 'h> {
        let begin = self.rows_by_user.partition_point(|(other, _)| *other < user);
        self.rows_by_user[begin..]
            .iter()
            .take_while(move |(other, _)| *other == user)
            .map(|(_, position)| *position)
    }

    /// Finds the request of every row.
    pub(super) fn attribute(&mut self, attempts: &[Attempt], foreign: bool, reporter: &mut Reporter<'_>) {
        for of_user in attempts.chunk_by(|one, other| one.user == other.user) {
            let mut open = Vec::new();
            for request in of_user.chunk_by(same_request) {
                let outcome = self.read(request, reporter);
                match outcome.given {
                    Some((sequence, place)) => {
                        self.assign(request[0], sequence, place, &outcome, foreign, reporter);
                    }
                    None if outcome.unknown => open.extend(outcome.maker),
                    None => {}
                }
            }
            self.attribute_rest(of_user, open, foreign, reporter);
        }
        if foreign {
            return;
        }
        for (row, _) in self
            .rows
            .iter()
            .zip(&self.facts)
            .filter(|(_, facts)| !facts.explained)
        {
            reporter.find(
                FindingKind::RowWithoutRequest,
                self.coupon.id,
                || format!("no request of {} asked for {}", row.user, row.id),
                &[],
                &[row],
            );
        }
    }

    /// Reads every attempt of one request.
    fn read(&mut self, request: &[Attempt], reporter: &mut Reporter<'_>) -> RequestOutcome {
        let mut outcome = RequestOutcome::default();
        for attempt in request {
            let Some(issue) = self.issue(attempt.place) else {
                continue;
            };
            let called = (issue.span.call.as_micros(), attempt.place);
            match &issue.answer {
                IssueAnswer::Issued { issuance, replayed } => {
                    outcome.maker = Some(outcome.maker.map_or(called, |maker| maker.min(called)));
                    self.read_issued(issue, issuance, *replayed, attempt.place, &mut outcome, reporter);
                }
                IssueAnswer::Unknown => {
                    outcome.maker = Some(outcome.maker.map_or(called, |maker| maker.min(called)));
                    outcome.unknown = true;
                }
                IssueAnswer::Refused(Refusal::AlreadyIssued(issuance)) => {
                    if let Some(position) = self.position(issuance.id.sequence)
                        && *self.rows[position] == **issuance
                    {
                        self.decided_before(position, issue, attempt.place);
                    }
                }
                IssueAnswer::Refused(_) | IssueAnswer::NotApplied(_) => {}
            }
        }
        outcome
    }

    fn read_issued(
        &mut self,
        issue: &Issue,
        issuance: &IssuanceRow,
        replayed: bool,
        place: usize,
        outcome: &mut RequestOutcome,
        reporter: &mut Reporter<'_>,
    ) {
        let coupon = self.coupon.id;
        if issuance.id.coupon != coupon || issuance.user != issue.user {
            reporter.find(
                FindingKind::AnswerDiffers,
                coupon,
                || "the answer is about another coupon or user than the request".to_owned(),
                &[place],
                &[],
            );
            return;
        }
        match self.position(issuance.id.sequence) {
            None => reporter.find(
                FindingKind::AnsweredNotStored,
                coupon,
                || format!("{} is not stored", issuance.id),
                &[place],
                &[],
            ),
            Some(position) if self.rows[position] != issuance => {
                let message = || format!("{} is stored differently", issuance.id);
                reporter.find(
                    FindingKind::AnswerDiffers,
                    coupon,
                    message,
                    &[place],
                    &[self.rows[position]],
                );
            }
            Some(position) => self.decided_before(position, issue, place),
        }
        match outcome.given {
            Some((sequence, first)) if sequence != issuance.id.sequence => {
                let message = || {
                    format!(
                        "one request was answered with {sequence} and with {}",
                        issuance.id.sequence
                    )
                };
                reporter.find(FindingKind::ReplayDiffers, coupon, message, &[first, place], &[]);
            }
            Some(_) => {}
            None => outcome.given = Some((issuance.id.sequence, place)),
        }
        if !replayed && let Some(first) = outcome.fresh.replace(place) {
            let message = || "two answers to one request are not marked as replays".to_owned();
            reporter.find(FindingKind::ReplayUnmarked, coupon, message, &[first, place], &[]);
        }
    }

    fn decided_before(&mut self, position: usize, issue: &Issue, place: usize) {
        let answer = answered(issue.span.answer);
        let facts = &mut self.facts[position];
        if answer < facts.answered {
            (facts.answered, facts.answerer) = (answer, Some(place));
        }
    }

    /// Records that a request was answered with a row.
    fn assign(
        &mut self,
        attempt: Attempt,
        sequence: Sequence,
        place: usize,
        outcome: &RequestOutcome,
        foreign: bool,
        reporter: &mut Reporter<'_>,
    ) {
        let Some(position) = self.position(sequence) else {
            return;
        };
        let Some(issue) = self.issue(place) else { return };
        if self.rows[position].user != issue.user {
            return;
        }
        if let Some(other) = self.facts[position].given_to {
            let message = || format!("two requests were answered with sequence {sequence}");
            reporter.find(
                FindingKind::AnsweredTwice,
                self.coupon.id,
                message,
                &[other.place, place],
                &[],
            );
            return;
        }
        let facts = &mut self.facts[position];
        facts.given_to = Some(Attempt { place, ..attempt });
        facts.explained = true;
        // A replay may repeat a request of another client.
        if let Some((called, caller)) = outcome.maker.filter(|_| !foreign || outcome.fresh.is_some()) {
            (facts.called, facts.caller) = (called, Some(caller));
        }
    }

    /// Assigns the user's other rows to requests with unknown outcomes. A request must have been sent before
    /// its row was decided.
    fn attribute_rest(
        &mut self,
        of_user: &[Attempt],
        mut open: Vec<(i64, usize)>,
        foreign: bool,
        reporter: &mut Reporter<'_>,
    ) {
        let mut rest: Vec<usize> = self
            .positions_of(of_user[0].user)
            .filter(|position| !self.facts[*position].explained)
            .collect();
        if rest.is_empty() {
            return;
        }
        open.sort_unstable();
        rest.sort_unstable_by_key(|position| self.rows[*position].issued_at);
        let tolerance = micros(self.options.clock_tolerance);
        let mut taken = 0;
        for position in rest {
            let row = self.rows[position];
            self.facts[position].explained = true;
            let called = open
                .partition_point(|(call, _)| *call <= row.issued_at.as_micros().saturating_add(tolerance));
            if taken < called {
                taken += 1;
                // It is unknown which candidate made the row. But the row was decided after the first
                // candidate was sent.
                if !foreign {
                    (self.facts[position].called, self.facts[position].caller) = (open[0].0, Some(open[0].1));
                }
            } else if !foreign {
                let places: Vec<usize> = of_user.iter().map(|attempt| attempt.place).collect();
                let message = || {
                    format!(
                        "{} is stored, but no request of {} can have made it",
                        row.id, row.user
                    )
                };
                reporter.find(
                    FindingKind::RefusedButStored,
                    self.coupon.id,
                    message,
                    &places,
                    &[row],
                );
            }
        }
    }

    /// Checks the order: a request that was answered before another one was sent must have the smaller
    /// sequence.
    pub(super) fn check_order(&self, reporter: &mut Reporter<'_>) {
        let mut latest_call: Option<usize> = None;
        // If many requests overtook one, that is reported as one finding.
        let mut found: Option<usize> = None;
        for (position, facts) in self.facts.iter().enumerate() {
            if let Some(before) = latest_call
                && self.facts[before].called > facts.answered
                && found.replace(before) != Some(before)
            {
                let (first, second) = (self.rows[position], self.rows[before]);
                let message = || format!("{} was answered before {} was requested", first.id, second.id);
                let places: Vec<usize> = [facts.answerer, self.facts[before].caller]
                    .into_iter()
                    .flatten()
                    .collect();
                reporter.find(
                    FindingKind::OutOfOrder,
                    self.coupon.id,
                    message,
                    &places,
                    &[first, second],
                );
            }
            if latest_call.is_none_or(|before| self.facts[before].called < facts.called) {
                latest_call = Some(position);
            }
        }
    }
}

/// True if two attempts of one user belong to one request.
pub(super) fn same_request(one: &Attempt, other: &Attempt) -> bool {
    one.key == other.key && one.key != KEYLESS
}
