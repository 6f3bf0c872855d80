//! The programs that are measured, as child processes that end with their measurement.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use testkit::ids::CouponId;
use testkit::process::{Process, without_settings};

use super::three::Three;
use super::{ANSWER_LIMIT, Bench, prometheus};
use crate::beside;
use crate::load::Failed;

/// How long a program may take until it is ready, including the time to make the schema of a new database.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Time between two attempts.
const POLL: Duration = Duration::from_millis(50);
/// The nodes' admin token.
pub(super) const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A program that serves: a node or the bare route. Dropping this value kills the program, because its data
/// is not kept.
#[derive(Debug)]
pub(super) struct Service {
    process: Process,
    url: String,
}

impl Bench<'_> {
    /// Starts a node with a new name over this store.
    pub(super) fn node(&self, store_url: &str) -> Result<Service, Failed> {
        self.node_in(&self.node_data()?, store_url)
    }

    /// Makes a data directory, where a node keeps its name.
    pub(super) fn node_data(&self) -> Result<PathBuf, Failed> {
        Ok(tempfile::Builder::new()
            .prefix("node-")
            .tempdir_in(self.scratch)?
            .keep())
    }

    /// Starts a node over this store. The node takes its name from this data directory, and at once ends a
    /// predecessor of the same name. A node with another name would see a peer that owns the shards, report
    /// ready, and serve nothing until a lease has passed.
    pub(super) fn node_in(&self, data: &Path, store_url: &str) -> Result<Service, Failed> {
        let program = beside(self.flags.firstcome.as_deref(), "firstcome")?;
        let mut command = Command::new(&program);
        without_settings(&mut command);
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
        Service::start(command, &data.join("log"))
    }

    /// Starts three nodes of one cluster over this store.
    pub(super) async fn three(&self, store_url: &str) -> Result<Three, Failed> {
        let program = beside(self.flags.firstcome.as_deref(), "firstcome")?;
        Three::start(&program, self.scratch, store_url).await
    }

    /// Starts the bare route.
    pub(super) fn bare_route(&self) -> Result<Service, Failed> {
        let program = beside(self.flags.bare_route.as_deref(), "examples/bare_route")?;
        let mut command = Command::new(&program);
        command.args(["--listen", "127.0.0.1:0"]);
        Service::start(command, &self.scratch.join("bare_route.log"))
    }
}

impl Service {
    fn start(command: Command, log: &Path) -> Result<Self, Failed> {
        let process = Process::start(command, log)?;
        let address = tokio::task::block_in_place(|| process.address(START_LIMIT))?;
        Ok(Self {
            url: format!("http://{address}"),
            process,
        })
    }

    /// Returns the URL of the program.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the node is ready and has issued this coupon once. An owner with a million issuances takes
    /// seconds to load, longer than a request waits, so the request is repeated.
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

    /// Returns the node's metrics in Prometheus' text format.
    pub(super) async fn metrics(&self) -> Result<String, Failed> {
        prometheus::read(&self.url).await
    }

    /// Returns how many requests the node's door has answered.
    pub(super) async fn door_answers(&self) -> Result<f64, Failed> {
        Ok(prometheus::value(
            &self.metrics().await?,
            actors::metrics::DOOR_ANSWERS,
        ))
    }

    /// Returns the id of the process.
    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the program's resident memory in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64, Failed> {
        Ok(self.process.memory("VmRSS")?)
    }
}

/// Returns the processor time that all threads of a process have used so far, in user and system mode. The
/// system counts hundredths of a second; a node's metrics count whole seconds.
pub(crate) fn processor_time(process: u32) -> Result<Duration, Failed> {
    let ticks = ticks(&std::fs::read_to_string(format!("/proc/{process}/stat"))?)
        .ok_or("the system does not report the processor time")?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// Reads columns 14 and 15 of the line. The second column is the program's name in parentheses, which may
/// contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut columns = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(11);
    Some(columns.next()?.parse::<u64>().ok()? + columns.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_is_found_after_any_program_name() {
        let line = "4711 (a) name) S 1 4711 4711 0 -1 4194560 900 0 3 0 250 17 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        assert_eq!(ticks(line), Some(267));
        assert_eq!(ticks("4711 (x) S 1 4711"), None);
        let (begun, own) = (Instant::now(), std::process::id());
        let before = processor_time(own).unwrap();
        while begun.elapsed() < Duration::from_millis(300) {}
        let used = processor_time(own).unwrap() - before;
        // Other programs may use the processors for most of that time, and other threads of this process may
        // run too. So the bounds are wide.
        assert!(used > Duration::ZERO && used < 100 * begun.elapsed(), "{used:?}");
    }
}
