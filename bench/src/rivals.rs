//! `firstcome-bench rivals`: the ways in which limited coupons are usually issued, and Firstcome, side by
//! side on one machine, with one database server and one load.
//!
//! Each rival is a module that implements `rival::Rival`. [`Serve`] runs one as a process of its own:
//! `gateway` has the same routes and answers for all, behind the accept loop of the node. `tables` and
//! `database` are what several of them use. [`Contender`] starts a rival or a node over a database of its
//! own, and `measure` loads it and asks the checker. `issuing`, `flash_sale`, `earlier`, `killed`,
//! `three_nodes` and `pools` are the tables.
//!
//! A log such as Kafka in place of the queue is left out: no package registry has a broker that is small
//! enough to be started for a measurement, and the promise would be that of the script with a queue, with
//! another queue.

mod atomic_update;
mod chart;
mod contender;
mod database;
mod earlier;
mod fair_lock;
mod flash_sale;
mod gateway;
mod issuing;
mod killed;
mod kind;
mod lock_in_transaction;
mod measure;
mod no_lock;
mod optimistic;
mod order;
mod pools;
mod redis_link;
mod redis_lock;
mod rival;
mod row_lock;
mod script;
mod serve;
mod skip_locked;
mod tables;
mod three_nodes;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use testkit::servers::{Server, ServerKind, is_required};

use crate::beside;
use crate::load::arrivals::Bounds;
use crate::load::flags::duration;
use crate::load::{Failed, ceiling};
use crate::verify::{BAD_INPUT, CLEAN};
use measure::Coupons;

pub use contender::{Contender, Programs, RedisSync, Running, Servers};
pub use killed::{Victim, judge_killed};
pub use kind::RivalKind;
pub use measure::{Demand, Judged, judge};
pub use order::Order;
pub use serve::Serve;
pub use three_nodes::ThreeNodes;
pub use verdict::Verdict;

/// Many coupons. Their quantity is more than a measurement issues, and few enough for the rival that makes a
/// row for each beforehand.
const MANY: Coupons = Coupons {
    count: 1_000,
    quantity: Some(300),
};

/// The measurements to make.
#[derive(Debug, Clone, Args)]
pub struct Rivals {
    /// The tables to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "issuing")]
    what: Vec<What>,
    /// The rivals to measure, separated by commas; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    kinds: Vec<RivalKind>,
    /// Measure rivals with these numbers of connections to the database, separated by commas, and not with
    /// the default of each. `pools` has numbers of its own if none are given.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=400))]
    pools: Vec<u16>,
    /// Leave Firstcome out.
    #[arg(long)]
    without_firstcome: bool,
    /// Number of rounds. Each round measures all contenders in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Duration of each measurement of `issuing`.
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Time of load before each measurement of `issuing`, until connections, caches and the rate are steady.
    #[arg(long, default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// Connections of the clients of `issuing`, each with one request at a time.
    #[arg(long, short, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Requests of the trial before the checker in `issuing`, for a tenth as many coupons.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    trial_requests: u64,
    /// Number of users in the flash sale.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    sale_users: u64,
    /// Divides the times of `earlier`, and the quantities of its two long ramps.
    #[arg(long, default_value_t = 10.0, value_parser = at_least_one)]
    shorten: f64,
    /// Multiplies users, requests and quantities of `earlier`.
    #[arg(long, default_value_t = 1.0, value_parser = a_part)]
    scale: f64,
    /// Time after which `pools` begins no further measurement.
    #[arg(long, default_value = "20m", value_parser = duration)]
    within: Duration,
    /// The program `firstcome`; by default the one beside this program.
    #[arg(long)]
    firstcome: Option<PathBuf>,
    /// The buffer pool of MySQL, in MiB.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(32..))]
    buffer_pool_mib: u32,
    /// The redo log of MySQL, in MiB.
    #[arg(long, default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    redo_log_mib: u32,
    /// Also draw the rate and the p99 of `issuing`, as SVG, into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Print figures as JSON.
    #[arg(long)]
    json: bool,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Issuing a coupon without a limit, and the checker's verdict about a coupon with one.
    Issuing,
    /// The same with a thousand coupons at once.
    ManyCoupons,
    /// Far more users than coupons, each of whom asks once.
    FlashSale,
    /// The load shapes with which earlier systems were tested.
    Earlier,
    /// The service, and then its Redis, is killed while it issues.
    Killed,
    /// Firstcome with three nodes and a hundred coupons, beside one node and one coupon.
    ThreeNodes,
    /// The number of connections to the database that serves each rival best.
    Pools,
}

/// Reads a factor of at least one.
fn at_least_one(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    match (1.0..=1_000.0).contains(&factor) {
        true => Ok(factor),
        false => Err("a factor is between 1 and 1,000".to_owned()),
    }
}

/// Reads a factor of at most one.
fn a_part(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    match (0.001..=1.0).contains(&factor) {
        true => Ok(factor),
        false => Err("a factor is between 0.001 and 1".to_owned()),
    }
}

impl What {
    /// Returns the heading of the table, which is also its key in JSON.
    const fn title(self) -> &'static str {
        match self {
            Self::Issuing => "Issuing",
            Self::ManyCoupons => "1,000 coupons at once",
            Self::FlashSale => "Flash sale",
            Self::Earlier => "The load shapes of earlier systems",
            Self::Killed => "Killed and started again",
            Self::ThreeNodes => "Three nodes",
            Self::Pools => "Connections to the database",
        }
    }
}

/// What all measurements share.
struct Bench<'a> {
    flags: &'a Rivals,
    programs: Programs,
    servers: Servers<'a>,
    /// The directory of data, which is removed at the end.
    scratch: &'a Path,
}

impl Bench<'_> {
    /// Starts each contender over a new database and measures it, in as many rounds as the flags say.
    /// `measure` also gets the index of the contender.
    async fn each_round(
        &self,
        contenders: &[Contender],
        mut measure: impl AsyncFnMut(&mut Running<'_>, usize) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        for round in 1..=self.flags.rounds {
            self.one_round(round, contenders, &mut measure).await?;
        }
        Ok(())
    }

    async fn one_round(
        &self,
        round: u16,
        contenders: &[Contender],
        mut measure: impl AsyncFnMut(&mut Running<'_>, usize) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        for (place, contender) in contenders.iter().enumerate() {
            let name = contender.name();
            eprintln!("round {round} of {}: {name}", self.flags.rounds);
            let running = contender.start(&self.programs, &self.servers, self.scratch).await;
            let mut running = running.map_err(|error| format!("{name}: {error}"))?;
            let measured = measure(&mut running, place).await;
            eprint!("{}", running.log());
            measured.map_err(|error| format!("{name}: {error}"))?;
            running.end().await;
        }
        Ok(())
    }

    /// Measures three nodes.
    async fn three_nodes(&self) -> Result<(String, Value), Failed> {
        let (flags, mut table) = (self.flags, ThreeNodes::default());
        if flags.without_firstcome {
            return Err("three nodes of Firstcome cannot be measured without Firstcome".into());
        }
        for round in 1..=flags.rounds {
            eprintln!("round {round} of {}: three nodes", flags.rounds);
            let (programs, servers) = (&self.programs, &self.servers);
            let round = table.round(programs, servers, self.scratch, flags.demand(), flags.warm_up);
            round.await?;
        }
        Ok((table.markdown(), table.json()))
    }
}

impl Rivals {
    /// Measures, prints the tables, and returns the exit status: 0, or 2 if something could not be measured.
    pub async fn run(&self) -> ExitCode {
        match self.measured().await {
            Ok(text) => {
                println!("{text}");
                ExitCode::from(CLEAN)
            }
            Err(error) => {
                eprintln!("firstcome-bench: {error}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    async fn measured(&self) -> Result<String, Failed> {
        let scratch = tempfile::Builder::new().prefix("firstcome-rivals-").tempdir()?;
        let mysql = self.mysql()?;
        let (servers, contenders, absent) = self.servers(&mysql)?;
        let bench = Bench {
            flags: self,
            programs: self.programs()?,
            servers,
            scratch: scratch.path(),
        };
        let heading = self.heading().await?;
        let (mut text, mut values) = (heading.clone(), Map::new());
        for name in &absent {
            text.push_str(&format!(" {name}."));
        }
        for what in &self.what {
            let (table, figures) = match what {
                What::Issuing => issuing::measured(&bench, &contenders, Coupons::one(None)).await?,
                What::ManyCoupons => issuing::measured(&bench, &contenders, MANY).await?,
                What::FlashSale => flash_sale::measured(&bench, &contenders).await?,
                What::Earlier => earlier::measured(&bench, &contenders, self.size()).await?,
                What::Killed => killed::measured(&bench, &contenders).await?,
                What::ThreeNodes => bench.three_nodes().await?,
                What::Pools => pools::measured(&bench, &contenders).await?,
            };
            text.push_str(&format!("\n\n### {}\n\n{}", what.title(), table.trim_end()));
            values.insert(what.title().to_owned(), figures);
        }
        if self.json {
            let value = serde_json::json!({"heading": heading, "not_measured": absent, "tables": Value::Object(values)});
            return Ok(format!("{value:#}"));
        }
        Ok(text)
    }

    fn programs(&self) -> Result<Programs, Failed> {
        Ok(Programs {
            firstcome: if self.without_firstcome {
                PathBuf::new()
            } else {
                beside(self.firstcome.as_deref(), "firstcome")?
            },
            bench: std::env::current_exe()?,
        })
    }

    /// Starts a MySQL whose commits are durable.
    fn mysql(&self) -> Result<Server, String> {
        let (pool, redo_log) = (
            format!("--innodb-buffer-pool-size={}M", self.buffer_pool_mib),
            format!("--innodb-redo-log-capacity={}M", self.redo_log_mib),
        );
        let arguments = [
            "--innodb-flush-log-at-trx-commit=1",
            "--log-bin=binlog",
            "--sync-binlog=1",
            "--server-id=1",
            pool.as_str(),
            redo_log.as_str(),
        ];
        Server::start(ServerKind::MySql, &arguments)
    }

    /// Starts the servers of Redis. Returns them with the contenders that can be measured, and the names of
    /// those that cannot.
    fn servers<'a>(&self, mysql: &'a Server) -> Result<(Servers<'a>, Vec<Contender>, Vec<String>), Failed> {
        let mut kinds = if self.kinds.is_empty() {
            RivalKind::value_variants().to_vec()
        } else {
            self.kinds.clone()
        };
        let mut servers = Servers::new(mysql);
        let mut absent = Vec::new();
        if kinds.iter().any(|kind| kind.needs_redis())
            && let Err(why) = servers.start_redis()
        {
            if is_required() {
                return Err(format!("FIRSTCOME_REQUIRE_DATABASES=1, but there is no Redis: {why}").into());
            }
            eprintln!("NOT MEASURED: what needs a Redis: {why}");
            let needing = kinds.iter().filter(|kind| kind.needs_redis());
            absent.extend(needing.map(|kind| format!("{}: NOT MEASURED: {why}", kind.title())));
            kinds.retain(|kind| !kind.needs_redis());
        }
        let mut contenders = Contender::of(&kinds, &self.pools);
        if !self.without_firstcome {
            contenders.push(Contender::Firstcome);
        }
        Ok((servers, contenders, absent))
    }

    fn size(&self) -> earlier::Size {
        earlier::Size {
            shorten: self.shorten,
            scale: self.scale,
        }
    }

    fn demand(&self) -> Demand {
        Demand {
            connections: usize::from(self.connections),
            bounds: Bounds {
                duration: Some(self.duration),
                requests: None,
            },
            repeats_ppm: 0,
        }
    }

    /// Returns a description of the machine and the method, with this tool's own ceiling.
    async fn heading(&self) -> Result<String, Failed> {
        let ceiling = ceiling::measure(&measure::plan(self.demand()), self.duration).await?;
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(format!(
            "{processors} processors ({model}) shared by client, service, MySQL and Redis; {} rounds of {:?} \
             after a warm-up of {:?}, {} connections. Medians of all rounds, with minimum and maximum. \
             MySQL: `innodb_flush_log_at_trx_commit=1`, binary log with `sync_binlog=1`, a buffer pool of {} \
             MiB, a redo log of {} MiB. The tool's own ceiling: {ceiling:.0}/s.",
            self.rounds,
            self.duration,
            self.warm_up,
            self.connections,
            self.buffer_pool_mib,
            self.redo_log_mib,
        ))
    }
}
