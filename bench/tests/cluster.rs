//! The program `firstcome-bench cluster` from outside: how it starts, watches and stops nodes. The nodes are
//! scripts that log what happens to them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// Longer than any wait of these tests on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A stand-in for a node: it prints that it is ready, and stops on SIGTERM. With `HABIT=stubborn` it does not
/// stop; with `HABIT=broken`, node-2 fails at its start.
const STAND_IN: &str = r#"#!/bin/sh
name=$(sed -n 's/^node.id = "\(.*\)"$/\1/p' "$2")
note() { echo "$name $1" >>"$NOTES"; }
stop() { note "is asked to stop"; [ "$HABIT" = stubborn ] && return; sleep 0.2; note stops; exit 0; }
trap stop TERM
trap 'note "is interrupted"' INT
note "has $(grep -c . "$2") keys, and $3 $4"
if [ "$HABIT" = broken ] && [ "$name" = node-2 ]; then echo "no port is left" >&2; exit 3; fi
echo "Firstcome is ready at $name"
while :; do
  if [ -e "$NOTES.crash" ] && [ "$name" = node-2 ]; then echo "a cosmic ray" >&2; exit 4; fi
  sleep 0.02
done
"#;

/// The program, with scripts in place of nodes, in a process group of its own as in a terminal.
struct Run {
    directory: TempDir,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Run {
    fn of(habit: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stand_in = directory.path().join("firstcome");
        fs::write(&stand_in, STAND_IN).unwrap();
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome-bench"));
        command
            .arg("cluster")
            .arg("--firstcome")
            .arg(&stand_in)
            .args(flags)
            .env("HABIT", habit)
            .env("NOTES", directory.path().join("notes"));
        command
            .env("TMPDIR", directory.path())
            .env("MYSQLD", "/nowhere/mysqld")
            .env("MARIADBD", "/nowhere/mariadbd");
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().unwrap(), &said);
        listen(child.stderr.take().unwrap(), &said);
        Self {
            directory,
            child,
            said,
        }
    }

    fn over_a_server(habit: &str) -> Self {
        Self::of(
            habit,
            &[
                "--url",
                "mysql://user:password@nowhere/firstcome",
                "--set",
                "log.level=warn",
            ],
        )
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.directory.path().join("notes")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }

    /// Returns the HTTP port of node-1, once it is printed.
    fn port(&self) -> u16 {
        let said = self.said();
        let (_, rest) = said.split_once("node-1  http://127.0.0.1:").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    fn noted(&self, note: &str) -> usize {
        self.notes().iter().filter(|noted| noted.ends_with(note)).count()
    }

    fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < LIMIT,
                "never: {what}: {}\n{:?}",
                self.said(),
                self.notes()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn says(&self, what: &str) {
        self.eventually(what, || self.said().contains(what));
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap()).unwrap()
    }

    /// Interrupts all processes of the group, as Ctrl-C in a terminal does.
    fn interrupt(&self) {
        kill_process_group(self.pid(), Signal::INT).unwrap();
    }

    fn exit_status(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(begun.elapsed() < LIMIT, "the program hangs: {}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the folders that the program made and did not remove.
    fn left_behind(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(output: impl std::io::Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            said.lock().unwrap().push_str(&format!("{line}\n"));
        }
    });
}

#[test]
fn three_nodes_are_started_and_stop_one_after_the_other() {
    let mut run = Run::over_a_server("");
    run.says("Ctrl-C stops the nodes one after the other");
    let said = run.said();
    let first = run.port();
    let at = |node: u16| format!("http://127.0.0.1:{}", first + node);
    for line in [
        "3 nodes are one cluster. The admin token is ".to_owned(),
        format!("node-1  {}  process ", at(0)),
        format!("node-3  {}  process ", at(2)),
        format!("curl -X POST {}/v1/coupons ", at(0)),
        format!("curl -X POST {}/v1/coupons/1/issuances ", at(1)),
        format!("curl {}/v1/me/issuances ", at(2)),
    ] {
        assert!(said.contains(&line), "{line:?} is not in {said}");
    }
    assert_eq!(run.noted("has 9 keys, and --set log.level=warn"), 3);
    run.interrupt();
    assert_eq!(run.exit_status(), 0, "{}", run.said());
    let stopped: Vec<String> = run.notes().split_off(3);
    let in_order: Vec<String> = (1..=3)
        .flat_map(|node| {
            [
                format!("node-{node} is asked to stop"),
                format!("node-{node} stops"),
            ]
        })
        .collect();
    assert_eq!(stopped, in_order);
    assert_eq!(run.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn a_node_that_ends_by_itself_is_reported_and_the_others_go_on() {
    let mut run = Run::over_a_server("");
    run.says("Ctrl-C");
    fs::write(run.directory.path().join("notes.crash"), "").unwrap();
    run.says("node-2 ended by itself: exit status: 4");
    run.says("a cosmic ray");
    run.says("to start it again: cd ");
    assert_eq!(run.noted("is asked to stop"), 0);
    run.interrupt();
    assert_eq!(run.exit_status(), 1);
    assert_eq!((run.noted("is asked to stop"), run.noted("stops")), (2, 2));
}

#[test]
fn nodes_that_do_not_become_ready_are_reported_and_nothing_is_left_behind() {
    let mut run = Run::over_a_server("broken");
    assert_eq!(run.exit_status(), 2);
    let said = run.said();
    assert!(
        said.contains("node-2 ended before it was ready: exit status: 3\nno port is left"),
        "{said}"
    );
    assert_eq!((run.noted("stops"), run.left_behind()), (2, Vec::new()));
}

#[test]
fn a_second_signal_kills_all_nodes() {
    let mut run = Run::over_a_server("stubborn");
    run.says("Ctrl-C");
    run.interrupt();
    run.eventually("it is asked to stop", || run.noted("is asked to stop") == 1);
    run.interrupt();
    assert_eq!(run.exit_status(), 1);
    assert!(run.said().contains("killing all nodes"), "{}", run.said());
    assert_eq!((run.noted("is asked to stop"), run.noted("stops")), (1, 0));
}

#[test]
fn nodes_stop_when_the_program_is_killed() {
    let run = Run::over_a_server("");
    run.says("Ctrl-C");
    kill_process(run.pid(), Signal::KILL).unwrap();
    run.eventually("all stop", || run.noted("stops") == 3);
}

/// Takes a port in the range of the usual ones, whatever else runs on this machine.
fn occupied(usual: std::ops::Range<u16>) -> TcpListener {
    let mut ports = usual;
    ports
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .unwrap()
}

#[test]
fn usual_ports_that_are_in_use_are_passed_over() {
    let (http, link) = (occupied(8080..8580), occupied(7400..7900));
    let mut run = Run::over_a_server("");
    run.says("Ctrl-C");
    let first = run.port();
    let taken = http.local_addr().unwrap().port();
    assert!(!(first..first + 3).contains(&taken), "{first}: {taken}");
    let node = run.left_behind()[0].join("node-1").join("node.toml");
    let keys = fs::read_to_string(node).unwrap();
    let taken = link.local_addr().unwrap().port();
    assert!(!keys.contains(&format!(":{taken}")), "{keys}");
    run.interrupt();
    assert_eq!(run.exit_status(), 0, "{}", run.said());
}

#[test]
fn a_named_port_that_is_in_use_is_an_error_before_a_server_is_started() {
    for flag in ["--http-port", "--link-port"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut run = Run::of("", &["--nodes", "1", flag, &port.to_string()]);
        assert_eq!(run.exit_status(), 2);
        let said = run.said();
        assert!(
            said.contains(&format!("127.0.0.1:{port} ")) && said.contains(flag) && !said.contains("starting"),
            "{said}"
        );
        assert_eq!(run.notes(), Vec::<String>::new());
    }
    let mut run = Run::of("", &["--http-port", "64001", "--link-port", "64002"]);
    assert_eq!(run.exit_status(), 2);
    assert!(run.said().contains("the same ports"), "{}", run.said());
}

#[test]
fn without_a_server_the_error_says_how_to_name_one() {
    let mut run = Run::of("", &[]);
    assert_eq!(run.exit_status(), 2);
    let said = run.said();
    assert!(
        said.contains("--url") && said.contains("/nowhere/mysqld") && said.contains("/nowhere/mariadbd"),
        "{said}"
    );
    assert_eq!(run.notes(), Vec::<String>::new());
}
