//! The rows of coupons and issuances in MySQL and MariaDB.

mod codes;
mod insert;
mod insert_uses;
mod load;
mod read_back;
mod reads;
mod reads_issuances;
mod reads_statistics;
mod reads_uses;
mod write;

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::MySqlConnection;

pub use self::insert::statement;
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
use crate::store::mysql::snapshot::{Snapshot, in_snapshot};
use crate::store::mysql::{Dialect, MySqlRows, MySqlStore, READ, WRITE, framed, judged};
use crate::store::uninterrupted::uninterrupted;

impl MySqlRows for CouponKind {
    type MySqlCursor = TailCursor;
    type MySqlPage = load::Page;

    async fn mysql_write(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: Vec<Portion<Self>>,
    ) -> Result<u64> {
        if let [portion] = portions.as_slice()
            && let CouponRun::Change(change) = &portion.run
        {
            return write::change(connection, portion.shard, portion.fence, change).await;
        }
        let statement = match portions.first().map(|portion| &portion.run) {
            Some(CouponRun::Uses(_)) => insert_uses::statement(dialect, &portions)?,
            _ => statement(dialect, &portions)?,
        };
        write::execute(connection, statement).await
    }

    async fn mysql_read_back(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: &[Portion<Self>],
    ) -> Result<Vec<FoundRows>> {
        read_back::read_back(connection, dialect, portions).await
    }

    async fn mysql_head(connection: &mut MySqlConnection, id: CouponId) -> Result<Option<CouponHead>> {
        load::head(connection, id).await
    }

    fn mysql_cursor(reading: &Tail) -> TailCursor {
        reading.after()
    }

    async fn mysql_page(
        connection: &mut MySqlConnection,
        id: CouponId,
        from: TailCursor,
    ) -> Result<load::Page> {
        load::page(connection, id, from).await
    }

    fn mysql_next(page: &load::Page) -> Result<Option<TailCursor>> {
        Ok(page.next)
    }

    fn mysql_take(reading: &mut Tail, page: load::Page) -> Result<()> {
        page.feed(reading)
    }
}

#[async_trait]
impl CouponRows for MySqlStore {
    async fn create_coupon(&self, new: &NewCoupon) -> Result<Created> {
        let new = new.clone();
        framed!(WRITE, others, self, reads::create_coupon, &new)
    }

    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>> {
        framed!(READ, readers, self, reads::coupon, id)
    }

    async fn changes(
        &self,
        coupon: CouponId,
        after_version: u64,
        limit: u32,
    ) -> Result<Option<Vec<ChangeRow>>> {
        framed!(READ, readers, self, reads::changes, coupon, after_version, limit)
    }

    async fn coupons(&self, query: &CouponQuery) -> Result<CouponPage> {
        let query = query.clone();
        framed!(READ, readers, self, reads::coupons, &query)
    }

    async fn issuances(&self, query: &IssuanceQuery) -> Result<Option<IssuancePage>> {
        let (dialect, query) = (self.dialect(), query.clone());
        framed!(READ, readers, self, reads_issuances::issuances, dialect, &query)
    }

    async fn issuances_of_few(&self, query: &IssuanceQuery, at_most: u32) -> Result<Option<IssuancePage>> {
        let (dialect, query) = (self.dialect(), query.clone());
        framed!(
            READ,
            readers,
            self,
            reads_issuances::of_few,
            dialect,
            &query,
            at_most
        )
    }

    async fn snapshot(&self) -> Result<Box<dyn CouponSnapshot>> {
        let inner = self.inner.clone();
        let begun = uninterrupted(async move { Snapshot::begin(&inner.readers).await }).await;
        let snapshot = judged(READ, begun)?;
        Ok(Box::new(MySqlSnapshot {
            dialect: self.dialect(),
            snapshot,
        }))
    }

    async fn uses_of(&self, id: IssuanceId, after: UseNumber, limit: u32) -> Result<Vec<Use>> {
        framed!(READ, readers, self, reads_uses::of_issuance, id, after, limit)
    }
}

struct MySqlSnapshot {
    dialect: Dialect,
    snapshot: Snapshot,
}

#[async_trait]
impl CouponSnapshot for MySqlSnapshot {
    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>> {
        in_snapshot!(self.snapshot, reads::coupon, id)
    }

    async fn coupons(&self, query: &CouponQuery) -> Result<CouponPage> {
        let query = query.clone();
        in_snapshot!(self.snapshot, reads::step, &query)
    }

    async fn issuances(&self, query: &IssuanceQuery) -> Result<Option<IssuancePage>> {
        let (dialect, query) = (self.dialect, query.clone());
        in_snapshot!(self.snapshot, reads_issuances::step, dialect, &query)
    }

    async fn issuances_with_ids(&self, ids: &[IssuanceId]) -> Result<Vec<UsedIssuance>> {
        let (dialect, ids) = (self.dialect, ids.to_vec());
        in_snapshot!(self.snapshot, reads_issuances::with_ids, dialect, &ids)
    }

    async fn user_step(&self, step: &UserStep) -> Result<UserStepPage> {
        let step = step.clone();
        in_snapshot!(self.snapshot, reads_issuances::user_step, &step)
    }

    async fn count_of_user(
        &self,
        user: &UserId,
        coupons: (Option<CouponId>, Option<CouponId>),
    ) -> Result<u64> {
        let user = user.clone();
        in_snapshot!(self.snapshot, reads_issuances::count_of_user, &user, coupons)
    }

    async fn coupons_of(&self, ids: &[CouponId]) -> Result<HashMap<CouponId, CouponView>> {
        let (dialect, ids) = (self.dialect, ids.to_vec());
        in_snapshot!(self.snapshot, reads::coupons_of, dialect, &ids)
    }

    async fn last_use(&self, coupon: CouponId) -> Result<UseNumber> {
        in_snapshot!(self.snapshot, reads_uses::last, coupon)
    }

    async fn statistics(&self, query: &StatisticsQuery, so_far: Statistics) -> Result<Option<Statistics>> {
        let query = *query;
        in_snapshot!(self.snapshot, reads_statistics::statistics, &query, so_far)
    }
}
