//! A database that has lost what it confirmed: its server restarts on older data, while the node still has
//! its lease and batches to store.

use std::path::Path;
use std::process::Command;
use testkit::on_each_server;
use testkit::poll::eventually;

use testkit::servers::{Server, ServerKind};
use testkit::time::Timestamp;

use crate::database::number;
use crate::stage::Stage;

const CLIENTS: u64 = 16;

/// A lease longer than a restart of the server. Owners keep their state, so only the beat that is missing
/// from the older data reveals the restore.
const LONG_LEASE: &str = "cluster.lease=60s";

const ALARM: &str = "coupon_database_went_backwards_total";

const GIVEN_UP: &str = "the lease ended before portions were known to be stored";

const INCARNATION: &str = "SELECT incarnation FROM nodes";

/// Copies the data of a server that does not run.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success());
}

/// Restarts the server under load, which does no harm. Then restarts the server on a copy of the data from
/// the first restart.
async fn the_restore_of_an_earlier_state_is_detected_and_no_later_answer_is_wrong(kind: ServerKind) {
    let server = Server::own(kind, &["--innodb-flush-log-at-trx-commit=1"]);
    let stage = Stage::on(&server, &[LONG_LEASE]).await;
    let (clients, coupons) = stage.clients(CLIENTS).await;
    stage.goes_on().await;
    // Offers do not change, so that the answers after the alarm can be judged without the earlier answers.
    let quiet = stage.without_changes(&clients, coupons).await;
    let kept = tempfile::tempdir().unwrap();
    let kept = kept.path().join("data");
    tokio::task::block_in_place(|| {
        server.kill();
        copy(&server.data(), &kept);
        server.resume().unwrap();
    });
    stage.ready().await;
    stage.goes_on().await;
    assert_eq!(stage.metric(ALARM).await, 0.0, "a restart is not a restore");
    // Wait until the copy is older by more than a beat.
    let beat = "SELECT beat FROM nodes";
    let kept_beat = number(&mut stage.shell().await, beat).await;
    eventually("the node beats", async || {
        number(&mut stage.shell().await, beat).await > kept_beat + 1
    })
    .await;
    // The owner and the door know that this coupon is sold out. In the copy, the coupon does not exist.
    let gone = stage.coupon(Some(1)).await;
    assert_eq!(stage.issue(gone, "winner", "key").await.0.0, 201);
    eventually("the door knows that the coupon is sold out", async || {
        stage.metric("coupon_door_notices").await > 0.0
    })
    .await;
    let (before, given_up) = (
        number(&mut stage.shell().await, INCARNATION).await,
        stage.logged(GIVEN_UP),
    );
    tokio::task::block_in_place(|| server.kill());
    // Batches are in progress, and owners retry them.
    stage.not_ready("no_store").await;
    tokio::task::block_in_place(|| {
        std::fs::remove_dir_all(server.data()).unwrap();
        copy(&kept, &server.data());
        server.resume().unwrap();
    });
    eventually("the alarm", async || stage.metric(ALARM).await > 0.0).await;
    let alarm = Timestamp::now();
    let answer = stage.issue(gone, "other", "key").await.0;
    assert!(answer.0 == 404 || answer.0 == 503, "{answer:?}");
    stage.ready().await;
    assert_eq!(stage.issue(gone, "other", "key").await.0.0, 404);
    stage.goes_on().await;
    clients.end_without_changes(quiet).await;
    stage.logs(GIVEN_UP, given_up).await;
    assert_ne!(
        number(&mut stage.shell().await, INCARNATION).await,
        before,
        "the node has not joined again"
    );
    assert_eq!(stage.metric(ALARM).await, 1.0, "the alarm is counted once");
    assert_eq!(stage.metric("coupon_contradictions_total").await, 0.0);
    let address = &stage.node.address;
    let report = stage.history.judge_issues(address, &coupons, alarm).await;
    assert!(report.issuances > CLIENTS, "there was hardly any load");
}

on_each_server! { the_restore_of_an_earlier_state_is_detected_and_no_later_answer_is_wrong }
