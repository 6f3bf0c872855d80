//! What is measured: a rival or Firstcome as a child process over a database of its own.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use sqlx::mysql::MySqlConnection;
use testkit::fetch::Fetch;
use testkit::ids::CouponId;
use testkit::process::{Process, without_settings};
use testkit::rows::Rows;
use testkit::servers::redis::RedisServer;
use testkit::servers::{Server, run};

use super::kind::RivalKind;
use super::redis_link;
use super::tables::{self, Layout};
use crate::load::Failed;

/// How long a program may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the count of rows may stay the same before no more rows are expected.
const STILL_LIMIT: Duration = Duration::from_secs(5);
/// How long the count of rows stays the same once no request is in progress and no batch is left to write.
const STILL: Duration = Duration::from_millis(500);
/// Time between two looks at the rows.
const POLL: Duration = Duration::from_millis(10);
/// The token of administrators.
pub(super) const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// When Redis syncs its log to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisSync {
    /// Once a second, so that a crash of the machine loses up to a second of what was answered.
    EverySecond,
    /// Before each answer.
    Always,
    /// Never: Redis keeps no log, as is its default, and what it holds ends with its process.
    Never,
}

/// The servers that contenders need, all of them private and with temporary data.
#[derive(Debug)]
pub struct Servers<'a> {
    mysql: &'a Server,
    redis: Option<RedisServers>,
}

#[derive(Debug)]
struct RedisServers {
    every_second: RedisServer,
    always: RedisServer,
    never: RedisServer,
}

impl<'a> Servers<'a> {
    /// Takes a running MySQL, with no Redis beside it.
    pub fn new(mysql: &'a Server) -> Self {
        Self { mysql, redis: None }
    }

    /// Starts the servers of Redis. The error says why there are none. Blocks.
    pub fn start_redis(&mut self) -> Result<(), String> {
        let logging = |sync| RedisServer::start(&["--appendonly", "yes", "--appendfsync", sync]);
        self.redis = Some(RedisServers {
            every_second: logging("everysec")?,
            always: logging("always")?,
            never: RedisServer::start(&["--appendonly", "no"])?,
        });
        Ok(())
    }

    /// Makes an empty database, and returns its URL.
    pub(super) async fn make_database(&self) -> Result<String, Failed> {
        Ok(self.mysql.url(&self.mysql.make_database("").await?, None))
    }

    fn redis(&self, sync: RedisSync) -> Result<&RedisServer, Failed> {
        let redis = self.redis.as_ref().ok_or("there is no Redis")?;
        Ok(match sync {
            RedisSync::EverySecond => &redis.every_second,
            RedisSync::Always => &redis.always,
            RedisSync::Never => &redis.never,
        })
    }
}

/// A way to issue, as it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// A rival.
    Rival {
        /// The rival.
        kind: RivalKind,
        /// How its Redis syncs, if it has one.
        sync: RedisSync,
        /// Its connections to the database; `None` is the default of the rival.
        connections: Option<u16>,
    },
    /// One node of Firstcome.
    Firstcome,
}

impl Contender {
    /// Returns the contenders of these rivals: one for each number of connections, and the script with both
    /// ways to sync.
    pub fn of(kinds: &[RivalKind], connections: &[u16]) -> Vec<Self> {
        let mut contenders = Vec::new();
        for kind in kinds {
            let syncs = if *kind == RivalKind::Script {
                &[RedisSync::EverySecond, RedisSync::Always][..]
            } else {
                &[RedisSync::EverySecond]
            };
            for sync in syncs {
                let rival = |connections| Self::Rival {
                    kind: *kind,
                    sync: *sync,
                    connections,
                };
                match connections {
                    [] => contenders.push(rival(None)),
                    several => contenders.extend(several.iter().map(|number| rival(Some(*number)))),
                }
            }
        }
        contenders
    }

    /// The script with a Redis that keeps no log.
    pub(super) const SCRIPT_WITHOUT_LOG: Self = Self::Rival {
        kind: RivalKind::Script,
        sync: RedisSync::Never,
        connections: None,
    };

    /// Returns the name in tables.
    pub fn name(self) -> String {
        match self {
            Self::Firstcome => "Firstcome, one node".to_owned(),
            Self::Rival {
                kind,
                sync,
                connections,
            } => {
                let sync = match (kind, sync) {
                    (RivalKind::Script, RedisSync::EverySecond) => ", `everysec`",
                    (RivalKind::Script, RedisSync::Always) => ", `always`",
                    (RivalKind::Script, RedisSync::Never) => ", no log",
                    _ => "",
                };
                let connections = connections.map(|number| format!(", {number} connections"));
                format!("{}{sync}{}", kind.title(), connections.unwrap_or_default())
            }
        }
    }

    /// Starts the contender over a new database. `scratch` is a directory for its log and its data.
    pub async fn start<'a>(
        self,
        programs: &Programs,
        servers: &'a Servers<'_>,
        scratch: &Path,
    ) -> Result<Running<'a>, Failed> {
        let database = servers.mysql.make_database("").await?;
        let (layout, redis) = match self {
            Self::Firstcome => (None, None),
            Self::Rival { kind, sync, .. } => {
                let redis = kind.needs_redis().then(|| servers.redis(sync)).transpose()?;
                if let Some(redis) = redis {
                    empty(redis).await?;
                }
                (Some(kind.layout()), redis)
            }
        };
        let launch = Launch {
            contender: self,
            programs: programs.clone(),
            database: servers.mysql.url(&database, None),
            redis: redis.map(|redis| redis.url(0)),
            directory: tempfile::Builder::new()
                .prefix("contender-")
                .tempdir_in(scratch)?
                .keep(),
        };
        let (process, address) = launch.start("127.0.0.1:0")?;
        Ok(Running {
            launch,
            process,
            address,
            layout,
            rows: servers.mysql.shell(&database).await?,
            mysql: servers.mysql,
            redis,
            database,
        })
    }
}

/// The programs of contenders.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `firstcome`.
    pub firstcome: PathBuf,
    /// `firstcome-bench`, which serves the rivals.
    pub bench: PathBuf,
}

/// How a contender is started, and started again.
#[derive(Debug)]
struct Launch {
    contender: Contender,
    programs: Programs,
    database: String,
    redis: Option<String>,
    directory: PathBuf,
}

impl Launch {
    /// Starts the program at this address, and waits until it serves. Returns the address where it does.
    fn start(&self, listen: &str) -> Result<(Process, String), Failed> {
        let process = Process::start(self.command(listen), self.directory.join("log"))?;
        let address = tokio::task::block_in_place(|| process.address(START_LIMIT))?;
        Ok((process, address))
    }

    fn command(&self, listen: &str) -> Command {
        match self.contender {
            Contender::Firstcome => self.firstcome(listen),
            Contender::Rival {
                kind, connections, ..
            } => self.rival(listen, kind, connections),
        }
    }

    fn firstcome(&self, listen: &str) -> Command {
        let mut command = Command::new(&self.programs.firstcome);
        without_settings(&mut command)
            .arg(format!("--listen={listen}"))
            .args(["--set", "log.level=error", "--set"])
            .arg(format!("auth.admin_token={ADMIN_TOKEN}"))
            .arg("--set")
            .arg(format!("store.url={}", self.database))
            .arg("--data-dir")
            .arg(&self.directory);
        command
    }

    fn rival(&self, listen: &str, kind: RivalKind, connections: Option<u16>) -> Command {
        let mut command = Command::new(&self.programs.bench);
        let name = kind.to_possible_value().map(|value| value.get_name().to_owned());
        command
            .arg("rival")
            .args(name)
            .args(["--listen", listen, "--database", &self.database]);
        if let Some(redis) = &self.redis {
            command.args(["--redis", redis]);
        }
        if let Some(connections) = connections {
            command.args(["--connections", &connections.to_string()]);
        }
        command
    }
}

/// Removes what an earlier contender left, whose coupons have the same ids.
async fn empty(redis: &RedisServer) -> Result<(), Failed> {
    let (_, mut connection) = redis_link::connect(&redis.url(0)).await?;
    let () = redis::cmd("FLUSHDB").query_async(&mut connection).await?;
    Ok(())
}

/// A contender that serves. Dropping this value kills its process.
#[derive(Debug)]
pub struct Running<'a> {
    launch: Launch,
    process: Process,
    address: String,
    /// The layout of a rival's rows; `None` for Firstcome.
    layout: Option<Layout>,
    /// A connection of the measurement's own.
    rows: MySqlConnection,
    mysql: &'a Server,
    redis: Option<&'a RedisServer>,
    database: String,
}

/// The processes of a contender whose processor time is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessIds {
    pub(super) service: u32,
    pub(super) database: Option<u32>,
    pub(super) redis: Option<u32>,
}

impl Running<'_> {
    /// Returns the URL of the service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the service's process, as `kill -9` does, and starts it again at the same address, over what is
    /// stored.
    pub(super) fn restart_service(&mut self) -> Result<(), Failed> {
        tokio::task::block_in_place(|| self.process.kill());
        (self.process, _) = self.launch.start(&self.address)?;
        Ok(())
    }

    /// Kills the process of the Redis, as `kill -9` does, and starts it again over what it had written.
    pub(super) fn restart_redis(&self) -> Result<(), Failed> {
        let redis = self.redis.ok_or("the contender has no Redis")?;
        tokio::task::block_in_place(|| {
            redis.kill();
            redis.resume()
        })?;
        Ok(())
    }

    pub(super) fn has_redis(&self) -> bool {
        self.redis.is_some()
    }

    pub(super) fn process_ids(&self) -> ProcessIds {
        ProcessIds {
            service: self.process.id(),
            database: self.mysql.process_id(),
            redis: self.redis.and_then(RedisServer::process_id),
        }
    }

    /// Waits until this many issuances of these coupons are stored, or no more are added. Returns true if all
    /// were there at the first look. The ids of the coupons follow each other.
    pub(super) async fn wait_until_stored(
        &mut self,
        coupons: &[CouponId],
        expected: u64,
    ) -> Result<bool, Failed> {
        let (mut last, mut since, mut looks) = (0, Instant::now(), 0);
        loop {
            let stored = match coupons {
                // Counting all rows again and again would slow down what is measured.
                [coupon] if matches!(self.layout, None | Some(Layout::BySequence)) => {
                    tables::highest(&mut self.rows, *coupon).await?
                }
                coupons => self.count(coupons).await?,
            };
            looks += 1;
            if stored >= expected {
                return Ok(looks == 1);
            }
            if stored > last {
                (last, since) = (stored, Instant::now());
            } else if since.elapsed() > STILL_LIMIT {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until no more issuances of these coupons are stored, including those whose users were not told.
    pub(super) async fn wait_until_still(&mut self, coupons: &[CouponId]) -> Result<(), Failed> {
        let mut before = self.count(coupons).await?;
        loop {
            tokio::time::sleep(STILL).await;
            let now = self.count(coupons).await?;
            if now == before {
                return Ok(());
            }
            before = now;
        }
    }

    /// Returns how many issuances of these coupons are stored. The ids of the coupons follow each other.
    pub(super) async fn count(&mut self, coupons: &[CouponId]) -> Result<u64, Failed> {
        match (coupons.first(), coupons.last()) {
            (Some(first), Some(last)) => Ok(tables::count(&mut self.rows, *first, *last).await?),
            _ => Ok(0),
        }
    }

    /// Returns what is stored of these coupons. Rows of a rival are read from its tables; those of Firstcome
    /// over HTTP.
    pub(super) async fn stored(&mut self, coupons: &[CouponId]) -> Result<Rows, Failed> {
        match self.layout {
            Some(layout) => Ok(tables::stored(&mut self.rows, layout, coupons).await?),
            None => {
                let coupons: HashSet<CouponId> = coupons.iter().copied().collect();
                Ok(Fetch::new(&self.url(), ADMIN_TOKEN).rows(&coupons).await?)
            }
        }
    }

    /// Kills the service and removes its database.
    pub async fn end(mut self) {
        self.process.kill();
        run(&mut self.rows, &format!("DROP DATABASE {}", self.database)).await;
    }

    /// Returns what the service has printed about errors.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
