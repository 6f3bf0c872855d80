//! Which request each row belongs to, and what that says about when it was decided.

use crate::ids::Sequence;

use super::report::{Kind, Reporter};
use super::{Case, Entry, KEYLESS, answered, micros};
use crate::history::{Issue, IssueAnswer, Operation, Refusal};
use crate::rows::IssuanceRow;

/// What all attempts of one request say.
#[derive(Debug, Default)]
struct Attempts {
    /// The row that it was given, by the first answer read.
    given: Option<(Sequence, usize)>,
    /// An answer that did not say that it was a replay.
    fresh: Option<usize>,
    /// The first attempt that may have decided, and when it was called.
    maker: Option<(i64, usize)>,
    /// Whether some attempt was not answered.
    unknown: bool,
}

impl<'h> Case<'h> {
    /// The request at this place; entries are made of requests only.
    pub(super) fn issue(&self, place: usize) -> Option<&'h Issue> {
        match &self.history[place] {
            Operation::Issue(issue) => Some(issue),
            Operation::Create(_) | Operation::Change(_) => None,
        }
    }

    /// Where the row with this sequence is.
    pub(super) fn position(&self, sequence: Sequence) -> Option<usize> {
        self.rows
            .binary_search_by_key(&sequence, |row| row.id.sequence)
            .ok()
    }

    /// The rows of this user, by sequence.
    pub(super) fn positions_of(&self, user: u32) -> impl Iterator<Item = usize> + use<'_, 'h> {
        let begin = self.rows_by_user.partition_point(|(other, _)| *other < user);
        self.rows_by_user[begin..]
            .iter()
            .take_while(move |(other, _)| *other == user)
            .map(|(_, position)| *position)
    }

    /// Finds the request of every row.
    pub(super) fn attribute(&mut self, entries: &[Entry], foreign: bool, reporter: &mut Reporter<'_>) {
        for of_user in entries.chunk_by(|one, other| one.user == other.user) {
            let mut open = Vec::new();
            for request in of_user.chunk_by(same_request) {
                let attempts = self.read(request, reporter);
                match attempts.given {
                    Some((sequence, place)) => {
                        self.give(request[0], sequence, place, &attempts, foreign, reporter)
                    }
                    None if attempts.unknown => open.extend(attempts.maker),
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
                Kind::UnaskedRow,
                self.coupon.id,
                || format!("nobody asked for {} as {}", row.id, row.user),
                &[],
                &[row],
            );
        }
    }

    /// Takes every attempt of one request.
    fn read(&mut self, request: &[Entry], reporter: &mut Reporter<'_>) -> Attempts {
        let mut attempts = Attempts::default();
        for entry in request {
            let Some(issue) = self.issue(entry.place) else {
                continue;
            };
            let called = (issue.span.call.as_micros(), entry.place);
            match &issue.answer {
                IssueAnswer::Issued { issuance, replayed } => {
                    attempts.maker = Some(attempts.maker.map_or(called, |maker| maker.min(called)));
                    self.read_issued(issue, issuance, *replayed, entry.place, &mut attempts, reporter);
                }
                IssueAnswer::Unknown => {
                    attempts.maker = Some(attempts.maker.map_or(called, |maker| maker.min(called)));
                    attempts.unknown = true;
                }
                IssueAnswer::Refused(Refusal::AlreadyIssued(issuance)) => {
                    if let Some(position) = self.position(issuance.id.sequence)
                        && *self.rows[position] == **issuance
                    {
                        self.decided_before(position, issue, entry.place);
                    }
                }
                IssueAnswer::Refused(_) | IssueAnswer::NotApplied(_) => {}
            }
        }
        attempts
    }

    fn read_issued(
        &mut self,
        issue: &Issue,
        issuance: &IssuanceRow,
        replayed: bool,
        place: usize,
        attempts: &mut Attempts,
        reporter: &mut Reporter<'_>,
    ) {
        let coupon = self.coupon.id;
        if issuance.id.coupon != coupon || issuance.user != issue.user {
            reporter.find(
                Kind::ToldOtherwise,
                coupon,
                || "the answer is not what was asked for".to_owned(),
                &[place],
                &[],
            );
            return;
        }
        match self.position(issuance.id.sequence) {
            None => reporter.find(
                Kind::ToldNotStored,
                coupon,
                || format!("{} is not stored", issuance.id),
                &[place],
                &[],
            ),
            Some(position) if self.rows[position] != issuance => {
                let message = || format!("{} is stored otherwise", issuance.id);
                reporter.find(
                    Kind::ToldOtherwise,
                    coupon,
                    message,
                    &[place],
                    &[self.rows[position]],
                );
            }
            Some(position) => self.decided_before(position, issue, place),
        }
        match attempts.given {
            Some((sequence, first)) if sequence != issuance.id.sequence => {
                let message = || {
                    format!(
                        "the same request was given {sequence} and {}",
                        issuance.id.sequence
                    )
                };
                reporter.find(Kind::ReplayDiffers, coupon, message, &[first, place], &[]);
            }
            Some(_) => {}
            None => attempts.given = Some((issuance.id.sequence, place)),
        }
        if !replayed && let Some(first) = attempts.fresh.replace(place) {
            let message = || "the same request was told twice to be the first".to_owned();
            reporter.find(Kind::ReplayUnmarked, coupon, message, &[first, place], &[]);
        }
    }

    fn decided_before(&mut self, position: usize, issue: &Issue, place: usize) {
        let answer = answered(issue.span.answer);
        let facts = &mut self.facts[position];
        if answer < facts.answered {
            (facts.answered, facts.answerer) = (answer, Some(place));
        }
    }

    /// Notes that a request was given a row.
    fn give(
        &mut self,
        entry: Entry,
        sequence: Sequence,
        place: usize,
        attempts: &Attempts,
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
            let message = || format!("two requests were given sequence {sequence}");
            reporter.find(
                Kind::ToldTwice,
                self.coupon.id,
                message,
                &[other.place, place],
                &[],
            );
            return;
        }
        let facts = &mut self.facts[position];
        facts.given_to = Some(Entry { place, ..entry });
        facts.explained = true;
        // A replay may be of a request that others made.
        if let Some((called, caller)) = attempts.maker.filter(|_| !foreign || attempts.fresh.is_some()) {
            (facts.called, facts.caller) = (called, Some(caller));
        }
    }

    /// The user's other rows must be of requests that nobody was answered about, each called before its row
    /// was made.
    fn attribute_rest(
        &mut self,
        of_user: &[Entry],
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
                // Which of them it was is not known: it was not before the first.
                if !foreign {
                    (self.facts[position].called, self.facts[position].caller) = (open[0].0, Some(open[0].1));
                }
            } else if !foreign {
                let places: Vec<usize> = of_user.iter().map(|entry| entry.place).collect();
                let message = || {
                    format!(
                        "{} is stored, and no request of {} can have made it",
                        row.id, row.user
                    )
                };
                reporter.find(Kind::RefusedButStored, self.coupon.id, message, &places, &[row]);
            }
        }
    }

    /// A request that was answered before another was sent has the smaller sequence.
    pub(super) fn check_order(&self, reporter: &mut Reporter<'_>) {
        let mut latest_call: Option<usize> = None;
        // One that was overtaken by everybody is one finding.
        let mut found: Option<usize> = None;
        for (position, facts) in self.facts.iter().enumerate() {
            if let Some(before) = latest_call
                && self.facts[before].called > facts.answered
                && found.replace(before) != Some(before)
            {
                let (first, second) = (self.rows[position], self.rows[before]);
                let message = || format!("{} was answered before {} was asked for", first.id, second.id);
                let places: Vec<usize> = [facts.answerer, self.facts[before].caller]
                    .into_iter()
                    .flatten()
                    .collect();
                reporter.find(
                    Kind::OutOfOrder,
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

/// Whether two entries of one user are attempts of one request.
pub(super) fn same_request(one: &Entry, other: &Entry) -> bool {
    one.key == other.key && one.key != KEYLESS
}
