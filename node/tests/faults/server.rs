//! Servers that are demoted and promoted, or that are full, while a node uses them. Each test has a server of
//! its own, and clients that keep sending requests.

use std::time::Duration;
use testkit::on_each_server;
use testkit::poll::eventually;

use sqlx::AssertSqlSafe;
use testkit::ports::free_port;
use testkit::servers::{Server, ServerKind, run};

use crate::stage::Stage;

const CLIENTS: u64 = 16;

/// The default deadline of a request.
const DEADLINE: Duration = Duration::from_secs(3);
/// Delay of an answer on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// Longer than the default, and more than twice the time that a batch waits for a silent server. If the lease
/// ended before that, the node would try no batch, and would not notice that the store takes no writes.
const LEASE: &str = "cluster.lease=6s";

/// Takes the server away from a node under load, and gives the server back. Meanwhile the node is not ready.
/// The node gives no wrong answer, and recovers by itself.
async fn taken_and_given_back(stage: &Stage<'_>, take: &[&str], give_back: &[&str]) {
    let (clients, coupons) = stage.clients(CLIENTS).await;
    let mut shell = stage.shell().await;
    for round in 1..=2 {
        stage.goes_on().await;
        let quiet = stage.without_changes(&clients, coupons).await;
        // The test waits while the statements still run: they may take as long as a lease, and without a
        // lease the node sends nothing that the server could refuse.
        let taken = async {
            for statement in take {
                run(&mut shell, statement).await;
            }
        };
        tokio::join!(taken, stage.not_ready("no_store"));
        stage.not_ready("no_lease").await;
        assert_eq!(
            answered_in_time(stage, coupons[1], &format!("late-{round}")).await,
            503
        );
        // A demoted server may lack rows of the new primary, so the node does not read from it either.
        let read = stage
            .client
            .get(format!("http://{}/v1/coupons/{}", stage.node.address, coupons[1]))
            .send()
            .await
            .unwrap();
        assert_eq!(read.status(), 503);
        for statement in give_back {
            run(&mut shell, statement).await;
        }
        stage.ready().await;
        drop(quiet);
    }
    stage.goes_on().await;
    clients.end().await;
    stage.history.judge(&stage.node.address).await;
    assert_eq!(stage.metric("coupon_contradictions_total").await, 0.0);
}

/// Requests the coupon for a user. Checks that there is an answer before the deadline, and returns its
/// status.
async fn answered_in_time(stage: &Stage<'_>, coupon: u64, user: &str) -> u16 {
    let (answer, took) = stage.issue(coupon, user, "late").await;
    assert!(took < DEADLINE + SLACK, "{answer:?} after {took:?}");
    answer.0
}

async fn a_demoted_server_stores_nothing_and_is_used_again_once_promoted(kind: ServerKind) {
    let server = Server::own(kind, &[]);
    let stage = Stage::on(&server, &[LEASE]).await;
    match kind {
        ServerKind::MySql => {
            let promoted = ["SET GLOBAL super_read_only = 0", "SET GLOBAL read_only = 0"];
            taken_and_given_back(&stage, &["SET GLOBAL super_read_only = 1"], &promoted).await;
        }
        ServerKind::MariaDb => {
            taken_and_given_back(
                &stage,
                &["SET GLOBAL read_only = 1"],
                &["SET GLOBAL read_only = 0"],
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_outside_its_group_stores_nothing_and_is_used_again_once_it_is_primary() {
    if !ServerKind::MySql.is_available() {
        return;
    }
    let address = format!("--group-replication-local-address=127.0.0.1:{}", free_port());
    let arguments = [
        "--log-bin=binlog",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--server-id=1",
        "--plugin-load-add=group_replication.so",
        "--group-replication-group-name=6f697273-7463-6f6d-6520-67726f757021",
        "--group-replication-bootstrap-group=ON",
        "--group-replication-start-on-boot=ON",
        &address,
    ];
    let server = Server::own(ServerKind::MySql, &arguments);
    let stage = Stage::on(&server, &[LEASE]).await;
    taken_and_given_back(&stage, &["STOP GROUP_REPLICATION"], &["START GROUP_REPLICATION"]).await;
}

/// All tables share two files that do not grow, and a table of another program fills them.
async fn a_full_server_refuses_batches_and_stores_them_once_there_is_room(kind: ServerKind) {
    let arguments = [
        "--innodb-data-file-path=ibdata1:12M;ibdata2:24M",
        "--innodb-file-per-table=0",
    ];
    let server = Server::own(kind, &arguments);
    let stage = Stage::on(&server, &[LEASE]).await;
    let (clients, coupons) = stage.clients(CLIENTS).await;
    stage.goes_on().await;
    let quiet = stage.without_changes(&clients, coupons).await;
    let mut shell = stage.shell().await;
    run(
        &mut shell,
        "CREATE TABLE filler (number INT AUTO_INCREMENT PRIMARY KEY, filling LONGBLOB)",
    )
    .await;
    for bytes in [100_000, 4_000] {
        let fill = format!("INSERT INTO filler (filling) VALUES (REPEAT('x', {bytes}))");
        eventually("the disk is full", async || {
            sqlx::raw_sql(AssertSqlSafe(fill.clone()))
                .execute(&mut shell)
                .await
                .is_err()
        })
        .await;
    }
    // Issuances fill the last pages.
    stage.logs("is full", 0).await;
    stage.not_ready("no_store").await;
    // A full server may free pages for another batch or two.
    let mut asked = 0;
    eventually("nothing is decided", async || {
        asked += 1;
        answered_in_time(&stage, coupons[1], &format!("late-{asked}")).await == 503
    })
    .await;
    // MySQL reserves room for dropping a table. MariaDB does not, and gets another file.
    match kind {
        ServerKind::MySql => {
            eventually("there is room", async || {
                sqlx::raw_sql("DROP TABLE filler")
                    .execute(&mut shell)
                    .await
                    .is_ok()
            })
            .await;
        }
        ServerKind::MariaDb => tokio::task::block_in_place(|| {
            server.kill();
            server
                .resume_with(&["--innodb-data-file-path=ibdata1:12M;ibdata2:24M;ibdata3:24M"])
                .unwrap();
        }),
    }
    stage.ready().await;
    drop(quiet);
    stage.goes_on().await;
    clients.end().await;
    stage.history.judge(&stage.node.address).await;
    assert_eq!(stage.metric("coupon_contradictions_total").await, 0.0);
}

on_each_server! {
    a_demoted_server_stores_nothing_and_is_used_again_once_promoted
    a_full_server_refuses_batches_and_stores_them_once_there_is_room
}
