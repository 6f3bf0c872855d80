//! The memory and the loading time of an owner with a million issuances, never used and used.
//!
//! This is a program of its own because the tests of a program run side by side, and this test measures time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use testkit::node::{ADMIN_TOKEN, Node};

/// The program under test.
const FIRSTCOME: &str = env!("CARGO_BIN_EXE_firstcome");

const MILLION: u64 = 1_000_000;
const BYTES_MAX: u64 = 100_000_000;
/// Number of uses. Each is of another issuance and by another order, which takes the most memory.
const USES: u64 = 300_000;
const BYTES_MAX_WITH_USES: u64 = 130_000_000;
/// Several times as long as loading takes on an idle machine. No time is promised, but the time must not grow
/// with the square of what is loaded.
const LOADED_WITHIN: Duration = Duration::from_secs(10);

/// How long a node may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The time of all issuances, in microseconds since 1970.
const ISSUED_AT: u64 = 1_795_737_600_000_000;

/// Makes a coupon and stores a million issuances of it, with user ids and keys of the usual length. Returns
/// its id.
async fn fill(folder: &Path) -> u64 {
    let node = Node::start(FIRSTCOME, folder, &[]);
    let coupon = make_coupon(&reqwest::Client::new(), &node.address, None).await;
    assert!(node.stop(STOP_LIMIT), "{}", node.log());
    let file = SqliteConnectOptions::new().filename(folder.join("data/firstcome.db"));
    let statement = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MILLION})
         INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         SELECT {coupon}, n, printf('user-%011d', n), 1, substr(hex(randomblob(11)), 1, 21), {ISSUED_AT} FROM numbers"
    );
    let mut database = file.connect().await.unwrap();
    let stored = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut database)
        .await;
    assert_eq!(stored.unwrap().rows_affected(), MILLION);
    coupon
}

/// Stores uses of every third issuance, by orders with ids of the usual length.
async fn use_some(folder: &Path, coupon: u64) {
    let file = SqliteConnectOptions::new().filename(folder.join("data/firstcome.db"));
    let statement = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {USES})
         INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, returns, author,
                           used_at, reserved, redeemed, revoked, returned)
         SELECT {coupon}, n, 3 * n, 'redeemed', printf('0c8fb9d4-6a1e-4f0e-9c3b-%012d', n), 45000, 10000, 0,
                'service:shop', {ISSUED_AT}, 0, n, 0, 0
           FROM numbers"
    );
    let mut database = file.connect().await.unwrap();
    let stored = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut database)
        .await;
    assert_eq!(stored.unwrap().rows_affected(), USES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_issuances_take_a_hundred_megabytes_and_thirty_more_with_uses_and_load_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let coupon = fill(folder.path()).await;
    let mut sequence = MILLION;
    is_within(
        "a million issuances",
        folder.path(),
        coupon,
        &mut sequence,
        BYTES_MAX,
    )
    .await;
    use_some(folder.path(), coupon).await;
    let what = format!("a million issuances with {USES} uses");
    is_within(&what, folder.path(), coupon, &mut sequence, BYTES_MAX_WITH_USES).await;
}

/// Checks the memory and the time that loading takes. `sequence` is the highest stored one.
async fn is_within(what: &str, folder: &Path, coupon: u64, sequence: &mut u64, bytes_max: u64) {
    let (mut least, mut fastest) = (u64::MAX, Duration::MAX);
    // Other programs run on the machine, and the system may or may not give huge pages to the allocator. So
    // the least of six attempts shows what the program itself takes.
    for _ in 1..=6 {
        *sequence += 1;
        let (bytes, took) = activate(folder, coupon, *sequence).await;
        println!("{what}: {} MB, loaded in {took:?}", bytes / 1_000_000);
        (least, fastest) = (least.min(bytes), fastest.min(took));
        if least <= bytes_max && fastest <= LOADED_WITHIN {
            return;
        }
    }
    panic!("{what}: {least} bytes, {fastest:?}");
}

/// Starts a node and requests one more issuance. Returns by how much the node grew, and how long the request
/// took.
async fn activate(folder: &Path, coupon: u64, sequence: u64) -> (u64, Duration) {
    // The request waits for loading, however long that takes.
    let node = Node::start(FIRSTCOME, folder, &["http.deadline=60s".to_owned()]);
    let (client, user) = (reqwest::Client::new(), format!("late-{sequence}"));
    let issue = |id: u64| {
        let url = format!("http://{}/v1/coupons/{id}/issuances", node.address);
        client.post(url).header("X-User-Id", &user).send()
    };
    // The first request opens the connection, and causes everything that a node does only once.
    let other = make_coupon(&client, &node.address, Some(1)).await;
    assert_eq!(issue(other).await.unwrap().status(), 201);
    let empty = node.memory();
    let begun = Instant::now();
    let answer = issue(coupon).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(answer.status(), 201);
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .contains(&format!("\"sequence\":{sequence},"))
    );
    let grown = node.memory() - empty;
    node.kill();
    (grown, took)
}

/// Makes a coupon and returns its id.
async fn make_coupon(client: &reqwest::Client, address: &str, total_quantity: Option<u64>) -> u64 {
    let body = serde_json::json!({"title": "test", "total_quantity": total_quantity});
    let made = client
        .post(format!("http://{address}/v1/coupons"))
        .bearer_auth(ADMIN_TOKEN)
        .json(&body)
        .send()
        .await
        .unwrap();
    made.json::<serde_json::Value>().await.unwrap()["id"]
        .as_u64()
        .unwrap()
}
