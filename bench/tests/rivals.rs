//! Every rival, small: the broken ones are found broken, and the exact ones exact.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bench::load::arrivals::Bounds;
use bench::rivals::{
    Contender, Demand, Judged, Programs, RedisSync, RivalKind, Running, Servers, Verdict, Victim, judge,
    judge_killed,
};
use bench::verify::rendered;
use testkit::servers::redis::RedisServer;
use testkit::servers::{Server, ServerKind};
use testkit::time::Timestamp;

/// The quantity of the coupon, and the number of requests for it.
const QUANTITY: u64 = 200;
const REQUESTS: u64 = 2_000;

/// Attempts to find a broken rival broken. One is enough nearly always.
const ATTEMPTS: u32 = 5;

async fn start<'a>(contender: Contender, servers: &'a Servers<'_>, scratch: &Path) -> Running<'a> {
    let programs = Programs {
        firstcome: PathBuf::new(),
        bench: env!("CARGO_BIN_EXE_firstcome-bench").into(),
    };
    contender.start(&programs, servers, scratch).await.unwrap()
}

/// Lets 64 clients ask a new contender for a coupon. Returns what was found, and as text the contender's
/// name, the checker's report and the log.
async fn trial(contender: Contender, servers: &Servers<'_>) -> (Judged, String) {
    let scratch = tempfile::tempdir().unwrap();
    let mut running = start(contender, servers, scratch.path()).await;
    let demand = Demand {
        connections: 64,
        bounds: Bounds {
            duration: None,
            requests: Some(REQUESTS),
        },
        repeats_ppm: 50_000,
    };
    let judged = judge(&mut running, demand, QUANTITY, scratch.path()).await;
    let log = running.log();
    running.end().await;
    let judged = judged.unwrap_or_else(|error| panic!("{}: {error}\n{log}", contender.name()));
    let text = format!("{}\n{}\n{log}", contender.name(), rendered(&judged.report));
    (judged, text)
}

/// Lets clients ask a new contender for more than it issues in this time, and kills a process meanwhile.
/// Returns what [`trial`] does.
async fn killed(
    contender: Contender,
    victim: Victim,
    duration: Duration,
    servers: &Servers<'_>,
) -> (Judged<Timestamp>, String) {
    let scratch = tempfile::tempdir().unwrap();
    let mut running = start(contender, servers, scratch.path()).await;
    let judged = judge_killed(&mut running, victim, 1_000_000, duration, scratch.path()).await;
    let log = running.log();
    running.end().await;
    let judged = judged.unwrap_or_else(|error| panic!("{}: {error}\n{log}", contender.name()));
    let text = format!("{}\n{}\n{log}", contender.name(), rendered(&judged.report));
    (judged, text)
}

async fn expect_exact(kinds: &[RivalKind], servers: &Servers<'_>) {
    for contender in Contender::of(kinds, &[]) {
        let (
            Judged {
                mut verdict, report, ..
            },
            text,
        ) = trial(contender, servers).await;
        // A place whose request is rolled back is taken later, so the order says nothing about times.
        if kinds == [RivalKind::SkipLocked] {
            (verdict.overtook_an_answer, verdict.other) = (0, 0);
        }
        assert!(verdict.is_exact(), "{}: {text}", verdict.shown());
        // There was something to judge: all were issued, and there were refusals and replays.
        let answered = |code: &str| report.answers.get(code).copied().unwrap_or(0);
        assert_eq!(
            (report.issuances, answered("issued")),
            (QUANTITY, QUANTITY),
            "{text}"
        );
        assert!(answered("SOLD_OUT") > 0 && answered("replayed") > 0, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rival_without_a_lock_around_its_commit_is_found_to_issue_too_many() {
    if !ServerKind::MySql.is_available() {
        return;
    }
    let servers = Servers::new(Server::shared(ServerKind::MySql));
    for kind in [RivalKind::NoLock, RivalKind::LockInTransaction] {
        let contender = Contender::of(&[kind], &[])[0];
        let mut reports = Vec::new();
        let mut found = Verdict::default();
        while found.too_many == 0 && reports.len() < ATTEMPTS as usize {
            let (judged, report) = trial(contender, &servers).await;
            found = judged.verdict;
            reports.push(report);
        }
        assert!(
            found.too_many > 0 && found.duplicates > 0,
            "{}",
            reports.join("\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_that_lock_or_update_a_row_of_mysql_are_exact() {
    if !ServerKind::MySql.is_available() {
        return;
    }
    let servers = Servers::new(Server::shared(ServerKind::MySql));
    let kinds = [RivalKind::RowLock, RivalKind::Optimistic, RivalKind::AtomicUpdate];
    expect_exact(&kinds, &servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_are_made_beforehand_are_given_once_each() {
    if !ServerKind::MySql.is_available() {
        return;
    }
    let servers = Servers::new(Server::shared(ServerKind::MySql));
    expect_exact(&[RivalKind::SkipLocked], &servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_that_lock_or_decide_in_redis_are_exact() {
    if !ServerKind::MySql.is_available() || !RedisServer::is_available() {
        return;
    }
    let mut servers = Servers::new(Server::shared(ServerKind::MySql));
    servers.start_redis().unwrap();
    let kinds = [RivalKind::RedisLock, RivalKind::FairLock, RivalKind::Script];
    expect_exact(&kinds, &servers).await;
}

/// The script answers before MySQL has the row, but its queue is in Redis, and the consumer goes on where the
/// killed one stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_rival_that_is_killed_has_a_row_for_each_winner_once_it_runs_again() {
    if !ServerKind::MySql.is_available() || !RedisServer::is_available() {
        return;
    }
    let mut servers = Servers::new(Server::shared(ServerKind::MySql));
    servers.start_redis().unwrap();
    let of = |kind| Contender::of(&[kind], &[]);
    // A consumer could lose entries only between two of its awaits, and not every kill comes then.
    let contenders = [
        of(RivalKind::Script),
        of(RivalKind::Script),
        of(RivalKind::AtomicUpdate),
    ];
    for contender in contenders.into_iter().flatten() {
        let (judged, text) = killed(contender, Victim::Service, Duration::from_secs(3), &servers).await;
        assert!(judged.verdict.is_exact(), "{}: {text}", judged.verdict.shown());
        // Requests were in progress when the process was killed.
        let unknown = judged.report.answers.get("unknown");
        assert!(unknown.is_some_and(|count| *count > 0), "{text}");
        assert!(judged.issued_again_after().is_some(), "{text}");
    }
}

/// The locks protect nothing while Redis is away, but the keys of the table do. The lock whose holder did not
/// reach Redis expires after ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_rival_whose_redis_is_killed_issues_again_and_has_a_row_for_each_winner() {
    if !ServerKind::MySql.is_available() || !RedisServer::is_available() {
        return;
    }
    let mut servers = Servers::new(Server::shared(ServerKind::MySql));
    servers.start_redis().unwrap();
    let script = Contender::Rival {
        kind: RivalKind::Script,
        sync: RedisSync::Always,
        connections: None,
    };
    let fair_lock = Contender::of(&[RivalKind::FairLock], &[])[0];
    for (contender, seconds) in [(script, 4), (fair_lock, 13)] {
        let duration = Duration::from_secs(seconds);
        let (judged, text) = killed(contender, Victim::Redis, duration, &servers).await;
        assert!(judged.verdict.is_exact(), "{}: {text}", judged.verdict.shown());
        assert!(judged.issued_again_after().is_some(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn winners_are_lost_with_a_redis_that_keeps_no_log() {
    if !ServerKind::MySql.is_available() || !RedisServer::is_available() {
        return;
    }
    let mut servers = Servers::new(Server::shared(ServerKind::MySql));
    servers.start_redis().unwrap();
    let contender = Contender::Rival {
        kind: RivalKind::Script,
        sync: RedisSync::Never,
        connections: None,
    };
    let mut reports = Vec::new();
    for _ in 0..ATTEMPTS {
        let (judged, text) = killed(contender, Victim::Redis, Duration::from_secs(2), &servers).await;
        if judged.verdict.told_not_stored > 0 {
            return;
        }
        reports.push(text);
    }
    panic!("no winner was lost: {}", reports.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_waiters_spin_loses_their_order_and_one_with_a_queue_does_not() {
    if !ServerKind::MySql.is_available() || !RedisServer::is_available() {
        return;
    }
    let mut servers = Servers::new(Server::shared(ServerKind::MySql));
    servers.start_redis().unwrap();
    let of = |kind| Contender::of(&[kind], &[])[0];
    let (spinning, spun) = trial(of(RivalKind::RedisLock), &servers).await;
    let (queued, text) = trial(of(RivalKind::FairLock), &servers).await;
    assert_eq!((spinning.order.issued, queued.order.issued), (QUANTITY, QUANTITY));
    // On a machine that is busy, some requests are read later than others that were sent after them.
    assert!(
        spinning.order.out_of_order > QUANTITY / 5
            && spinning.order.out_of_order > 3 * queued.order.out_of_order,
        "{} and {}: {spun}\n{text}",
        spinning.order.shown(),
        queued.order.shown()
    );
}

/// Runs the program with a server of its own. One rival is enough to see that loads and tables are as they
/// should be.
#[test]
fn the_program_prints_a_table_for_each_earlier_load_and_the_best_number_of_connections() {
    if !ServerKind::MySql.is_available() {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_firstcome-bench"))
        .args([
            "rivals",
            "--what",
            "earlier,pools",
            "--kinds",
            "atomic-update",
            "--without-firstcome",
        ])
        .args([
            "--rounds",
            "1",
            "--duration",
            "300ms",
            "--warm-up",
            "0s",
            "--connections",
            "16",
        ])
        .args(["--shorten", "50", "--scale", "0.01", "--pools", "1,4"])
        .args(["--buffer-pool-mib", "64", "--redo-log-mib", "64"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows: Vec<Vec<String>> = text
        .lines()
        .filter(|line| line.starts_with("| atomic `UPDATE` and insert"))
        .map(cells)
        .collect();
    // Two numbers of connections are two contenders of each of the seven loads.
    assert_eq!(
        (text.matches("#### ").count(), rows.len()),
        (7, 2 * 7 + 1),
        "{text}"
    );
    for row in &rows[..14] {
        assert_eq!(row[8], "exact", "{text}");
    }
    // Twenty users with a second of thinking send at most three requests each within 1.8 s.
    let requests: u64 = rows[0][7].strip_prefix("0 of ").unwrap().parse().unwrap();
    assert!((20..=60).contains(&requests), "{text}");
    let best = &rows[14][4];
    assert!(best == "1" || best == "4", "{text}");
}
