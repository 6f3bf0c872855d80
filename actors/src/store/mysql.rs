//! The store of clusters: MySQL 8.0.19 and later, MariaDB 10.6 and later, by one writable endpoint.
//!
//! Three kinds of connections, so that none waits for another: for lanes (batches and what became of them),
//! for beats (and the rows read with them), and for all the rest. Whatever is written is one autocommit
//! statement; there are no transactions. A connection that gave an error is closed, never used again. Every
//! connection is tried for a server that takes writes, so a demoted one serves nothing, not even old rows.
//!
//! Cancel safety: work on the database is never cut off halfway (`uninterrupted.rs`); what a caller drops, or
//! stops waiting for, is only the answer.

pub(crate) mod canary;
pub(crate) mod cluster;
pub mod columns;
pub(crate) mod connections;
pub(crate) mod dialect;
pub mod error;
mod nodelay;
mod open;
mod rows;
mod session;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::MySqlConnection;
use sqlx::migrate::Migration;
use sqlx::mysql::MySqlConnectOptions;
use tokio::time::timeout;

use super::{
    Claim, ClusterStore, EntryStore, HandOff, Loaded, NodeRow, NodeState, Result, ShardRow, StoreError,
    migrations,
};
pub use crate::ids::{Fence, Incarnation, NodeId, ShardId};
use crate::store::batch::{Batch, Found, Portion};
use canary::Canary;
use connections::{Care, Connections};
pub use dialect::Dialect;
pub use open::OpenError;
pub use rows::MySqlRows;

/// Most bytes of one statement: what [`BATCH_ROWS_MAX`](crate::store::batch::BATCH_ROWS_MAX) rows with the
/// longest ids, and keys that all need hexadecimal, take, and half as much again. A server must take packets
/// of this size.
pub(crate) const STATEMENT_BYTES_MAX: usize = 1 << 20;

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
    /// Connections for what people read, at least 1. They are separate, as loading must not wait for reads of
    /// that kind.
    pub readers: u32,
    /// How long opening and migrating wait for another node's migration, and for statements that use a table
    /// to be altered.
    pub migration_wait: Duration,
    /// Migrations that kinds add to the engine's.
    pub migrations: Vec<Migration>,
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
            migrations: Vec::new(),
        }
    }

    /// Adds the tables of a kind.
    #[must_use]
    pub fn with_tables_of<K: MySqlRows>(mut self) -> Self {
        self.migrations.extend(K::mysql_migrations());
        self
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
            migrations: _,
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
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    dialect: Dialect,
    canary: Arc<Canary>,
    lanes: Arc<Connections>,
    beats: Arc<Connections>,
    pub(crate) others: Arc<Connections>,
    pub(crate) readers: Arc<Connections>,
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
        let migrator = migrations::mysql(&options.migrations);
        open::migrate(&mut connection, &migrator, options.migration_wait).await?;
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

/// A class of calls: what is asked of its connection, how long it may take, and whether it changes anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallClass {
    pub(crate) care: Care,
    limit: Duration,
    changes: bool,
}

/// A batch. With the wait for a connection it is shorter than a lane waits, so that a lane never sends a
/// batch again while we still try.
const BATCH: CallClass = CallClass {
    care: Care::IfRested,
    limit: Duration::from_millis(2_500),
    changes: true,
};
/// What became of a batch, in the same time.
const READ_BACK: CallClass = CallClass {
    care: Care::Always,
    changes: false,
    ..BATCH
};
/// A beat: in the time of a lease, several must find place.
const BEAT: CallClass = CallClass {
    care: Care::IfRested,
    limit: Duration::from_secs(1),
    changes: true,
};
/// The rows that a beat reads.
const LOOK: CallClass = CallClass {
    care: Care::IfRested,
    limit: Duration::from_secs(1),
    changes: false,
};
/// A change outside of lanes. Many claims are many statements.
pub(crate) const WRITE: CallClass = CallClass {
    care: Care::IfRested,
    limit: Duration::from_secs(5),
    changes: true,
};
/// What is decided upon: the connection is tried, as a demoted server would answer with old rows.
pub(crate) const READ: CallClass = CallClass {
    care: Care::Always,
    limit: Duration::from_secs(5),
    changes: false,
};

/// Waits for work as long as its class may take; beyond that its outcome is unknown, and its connection is
/// closed.
pub(crate) async fn within<T>(class: CallClass, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = class.limit;
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(StoreError::Unknown(format!(
            "the database did not answer within {limit:?}"
        )))
    })
}

pub(crate) fn judged<T>(class: CallClass, result: Result<T>) -> Result<T> {
    if class.changes {
        result
    } else {
        result.map_err(error::changed_nothing)
    }
}

/// The frame of every call: without interruption and within a limit, take a connection, do one piece of work
/// on it, and keep the connection if that went well.
macro_rules! framed {
    ($class:ident, $connections:ident, $store:expr, $work:path $(, $argument:expr)*) => {{
        let inner = $store.inner.clone();
        let result = $crate::store::uninterrupted::uninterrupted(async move {
            let mut taken = inner.$connections.take($class.care).await?;
            let result = $crate::store::mysql::within($class, $work(taken.connection() $(, $argument)*)).await;
            taken.settle(result)
        })
        .await;
        $crate::store::mysql::judged($class, result)
    }};
}
pub(crate) use framed;

#[async_trait]
impl ClusterStore for MySqlStore {
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

    async fn hand_off(&self, hand_offs: &[HandOff]) -> Result<Vec<ShardRow>> {
        let hand_offs = hand_offs.to_vec();
        framed!(WRITE, others, self, cluster::hand_off, &hand_offs)
    }

    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()> {
        let shards = shards.to_vec();
        framed!(WRITE, others, self, cluster::release, &shards)
    }
}

#[async_trait]
impl<K: MySqlRows> EntryStore<K> for MySqlStore {
    async fn write(&self, batch: &Batch<K>) -> Result<u64> {
        let (canary, dialect) = (Arc::clone(&self.inner.canary), self.inner.dialect);
        let portions = batch.portions.clone();
        framed!(BATCH, lanes, self, write, &canary, dialect, portions)
    }

    async fn read_back(&self, batch: &Batch<K>) -> Result<Vec<Found>> {
        let (batch, dialect) = (batch.clone(), self.inner.dialect);
        framed!(READ_BACK, lanes, self, read_back, dialect, &batch)
    }

    async fn load(&self, id: K::Id, ahead: Option<K::Rows>) -> Result<Loaded<K>> {
        let Some(head) = framed!(READ, others, self, K::mysql_head, id)? else {
            return Ok(Loaded::Absent);
        };
        let page = |from: K::MySqlCursor| {
            let store = self.clone();
            tokio::spawn(async move { framed!(READ, others, store, K::mysql_page, id, from) })
        };
        let mut reading = K::reading(id, ahead);
        let mut coming = Some(page(K::mysql_cursor(&reading)));
        while let Some(asked) = coming {
            let read = asked
                .await
                .unwrap_or_else(|panicked| Err(StoreError::NotStored(panicked.to_string())))?;
            // The next page is read while this one is taken in.
            coming = K::mysql_next(&read)?.map(page);
            K::mysql_take(&mut reading, read)?;
        }
        Ok(K::read(reading).map_or(Loaded::WentBackwards, |rows| Loaded::Read(head, rows)))
    }
}

async fn write<K: MySqlRows>(
    connection: &mut MySqlConnection,
    canary: &Canary,
    dialect: Dialect,
    portions: Vec<Portion<K>>,
) -> Result<u64> {
    // After the wait for a connection, which may have been one for a database that went backwards and is
    // served again.
    let mut owners = portions.iter().map(|portion| portion.fence.owner);
    owners.try_for_each(|owner| canary.lives(owner))?;
    K::mysql_write(connection, dialect, portions).await
}

/// Reads how each portion stands: the fences first. Raising an epoch waited for every statement that had
/// passed its fence, so once it is lost, what the rows say is final.
async fn read_back<K: MySqlRows>(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    batch: &Batch<K>,
) -> Result<Vec<Found>> {
    let shards = cluster::shards(connection).await?;
    let rows = K::mysql_read_back(connection, dialect, &batch.portions).await?;
    let found = batch.portions.iter().zip(rows).map(|(portion, rows)| {
        let Fence { epoch, owner } = portion.fence;
        let fence_holds = shards
            .iter()
            .any(|row| row.id == portion.shard && row.epoch == epoch && row.owner == Some(owner));
        Found { fence_holds, rows }
    });
    Ok(found.collect())
}
