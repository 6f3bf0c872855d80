//! How long a store takes, on this machine: `cargo run --release -p firstcome-actors --example store_figures [directory | mysql://…]`.
//!
//! Batches of several sizes, each timed to its commit; then loading an owner with a million issuances. For the embedded store everything is made
//! in a fresh directory below the given one (the system's for temporary files by default) and removed; a database that a URL names keeps it.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::ids::{CouponId, Fence, Incarnation, IssuanceId, RequestKey, Sequence, UserId};
use actors::offer::{Issuance, Offer, Status};
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};
use actors::store::{Claim, Created, NewCoupon, ShardRow, Store};
use actors::time::timestamp;
use actors::write_back::batch::{Batch, Entries, Portion};

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

async fn measure(store: &dyn Store) -> Result<()> {
    store.check().await?;
    for rows in [1, 32, 128, 512, 1_024, 2_048] {
        let coupon = Stocked::make(store).await?;
        let times = coupon.fill(store, rows, 65_536.min(rows * 400)).await?;
        println!(
            "batch of {rows:5} rows: median {:?}, 99 % {:?}, {} batches",
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times.len()
        );
    }
    let coupon = Stocked::make(store).await?;
    let started = Instant::now();
    let times = coupon.fill(store, 2_000, MILLION).await?;
    println!("a million rows by 2000: {:?}, median {:?}", started.elapsed(), times[times.len() / 2]);
    for _ in 0..3 {
        let (started, mut loaded, mut bytes) = (Instant::now(), 0_u64, 0_usize);
        store
            .load(coupon.id, Sequence::NONE, &mut |issuance| {
                loaded += 1;
                bytes += issuance.user.len() + issuance.key.len();
                Ok(())
            })
            .await?;
        println!("load {loaded} issuances ({bytes} bytes of ids and keys): {:?}", started.elapsed());
    }
    Ok(())
}

struct Stocked {
    id: CouponId,
    fence: Fence,
}

impl Stocked {
    async fn make(store: &dyn Store) -> Result<Self> {
        let offer = Offer {
            title: "figures".to_owned(),
            discount: None,
            min_order_amount: None,
            total_quantity: None,
            per_user_limit: 1,
            starts_at: None,
            ends_at: None,
            use_within_days: Some(30),
        };
        let new = NewCoupon { key: RequestKey::random(), offer, status: Status::Open, created_at: timestamp() };
        let Created::New(coupon) = store.create_coupon(&new).await? else { return Err("the key is not new".into()) };
        let seen: ShardRow = store.shards().await?[usize::from(coupon.id.shard().get())];
        let claimant = Incarnation::random();
        let row = store.claim(&[Claim { seen, claimant }]).await?[0];
        Ok(Self { id: coupon.id, fence: Fence { epoch: row.epoch, owner: claimant } })
    }

    /// Stores so many rows by batches of one size; how long each took, in order of length.
    async fn fill(&self, store: &dyn Store, batch_rows: u64, rows: u64) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for first in (1..=rows).step_by(usize::try_from(batch_rows)?) {
            let issuances = (first..first + batch_rows).map(|sequence| self.issuance(sequence)).collect::<Result<Vec<_>>>()?;
            let entries = Entries::Issuances(Arc::from(issuances));
            let portion = Portion { coupon: self.id, shard: self.id.shard(), fence: self.fence, entries };
            let started = Instant::now();
            let stored = store.write(&Batch { portions: vec![portion] }).await?;
            times.push(started.elapsed());
            if stored != batch_rows {
                return Err(format!("{stored} rows of {batch_rows} stored").into());
            }
        }
        times.sort();
        Ok(times)
    }

    fn issuance(&self, sequence: u64) -> Result<Issuance> {
        let now = timestamp();
        // Sixteen bytes that come in no order, as users do.
        let user = format!("{:016x}", sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Ok(Issuance {
            id: IssuanceId { coupon: self.id, sequence: Sequence::new(sequence) },
            user: UserId::parse(&user)?,
            nth: 1,
            key: RequestKey::random(),
            issued_at: now,
            expires_at: Some(now.plus_days(30)),
        })
    }
}
