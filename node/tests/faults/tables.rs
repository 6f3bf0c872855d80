//! The rows of uses in each database after a checkout, which the checker reads without the service.

use reqwest::Client;
use serde_json::{Value, json};
use testkit::node::Node;
use testkit::on_each_server;
use testkit::recorder::HttpRecorder;
use testkit::servers::{Server, ServerKind};

use crate::FIRSTCOME;

/// Steps with issuances, and the status and code of each answer; no code if the status is 200.
const STEPS: [(u64, &str, &str, u16, &str); 12] = [
    (
        1,
        "reserve",
        r#"{"order_id": "o", "order_amount": 1999, "hold": 60}"#,
        200,
        "",
    ),
    (
        1,
        "redeem",
        r#"{"order_id": "p", "order_amount": 1999}"#,
        409,
        "RESERVED",
    ),
    (1, "redeem", r#"{"order_id": "o"}"#, 200, ""),
    (1, "redeem", r#"{"order_id": "o"}"#, 200, ""),
    (1, "refund", r#"{"order_id": "o"}"#, 200, ""),
    (
        2,
        "reserve",
        r#"{"order_id": "q", "order_amount": 99}"#,
        409,
        "BELOW_MINIMUM",
    ),
    (
        2,
        "reserve",
        r#"{"order_id": "q", "order_amount": 100000}"#,
        200,
        "",
    ),
    (
        2,
        "reserve",
        r#"{"order_id": "q", "order_amount": 100001}"#,
        422,
        "ORDER_MISMATCH",
    ),
    (2, "release", r#"{"order_id": "q"}"#, 200, ""),
    (3, "revoke", r#"{"return_quantity": true}"#, 200, ""),
    (
        3,
        "reserve",
        r#"{"order_id": "r", "order_amount": 1000}"#,
        409,
        "REVOKED",
    ),
    (1, "redeem", r#"{"order_id": "p", "order_amount": 500}"#, 200, ""),
];

/// Uses a coupon on a node with these keys, and judges what is stored at this URL.
async fn check_out(keys: &[String], store_url: impl FnOnce(&std::path::Path) -> String) {
    let data = tempfile::tempdir().unwrap();
    let node = tokio::task::block_in_place(|| Node::start(FIRSTCOME, data.path(), keys));
    let (client, history, address) = (Client::new(), HttpRecorder::default(), &node.address);
    let offer = json!({
        "title": "checkout", "total_quantity": 3, "discount": {"kind": "rate", "value": 15}, "max_discount": 5000,
        "min_order_amount": 100
    });
    let coupon = history.create_like(&client, address, &offer).await;
    for user in ["alice", "bob", "carol"] {
        let answer = history.issue(&client, address, coupon, user, user).await;
        assert_eq!(answer.unwrap().0, 201);
    }
    for (sequence, step, body, status, code) in STEPS {
        let id = format!("{coupon}-{sequence}");
        history.quote(&client, address, &id, 2_000).await.unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let (told, answer) = history.step(&client, address, &id, step, &body).await.unwrap();
        assert_eq!(told, status, "{step} {body}");
        if status != 200 {
            assert_eq!(answer["code"], code, "{step} {body}");
        }
    }
    // One was given back to the quantity.
    let answer = history.issue(&client, address, coupon, "dave", "dave").await;
    assert_eq!(answer.unwrap().0, 201);
    let report = history.judge_tables(address, &store_url(data.path())).await;
    assert_eq!((report.issuances, report.uses), (4, 7));
    assert_eq!(report.answers["redeem done"], 2);
    assert_eq!(report.answers["redeem replayed"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_a_checkout_are_judged_on_sqlite() {
    check_out(&[], |data| {
        format!("sqlite:{}", data.join("data/firstcome.db").display())
    })
    .await;
}

async fn the_rows_of_a_checkout_are_judged(kind: ServerKind) {
    let server = Server::shared(kind);
    let name = server.make_writable_database().await;
    let keys = [format!("store.url={}", server.url(&name, None))];
    check_out(&keys, |_| server.url(&name, None)).await;
}

on_each_server! { the_rows_of_a_checkout_are_judged }
