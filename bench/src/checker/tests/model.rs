//! Random runs of a tiny service that keeps its promises: nothing may be found. With one thing changed,
//! something must be.

use actors::coupon::issued::Issued;
use actors::coupon::ledger::{Changed, Ledger, Verdict};
use actors::coupon::offer::{Coupon, Issuance, Offer, OfferPatch, Status};
use actors::ids::RequestKey;
use actors::owning::message::{self, ChangeOutcome, ChangeRefusal};
use proptest::prelude::*;

use super::super::*;
use super::world::{at, coupon_id, user};
use crate::history::{Change, ChangeAnswer, ChangeCall, Create, Issue, Patch, Span};
use crate::rows::Terms;

/// What a client does.
#[derive(Debug, Clone)]
enum What {
    Issue { user: u8, key: Option<u8> },
    Change(Change),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    DecidedAndLost,
    NeverDecided,
    NotApplied,
}

/// One step: a pause before its call, how long it takes, and when within that it is decided.
#[derive(Debug, Clone)]
struct Step {
    gap_us: i64,
    takes_us: i64,
    decided_percent: i64,
    what: What,
    fate: Fate,
}

fn change() -> impl Strategy<Value = Change> {
    let time = || proptest::option::of((0..150_i64).prop_map(at));
    let patched = |patch: Patch| Change::Patch(patch);
    prop_oneof![
        4 => proptest::option::weighted(0.9, 1..20_u64).prop_map(move |quantity| patched(Patch { total_quantity: Some(quantity), ..Patch::default() })),
        1 => time().prop_map(move |time| patched(Patch { starts_at: Some(time), ..Patch::default() })),
        1 => time().prop_map(move |time| patched(Patch { ends_at: Some(time), ..Patch::default() })),
        1 => proptest::option::of(1..4_u16).prop_map(move |days| patched(Patch { use_within_days: Some(days), ..Patch::default() })),
        2 => Just(Change::Pause),
        4 => Just(Change::Resume),
        1 => Just(Change::Close),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        12 => (0..12_u8, proptest::option::of(0..3_u8)).prop_map(|(user, key)| What::Issue { user, key }),
        1 => change().prop_map(What::Change),
    ];
    let fate = prop_oneof![
        12 => Just(Fate::Answered), 1 => Just(Fate::DecidedAndLost), 1 => Just(Fate::NeverDecided), 1 => Just(Fate::NotApplied)
    ];
    (0..3_000_i64, 0..20_000_i64, 0..=100_i64, what, fate).prop_map(
        |(gap_us, takes_us, decided_percent, what, fate)| Step {
            gap_us,
            takes_us,
            decided_percent,
            what,
            fate,
        },
    )
}

fn patch(patch: &Patch) -> OfferPatch {
    OfferPatch {
        total_quantity: patch.total_quantity,
        starts_at: patch.starts_at,
        ends_at: patch.ends_at,
        use_within_days: patch.use_within_days,
        ..OfferPatch::default()
    }
}

fn row(issuance: &Issuance) -> IssuanceRow {
    IssuanceRow {
        id: issuance.id,
        user: issuance.user.clone(),
        issued_at: issuance.issued_at,
        expires_at: issuance.expires_at,
    }
}

fn coupon_row(coupon: &Coupon, issued: u64) -> CouponRow {
    let Offer {
        total_quantity,
        starts_at,
        ends_at,
        use_within_days,
        ..
    } = coupon.offer;
    CouponRow {
        id: coupon.id,
        terms: Terms {
            total_quantity,
            starts_at,
            ends_at,
            use_within_days,
        },
        per_user_limit: u32::from(coupon.offer.per_user_limit),
        status: coupon.status,
        version: coupon.version,
        issued,
        created_at: coupon.created_at,
    }
}

fn refusal(refusal: message::Refusal) -> Refusal {
    match refusal {
        message::Refusal::UnknownCoupon => Refusal::UnknownCoupon,
        message::Refusal::AlreadyIssued(issuance) => Refusal::AlreadyIssued(Box::new(row(&issuance))),
        message::Refusal::Closed => Refusal::Closed,
        message::Refusal::Paused => Refusal::Paused,
        message::Refusal::NotStarted {
            starts_at,
            server_time,
        } => Refusal::NotStarted {
            starts_at,
            server_time,
        },
        message::Refusal::Ended { ends_at, server_time } => Refusal::Ended { ends_at, server_time },
        message::Refusal::SoldOut { total_quantity } => Refusal::SoldOut { total_quantity },
    }
}

/// The service, and what it has stored.
struct Service {
    ledger: Ledger,
    rows: Rows,
}

impl Service {
    fn new(quantity: Option<u64>, per_user_limit: u8) -> Self {
        let offer = Offer {
            total_quantity: quantity,
            per_user_limit,
            ..Offer::titled("model")
        };
        let coupon = Coupon {
            id: coupon_id(),
            offer,
            status: Status::Open,
            version: 1,
            created_at: at(1),
            updated_at: at(1),
        };
        Self {
            ledger: Ledger::new(coupon, Issued::new(coupon_id())),
            rows: Rows::default(),
        }
    }

    fn issue(&mut self, now: Timestamp, name: u8, key: Option<u8>) -> IssueAnswer {
        let key = key.map_or_else(RequestKey::random, request_key);
        match self.ledger.judge(now, &user_id(name), &key) {
            Verdict::Replay(issuance) => IssueAnswer::Issued {
                issuance: row(&issuance),
                replayed: true,
            },
            Verdict::Refuse(told) => IssueAnswer::Refused(refusal(told)),
            Verdict::Grant => {
                let issuance = row(&self.ledger.issue(now, &user_id(name), &key));
                self.rows.issuances.push(issuance.clone());
                IssueAnswer::Issued {
                    issuance,
                    replayed: false,
                }
            }
        }
    }

    fn change(&mut self, now: Timestamp, change: &Change) -> ChangeAnswer {
        let change = match change {
            Change::Patch(set) => message::Change::Patch(Box::new(patch(set))),
            Change::Pause => message::Change::Pause,
            Change::Resume => message::Change::Resume,
            Change::Close => message::Change::Close,
        };
        let refused = |code: &str| ChangeAnswer::NotApplied(code.to_owned());
        match self.ledger.change(now, &change, None) {
            Changed::Made(done) => ChangeAnswer::Done(coupon_row(&done.coupon, done.issued.get())),
            Changed::Kept(ChangeOutcome::Done(done)) => {
                ChangeAnswer::Done(coupon_row(&done.coupon, done.issued.get()))
            }
            Changed::Kept(ChangeOutcome::Refused(refusal)) => match refusal {
                ChangeRefusal::UnknownCoupon => refused("UNKNOWN_COUPON"),
                ChangeRefusal::VersionMismatch { .. } => refused("VERSION_MISMATCH"),
                ChangeRefusal::Closed => refused("CLOSED"),
                ChangeRefusal::QuantityBelowIssued { .. } => refused("QUANTITY_BELOW_ISSUED"),
                ChangeRefusal::Invalid(_) => refused("INVALID"),
            },
        }
    }
}

fn user_id(number: u8) -> actors::ids::UserId {
    user(&format!("user-{number}"))
}

fn request_key(number: u8) -> RequestKey {
    RequestKey::parse(&format!("key-{number}")).unwrap()
}

/// The operation of one step, decided by the service if its fate is so.
fn carry_out(service: &mut Service, step: &Step, call: i64, decided: i64, skew: i64) -> Operation {
    let time = |micros: i64| Timestamp::from_micros(at(3).as_micros() + micros).unwrap();
    let is_decided = matches!(step.fate, Fate::Answered | Fate::DecidedAndLost);
    let is_answered = matches!(step.fate, Fate::Answered | Fate::NotApplied);
    let span = Span {
        call: time(call),
        answer: is_answered.then(|| time(call + step.takes_us)),
    };
    let now = time(decided + skew);
    match &step.what {
        What::Issue { user, key } => {
            let told = if is_decided {
                service.issue(now, *user, *key)
            } else {
                IssueAnswer::Unknown
            };
            let answer = match step.fate {
                Fate::Answered => told,
                Fate::DecidedAndLost | Fate::NeverDecided => IssueAnswer::Unknown,
                Fate::NotApplied => IssueAnswer::NotApplied("OVERLOADED".to_owned()),
            };
            Operation::Issue(Issue {
                span,
                coupon: coupon_id(),
                user: user_id(*user),
                key: key.map(request_key),
                answer,
            })
        }
        What::Change(change) => {
            let told = if is_decided {
                service.change(now, change)
            } else {
                ChangeAnswer::Unknown
            };
            let answer = match step.fate {
                Fate::Answered => told,
                Fate::DecidedAndLost | Fate::NeverDecided => ChangeAnswer::Unknown,
                Fate::NotApplied => ChangeAnswer::NotApplied("OVERLOADED".to_owned()),
            };
            Operation::Change(ChangeCall {
                span,
                coupon: coupon_id(),
                change: change.clone(),
                if_match: None,
                answer,
            })
        }
    }
}

/// Runs the steps, decided in the order of their moments of decision.
fn run(steps: &[Step], quantity: Option<u64>, limit: u8, skew: i64) -> (Vec<Operation>, Rows) {
    let mut service = Service::new(quantity, limit);
    let coupon = coupon_row(service.ledger.coupon(), 0);
    let made = CreateAnswer::Created {
        coupon,
        replayed: false,
    };
    let mut history = vec![Operation::Create(Create {
        span: Span {
            call: at(0),
            answer: Some(at(2)),
        },
        answer: made,
    })];
    let mut call = 0;
    let mut timed: Vec<(i64, i64, &Step)> = Vec::new();
    for step in steps {
        call += step.gap_us;
        timed.push((call + step.takes_us * step.decided_percent / 100, call, step));
    }
    timed.sort_by_key(|(decided, ..)| *decided);
    history.extend(
        timed
            .into_iter()
            .map(|(decided, call, step)| carry_out(&mut service, step, call, decided, skew)),
    );
    let issued = service.ledger.last().get();
    service
        .rows
        .coupons
        .push(coupon_row(service.ledger.coupon(), issued));
    (history, service.rows)
}

/// One thing changed that no correct service can explain.
fn break_one(history: &mut [Operation], rows: &mut Rows, which: u8, chosen: usize) -> Option<()> {
    let told: Vec<usize> = (0..history.len())
        .filter(|place| matches!(&history[*place], Operation::Issue(issue) if matches!(issue.answer, IssueAnswer::Issued { .. })))
        .collect();
    let place = *told.get(chosen % told.len().max(1))?;
    let Operation::Issue(issue) = &mut history[place] else {
        return None;
    };
    let IssueAnswer::Issued { issuance, .. } = &mut issue.answer else {
        return None;
    };
    let stored = rows.issuances.iter().position(|row| row == issuance)?;
    match which {
        0 => drop(rows.issuances.remove(stored)),
        1 => rows.issuances[stored].user = user("mallory"),
        2 => issuance.id.sequence = issuance.id.sequence.next(),
        3 => issuance.issued_at = Timestamp::from_micros(issuance.issued_at.as_micros() + 1)?,
        4 => {
            let id = actors::ids::IssuanceId {
                coupon: coupon_id(),
                sequence: service_next(rows),
            };
            rows.issuances.push(IssuanceRow {
                id,
                user: user("mallory"),
                issued_at: at(50),
                expires_at: None,
            });
        }
        5 => rows.coupons[0].version += 1_000,
        6 => issue.user = user("mallory"),
        _ => {
            let late = Timestamp::from_micros(at(1_000_000).as_micros())?;
            issue.span = Span {
                call: late,
                answer: Some(late),
            };
            issue.key = None;
            if let IssueAnswer::Issued { replayed, .. } = &mut issue.answer {
                *replayed = false;
            }
        }
    }
    Some(())
}

fn service_next(rows: &Rows) -> actors::ids::Sequence {
    actors::ids::Sequence::new(rows.issuances.len() as u64 + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_correct_run_is_clean(
        steps in proptest::collection::vec(step(), 1..150),
        quantity in proptest::option::weighted(0.9, 1..25_u64),
        limit in 1..3_u8,
        skew in -200_000..200_000_i64,
    ) {
        let (history, rows) = run(&steps, quantity, limit, skew);
        let report = check(&history, &rows, &Options::default());
        let text: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        prop_assert!(report.is_clean(), "{}", text.join("\n"));
    }

    #[test]
    fn a_run_with_one_thing_changed_is_not(
        steps in proptest::collection::vec(step(), 20..80),
        quantity in proptest::option::weighted(0.9, 1..25_u64),
        which in 0..8_u8,
        chosen in any::<usize>(),
    ) {
        let (mut history, mut rows) = run(&steps, quantity, 1, 0);
        if break_one(&mut history, &mut rows, which, chosen).is_some() {
            prop_assert!(!check(&history, &rows, &Options::default()).is_clean(), "change {which} is not seen");
        }
    }
}
