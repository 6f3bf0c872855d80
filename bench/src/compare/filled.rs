//! Coupons with many issuances, made in a database that no node uses, because filling is not measured.

use actors::coupon::CouponKind;
use actors::coupon::rows::CouponRows;
use actors::ids::{RequestKey, UserId};
use actors::store::Store;
use actors::store::batch::BATCH_ROWS_MAX;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};

use testkit::ids::CouponId;

use super::Bench;
use crate::load::Failed;
use crate::load::crowd::{self, Crowd, Users};
use crate::prefilled::{PrefilledCoupon, Requester};

/// Makes a coupon with this many issuances in this database.
pub(super) async fn filled(url: &str, issued: u64) -> Result<CouponId, Failed> {
    let coupons = filled_coupons(url, 1, issued).await?;
    coupons
        .first()
        .copied()
        .ok_or_else(|| "no coupon was made".into())
}

/// Makes this many coupons, each with this many issuances, in this database.
pub(super) async fn filled_coupons(url: &str, count: usize, issued: u64) -> Result<Vec<CouponId>, Failed> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        let store = SqliteStore::open(&sqlite::Options::new(path)).await?;
        let coupons = fill(&store, count, issued).await;
        store.close().await;
        coupons
    } else {
        let store = MySqlStore::open(&mysql::Options::new(url)).await?;
        let coupons = fill(&store, count, issued).await;
        store.close().await;
        coupons
    }
}

async fn fill(
    store: &(impl Store<CouponKind> + CouponRows),
    count: usize,
    issued: u64,
) -> Result<Vec<CouponId>, Failed> {
    let mut coupons = Vec::new();
    for _ in 0..count {
        coupons.push(fill_store(store, issued).await?);
    }
    Ok(coupons)
}

/// Makes a coupon and fills it.
async fn fill_store(store: &(impl Store<CouponKind> + CouponRows), issued: u64) -> Result<CouponId, Failed> {
    let coupon = PrefilledCoupon::make(store).await?;
    coupon.fill(store, issued, BATCH_ROWS_MAX, requester()).await?;
    Ok(CouponId::new(coupon.id.get()).ok_or("a coupon without an id")?)
}

/// Returns users and keys of the same form as in the load.
pub(super) fn requester() -> impl FnMut(u64) -> Requester {
    let crowd = Crowd {
        name: Bench::name(),
        repeats_ppm: 0,
        users: Users::New,
        seed: 0,
    };
    move |number| {
        let (asked, mut user, mut key) = (
            crowd::UserRequest {
                user: number,
                key: number,
            },
            Vec::new(),
            Vec::new(),
        );
        crowd.write_user(asked, &mut user);
        crowd.write_key(asked, &mut key);
        // The id and the key are ASCII.
        Ok((
            UserId::parse(&String::from_utf8_lossy(&user))?,
            RequestKey::parse(&String::from_utf8_lossy(&key))?,
        ))
    }
}
