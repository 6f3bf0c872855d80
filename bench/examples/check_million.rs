//! Times the checker on a correct history of a million operations (or as many as the first argument says):
//! writes it, reads it and checks it.
//!
//! A tenth of the requests is given the coupon, of which a tenth gets no answer, and the rest is refused; the
//! quantity is raised nineteen times.

use std::io::BufReader;
use std::time::{Duration, Instant};

use testkit::checker::{Options, check};
use testkit::history::{
    self, Change, ChangeAnswer, ChangeCall, Create, CreateAnswer, Issue, IssueAnswer, Operation, Patch,
    Refusal, Span, Writer,
};
use testkit::ids::{CouponId, IssuanceId, RequestKey, Sequence, UserId};
use testkit::rows::Status;
use testkit::rows::{CouponRow, IssuanceRow, Rows, Terms};
use testkit::time::Timestamp;

/// 2027-01-15, when the made-up run begins.
const BEGIN_US: i64 = 1_800_000_000_000_000;
/// Between two calls.
const GAP_US: i64 = 20;
/// From a call to its answer.
const TAKES_US: i64 = 4_000;
/// Changes in the run.
const RAISES: u64 = 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let count: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let (history, rows) = run(count).ok_or("an id or a time is out of bounds")?;
    let mut writer = Writer::new(Vec::new());
    let text = timed("write", || {
        history.iter().try_for_each(|operation| writer.write(operation))?;
        Ok::<_, std::io::Error>(writer)
    })?
    .into_inner();
    println!("{:>10} bytes of history", text.len());
    let again: Vec<Operation> = timed("read", || {
        history::read(BufReader::new(&text[..])).collect::<Result<_, _>>()
    })?;
    assert!(again == history);
    let report = timed("check", || {
        check(
            &again,
            &rows,
            &Options {
                clock_tolerance: Duration::from_millis(1),
                ..Options::default()
            },
        )
    });
    print!("{}", bench::verify::rendered(&report));
    Ok(())
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    println!("{:>10.3} s to {what}", begun.elapsed().as_secs_f64());
    done
}

fn span(step: u64, answered: bool) -> Option<Span> {
    let call = BEGIN_US + i64::try_from(step).ok()? * GAP_US;
    let answer = if answered {
        Some(Timestamp::from_micros(call + TAKES_US)?)
    } else {
        None
    };
    Some(Span {
        call: Timestamp::from_micros(call)?,
        answer,
    })
}

/// A history of `count` operations and the rows that it ends in.
fn run(count: u64) -> Option<(Vec<Operation>, Rows)> {
    let id = CouponId::new(42)?;
    let share = count / 10 / RAISES;
    let terms = Terms {
        total_quantity: Some(share),
        starts_at: None,
        ends_at: None,
        use_within_days: None,
    };
    let created_at = Timestamp::from_micros(BEGIN_US)?;
    let mut coupon = CouponRow {
        id,
        terms,
        per_user_limit: 1,
        status: Status::Open,
        version: 1,
        issued: 0,
        created_at,
    };
    let mut history = Vec::new();
    history.push(Operation::Create(Create {
        span: span(0, true)?,
        answer: CreateAnswer::Created {
            coupon: coupon.clone(),
            replayed: false,
        },
    }));
    let mut rows = Rows::default();
    // What overlaps is let pass, so that what is true when a request is made is true for all of it.
    let settle = 2 * TAKES_US.unsigned_abs() / GAP_US.unsigned_abs();
    let mut step = settle;
    for raise in 1..=RAISES {
        for number in 0..count / RAISES {
            step += 1;
            let issued = rows.issuances.len() as u64;
            if issued == raise * share && number == share {
                step += settle;
            }
            let is_given = issued < raise * share;
            let name = if is_given {
                format!("winner-{issued}")
            } else {
                format!("user-{}", number % (count / 100).max(1))
            };
            let key = RequestKey::parse(&format!("key-{step}")).ok()?;
            let at = span(step, true)?;
            let answer = if is_given {
                let id = IssuanceId {
                    coupon: id,
                    sequence: Sequence::new(issued + 1),
                };
                let row = IssuanceRow {
                    id,
                    user: UserId::parse(&name).ok()?,
                    issued_at: at.call,
                    expires_at: None,
                };
                rows.issuances.push(row.clone());
                if number % 10 == 3 {
                    IssueAnswer::Unknown
                } else {
                    IssueAnswer::Issued {
                        issuance: row,
                        replayed: false,
                    }
                }
            } else {
                IssueAnswer::Refused(Refusal::SoldOut {
                    total_quantity: raise * share,
                })
            };
            let at = span(step, answer != IssueAnswer::Unknown)?;
            history.push(Operation::Issue(Issue {
                span: at,
                coupon: id,
                user: UserId::parse(&name).ok()?,
                key: Some(key),
                answer,
            }));
        }
        if raise < RAISES {
            step += settle;
            coupon.version += 1;
            coupon.terms.total_quantity = Some((raise + 1) * share);
            let change = Change::Patch(Patch {
                total_quantity: Some(coupon.terms.total_quantity),
                ..Patch::default()
            });
            let answer = ChangeAnswer::Done(coupon.clone());
            history.push(Operation::Change(ChangeCall {
                span: span(step, true)?,
                coupon: id,
                change,
                if_match: None,
                answer,
            }));
            step += settle;
        }
    }
    coupon.issued = rows.issuances.len() as u64;
    rows.coupons.push(coupon);
    Some((history, rows))
}
