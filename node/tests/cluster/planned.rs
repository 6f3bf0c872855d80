//! Planned changes of a healthy cluster: nodes join, leave, and are restarted one after the other. No client
//! notices.

use testkit::on_each_server;
use testkit::servers::{Server, ServerKind};

use crate::balancer::Balancer;
use crate::stage::{NODES, Stage};

/// How long a node serves after it reports that it is not ready: far longer than the balancer needs to
/// notice, even if the node is slow.
const DELAY: &str = "shutdown.delay=2s";

/// Under load and changes, the third node joins, each node is restarted, and one node leaves.
async fn no_request_fails_while_nodes_join_and_leave(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::unstarted(server, NODES, &[DELAY], false).await;
    stage.start(&[0, 1]);
    stage.settled().await;
    let (clients, _) = stage.clients().await;
    let balancer = Balancer::over(stage.addresses(), clients.addresses());
    stage.goes_on().await;
    stage.start(&[2]);
    stage.settled().await;
    for restarted in 0..NODES {
        stage.stop(restarted);
        stage.settled().await;
        stage.goes_on().await;
        stage.start(&[restarted]);
        stage.settled().await;
        stage.goes_on().await;
    }
    stage.stop(1);
    stage.settled().await;
    stage.goes_on().await;
    clients.end().await;
    drop(balancer);
    let failures = stage.history.failures();
    assert!(
        failures.is_empty(),
        "{} requests failed, like {}",
        failures.len(),
        failures[0]
    );
    stage.judge().await;
}

/// Only the first of the three nodes is started.
async fn a_single_node_is_the_whole_cluster(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::unstarted(server, NODES, &[], false).await;
    stage.start(&[0]);
    stage.settled().await;
    let (clients, coupons) = stage.clients().await;
    stage.goes_on().await;
    assert_eq!(
        stage.owner(0, coupons[0]).await.as_ref(),
        Some(&stage.members[0].name)
    );
    stage.members[0].kill();
    stage.start(&[0]);
    stage.settled().await;
    stage.goes_on().await;
    clients.end().await;
    stage.judge().await;
}

on_each_server! { a_single_node_is_the_whole_cluster no_request_fails_while_nodes_join_and_leave }
