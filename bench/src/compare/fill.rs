//! A coupon with many issuances, stored as owners store them, but without the way there: filling is not what is measured.

use std::sync::Arc;

use actors::ids::{CouponId, Fence, Incarnation, IssuanceId, RequestKey, Sequence, UserId};
use actors::offer::{Issuance, Offer, Status};
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};
use actors::store::{Claim, Created, NewCoupon, Store};
use actors::time::timestamp;
use actors::write_back::batch::{BATCH_ROWS_MAX, Batch, Entries, Portion};

use super::Bench;
use crate::load::Failed;
use crate::load::crowd::{Asked, Crowd};

/// Makes one in a database that no node has open. Whoever serves it then claims its shard from an owner that never lived.
pub(super) async fn fill(url: &str, issued: u64) -> Result<CouponId, Failed> {
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

async fn fill_store(store: &dyn Store, issued: u64) -> Result<CouponId, Failed> {
    store.check().await?;
    let offer = Offer {
        title: "filled".to_owned(),
        discount: None,
        min_order_amount: None,
        total_quantity: None,
        per_user_limit: 1,
        starts_at: None,
        ends_at: None,
        use_within_days: None,
    };
    let new = NewCoupon { key: RequestKey::random(), offer, status: Status::Open, created_at: timestamp() };
    let Created::New(coupon) = store.create_coupon(&new).await? else { return Err("a new coupon was there before".into()) };
    let shard = coupon.id.shard();
    let seen = store.shards().await?.into_iter().find(|row| row.id == shard).ok_or("a shard has no row")?;
    let claimant = Incarnation::random();
    let claimed = store.claim(&[Claim { seen, claimant }]).await?;
    let fence = Fence { epoch: claimed.first().ok_or("a shard was not claimed")?.epoch, owner: claimant };
    let crowd = Crowd { name: Bench::name(), repeats_ppm: 0, users: None, seed: 0 };
    let mut next = 1;
    while next <= issued {
        let last = issued.min(next + BATCH_ROWS_MAX as u64 - 1);
        let issuances = (next..=last).map(|number| issuance(&crowd, coupon.id, number)).collect::<Result<Arc<[Issuance]>, Failed>>()?;
        let rows = issuances.len() as u64;
        let portion = Portion { coupon: coupon.id, shard, fence, entries: Entries::Issuances(issuances) };
        if store.write(&Batch { portions: vec![portion] }).await? != rows {
            return Err("rows of a database of our own were not stored".into());
        }
        next = last + 1;
    }
    Ok(coupon.id)
}

/// With users and keys as the load has them.
fn issuance(crowd: &Crowd, coupon: CouponId, number: u64) -> Result<Issuance, Failed> {
    let asked = Asked { user: number, key: number };
    let (mut user, mut key) = (Vec::new(), Vec::new());
    crowd.write_user(asked, &mut user);
    crowd.write_key(asked, &mut key);
    Ok(Issuance {
        id: IssuanceId { coupon, sequence: Sequence::new(number) },
        user: UserId::parse(&String::from_utf8(user)?)?,
        nth: 1,
        key: RequestKey::parse(&String::from_utf8(key)?)?,
        issued_at: timestamp(),
        expires_at: None,
    })
}
