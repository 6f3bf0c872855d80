//! The program as a process: signals, commands, and errors at the start.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::poll::eventually;
use testkit::process::{Process, Signal, without_settings};

use crate::support::ADMIN_TOKEN;

/// How long a process may take to start or to stop.
pub const START_LIMIT: Duration = Duration::from_secs(60);

pub fn firstcome(data: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome"));
    without_settings(&mut command)
        .args(arguments)
        .current_dir(data.path())
        .stdin(Stdio::null());
    command
}

pub fn run(data: &TempDir, arguments: &[&str]) -> (bool, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = firstcome(data, arguments).output().unwrap();
    (
        status.success(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A serving process, which ends with the test.
pub struct Serving {
    pub process: Process,
    /// The lines that it printed, up to the last command to try.
    pub welcome: Vec<String>,
    pub address: String,
}

impl Serving {
    pub fn start(data: &TempDir, arguments: &[&str]) -> Self {
        Self::started(data, firstcome(data, arguments), arguments)
    }

    /// Starts a process with a limit of open files.
    pub fn start_below(data: &TempDir, open_files_max: u32, arguments: &[&str]) -> Self {
        Self::start_in_shell(data, &format!("ulimit -n {open_files_max}"), arguments)
    }

    /// Starts a process after a shell command.
    fn start_in_shell(data: &TempDir, before: &str, arguments: &[&str]) -> Self {
        let program = firstcome(data, arguments);
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{before}; exec \"$0\" \"$@\"")])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(data.path());
        Self::started(data, command, arguments)
    }

    /// Ends the process as orchestrators do, and returns its log.
    pub async fn end(self) -> String {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code().await, Some(0));
        self.process.log()
    }

    /// Starts a process by this command, which has these arguments.
    pub fn started(data: &TempDir, mut command: Command, arguments: &[&str]) -> Self {
        // Processes that are started one after the other over one directory each have their own log.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let log = format!("log-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        command.arg("--listen=127.0.0.1:0");
        let process = Process::start(command, data.path().join(log)).unwrap();
        if arguments.contains(&"log.format=json") {
            return Self {
                address: logged_address(&process),
                process,
                welcome: Vec::new(),
            };
        }
        let has_own_token = arguments.iter().any(|text| text.contains(ADMIN_TOKEN));
        let is_last =
            |line: &str| line.contains("/v1/me/issuances") || line.contains("is ready at") && has_own_token;
        let welcome = process.lines_until(START_LIMIT, is_last).unwrap();
        let address = welcome.first().and_then(|line| line.split("://").nth(1));
        Self {
            address: address.expect("an address is printed").to_owned(),
            process,
            welcome,
        }
    }

    /// True if it has printed anything on its standard output.
    pub fn has_printed(&self) -> bool {
        self.process.has_printed(|_| true)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    pub async fn exit_code(&self) -> Option<i32> {
        let status = self.process.ended(START_LIMIT).await.unwrap();
        status.expect("the process ends").code()
    }
}

/// Waits until a JSON log says that the node is ready, and returns the address in that line.
fn logged_address(process: &Process) -> String {
    let begun = Instant::now();
    while begun.elapsed() < START_LIMIT {
        let log = process.log();
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for line in complete.lines() {
            let line: Value = serde_json::from_str(line).expect(line);
            if line["message"] == "ready" {
                return line["address"].as_str().unwrap().to_owned();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the node is not ready: {}", process.log_tail());
}

#[tokio::test]
async fn a_leaving_node_is_not_ready_but_serves_for_the_delay() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &["--set", "shutdown.delay=1s"]);
    serving.signal(Signal::TERM);
    let get = async |path: &str| {
        let response = reqwest::get(format!("http://{}{path}", serving.address))
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    eventually("/readyz says that it drains", async || {
        get("/readyz").await.0 == 503
    })
    .await;
    assert_eq!(
        get("/readyz").await.1,
        r#"{"ready":false,"reasons":["draining"]}"#
    );
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(get("/v1/coupons").await.0, 200);
    assert_eq!(serving.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &["--set", "shutdown.delay=60s"]);
    serving.signal(Signal::TERM);
    let url = format!("http://{}/readyz", serving.address);
    eventually("the first signal is noticed", async || {
        reqwest::get(&url).await.unwrap().status() == 503
    })
    .await;
    let started = Instant::now();
    serving.signal(Signal::TERM);
    assert_eq!(serving.exit_code().await, Some(1));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_node_whose_terminal_goes_away_drains() {
    let data = tempfile::tempdir().unwrap();
    // Processes inherit an ignored SIGHUP, for example from `nohup cargo test`.
    let receiving = "exec env --default-signal=HUP \"$0\" \"$@\"";
    let serving = Serving::start_in_shell(&data, receiving, &["--set", "shutdown.delay=1s"]);
    serving.signal(Signal::HUP);
    let url = format!("http://{}/readyz", serving.address);
    eventually("/readyz says that it drains", async || {
        reqwest::get(&url).await.unwrap().status() == 503
    })
    .await;
    assert_eq!(serving.exit_code().await, Some(0));
    let log = serving.process.log();
    assert!(log.contains("SIGHUP") && log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn a_node_that_was_started_to_ignore_sighup_ignores_it() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start_in_shell(&data, "trap '' HUP", &["--set", "shutdown.delay=1s"]);
    serving.signal(Signal::HUP);
    let url = format!("http://{}/readyz", serving.address);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    // If the node had received the first signal, this would be the second, which ends the process at once.
    serving.signal(Signal::TERM);
    assert_eq!(serving.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_killed_node_restarts_with_everything_it_answered() {
    let data = tempfile::tempdir().unwrap();
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    let serving = Serving::start(&data, &["--set", &token]);
    let client = reqwest::Client::new();
    let create = client
        .post(format!("http://{}/v1/coupons", serving.address))
        .bearer_auth(ADMIN_TOKEN)
        .header("Content-Type", "application/json");
    assert_eq!(
        create
            .body(r#"{"title": "T", "total_quantity": 5}"#)
            .send()
            .await
            .unwrap()
            .status(),
        201
    );
    let issue = |address: &str, user: &str| {
        client
            .post(format!("http://{address}/v1/coupons/1/issuances"))
            .header("X-User-Id", user)
            .send()
    };
    assert_eq!(issue(&serving.address, "alice").await.unwrap().status(), 201);
    serving.process.kill();
    let serving = Serving::start(&data, &["--set", &token]);
    assert_eq!(issue(&serving.address, "alice").await.unwrap().status(), 409);
    assert!(
        issue(&serving.address, "bob")
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("\"1-2\"")
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_data_refuses_to_start() {
    let data = tempfile::tempdir().unwrap();
    let _serving = Serving::start(&data, &[]);
    for command in [
        ["serve", "--listen=127.0.0.1:0"],
        ["migrate", "--listen=127.0.0.1:0"],
    ] {
        let (ok, _, stderr) = run(&data, &command);
        assert!(!ok && stderr.contains("in use by another process"), "{stderr}");
    }
}

#[tokio::test]
async fn healthcheck_connects_to_the_configured_address() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &[]);
    let listen = format!("--listen={}", serving.address);
    let (ok, _, stderr) = run(&data, &["healthcheck", &listen]);
    assert!(ok, "{stderr}");
    serving.signal(Signal::TERM);
    assert_eq!(serving.exit_code().await, Some(0));
    let (ok, _, stderr) = run(&data, &["healthcheck", &listen]);
    assert!(!ok && stderr.contains(&serving.address), "{stderr}");
}

#[test]
fn migrate_creates_the_database() {
    let data = tempfile::tempdir().unwrap();
    let (ok, _, stderr) = run(&data, &["migrate"]);
    assert!(ok, "{stderr}");
    assert!(Path::new(data.path()).join("data/firstcome.db").exists());
}

#[test]
fn config_check_prints_the_effective_configuration_without_secrets() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(
        data.path().join("node.toml"),
        "[http]\ndeadline = \"2s\"\n[auth]\nadmin_token = \"very-secret-token\"\n",
    )
    .unwrap();
    let (ok, stdout, stderr) = run(
        &data,
        &[
            "config",
            "check",
            "--config",
            "node.toml",
            "--set",
            "log.format=json",
        ],
    );
    assert!(ok, "{stderr}");
    assert!(
        stdout.contains("deadline = \"2s\"")
            && stdout.contains("format = \"json\"")
            && stdout.contains("[hidden]"),
        "{stdout}"
    );
    assert!(!stdout.contains("very-secret-token"));
    assert!(!data.path().join("data").exists());
}

#[test]
fn the_sample_configuration_equals_the_defaults() {
    let data = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../cluster-config/node.toml");
    let (ok, with, stderr) = run(&data, &["config", "check", "--config", file]);
    assert!(ok, "{stderr}");
    assert_eq!(with, run(&data, &["config", "check"]).1);
    // The sample leaves out no key that has a default: such a key would pass the comparison above.
    let text = std::fs::read_to_string(file).unwrap();
    for key in with
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
    {
        assert!(
            text.lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = "))),
            "{key}"
        );
    }
}

#[test]
fn an_invalid_configuration_is_reported_before_anything_is_started() {
    let data = tempfile::tempdir().unwrap();
    for (setting, name) in [
        ("http.lsten=127.0.0.1:0", "lsten"),
        ("http.listen=0.0.0.0:0", "auth.trusted_proxies"),
        ("store.url=postgres://x/y", "mysql://"),
    ] {
        let (ok, _, stderr) = run(&data, &["serve", "--set", setting]);
        assert!(!ok && stderr.contains(name), "{stderr}");
    }
    assert!(!data.path().join("data").exists());
}

#[test]
fn missing_certificates_are_reported_before_anything_is_started() {
    let data = tempfile::tempdir().unwrap();
    let cluster = [
        "--set=store.url=mysql://user@127.0.0.1/firstcome",
        "--set=cluster.listen=127.0.0.1:0",
        "--set=cluster.cookie=0123456789abcdef",
        "--set=auth.admin_token=0123456789abcdef",
        "--set=cluster.tls.certificate_file=none.crt",
        "--set=cluster.tls.key_file=none.key",
        "--set=cluster.tls.ca_file=none-ca.crt",
    ];
    let http = [
        "--set=http.tls.certificate_file=none.crt",
        "--set=http.tls.key_file=none.key",
    ];
    for (keys, named) in [
        (&http[..], "http.tls: none.crt: "),
        (&cluster, "cluster.tls: none-ca.crt: "),
    ] {
        for command in [&["serve"][..], &["config", "check"]] {
            let (ok, stdout, stderr) = run(&data, &[command, keys].concat());
            assert!(
                !ok && stderr.contains(named) && stdout.is_empty(),
                "{stdout}{stderr}"
            );
        }
    }
    assert!(!data.path().join("data").exists());
}

#[test]
fn invalid_keys_are_reported_before_anything_is_started() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("jwks.json"), "{\"keys\": []}").unwrap();
    for (keys, name) in [
        (
            ["auth.jwt.algorithm=HS256", "auth.jwt.key=short"],
            "auth.jwt.key is a secret of less than 32 bytes",
        ),
        (
            ["auth.jwt.algorithm=ES256", "auth.jwt.key=nonsense"],
            "auth.jwt.key is not a public key for ES256",
        ),
        (
            ["auth.jwt.leeway=1s", "auth.jwt.jwks_file=jwks.json"],
            "auth.jwt.jwks_file: jwks.json: holds no key",
        ),
        (
            ["auth.jwt.leeway=1s", "auth.jwt.jwks_file=missing.json"],
            "auth.jwt.jwks_file: missing.json: ",
        ),
    ] {
        for command in [
            &["serve"][..],
            &["config", "check"],
            &["token", "--user", "alice"],
        ] {
            let arguments = [
                command,
                &["--set", "auth.mode=jwt", "--set", keys[0], "--set", keys[1]],
            ]
            .concat();
            let (ok, stdout, stderr) = run(&data, &arguments);
            assert!(
                !ok && stderr.contains(name) && stdout.is_empty(),
                "{stdout}{stderr}"
            );
        }
    }
    assert!(!data.path().join("data").exists());
}

#[test]
fn the_version_names_the_commit() {
    let data = tempfile::tempdir().unwrap();
    let (ok, stdout, _) = run(&data, &["--version"]);
    let is_checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.git").exists();
    assert!(!is_checkout || !stdout.contains("unknown"), "{stdout}");
    assert!(
        ok && stdout.starts_with(concat!("firstcome ", env!("CARGO_PKG_VERSION"), " ("))
            && stdout.trim_end().ends_with(')'),
        "{stdout}"
    );
}
