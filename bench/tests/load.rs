//! The program `firstcome-bench load` from outside, against a service with prescribed answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use testkit::history::{self, IssueAnswer, Operation};
use testkit::time::Timestamp;

/// How long any of these runs may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A service whose answers are a function of how many requests came before.
struct Service {
    url: String,
    asked: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Service {
    fn start(answer: impl Fn(u64, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = Self {
            url,
            asked: Arc::default(),
            gone: Arc::default(),
            streams: Arc::default(),
        };
        let (asked, gone, streams) = (
            Arc::clone(&service.asked),
            Arc::clone(&service.gone),
            Arc::clone(&service.streams),
        );
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if gone.load(Ordering::Relaxed) {
                    return;
                }
                let stream = stream.unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &asked, &*answer));
            }
        });
        service
    }

    /// Breaks all connections and stops listening, like a process that is gone.
    fn die(&self) {
        self.gone.store(true, Ordering::Relaxed);
        // The accept loop notices this with the next connection.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn load(&self, flags: &[&str]) -> Output {
        run(&[&["--url", &self.url, "--coupon", "42", "--ceiling", "0s"], flags].concat())
    }
}

fn serve(mut stream: TcpStream, asked: &AtomicU64, answer: &dyn Fn(u64, &str) -> String) {
    let mut request = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        request.push(byte[0]);
        if request.ends_with(b"\r\n\r\n") {
            let said = answer(
                asked.fetch_add(1, Ordering::Relaxed),
                &String::from_utf8_lossy(&request),
            );
            request.clear();
            if stream.write_all(said.as_bytes()).is_err() || said.contains("Connection: close") {
                return;
            }
        }
    }
}

fn spawn(flags: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome-bench"));
    command.arg("load").args(flags).env_remove("ADMIN_TOKEN");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(flags: &[&str]) -> Output {
    let begun = Instant::now();
    let output = spawn(flags).wait_with_output().unwrap();
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    output
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", text(output)))
}

fn issued(sequence: u64, request: &str) -> String {
    let user = request
        .split("X-User-Id: ")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    let body = format!(
        r#"{{"id":"42-{sequence}","coupon_id":42,"user_id":"{user}","sequence":{sequence},"status":"issued","issued_at":"2026-11-21T03:00:01.000500Z","expires_at":null}}"#
    );
    format!(
        "HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const SOLD_OUT: &str = "HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n{\"status\":409,\"code\":\"SOLD_OUT\",\"total_quantity\"\r\n3\r\n:5}\r\n0\r\n\r\n";

#[test]
fn requests_are_counted_by_outcome_and_recorded_as_a_history() {
    let service = Service::start(|n, request| {
        if n < 5 {
            issued(n + 1, request)
        } else {
            SOLD_OUT.to_owned()
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.jsonl");
    let output = service.load(&[
        "-n",
        "300",
        "-c",
        "8",
        "--json",
        "--history",
        path.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{:?}", text(&output));
    let figures = json(&output);
    assert_eq!(
        (&figures["requests"], &figures["errors"], &figures["unsent"]),
        (&300.into(), &0.into(), &0.into())
    );
    let counts: Vec<_> = figures["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|outcome| (outcome["outcome"].clone(), outcome["count"].clone()))
        .collect();
    assert_eq!(
        counts,
        [("SOLD_OUT".into(), 295.into()), ("issued".into(), 5.into())]
    );
    let read: Vec<Operation> = history::read(BufReader::new(std::fs::File::open(&path).unwrap()))
        .map(Result::unwrap)
        .collect();
    let given = |operation: &&Operation| matches!(operation, Operation::Issue(issue) if matches!(issue.answer, IssueAnswer::Issued { .. }));
    assert_eq!((read.len(), read.iter().filter(given).count()), (300, 5));
    assert_eq!(text(&output).2, "", "no progress bar without a terminal");
}

#[test]
fn a_connection_that_is_closed_after_each_answer_is_made_again() {
    let service = Service::start(|n, request| {
        issued(n + 1, request).replace("\r\nContent", "\r\nConnection: close\r\nContent")
    });
    let output = service.load(&["-n", "100", "-c", "4", "--json"]);
    let figures = json(&output);
    assert_eq!(
        (output.status.code(), &figures["requests"], &figures["errors"]),
        (Some(0), &100.into(), &0.into())
    );
}

#[test]
fn a_run_fails_with_a_table_if_the_service_dies_midway() {
    let service = Arc::new(Service::start(|n, request| issued(n + 1, request)));
    let begun = Instant::now();
    let dies = {
        let service = Arc::clone(&service);
        thread::spawn(move || {
            while service.asked.load(Ordering::Relaxed) < 200 {
                assert!(begun.elapsed() < LIMIT);
                thread::sleep(Duration::from_millis(5));
            }
            service.die();
        })
    };
    let (status, table, _) = text(&service.load(&["-d", "10m", "-c", "8"]));
    dies.join().unwrap();
    assert_eq!(status, Some(1), "{table}");
    for part in ["issued", "no connection", "MISSED: the service stopped answering"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
}

#[test]
fn a_run_fails_with_a_table_if_the_service_hangs() {
    let service = Service::start(|n, request| {
        if n > 100 {
            thread::sleep(LIMIT);
        }
        issued(n + 1, request)
    });
    let (status, table, _) = text(&service.load(&["-d", "10m", "-c", "4", "--timeout", "1s"]));
    assert_eq!(status, Some(1), "{table}");
    assert!(
        table.contains("no answer in time") && table.contains("stopped answering"),
        "{table}"
    );
}

#[test]
fn a_pause_of_the_service_is_in_the_latency_of_every_delayed_request() {
    // One pause of half a second. A closed loop would show one slow answer for each connection. At 1,000
    // arrivals per second, 500 fall into the pause.
    let service = Service::start(|n, request| {
        if n == 200 {
            thread::sleep(Duration::from_millis(500));
        }
        issued(n + 1, request)
    });
    let output = service.load(&["--rate", "1000", "-d", "2s", "-c", "1", "--json"]);
    let figures = json(&output);
    assert_eq!(
        (&figures["requests"], &figures["unsent"]),
        (&2_000.into(), &0.into())
    );
    assert!(
        figures["latency"]["p90_ms"].as_f64().unwrap() > 200.0,
        "{figures}"
    );
}

#[test]
fn a_missed_objective_is_printed_and_fails_the_run() {
    let service = Service::start(|n, request| {
        thread::sleep(Duration::from_millis(5));
        issued(n + 1, request)
    });
    let (status, table, _) =
        text(&service.load(&["-n", "50", "-c", "2", "--slo-p99", "1ms", "--slo-rate", "100000"]));
    assert_eq!(status, Some(1));
    assert!(
        table.contains("MISSED: p99") && table.contains("fewer than 100000"),
        "{table}"
    );
    let (status, table, _) =
        text(&service.load(&["-n", "50", "-c", "2", "--slo-p99", "1m", "--slo-rate", "1"]));
    assert_eq!((status, table.contains("MISSED")), (Some(0), false), "{table}");
    let broken = Service::start(|_, _| "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n".to_owned());
    let (status, table, _) = text(&broken.load(&["-n", "50", "-c", "2"]));
    assert_eq!((status, table.contains("50 errors")), (Some(1), true), "{table}");
    assert_eq!(
        broken
            .load(&["-n", "50", "-c", "2", "--slo-errors", "1"])
            .status
            .code(),
        Some(0)
    );
}

/// Starts a service that stores what it issues. When rows are read, it leaves out the last `forgets`
/// issuances.
fn storing(forgets: usize) -> Service {
    let stored: Mutex<Vec<String>> = Mutex::default();
    Service::start(move |_, request| {
        let mut stored = stored.lock().unwrap();
        let shown = &stored[..stored.len().saturating_sub(forgets)];
        let items = if request.starts_with("GET /v1/coupons?") {
            let issued = shown.len();
            format!(
                r#"{{"id":42,"title":"x","discount":null,"total_quantity":null,"per_user_limit":1,"starts_at":null,"ends_at":null,"use_within_days":null,"status":"open","phase":"live","issued":{issued},"remaining":null,"version":1,"created_at":"2026-11-21T03:00:00.000000Z","updated_at":"2026-11-21T03:00:00.000000Z"}}"#
            )
        } else if request.starts_with("GET ") {
            shown.join(",")
        } else {
            let told = issued(stored.len() as u64 + 1, request)
                .replace("2026-11-21T03:00:01.000500Z", &Timestamp::now().to_string());
            stored.push(told.split("\r\n\r\n").nth(1).unwrap().to_owned());
            return told;
        };
        let body = format!(r#"{{"items":[{items}],"next_cursor":null}}"#);
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

#[test]
fn a_broken_promise_fails_a_run_that_met_its_objectives() {
    let checked =
        |forgets| text(&storing(forgets).load(&["-n", "50", "-c", "2", "--check", "--admin-token", "t"]));
    let (status, out, error) = checked(0);
    assert!(
        status == Some(0) && out.contains("every promise was kept"),
        "{status:?} {out} {error}"
    );
    let (status, out, error) = checked(1);
    assert!(
        status == Some(1) && out.contains("42-50") && !out.contains("MISSED"),
        "{status:?} {out} {error}"
    );
}

/// Runs a check over a node that dies after its last answer of the run, and another node if there is one.
fn checked_after_a_death(another: Option<&Service>, more: &[&str]) -> (Option<i32>, String, String) {
    let dying = Arc::new(storing(0));
    let dies = {
        let dying = Arc::clone(&dying);
        let begun = Instant::now();
        thread::spawn(move || {
            while dying.asked.load(Ordering::Relaxed) < 50 {
                assert!(begun.elapsed() < LIMIT);
                thread::sleep(Duration::from_millis(1));
            }
            // The node dies while the program still waits for lists to be up to date.
            thread::sleep(Duration::from_millis(200));
            dying.die();
        })
    };
    let mut flags = vec!["-n", "50", "-c", "1", "--check", "--admin-token", "t"];
    flags.extend(another.iter().flat_map(|another| ["--url", &another.url]));
    flags.extend(more);
    let output = text(&dying.load(&flags));
    dies.join().unwrap();
    output
}

#[test]
fn rows_are_read_from_another_node_if_the_first_is_gone() {
    let another = storing(0);
    let (status, out, error) = checked_after_a_death(Some(&another), &[]);
    // The two nodes do not share their rows, so the checker's verdict does not matter here. What matters is
    // that rows were read.
    assert!(
        out.contains("issued") && !error.contains("cannot be read"),
        "{status:?} {out} {error}"
    );
    assert!(
        another.asked.load(Ordering::Relaxed) >= 2,
        "the rows come from the node that lives"
    );
}

#[test]
fn the_table_is_printed_even_if_no_node_is_left_to_read_rows_from() {
    let (status, out, error) = checked_after_a_death(None, &[]);
    assert!(
        status == Some(2) && out.contains("issued") && error.contains("the rows cannot be read"),
        "{status:?} {out} {error}"
    );
    let (status, out, _) = checked_after_a_death(None, &["--json"]);
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &figures["requests"]), (Some(2), &50.into()));
    assert!(
        figures["verdict"]["error"]
            .as_str()
            .unwrap()
            .contains("cannot be read"),
        "{figures}"
    );
}

#[test]
fn an_interrupt_ends_the_run_with_its_table() {
    let service = Service::start(|n, request| issued(n + 1, request));
    let child = spawn(&[
        "--url",
        &service.url,
        "--coupon",
        "42",
        "--ceiling",
        "0s",
        "-d",
        "10m",
        "-c",
        "2",
    ]);
    let begun = Instant::now();
    while service.asked.load(Ordering::Relaxed) < 100 {
        assert!(begun.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let (status, table, _) = text(&child.wait_with_output().unwrap());
    assert!(begun.elapsed() < LIMIT && status == Some(0), "{status:?} {table}");
    assert!(
        table.contains("issued") && table.contains("interrupted"),
        "{table}"
    );
}

#[test]
fn invalid_flags_are_reported() {
    for (flags, says) in [
        (["--rate", "0"].as_slice(), "a second"),
        (&["--repeats", "2"], "from 0 to 1"),
        (&["-c", "0"], "from 1 to"),
        (&["-d", "soon"], "for example"),
        (&["--spike"], "--requests"),
        (&["--coupon", "x"], "coupon"),
        (&["--url", "https://x", "--coupon", "1"], "http://host:port"),
        (&["--name", "a b"], "letters"),
        (
            &["--url", "http://127.0.0.1:1", "--coupon", "1", "--ceiling", "0s"],
            "no connection to 127.0.0.1:1",
        ),
        (&["--ceiling", "0s"], "ADMIN_TOKEN"),
    ] {
        let (status, out, error) = text(&run(flags));
        assert!(
            status == Some(2) && out.is_empty() && error.contains(says),
            "{flags:?}: {status:?} {error}"
        );
    }
}
