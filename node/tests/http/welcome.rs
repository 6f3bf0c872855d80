//! What the program prints: an address and commands to try, and never a secret where others may read it.

use std::io::Read;
use std::process::Command;
use std::sync::mpsc;

use serde_json::Value;
use tempfile::TempDir;
use testkit::output;
use testkit::process::{Signal, Spawn};

use crate::process::{START_LIMIT, Serving, firstcome, run};
use crate::support::ADMIN_TOKEN;

#[tokio::test]
async fn the_commands_that_a_first_start_prints_work() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &[]);
    let lines: Vec<&String> = serving
        .welcome
        .iter()
        .filter(|line| line.starts_with("curl "))
        .collect();
    let outputs: Vec<String> = lines
        .iter()
        .map(|line| {
            let output = Command::new("sh")
                .args(["-c", &format!("{line} --fail --silent --show-error")])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert_eq!(outputs.len(), 3, "{:?}", serving.welcome);
    assert!(
        outputs[0].contains("\"id\":1,")
            && outputs[1].contains("\"id\":\"1-1\"")
            && outputs[2].contains("\"id\":\"1-1\""),
        "{outputs:?}"
    );
    serving.signal(Signal::TERM);
    assert_eq!(serving.exit_code().await, Some(0));
    let file = data.path().join("data/admin_token");
    let token = std::fs::read_to_string(&file).unwrap();
    let said = format!("{}{}", serving.welcome.join("\n"), serving.process.log());
    assert!(!said.contains(token.trim()), "{said}");

    // The token is stored, and the commands name the id of the next coupon.
    let again = Serving::start(&data, &[]);
    let reads_file = format!("$(cat '{}')", file.canonicalize().unwrap().display());
    assert!(
        again.welcome.iter().any(|line| line.contains(&reads_file))
            && again.welcome.iter().any(|line| line.contains("/v1/coupons/2/")),
        "{:?}",
        again.welcome
    );
}

/// Returns what a node prints on a terminal once it is ready.
fn printed_on_a_terminal(data: &TempDir) -> String {
    let (mut terminal, end) = output::terminal().unwrap();
    let command = firstcome(data, &["--listen=127.0.0.1:0"]);
    let spawn = Spawn::new(command, data.path().join("log")).output(end);
    let _process = spawn.start().unwrap();
    let (sender, printed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = terminal.read(&mut bytes) {
            let _ = sender.send(bytes[..read].to_vec());
        }
    });
    let mut text = String::new();
    while !text.contains("/v1/me/issuances") {
        let more = printed
            .recv_timeout(START_LIMIT)
            .expect("the commands are printed");
        text.push_str(&String::from_utf8_lossy(&more));
    }
    text
}

#[test]
fn the_admin_token_is_printed_on_a_terminal_at_the_first_start_only() {
    let data = tempfile::tempdir().unwrap();
    let (first, second) = (printed_on_a_terminal(&data), printed_on_a_terminal(&data));
    let token = std::fs::read_to_string(data.path().join("data/admin_token")).unwrap();
    assert!(first.contains(&format!("Bearer {}\"", token.trim())), "{first}");
    assert!(
        !second.contains(token.trim()) && second.contains("$(cat "),
        "{second}"
    );
    let log = std::fs::read_to_string(data.path().join("log")).unwrap();
    assert!(!log.contains(token.trim()), "{log}");
}

#[tokio::test]
async fn with_a_json_log_every_line_is_an_object_and_nothing_else_is_printed() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &["--set", "log.format=json"]);
    let failing = ["serve", "--listen=127.0.0.1:0", "--set", "log.format=json"];
    let (ok, stdout, stderr) = run(&data, &failing);
    assert!(
        !ok && stdout.is_empty() && stderr.contains("in use by another process"),
        "{stderr}"
    );
    assert!(!serving.has_printed());
    let log = serving.end().await + &stderr;
    let token = std::fs::read_to_string(data.path().join("data/admin_token")).unwrap();
    assert!(!log.contains(token.trim()), "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect(line);
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn a_configured_token_is_not_printed() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &["--set", &format!("auth.admin_token={ADMIN_TOKEN}")]);
    serving.signal(Signal::INT);
    assert_eq!(serving.exit_code().await, Some(0));
    let log = serving.process.log();
    assert!(
        !serving.welcome.join("\n").contains(ADMIN_TOKEN) && !log.contains(ADMIN_TOKEN),
        "{log}"
    );
    assert!(!data.path().join("data/admin_token").exists());
}
