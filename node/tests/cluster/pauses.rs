//! A node that is suspended for longer than its lease and then resumes, as when its virtual machine is
//! migrated.

use std::time::Duration;
use testkit::on_each_server;
use testkit::poll::{eventually, least_of_three};

use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

const LEASE: Duration = Duration::from_millis(1_500);
/// Time beyond a lease until another node serves the shards.
const SLACK: Duration = Duration::from_secs(1);

async fn a_suspended_node_gives_no_wrong_answer(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &["cluster.lease=1500ms", "cluster.beat=150ms"], false).await;
    let (clients, _) = stage.clients().await;
    stage.goes_on().await;
    for owner in [2, 0] {
        least_of_three(LEASE + SLACK, async || {
            let asked = (owner + 1) % 3;
            let (coupon, before) = (
                stage.coupon_of(owner).await,
                stage.incarnation(asked, owner).await,
            );
            stage.members[owner].suspend();
            let took = stage.until_issued(asked, coupon).await;
            println!(
                "{} is suspended: taken over after {took:?}",
                stage.members[owner].name
            );
            // The check that clients get coupons comes only after this: until the node resumes, most clients
            // wait for it. The administrator may wait for it as well, and then cannot resume a paused coupon.
            stage.members[owner].resume();
            // From now on the node answers as the others do.
            stage.until_issued(owner, coupon).await;
            eventually("the node has joined again", async || {
                stage.incarnation(asked, owner).await != before
            })
            .await;
            stage.settled().await;
            stage.goes_on().await;
            took
        })
        .await;
    }
    clients.end().await;
    stage.judge().await;
}

on_each_server! { a_suspended_node_gives_no_wrong_answer }
