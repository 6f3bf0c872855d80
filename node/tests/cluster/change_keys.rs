//! Changes with an `Idempotency-Key`. Every node knows a key, even after the owner was killed or handed the
//! coupon off.

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::database_proxy::DatabaseMode;
use testkit::node::ADMIN_TOKEN;
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

/// An answer to a change: its status, whether it is a replay, and its body.
#[derive(Debug)]
struct Changed {
    status: StatusCode,
    is_replay: bool,
    body: Value,
}

impl Changed {
    fn assert_is(&self, is_replay: bool, version: u64, quantity: u64) {
        assert_eq!(
            (
                self.status,
                self.is_replay,
                self.body["version"].as_u64(),
                self.body["total_quantity"].as_u64()
            ),
            (StatusCode::OK, is_replay, Some(version), Some(quantity)),
            "{self:?}"
        );
    }
}

/// Sets the quantity of a coupon at a node, under a key.
async fn set_quantity(stage: &Stage, asked: usize, coupon: u64, quantity: u64, key: &str) -> Changed {
    let address = &stage.members[asked].address;
    let request = stage
        .client
        .patch(format!("http://{address}/v1/coupons/{coupon}"))
        .bearer_auth(ADMIN_TOKEN)
        .header("Idempotency-Key", key)
        .json(&json!({"total_quantity": quantity}));
    let response = request.send().await.unwrap();
    Changed {
        status: response.status(),
        is_replay: response.headers().contains_key("idempotent-replayed"),
        body: response.json().await.unwrap(),
    }
}

/// Repeats a change until it is decided.
async fn until_decided(stage: &Stage, asked: usize, coupon: u64, quantity: u64, key: &str) -> Changed {
    let mut decided = None;
    eventually("the change is decided", async || {
        let changed = set_quantity(stage, asked, coupon, quantity, key).await;
        let is_decided = changed.status != StatusCode::SERVICE_UNAVAILABLE;
        decided = Some(changed);
        is_decided
    })
    .await;
    decided.unwrap()
}

async fn a_key_is_known_on_every_node_after_a_kill_and_a_hand_off(kind: ServerKind) {
    let mut stage = Stage::on(Server::shared(kind), &[], false).await;
    let coupon = stage.coupon_of(0).await;
    until_decided(&stage, 1, coupon, 10, "first")
        .await
        .assert_is(false, 2, 10);
    until_decided(&stage, 2, coupon, 20, "second")
        .await
        .assert_is(false, 3, 20);
    until_decided(&stage, 2, coupon, 10, "first")
        .await
        .assert_is(true, 3, 20);
    stage.members[0].kill();
    for asked in [1, 2] {
        until_decided(&stage, asked, coupon, 10, "first")
            .await
            .assert_is(true, 3, 20);
    }
    let other = until_decided(&stage, 1, coupon, 30, "first").await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{other:?}");
    // The node returns, and gets its shards by hand-offs.
    stage.start(&[0]);
    stage.settled().await;
    assert_eq!(
        stage.owner(1, coupon).await.as_ref(),
        Some(&stage.members[0].name)
    );
    for asked in [0, 1, 2] {
        until_decided(&stage, asked, coupon, 20, "second")
            .await
            .assert_is(true, 3, 20);
    }
}

/// The owner's database is silent, so that the change is decided and never stored.
async fn a_change_that_was_lost_with_its_owner_is_executed_once_when_it_is_repeated(kind: ServerKind) {
    let mut stage = Stage::on(Server::shared(kind), &[], false).await;
    let coupon = stage.coupon_of(0).await;
    // Now the owner is loaded, and needs no read to decide.
    until_decided(&stage, 1, coupon, 5, "before")
        .await
        .assert_is(false, 2, 5);
    stage.members[0].database.set(DatabaseMode::Hold);
    let unknown = set_quantity(&stage, 1, coupon, 10, "key").await;
    assert_eq!(
        (
            unknown.status,
            unknown.body["code"].as_str(),
            &unknown.body["applied"]
        ),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Some("OUTCOME_UNKNOWN"),
            &Value::Null
        ),
        "{unknown:?}"
    );
    stage.members[0].kill();
    until_decided(&stage, 1, coupon, 10, "key")
        .await
        .assert_is(false, 3, 10);
    until_decided(&stage, 2, coupon, 10, "key")
        .await
        .assert_is(true, 3, 10);
}

on_each_server! {
    a_key_is_known_on_every_node_after_a_kill_and_a_hand_off
    a_change_that_was_lost_with_its_owner_is_executed_once_when_it_is_repeated
}
