//! What became of a coupon's issuances: the requests of each use, and the time of its decision.
//!
//! - `life`: each use may follow the use before it, and takes off what the coupon defined then;
//! - `steps`: each answer to a step and each quote was true at some moment between its call and its answer.

use hashbrown::HashMap;

use super::answered;
use super::report::{FindingKind, Reporter};
use crate::history::{Operation, Step, StepAnswer, StepCall, StepRefusal};
use crate::ids::Sequence;
use crate::rows::{CouponRow, ShownUse, UseCounts, UseKind, UseRow};
use crate::time::Timestamp;

mod life;
mod moments;
mod quotes;
mod steps;

/// What requests say about a use: it was decided after `called` and before `answered`.
#[derive(Debug, Clone, Copy)]
struct UseFacts {
    called: i64,
    caller: Option<usize>,
    answered: i64,
    answerer: Option<usize>,
    /// The request whose answer shows this use and is not marked as a replay.
    fresh: Option<usize>,
}

/// All uses of one coupon, with everything that is known about them.
#[derive(Debug)]
pub(super) struct Uses<'h> {
    history: &'h [Operation],
    coupon: &'h CouponRow,
    tolerance: i64,
    /// The rows in the order of their numbers, one for each number.
    rows: Vec<&'h UseRow>,
    /// The indices of each issuance's rows.
    lives: HashMap<Sequence, Vec<usize>>,
    facts: Vec<UseFacts>,
    /// The earliest and the latest time at which each row was decided.
    bounds: Vec<(i64, i64)>,
    /// The steps and quotes of this coupon, sorted.
    asked: &'h [Asked],
}

/// The place of a step or quote in the history. The order is by coupon, issuance and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    pub(super) coupon: crate::ids::CouponId,
    pub(super) sequence: Sequence,
    pub(super) place: usize,
}

impl<'h> Uses<'h> {
    /// Finds the request of every use, and the time in which it was decided.
    pub(super) fn of(
        coupon: &'h CouponRow,
        sorted: &[&'h UseRow],
        asked: &'h [Asked],
        history: &'h [Operation],
        tolerance: i64,
        reporter: &mut Reporter<'_>,
    ) -> Self {
        let rows = numbered(coupon, sorted, reporter);
        let mut lives: HashMap<Sequence, Vec<usize>> = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            lives.entry(row.issuance.sequence).or_default().push(index);
        }
        let none = UseFacts {
            called: i64::MIN,
            caller: None,
            answered: i64::MAX,
            answerer: None,
            fresh: None,
        };
        let mut uses = Self {
            history,
            coupon,
            tolerance,
            facts: vec![none; rows.len()],
            bounds: Vec::with_capacity(rows.len()),
            rows,
            lives,
            asked,
        };
        uses.attribute(reporter);
        uses.check_order(reporter);
        uses.bound(reporter);
        uses
    }

    /// Returns two times of each issuance that was given back to the quantity: the earliest time of that, and
    /// the first answer to a revocation that gave it or a later one back. Until then, nodes may refuse based
    /// on the quantity before, even if other answers have shown the revocation.
    pub(super) fn returns(&self) -> Vec<(i64, i64)> {
        let mut told = vec![i64::MAX; self.rows.len()];
        for (_, call) in self.steps() {
            if let (Step::Revoke { returns: true }, StepAnswer::Done { used, .. }) =
                (&call.step, &call.answer)
                && let Some(shown) = &used.latest
                && let Some(index) = self.shown(call.issuance.sequence, shown)
            {
                told[index] = told[index].min(answered(call.span.answer));
            }
        }
        let (mut returns, mut latest) = (Vec::new(), i64::MAX);
        for (index, row) in self.rows.iter().enumerate().rev() {
            latest = latest.min(told[index]);
            if row.returns {
                returns.push((self.bounds[index].0, latest));
            }
        }
        returns.reverse();
        returns
    }

    /// Returns the issuances that have uses, in order.
    pub(super) fn used(&self) -> Vec<Sequence> {
        let mut used: Vec<Sequence> = self.lives.keys().copied().collect();
        used.sort_unstable();
        used
    }

    fn life(&self, sequence: Sequence) -> &[usize] {
        self.lives.get(&sequence).map_or(&[], Vec::as_slice)
    }

    /// Returns the index of the row of this issuance that an answer shows.
    fn shown(&self, sequence: Sequence, shown: &ShownUse) -> Option<usize> {
        let life = self.life(sequence).iter().copied();
        life.rev().find(|index| self.rows[*index].shown == *shown)
    }

    fn steps(&self) -> impl Iterator<Item = (usize, &'h StepCall)> + use<'h> {
        let history = self.history;
        self.asked
            .iter()
            .filter_map(move |asked| match &history[asked.place] {
                Operation::Step(call) => Some((asked.place, call)),
                _ => None,
            })
    }

    /// Stores what answers say about the rows in `facts`.
    fn attribute(&mut self, reporter: &mut Reporter<'_>) {
        for (place, call) in self.steps() {
            match &call.answer {
                StepAnswer::Done { used, replayed } => {
                    let latest = used.latest.as_ref();
                    let index = latest.and_then(|shown| self.shown(call.issuance.sequence, shown));
                    self.read_done(place, call, index, *replayed, reporter);
                }
                StepAnswer::Refused(refusal) => self.read_refused(place, call, refusal),
                // It may even be decided after this answer.
                StepAnswer::Unknown => self.may_have_made(place, call, i64::MAX, |_| true),
                StepAnswer::NotApplied(_) => {}
            }
        }
    }

    fn read_done(
        &mut self,
        place: usize,
        call: &StepCall,
        index: Option<usize>,
        replayed: bool,
        reporter: &mut Reporter<'_>,
    ) {
        let Some(index) = index else {
            // `check_step` reports that no row fits.
            return;
        };
        self.decided_before(index, call, place);
        // The node may have repeated the request to the owner, and only the second one was answered.
        self.may_have_made(place, call, answered(call.span.answer), |_| true);
        if replayed || !fits(&call.step, self.rows[index]) {
            return;
        }
        let facts = &mut self.facts[index];
        if let Some(first) = facts.fresh.replace(place) {
            let message = || "two answers with one use are not marked as replays".to_owned();
            let row = self.rows[index];
            return reporter.find_uses(
                FindingKind::ReplayUnmarked,
                self.coupon.id,
                message,
                &[first, place],
                &[row],
            );
        }
        let call = call.span.call.as_micros();
        (facts.called, facts.caller) = (call, Some(place));
    }

    /// Reads a refusal that rests on a use.
    fn read_refused(&mut self, place: usize, call: &StepCall, refusal: &StepRefusal) {
        let sequence = call.issuance.sequence;
        let index = match refusal {
            StepRefusal::Reserved { hold_until } => {
                let life = self.life(sequence).iter().copied();
                let mut holds = life.filter(|index| self.rows[*index].shown.hold_until == Some(*hold_until));
                holds.next().filter(|_| holds.next().is_none())
            }
            refusal => refusal.shown().and_then(|shown| self.shown(sequence, shown)),
        };
        if let Some(index) = index {
            self.decided_before(index, call, place);
        }
        // The node may have repeated the request to the owner, and the hold of the first one may have lapsed
        // before.
        if matches!(call.step, Step::Reserve { .. }) {
            let until = answered(call.span.answer);
            let lapsed = until.saturating_add(self.tolerance);
            self.may_have_made(place, call, until, |row| {
                row.shown
                    .hold_until
                    .is_some_and(|hold| hold.as_micros() <= lapsed)
            });
        }
    }

    fn decided_before(&mut self, index: usize, call: &StepCall, place: usize) {
        let answer = answered(call.span.answer);
        let facts = &mut self.facts[index];
        if answer < facts.answered {
            (facts.answered, facts.answerer) = (answer, Some(place));
        }
    }

    /// Makes this request the caller of each row that it fits and that was decided by `until`, if no earlier
    /// request is known that may have made the row.
    fn may_have_made(&mut self, place: usize, call: &StepCall, until: i64, may: impl Fn(&UseRow) -> bool) {
        let sent = call.span.call.as_micros();
        let life = self.lives.get(&call.issuance.sequence);
        for index in life.into_iter().flatten() {
            let (row, facts) = (self.rows[*index], &mut self.facts[*index]);
            let at = row.shown.at.as_micros();
            let (from, to) = (
                at.saturating_sub(self.tolerance),
                at.saturating_add(self.tolerance),
            );
            let is_earlier = facts.caller.is_none() || sent < facts.called;
            if facts.fresh.is_none()
                && is_earlier
                && (sent <= to && from <= until)
                && fits(&call.step, row)
                && may(row)
            {
                (facts.called, facts.caller) = (sent, Some(place));
            }
        }
    }

    /// Finds rows that no request asked for.
    pub(super) fn check_requested(&self, reporter: &mut Reporter<'_>) {
        let unasked = self.rows.iter().zip(&self.facts);
        for (row, _) in unasked.filter(|(_, facts)| facts.caller.is_none()) {
            let refused = self.steps().filter(|(_, call)| {
                call.issuance == row.issuance
                    && fits(&call.step, row)
                    && matches!(call.answer, StepAnswer::Refused(_) | StepAnswer::NotApplied(_))
            });
            let places: Vec<usize> = refused.map(|(place, _)| place).collect();
            let (kind, message) = if places.is_empty() {
                (FindingKind::UseWithoutRequest, "no request made it")
            } else {
                (
                    FindingKind::RefusedButStored,
                    "every request that fits it was refused",
                )
            };
            reporter.find_uses(kind, self.coupon.id, || message.to_owned(), &places, &[row]);
        }
    }

    /// Checks the order: a step that was answered before another one was sent must have the smaller number.
    fn check_order(&self, reporter: &mut Reporter<'_>) {
        let mut latest_call: Option<usize> = None;
        // If many steps overtook one, that is reported as one finding.
        let mut found: Option<usize> = None;
        for (index, facts) in self.facts.iter().enumerate() {
            if let Some(before) = latest_call
                && self.facts[before].called > facts.answered
                && found.replace(before) != Some(before)
            {
                let (first, second) = (self.rows[index], self.rows[before]);
                let message = || {
                    format!(
                        "use {} was answered before use {} was requested",
                        first.number, second.number
                    )
                };
                let places: Vec<usize> = [facts.answerer, self.facts[before].caller]
                    .into_iter()
                    .flatten()
                    .collect();
                reporter.find_uses(
                    FindingKind::OutOfOrder,
                    self.coupon.id,
                    message,
                    &places,
                    &[first, second],
                );
            }
            if latest_call.is_none_or(|before| self.facts[before].called < facts.called) {
                latest_call = Some(index);
            }
        }
    }

    /// Narrows the time of every decision as `bounds` does for issuances.
    fn bound(&mut self, reporter: &mut Reporter<'_>) {
        for (row, facts) in self.rows.iter().zip(&self.facts) {
            let at = row.shown.at.as_micros();
            let (from, to) = (
                at.saturating_sub(self.tolerance),
                at.saturating_add(self.tolerance),
            );
            if to < facts.called || from > facts.answered {
                let places: Vec<usize> = [facts.caller, facts.answerer].into_iter().flatten().collect();
                let message = || format!("use {} was not made between its call and its answer", row.number);
                reporter.find_uses(FindingKind::TimeOutside, self.coupon.id, message, &places, &[row]);
                self.bounds.push((facts.called, facts.answered));
            } else {
                self.bounds.push((from.max(facts.called), to.min(facts.answered)));
            }
        }
        let mut earliest = i64::MIN;
        for (from, _) in &mut self.bounds {
            earliest = earliest.max(*from);
            *from = earliest;
        }
        let mut latest = i64::MAX;
        for (_, to) in self.bounds.iter_mut().rev() {
            latest = latest.min(*to);
            *to = latest;
        }
    }

    /// Checks that the counts of the coupon, and those of each row if they are known, agree with the rows. In
    /// those of a row, a hold that has lapsed counts until the next use of its issuance.
    pub(super) fn check_counts(&self, reporter: &mut Reporter<'_>) {
        let mut counts = UseCounts::default();
        let mut before: HashMap<Sequence, UseKind> = HashMap::new();
        for row in &self.rows {
            let kind = row.shown.kind;
            if let Some(before) = before.insert(row.issuance.sequence, kind)
                && let Some(count) = counted(&mut counts, before)
            {
                *count -= 1;
            }
            if let Some(count) = counted(&mut counts, kind) {
                *count += 1;
            }
            counts.returned += u64::from(row.returns);
            if let Some(told) = row.counts.filter(|told| *told != counts) {
                let message = || format!("use {} says {told:?}, but uses say {counts:?}", row.number);
                let kind = FindingKind::UseCountsDiffer;
                reporter.find_uses(kind, self.coupon.id, message, &[], &[row]);
            }
        }
        // The coupon was read after the last use, and some of the holds may have lapsed before.
        let most = UseCounts {
            reserved: self.held_last(),
            ..counts
        };
        let least = self.held_when_read();
        let differs = |told: &UseCounts| {
            let reserved = told.reserved.max(least).min(most.reserved);
            *told != UseCounts { reserved, ..most }
        };
        if let Some(told) = self.coupon.uses.filter(differs) {
            let message = || {
                format!(
                    "the coupon says {told:?}, but its uses at most {most:?}, and {least} reserved or more"
                )
            };
            reporter.find_uses(FindingKind::UseCountsDiffer, self.coupon.id, message, &[], &[]);
        }
    }

    /// Returns how many issuances orders may still have held after the last use.
    fn held_last(&self) -> u64 {
        let last = self.bounds.iter().map(|(from, _)| *from).max();
        self.held_after(last.unwrap_or(i64::MIN).saturating_sub(self.tolerance))
    }

    /// Returns how many issuances orders certainly still held when the coupon was read; 0 if the time of that
    /// was not recorded.
    fn held_when_read(&self) -> u64 {
        let read_at = self.coupon.read_at.map_or(i64::MAX, Timestamp::as_micros);
        self.held_after(read_at.saturating_add(self.tolerance))
    }

    /// Returns how many issuances have a hold as their latest use that ends after this time.
    fn held_after(&self, time: i64) -> u64 {
        let latest = self.lives.values().filter_map(|life| life.last());
        let ends = latest.filter_map(|index| self.rows[*index].shown.hold_until);
        ends.filter(|until| until.as_micros() > time).count() as u64
    }
}

/// Returns the count of issuances whose latest use is of this kind, if they are counted.
fn counted(counts: &mut UseCounts, kind: UseKind) -> Option<&mut u64> {
    match kind {
        UseKind::Reserved => Some(&mut counts.reserved),
        UseKind::Redeemed => Some(&mut counts.redeemed),
        UseKind::Revoked => Some(&mut counts.revoked),
        UseKind::Released | UseKind::Refunded => None,
    }
}

/// Returns the rows of a coupon without repeated numbers. Numbers run 1, 2, 3 … without a gap.
fn numbered<'h>(coupon: &CouponRow, sorted: &[&'h UseRow], reporter: &mut Reporter<'_>) -> Vec<&'h UseRow> {
    let mut rows: Vec<&UseRow> = Vec::with_capacity(sorted.len());
    for row in sorted {
        let last = rows.last().copied();
        let expected = last.map_or(1, |last| last.number + 1);
        let evidence: Vec<&UseRow> = last.into_iter().chain([*row]).collect();
        if last.is_some_and(|last| last.number == row.number) {
            let message = || format!("use {} is stored twice", row.number);
            reporter.find_uses(FindingKind::UseNumberTwice, coupon.id, message, &[], &evidence);
            continue;
        }
        if row.number != expected {
            let message = || format!("use {} is stored where {expected} should be", row.number);
            reporter.find_uses(FindingKind::UseNumberGap, coupon.id, message, &[], &evidence);
        }
        rows.push(row);
    }
    rows
}

/// True if this step may have made this row.
fn fits(step: &Step, row: &UseRow) -> bool {
    let amount = row.shown.figures.map(|figures| figures.amount);
    let returns = matches!(step, Step::Revoke { returns: true });
    step.kind() == row.shown.kind
        && step.order() == row.shown.order.as_ref()
        && step.amount().is_none_or(|asked| amount == Some(asked))
        && returns == row.returns
}

/// Returns the time of a call and its answer.
fn interval(span: crate::history::Span) -> (i64, i64) {
    (span.call.as_micros(), answered(span.answer))
}
