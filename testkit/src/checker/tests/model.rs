//! Random runs of a small, correct service, in which the checker must find nothing. If one thing in a run is
//! changed, the checker must find something.

use proptest::prelude::*;

use super::super::*;
use super::world::{at, coupon_id, user};
use crate::history::{Change, ChangeAnswer, ChangeCall, Create, Issue, Patch, Span};
use crate::ids::{IssuanceId, RequestKey, Sequence, UserId};
use crate::rows::{Status, Terms};

/// What a client does.
#[derive(Debug, Clone)]
enum What {
    Issue { user: u8, key: Option<u8> },
    Change(Change),
}

/// The outcome of what a client does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    DecidedAndLost,
    NeverDecided,
    NotApplied,
}

/// One step: the pause before its call, the time from call to answer, and when within that time the service
/// decides.
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

/// The simplest correct service, with one coupon.
struct Service {
    coupon: CouponRow,
    rows: Rows,
    /// Each request's user and key, with the index of its row.
    requests: Vec<(u8, u8, usize)>,
}

impl Service {
    fn new(total_quantity: Option<u64>, per_user_limit: u8) -> Self {
        let terms = Terms {
            total_quantity,
            ..Terms::default()
        };
        Self {
            coupon: CouponRow {
                id: coupon_id(),
                terms,
                per_user_limit: u32::from(per_user_limit),
                status: Status::Open,
                version: 1,
                issued: 0,
                created_at: at(1),
                uses: None,
                read_at: None,
            },
            rows: Rows::default(),
            requests: Vec::new(),
        }
    }

    fn issue(&mut self, now: Timestamp, name: u8, key: Option<u8>) -> IssueAnswer {
        let known = |(user, known, _): &&(u8, u8, usize)| (*user, Some(*known)) == (name, key);
        if let Some((.., place)) = self.requests.iter().find(known) {
            return IssueAnswer::Issued {
                issuance: self.rows.issuances[*place].clone(),
                replayed: true,
            };
        }
        if let Some(refusal) = self.refusal(now, &user_id(name)) {
            return IssueAnswer::Refused(refusal);
        }
        self.coupon.issued += 1;
        let issuance = IssuanceRow {
            id: IssuanceId {
                coupon: coupon_id(),
                sequence: Sequence::new(self.coupon.issued),
            },
            user: user_id(name),
            issued_at: now,
            expires_at: self.coupon.terms.use_within_days.map(|days| now.plus_days(days)),
        };
        self.requests
            .extend(key.map(|key| (name, key, self.rows.issuances.len())));
        self.rows.issuances.push(issuance.clone());
        IssueAnswer::Issued {
            issuance,
            replayed: false,
        }
    }

    fn refusal(&self, now: Timestamp, user: &UserId) -> Option<Refusal> {
        let terms = &self.coupon.terms;
        let mut own = self.rows.issuances.iter().filter(|row| row.user == *user);
        if own.clone().count() >= self.coupon.per_user_limit as usize {
            return own
                .next_back()
                .map(|row| Refusal::AlreadyIssued(Box::new(row.clone())));
        }
        match self.coupon.status {
            Status::Closed => return Some(Refusal::Closed),
            Status::Paused => return Some(Refusal::Paused),
            Status::Open => {}
        }
        if let Some(starts_at) = terms.starts_at.filter(|starts_at| now < *starts_at) {
            let server_time = now;
            return Some(Refusal::NotStarted {
                starts_at,
                server_time,
            });
        }
        if let Some(ends_at) = terms.ends_at.filter(|ends_at| now >= *ends_at) {
            let server_time = now;
            return Some(Refusal::Ended { ends_at, server_time });
        }
        let total_quantity = terms
            .total_quantity
            .filter(|total| self.coupon.issued >= *total)?;
        Some(Refusal::SoldOut { total_quantity })
    }

    fn change(&mut self, change: &Change) -> ChangeAnswer {
        let refused = |code: &str| ChangeAnswer::NotApplied(code.to_owned());
        let mut next = self.coupon.clone();
        match change {
            Change::Patch(patch) => {
                let terms = &mut next.terms;
                terms.total_quantity = patch.total_quantity.unwrap_or(terms.total_quantity);
                terms.starts_at = patch.starts_at.unwrap_or(terms.starts_at);
                terms.ends_at = patch.ends_at.unwrap_or(terms.ends_at);
                terms.use_within_days = patch.use_within_days.unwrap_or(terms.use_within_days);
            }
            Change::Pause => next.status = Status::Paused,
            Change::Resume => next.status = Status::Open,
            Change::Close => next.status = Status::Closed,
        }
        if next == self.coupon {
            return ChangeAnswer::Done(Box::new(next));
        }
        if self.coupon.status == Status::Closed {
            return refused("CLOSED");
        }
        if next.terms.total_quantity.is_some_and(|total| total < next.issued) {
            return refused("QUANTITY_BELOW_ISSUED");
        }
        let window = next.terms.starts_at.zip(next.terms.ends_at);
        if window.is_some_and(|(starts_at, ends_at)| starts_at >= ends_at) {
            return refused("INVALID");
        }
        next.version += 1;
        self.coupon = next.clone();
        ChangeAnswer::Done(Box::new(next))
    }
}

fn user_id(number: u8) -> UserId {
    user(&format!("user-{number}"))
}

fn request_key(number: u8) -> RequestKey {
    RequestKey::parse(&format!("key-{number}")).unwrap()
}

/// Carries out one step, and returns its operation. The fate of the step says whether the service decides it
/// and whether an answer comes.
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
                service.change(change)
            } else {
                ChangeAnswer::Unknown
            };
            let answer = match step.fate {
                Fate::Answered => told,
                Fate::DecidedAndLost | Fate::NeverDecided => ChangeAnswer::Unknown,
                Fate::NotApplied => ChangeAnswer::NotApplied("OVERLOADED".to_owned()),
            };
            Operation::Change(Box::new(ChangeCall {
                span,
                coupon: coupon_id(),
                change: change.clone(),
                if_match: None,
                answer,
            }))
        }
    }
}

/// Runs the steps. The service decides them in the order of their decision times.
fn run(steps: &[Step], quantity: Option<u64>, limit: u8, skew: i64) -> (Vec<Operation>, Rows) {
    let mut service = Service::new(quantity, limit);
    let coupon = Box::new(service.coupon.clone());
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
    service.rows.coupons.push(service.coupon);
    (history, service.rows)
}

/// Changes one thing so that no correct service can explain the result; `None` if nothing could be changed.
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
        2 => issuance.id.sequence = Sequence::new(issuance.id.sequence.get() + 1),
        3 => issuance.issued_at = Timestamp::from_micros(issuance.issued_at.as_micros() + 1)?,
        4 => {
            let id = IssuanceId {
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

fn service_next(rows: &Rows) -> Sequence {
    Sequence::new(rows.issuances.len() as u64 + 1)
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
    fn a_run_with_one_thing_changed_is_not_clean(
        steps in proptest::collection::vec(step(), 20..80),
        quantity in proptest::option::weighted(0.9, 1..25_u64),
        which in 0..8_u8,
        chosen in any::<usize>(),
    ) {
        let (mut history, mut rows) = run(&steps, quantity, 1, 0);
        if break_one(&mut history, &mut rows, which, chosen).is_some() {
            prop_assert!(!check(&history, &rows, &Options::default()).is_clean(), "change {which} is not found");
        }
    }
}
