//! A coupon whose issuances are used, made by hand. Times are milliseconds after a fixed moment.

use super::world::{World, at, coupon_id, span};
use super::*;
use crate::history::{Quote, QuoteAnswer, Step, StepAnswer, StepCall, StepRefusal};
use crate::ids::{IssuanceId, OrderId, Sequence};
use crate::rows::{Discount, OrderFigures, ShownUse, Terms, UseCounts, UseKind, UseRow, UsedIssuance};

/// The end of use of the issuances.
pub(super) const END: i64 = 50_000;

/// The hold of [`reserve`], in seconds.
pub(super) const HOLD: u32 = 2;

/// A coupon that takes off 15 %, at most 500, of orders from 100. Issuances 1 and 2 are alice's and bob's.
#[derive(Debug, Clone)]
pub(super) struct Shop {
    pub(super) world: World,
}

pub(super) fn order(name: &str) -> OrderId {
    OrderId::parse(name).unwrap()
}

pub(super) fn reserve(name: &str, amount: u64) -> Step {
    Step::Reserve {
        order: order(name),
        amount,
        hold_seconds: HOLD,
    }
}

pub(super) fn redeem(name: &str, amount: Option<u64>) -> Step {
    let order = order(name);
    Step::Redeem { order, amount }
}

pub(super) fn release(name: &str) -> Step {
    Step::Release { order: order(name) }
}

pub(super) fn refund(name: &str) -> Step {
    Step::Refund { order: order(name) }
}

pub(super) fn issuance(sequence: u64) -> IssuanceId {
    IssuanceId {
        coupon: coupon_id(),
        sequence: Sequence::new(sequence),
    }
}

impl Shop {
    pub(super) fn new() -> Self {
        let terms = Terms {
            total_quantity: Some(2),
            use_until: Some(at(END)),
            discount: Some(Discount::Rate(15)),
            max_discount: Some(500),
            min_order_amount: Some(100),
            ..Terms::default()
        };
        let mut world = World::with(terms, 1);
        world.issued(10, 14, "alice", Some("a"), 1);
        world.issued(20, 24, "bob", Some("b"), 2);
        Self { world }
    }

    pub(super) fn used(&mut self) -> &mut Vec<UseRow> {
        &mut self.world.rows.uses
    }

    /// Adds a stored use in the middle of this time.
    pub(super) fn row(&mut self, call: i64, answer: i64, sequence: u64, step: &Step, discount: u64) {
        let now = i64::midpoint(call, answer);
        let before = self.used().iter().rev();
        let before = before.filter(|row| row.issuance == issuance(sequence));
        let known = before
            .clone()
            .find(|row| row.shown.order.as_ref() == step.order());
        let amount = step
            .amount()
            .or(known.and_then(|row| row.shown.figures).map(|f| f.amount));
        let hold = match step {
            Step::Reserve { hold_seconds, .. } => Some(at(now).plus_seconds(*hold_seconds)),
            _ => None,
        };
        let row = UseRow {
            issuance: issuance(sequence),
            number: self.used().len() as u64 + 1,
            shown: ShownUse {
                kind: step.kind(),
                order: step.order().cloned(),
                figures: amount.map(|amount| OrderFigures { amount, discount }),
                hold_until: hold,
                at: at(now),
            },
            returns: matches!(step, Step::Revoke { returns: true }),
            counts: None,
        };
        self.used().push(row);
    }

    /// Adds a use that is stored and answered.
    pub(super) fn made(&mut self, call: i64, answer: i64, sequence: u64, step: &Step, discount: u64) {
        self.row(call, answer, sequence, step, discount);
        let last = self.used().len() - 1;
        self.told(call, answer, sequence, step, last, false);
    }

    /// Adds an answer with a stored use.
    pub(super) fn told(
        &mut self,
        call: i64,
        answer: i64,
        sequence: u64,
        step: &Step,
        row: usize,
        replayed: bool,
    ) {
        let rows = &self.world.rows;
        let stored = rows.issuances.iter().find(|row| row.id == issuance(sequence));
        let used = Box::new(UsedIssuance {
            row: stored.unwrap().clone(),
            latest: Some(rows.uses[row].shown.clone()),
        });
        self.add(
            call,
            Some(answer),
            sequence,
            step,
            StepAnswer::Done { used, replayed },
        );
    }

    pub(super) fn refused(
        &mut self,
        call: i64,
        answer: i64,
        sequence: u64,
        step: &Step,
        refusal: StepRefusal,
    ) {
        self.add(call, Some(answer), sequence, step, StepAnswer::Refused(refusal));
    }

    pub(super) fn lost(&mut self, call: i64, sequence: u64, step: &Step) {
        self.add(call, None, sequence, step, StepAnswer::Unknown);
    }

    pub(super) fn add(
        &mut self,
        call: i64,
        answer: Option<i64>,
        sequence: u64,
        step: &Step,
        told: StepAnswer,
    ) {
        self.world.history.push(Operation::Step(StepCall {
            span: span(call, answer),
            issuance: issuance(sequence),
            step: step.clone(),
            answer: told,
        }));
    }

    pub(super) fn quote(
        &mut self,
        call: i64,
        answer: i64,
        amount: u64,
        discount: u64,
        refused: Option<&str>,
    ) {
        self.world.history.push(Operation::Quote(Quote {
            span: span(call, Some(answer)),
            issuance: issuance(1),
            amount,
            answer: QuoteAnswer::Told {
                amount,
                discount,
                payable: amount.saturating_sub(discount),
                refused: refused.map(str::to_owned),
            },
        }));
    }

    /// Returns the end of the hold of this row.
    pub(super) fn hold(&self, row: usize) -> Timestamp {
        self.world.rows.uses[row].shown.hold_until.unwrap()
    }

    /// Returns a row as answers show it.
    pub(super) fn shown(&self, row: usize) -> Option<Box<ShownUse>> {
        Some(Box::new(self.world.rows.uses[row].shown.clone()))
    }

    /// Reads the coupon when the clock of the service shows `now`, and that of the client `read_at`.
    pub(super) fn read(&mut self, now: Timestamp, read_at: Timestamp) {
        self.world.coupon.uses = Some(shown_counts(&self.world.rows.uses, now));
        self.world.coupon.read_at = Some(read_at);
    }

    /// Checks it. If the coupon was not read, it is read right after the last use.
    pub(super) fn report(&self) -> Report {
        let mut shop = self.clone();
        if shop.world.coupon.uses.is_none() {
            let uses = self.world.rows.uses.iter();
            let last = uses.map(|row| row.shown.at).max().unwrap_or(at(0));
            shop.read(last, last);
        }
        shop.world.report()
    }

    #[track_caller]
    pub(super) fn finds(&self, kind: FindingKind) {
        let report = self.report();
        let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(report.has(kind), "not found: {kind}, but {}", text.join("\n"));
    }

    #[track_caller]
    pub(super) fn is_clean(&self) {
        let report = self.report();
        let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(report.is_clean(), "{}", text.join("\n"));
    }
}

/// Returns what a coupon with these uses shows at this time.
pub(super) fn shown_counts(uses: &[UseRow], now: Timestamp) -> UseCounts {
    let latest: BTreeMap<u64, &UseRow> = uses
        .iter()
        .map(|row| (row.issuance.sequence.get(), row))
        .collect();
    let held = latest.values().filter(|row| row.shown.hold_until > Some(now));
    UseCounts {
        reserved: held.count() as u64,
        ..counts(uses)
    }
}

/// Returns the counts in the last of these rows.
pub(super) fn counts(uses: &[UseRow]) -> UseCounts {
    let latest: BTreeMap<u64, &UseRow> = uses
        .iter()
        .map(|row| (row.issuance.sequence.get(), row))
        .collect();
    let count = |kind| latest.values().filter(|row| row.shown.kind == kind).count() as u64;
    UseCounts {
        reserved: count(UseKind::Reserved),
        redeemed: count(UseKind::Redeemed),
        revoked: count(UseKind::Revoked),
        returned: uses.iter().filter(|row| row.returns).count() as u64,
    }
}
