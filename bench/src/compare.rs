//! `firstcome-bench compare`: starts everything itself, on loopback with temporary data, and measures it side
//! by side.
//!
//! A figure alone says as much about the machine and its other users as about the service. So whatever is
//! compared is measured in turn, round after round, each round has its own ratios, and medians are shown with
//! the least and the most of all rounds.

mod batches;
mod children;
mod filled;
mod half_peak;
mod hand_offs;
mod many;
mod million;
mod nodes;
mod prometheus;
mod routes;
mod series;
mod sleeping;
mod stores;
mod three;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use testkit::ids::CouponId;

use crate::load::arrivals::{Bounds, Pace};
use crate::load::coupons::{self, Wanted};
use crate::load::crowd::Crowd;
use crate::load::drive::{Plan, Run, drive};
use crate::load::flags::{duration, target};
use crate::load::{Failed, ceiling};
use crate::verify::{BAD_INPUT, CLEAN};
use children::Service;
use stores::{Stocked, StoreKind};

/// Sent before each measured time: until connections, caches and the loop have their pace.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long an answer may take; the service gives up after three seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What to measure, and how.
#[derive(Debug, Clone, Args)]
pub struct Compare {
    /// What to measure; several with commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "routes")]
    what: Vec<What>,
    /// Which stores; those that are not on this machine are named in the table.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [StoreKind::Sqlite, StoreKind::Mysql, StoreKind::Mariadb])]
    stores: Vec<StoreKind>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// How long each measurement takes.
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Connections, each with one request at a time.
    #[arg(long, short, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// The program that serves; beside this one by default.
    #[arg(long)]
    firstcome: Option<PathBuf>,
    /// The bare route, an example of the same build; beside this program in `examples` by default.
    #[arg(long)]
    bare_route: Option<PathBuf>,
    /// The buffer pool of database servers, in MiB.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(32..))]
    buffer_pool_mib: u32,
    /// The redo log of database servers, in MiB; their own default otherwise, which is some 100 MiB.
    #[arg(long, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    redo_log_mib: Option<u32>,
    /// How many issuances `million` stores beforehand. `hand-offs` stores as many for each coupon, up to
    /// 100,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    issued: u64,
    /// How many coupons `sleeping` makes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    coupons: u64,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The bare route, the door, a refusal of an owner, and issuing on each store.
    Routes,
    /// Rows of a batch and times of a commit, by connections.
    Batches,
    /// Issuing with a million issued, against issuing with none.
    Million,
    /// A thousand coupons at once, against one.
    Many,
    /// A hundred thousand coupons that sleep, and what one costs that is awake.
    Sleeping,
    /// Latency at half the peak rate, in an open loop.
    HalfPeak,
    /// How long a coupon is not issued while it is handed over to another node.
    HandOffs,
    /// Asking a node that does not own the coupon, against asking its owner; what the link costs.
    Nodes,
}

impl What {
    /// What stands above the table.
    const fn title(self) -> &'static str {
        match self {
            Self::Routes => "Side by side",
            Self::Batches => "Batches grow with load",
            Self::Million => "With many issued",
            Self::Many => "Many coupons at once",
            Self::Sleeping => "Coupons asleep",
            Self::HalfPeak => "Latency at half the peak rate",
            Self::HandOffs => "Pauses of hand-offs",
            Self::Nodes => "Three nodes beside one",
        }
    }
}

impl Compare {
    /// Does it, prints the tables as Markdown, and returns the exit status: 0, or 2 if something could not be
    /// measured.
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
                What::Nodes => nodes::table(&bench).await,
            };
            println!("\n### {}\n\n{}", what.title(), table?);
        }
        Ok(())
    }
}

/// What all tables share.
struct Bench<'a> {
    flags: &'a Compare,
    /// For data; removed at the end.
    scratch: &'a Path,
    stores: Vec<Stocked>,
}

/// One measurement.
struct Asked<'a> {
    /// Where to; connections are shared out among them.
    urls: Vec<&'a str>,
    coupons: Vec<CouponId>,
    /// Only so many users.
    users: Option<u64>,
    name: &'a str,
    pace: Pace,
    connections: usize,
}

impl Bench<'_> {
    /// A name that no run had before.
    fn name() -> String {
        format!("{:08x}", rand::random::<u32>())
    }

    /// Measures for the duration that was wished.
    async fn measure(&self, asked: Asked<'_>) -> Result<Run, Failed> {
        let bounds = Bounds {
            duration: Some(WARM_UP + self.flags.duration),
            requests: None,
        };
        self.drive(asked, bounds, WARM_UP).await
    }

    /// Sends so many requests, as fast as they are answered.
    async fn send(&self, asked: Asked<'_>, requests: u64) -> Result<Run, Failed> {
        self.drive(
            asked,
            Bounds {
                duration: None,
                requests: Some(requests),
            },
            Duration::ZERO,
        )
        .await
    }

    async fn drive(&self, asked: Asked<'_>, bounds: Bounds, warm_up: Duration) -> Result<Run, Failed> {
        let plan = Plan {
            targets: asked
                .urls
                .iter()
                .map(|url| target(url))
                .collect::<Result<_, _>>()?,
            coupons: asked.coupons,
            crowd: Crowd {
                name: asked.name.to_owned(),
                repeats_ppm: 0,
                users: asked.users,
                seed: 0,
            },
            pace: asked.pace,
            bounds,
            warm_up,
            connections: asked.connections,
            threads: processors(),
            limit: ANSWER_LIMIT,
            gives_way: asked.pace == Pace::Closed,
        };
        let run = drive(plan, None, |_| ()).await?;
        if run.interrupted {
            return Err("interrupted".into());
        }
        if run.gave_up {
            return Err(format!("{} answers no more", asked.urls.join(", ")).into());
        }
        Ok(run)
    }

    /// Issues from new coupons to users who are all different.
    async fn issue(
        &self,
        node: &Service,
        coupons: u64,
        pace: Pace,
        connections: usize,
    ) -> Result<Run, Failed> {
        let coupons = self.make(node.url(), coupons, None).await?;
        let asked = Asked {
            urls: vec![node.url()],
            coupons,
            users: None,
            name: &Self::name(),
            pace,
            connections,
        };
        let run = self.measure(asked).await?;
        expect(&run, "issued")?;
        Ok(run)
    }

    async fn make(&self, url: &str, count: u64, quantity: Option<u64>) -> Result<Vec<CouponId>, Failed> {
        let wanted = Wanted {
            count,
            quantity,
            name: &Self::name(),
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

    /// A coupon that is sold out.
    async fn sold_out(&self, url: &str) -> Result<CouponId, Failed> {
        let coupon = self.make_one(url, Some(10)).await?;
        let asked = Asked {
            urls: vec![url],
            coupons: vec![coupon],
            users: None,
            name: &Self::name(),
            pace: Pace::Closed,
            connections: 8,
        };
        expect(&self.send(asked, 1_000).await?, "SOLD_OUT")?;
        Ok(coupon)
    }

    fn connections(&self) -> usize {
        usize::from(self.flags.connections)
    }

    /// On what, and how, it is measured; with this tool's own ceiling.
    async fn machine(&self) -> Result<String, Failed> {
        let plan = Plan {
            targets: Vec::new(),
            coupons: Vec::new(),
            crowd: Crowd {
                name: Self::name(),
                repeats_ppm: 0,
                users: None,
                seed: 0,
            },
            pace: Pace::Closed,
            bounds: Bounds {
                duration: None,
                requests: None,
            },
            warm_up: WARM_UP,
            connections: self.connections(),
            threads: processors(),
            limit: ANSWER_LIMIT,
            gives_way: true,
        };
        let ceiling = ceiling::measure(&plan, self.flags.duration).await?;
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        Ok(format!(
            "{} processors ({model}) shared by client, service and database; {} rounds of {:?}, {} connections where nothing else is said. \
             Medians of all rounds, with the least and the most. The tool's own ceiling: {ceiling:.0}/s.",
            processors(),
            self.flags.rounds,
            self.flags.duration,
            self.flags.connections,
        ))
    }
}

/// Fails unless nearly all answers are what the measurement is about: a figure of something else would be
/// worse than none.
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
        "of {all} answers nearly all were to be {outcome}, but they are: {}",
        seen.join(", ")
    )
    .into())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Milliseconds, for tables.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Returns the number of the shard that places a coupon.
fn shard_of(coupon: CouponId) -> u16 {
    actors::ids::CouponId::new(coupon.get()).map_or(0, |coupon| coupon.shard().get())
}
