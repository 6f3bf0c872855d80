//! The store of clusters: MySQL 8.0.19 or later, or MariaDB 10.6 or later, through one writable endpoint.
//!
//! Lanes (batches and reading them back), beats (and the rows read with them), the reads of clients, and
//! everything else have separate connections, so that they do not wait for each other. Every write is one
//! autocommit statement, except the removal of ended nodes' rows, which uses short transactions. After an
//! error a connection is closed. Connections are tested: a server that does not accept writes, such as a
//! demoted one, is not used, not even for reads.
//!
//! Cancel safety: if a caller is dropped, its database work goes on (`uninterrupted.rs`). Work that times out
//! closes its connection.

pub(crate) mod canary;
pub(crate) mod cluster;
pub(crate) mod connections;
pub(crate) mod dialect;
pub mod error;
mod moves;
mod nodelay;
mod open;
mod rows;
mod session;
mod settings;
pub(crate) mod snapshot;

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
    counted,
};
pub use crate::ids::{Fence, Incarnation, NodeId, ShardId};
use crate::metrics::Pool;
use crate::store::batch::{Batch, Found, Portion};
use crate::store::migrations;
use crate::store::migrations::tables::{self, Tables};
use canary::Canary;
use connections::{Connections, Limits, TestBeforeUse};
pub use dialect::Dialect;
pub use open::OpenError;
pub use rows::MySqlRows;

/// Maximum number of bytes of one statement. [`BATCH_ROWS_MAX`](crate::store::batch::BATCH_ROWS_MAX) rows
/// take nine tenths of it with the longest user ids and keys, all of which need hexadecimal. A server must
/// accept packets of this size; by default it accepts eight times as much or more.
pub(crate) const STATEMENT_BYTES_MAX: usize = 2 << 20;

/// Limit of waiting for a connection, including connecting or testing it. If the limit passes, nothing was
/// begun.
const TAKE_LIMIT: Duration = Duration::from_secs(2);
/// The limit for a beat is shorter, because the lease runs out meanwhile.
const TAKE_FOR_BEAT_LIMIT: Duration = Duration::from_secs(1);

/// Shorter than the time after which firewalls and balancers usually drop a connection that is unused.
const LONG_IDLE: Duration = Duration::from_secs(60);

/// Where the database is, and how many connections may be made to it.
#[derive(Clone)]
pub struct Options {
    /// `mysql://user:password@host:port/database`, with sqlx's parameters such as `ssl-mode` and `ssl-ca`.
    /// Never logged.
    pub url: String,
    /// Number of connections for batches: one for each lane, at least 1.
    pub lanes: u32,
    /// Connections for loading and administration, at least 1.
    pub others: u32,
    /// Connections for the reads of clients, at least 1. They are separate so that loading does not wait for
    /// the reads of clients.
    pub readers: u32,
    /// A connection that was unused for longer may have been dropped by a firewall, so its test before use
    /// has a short limit, after which the store connects anew.
    pub long_idle: Duration,
    /// How long opening and migrating wait for another node's migration, and for statements that use a table
    /// that is to be altered.
    pub migration_wait: Duration,
    /// Migrations that kinds add to the migrations of the engine.
    pub migrations: Vec<Migration>,
}

impl Options {
    /// Returns options for the database at this URL: four connections each for lanes, for the reads of
    /// clients and for the rest, three more for the snapshots of searches, connections that are trusted for a
    /// minute, and a wait of 30 seconds for migrations.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            lanes: 4,
            others: 4,
            readers: 7,
            long_idle: LONG_IDLE,
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
            long_idle,
            migration_wait,
            migrations: _,
        } = self;
        let mut shown = f.debug_struct("Options");
        shown
            .field("lanes", lanes)
            .field("others", others)
            .field("readers", readers)
            .field("long_idle", long_idle)
            .field("migration_wait", migration_wait)
            .finish_non_exhaustive()
    }
}

/// Frames every call: without interruption and within limits, takes a connection, does one piece of work on
/// it, and keeps the connection if that succeeds.
macro_rules! framed {
    ($class:ident, $connections:ident, $store:expr, $work:path $(, $argument:expr)*) => {{
        let inner = $store.inner.clone();
        let result = $crate::store::uninterrupted::uninterrupted(async move {
            let mut taken = inner.$connections.take($class.test_before_use).await?;
            let call = $crate::metrics::StoreCall::of(stringify!($work), taken.pool());
            let begun = std::time::Instant::now();
            let result = $crate::store::mysql::within($class, $work(taken.connection() $(, $argument)*)).await;
            $crate::metrics::handles().store.called(call, begun);
            taken.settle(result)
        })
        .await;
        $crate::store::mysql::judged($class, result)
    }};
}
pub(crate) use framed;

/// The store; cheap to clone. Dropping the last clone drops its connections; [`Self::close`] closes them in
/// an orderly way.
#[derive(Debug, Clone)]
pub struct MySqlStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    dialect: Dialect,
    canary: Arc<Canary>,
    /// The tables that this program makes.
    tables: Arc<Tables>,
    lanes: Arc<Connections>,
    beats: Arc<Connections>,
    pub(crate) others: Arc<Connections>,
    pub(crate) readers: Arc<Connections>,
}

impl MySqlStore {
    /// Connects to the server, checks its settings, and brings the schema up to date.
    ///
    /// Cancel safety: a dropped future may leave a migration incomplete. The next open runs the migration
    /// again.
    pub async fn open(options: &Options) -> std::result::Result<Self, OpenError> {
        let (connect_options, dialect) = Self::prepared(options).await?;
        let canary = Arc::new(Canary::default());
        let limits = |take| Limits {
            take,
            long_idle: options.long_idle,
        };
        let connections =
            |pool, most, take| Connections::new(pool, connect_options.clone(), most, limits(take), None);
        let inner = Inner {
            dialect,
            lanes: Connections::new(
                Pool::Writers,
                connect_options.clone(),
                options.lanes,
                limits(TAKE_LIMIT),
                Some(Arc::clone(&canary)),
            ),
            canary,
            tables: Arc::new(tables::all(&migrations::mysql(&options.migrations))),
            // Two, so that one that hangs does not delay the next beat.
            beats: connections(Pool::Beats, 2, TAKE_FOR_BEAT_LIMIT),
            others: connections(Pool::Others, options.others, TAKE_LIMIT),
            readers: connections(Pool::Readers, options.readers, TAKE_LIMIT),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Only brings the schema up to date. It waits for another node's migration, up to
    /// [`Options::migration_wait`].
    pub async fn migrate(options: &Options) -> std::result::Result<(), OpenError> {
        Self::prepared(options).await.map(drop)
    }

    async fn prepared(options: &Options) -> std::result::Result<(MySqlConnectOptions, Dialect), OpenError> {
        let connect_options = session::connect_options(&options.url).map_err(OpenError::Url)?;
        let mut connection = open::connect(&connect_options).await?;
        let prepared = async {
            let dialect = open::check_server(&mut connection).await?;
            let migrator = migrations::mysql(&options.migrations);
            open::migrate(&mut connection, &migrator, options.migration_wait).await?;
            Ok(dialect)
        };
        let dialect = prepared
            .await
            .map_err(|error: OpenError| error.at(&connect_options))?;
        open::leave(connection).await;
        Ok((connect_options, dialect))
    }

    /// Connects for one command of an operator. The schema is left as it is.
    pub async fn connect_once(url: &str) -> std::result::Result<MySqlConnection, OpenError> {
        open::connect(&session::connect_options(url).map_err(OpenError::Url)?).await
    }

    /// Checks that everything that this program made is still there: the tables, and the cluster's rows.
    pub async fn inspect(&self) -> Result<()> {
        let made = Arc::clone(&self.inner.tables);
        framed!(READ, others, self, open::inspect, &made)
    }

    /// Waits for what is under way, up to a limit, and closes all connections. Later calls are refused.
    pub async fn close(&self) {
        self.inner.lanes.close().await;
        self.inner.beats.close().await;
        self.inner.others.close().await;
        self.inner.readers.close().await;
    }

    /// Returns the dialect that the server speaks.
    pub fn dialect(&self) -> Dialect {
        self.inner.dialect
    }
}

/// A class of calls: when its connection is tested, how long it may take, and whether it changes anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallClass {
    pub(crate) test_before_use: TestBeforeUse,
    limit: Duration,
    changes: bool,
}

/// Writing a batch. Its limit and [`TAKE_LIMIT`] together are shorter than a lane's limit, so that a lane
/// never sends a batch again while the store still works on it.
const BATCH: CallClass = CallClass {
    test_before_use: TestBeforeUse::IfIdle,
    limit: Duration::from_millis(2_500),
    changes: true,
};
/// Reading a batch back, with the same limit.
const READ_BACK: CallClass = CallClass {
    test_before_use: TestBeforeUse::Always,
    changes: false,
    ..BATCH
};
/// A beat. Several beats must fit into the time of a lease.
const BEAT: CallClass = CallClass {
    test_before_use: TestBeforeUse::IfIdle,
    limit: Duration::from_secs(1),
    changes: true,
};
/// Reading the rows of nodes and shards with a beat.
const LOOK: CallClass = CallClass {
    test_before_use: TestBeforeUse::IfIdle,
    limit: Duration::from_secs(1),
    changes: false,
};
/// A write outside of lanes. Its limit is longer, because it may be several statements of claims, and each
/// may wait for a lock.
pub(crate) const WRITE: CallClass = CallClass {
    test_before_use: TestBeforeUse::IfIdle,
    limit: Duration::from_secs(5),
    changes: true,
};
/// Any other read. The connection is always tested, because a demoted server would answer with old rows.
pub(crate) const READ: CallClass = CallClass {
    test_before_use: TestBeforeUse::Always,
    limit: Duration::from_secs(5),
    changes: false,
};

/// Waits for work up to the limit of its class. If the limit passes, the outcome is unknown, and the
/// connection is closed.
pub(crate) async fn within<T>(class: CallClass, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = class.limit;
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(StoreError::Unknown(format!(
            "the database did not answer within {limit:?}"
        )))
    })
}

pub(crate) fn judged<T>(class: CallClass, result: Result<T>) -> Result<T> {
    counted(if class.changes {
        result
    } else {
        result.map_err(error::changed_nothing)
    })
}

#[async_trait]
impl ClusterStore for MySqlStore {
    async fn check(&self) -> Result<()> {
        if framed!(READ, others, self, cluster::is_made)? {
            return Ok(());
        }
        // Nodes that start together all create the rows. A later node waits for the rows of an earlier node,
        // or finds them.
        let made = framed!(WRITE, others, self, cluster::make);
        match framed!(READ, others, self, cluster::is_made)? {
            true => Ok(()),
            false => Err(made.err().unwrap_or_else(|| {
                StoreError::Unreadable("the cluster's rows are incomplete after they were created".to_owned())
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

    async fn sweep_nodes(&self) -> Result<usize> {
        framed!(WRITE, others, self, cluster::sweep)
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>> {
        framed!(LOOK, beats, self, cluster::nodes)
    }

    async fn shards(&self) -> Result<Vec<ShardRow>> {
        framed!(LOOK, beats, self, cluster::shards)
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>> {
        let claims = claims.to_vec();
        framed!(WRITE, others, self, moves::claim, &claims)
    }

    async fn hand_off(&self, hand_offs: &[HandOff]) -> Result<Vec<ShardRow>> {
        let hand_offs = hand_offs.to_vec();
        framed!(WRITE, others, self, moves::hand_off, &hand_offs)
    }

    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()> {
        let shards = shards.to_vec();
        framed!(WRITE, others, self, moves::release, &shards)
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
        let mut reading = K::begin_load(id, ahead);
        let mut coming = Some(page(K::mysql_cursor(&reading)));
        while let Some(asked) = coming {
            let read = asked
                .await
                .unwrap_or_else(|panicked| Err(StoreError::NotStored(panicked.to_string())))?;
            // The next page is read while this page is processed.
            coming = K::mysql_next(&read)?.map(page);
            K::mysql_take(&mut reading, read)?;
        }
        Ok(K::finish_load(reading).map_or(Loaded::WentBackwards, |rows| Loaded::Read(head, rows)))
    }
}

async fn write<K: MySqlRows>(
    connection: &mut MySqlConnection,
    canary: &Canary,
    dialect: Dialect,
    portions: Vec<Portion<K>>,
) -> Result<u64> {
    // This is checked after the wait for a connection, because the database may have gone backwards during
    // the wait.
    let mut owners = portions.iter().map(|portion| portion.fence.owner);
    owners.try_for_each(|owner| canary.check_incarnation(owner))?;
    K::mysql_write(connection, dialect, portions).await
}

/// Reads what is stored of each portion. The fences are read before the rows. A statement that raises an
/// epoch waits for every statement that has passed the fence. So once the fence is lost, the result for the
/// rows is final.
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
