//! The list of rivals.

use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;

use super::atomic_update::AtomicUpdate;
use super::database::Database;
use super::fair_lock::FairLock;
use super::lock_in_transaction::LockInTransaction;
use super::no_lock::NoLock;
use super::optimistic::Optimistic;
use super::redis_lock::RedisLock;
use super::rival::{Failure, Rival};
use super::row_lock::RowLock;
use super::script::ScriptAndQueue;
use super::skip_locked::SkipLocked;
use super::tables::Layout;

/// A rival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RivalKind {
    /// A transaction that reads and writes, without a lock. Issues too many.
    NoLock,
    /// A lock of the process that is released before the commit. Issues too many.
    LockInTransaction,
    /// `SELECT … FOR UPDATE` on the coupon.
    RowLock,
    /// An update that requires the version that was read, with a bounded number of attempts.
    Optimistic,
    /// One update with the condition in it, and an insert.
    AtomicUpdate,
    /// Rows made with the coupon, and `FOR UPDATE SKIP LOCKED`.
    SkipLocked,
    /// A lock in Redis, tried again every 100 ms.
    RedisLock,
    /// A lock in Redis with a queue of waiters.
    FairLock,
    /// A script in Redis that decides, and a consumer that writes to MySQL later.
    Script,
}

impl RivalKind {
    /// Returns the name in tables.
    pub const fn title(self) -> &'static str {
        match self {
            Self::NoLock => "no lock",
            Self::LockInTransaction => "lock inside the transaction",
            Self::RowLock => "`SELECT … FOR UPDATE`",
            Self::Optimistic => "optimistic version",
            Self::AtomicUpdate => "atomic `UPDATE` and insert",
            Self::SkipLocked => "places, `SKIP LOCKED`",
            Self::RedisLock => "Redis lock, spinning",
            Self::FairLock => "Redis fair lock",
            Self::Script => "Redis script and queue",
        }
    }

    /// True if the rival never issues more than there are, and never the same sequence twice.
    pub const fn is_exact(self) -> bool {
        !matches!(self, Self::NoLock | Self::LockInTransaction)
    }

    /// True if the rival needs a Redis.
    pub const fn needs_redis(self) -> bool {
        matches!(self, Self::RedisLock | Self::FairLock | Self::Script)
    }

    /// Returns the default number of connections to the database: one of the best in `--what pools`.
    pub const fn connections(self) -> u16 {
        match self {
            // Requests for one row follow each other, so that more connections only lengthen the queue within
            // the server, or make more attempts fail.
            Self::AtomicUpdate | Self::Optimistic => 2,
            // The lock lets one transaction through at a time.
            Self::RedisLock => 1,
            Self::FairLock => 2,
            Self::RowLock | Self::SkipLocked => 8,
            Self::NoLock | Self::LockInTransaction => 32,
            // Only the consumer uses them.
            Self::Script => 2,
        }
    }

    /// Returns the layout of the rival's rows.
    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::NoLock | Self::LockInTransaction => Layout::ByRow,
            Self::SkipLocked => Layout::Places,
            Self::RowLock
            | Self::Optimistic
            | Self::AtomicUpdate
            | Self::RedisLock
            | Self::FairLock
            | Self::Script => Layout::BySequence,
        }
    }

    /// Connects the rival to its servers.
    pub(super) async fn start(
        self,
        database: Database,
        redis_url: Option<&str>,
    ) -> Result<Arc<dyn Rival>, Failure> {
        let redis = || redis_url.ok_or(Failure::Overloaded("this rival needs --redis"));
        Ok(match self {
            Self::NoLock => Arc::new(NoLock::new(database)),
            Self::LockInTransaction => Arc::new(LockInTransaction::new(database)),
            Self::RowLock => Arc::new(RowLock::new(database)),
            Self::Optimistic => Arc::new(Optimistic::new(database)),
            Self::AtomicUpdate => Arc::new(AtomicUpdate::new(database)),
            Self::SkipLocked => Arc::new(SkipLocked::new(database)),
            Self::RedisLock => Arc::new(RedisLock::new(database, redis()?).await?),
            Self::FairLock => Arc::new(FairLock::new(database, redis()?).await?),
            Self::Script => Arc::new(ScriptAndQueue::new(database, redis()?).await?),
        })
    }
}
