//! Times how long it takes to write, read and check a correct history. The history has a million operations,
//! or as many as the first argument says.
//!
//! A tenth of the requests get a coupon, and a tenth of those requests get no answer. The other requests are
//! refused. The quantity is raised nineteen times.

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

/// The beginning of the synthetic run, 2027-01-15.
const BEGIN_US: i64 = 1_800_000_000_000_000;
/// Time between two calls.
const GAP_US: i64 = 20;
/// Time from a call to its answer.
const TAKES_US: i64 = 4_000;
/// Number of versions of the coupon.
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

/// A history that grows, with the rows that are stored so far.
struct Run {
    history: Vec<Operation>,
    rows: Rows,
    coupon: CouponRow,
    /// The quantity of the first version. Each raise adds the same number.
    share: u64,
    step: u64,
}

/// Makes a history of `count` operations and its rows.
fn run(count: u64) -> Option<(Vec<Operation>, Rows)> {
    let mut run = Run::new(count / 10 / RAISES)?;
    // There are pauses around changes and before the first refusal. So what an answer says is true from the
    // request's call on.
    let settle = 2 * TAKES_US.unsigned_abs() / GAP_US.unsigned_abs();
    run.step = settle;
    for raise in 1..=RAISES {
        for number in 0..count / RAISES {
            run.step += 1;
            if run.issued() == raise * run.share && number == run.share {
                run.step += settle;
            }
            run.issue(number, raise * run.share, count)?;
        }
        if raise < RAISES {
            run.step += settle;
            run.raise((raise + 1) * run.share)?;
            run.step += settle;
        }
    }
    run.coupon.issued = run.issued();
    run.rows.coupons.push(run.coupon);
    Some((run.history, run.rows))
}

impl Run {
    fn new(share: u64) -> Option<Self> {
        let coupon = CouponRow {
            id: CouponId::new(42)?,
            terms: Terms {
                total_quantity: Some(share),
                ..Terms::default()
            },
            per_user_limit: 1,
            status: Status::Open,
            version: 1,
            issued: 0,
            created_at: Timestamp::from_micros(BEGIN_US)?,
            uses: None,
            read_at: None,
        };
        let create = Create {
            span: span(0, true)?,
            answer: CreateAnswer::Created {
                coupon: Box::new(coupon.clone()),
                replayed: false,
            },
        };
        Some(Self {
            history: vec![Operation::Create(create)],
            rows: Rows::default(),
            coupon,
            share,
            step: 0,
        })
    }

    fn issued(&self) -> u64 {
        self.rows.issuances.len() as u64
    }

    /// Adds a request. It gets a coupon while fewer than `total_quantity` are issued.
    fn issue(&mut self, number: u64, total_quantity: u64, count: u64) -> Option<()> {
        let issued = self.issued();
        let name = match issued < total_quantity {
            true => format!("winner-{issued}"),
            false => format!("user-{}", number % (count / 100).max(1)),
        };
        let user = UserId::parse(&name).ok()?;
        let answer = if issued < total_quantity {
            let issuance = IssuanceRow {
                id: IssuanceId {
                    coupon: self.coupon.id,
                    sequence: Sequence::new(issued + 1),
                },
                user: user.clone(),
                issued_at: span(self.step, true)?.call,
                expires_at: None,
            };
            self.rows.issuances.push(issuance.clone());
            match number % 10 == 3 {
                true => IssueAnswer::Unknown,
                false => IssueAnswer::Issued {
                    issuance,
                    replayed: false,
                },
            }
        } else {
            IssueAnswer::Refused(Refusal::SoldOut { total_quantity })
        };
        self.history.push(Operation::Issue(Issue {
            span: span(self.step, answer != IssueAnswer::Unknown)?,
            coupon: self.coupon.id,
            user,
            key: Some(RequestKey::parse(&format!("key-{}", self.step)).ok()?),
            answer,
        }));
        Some(())
    }

    /// Adds a change of the quantity.
    fn raise(&mut self, total_quantity: u64) -> Option<()> {
        self.coupon.version += 1;
        self.coupon.terms.total_quantity = Some(total_quantity);
        let change = Change::Patch(Patch {
            total_quantity: Some(Some(total_quantity)),
            ..Patch::default()
        });
        self.history.push(Operation::Change(Box::new(ChangeCall {
            span: span(self.step, true)?,
            coupon: self.coupon.id,
            change,
            if_match: None,
            answer: ChangeAnswer::Done(Box::new(self.coupon.clone())),
        })));
        Some(())
    }
}
