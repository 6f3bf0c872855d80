//! `firstcome-bench compare`: starts services itself, on loopback with temporary data, and measures them side
//! by side.
//!
//! A single figure depends as much on the machine and its other users as on the service. So services are
//! measured in turn, in several rounds. Each round has its own ratios, and medians are shown with the minimum
//! and the maximum of all rounds.

mod alone;
mod batches;
mod children;
mod exports;
mod filled;
mod half_peak;
mod hand_offs;
mod many;
mod million;
mod nodes;
mod prometheus;
mod routes;
pub(crate) mod series;
mod sleeping;
mod stores;
pub(crate) mod three;
mod uses;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use testkit::ids::CouponId;

use crate::load::arrivals::{Bounds, Pace};
use crate::load::coupons::{self, Wanted};
use crate::load::crowd::{Crowd, Users};
use crate::load::drive::{GIVE_UP, Plan, Run, drive};
use crate::load::flags::{duration, target};
use crate::load::virtual_users::VirtualUsers;
use crate::load::{Failed, ceiling};
use crate::verify::{BAD_INPUT, CLEAN};
use children::Service;
use stores::{MeasuredStore, StoreKind};

pub(crate) use children::processor_time;

/// Time of load before each measurement, until connections, caches and the rate are steady.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long an answer may take; the service's own limit is three seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The measurements to make.
#[derive(Debug, Clone, Args)]
pub struct Compare {
    /// The tables to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "routes")]
    what: Vec<What>,
    /// The stores to measure; the tables name the stores that this machine does not have.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [StoreKind::Sqlite, StoreKind::Mysql, StoreKind::Mariadb])]
    stores: Vec<StoreKind>,
    /// Number of rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Duration of each measurement.
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Connections, each with one request at a time.
    #[arg(long, short, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// The program `firstcome`; by default the one beside this program.
    #[arg(long)]
    firstcome: Option<PathBuf>,
    /// The program of the bare route, an example of the same build; by default in `examples` beside this
    /// program.
    #[arg(long)]
    bare_route: Option<PathBuf>,
    /// The buffer pool of database servers, in MiB.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(32..))]
    buffer_pool_mib: u32,
    /// The redo log of database servers, in MiB; by default their own, which is about 100 MiB.
    #[arg(long, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    redo_log_mib: Option<u32>,
    /// Number of issuances that `million` and `exports` store beforehand. `hand-offs` and `uses` store the
    /// same number for each coupon, but at most 100,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    issued: u64,
    /// Number of coupons that `sleeping` makes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    coupons: u64,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The bare route, the door, an owner's refusal, and issuing on each store.
    Routes,
    /// Rows of a batch and times of a commit, by connections.
    Batches,
    /// Issuing when a million issuances are stored, compared with none.
    Million,
    /// A thousand coupons at once, compared with one.
    Many,
    /// A hundred thousand passive coupons, and the memory of an active one.
    Sleeping,
    /// Latency at half the peak rate, in an open loop.
    HalfPeak,
    /// How long issuing pauses while a coupon's shard is handed off to another node.
    HandOffs,
    /// Issuing while a coupon with a million issuances is exported, compared with no export.
    Exports,
    /// Uses of issuances: redeeming at once, and reserving before, compared with issuing.
    Uses,
    /// The cost of the link: requests at a node that does not own the coupon, compared with requests at the
    /// node that does.
    Nodes,
}

impl What {
    /// Returns the heading of the table.
    const fn title(self) -> &'static str {
        match self {
            Self::Routes => "Side by side",
            Self::Batches => "Batches grow with load",
            Self::Million => "With many issued",
            Self::Many => "Many coupons at once",
            Self::Sleeping => "Idle coupons",
            Self::HalfPeak => "Latency at half the peak rate",
            Self::HandOffs => "Pauses of hand-offs",
            Self::Exports => "Beside an export",
            Self::Uses => "Uses beside issuing",
            Self::Nodes => "Three nodes beside one",
        }
    }
}

impl Compare {
    /// Measures, prints the tables as Markdown, and returns the exit status: 0, or 2 if something could not
    /// be measured.
    pub async fn run(&self) -> ExitCode {
        match self.tables().await {
            Ok(()) => ExitCode::from(CLEAN),
            Err(error) => {
                eprintln!("firstcome-bench: {error}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    async fn tables(&self) -> Result<(), Failed> {
        let scratch = tempfile::Builder::new().prefix("firstcome-compare-").tempdir()?;
        let bench = Bench {
            flags: self,
            scratch: scratch.path(),
            stores: self.start_stores().await?,
        };
        println!("{}", bench.machine().await?);
        for what in &self.what {
            let table = match what {
                What::Routes => routes::table(&bench).await,
                What::Batches => batches::table(&bench).await,
                What::Million => million::table(&bench).await,
                What::Many => many::table(&bench).await,
                What::Sleeping => sleeping::table(&bench).await,
                What::HalfPeak => half_peak::table(&bench).await,
                What::HandOffs => hand_offs::table(&bench).await,
                What::Exports => exports::table(&bench).await,
                What::Uses => uses::table(&bench).await,
                What::Nodes => nodes::table(&bench).await,
            };
            println!("\n### {}\n\n{}", what.title(), table?);
        }
        Ok(())
    }
}

/// What all measurements share.
struct Bench<'a> {
    flags: &'a Compare,
    /// The directory of data, which is removed at the end.
    scratch: &'a Path,
    stores: Vec<MeasuredStore>,
}

/// One measurement.
struct Measurement<'a> {
    /// The targets, which share the connections.
    urls: Vec<&'a str>,
    coupons: Vec<CouponId>,
    /// Number of users, if it is limited.
    users: Option<u64>,
    name: &'a str,
    pace: Pace,
    connections: usize,
}

impl Bench<'_> {
    /// Returns a new random name for a run.
    fn name() -> String {
        format!("{:08x}", rand::random::<u32>())
    }

    /// Measures for as long as the flags say.
    async fn measure(&self, measurement: Measurement<'_>) -> Result<Run, Failed> {
        let bounds = Bounds {
            duration: Some(WARM_UP + self.flags.duration),
            requests: None,
        };
        self.drive(measurement, bounds, WARM_UP).await
    }

    /// Sends this many requests in a closed loop.
    async fn send(&self, measurement: Measurement<'_>, requests: u64) -> Result<Run, Failed> {
        self.drive(
            measurement,
            Bounds {
                duration: None,
                requests: Some(requests),
            },
            Duration::ZERO,
        )
        .await
    }

    async fn drive(
        &self,
        measurement: Measurement<'_>,
        bounds: Bounds,
        warm_up: Duration,
    ) -> Result<Run, Failed> {
        let plan = Plan {
            targets: measurement
                .urls
                .iter()
                .map(|url| target(url))
                .collect::<Result<_, _>>()?,
            coupons: measurement.coupons,
            crowd: Crowd {
                name: measurement.name.to_owned(),
                repeats_ppm: 0,
                users: Users::limited_to(measurement.users),
                seed: 0,
            },
            checkout: None,
            pace: measurement.pace,
            bounds,
            warm_up,
            connections: measurement.connections,
            virtual_users: VirtualUsers::default(),
            threads: processors(),
            limit: ANSWER_LIMIT,
            gives_up_after: GIVE_UP,
            gives_way: measurement.pace == Pace::Closed,
        };
        let run = drive(plan, None, |_| ()).await?;
        if run.interrupted {
            return Err("interrupted".into());
        }
        if run.gave_up {
            return Err(format!("{} stopped answering", measurement.urls.join(", ")).into());
        }
        Ok(run)
    }

    /// Measures issuing of new coupons, with a new user for each request.
    async fn issue(
        &self,
        node: &Service,
        coupons: u64,
        pace: Pace,
        connections: usize,
    ) -> Result<Run, Failed> {
        let coupons = self.make(node.url(), coupons, None).await?;
        let measurement = Measurement {
            urls: vec![node.url()],
            coupons,
            users: None,
            name: &Self::name(),
            pace,
            connections,
        };
        let run = self.measure(measurement).await?;
        expect(&run, "issued")?;
        Ok(run)
    }

    async fn make(&self, url: &str, count: u64, quantity: Option<u64>) -> Result<Vec<CouponId>, Failed> {
        let wanted = Wanted {
            count,
            quantity,
            name: &Self::name(),
            with_discount: false,
        };
        Ok(coupons::make(url, children::ADMIN_TOKEN, wanted, None).await?)
    }

    async fn make_one(&self, url: &str, quantity: Option<u64>) -> Result<CouponId, Failed> {
        self.make(url, 1, quantity)
            .await?
            .first()
            .copied()
            .ok_or_else(|| "no coupon was made".into())
    }

    /// Makes a coupon that is sold out.
    async fn sold_out(&self, url: &str) -> Result<CouponId, Failed> {
        let coupon = self.make_one(url, Some(10)).await?;
        let measurement = Measurement {
            urls: vec![url],
            coupons: vec![coupon],
            users: None,
            name: &Self::name(),
            pace: Pace::Closed,
            connections: 8,
        };
        expect(&self.send(measurement, 1_000).await?, "SOLD_OUT")?;
        Ok(coupon)
    }

    fn connections(&self) -> usize {
        usize::from(self.flags.connections)
    }

    /// Returns a description of the machine and the method, with this tool's own ceiling.
    async fn machine(&self) -> Result<String, Failed> {
        let plan = Plan {
            targets: Vec::new(),
            coupons: Vec::new(),
            crowd: Crowd {
                name: Self::name(),
                repeats_ppm: 0,
                users: Users::New,
                seed: 0,
            },
            checkout: None,
            pace: Pace::Closed,
            bounds: Bounds {
                duration: None,
                requests: None,
            },
            warm_up: WARM_UP,
            connections: self.connections(),
            virtual_users: VirtualUsers::default(),
            threads: processors(),
            limit: ANSWER_LIMIT,
            gives_up_after: GIVE_UP,
            gives_way: true,
        };
        let ceiling = ceiling::measure(&plan, self.flags.duration).await?;
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        Ok(format!(
            "{} processors ({model}) shared by client, service and database; {} rounds of {:?}, {} connections unless stated otherwise. \
             Medians of all rounds, with minimum and maximum. The tool's own ceiling: {ceiling:.0}/s.",
            processors(),
            self.flags.rounds,
            self.flags.duration,
            self.flags.connections,
        ))
    }
}

/// Fails unless nearly all answers have the expected outcome, because a figure of other outcomes would be
/// worse than no figure.
fn expect(run: &Run, outcome: &str) -> Result<(), Failed> {
    let count = |name: &str| {
        run.tally
            .outcomes
            .iter()
            .filter(|one| one.name == name)
            .map(|one| one.latency.len())
            .sum::<u64>()
    };
    let all = run.tally.ended();
    if all > 0 && count(outcome) * 20 >= all * 19 {
        return Ok(());
    }
    let seen: Vec<String> = run
        .tally
        .outcomes
        .iter()
        .map(|one| format!("{} {}", one.latency.len(), one.name))
        .collect();
    Err(format!(
        "nearly all of {all} answers should be {outcome}, but they are: {}",
        seen.join(", ")
    )
    .into())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns a duration in milliseconds.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Returns the number of a coupon's shard.
fn shard_of(coupon: CouponId) -> u16 {
    actors::coupon::ids::CouponId::new(coupon.get()).map_or(0, |coupon| coupon.shard().get())
}
