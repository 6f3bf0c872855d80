//! How long a store takes on this machine: `cargo run --release --example store_figures
//! [directory | mysql://…]`.
//!
//! Times the commits of batches of several sizes, and then the loading of an owner with a million issuances.
//! The embedded store is made in a new directory, which is removed at the end. The parent of that directory
//! is the given one; by default it is the system's directory for temporary files. If a URL names the
//! database, the rows are kept.

use std::error::Error;
use std::time::{Duration, Instant};

use actors::coupon::CouponKind;
use actors::coupon::rows::CouponRows;
use actors::ids::{RequestKey, UserId};
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};
use actors::store::{EntryStore, Loaded, Store};
use bench::prefilled::PrefilledCoupon;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MILLION: u64 = 1_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    match std::env::args().nth(1) {
        Some(url) if url.starts_with("mysql://") => {
            let store = MySqlStore::open(&mysql::Options::new(url)).await?;
            println!("{:?}", store.dialect());
            measure(&store).await?;
            store.close().await;
        }
        base => {
            let directory = tempfile::tempdir_in(base.map_or_else(std::env::temp_dir, Into::into))?;
            let store = SqliteStore::open(&sqlite::Options::new(directory.path().join("figures.db"))).await?;
            measure(&store).await?;
            store.close().await;
        }
    }
    Ok(())
}

async fn measure(store: &(impl Store<CouponKind> + CouponRows)) -> Result<()> {
    for rows in [1, 32, 128, 512, 1_024, 2_048] {
        let coupon = PrefilledCoupon::make(store).await?;
        let times = fill(store, &coupon, rows, 65_536.min(rows * 400)).await?;
        println!(
            "batch of {rows:5} rows: median {:?}, 99 % {:?}, {} batches",
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times.len()
        );
    }
    let coupon = PrefilledCoupon::make(store).await?;
    let started = Instant::now();
    let times = fill(store, &coupon, 2_000, MILLION).await?;
    println!(
        "a million rows by 2000: {:?}, median {:?}",
        started.elapsed(),
        times[times.len() / 2]
    );
    for _ in 0..3 {
        let started = Instant::now();
        let Loaded::Read(_, rows) = store.load(coupon.id, None).await? else {
            return Err("the coupon is gone".into());
        };
        println!(
            "load {} issuances ({} bytes in memory): {:?}",
            rows.issued.last(),
            rows.issued.bytes() + rows.uses.bytes(),
            started.elapsed()
        );
    }
    Ok(())
}

/// Stores at least this many rows in batches of one size. Returns the sorted times of the batches.
async fn fill(
    store: &dyn EntryStore<CouponKind>,
    coupon: &PrefilledCoupon,
    batch_rows: u64,
    rows: u64,
) -> Result<Vec<Duration>> {
    // Sixteen characters. Like the ids of real users, these ids are not in order.
    let user = |number: u64| UserId::parse(&format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let is_over = |batches: u64| batches * batch_rows >= rows;
    let requester = |number| Ok((user(number)?, RequestKey::random()));
    let mut times = coupon.timed(store, batch_rows, is_over, requester).await?;
    times.sort();
    Ok(times)
}
