//! Bulk calls at a node that does not own the coupon.

use serde_json::{Value, json};
use testkit::node::ADMIN_TOKEN;
use testkit::on_each_server;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;

/// Number of users of the call.
const USERS: u64 = 1_000;

async fn users_of_a_bulk_call_keep_their_order_over_a_link(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &[], false).await;
    for owner in [1, 0, 2] {
        let coupon = stage.coupon_of(owner).await;
        let users: Vec<String> = (1..=USERS).map(|number| format!("user-{number}")).collect();
        let address = &stage.members[0].address;
        let request = stage
            .client
            .post(format!("http://{address}/v1/coupons/{coupon}/issuances/bulk"))
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({"user_ids": users}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let body: Value = response.json().await.unwrap();
        let results = body["results"].as_array().unwrap();
        assert_eq!(results.len(), users.len());
        for ((sequence, user), result) in (1..).zip(&users).zip(results) {
            let expected = (&json!(201), &json!(user), &json!(sequence));
            let given = (
                &result["status"],
                &result["issuance"]["user_id"],
                &result["issuance"]["sequence"],
            );
            assert_eq!(given, expected, "of node {owner}: {result}");
        }
    }
}

on_each_server! { users_of_a_bulk_call_keep_their_order_over_a_link }
