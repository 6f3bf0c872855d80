//! A database that goes away for one node or for all nodes. It refuses connections, or it is silent.

use std::time::Duration;
use testkit::on_each_server;
use testkit::poll::{eventually, least_of_three};

use testkit::database_proxy::DatabaseMode;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

const LEASE: Duration = Duration::from_millis(1_500);
/// Time beyond a lease until another node serves the shards.
const SLACK: Duration = Duration::from_secs(1);

async fn a_node_without_its_database_is_replaced_and_joins_again(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &["cluster.lease=1500ms", "cluster.beat=150ms"], false).await;
    let (clients, _) = stage.clients().await;
    stage.goes_on().await;
    for (cut_off, mode) in [(2, DatabaseMode::Refuse), (0, DatabaseMode::Hold)] {
        least_of_three(LEASE + SLACK, async || {
            let asked = (cut_off + 1) % 3;
            let coupon = stage.coupon_of(cut_off).await;
            stage.members[cut_off].database.set(mode);
            let took = stage.until_issued(asked, coupon).await;
            println!(
                "{mode:?} before the database of {}: taken over after {took:?}",
                stage.members[cut_off].name
            );
            stage.not_ready(cut_off, &["no_lease"]).await;
            let others: Vec<usize> = (0..3).filter(|number| *number != cut_off).collect();
            stage.settled_among(&others).await;
            stage.goes_on().await;
            stage.members[cut_off].database.set(DatabaseMode::Pass);
            stage.settled().await;
            stage.until_issued(cut_off, coupon).await;
            took
        })
        .await;
    }
    clients.end().await;
    stage.judge().await;
}

/// The server is away for longer than a lease.
async fn nodes_keep_their_incarnations_while_the_database_is_away(kind: ServerKind) {
    let server = Server::own(kind, &["--innodb-flush-log-at-trx-commit=1"]);
    // With a short lease, a node could be ended because a busy machine does not run it for a while. That is
    // not the subject of this test.
    let stage = Stage::on(&server, &["cluster.lease=5s", "cluster.beat=150ms"], false).await;
    let (clients, _) = stage.clients().await;
    stage.goes_on().await;
    let mut before = Vec::new();
    for member in 0..3 {
        before.push(stage.incarnation(0, member).await);
    }
    tokio::task::block_in_place(|| server.kill());
    for member in 0..3 {
        stage.not_ready(member, &["no_lease"]).await;
    }
    tokio::task::block_in_place(|| server.resume().unwrap());
    let back = eventually("a coupon is issued", async || {
        let issued = stage.history.issued();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stage.history.issued() > issued
    })
    .await;
    println!("issued again {back:?} after the server took connections");
    stage.settled().await;
    let mut after = Vec::new();
    for member in 0..3 {
        after.push(stage.incarnation(0, member).await);
    }
    assert_eq!(before, after, "no node is ended because the database was away");
    stage.goes_on().await;
    clients.end().await;
    stage.judge().await;
}

on_each_server! {
    a_node_without_its_database_is_replaced_and_joins_again
    nodes_keep_their_incarnations_while_the_database_is_away
}
