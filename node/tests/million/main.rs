//! A million issued to one coupon: what its owner costs in memory, and how long it takes to come.
//!
//! A program of its own: tests of one program run side by side, and this one looks at the clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/process.rs"]
mod process;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::ids::{CouponId, Fence, Incarnation, IssuanceId, RequestKey, Sequence, UserId};
use actors::offer::{Issuance, Offer, Status};
use actors::store::sqlite::{Options, SqliteStore};
use actors::store::{Claim, Created, NewCoupon, Store};
use actors::time::timestamp;
use actors::write_back::batch::{BATCH_ROWS_MAX, Batch, Entries, Portion};

use process::Process;

const MILLION: u64 = 1_000_000;
const BYTES_MAX: u64 = 100_000_000;
const SECONDS_MAX: Duration = Duration::from_secs(2);

/// A million issuances, stored as owners store them.
async fn fill(store: &SqliteStore) -> CouponId {
    store.check().await.unwrap();
    let offer = Offer {
        title: "a million".to_owned(),
        discount: None,
        min_order_amount: None,
        total_quantity: Some(2 * MILLION),
        per_user_limit: 1,
        starts_at: None,
        ends_at: None,
        use_within_days: None,
    };
    let new = NewCoupon { key: RequestKey::random(), offer, status: Status::Open, created_at: timestamp() };
    let Created::New(coupon) = store.create_coupon(&new).await.unwrap() else { panic!("it is new") };
    let seen = store.shards().await.unwrap()[usize::from(coupon.id.shard().get())];
    let owner = Incarnation::random();
    let row = store.claim(&[Claim { seen, claimant: owner }]).await.unwrap()[0];
    let numbers: Vec<u64> = (1..=MILLION).collect();
    for numbers in numbers.chunks(BATCH_ROWS_MAX) {
        let issuances: Arc<[Issuance]> = numbers.iter().map(|number| issuance(coupon.id, *number)).collect();
        let fence = Fence { epoch: row.epoch, owner };
        let portion = Portion { coupon: coupon.id, shard: row.id, fence, entries: Entries::Issuances(issuances) };
        assert_eq!(store.write(&Batch { portions: vec![portion] }).await.unwrap(), numbers.len() as u64);
    }
    coupon.id
}

fn issuance(coupon: CouponId, number: u64) -> Issuance {
    Issuance {
        id: IssuanceId { coupon, sequence: Sequence::new(number) },
        user: UserId::parse(&format!("user-{number:011}")).unwrap(),
        nth: 1,
        key: RequestKey::random(),
        issued_at: timestamp(),
        expires_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_issuances_cost_a_hundred_megabytes_and_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options::new(folder.path().join("data/firstcome.db"))).await.unwrap();
    let coupon = fill(&store).await;
    store.close().await;

    let mut fastest = Duration::MAX;
    // The machine is shared: the quickest of three is what the program takes.
    for start in 1..=3 {
        let (bytes, took) = activate(folder.path(), coupon, MILLION + start).await;
        println!("a million issuances: {} MB, loaded in {took:?}", bytes / 1_000_000);
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
        fastest = fastest.min(took);
        if fastest <= SECONDS_MAX {
            return;
        }
    }
    panic!("{fastest:?}");
}

/// Starts a node and asks for one more; what it grew by, and how long that took.
async fn activate(folder: &Path, coupon: CouponId, sequence: u64) -> (u64, Duration) {
    let mut process = Process::start(folder);
    let (client, user) = (reqwest::Client::new(), format!("late-{sequence}"));
    let issue = |id: u64| {
        let url = format!("http://{}/v1/coupons/{id}/issuances", process.address);
        client.post(url).header("X-User-Id", &user).send()
    };
    // Warm: the connection and everything else that the first request of a node makes.
    let other = coupon_of_one(&client, &process.address).await;
    assert_eq!(issue(other).await.unwrap().status(), 201);
    let empty = process.memory();
    let begun = Instant::now();
    let answer = issue(coupon.get()).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(answer.status(), 201);
    assert!(answer.text().await.unwrap().contains(&format!("\"sequence\":{sequence},")));
    let grown = process.memory() - empty;
    process.kill();
    (grown, took)
}

/// Makes a coupon; its id.
async fn coupon_of_one(client: &reqwest::Client, address: &str) -> u64 {
    let body = serde_json::json!({"title": "one", "total_quantity": 1});
    let made = client.post(format!("http://{address}/v1/coupons")).bearer_auth(process::ADMIN_TOKEN).json(&body).send().await.unwrap();
    made.json::<serde_json::Value>().await.unwrap()["id"].as_u64().unwrap()
}
