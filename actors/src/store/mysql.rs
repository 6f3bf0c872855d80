//! The store of clusters: MySQL 8.0.19 and later, MariaDB 10.6 and later, by one writable endpoint.
//!
//! Three kinds of connections, so that none waits for another: for lanes (batches and what became of them),
//! for beats (and the rows read with them), and for all the rest. Whatever is written is one autocommit
//! statement; there are no transactions. A connection that gave an error is closed, never used again. Every
//! connection is tried for a server that takes writes, so a demoted one serves nothing, not even old rows.
//!
//! Cancel safety: work on the database is never cut off halfway (`uncut.rs`); what a caller drops, or stops
//! waiting for, is only the answer.

pub(crate) mod canary;
pub(crate) mod cluster;
mod connections;
pub(crate) mod dialect;
pub(crate) mod error;
mod nodelay;
mod open;
mod session;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlConnectOptions;
use tokio::time::timeout;

use super::uninterrupted::uncut;
use super::{
    Claim, CouponQuery, Created, HandOver, LoadSink, NewCoupon, NodeRow, NodeState, Result, ShardRow, Store,
    StoreError, UserCursor,
};
use crate::coupon::offer::{Coupon, CouponView, Issuance};
pub use crate::coupon::rows::mysql::insert::statement;
use crate::coupon::rows::mysql::{load, read_back, reads as people, write};
use crate::ids::{CouponId, Fence, Incarnation, IssuanceId, NodeId, Sequence, ShardId, UserId};
use crate::store::batch::{Batch, Entries, Found, Portion};
use canary::Canary;
use connections::{Care, Connections};
pub use dialect::Dialect;
pub use open::OpenError;

/// How long it is waited for a connection, made or tried where needed; then nothing was begun. A beat must
/// not wait long: its lease runs.
const TAKE_LIMIT: Duration = Duration::from_secs(2);
const TAKE_FOR_BEAT_LIMIT: Duration = Duration::from_secs(1);

/// Where the database is, and how many connections may be made to it.
#[derive(Clone)]
pub struct Options {
    /// `mysql://user:password@host:port/database`, with `ssl-mode`, `ssl-ca` and the like as sqlx has them.
    /// Never shown.
    pub url: String,
    /// Connections for batches: as many as there are lanes, at least 1.
    pub lanes: u32,
    /// Connections for loading and administration, at least 1.
    pub others: u32,
    /// Connections for what people read, at least 1: their own, as owners being loaded must not stand in line
    /// behind whoever looks.
    pub readers: u32,
    /// How long opening and migrating wait for another node's migration, and for statements that use a table
    /// to be altered.
    pub migration_wait: Duration,
}

impl Options {
    /// The database at this URL, with four connections for lanes, four for people who read and four for the
    /// rest; a migration is waited for half a minute.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            lanes: 4,
            others: 4,
            readers: 4,
            migration_wait: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url: _,
            lanes,
            others,
            readers,
            migration_wait,
        } = self;
        let mut shown = f.debug_struct("Options");
        shown
            .field("lanes", lanes)
            .field("others", others)
            .field("readers", readers)
            .field("migration_wait", migration_wait)
            .finish_non_exhaustive()
    }
}

/// The store; cheap to clone. Dropping the last clone drops its connections, [`Self::close`] takes leave of
/// the server.
#[derive(Debug, Clone)]
pub struct MySqlStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialect: Dialect,
    canary: Arc<Canary>,
    lanes: Arc<Connections>,
    beats: Arc<Connections>,
    others: Arc<Connections>,
    readers: Arc<Connections>,
}

impl MySqlStore {
    /// Reaches the server, looks at its settings, and brings the schema up to date where it is not.
    ///
    /// Cancel safety: a dropped future leaves at most a migration half way, which the next open runs again.
    pub async fn open(options: &Options) -> std::result::Result<Self, OpenError> {
        let (connect_options, dialect) = Self::prepared(options).await?;
        let canary = Arc::new(Canary::default());
        let connections = |most, limit| Connections::new(connect_options.clone(), most, limit, None);
        let inner = Inner {
            dialect,
            lanes: Connections::new(
                connect_options.clone(),
                options.lanes,
                TAKE_LIMIT,
                Some(Arc::clone(&canary)),
            ),
            canary,
            // Two: one that hangs must not keep the next beat waiting.
            beats: connections(2, TAKE_FOR_BEAT_LIMIT),
            others: connections(options.others, TAKE_LIMIT),
            readers: connections(options.readers, TAKE_LIMIT),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Brings the schema up to date and does nothing else. Another that does the same is waited for, but not
    /// without end.
    pub async fn migrate(options: &Options) -> std::result::Result<(), OpenError> {
        Self::prepared(options).await.map(drop)
    }

    async fn prepared(options: &Options) -> std::result::Result<(MySqlConnectOptions, Dialect), OpenError> {
        let connect_options = session::connect_options(&options.url).map_err(OpenError::Url)?;
        let mut connection = open::connect(&connect_options).await?;
        let dialect = open::look(&mut connection).await?;
        open::migrate(&mut connection, options.migration_wait).await?;
        open::leave(connection).await;
        Ok((connect_options, dialect))
    }

    /// Lets what is being done end, and takes leave of the server. Calls after this are refused.
    pub async fn close(&self) {
        self.inner.lanes.close().await;
        self.inner.beats.close().await;
        self.inner.others.close().await;
        self.inner.readers.close().await;
    }

    /// Whose SQL the server speaks.
    pub fn dialect(&self) -> Dialect {
        self.inner.dialect
    }
}

/// A kind of work: what is asked of its connection, how long it may take, and whether it changes anything.
#[derive(Debug, Clone, Copy)]
struct Kind {
    care: Care,
    limit: Duration,
    changes: bool,
}

/// A batch. With the wait for a connection it is shorter than a lane waits, so that a lane never sends a
/// batch again while we still try.
const BATCH: Kind = Kind {
    care: Care::IfRested,
    limit: Duration::from_millis(2_500),
    changes: true,
};
/// What became of a batch, in the same time.
const READ_BACK: Kind = Kind {
    care: Care::Always,
    changes: false,
    ..BATCH
};
/// A beat: in the time of a lease, several must find place.
const BEAT: Kind = Kind {
    care: Care::IfRested,
    limit: Duration::from_secs(1),
    changes: true,
};
/// The rows that a beat reads.
const LOOK: Kind = Kind {
    care: Care::IfRested,
    limit: Duration::from_secs(1),
    changes: false,
};
/// A change outside of lanes. Many claims are many statements.
const WRITE: Kind = Kind {
    care: Care::IfRested,
    limit: Duration::from_secs(5),
    changes: true,
};
/// What is decided upon: the connection is tried, as a demoted server would answer with old rows.
const READ: Kind = Kind {
    care: Care::Always,
    limit: Duration::from_secs(5),
    changes: false,
};

/// Waits for work as long as its kind may take; beyond that its outcome is unknown, and its connection is
/// closed.
async fn within<T>(kind: Kind, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = kind.limit;
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(StoreError::Unknown(format!(
            "the database did not answer within {limit:?}"
        )))
    })
}

fn judged<T>(kind: Kind, result: Result<T>) -> Result<T> {
    if kind.changes {
        result
    } else {
        result.map_err(error::changed_nothing)
    }
}

/// The frame of every call below: uncut and within a limit, take a connection, do one piece of work on it,
/// and keep the connection if that went well.
macro_rules! framed {
    ($kind:ident, $connections:ident, $store:expr, $work:path $(, $argument:expr)*) => {{
        let inner = $store.inner.clone();
        let result = uncut(async move {
            let mut taken = inner.$connections.take($kind.care).await?;
            let result = within($kind, $work(taken.connection() $(, $argument)*)).await;
            taken.settle(result)
        })
        .await;
        judged($kind, result)
    }};
}

#[async_trait]
impl Store for MySqlStore {
    async fn check(&self) -> Result<()> {
        if framed!(READ, others, self, cluster::is_made)? {
            return Ok(());
        }
        // Nodes that start together all make the rows; who comes second waits for them or finds them.
        let made = framed!(WRITE, others, self, cluster::make);
        match framed!(READ, others, self, cluster::is_made)? {
            true => Ok(()),
            false => Err(made.err().unwrap_or_else(|| {
                StoreError::Unreadable("the cluster's rows are not as they were just made".to_owned())
            })),
        }
    }

    async fn join(&self, node: &NodeRow, replaces: Option<Incarnation>) -> Result<bool> {
        let node = node.clone();
        framed!(WRITE, others, self, cluster::join, &node, replaces)
    }

    async fn beat(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Result<Option<u64>> {
        let (node, links) = (id.clone(), links.to_vec());
        let counted = framed!(
            BEAT,
            beats,
            self,
            cluster::beat,
            &node,
            incarnation,
            state,
            &links
        )?;
        if let Some(beat) = counted {
            self.inner.canary.counted(id, incarnation, beat);
        }
        Ok(counted)
    }

    async fn end(&self, by: Incarnation, dead: &NodeRow) -> Result<bool> {
        let dead = dead.clone();
        framed!(WRITE, others, self, cluster::end, by, &dead)
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>> {
        framed!(LOOK, beats, self, cluster::nodes)
    }

    async fn shards(&self) -> Result<Vec<ShardRow>> {
        framed!(LOOK, beats, self, cluster::shards)
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>> {
        let claims = claims.to_vec();
        framed!(WRITE, others, self, cluster::claim, &claims)
    }

    async fn hand_over(&self, hand_overs: &[HandOver]) -> Result<Vec<ShardRow>> {
        let hand_overs = hand_overs.to_vec();
        framed!(WRITE, others, self, cluster::hand_over, &hand_overs)
    }

    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()> {
        let shards = shards.to_vec();
        framed!(WRITE, others, self, cluster::release, &shards)
    }

    async fn write(&self, batch: &Batch) -> Result<u64> {
        let canary = Arc::clone(&self.inner.canary);
        match batch.portions.as_slice() {
            [
                Portion {
                    shard,
                    fence,
                    entries: Entries::Change(change),
                    ..
                },
            ] => {
                let (shard, fence, change) = (*shard, *fence, change.clone());
                framed!(BATCH, lanes, self, write::change, &canary, shard, fence, &change)
            }
            portions => {
                let statement = statement(self.inner.dialect, portions)?;
                let owners: Vec<Incarnation> = portions.iter().map(|portion| portion.fence.owner).collect();
                framed!(BATCH, lanes, self, write::issuances, &canary, &owners, statement)
            }
        }
    }

    async fn read_back(&self, batch: &Batch) -> Result<Vec<Found>> {
        let (batch, dialect) = (batch.clone(), self.inner.dialect);
        framed!(READ_BACK, lanes, self, read_back::read_back, dialect, &batch)
    }

    async fn load(
        &self,
        coupon: CouponId,
        after: Sequence,
        issuances: LoadSink<'_>,
    ) -> Result<Option<Coupon>> {
        let Some(found) = framed!(READ, others, self, load::coupon, coupon)? else {
            return Ok(None);
        };
        let page = |start: Sequence| {
            let store = self.clone();
            tokio::spawn(async move { framed!(READ, others, store, load::page, coupon, start) })
        };
        let mut coming = Some(page(after));
        while let Some(asked) = coming {
            let read = asked
                .await
                .unwrap_or_else(|panicked| Err(StoreError::NotStored(panicked.to_string())))?;
            // The next page is read while this one is taken in.
            coming = read.next.map(page);
            read.feed(issuances)?;
        }
        Ok(Some(found))
    }

    async fn create_coupon(&self, new: &NewCoupon) -> Result<Created> {
        let new = new.clone();
        framed!(WRITE, others, self, people::create_coupon, &new)
    }

    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>> {
        framed!(READ, readers, self, people::coupon, id)
    }

    async fn coupons(&self, query: &CouponQuery) -> Result<Vec<CouponView>> {
        let query = *query;
        framed!(READ, readers, self, people::coupons, &query)
    }

    async fn issuance(&self, id: IssuanceId) -> Result<Option<Issuance>> {
        framed!(READ, readers, self, people::issuance, id)
    }

    async fn issuances_of_user(
        &self,
        user: &UserId,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<Vec<Issuance>> {
        let user = user.clone();
        framed!(
            READ,
            readers,
            self,
            people::issuances_of_user,
            &user,
            after,
            limit
        )
    }

    async fn issuances_of_coupon(
        &self,
        coupon: CouponId,
        user: Option<&UserId>,
        after: Sequence,
        limit: u32,
    ) -> Result<Vec<Issuance>> {
        let user = user.cloned();
        framed!(
            READ,
            readers,
            self,
            people::issuances_of_coupon,
            coupon,
            user.as_ref(),
            after,
            limit
        )
    }
}
