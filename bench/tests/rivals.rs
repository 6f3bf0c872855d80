//! Every rival, small: the broken ones are found broken, and the exact ones exact.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::load::arrivals::Bounds;
use bench::rivals::{Contender, Demand, Programs, RivalKind, Running, Servers, Verdict, judge, judge_killed};
use bench::verify::rendered;
use testkit::checker::Report;
use testkit::servers::redis::RedisServer;
use testkit::servers::{Server, ServerKind};

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

/// Lets 64 clients ask a new contender for a coupon. Returns the verdict and the checker's report, with the
/// contender's name and its log as text.
async fn trial(contender: Contender, servers: &Servers<'_>) -> (Verdict, Report, String) {
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
    let (verdict, report) = judged.unwrap_or_else(|error| panic!("{}: {error}\n{log}", contender.name()));
    let text = format!("{}\n{}\n{log}", contender.name(), rendered(&report));
    (verdict, report, text)
}

async fn expect_exact(kinds: &[RivalKind], servers: &Servers<'_>) {
    for contender in Contender::of(kinds, &[]) {
        let (mut verdict, report, text) = trial(contender, servers).await;
        // A place whose request is rolled back is taken later, so the order says nothing about times.
        if kinds == [RivalKind::SkipLocked] {
            (verdict.out_of_order, verdict.other) = (0, 0);
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
            let (verdict, _, report) = trial(contender, &servers).await;
            found = verdict;
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
    for contender in Contender::of(&[RivalKind::AtomicUpdate, RivalKind::Script], &[]) {
        let scratch = tempfile::tempdir().unwrap();
        let mut running = start(contender, &servers, scratch.path()).await;
        // More than any of them issues in that time.
        let judged = judge_killed(&mut running, 1_000_000, Duration::from_secs(2), scratch.path()).await;
        let log = running.log();
        running.end().await;
        let (verdict, report, _) =
            judged.unwrap_or_else(|error| panic!("{}: {error}\n{log}", contender.name()));
        let text = format!("{}\n{}\n{log}", contender.name(), rendered(&report));
        assert!(verdict.is_exact(), "{}: {text}", verdict.shown());
        // Requests were in progress when the process was killed.
        assert!(
            report.answers.get("unknown").is_some_and(|count| *count > 0),
            "{text}"
        );
    }
}
