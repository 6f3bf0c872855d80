//! Operators see the same cluster at every node, and what they see is correct.

use std::collections::HashSet;
use testkit::on_each_server;

use serde_json::{Value, json};
use testkit::node::ADMIN_TOKEN;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

async fn every_node_shows_the_same_cluster(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut stage = Stage::on(server, &[], false).await;
    let mut coupons = Vec::new();
    for member in 0..3 {
        coupons.push(stage.coupon_of(member).await);
    }
    let view = common_view(&stage).await;
    check_nodes(&stage, &view);
    check_coupons(&stage, &view, &coupons).await;
    // A node that has left owns nothing, and the other nodes show that.
    stage.stop(2);
    stage.settled().await;
    for asked in 0..2 {
        let (_, view) = stage.operator(asked, "/v1/cluster").await.unwrap();
        let states: Vec<&str> = view["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["state"].as_str().unwrap())
            .collect();
        assert_eq!(
            (states, view["nodes"][2]["shards"].as_u64()),
            (vec!["ready", "ready", "ended"], Some(0))
        );
        let owner = stage.owner(asked, coupons[2]).await;
        assert!(owner.is_some_and(|owner| owner != stage.members[2].name));
    }
}

/// Returns the view that all nodes show.
async fn common_view(stage: &Stage) -> Value {
    let mut views = Vec::new();
    for (asked, member) in stage.members.iter().enumerate() {
        let (status, mut view) = stage.operator(asked, "/v1/cluster").await.unwrap();
        assert_eq!(
            (status, view["node"].as_str()),
            (200, Some(member.name.as_str())),
            "{view}"
        );
        view["node"] = "".into();
        views.push(view);
    }
    assert!(views.iter().all(|view| *view == views[0]), "{views:?}");
    views.swap_remove(0)
}

/// Checks the rows of the nodes in a view.
fn check_nodes(stage: &Stage, view: &Value) {
    let nodes = view["nodes"].as_array().unwrap();
    let incarnations: HashSet<&str> = nodes
        .iter()
        .map(|node| node["incarnation"].as_str().unwrap())
        .collect();
    assert_eq!((nodes.len(), incarnations.len()), (3, 3));
    for (node, member) in nodes.iter().zip(&stage.members) {
        let seen = ["id", "http", "cluster", "state"].map(|field| node[field].as_str().unwrap());
        assert_eq!(seen, [&member.name, &member.address, &member.links, "ready"]);
        let shards = view["shards"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|shard| shard["owner"] == member.name.as_str())
            .count();
        assert_eq!(node["shards"].as_u64(), Some(shards as u64));
    }
}

/// Checks the owners of coupons, as all nodes show them, against a view.
async fn check_coupons(stage: &Stage, view: &Value, coupons: &[u64]) {
    for (owner, coupon) in coupons.iter().enumerate() {
        let path = format!("/v1/cluster/coupons/{coupon}");
        let (_, place) = stage.operator(0, &path).await.unwrap();
        assert_eq!(
            place["owner"].as_str(),
            Some(stage.members[owner].name.as_str()),
            "{place}"
        );
        for asked in 1..3 {
            assert_eq!(stage.operator(asked, &path).await.unwrap(), (200, place.clone()));
        }
        let shard = &view["shards"][place["shard"].as_u64().unwrap() as usize];
        assert_eq!(
            (&shard["owner"], &shard["epoch"]),
            (&place["owner"], &place["epoch"])
        );
    }
}

/// A node with a copy of a coupon sees its own issuances at once. It sees a change of the quantity at another
/// node only when it reads the coupon again.
async fn no_node_shows_more_issued_than_the_quantity(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &[], false).await;
    let coupon = stage.coupon(Some(1)).await;
    let path = format!("/v1/coupons/{coupon}");
    for quantity in 1..=10 {
        if quantity > 1 {
            let change = stage
                .client
                .patch(format!("http://{}{path}", stage.members[0].address))
                .bearer_auth(ADMIN_TOKEN)
                .json(&json!({"total_quantity": quantity}));
            assert_eq!(change.send().await.unwrap().status(), 200);
        }
        stage.until_issued(1, coupon).await;
        let (status, shown) = stage.operator(1, &path).await.unwrap();
        assert_eq!(
            (
                status,
                &shown["issued"],
                &shown["total_quantity"],
                &shown["remaining"]
            ),
            (200, &json!(quantity), &json!(quantity), &json!(0)),
            "{shown}"
        );
    }
}

on_each_server! {
    every_node_shows_the_same_cluster
    no_node_shows_more_issued_than_the_quantity
}
