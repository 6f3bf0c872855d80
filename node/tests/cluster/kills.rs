//! kill -9 of the owner, of another node, and of two nodes at once. Measures how long a take-over lasts if
//! the system refuses connections to a killed node.

use std::time::Duration;
use testkit::on_each_server;
use testkit::poll::least_of_three;

use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

/// Maximum interruption of issuing a coupon after its owner was killed.
const TAKE_OVER_MAX: Duration = Duration::from_millis(1_500);
/// A lease that is too long to matter: a killed node must be detected by refused connections. A change that
/// widens waits for as long after a kill, and issuing may wait for that change.
const LEASE: &str = "cluster.lease=5s";

async fn the_other_nodes_take_over_from_a_killed_node(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::on(server, &[LEASE], false).await;
    let (clients, _) = stage.clients().await;
    stage.goes_on().await;
    for owner in 0..stage.members.len() {
        let (asked, third) = ((owner + 1) % 3, (owner + 2) % 3);
        least_of_three(TAKE_OVER_MAX, async || {
            let (of_owner, of_third) = (stage.coupon_of(owner).await, stage.coupon_of(third).await);
            stage.members[owner].kill();
            let (took, undisturbed) = tokio::join!(
                stage.until_issued(asked, of_owner),
                stage.until_issued(asked, of_third)
            );
            println!(
                "{} was killed: taken over after {took:?}; another owner answered within {undisturbed:?}",
                stage.members[owner].name
            );
            assert!(
                undisturbed < took,
                "an owner that runs answered after {undisturbed:?}"
            );
            stage.settled().await;
            stage.start(&[owner]);
            stage.settled().await;
            stage.goes_on().await;
            took
        })
        .await;
    }
    least_of_three(TAKE_OVER_MAX, async || {
        let coupons = [stage.coupon_of(0).await, stage.coupon_of(1).await];
        stage.members[0].kill();
        stage.members[1].kill();
        let (first, second) = tokio::join!(
            stage.until_issued(2, coupons[0]),
            stage.until_issued(2, coupons[1])
        );
        println!("two nodes were killed: taken over after {first:?} and {second:?}");
        stage.settled().await;
        stage.start(&[0, 1]);
        stage.settled().await;
        stage.goes_on().await;
        first.max(second)
    })
    .await;
    clients.end().await;
    stage.judge().await;
}

on_each_server! { the_other_nodes_take_over_from_a_killed_node }
