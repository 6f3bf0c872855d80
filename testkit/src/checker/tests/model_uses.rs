//! Random runs of a small, correct service whose issuances are used, in which the checker must find nothing.
//! If one thing in a run is changed, the checker must find something.

use proptest::prelude::*;

use super::shop::{Shop, issuance, order, redeem, refund, release, shown_counts};
use super::world::{self, at};
use super::*;
use crate::history::{Change, Patch, Quote, QuoteAnswer, Step, StepAnswer, StepCall, StepRefusal};
use crate::rows::{Discount, OrderFigures, ShownUse, UseKind, UseRow, UsedIssuance};

/// Milliseconds after the beginning at which the first step is sent. The end of use is near the end of a long
/// run.
const BEGIN: i64 = 38_000;

/// What a client does.
#[derive(Debug, Clone)]
enum What {
    Step(Step),
    Quote(u64),
    Discount(u64),
}

/// The outcome of what a client does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    DecidedAndLost,
    NeverDecided,
}

/// What a client does: the pause before its call, the time from call to answer, and the time of the decision
/// within that.
#[derive(Debug, Clone)]
struct Asks {
    gap_ms: i64,
    takes_ms: i64,
    decided_percent: i64,
    sequence: u64,
    what: What,
    fate: Fate,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop_oneof![Just("o"), Just("p"), Just("q")];
    let amount = || prop_oneof![1 => Just(50_u64), 4 => Just(1_999), 2 => Just(10_000)];
    prop_oneof![
        6 => (name(), amount(), 1..4_u32).prop_map(|(name, amount, hold_seconds)| Step::Reserve { order: order(name), amount, hold_seconds }),
        6 => (name(), proptest::option::of(amount())).prop_map(|(name, amount)| redeem(name, amount)),
        3 => name().prop_map(release),
        3 => name().prop_map(refund),
        1 => any::<bool>().prop_map(|returns| Step::Revoke { returns }),
    ]
}

fn asks() -> impl Strategy<Value = Asks> {
    let what = prop_oneof![
        12 => step().prop_map(What::Step),
        2 => prop_oneof![Just(99_u64), Just(1_999)].prop_map(What::Quote),
        1 => (10..20_u64).prop_map(What::Discount),
    ];
    let fate = prop_oneof![8 => Just(Fate::Answered), 1 => Just(Fate::DecidedAndLost), 1 => Just(Fate::NeverDecided)];
    (0..600_i64, 0..900_i64, 0..=100_i64, 1..3_u64, what, fate).prop_map(
        |(gap_ms, takes_ms, decided_percent, sequence, what, fate)| Asks {
            gap_ms,
            takes_ms,
            decided_percent,
            sequence,
            what,
            fate,
        },
    )
}

/// What a step leads to.
enum Outcome {
    Made(Option<OrderFigures>),
    Replayed,
    Refused(StepRefusal),
}

impl Shop {
    fn life(&self, sequence: u64) -> Vec<UseRow> {
        let uses = self.world.rows.uses.iter();
        uses.filter(|row| row.issuance == issuance(sequence))
            .cloned()
            .collect()
    }

    /// Decides a step as the contract says.
    fn decide(&self, now: Timestamp, sequence: u64, step: &Step) -> Outcome {
        let life = self.life(sequence);
        let latest = life.last();
        let holds = latest.filter(|row| match row.shown.kind {
            UseKind::Reserved => row.shown.hold_until.is_some_and(|until| now < until),
            UseKind::Redeemed | UseKind::Revoked => true,
            UseKind::Released | UseKind::Refunded => false,
        });
        if let Some(repeated) = repeated(&life, holds, step) {
            return repeated;
        }
        if let Some(row) = holds {
            let is_own = step.order().is_some() && row.shown.order.as_ref() == step.order();
            let shown = Some(Box::new(row.shown.clone()));
            match (row.shown.kind, step) {
                (UseKind::Reserved, Step::Redeem { .. } | Step::Release { .. })
                | (UseKind::Redeemed, Step::Refund { .. })
                    if is_own =>
                {
                    return Outcome::Made(row.shown.figures);
                }
                (UseKind::Reserved, Step::Refund { .. }) if is_own => {}
                (UseKind::Revoked, _) => return Outcome::Refused(StepRefusal::Revoked),
                (UseKind::Redeemed, _) => return Outcome::Refused(StepRefusal::Redeemed(shown)),
                _ => {
                    let hold_until = row.shown.hold_until.unwrap();
                    return Outcome::Refused(StepRefusal::Reserved { hold_until });
                }
            }
        }
        let usable_until = self.world.coupon.terms.use_until.unwrap();
        if now >= usable_until {
            return Outcome::Refused(StepRefusal::Expired { usable_until });
        }
        self.of_a_free_one(latest, step)
    }

    fn of_a_free_one(&self, latest: Option<&UseRow>, step: &Step) -> Outcome {
        let lapsed = latest
            .filter(|row| row.shown.kind == UseKind::Reserved && row.shown.order.as_ref() == step.order());
        let fixed = lapsed.and_then(|row| row.shown.figures);
        let amount = step.amount().or(fixed.map(|fixed| fixed.amount));
        match (step, amount) {
            (Step::Revoke { .. }, _) => Outcome::Made(None),
            (Step::Refund { .. }, _) => Outcome::Refused(StepRefusal::NotRedeemed),
            (Step::Release { .. }, _) | (_, None) => Outcome::Refused(StepRefusal::NotReserved),
            (_, Some(amount)) if amount < 100 => Outcome::Refused(StepRefusal::BelowMinimum {
                min_order_amount: 100,
            }),
            (Step::Redeem { .. }, Some(amount)) if fixed.is_some_and(|fixed| fixed.amount == amount) => {
                Outcome::Made(fixed)
            }
            (_, Some(amount)) => Outcome::Made(Some(OrderFigures {
                amount,
                discount: self.discount(amount),
            })),
        }
    }

    fn discount(&self, amount: u64) -> u64 {
        let terms = &self.world.coupon.terms;
        terms.discount.unwrap().of(amount, terms.max_discount)
    }

    /// Takes a step and returns the answer.
    fn take(&mut self, now: Timestamp, sequence: u64, step: &Step) -> StepAnswer {
        let (figures, replayed) = match self.decide(now, sequence, step) {
            Outcome::Refused(refusal) => return StepAnswer::Refused(refusal),
            Outcome::Made(figures) => (Some(figures), false),
            Outcome::Replayed => (None, true),
        };
        if let Some(figures) = figures {
            let number = self.used().len() as u64 + 1;
            let hold = match step {
                Step::Reserve { hold_seconds, .. } => Some(now.plus_seconds(*hold_seconds)),
                _ => None,
            };
            self.used().push(UseRow {
                issuance: issuance(sequence),
                number,
                shown: ShownUse {
                    kind: step.kind(),
                    order: step.order().cloned(),
                    figures,
                    hold_until: hold,
                    at: now,
                },
                returns: matches!(step, Step::Revoke { returns: true }),
                counts: None,
            });
        }
        let latest = self.life(sequence).last().map(|row| row.shown.clone());
        let stored = self.world.rows.issuances.iter();
        let row = stored
            .clone()
            .find(|row| row.id == issuance(sequence))
            .unwrap()
            .clone();
        let used = Box::new(UsedIssuance { row, latest });
        StepAnswer::Done { used, replayed }
    }

    fn quoted(&self, now: Timestamp, sequence: u64, amount: u64) -> QuoteAnswer {
        let step = Step::Reserve {
            order: order("new"),
            amount,
            hold_seconds: 1,
        };
        let (discount, refused) = match self.decide(now, sequence, &step) {
            Outcome::Refused(refusal) => (0, Some(refusal.code().to_owned())),
            _ => (self.discount(amount), None),
        };
        QuoteAnswer::Told {
            amount,
            discount,
            payable: amount - discount,
            refused,
        }
    }
}

/// Returns the answer to a step that was taken before, or that contradicts one.
fn repeated(life: &[UseRow], holds: Option<&UseRow>, step: &Step) -> Option<Outcome> {
    let told = |is_same: bool, row: &UseRow| match is_same {
        true => Outcome::Replayed,
        false => Outcome::Refused(StepRefusal::OrderMismatch(Some(Box::new(row.shown.clone())))),
    };
    if let Step::Revoke { returns } = step {
        let revoked = life.last().filter(|row| row.shown.kind == UseKind::Revoked)?;
        return Some(told(revoked.returns == *returns, revoked));
    }
    let mut own = life
        .iter()
        .rev()
        .filter(|row| row.shown.order.as_ref() == step.order());
    let latest = own.clone().next()?;
    let has = holds.is_some_and(|row| row.number == latest.number);
    let amount = latest.shown.figures.map(|figures| figures.amount);
    let is_same = step.amount().is_none_or(|asked| Some(asked) == amount);
    match (step, latest.shown.kind) {
        (Step::Reserve { .. }, UseKind::Reserved) if has => Some(told(is_same, latest)),
        (Step::Redeem { .. }, UseKind::Redeemed | UseKind::Refunded) => Some(told(is_same, latest)),
        (Step::Reserve { .. }, UseKind::Redeemed) if !is_same => Some(told(false, latest)),
        (Step::Redeem { .. }, UseKind::Reserved) if has && !is_same => Some(told(false, latest)),
        (Step::Release { .. } | Step::Refund { .. }, _) if !has => own
            .find(|row| row.shown.kind == step.kind())
            .map(|_| Outcome::Replayed),
        _ => None,
    }
}

/// Runs what clients do, and reads the coupon `idle_ms` after the last decision. The service decides in the
/// order of the decision times.
fn run(asks: &[Asks], skew: i64, idle_ms: i64) -> Shop {
    let mut shop = Shop::new();
    let mut call = BEGIN;
    let mut timed: Vec<(i64, i64, &Asks)> = Vec::new();
    for ask in asks {
        call += ask.gap_ms;
        timed.push((call + ask.takes_ms * ask.decided_percent / 100, call, ask));
    }
    timed.sort_by_key(|(decided, ..)| *decided);
    let read_at = timed.last().map_or(BEGIN, |(decided, ..)| *decided) + idle_ms;
    for (decided, call, ask) in timed {
        let now = at(decided + skew);
        let is_decided = ask.fate != Fate::NeverDecided;
        let is_answered = ask.fate == Fate::Answered;
        let answer = is_answered.then_some(call + ask.takes_ms);
        let span = world::span(call, answer);
        let id = issuance(ask.sequence);
        match &ask.what {
            What::Step(step) => {
                let told = if is_decided {
                    shop.take(now, ask.sequence, step)
                } else {
                    StepAnswer::Unknown
                };
                shop.world.history.push(Operation::Step(StepCall {
                    span,
                    issuance: id,
                    step: step.clone(),
                    answer: if is_answered { told } else { StepAnswer::Unknown },
                }));
            }
            What::Quote(amount) if is_answered => {
                let answer = shop.quoted(now, ask.sequence, *amount);
                shop.world.history.push(Operation::Quote(Quote {
                    span,
                    issuance: id,
                    amount: *amount,
                    answer,
                }));
            }
            What::Discount(percent) if is_answered => {
                let discount = Some(Some(Some(Discount::Rate(*percent))));
                let patch = Patch {
                    discount,
                    ..Patch::default()
                };
                shop.world.change(call, call + ask.takes_ms, Change::Patch(patch));
            }
            What::Quote(_) | What::Discount(_) => {}
        }
    }
    shop.read(at(read_at + skew), at(read_at));
    shop
}

/// Changes one thing so that no correct service can explain the result; `None` if nothing could be changed.
fn break_one(shop: &mut Shop, which: u8, chosen: usize) -> Option<()> {
    let told: Vec<usize> = (0..shop.world.history.len())
        .filter(|place| {
            matches!(&shop.world.history[*place], Operation::Step(call) if matches!(call.answer, StepAnswer::Done { replayed: false, .. }))
        })
        .collect();
    let place = *told.get(chosen % told.len().max(1))?;
    let Operation::Step(call) = &mut shop.world.history[place] else {
        return None;
    };
    let StepAnswer::Done { used, .. } = &mut call.answer else {
        return None;
    };
    let latest = used.latest.as_mut()?;
    let uses = &mut shop.world.rows.uses;
    let stored = uses.iter().position(|row| row.shown == *latest)?;
    match which {
        0 => drop(uses.remove(stored)),
        1 => uses[stored].shown.figures.as_mut()?.discount += 1,
        2 => latest.figures.as_mut()?.discount += 1,
        3 => {
            uses[stored].shown.order.as_ref()?;
            uses[stored].shown.order = Some(order("other"));
        }
        4 => latest.at = Timestamp::from_micros(latest.at.as_micros() + 1)?,
        5 => shop.world.coupon.uses.as_mut()?.redeemed += 1,
        6 => uses.iter_mut().skip(stored).for_each(|row| row.number += 1),
        7 => {
            let tolerance = shop.world.options.clock_tolerance.as_micros() as i64;
            let read_at = shop.world.coupon.read_at?.as_micros();
            let held = shown_counts(uses, Timestamp::from_micros(read_at + tolerance)?).reserved;
            shop.world.coupon.uses.as_mut()?.reserved = held.checked_sub(1)?;
        }
        _ => {
            let late = at(1_000_000);
            call.span = crate::history::Span {
                call: late,
                answer: Some(late),
            };
        }
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_service_that_is_used_has_no_findings(
        asks in proptest::collection::vec(asks(), 1..40),
        skew in -200..200_i64,
        idle_ms in 0..3_000_i64,
    ) {
        let report = run(&asks, skew, idle_ms).report();
        let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        prop_assert!(report.is_clean(), "{}", text.join("\n"));
    }

    #[test]
    fn one_changed_use_or_answer_is_found(
        asks in proptest::collection::vec(asks(), 1..40),
        which in 0..9_u8,
        chosen in 0..40_usize,
    ) {
        let mut shop = run(&asks, 0, 0);
        if break_one(&mut shop, which, chosen).is_some() {
            prop_assert!(!shop.report().is_clean(), "{:?}", shop.world.rows.uses);
        }
    }
}
