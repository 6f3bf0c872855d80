//! A log that cannot be written: closed, on a full disk, in a pipe that is not read or whose reader is gone.
//! The node serves, recovers and ends as it does with a working log, and counts the lines that are lost.

use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use testkit::node::ADMIN_TOKEN;
use testkit::output;
use testkit::poll::{LIMIT, eventually};
use testkit::process::{Process, Signal, Spawn, without_settings};
use tokio::time::timeout;

use crate::FIRSTCOME;

/// How long a node may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a node on loopback may take to stop: well below `shutdown.limit`.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Closed,
    Full,
    Stalled,
    ReaderGone,
}

const ALL: [Broken; 4] = [Broken::Closed, Broken::Full, Broken::Stalled, Broken::ReaderGone];

/// A node whose log is broken. It ends with the test.
struct Node {
    process: Process,
    address: String,
    client: Client,
    data: TempDir,
    _stalled: Option<PipeReader>,
}

impl Node {
    fn start(broken: Broken, keys: &[&str], preload: Option<&Path>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = match broken {
            Broken::Closed => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"exec "$0" "$@" 2>&-"#, FIRSTCOME]);
                shell
            }
            _ => Command::new(FIRSTCOME),
        };
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        without_settings(&mut command)
            .args(["--listen=127.0.0.1:0", "--set", &token])
            .args(keys.iter().flat_map(|key| ["--set", key]))
            .current_dir(data.path());
        if let Some(library) = preload {
            command
                .env("LD_PRELOAD", library)
                .env("FAIL_ONE_SYNC", failing_sync(data.path()));
        }
        let (reader, output) = match broken {
            Broken::Closed => (None, Stdio::null()),
            Broken::Full => (None, output::full().unwrap()),
            Broken::Stalled => keep(output::stalled().unwrap()),
            Broken::ReaderGone => keep(output::pipe().unwrap()),
        };
        let spawn = Spawn::new(command, data.path().join("log")).error_output(output);
        let process = spawn.start().unwrap();
        let address = tokio::task::block_in_place(|| process.address(START_LIMIT)).unwrap();
        Self {
            process,
            address,
            client: Client::builder()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
            data,
            _stalled: reader.filter(|_| broken == Broken::Stalled),
        }
    }

    async fn create(&self) -> reqwest::Result<StatusCode> {
        let request = self.client.post(format!("http://{}/v1/coupons", self.address));
        let body = json!({"title": "Black Friday", "total_quantity": 100});
        let response = request.bearer_auth(ADMIN_TOKEN).json(&body).send().await?;
        Ok(response.status())
    }

    async fn issue(&self, user: &str) -> reqwest::Result<StatusCode> {
        let url = format!("http://{}/v1/coupons/1/issuances", self.address);
        let response = self.client.post(url).header("X-User-Id", user).send().await?;
        Ok(response.status())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = self.client.get(format!("http://{}{path}", self.address));
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn dropped_lines(&self) -> f64 {
        testkit::prometheus::value(&self.get("/metrics").await.1, "coupon_log_lines_dropped_total")
    }

    async fn is_ready(&self) -> bool {
        self.get("/readyz").await.0 == 200
    }

    /// Stops the node as orchestrators do, and asserts that it ends with everything done.
    async fn stop(&self, broken: Broken) {
        self.process.signal(Signal::TERM).unwrap();
        let status = self.process.ended(STOP_LIMIT).await.unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{broken:?}");
    }
}

fn keep((reader, output): (PipeReader, Stdio)) -> (Option<PipeReader>, Stdio) {
    (Some(reader), output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_costs_lines_and_nothing_else() {
    let all = ALL.map(async |broken| {
        let node = Node::start(broken, &["log.level=info,actors=debug"], None);
        assert_eq!(node.create().await.unwrap(), 201, "{broken:?}");
        assert_eq!(node.issue("alice").await.unwrap(), 201, "{broken:?}");
        // The tasks that notice this and recover from it also log it, and the node cannot do without these
        // tasks.
        let mut other = SqliteConnectOptions::new()
            .filename(node.data.path().join("data/firstcome.db"))
            .connect()
            .await
            .unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        eventually("the node notices", async || !node.is_ready().await).await;
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        eventually("the node recovers", async || node.is_ready().await).await;
        assert_eq!(node.issue("bob").await.unwrap(), 201, "{broken:?}");
        if matches!(broken, Broken::Full | Broken::ReaderGone) {
            eventually("the lines are counted", async || node.dropped_lines().await > 0.0).await;
        }
        node.stop(broken).await;
    });
    join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_although_nothing_reads_the_access_log() {
    let node = Node::start(Broken::Stalled, &["log.access=all"], None);
    let requests = async || {
        while node.dropped_lines().await == 0.0 {
            for _ in 0..100 {
                assert_eq!(node.get("/livez").await.0, 200);
            }
        }
    };
    let all = join_all((0..16).map(|_| requests()));
    timeout(LIMIT, all).await.expect("the queue of the log is full");
    assert_eq!(node.create().await.unwrap(), 201);
    assert_eq!(node.issue("alice").await.unwrap(), 201);
    node.stop(Broken::Stalled).await;
}

/// The file whose presence makes one sync fail.
fn failing_sync(directory: &Path) -> PathBuf {
    directory.join("fail-one-sync")
}

/// Compiles a library that fails the next sync of a process, once the file named by `FAIL_ONE_SYNC` exists.
/// The system reports such an error only once as well.
fn library_that_fails_a_sync(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("sync.c"), directory.join("sync.so"));
    let code = r#"
        #include <errno.h>
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static int sync_or_fail(long call, int file) {
            const char *failing = getenv("FAIL_ONE_SYNC");
            if (failing && unlink(failing) == 0) { errno = EIO; return -1; }
            return syscall(call, file);
        }
        int fdatasync(int file) { return sync_or_fail(SYS_fdatasync, file); }
        int fsync(int file) { return sync_or_fail(SYS_fsync, file); }
    "#;
    std::fs::write(&source, code).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiled.unwrap().success());
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_process_whatever_its_log_is_like() {
    let directory = tempfile::tempdir().unwrap();
    let library = library_that_fails_a_sync(directory.path());
    let all = ALL.map(async |broken| {
        let node = Node::start(broken, &[], Some(&library));
        assert_eq!(node.create().await.unwrap(), 201, "{broken:?}");
        let failing = failing_sync(node.data.path());
        std::fs::write(&failing, "").unwrap();
        // The sync of the next beat or of any other write fails.
        eventually("a sync has failed", async || !failing.exists()).await;
        assert!(
            node.create().await.is_err(),
            "{broken:?}: answered after a failed sync"
        );
        assert!(
            node.issue("alice").await.is_err(),
            "{broken:?}: answered after a failed sync"
        );
        let status = node.process.ended(STOP_LIMIT).await.unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(74), "{broken:?}");
    });
    join_all(all).await;
}
