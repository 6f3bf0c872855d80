//! `firstcome-bench cluster`: several nodes on this machine over one database, to try out and to break.
//!
//! Each node is the program `firstcome` with a configuration file of its own. The nodes' files are removed at
//! the end.

pub(crate) mod node;
mod ports;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::load::Failed;
use crate::verify::{BAD_INPUT, CLEAN, FINDINGS};
use node::{ClusterNode, Ended};
use ports::Ports;
use testkit::servers::{Server, ServerKind};

/// How long nodes may take until they are ready, including the time to make the schema of a new database.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to stop: longer than its own limit (`shutdown.limit`), so that the node can log
/// what it did not finish.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Time between two checks of the nodes.
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to return its newest coupon.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The cluster to start.
#[derive(Debug, Clone, Args)]
pub struct Cluster {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// The database server to start; by default MySQL, or MariaDB where there is no MySQL. MYSQLD and
    /// MARIADBD name programs that are not on the PATH.
    #[arg(long, value_enum, conflicts_with = "url")]
    server: Option<ServerChoice>,
    /// The URL of a database on a running server, `mysql://user:password@host:port/database`.
    #[arg(long)]
    url: Option<String>,
    /// The HTTP port of the first node; the others use the next ports. By default the first free ones from
    /// 8080 on.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    http_port: Option<u16>,
    /// The link port of the first node; the others use the next ports. By default the first free ones from
    /// 7400 on.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    link_port: Option<u16>,
    /// A key of the nodes' configuration, like http.deadline=1s; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<String>,
    /// The program `firstcome`; by default the one beside this program.
    #[arg(long)]
    firstcome: Option<PathBuf>,
}

/// A kind of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServerChoice {
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
}

/// The signals that ask to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Cluster {
    /// Runs the cluster until Ctrl-C or SIGTERM. The exit status is 0 if every node stopped with success, 1
    /// if a node ended by itself or failed to stop, 2 if nothing was started.
    pub async fn run(&self) -> ExitCode {
        match self.serve().await {
            Ok(true) => ExitCode::from(CLEAN),
            Ok(false) => ExitCode::from(FINDINGS),
            Err(error) => {
                eprintln!("firstcome-bench: {error}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    async fn serve(&self) -> Result<bool, Failed> {
        let mut signals = Signals::listen()?;
        let program = crate::beside(self.firstcome.as_deref(), "firstcome")?.canonicalize()?;
        // The ports are chosen before the database server is started, because that takes seconds.
        let ports = self.ports()?;
        let scratch = tempfile::Builder::new().prefix("firstcome-cluster-").tempdir()?;
        let (url, server) = self.database().await?;
        let token = format!("{:032x}", rand::random::<u128>());
        let mut nodes = Vec::new();
        let went_well = match self.start(&mut nodes, ports, &program, &scratch, &url, &token) {
            Ok(()) => self.watch(&mut nodes, &mut signals, &token).await,
            Err(error) => Err(error),
        };
        let stopped_well = stop(&mut nodes, &mut signals).await;
        if let Some(server) = server {
            println!("stopping {}", server.kind().name());
            tokio::task::block_in_place(|| drop(server));
        }
        Ok(went_well? && stopped_well)
    }

    /// Returns the URL of the database, and the server if this program started it.
    async fn database(&self) -> Result<(String, Option<Server>), Failed> {
        if let Some(url) = &self.url {
            return Ok((url.clone(), None));
        }
        let kinds = match self.server {
            None => vec![ServerKind::MySql, ServerKind::MariaDb],
            Some(ServerChoice::Mysql) => vec![ServerKind::MySql],
            Some(ServerChoice::Mariadb) => vec![ServerKind::MariaDb],
        };
        let mut reasons = Vec::new();
        for kind in kinds {
            println!("starting {}", kind.name());
            match tokio::task::block_in_place(|| Server::start(kind, &["--innodb-flush-log-at-trx-commit=1"]))
            {
                Ok(server) => return Ok((server.url(&server.make_database("").await?, None), Some(server))),
                Err(why) => reasons.push(format!("{}: {why}", kind.name())),
            }
        }
        Err(format!(
            "there is no database server to start, and no --url of a running server: {}",
            reasons.join("; ")
        )
        .into())
    }

    /// Returns the HTTP port and the link port of the first node. They and the next ports are free.
    fn ports(&self) -> Result<(u16, u16), Failed> {
        let http = Ports {
            flag: "--http-port",
            given: self.http_port,
            usual: 8080,
        };
        let link = Ports {
            flag: "--link-port",
            given: self.link_port,
            usual: 7400,
        };
        let (http, link) = (http.first(self.nodes)?, link.first(self.nodes)?);
        ports::distinct(http..http + self.nodes, link..link + self.nodes)?;
        Ok((http, link))
    }

    fn start(
        &self,
        nodes: &mut Vec<ClusterNode>,
        (http_port, link_port): (u16, u16),
        program: &Path,
        scratch: &TempDir,
        url: &str,
        token: &str,
    ) -> Result<(), Failed> {
        let cookie = format!("{:032x}", rand::random::<u128>());
        for number in 0..self.nodes {
            let name = format!("node-{}", number + 1);
            let links = |number| format!("127.0.0.1:{}", link_port + number);
            let peers = (0..self.nodes)
                .filter(|other| *other != number)
                .map(links)
                .collect::<Vec<_>>()
                .join(",");
            let keys = [
                ("data_dir", "data".to_owned()),
                ("node.id", name.clone()),
                ("http.listen", format!("127.0.0.1:{}", http_port + number)),
                ("store.url", url.to_owned()),
                ("cluster.listen", links(number)),
                ("cluster.peers", peers),
                ("cluster.cookie", cookie.clone()),
                ("auth.admin_token", token.to_owned()),
                // No load balancer has to notice that a node stops.
                ("shutdown.delay", "0s".to_owned()),
            ];
            nodes.push(ClusterNode::start(
                &name,
                program,
                &scratch.path().join(&name),
                &keys,
                &self.set,
            )?);
        }
        Ok(())
    }

    /// Prints the nodes' addresses once the nodes are ready, and then reports every node that ends, until a
    /// signal arrives. Returns false if a node ended by itself.
    async fn watch(
        &self,
        nodes: &mut [ClusterNode],
        signals: &mut Signals,
        token: &str,
    ) -> Result<bool, Failed> {
        tokio::select! {
            ready = all_ready(nodes) => ready?,
            () = signals.next() => return Ok(true),
        }
        print!("{}", self.welcome(nodes, token).await);
        let mut all_live = true;
        loop {
            tokio::select! {
                () = signals.next() => return Ok(all_live),
                () = tokio::time::sleep(POLL) => {}
            }
            for node in nodes.iter_mut() {
                let Some(Ended { status, last_lines }) = node.ended_by_itself()? else {
                    continue;
                };
                all_live = false;
                let again = node.command();
                println!(
                    "{} ended by itself: {status}\n{last_lines}\nto start it again: {again}\n",
                    node.name()
                );
            }
            if nodes.iter().all(|node| !node.is_running()) {
                println!("no node is left");
                return Ok(false);
            }
        }
    }

    /// Returns a text with the nodes' addresses, and with commands that go to different nodes.
    async fn welcome(&self, nodes: &[ClusterNode], token: &str) -> String {
        let mut text = format!(
            "\n{} nodes are one cluster. The admin token is {token}\n\n",
            nodes.len()
        );
        for node in nodes {
            text += &format!(
                "  {}  {}  process {}  log {}\n",
                node.name(),
                node.url(),
                node.process_id(),
                node.log().display()
            );
        }
        let url = |number: usize| nodes[number % nodes.len()].url();
        let next = next_coupon(url(0)).await;
        text += &format!(
            "\nTo try it: make a coupon, take it as a user, see what the user has, see who owns it.\n\n\
             curl -X POST {}/v1/coupons -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
             -d '{{\"title\": \"Black Friday\", \"total_quantity\": 500}}'\n\
             curl -X POST {}/v1/coupons/{next}/issuances -H 'X-User-Id: alice'\n\
             curl {}/v1/me/issuances -H 'X-User-Id: alice'\n\
             curl {}/v1/cluster/coupons/{next} -H 'Authorization: Bearer {token}'\n\n\
             Ctrl-C stops the nodes one after the other.\n",
            url(0),
            url(1),
            url(2),
            url(0)
        );
        text
    }
}

/// Waits until all nodes are ready.
async fn all_ready(nodes: &mut [ClusterNode]) -> Result<(), Failed> {
    let begun = tokio::time::Instant::now();
    while !nodes.iter().all(ClusterNode::is_ready) {
        for node in nodes.iter_mut() {
            if let Some(Ended { status, last_lines }) = node.ended_by_itself()? {
                return Err(format!(
                    "{} ended before it was ready: {status}\n{last_lines}",
                    node.name()
                )
                .into());
            }
            if begun.elapsed() > START_LIMIT && !node.is_ready() {
                return Err(format!(
                    "{} is not ready within {START_LIMIT:?}\n{}",
                    node.name(),
                    node.last_lines()
                )
                .into());
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Stops the running nodes one after the other, so that each hands its shards off to the others. A second
/// signal kills all nodes at once. Returns false if a node did not stop with success.
async fn stop(nodes: &mut [ClusterNode], signals: &mut Signals) -> bool {
    let mut all_well = true;
    for place in 0..nodes.len() {
        if !nodes[place].is_running() {
            continue;
        }
        println!("stopping {}", nodes[place].name());
        let stopped = tokio::select! {
            stopped = nodes[place].stop(STOP_LIMIT) => stopped,
            () = signals.next() => {
                println!("killing all nodes");
                nodes.iter_mut().for_each(ClusterNode::kill);
                return false;
            }
        };
        if let Err(how) = stopped {
            println!(
                "{} did not stop as it should: {how}\n{}",
                nodes[place].name(),
                nodes[place].last_lines()
            );
            all_well = false;
        }
    }
    all_well
}

/// Returns the id that the next coupon will probably have, for the commands.
async fn next_coupon(url: &str) -> u64 {
    let newest = async {
        let client = Client::builder().timeout(ANSWER_LIMIT).no_proxy().build().ok()?;
        let page: Value = client
            .get(format!("{url}/v1/coupons?limit=1"))
            .send()
            .await
            .ok()?
            .json()
            .await
            .ok()?;
        page["items"].get(0)?["id"].as_u64()
    };
    newest.await.map_or(1, |id| id + 1)
}

fn key_and_value(text: &str) -> Result<String, &'static str> {
    text.split_once('=')
        .map(|_| text.to_owned())
        .ok_or("must be KEY=VALUE")
}
