//! The programs that are measured, as child processes that end with this one's measurements.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use testkit::ids::CouponId;

use super::{ANSWER_LIMIT, Bench, prometheus};
use crate::beside;
use crate::load::Failed;

/// How long a program may take until it says where it is ready; a new database has its schema made in this
/// time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Time between two questions whether it serves.
const POLL: Duration = Duration::from_millis(50);
/// What administrators of the nodes show.
pub(super) const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A program that serves.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    url: String,
    /// Held open, as the program may say more.
    _output: BufReader<ChildStdout>,
}

impl Bench<'_> {
    /// A node over this store, with a name of its own.
    pub(super) fn node(&self, store_url: &str) -> Result<Child, Failed> {
        self.node_in(&self.node_data()?, store_url)
    }

    /// Where a node keeps its name.
    pub(super) fn node_data(&self) -> Result<PathBuf, Failed> {
        Ok(tempfile::Builder::new()
            .prefix("node-")
            .tempdir_in(self.scratch)?
            .keep())
    }

    /// A node over this store, with the name that is kept there: it ends its predecessor at once. One with
    /// another name would see a neighbour who has the shards, call itself ready, and serve nothing until a
    /// lease is over.
    pub(super) fn node_in(&self, data: &Path, store_url: &str) -> Result<Child, Failed> {
        let program = beside(self.flags.firstcome.as_deref(), "firstcome")?;
        let mut command = Command::new(&program);
        for (key, _) in
            std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FIRSTCOME__"))
        {
            command.env_remove(key);
        }
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let store = format!("store.url={store_url}");
        command
            .args([
                "--listen=127.0.0.1:0",
                "--set",
                &token,
                "--set",
                "log.level=error",
                "--set",
                &store,
            ])
            .arg("--data-dir")
            .arg(data);
        Child::start(&program, command)
    }

    /// The bare route.
    pub(super) fn bare_route(&self) -> Result<Child, Failed> {
        let program = beside(self.flags.bare_route.as_deref(), "examples/bare_route")?;
        let mut command = Command::new(&program);
        command.args(["--listen", "127.0.0.1:0"]);
        Child::start(&program, command)
    }
}

impl Child {
    fn start(program: &Path, mut command: Command) -> Result<Self, Failed> {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let output = process
            .stdout
            .take()
            .map(BufReader::new)
            .ok_or("a child without its output")?;
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = output;
            let mut line = String::new();
            let read = output.read_line(&mut line);
            // Nobody waits any more if it took too long.
            let _ = sender.send((read.is_ok(), line, output));
        });
        let said = ready.recv_timeout(START_LIMIT);
        let address = said
            .as_ref()
            .ok()
            .and_then(|(_, line, _)| Some(line.split("http://").nth(1)?.trim().to_owned()));
        match (said, address) {
            (Ok((_, _, output)), Some(address)) => Ok(Self {
                process,
                url: format!("http://{address}"),
                _output: output,
            }),
            _ => {
                let _ = process.kill();
                let _ = process.wait();
                Err(format!(
                    "{} does not say within {START_LIMIT:?} where it is ready",
                    program.display()
                )
                .into())
            }
        }
    }

    /// Where it serves.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns once the node says that it is ready, and has issued one of this coupon. An owner with a
    /// million issuances takes seconds to load, longer than a request waits: so it is asked again.
    pub(super) async fn issues(&self, coupon: CouponId) -> Result<(), Failed> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_LIMIT)
            .no_proxy()
            .build()?;
        let (ready, issuances) = (
            format!("{}/readyz", self.url),
            format!("{}/v1/coupons/{coupon}/issuances", self.url),
        );
        let begun = Instant::now();
        loop {
            let mut answer = client.get(&ready).send().await?;
            if answer.status() == StatusCode::OK {
                answer = client
                    .post(&issuances)
                    .header("X-User-Id", Bench::name())
                    .send()
                    .await?;
            }
            if answer.status() == StatusCode::CREATED {
                return Ok(());
            }
            if begun.elapsed() > START_LIMIT {
                return Err(format!(
                    "{} issues nothing within {START_LIMIT:?}: {}",
                    self.url,
                    answer.text().await?
                )
                .into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its metrics, as Prometheus reads them.
    pub(super) async fn metrics(&self) -> Result<String, Failed> {
        prometheus::read(&self.url).await
    }

    /// How many requests its door has answered.
    pub(super) async fn door_answers(&self) -> Result<f64, Failed> {
        Ok(prometheus::value(
            &self.metrics().await?,
            actors::metrics::DOOR_ANSWERS,
        ))
    }

    /// The memory that is its own now, in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kib = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        });
        Ok(kib.ok_or("the system does not tell its memory")? * 1_024)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its data is thrown away; there is nothing to finish.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What this process has used of processors until now, all its threads together, as user and in the system:
/// to a hundredth of a second, which is how the system tells it. Its metrics count whole seconds.
pub(super) fn processor_time(process: u32) -> Result<Duration, Failed> {
    let ticks = ticks(&std::fs::read_to_string(format!("/proc/{process}/stat"))?)
        .ok_or("the system does not tell a process' time")?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Columns 14 and 15 of the line. The second is the program's name in parentheses, which may have anything in
/// it.
fn ticks(stat: &str) -> Option<u64> {
    let mut columns = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(11);
    Some(columns.next()?.parse::<u64>().ok()? + columns.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_found_behind_whatever_name() {
        let line = "4711 (a) name) S 1 4711 4711 0 -1 4194560 900 0 3 0 250 17 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        assert_eq!(ticks(line), Some(267));
        assert_eq!(ticks("4711 (x) S 1 4711"), None);
        let (begun, own) = (Instant::now(), std::process::id());
        let before = processor_time(own).unwrap();
        while begun.elapsed() < Duration::from_millis(300) {}
        let used = processor_time(own).unwrap() - before;
        // Others may have the processors for most of that time, but it cannot have used none; nor more than
        // all.
        assert!(used > Duration::ZERO && used < 100 * begun.elapsed(), "{used:?}");
    }
}
