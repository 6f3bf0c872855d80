//! Checks of each answer at the moment it leaves, and of the database at the end.

use std::collections::HashMap;

use actors::coupon::CouponOutcome;
use actors::coupon::change::ChangeOutcome;
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::coupon::offer::{Coupon, Issuance, Status};
use actors::coupon::uses::decide::{Decision, Step, Terms, UseRefusal};
use actors::coupon::uses::latest::Uses;
use actors::coupon::uses::{LatestUse, Use, UseCounts, UseKind, UseOutcome, UsedIssuance};
use actors::ids::{RequestKey, UserId};
use actors::owning::kind::Kind;
use actors::owning::pair::Either::{First, Second};
use actors::time::Timestamp;

use super::node::Both;
use super::world::{Since, Want, World};
use crate::tally::{Add, AddOutcome, TallyId};

impl World {
    /// Checks an answer to a request that was sent when the coupon was this.
    pub(super) fn check(
        &mut self,
        since: Since,
        want: &Want,
        outcome: <Both as Kind>::Outcome,
    ) -> Result<(), String> {
        match (want, outcome) {
            (Want::Issue { coupon, user, key }, First(CouponOutcome::Issue(outcome))) => {
                self.check_issue(*coupon, since, user, key, outcome)
            }
            (Want::Change { coupon, .. }, First(CouponOutcome::Change(outcome))) => {
                self.check_change(*coupon, outcome)
            }
            (Want::Use { coupon, request }, First(CouponOutcome::Use(outcome))) => {
                let id = IssuanceId {
                    coupon: *coupon,
                    sequence: request.sequence,
                };
                self.check_decision(id, since, &request.step, &outcome)?;
                self.check_use(id, outcome)
            }
            (Want::Add { tally, add }, Second(outcome)) => self.check_addition(*tally, add, outcome),
            (_, outcome) => Err(format!("an answer to another question: {outcome:?}")),
        }
    }

    fn check_issue(
        &mut self,
        id: CouponId,
        since: Since,
        user: &UserId,
        key: &RequestKey,
        outcome: IssueOutcome,
    ) -> Result<(), String> {
        let stored = &self.db.issuances[&id];
        let versions = self.db.history[&id].iter();
        let versions: Vec<&Coupon> = versions
            .filter(|coupon| coupon.version >= since.version)
            .collect();
        let is_own = |issuance: &Issuance| stored.contains(issuance) && issuance.user == *user;
        let is_use = |used: &UsedIssuance| {
            let stored = self.db.uses[&id].iter();
            used.latest.as_ref().is_none_or(|latest| {
                stored
                    .clone()
                    .any(|made| made.sequence == used.issuance.id.sequence && made.shown == *latest)
            })
        };
        let is_true = match &outcome {
            IssueOutcome::Issued(issuance) => is_own(issuance) && issuance.key == *key,
            IssueOutcome::Replayed(used) => {
                is_own(&used.issuance) && used.issuance.key == *key && is_use(used)
            }
            IssueOutcome::Refused(Refusal::AlreadyIssued(used)) => is_own(&used.issuance) && is_use(used),
            IssueOutcome::Refused(Refusal::SoldOut { total_quantity }) => {
                let total = Some(*total_quantity);
                let had_it = versions.iter().any(|coupon| coupon.offer.total_quantity == total);
                stored.len() as u64 - since.returned >= *total_quantity && had_it
            }
            IssueOutcome::Refused(Refusal::Paused) => {
                versions.iter().any(|coupon| coupon.status == Status::Paused)
            }
            IssueOutcome::Refused(_) => false,
        };
        match &outcome {
            IssueOutcome::Issued(issuance) => self.answered.push(issuance.clone()),
            IssueOutcome::Replayed(used) => self.answered.push(used.issuance.clone()),
            IssueOutcome::Refused(_) => {}
        }
        let wrong =
            || format!("answered {outcome:?}; stored: {stored:?}; versions since the call: {versions:?}");
        if is_true { Ok(()) } else { Err(wrong()) }
    }

    fn check_change(&self, id: CouponId, outcome: ChangeOutcome) -> Result<(), String> {
        match outcome {
            ChangeOutcome::Done(done) | ChangeOutcome::Replayed(done)
                if !self.db.history[&id].contains(&done.coupon) =>
            {
                Err(format!("answered a change that is not stored: {done:?}"))
            }
            ChangeOutcome::Done(_) | ChangeOutcome::Replayed(_) | ChangeOutcome::Refused(_) => Ok(()),
        }
    }

    fn check_use(&mut self, id: IssuanceId, outcome: UseOutcome) -> Result<(), String> {
        let stored: Vec<&LatestUse> = self.db.uses[&id.coupon]
            .iter()
            .filter(|made| made.sequence == id.sequence)
            .map(|made| &made.shown)
            .collect();
        let told = match &outcome {
            UseOutcome::Done(done) | UseOutcome::Replayed(done) => done.used.latest.clone(),
            UseOutcome::Refused(UseRefusal::Redeemed(latest) | UseRefusal::OrderMismatch(latest)) => {
                Some(LatestUse::clone(latest))
            }
            UseOutcome::Refused(_) => None,
        };
        let is_true = match &outcome {
            UseOutcome::Refused(UseRefusal::Reserved { hold_until }) => {
                stored.iter().any(|made| made.hold_until == Some(*hold_until))
            }
            UseOutcome::Refused(UseRefusal::Revoked) => {
                stored.iter().any(|made| made.kind == UseKind::Revoked)
            }
            _ => told.as_ref().is_none_or(|told| stored.contains(&told)),
        };
        let wrong = || format!("answered {outcome:?}; stored: {stored:?}");
        if !is_true {
            return Err(wrong());
        }
        self.used.extend(told.map(|told| (id, told)));
        Ok(())
    }

    /// Checks that the rules lead to this outcome, at some moment between the request and now. Everything
    /// that the owner had decided before is stored when it answers.
    fn check_decision(
        &self,
        id: IssuanceId,
        since: Since,
        step: &Step,
        outcome: &UseOutcome,
    ) -> Result<(), String> {
        let place = usize::try_from(id.sequence.get()).unwrap() - 1;
        let Some(issuance) = self.db.issuances[&id.coupon].get(place) else {
            let unknown = *outcome == UseOutcome::Refused(UseRefusal::UnknownIssuance);
            return if unknown {
                Ok(())
            } else {
                Err(format!("{outcome:?} of nothing"))
            };
        };
        if *outcome == UseOutcome::Refused(UseRefusal::UnknownIssuance) {
            // It may have been issued since.
            return Ok(());
        }
        let terms = Terms {
            offer: &self.db.coupons[&id.coupon].offer,
            expires_at: issuance.expires_at,
        };
        let now = self.now().timestamp;
        let mut uses = Uses::default();
        let mut decisions = Vec::new();
        for (stored, next) in (0..).zip(self.db.uses[&id.coupon].iter().map(Some).chain([None])) {
            if stored >= since.uses {
                let own = step.order().and_then(|order| uses.by_order(id.sequence, order));
                let latest = uses.latest(id.sequence);
                let decide = |at| terms.decide(latest.as_ref(), own.as_ref(), at, step);
                let until = next.map_or(now, |next| next.shown.at);
                decisions.extend(moments(since.at, until, latest.as_ref()).map(decide));
            }
            if let Some(next) = next {
                uses.push(&next.into()).map_err(|error| error.to_string())?;
            }
        }
        let leads_to = |decision: &Decision| match (decision, outcome) {
            (Decision::Enter(made), UseOutcome::Done(done)) => {
                let told = done.used.latest.as_ref();
                told.is_some_and(|told| {
                    (made.kind, &made.order, made.figures) == (told.kind, &told.order, told.figures)
                })
            }
            (Decision::Replay, UseOutcome::Replayed(_)) => true,
            (Decision::Refuse(refusal), UseOutcome::Refused(told)) => refusal == told,
            _ => false,
        };
        if decisions.iter().any(leads_to) {
            return Ok(());
        }
        let stored = &self.db.uses[&id.coupon];
        Err(format!(
            "answered {outcome:?} to {step:?}, expected one of {decisions:?}; stored: {stored:?}"
        ))
    }

    /// Checks that the stored uses are dense and could have been decided in their order.
    fn check_uses(&self, id: CouponId) -> Result<(), String> {
        let mut latest: HashMap<Sequence, &Use> = HashMap::new();
        let (uses, mut counts) = (&self.db.uses[&id], UseCounts::default());
        for (made, place) in uses.iter().zip(1..) {
            let before = latest.insert(made.sequence, made).map(|before| &before.shown);
            counts = counts.after(
                before.map(|before| before.kind),
                made.shown.kind,
                made.shown.returns,
            );
            let ended = before.and_then(|before| before.hold_until);
            let lapses_at = made.shown.hold_until.or(ended);
            let holds = before.and_then(|before| before.holds(made.shown.at));
            let is_own = before.is_some_and(|before| before.order == made.shown.order);
            let fits = match (made.shown.kind, holds) {
                (UseKind::Reserved | UseKind::Revoked, held) => held.is_none(),
                (UseKind::Redeemed, held) => held.is_none() || held == Some(UseKind::Reserved) && is_own,
                (UseKind::Released, held) => held == Some(UseKind::Reserved) && is_own,
                (UseKind::Refunded, held) => held == Some(UseKind::Redeemed) && is_own,
            };
            let is_issued = made.sequence.get() <= self.db.issuances[&id].len() as u64;
            let is_next = made.number.get() == place && made.counts == counts && made.lapses_at == lapses_at;
            if !is_next || !fits || !is_issued {
                return Err(format!(
                    "{made:?} after {before:?} at place {place}, counts {counts:?}"
                ));
            }
        }
        Ok(())
    }

    fn check_addition(&mut self, id: TallyId, add: &Add, outcome: AddOutcome) -> Result<(), String> {
        let stored = &self.db.additions[&id];
        let total = stored.last().map_or(0, |addition| addition.total);
        let is_true = match &outcome {
            AddOutcome::Added(addition) | AddOutcome::Replayed(addition) => {
                stored.contains(addition) && addition.key == add.key && addition.amount == add.amount
            }
            AddOutcome::BeyondBound { bound } => {
                let is_added = stored.iter().any(|addition| addition.key == add.key);
                total + add.amount > *bound && !is_added
            }
            AddOutcome::UnknownTally => false,
        };
        if let AddOutcome::Added(addition) | AddOutcome::Replayed(addition) = &outcome {
            self.added.push(addition.clone());
        }
        let wrong = || format!("answered {outcome:?} to {add:?}; stored: {stored:?}");
        if is_true { Ok(()) } else { Err(wrong()) }
    }

    pub(super) fn check_end(&self) -> Result<(), String> {
        for (id, rows) in &self.db.issuances {
            let offer = &self.db.coupons[id].offer;
            let mut places = rows.iter().zip(1..);
            let dense = places.all(|(row, place)| row.id.sequence.get() == place);
            self.check_uses(*id)?;
            let within = offer
                .total_quantity
                .is_none_or(|total| rows.len() as u64 <= total + self.db.returned(*id));
            let mut counts: HashMap<&UserId, u32> = HashMap::new();
            rows.iter()
                .for_each(|row| *counts.entry(&row.user).or_default() += 1);
            let limit = offer.per_user_limit.map_or(u32::MAX, u32::from);
            let within_limit = counts.values().all(|count| *count <= limit);
            if !(dense && within && within_limit) {
                let found = format!("dense {dense}, within quantity {within}, within limit {within_limit}");
                return Err(format!("{found}: {rows:?}"));
            }
        }
        for (id, rows) in &self.db.additions {
            let mut total = 0;
            for (row, place) in rows.iter().zip(1..) {
                total += row.amount;
                if (row.number, row.total) != (place, total) || total > self.db.tallies[id].bound {
                    return Err(format!(
                        "{row:?} at place {place} with a total of {total}: {rows:?}"
                    ));
                }
            }
        }
        let lost = self
            .answered
            .iter()
            .find(|issuance| !self.db.issuances[&issuance.id.coupon].contains(issuance));
        if let Some(lost) = lost {
            return Err(format!("answered and not stored: {lost:?}"));
        }
        let is_stored = |(id, told): &&(IssuanceId, LatestUse)| {
            let stored = &self.db.uses[&id.coupon];
            stored
                .iter()
                .any(|made| made.sequence == id.sequence && made.shown == *told)
        };
        if let Some(lost) = self.used.iter().find(|told| !is_stored(told)) {
            return Err(format!("answered and not stored: {lost:?}"));
        }
        let lost = self
            .added
            .iter()
            .find(|addition| !self.db.additions[&addition.tally].contains(addition));
        match lost {
            Some(lost) => Err(format!("answered and not stored: {lost:?}")),
            None => Ok(()),
        }
    }
}

/// Returns moments from `since` to `until` that stand for all of them while this was the latest use: the
/// first, the last, and the one at which a hold lapsed.
fn moments(
    since: Timestamp,
    until: Timestamp,
    latest: Option<&LatestUse>,
) -> impl Iterator<Item = Timestamp> {
    let first = latest.map_or(since, |latest| latest.at.max(since));
    let lapse = latest.and_then(|latest| latest.hold_until);
    let lapse = lapse.filter(|lapse| (first..until).contains(lapse));
    [first, until].into_iter().chain(lapse)
}
