//! Coupons with many issuances, made in a database that no node has open: filling is not what is measured.

use actors::ids::{CouponId, RequestKey, UserId};
use actors::store::Store;
use actors::store::batch::BATCH_ROWS_MAX;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};

use super::Bench;
use crate::load::Failed;
use crate::load::crowd::{self, Crowd};
use crate::owned::{Asker, OwnedCoupon};

/// Makes one, in this database.
pub(super) async fn filled(url: &str, issued: u64) -> Result<CouponId, Failed> {
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
    let crowd = Crowd {
        name: Bench::name(),
        repeats_ppm: 0,
        users: None,
        seed: 0,
    };
    let coupon = OwnedCoupon::make(store).await?;
    let who = |number: u64| -> Asker {
        let (asked, mut user, mut key) = (
            crowd::Asked {
                user: number,
                key: number,
            },
            Vec::new(),
            Vec::new(),
        );
        crowd.write_user(asked, &mut user);
        crowd.write_key(asked, &mut key);
        // Both are ASCII.
        Ok((
            UserId::parse(&String::from_utf8_lossy(&user))?,
            RequestKey::parse(&String::from_utf8_lossy(&key))?,
        ))
    };
    coupon.fill(store, issued, BATCH_ROWS_MAX, who).await?;
    Ok(coupon.id)
}
