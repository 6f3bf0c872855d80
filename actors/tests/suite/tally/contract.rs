//! What the contract tests of stores need in order to run with tallies: a subject, and databases of all
//! kinds with the tables of tallies.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::ids::{Fence, RequestKey};
use actors::owning::kind::Kind as _;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};
use actors::store::{ClusterStore, Store};
use async_trait::async_trait;
use tempfile::TempDir;
use testkit::servers::{Server, ServerKind};
use tokio::sync::RwLockReadGuard;

use super::rows::{BOUNDS, TALLIES};
use super::{Addition, Additions, Tally, TallyId};
use crate::subject::Subject;
use crate::support::{Database, claim};

/// A SQLite file with the tables of tallies.
pub struct SqliteTallies {
    directory: TempDir,
    store: Arc<SqliteStore>,
}

impl SqliteTallies {
    async fn open(directory: &TempDir) -> Arc<SqliteStore> {
        let path = directory.path().join("tallies.db");
        let options = sqlite::Options::new(path).with_tables_of::<Tally>();
        Arc::new(SqliteStore::open(&options).await.unwrap())
    }
}

#[async_trait]
impl Database for SqliteTallies {
    type Store = SqliteStore;

    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Self::open(&directory).await;
        store.check().await.unwrap();
        Self { directory, store }
    }

    fn store(&self) -> Arc<SqliteStore> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Self::open(&self.directory).await;
    }
}

/// A kind of server.
pub trait OnServer: Send + Sync {
    const KIND: ServerKind;
}

/// MySQL.
pub struct MySql;

/// MariaDB.
pub struct MariaDb;

impl OnServer for MySql {
    const KIND: ServerKind = ServerKind::MySql;
}

impl OnServer for MariaDb {
    const KIND: ServerKind = ServerKind::MariaDb;
}

/// A database with the tables of tallies on a server.
pub struct ServerTallies<S> {
    url: String,
    store: Arc<MySqlStore>,
    server: PhantomData<S>,
    _beside: RwLockReadGuard<'static, ()>,
}

impl<S: OnServer> ServerTallies<S> {
    async fn open(url: &str) -> Arc<MySqlStore> {
        let options = mysql::Options::new(url).with_tables_of::<Tally>();
        Arc::new(MySqlStore::open(&options).await.unwrap())
    }
}

#[async_trait]
impl<S: OnServer> Database for ServerTallies<S> {
    type Store = MySqlStore;

    fn is_available() -> bool {
        S::KIND.is_available()
    }

    async fn new() -> Self {
        let _beside = crate::beside(S::KIND).await;
        let server = Server::shared(S::KIND);
        let name = server.make_database("CHARACTER SET latin1").await.unwrap();
        let url = server.url(&name, None);
        let store = Self::open(&url).await;
        store.check().await.unwrap();
        Self {
            url,
            store,
            server: PhantomData,
            _beside,
        }
    }

    fn store(&self) -> Arc<MySqlStore> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Self::open(&self.url).await;
    }
}

/// A tally whose shard is claimed.
pub struct ClaimedTally {
    id: TallyId,
    fence: Fence,
}

impl ClaimedTally {
    fn addition(&self, number: u64, key: u64) -> Addition {
        Addition {
            tally: self.id,
            number,
            amount: 1,
            total: number,
            key: RequestKey::parse(&format!("it's-\\{key}")).unwrap(),
        }
    }
}

#[async_trait]
impl<S: Store<Tally>> Subject<S> for ClaimedTally {
    type Kind = Tally;

    async fn make(store: &S, entries_max: Option<u64>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let bound = entries_max.unwrap_or(BOUNDS[0]);
        let class = BOUNDS
            .iter()
            .position(|other| *other == bound)
            .expect("a bound of the migration");
        let classes = BOUNDS.len() as u64;
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % (TALLIES / classes);
        let id = TallyId(number * classes + class as u64);
        let fence = claim(store, Tally::shard(id)).await;
        Self { id, fence }
    }

    fn id(&self) -> TallyId {
        self.id
    }

    fn fence(&self) -> Fence {
        self.fence
    }

    fn set_fence(&mut self, fence: Fence) {
        self.fence = fence;
    }

    fn run(&self, positions: RangeInclusive<u64>) -> Additions {
        Additions(positions.map(|number| self.addition(number, number)).collect())
    }

    fn clashing(&self) -> Vec<Additions> {
        // The first run repeats a number that is stored already, the second run a key.
        let place = [self.addition(3, 100), self.addition(4, 101)];
        let key = [self.addition(4, 100), self.addition(5, 2)];
        [place, key].map(|rows| Additions(Arc::new(rows))).into()
    }

    fn differing(&self) -> Vec<Additions> {
        let rows = [self.addition(1, 1), self.addition(2, 2)];
        let mut others = vec![rows; 3];
        others[0][1].amount = 2;
        others[1][1].total = 3;
        others[2][1].key = RequestKey::random();
        others.into_iter().map(|rows| Additions(Arc::new(rows))).collect()
    }

    fn entries(rows: &Vec<Addition>) -> u64 {
        rows.len() as u64
    }
}
