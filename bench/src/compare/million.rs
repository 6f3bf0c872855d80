//! Issuing with a million issued, against issuing with none: in databases of their own on the same server, in turn.

use std::fmt::Write as _;

use actors::ids::{CouponId, RequestKey, UserId};
use actors::store::Store;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};
use actors::write_back::batch::BATCH_ROWS_MAX;

use super::series::{Series, verdict};
use super::{Asked, Bench};
use crate::load::Failed;
use crate::load::arrivals::Pace;
use crate::load::crowd::{self, Crowd};
use crate::owned::{Asker, OwnedCoupon};

/// The full one must reach this share of the empty one's rate.
const SHARE: f64 = 0.9;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let issued = bench.flags.issued;
    let mut text =
        format!("| store | per second, none issued | per second, {issued} issued | share | target ≥ {SHARE} |\n|---|---|---|---|---|\n");
    for stocked in &bench.stores {
        let server = match &stocked.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(text, "| {}: NOT MEASURED: {why} | – | – | – | – |", stocked.name);
                continue;
            }
        };
        let url = server.fresh(bench).await?;
        let coupon = fill(&url, issued).await?;
        let full = bench.node(&url)?;
        full.issues(coupon).await?;
        let [mut none, mut million, mut share]: [Series; 3] = Default::default();
        for _ in 0..bench.flags.rounds {
            // A new one each time, as a round leaves many rows.
            let empty = bench.node(&server.fresh(bench).await?)?;
            let at_none = bench.issue(&empty, 1, Pace::Closed, bench.connections()).await?.rate();
            drop(empty);
            let name = Bench::name();
            let pace = Pace::Closed;
            let asked =
                Asked { urls: vec![full.url()], coupons: vec![coupon], users: None, name: &name, pace, connections: bench.connections() };
            let run = bench.measure(asked).await?;
            super::expect(&run, "issued")?;
            none.add(at_none);
            million.add(run.rate());
            share.add(run.rate() / at_none);
        }
        let met = verdict(share.median() >= SHARE);
        let _ = writeln!(text, "| {} | {} | {} | {} | {met} |", stocked.name, none.shown(0), million.shown(0), share.shown(2));
    }
    let _ = write!(text, "\n{}", bench.settings());
    Ok(text)
}

/// Makes a coupon with many issuances in a database that no node has open: filling is not what is measured.
async fn fill(url: &str, issued: u64) -> Result<CouponId, Failed> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        let store = SqliteStore::open(&sqlite::Options::new(path)).await?;
        let coupon = fill_store(&store, issued).await;
        store.close().await;
        coupon
    } else {
        let store = MySqlStore::open(&mysql::Options::new(url)).await?;
        let coupon = fill_store(&store, issued).await;
        store.close().await;
        coupon
    }
}

/// With users and keys as the load has them.
async fn fill_store(store: &dyn Store, issued: u64) -> Result<CouponId, Failed> {
    let crowd = Crowd { name: Bench::name(), repeats_ppm: 0, users: None, seed: 0 };
    let coupon = OwnedCoupon::make(store).await?;
    let who = |number: u64| -> Asker {
        let (asked, mut user, mut key) = (crowd::Asked { user: number, key: number }, Vec::new(), Vec::new());
        crowd.write_user(asked, &mut user);
        crowd.write_key(asked, &mut key);
        // Both are ASCII.
        Ok((UserId::parse(&String::from_utf8_lossy(&user))?, RequestKey::parse(&String::from_utf8_lossy(&key))?))
    };
    coupon.fill(store, issued, BATCH_ROWS_MAX, who).await?;
    Ok(coupon.id)
}
