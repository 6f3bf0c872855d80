//! A node is suspended while the write of a use is on its way to the database, and another node takes the
//! shard over. The fence must keep the late write from being stored.

use serde_json::json;
use testkit::database_proxy::DatabaseMode;
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

/// The node that is suspended, and one that takes over from it.
const SUSPENDED: usize = 0;
const OTHER: usize = 1;

/// Returns the kinds of the uses that are stored of an issuance, oldest first.
async fn stored(stage: &Stage, issuance: &str) -> Vec<String> {
    let path = format!("/v1/issuances/{issuance}/uses");
    let (status, body) = stage.operator(OTHER, &path).await.expect("an answer");
    assert_eq!(status, 200, "{body}");
    let kinds = body["items"].as_array().unwrap().iter();
    kinds
        .map(|made| made["kind"].as_str().unwrap().to_owned())
        .collect()
}

async fn a_use_that_arrives_after_a_take_over_is_not_stored(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &["cluster.lease=1500ms", "cluster.beat=150ms"], false).await;
    let coupon = stage.coupon_of(SUSPENDED).await;
    stage.until_issued(SUSPENDED, coupon).await;
    let issuance = format!("{coupon}-1");
    let step = async |asked: usize, step: &str, order: &str| {
        let body = match step {
            "release" => json!({"order_id": order}),
            _ => json!({"order_id": order, "order_amount": 1_000}),
        };
        let (history, address) = (&stage.history, &stage.members[asked].address);
        let answer = history.step(&stage.client, address, &issuance, step, &body);
        answer.await.expect("an answer")
    };
    assert_eq!(step(SUSPENDED, "reserve", "first").await.0, 200);

    let (suspended, proxy) = (&stage.members[SUSPENDED], &stage.members[SUSPENDED].database);
    proxy.set(DatabaseMode::KeepUses);
    let after_a_take_over = async {
        eventually("the use is on its way", async || proxy.kept() == 1).await;
        suspended.suspend();
        // The next owner has the coupon, and has loaded its uses.
        stage.until_issued(OTHER, coupon).await;
        proxy.set(DatabaseMode::Pass);
        eventually("the database has answered the use", async || {
            proxy.kept_and_answered() == 1
        })
        .await;
        assert_eq!(stored(&stage, &issuance).await, ["reserved"]);
        // What the suspended node has answered is there.
        assert_eq!(step(OTHER, "reserve", "second").await.1["code"], "RESERVED");
        assert_eq!(step(OTHER, "release", "first").await.0, 200);
        assert_eq!(step(OTHER, "redeem", "second").await.0, 200);
        suspended.resume();
    };
    let (late, ()) = tokio::join!(step(SUSPENDED, "redeem", "first"), after_a_take_over);
    println!("the use that was on its way was answered {late:?}");
    assert!(late.0 == 503 || late.1["code"] == "REDEEMED", "{late:?}");
    stage.settled().await;
    assert_eq!(step(SUSPENDED, "redeem", "first").await.1["code"], "REDEEMED");
    assert_eq!(
        stored(&stage, &issuance).await,
        ["reserved", "released", "redeemed"]
    );
    stage.judge().await;
}

on_each_server! { a_use_that_arrives_after_a_take_over_is_not_stored }
