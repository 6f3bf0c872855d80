//! The rows of coupons and issuances in SQLite.

mod codes;
mod load;
mod read_back;
mod reads;
mod reads_issuances;
mod reads_statistics;
mod reads_uses;
mod write;
mod write_uses;

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use crate::coupon::CouponKind;
use crate::coupon::entry::CouponRun;
use crate::coupon::ids::{CouponId, IssuanceId};
use crate::coupon::ledger::CouponHead;
use crate::coupon::offer::CouponView;
use crate::coupon::record::ChangeRow;
use crate::coupon::rows::{
    CouponPage, CouponQuery, CouponRows, CouponSnapshot, Created, IssuancePage, IssuanceQuery, NewCoupon,
    Statistics, StatisticsQuery, UserStep, UserStepPage,
};
use crate::coupon::tail::{Tail, TailCursor};
use crate::coupon::uses::{Use, UseNumber, UsedIssuance};
use crate::ids::UserId;
use crate::store::Result;
use crate::store::batch::{FoundRows, Portion};
use crate::store::sqlite::snapshot::{Snapshot, in_snapshot};
use crate::store::sqlite::{SqliteRows, SqliteStore, checkpoint, framed, read_limited, write_limited};

impl SqliteRows for CouponKind {
    type SqliteCursor = TailCursor;
    type SqlitePage = load::Page;

    async fn sqlite_write(connection: &mut SqliteConnection, portions: Vec<Portion<Self>>) -> Result<u64> {
        if let [portion] = portions.as_slice()
            && let CouponRun::Change(change) = &portion.run
        {
            return write::change(connection, portion.shard, portion.fence, change).await;
        }
        if let Some(CouponRun::Uses(_)) = portions.first().map(|portion| &portion.run) {
            return write_uses::uses(connection, &portions).await;
        }
        write::issuances(connection, write::portions_json(&portions)?).await
    }

    async fn sqlite_read_back(
        connection: &mut SqliteConnection,
        portion: &Portion<Self>,
    ) -> Result<FoundRows> {
        read_back::read_back(connection, portion).await
    }

    async fn sqlite_head(connection: &mut SqliteConnection, id: CouponId) -> Result<Option<CouponHead>> {
        load::head(connection, id).await
    }

    fn sqlite_cursor(reading: &Tail) -> TailCursor {
        reading.after()
    }

    async fn sqlite_page(
        connection: &mut SqliteConnection,
        id: CouponId,
        from: TailCursor,
    ) -> Result<load::Page> {
        load::page(connection, id, from).await
    }

    fn sqlite_take(reading: &mut Tail, page: load::Page) -> Result<Option<TailCursor>> {
        page.feed(reading)
    }
}

#[async_trait]
impl CouponRows for SqliteStore {
    async fn create_coupon(&self, new: &NewCoupon) -> Result<Created> {
        let new = new.clone();
        let created = framed!(write_limited, writer, self, reads::create_coupon, &new)?;
        // One page each of the table, of the index on keys, and of the table of used ids.
        checkpoint::wrote(&self.inner, 3);
        Ok(created)
    }

    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>> {
        framed!(read_limited, reader, self, reads::coupon, id)
    }

    async fn changes(
        &self,
        coupon: CouponId,
        after_version: u64,
        limit: u32,
    ) -> Result<Option<Vec<ChangeRow>>> {
        framed!(
            read_limited,
            reader,
            self,
            reads::changes,
            coupon,
            after_version,
            limit
        )
    }

    async fn coupons(&self, query: &CouponQuery) -> Result<CouponPage> {
        let query = query.clone();
        framed!(read_limited, reader, self, reads::coupons, &query)
    }

    async fn issuances(&self, query: &IssuanceQuery) -> Result<Option<IssuancePage>> {
        let query = query.clone();
        framed!(read_limited, reader, self, reads_issuances::issuances, &query)
    }

    async fn issuances_of_few(&self, query: &IssuanceQuery, at_most: u32) -> Result<Option<IssuancePage>> {
        let query = query.clone();
        framed!(
            read_limited,
            reader,
            self,
            reads_issuances::of_few,
            &query,
            at_most
        )
    }

    async fn snapshot(&self) -> Result<Box<dyn CouponSnapshot>> {
        let inner = self.inner.clone();
        let snapshot =
            read_limited(async move { Snapshot::begin(inner.snapshot_reader().await?).await }).await?;
        Ok(Box::new(snapshot))
    }

    async fn uses_of(&self, id: IssuanceId, after: UseNumber, limit: u32) -> Result<Vec<Use>> {
        framed!(
            read_limited,
            reader,
            self,
            reads_uses::of_issuance,
            id,
            after,
            limit
        )
    }
}

#[async_trait]
impl CouponSnapshot for Snapshot {
    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>> {
        in_snapshot!(self, reads::coupon, id)
    }

    async fn coupons(&self, query: &CouponQuery) -> Result<CouponPage> {
        let query = query.clone();
        in_snapshot!(self, reads::coupons, &query)
    }

    async fn issuances(&self, query: &IssuanceQuery) -> Result<Option<IssuancePage>> {
        let query = query.clone();
        in_snapshot!(self, reads_issuances::step, &query)
    }

    async fn issuances_with_ids(&self, ids: &[IssuanceId]) -> Result<Vec<UsedIssuance>> {
        let ids = ids.to_vec();
        in_snapshot!(self, reads_issuances::with_ids, &ids)
    }

    async fn user_step(&self, step: &UserStep) -> Result<UserStepPage> {
        let step = step.clone();
        in_snapshot!(self, reads_issuances::user_step, &step)
    }

    async fn count_of_user(
        &self,
        user: &UserId,
        coupons: (Option<CouponId>, Option<CouponId>),
    ) -> Result<u64> {
        let user = user.clone();
        in_snapshot!(self, reads_issuances::count_of_user, &user, coupons)
    }

    async fn coupons_of(&self, ids: &[CouponId]) -> Result<HashMap<CouponId, CouponView>> {
        let ids = ids.to_vec();
        in_snapshot!(self, reads::coupons_of, &ids)
    }

    async fn last_use(&self, coupon: CouponId) -> Result<UseNumber> {
        in_snapshot!(self, reads_uses::last, coupon)
    }

    async fn statistics(&self, query: &StatisticsQuery, so_far: Statistics) -> Result<Option<Statistics>> {
        let query = *query;
        in_snapshot!(self, reads_statistics::statistics, &query, so_far)
    }
}
