//! Responses when nothing can be decided: another program holds the lock of the database, or another node
//! owns the shards.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use testkit::poll::eventually;
use testkit::prometheus::value;

use crate::process::Serving;
use crate::support::{ADMIN_TOKEN, Reply, TestNode, send};
use crate::uses::assert_taken;

/// Makes a connection of another program to the node's database.
async fn other_program(node: &TestNode) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(node.database())
        .connect()
        .await
        .unwrap()
}

/// Takes the lock for writing.
pub async fn lock(node: &TestNode) -> SqliteConnection {
    hold_lock(&node.database()).await
}

/// Takes the lock for writing of this database.
pub async fn hold_lock(database: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database);
    let mut other = options.connect().await.unwrap();
    execute(&mut other, "BEGIN IMMEDIATE").await;
    other
}

/// Releases the lock.
pub async fn unlock(mut other: SqliteConnection) {
    execute(&mut other, "ROLLBACK").await;
}

/// Makes reads fail, as a damaged database would.
pub async fn hide_tables(database: &std::path::Path) {
    let mut other = SqliteConnectOptions::new()
        .filename(database)
        .connect()
        .await
        .unwrap();
    execute(&mut other, "ALTER TABLE issuances RENAME TO hidden").await;
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) {
    sqlx::query(statement).execute(connection).await.unwrap();
}

/// Asserts a 503 with this code and `Retry-After`.
pub fn assert_setback(reply: &Reply, code: &str, applied: Option<bool>) {
    assert_eq!(
        (reply.status, reply.body["code"].as_str()),
        (503, Some(code)),
        "{reply:?}"
    );
    assert_eq!(
        reply.body.get("applied"),
        Some(&applied.map_or(Value::Null, Value::Bool)),
        "{reply:?}"
    );
    assert!(
        (1..=60).contains(&reply.header("retry-after").parse::<u32>().unwrap()),
        "{reply:?}"
    );
}

/// Returns a request to redeem the first issuance of a coupon.
fn redeem_request(node: &TestNode, coupon: u64) -> RequestBuilder {
    let path = format!("/v1/issuances/{coupon}-1/redeem");
    let order = json!({"order_id": "a", "order_amount": 5});
    node.admin(Method::POST, &path).json(&order)
}

async fn reasons(node: &TestNode) -> Vec<String> {
    let reply = node.get("/readyz").await;
    reply.body["reasons"]
        .as_array()
        .map(|reasons| {
            reasons
                .iter()
                .map(|reason| reason.as_str().unwrap().to_owned())
                .collect()
        })
        .unwrap_or_default()
}

#[tokio::test]
async fn responses_are_correct_while_the_database_is_locked_and_the_node_recovers_afterwards() {
    let keys = [
        ("http.deadline", "1500ms"),
        ("http.change_deadline", "1500ms"),
        ("limits.requests_max", "2"),
        ("cluster.lease", "5s"),
    ];
    let node = TestNode::start_with(&keys).await;
    let id = node.coupon(json!({"total_quantity": 5})).await;
    assert_eq!(node.issue("early", id).await.status, 201);
    let other = lock(&node).await;

    // The request is decided, but not known to be stored in time.
    let keyed = |user| node.issue_request(user, id).header("Idempotency-Key", "k");
    assert_setback(&send(keyed("alice")).await, "OUTCOME_UNKNOWN", None);
    eventually("/readyz has no_store", async || {
        reasons(&node).await.iter().any(|reason| reason == "no_store")
    })
    .await;
    // From now on nothing is decided.
    assert_setback(&node.issue("bob", id).await, "STORE_UNAVAILABLE", Some(false));
    assert_setback(
        &node.patch(id, json!({"total_quantity": 9})).await,
        "STORE_UNAVAILABLE",
        Some(false),
    );
    assert_setback(
        &node.admin_post(&format!("/v1/coupons/{id}/pause")).await,
        "STORE_UNAVAILABLE",
        Some(false),
    );
    assert_eq!(
        node.create(json!({"title": "T", "total_quantity": 5}))
            .await
            .status,
        503
    );
    assert_eq!(
        node.get(&format!("/v1/coupons/{id}")).await.body["issued"],
        1,
        "reads go on"
    );

    eventually("/readyz has no_lease", async || {
        reasons(&node).await.iter().any(|reason| reason == "no_lease")
    })
    .await;
    assert_setback(&node.issue("bob", id).await, "STORE_UNAVAILABLE", Some(false));

    unlock(other).await;
    eventually("the node is ready again", async || {
        node.get("/readyz").await.status == 200
    })
    .await;
    let again = send(keyed("alice")).await;
    assert_eq!(again.status, 201, "{again:?}");
    assert_eq!(node.issue("bob", id).await.status, 201);
    let stored = node.admin_get(&format!("/v1/coupons/{id}/issuances")).await;
    stored.assert_list("sequence", &[json!(1), json!(2), json!(3)], false);
}

#[tokio::test]
async fn invalid_rows_cause_an_internal_error_and_are_not_shown() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let mut other = other_program(&node).await;
    execute(&mut other, "PRAGMA ignore_check_constraints = ON").await;
    execute(&mut other, "UPDATE coupons SET status = 'odd'").await;
    let is_refused = async |path: &str| {
        let reply = node.get(path).await;
        reply.assert_refused(500, "INTERNAL");
        assert!(!reply.body.to_string().contains("odd"), "{reply:?}");
    };
    is_refused(&format!("/v1/coupons/{id}")).await;
    is_refused("/v1/coupons").await;
    // The list of a phase reads only rows with a status that fits the phase, so here another column is
    // invalid.
    let odd = "UPDATE coupons SET status = 'open', discount_kind = 'odd', discount_value = 1";
    execute(&mut other, odd).await;
    is_refused("/v1/coupons?phase=live").await;
}

#[tokio::test]
async fn a_request_to_a_full_queue_is_answered_at_once() {
    let node = TestNode::start_with(&[("limits.requests_max", "1"), ("http.deadline", "5s")]).await;
    let id = node.coupon(json!({})).await;
    assert_eq!(node.issue("early", id).await.status, 201);
    let redeem = || send(redeem_request(&node, id));
    let other = lock(&node).await;
    // One of the two is admitted and waits; the other is refused at once.
    let mut asked = [
        tokio::spawn(send(node.issue_request("alice", id))),
        tokio::spawn(send(node.issue_request("bob", id))),
    ];
    let [alice, bob] = &mut asked;
    let (reply, held) = tokio::select! {
        reply = &mut *alice => (reply, bob),
        reply = &mut *bob => (reply, alice),
    };
    assert_setback(&reply.unwrap(), "OVERLOADED", Some(false));
    assert_setback(
        &node.patch(id, json!({"title": "New"})).await,
        "OVERLOADED",
        Some(false),
    );
    assert_setback(&redeem().await, "OVERLOADED", Some(false));
    unlock(other).await;
    assert_eq!(held.await.unwrap().status, 201);
    assert_taken(&redeem().await, "redeemed", false);
    assert_eq!(node.patch(id, json!({"title": "New"})).await.status, 200);
}

#[tokio::test]
async fn a_request_for_a_coupon_of_another_node_is_answered_owner_moving() {
    let node = TestNode::start_with(&[("http.deadline", "500ms"), ("http.change_deadline", "500ms")]).await;
    let id = node.coupon(json!({})).await;
    assert_eq!(node.issue("early", id).await.status, 201);
    let mut other = other_program(&node).await;
    execute(&mut other, "INSERT INTO nodes (node_id, incarnation, beat, state, http, cluster) VALUES ('other', 7, 1, 'ready', '', '')")
        .await;
    execute(&mut other, "UPDATE shards SET epoch = epoch + 1, owner = 7").await;
    let moving = async || {
        let reply = node.issue("alice", id).await;
        reply.body["code"] == "OWNER_MOVING" && {
            assert_setback(&reply, "OWNER_MOVING", Some(false));
            true
        }
    };
    eventually("the node sees that another node owns the shard", moving).await;
    assert_setback(
        &node.patch(id, json!({"title": "New"})).await,
        "OWNER_MOVING",
        Some(false),
    );
    let redeem = || send(redeem_request(&node, id));
    assert_setback(&redeem().await, "OWNER_MOVING", Some(false));
    // The other node does not beat: it is ended, and its shards are claimed.
    eventually("the shard is back", async || {
        node.issue("alice", id).await.status == 201
    })
    .await;
    assert_taken(&redeem().await, "redeemed", false);
    let request = node.admin(Method::GET, "/v1/cluster");
    let nodes = send(request).await.body["nodes"].clone();
    assert!(
        nodes
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["id"] == "other" && row["state"] == "ended"),
        "{nodes}"
    );
}

#[tokio::test]
async fn a_request_to_create_waits_until_the_deadline_and_a_retry_finds_the_coupon() {
    let node = TestNode::start_with(&[("http.change_deadline", "100ms")]).await;
    let create = || {
        send(
            node.admin(Method::POST, "/v1/coupons")
                .header("Idempotency-Key", "key")
                .json(&json!({"title": "T", "total_quantity": 5})),
        )
    };
    let lock = lock(&node).await;
    let reply = create().await;
    assert_eq!(
        (reply.status, reply.body["code"].as_str(), &reply.body["applied"]),
        (503, Some("OUTCOME_UNKNOWN"), &Value::Null),
        "{reply:?}"
    );
    unlock(lock).await;
    eventually("the coupon is created", async || create().await.status == 201).await;
    assert_eq!(
        node.get("/v1/coupons").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_node_whose_database_lost_a_table_or_a_row_is_not_ready_until_it_is_back() {
    let node = TestNode::start().await;
    let mut other = other_program(&node).await;
    for (lose, restore) in [
        (
            "ALTER TABLE issuances RENAME TO hidden",
            "ALTER TABLE hidden RENAME TO issuances",
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM shards WHERE shard_id = 7",
            "INSERT INTO shards SELECT * FROM kept",
        ),
    ] {
        assert_eq!(reasons(&node).await, Vec::<String>::new());
        execute(&mut other, lose).await;
        if restore.contains("kept") {
            execute(&mut other, "DELETE FROM shards WHERE shard_id = 7").await;
        }
        eventually("the node is not ready", async || {
            reasons(&node).await.contains(&"no_store".to_owned())
        })
        .await;
        execute(&mut other, restore).await;
        eventually("the node is ready", async || reasons(&node).await.is_empty()).await;
    }
}

#[tokio::test]
async fn a_node_whose_database_file_was_removed_or_replaced_answers_nothing_that_would_be_lost() {
    for is_replaced in [false, true] {
        let node = TestNode::start().await;
        let id = node.coupon(json!({})).await;
        assert_eq!(node.issue("alice", id).await.status, 201);
        let copy = node.database().with_extension("copy");
        std::fs::copy(node.database(), &copy).unwrap();
        if is_replaced {
            std::fs::rename(&copy, node.database()).unwrap();
        } else {
            std::fs::remove_file(node.database()).unwrap();
        }
        assert_eq!(node.issue("bob", id).await.status, 503);
        eventually("the node is not ready", async || {
            reasons(&node).await.contains(&"no_store".to_owned())
        })
        .await;
    }
}

/// The node is a process of its own, because tests in one process share their metrics.
#[tokio::test]
async fn metrics_show_errors_of_the_database_and_the_size_of_its_log() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start(&data, &["--set", &format!("auth.admin_token={ADMIN_TOKEN}")]);
    let get = async |path: &str| {
        let request = reqwest::Client::new().get(format!("http://{}{path}", serving.address));
        let response = request.header("X-User-Id", "alice").send().await.unwrap();
        response.text().await.unwrap()
    };
    let unreadable = r#"coupon_store_errors_total{kind="unreadable"}"#;
    let before = get("/metrics").await;
    assert_eq!(value(&before, unreadable), 0.0);
    assert!(value(&before, "coupon_sqlite_log_bytes") > 0.0);
    hide_tables(&data.path().join("data/firstcome.db")).await;
    get("/v1/me/issuances").await;
    assert!(value(&get("/metrics").await, unreadable) >= 1.0);
}

#[tokio::test]
async fn a_use_of_unknown_outcome_is_told_by_the_same_step_and_not_by_a_key() {
    let node = TestNode::start_with(&[("http.deadline", "500ms")]).await;
    let id = node.coupon(json!({})).await;
    let issued = node.issue("alice", id).await;
    assert_eq!(issued.status, 201);
    let redeem = || send(redeem_request(&node, id));
    let lock = lock(&node).await;
    let reply = redeem().await;
    assert_setback(&reply, "OUTCOME_UNKNOWN", None);
    let said = format!("{} {}", reply.body["title"], reply.body["detail"]);
    assert!(
        said.contains("the same step for the same order") && !said.contains("Idempotency-Key"),
        "{said}"
    );
    unlock(lock).await;
    eventually("the same step tells", async || {
        let reply = redeem().await;
        reply.status == 200 && reply.header("idempotent-replayed") == "true"
    })
    .await;
}
