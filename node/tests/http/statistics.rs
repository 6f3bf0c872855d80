//! Statistics of coupons, over real sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actors::time::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use testkit::poll::within;

use crate::support::{LIMIT, Reply, TestNode, send};
use crate::uses::{Shop, order};

const COUNTS: [&str; 8] = [
    "issued",
    "reserved",
    "redeemed",
    "released",
    "refunded",
    "revoked",
    "discount_given",
    "discount_refunded",
];

fn path(coupon: u64, query: &str) -> String {
    format!("/v1/coupons/{coupon}/statistics?{query}")
}

fn counts(tally: &Value) -> Vec<u64> {
    COUNTS.iter().map(|name| tally[name].as_u64().unwrap()).collect()
}

/// Checks that the buckets are in order, not empty, within their times, and sum up to the total.
fn assert_adds_up(reply: &Reply) {
    let length = reply.body["bucket_seconds"].as_i64().unwrap() * 1_000_000;
    let mut sums = vec![0; COUNTS.len()];
    let mut last = i64::MIN;
    for bucket in reply.body["buckets"].as_array().unwrap() {
        let at = Timestamp::parse(bucket["at"].as_str().unwrap())
            .unwrap()
            .as_micros();
        assert!(at > last && at % length == 0, "{bucket}");
        last = at;
        let counts = counts(bucket);
        assert!(counts[..6].iter().sum::<u64>() > 0, "{bucket}");
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    assert_eq!(sums, counts(&reply.body["total"]));
}

#[tokio::test]
async fn what_happened_is_counted_within_five_seconds_in_all_and_by_time() {
    let shop = Shop::open(json!({"per_user_limit": null})).await;
    let get = async |query: &str| shop.node.admin_get(&path(shop.coupon, query)).await;
    let nothing = get("bucket=1s").await;
    assert_eq!((nothing.status, &nothing.body["buckets"]), (200, &json!([])));
    assert_eq!(counts(&nothing.body["total"]), [0; 8]);
    let (one, two) = (shop.issue("alice").await, shop.issue("alice").await);
    for (issuance, step, body) in [
        (&one, "reserve", order("a", 20_000)),
        (&one, "redeem", json!({"order_id": "a"})),
        (&one, "refund", json!({"order_id": "a"})),
        (&two, "reserve", order("b", 20_000)),
        (&two, "release", json!({"order_id": "b"})),
        (&one, "redeem", order("c", 90_000)),
        (&two, "revoke", json!({})),
    ] {
        assert_eq!(shop.post(issuance, step, body).await.status, 200, "{step}");
    }
    let begun = Instant::now();
    // The first redemption took 3,000 off, which were given back; the second takes 5,000, its maximum.
    let expected = [2, 2, 2, 1, 1, 1, 8_000, 3_000];
    within(LIMIT, "everything is counted", async || {
        let reply = get("bucket=1s").await;
        assert_adds_up(&reply);
        counts(&reply.body["total"]) == expected
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    for query in [
        "",
        "bucket=1d",
        "bucket=24h",
        "bucket=90s",
        "bucket=5m",
        "bucket=1h",
    ] {
        let reply = get(query).await;
        assert_adds_up(&reply);
        assert_eq!(counts(&reply.body["total"]), expected, "{query}");
    }
    assert_eq!(get("").await.body["bucket_seconds"], 86_400);
    let viewed = get("bucket=1h").await.body;
    let of = |from: &str, to: &str| format!("bucket=1h&from={from}&to={to}");
    let inside = get(&of("2001-01-01T00:00:00Z", "2096-01-01T00:00:00Z"))
        .await
        .body;
    assert_eq!(inside["total"], viewed["total"]);
    assert_eq!(inside["from"], "2001-01-01T00:00:00.000000Z");
    let before = get(&of("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"))
        .await
        .body;
    assert_eq!(counts(&before["total"]), [0; 8]);
}

#[tokio::test]
async fn wrong_parameters_of_statistics_are_named() {
    let shop = Shop::open(json!({})).await;
    for (query, fields) in [
        ("bucket=0s", vec!["bucket"]),
        ("bucket=2d", vec!["bucket"]),
        ("bucket=hour", vec!["bucket"]),
        ("bucket=", vec!["bucket"]),
        ("from=yesterday", vec!["from"]),
        ("from=2026-11-27", vec!["from"]),
        ("bucket=x&from=y&to=z", vec!["bucket", "from", "to"]),
        ("from=2026-11-27T00:00:00Z&to=2026-11-27T00:00:00Z", vec!["to"]),
        ("limit=5", vec!["limit"]),
    ] {
        shop.node
            .admin_get(&path(shop.coupon, query))
            .await
            .assert_invalid(&fields);
    }
    let unknown = shop.node.admin_get(&path(9_007_199_254_740_991, "")).await;
    unknown.assert_refused(404, "UNKNOWN_COUPON");
    let user = shop.node.get_as("alice", &path(shop.coupon, "")).await;
    user.assert_refused(403, "FORBIDDEN");
}

/// Stores this many issuances in the database of a node that runs, and three uses of each tenth.
async fn store(node: &TestNode, coupon: u64, count: u32) {
    let options = SqliteConnectOptions::new().filename(node.database());
    let mut shell = options.busy_timeout(LIMIT).connect().await.unwrap();
    let numbers = format!(
        "WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
    );
    let issuances = format!(
        "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         {numbers} SELECT {coupon}, n, 'user-' || n, 1, 'key-' || n, 1700000000000000 + n * 1000 FROM numbers"
    );
    let uses = format!(
        "INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, returns,
                           author, used_at, reserved, redeemed, revoked, returned)
         {numbers} SELECT {coupon}, n, (n + 2) / 3 * 10, CASE n % 3 WHEN 1 THEN 'reserved' WHEN 2 THEN 'redeemed'
                          ELSE 'refunded' END, 'order', 20000, 3000, 0, 'key:shop', 1700000000000000 + n * 1000,
                          0, 0, 0, 0 FROM numbers WHERE n <= {count} * 3 / 10"
    );
    for statement in [issuances, uses] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut shell)
            .await
            .unwrap();
    }
    shell.close().await.unwrap();
}

/// Many rows are counted within the time of a request, and for many clients only once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_of_many_rows_are_computed_once_for_all_clients() {
    const COUNT: u32 = 100_000;
    let node = TestNode::start_with(&[("limits.client_lists", "64")]).await;
    let coupon = node.coupon(json!({})).await;
    store(&node, coupon, COUNT).await;
    let begun = Instant::now();
    let asked = (0..50).map(|_| send(node.admin(Method::GET, &path(coupon, "bucket=1m"))));
    let replies = futures_util::future::join_all(asked).await;
    println!("statistics of {COUNT} issuances: {:?}", begun.elapsed());
    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (200, &replies[0].body));
    }
    assert_adds_up(&replies[0]);
    let expected = [100_000, 10_000, 10_000, 0, 10_000, 0, 30_000_000, 30_000_000];
    assert_eq!(counts(&replies[0].body["total"]), expected);
    // From 22:13:20 to 22:15:00.
    assert_eq!(replies[0].body["buckets"].as_array().unwrap().len(), 3);
    let buckets = async |query: &str| node.admin_get(&path(coupon, query)).await;
    // 100 s are 101 buckets of a second.
    let seconds = buckets("bucket=1s").await;
    assert_eq!(seconds.body["buckets"].as_array().unwrap().len(), 101);
    assert_adds_up(&seconds);
}

/// Stores one issuance and one use of it after another, the two in one transaction, until `over`. Returns how
/// many issuances there are then.
async fn store_pairs(database: PathBuf, coupon: u64, first: u64, over: Arc<AtomicBool>) -> u64 {
    let options = SqliteConnectOptions::new().filename(database);
    let mut shell = options.busy_timeout(LIMIT).connect().await.unwrap();
    let mut last = first;
    while !over.load(Ordering::Relaxed) {
        last += 1;
        let pair = format!(
            "BEGIN IMMEDIATE;
             INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
             VALUES ({coupon}, {last}, 'user-{last}', 1, 'key', 1700000000000000 + {last});
             INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, returns,
                               author, used_at, reserved, redeemed, revoked, returned)
             VALUES ({coupon}, {last} - {first} * 7 / 10, {last}, 'reserved', 'order', 20000, 3000, 0, 'key:shop',
                     1700000000000000 + {last}, 0, 0, 0, 0);
             COMMIT"
        );
        sqlx::raw_sql(AssertSqlSafe(pair))
            .execute(&mut shell)
            .await
            .unwrap();
        // The node writes its beats meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shell.close().await.unwrap();
    last
}

/// Each stored pair is an issuance and a use. So the number of issuances minus the number of uses is the same
/// in all statistics that are computed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_are_exact_while_rows_are_stored() {
    const COUNT: u32 = 20_000;
    const MORE: u64 = 14_000;
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({})).await;
    store(&node, coupon, COUNT).await;
    let over = Arc::new(AtomicBool::new(false));
    let storing = store_pairs(node.database(), coupon, COUNT.into(), Arc::clone(&over));
    let storing = tokio::spawn(storing);
    let total = async |minutes: u32| {
        let reply = node.admin_get(&path(coupon, &format!("bucket={minutes}m"))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_adds_up(&reply);
        counts(&reply.body["total"])
    };
    let mut issued = Vec::new();
    // Each of these is a computation of its own, and goes on after five seconds.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        for minutes in 1..=6 {
            let counts = total(minutes).await;
            assert_eq!(counts[0] - counts[1..6].iter().sum::<u64>(), MORE, "{counts:?}");
            issued.push(counts[0]);
        }
    }
    over.store(true, Ordering::Relaxed);
    let last = storing.await.unwrap();
    issued.sort_unstable();
    issued.dedup();
    assert!(
        issued.len() > 6,
        "hardly any row was stored meanwhile: {issued:?}"
    );
    within(LIMIT, "all rows are counted", async || total(1).await[0] == last).await;
}

#[tokio::test]
async fn of_too_many_buckets_the_newest_are_shown_and_the_others_follow() {
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({})).await;
    store(&node, coupon, 3_000).await;
    let options = SqliteConnectOptions::new().filename(node.database());
    let mut shell = options.busy_timeout(LIMIT).connect().await.unwrap();
    // One issuance a minute. All uses are in the minute before the first.
    let spread = "UPDATE issuances SET issued_at = 1700000000000000 + sequence * 60000000";
    sqlx::raw_sql(spread).execute(&mut shell).await.unwrap();
    shell.close().await.unwrap();
    let hours = node.admin_get(&path(coupon, "bucket=1h")).await;
    assert_adds_up(&hours);
    assert_eq!(
        (&hours.body["total"]["issued"], &hours.body["next_to"]),
        (&json!(3_000), &Value::Null)
    );
    let mut buckets = Vec::new();
    let (mut query, mut left) = ("bucket=1m".to_owned(), 3_000);
    for page in 0..4 {
        let minutes = node.admin_get(&path(coupon, &query)).await;
        assert_eq!(minutes.status, 200, "{minutes:?}");
        assert_eq!(minutes.body["total"]["issued"], left);
        assert_eq!(minutes.body["total"]["redeemed"], 300);
        let shown = minutes.body["buckets"].as_array().unwrap();
        buckets.splice(0..0, shown.iter().cloned());
        if page == 3 {
            assert_eq!((shown.len(), &minutes.body["next_to"]), (1, &Value::Null));
            assert_adds_up(&minutes);
            break;
        }
        assert_eq!(shown.len(), 1_000);
        assert_eq!(minutes.body["next_to"], shown[0]["at"]);
        query = format!("bucket=1m&to={}", minutes.body["next_to"].as_str().unwrap());
        left -= 1_000;
    }
    let all = Reply {
        body: json!({"bucket_seconds": 60, "buckets": buckets, "total": hours.body["total"]}),
        ..hours
    };
    assert_adds_up(&all);
}
