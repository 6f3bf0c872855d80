//! One measurement of a contender, and its trial before the checker.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use testkit::checker::{self, Options, Report};
use testkit::history::file::HistoryFile;
use testkit::history::{self, InputError, IssueAnswer, Operation, Refusal};
use testkit::ids::CouponId;
use testkit::rows::Rows;

use super::contender::{ADMIN_TOKEN, ProcessIds, Running};
use super::order::Order;
use super::verdict::{CouponCount, Verdict};
use crate::compare::processor_time;
use crate::load::Failed;
use crate::load::arrivals::{Bounds, Pace};
use crate::load::coupons::{self, Wanted};
use crate::load::crowd::{Crowd, Users};
use crate::load::drive::{Plan, Run, drive};
use crate::load::flags::target;
use crate::load::virtual_users::VirtualUsers;

/// How long an answer may take: longer than rivals wait for a lock, so that their own answer is seen.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The figures of one measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Figures {
    pub(super) answers_per_second: f64,
    /// Rows over the time until the last of them was stored.
    pub(super) issued_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// Requests without an answer, or with a status of 500 or more.
    pub(super) failures: u64,
    pub(super) rows: u64,
    /// Processor time in milliseconds for 1,000 rows.
    pub(super) service_ms: f64,
    pub(super) database_ms: f64,
    pub(super) redis_ms: f64,
}

/// How much load there is.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Number of requests, or their duration.
    pub bounds: Bounds,
    /// Requests in a million that come from earlier users.
    pub repeats_ppm: u32,
}

/// The coupons of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coupons {
    pub(super) count: u64,
    /// The quantity of each; `None` is no limit.
    pub(super) quantity: Option<u64>,
}

impl Coupons {
    /// One coupon with this quantity.
    pub(super) const fn one(quantity: Option<u64>) -> Self {
        Self { count: 1, quantity }
    }
}

/// Issues new coupons, after a warm-up with other ones.
pub(super) async fn measure(
    running: &mut Running<'_>,
    coupons: Coupons,
    demand: Demand,
    warm_up: Duration,
) -> Result<Figures, Failed> {
    let url = running.url();
    if !warm_up.is_zero() {
        let bounds = Bounds {
            duration: Some(warm_up),
            requests: None,
        };
        let made = make(&url, coupons, None).await?;
        let run = send(&url, &made, plan(Demand { bounds, ..demand }), None).await?;
        running.wait_until_stored(&made, issued(&run)).await?;
    }
    let made = make(&url, coupons, None).await?;
    let processes = running.process_ids();
    let before = ProcessorTimes::of(processes)?;
    let run = send(&url, &made, plan(demand), None).await?;
    let was_stored = running.wait_until_stored(&made, issued(&run)).await?;
    // If all were stored with the last answer, looking at the rows is not part of the time.
    let elapsed = match run.tally.last {
        Some(last) if !was_stored => run.measured + Instant::now().saturating_duration_since(last),
        _ => run.measured,
    };
    let used = ProcessorTimes::of(processes)?.since(before);
    let rows = running.count(&made).await?;
    let millis = |percent| run.percentile(percent).as_secs_f64() * 1_000.0;
    let each_thousand = |time: Duration| time.as_secs_f64() * 1e6 / (rows as f64).max(1.0);
    Ok(Figures {
        answers_per_second: run.rate(),
        issued_per_second: rows as f64 / elapsed.as_secs_f64().max(0.001),
        p50_ms: millis(50.0),
        p99_ms: millis(99.0),
        max_ms: millis(100.0),
        failures: run.tally.errors(),
        rows,
        service_ms: each_thousand(used.service),
        database_ms: each_thousand(used.database),
        redis_ms: each_thousand(used.redis),
    })
}

/// A trial before the checker.
#[derive(Debug)]
pub struct Judged<T = ()> {
    /// What is wrong.
    pub verdict: Verdict,
    /// How many issuances are out of order.
    pub order: Order,
    /// The checker's report.
    pub report: Report,
    /// What clients saw.
    pub(super) history: Vec<Operation>,
    pub(super) run: Run,
    /// What was done meanwhile.
    pub(super) meanwhile: T,
}

/// Lets more users than there are coupons ask for a coupon with this quantity, some of them twice, and
/// compares what they saw with what is stored. `scratch` is a directory for the history.
pub async fn judge(
    running: &mut Running<'_>,
    demand: Demand,
    quantity: u64,
    scratch: &Path,
) -> Result<Judged, Failed> {
    judge_plan(running, Coupons::one(Some(quantity)), plan(demand), scratch).await
}

/// Makes coupons, sends the requests of a plan for them, and compares what clients saw with what is stored.
pub(super) async fn judge_plan(
    running: &mut Running<'_>,
    coupons: Coupons,
    plan: Plan,
    scratch: &Path,
) -> Result<Judged, Failed> {
    judge_during(
        running,
        coupons,
        plan,
        scratch,
        async |_: &mut Running<'_>| Ok(()),
    )
    .await
}

/// Makes coupons, sends the requests of a plan for them, and compares what clients saw with what is stored.
/// Does `meanwhile` while clients ask.
pub(super) async fn judge_during<T>(
    running: &mut Running<'_>,
    coupons: Coupons,
    plan: Plan,
    scratch: &Path,
    meanwhile: impl AsyncFnOnce(&mut Running<'_>) -> Result<T, Failed>,
) -> Result<Judged<T>, Failed> {
    let path = scratch.join(format!("history-{}.jsonl", name()));
    let file = HistoryFile::create(&path)?;
    let url = running.url();
    let made = make(&url, coupons, Some(&file)).await?;
    let (run, meanwhile) = tokio::join!(send(&url, &made, plan, Some(&file)), meanwhile(running));
    let (run, meanwhile) = (run?, meanwhile?);
    file.finish()?;
    running.wait_until_stored(&made, issued(&run)).await?;
    running.wait_until_still(&made).await?;
    let history =
        history::read(BufReader::new(File::open(&path)?)).collect::<Result<Vec<Operation>, InputError>>()?;
    std::fs::remove_file(&path)?;
    let rows = running.stored(&made).await?;
    let report = checker::check(&history, &rows, &Options::default());
    let counts = counts(&history, &rows, &made);
    Ok(Judged {
        verdict: Verdict::of(&report, coupons.quantity.unwrap_or(u64::MAX), &counts),
        order: Order::of(&history),
        report,
        history,
        run,
        meanwhile,
    })
}

/// Counts the rows of each coupon.
fn counts(history: &[Operation], rows: &Rows, coupons: &[CouponId]) -> Vec<CouponCount> {
    let mut counts: HashMap<CouponId, CouponCount> = HashMap::new();
    for row in &rows.issuances {
        counts.entry(row.id.coupon).or_default().rows += 1;
    }
    for operation in history {
        if let Operation::Issue(issue) = operation
            && matches!(issue.answer, IssueAnswer::Refused(Refusal::SoldOut { .. }))
        {
            counts.entry(issue.coupon).or_default().is_told_sold_out = true;
        }
    }
    let of = |coupon: &CouponId| counts.get(coupon).copied().unwrap_or_default();
    coupons.iter().map(of).collect()
}

/// Returns how many requests were answered with a new issuance.
pub(super) fn issued(run: &Run) -> u64 {
    let issued = run
        .tally
        .outcomes
        .iter()
        .filter(|outcome| outcome.name == "issued");
    issued.map(|outcome| outcome.latency.len()).sum()
}

/// Returns a new random name for a run.
fn name() -> String {
    format!("{:08x}", rand::random::<u32>())
}

/// Makes coupons, and returns their ids in order.
pub(super) async fn make(
    url: &str,
    coupons: Coupons,
    history: Option<&HistoryFile>,
) -> Result<Vec<CouponId>, Failed> {
    let wanted = Wanted {
        count: coupons.count,
        quantity: coupons.quantity,
        name: &name(),
        with_discount: false,
    };
    Ok(coupons::make(url, ADMIN_TOKEN, wanted, history.map(HistoryFile::recorder)).await?)
}

/// Sends the requests of a plan, and returns once all are answered.
pub(super) async fn send(
    url: &str,
    coupons: &[CouponId],
    plan: Plan,
    history: Option<&HistoryFile>,
) -> Result<Run, Failed> {
    send_to(&[url], coupons, plan, history).await
}

/// Does the same with connections to several nodes.
pub(super) async fn send_to(
    urls: &[&str],
    coupons: &[CouponId],
    plan: Plan,
    history: Option<&HistoryFile>,
) -> Result<Run, Failed> {
    let plan = Plan {
        targets: urls.iter().map(|url| target(url)).collect::<Result<_, _>>()?,
        coupons: coupons.to_vec(),
        ..plan
    };
    let run = drive(plan, history, |_| ()).await?;
    if run.interrupted {
        return Err("interrupted".into());
    }
    Ok(run)
}

/// Returns a plan without targets and coupons.
pub(super) fn plan(demand: Demand) -> Plan {
    Plan {
        targets: Vec::new(),
        coupons: Vec::new(),
        crowd: Crowd {
            name: name(),
            repeats_ppm: demand.repeats_ppm,
            users: Users::New,
            seed: 0,
        },
        checkout: None,
        pace: Pace::Closed,
        bounds: demand.bounds,
        warm_up: Duration::ZERO,
        connections: demand.connections,
        virtual_users: VirtualUsers::default(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        limit: ANSWER_LIMIT,
        gives_up_after: ANSWER_LIMIT,
        gives_way: true,
    }
}

/// The processor time that processes have used.
#[derive(Debug, Clone, Copy)]
struct ProcessorTimes {
    service: Duration,
    database: Duration,
    redis: Duration,
}

impl ProcessorTimes {
    fn of(processes: ProcessIds) -> Result<Self, Failed> {
        let of = |process: Option<u32>| process.map_or(Ok(Duration::ZERO), processor_time);
        Ok(Self {
            service: processor_time(processes.service)?,
            database: of(processes.database)?,
            redis: of(processes.redis)?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            service: self.service.saturating_sub(before.service),
            database: self.database.saturating_sub(before.database),
            redis: self.redis.saturating_sub(before.redis),
        }
    }
}
