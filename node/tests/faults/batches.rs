//! Every kind of failed batch under load on a running server: deadlocks, locks that are held too long,
//! connections that are refused or cut at each moment, and statements that are never answered or go on
//! without their client. In the end the checker judges everything that clients saw.
//!
//! `FIRSTCOME_FAULT_ROUNDS` sets the length of a run.

use std::time::{Duration, Instant};
use testkit::on_each_server;
use testkit::poll::eventually;

use actors::coupon::ids::CouponId;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;
use testkit::database_proxy::DatabaseMode;
use testkit::servers::{Server, ServerKind, run};
use tokio::time::timeout;

use crate::database::number;
use crate::stage::Stage;
use testkit::clients::from_environment;

const CLIENTS: u64 = 24;
const NOT_STORED: &str = r#"coupon_write_retries_total{reason="not_stored"}"#;
const CLASHED: &str = r#"coupon_write_retries_total{reason="clash"}"#;

/// Time limit for what happens soon or not at all. It is shorter than a lease, because nothing is tried after
/// the lease. It is longer than a batch waits for a lock.
const SOON: Duration = Duration::from_secs(2);

async fn every_promise_holds_whatever_happens_to_a_batch(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &[]).await;
    let (clients, coupons) = stage.clients(CLIENTS).await;
    stage.goes_on().await;
    for round in 1..=from_environment("FIRSTCOME_FAULT_ROUNDS").unwrap_or(1) {
        println!("round {round}");
        for mode in [
            DatabaseMode::CutBeforeSending,
            DatabaseMode::CutAfterSending,
            DatabaseMode::CutAfterAnswer,
        ] {
            a_connection_is_cut(&stage, mode).await;
        }
        connections_are_refused(&stage).await;
        a_statement_is_never_answered(&stage).await;
        // The next faults are meant for batches of issuances. A change by the administrator could be stored
        // before the issuances of its lane, or could pause issuing.
        let _quiet = stage.without_changes(&clients, coupons).await;
        a_batch_loses_a_deadlock(&stage, coupons[1]).await;
        a_batch_waits_too_long_for_a_lock(&stage).await;
        a_statement_goes_on_without_its_client(&stage).await;
    }
    clients.end().await;
    stage.ready().await;
    let report = stage.history.judge(&stage.node.address).await;
    assert!(report.issuances > CLIENTS, "there was hardly any load");
    assert_eq!(stage.metric("coupon_contradictions_total").await, 0.0);
    assert_eq!(stage.metric("coupon_owner_panics_total").await, 0.0);
}

async fn a_connection_is_cut(stage: &Stage<'_>, mode: DatabaseMode) {
    let (cuts, unknown) = (stage.proxy.cuts(), stage.logged("outcome unknown"));
    stage.proxy.set(mode);
    eventually("a batch is cut", async || stage.proxy.cuts() > cuts).await;
    stage.logs("outcome unknown", unknown).await;
    stage.goes_on().await;
}

async fn connections_are_refused(stage: &Stage<'_>) {
    let before = stage.metric(NOT_STORED).await;
    // Refusing also cuts open connections. A batch that is at the server then has an unknown outcome, and its
    // lane sends no other batch until that is settled. So perhaps no batch fails as not stored, and the fault
    // is tried again. The node must be ready before each try: an outcome that is already unknown could not be
    // read back.
    eventually("a batch is not stored", async || {
        stage.ready().await;
        stage.proxy.set(DatabaseMode::Refuse);
        let refused = eventually("a batch fails", async || stage.metric(NOT_STORED).await > before);
        let _ = timeout(SOON, refused).await;
        stage.proxy.set(DatabaseMode::Pass);
        stage.goes_on().await;
        stage.metric(NOT_STORED).await > before
    })
    .await;
}

/// The batch holds its shard's row and waits for its coupon's row. The other transaction holds the coupon's
/// row and waits for the shard's row.
async fn a_batch_loses_a_deadlock(stage: &Stage<'_>, coupon: u64) {
    let (mut holder, mut watcher, before) = (stage.shell().await, stage.shell().await, stage.logged("1213"));
    let shard = CouponId::new(coupon).unwrap().shard();
    // The transaction that has changed more rows survives.
    let many = (0..500)
        .map(|number| format!("({number})"))
        .collect::<Vec<_>>()
        .join(",");
    run(
        &mut holder,
        "DROP TABLE IF EXISTS ballast; CREATE TABLE ballast (number INT PRIMARY KEY)",
    )
    .await;
    // On a slow machine a batch may time out on the coupon before its shard is locked. The fault is then
    // tried again.
    eventually("a batch loses a deadlock", async || {
        run(&mut holder, &format!("BEGIN; INSERT INTO ballast VALUES {many}; SELECT * FROM coupons WHERE id = {coupon} FOR UPDATE")).await;
        eventually("a batch waits", async || waiting(&mut watcher).await > 0).await;
        run(&mut holder, &format!("SELECT * FROM shards WHERE shard_id = {shard} FOR UPDATE")).await;
        let _ = timeout(SOON, stage.logs("1213", before)).await;
        run(&mut holder, "ROLLBACK").await;
        stage.goes_on().await;
        stage.logged("1213") > before
    })
    .await;
}

async fn a_batch_waits_too_long_for_a_lock(stage: &Stage<'_>) {
    let (mut holder, before) = (stage.shell().await, stage.logged("1205"));
    run(&mut holder, "BEGIN; SELECT * FROM shards FOR UPDATE").await;
    stage.logs("1205", before).await;
    run(&mut holder, "ROLLBACK").await;
    stage.goes_on().await;
}

/// Returns the number of statements that wait for a row now. (`INNODB_TRX` is not up to date if it is read
/// more than ten times a second.)
async fn waiting(shell: &mut MySqlConnection) -> u64 {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        .fetch_one(shell)
        .await
        .unwrap();
    row.try_get::<String, _>(1).unwrap().parse().unwrap()
}

/// Returns how many batches run twice at the server at the same time.
async fn running_twice(shell: &mut MySqlConnection, database: &str) -> i64 {
    let query = format!(
        "SELECT COUNT(*) FROM (SELECT INFO FROM information_schema.PROCESSLIST
          WHERE DB = '{database}' AND INFO LIKE 'INSERT INTO issuances (%' GROUP BY INFO HAVING COUNT(*) > 1) AS batches"
    );
    number(shell, &query).await
}

async fn a_statement_goes_on_without_its_client(stage: &Stage<'_>) {
    let (mut holder, mut watcher) = (stage.shell().await, stage.shell().await);
    let clashed = stage.metric(CLASHED).await;
    // On a slow machine both runs of the batch may time out on the lock before the lock is released. Then
    // nothing is stored, and the fault is tried again.
    eventually("the batch is found stored", async || {
        let cuts = stage.proxy.cuts();
        run(&mut holder, "BEGIN; SELECT * FROM coupons FOR UPDATE").await;
        stage.proxy.set(DatabaseMode::CutAfterSending);
        eventually("a batch is cut", async || stage.proxy.cuts() > cuts).await;
        let _ = timeout(
            SOON,
            eventually("a batch runs twice", async || {
                running_twice(&mut watcher, &stage.database).await > 0
            }),
        )
        .await;
        run(&mut holder, "ROLLBACK").await;
        stage.goes_on().await;
        stage.metric(CLASHED).await > clashed
    })
    .await;
}

/// The server executes the statement but does not answer, as when it waits for room to log a commit.
async fn a_statement_is_never_answered(stage: &Stage<'_>) {
    let (cuts, before, begun) = (
        stage.proxy.cuts(),
        stage.logged("the database did not answer within"),
        Instant::now(),
    );
    stage.proxy.set(DatabaseMode::KeepAnswer);
    eventually("an answer is dropped", async || stage.proxy.cuts() > cuts).await;
    stage.logs("the database did not answer within", before).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    stage.goes_on().await;
}

on_each_server! { every_promise_holds_whatever_happens_to_a_batch }
