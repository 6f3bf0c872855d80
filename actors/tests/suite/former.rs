//! Proves that the former build works with the schema of this one. Its statements are kept as files, with
//! values in place of its parameters: `former/mysql.sql` for MySQL and MariaDB, and `former/sqlite.sql`. They
//! are executed on a database that this build made and wrote to, and this build then reads what they stored.
//!
//! The former build has schema 3. When a release raises the schema, the files are written anew, from the
//! statements of the build before it.

use actors::coupon::offer::{Discount, Offer, Status};
use actors::coupon::record::ChangeRecord;
use actors::coupon::rows::{Created, NewCoupon};
use actors::coupon::uses::UseNumber;
use actors::ids::{Author, AuthorKind, Incarnation};
use actors::store::Loaded;
use sqlx::{AssertSqlSafe, Database as Driver, Executor, IntoArguments, Row};
use testkit::servers::ServerKind;

use crate::database::OnServer;
use crate::sqlite::SqliteFile;
use crate::support::{
    CouponStore, Database, Owned, Portion, after_noon, batch, claim_by, create, key, loaded, noon, offer,
};
use crate::using::{portion, reserved};

/// A statement of the former build, what it does, and how many rows it stores or reads.
struct Statement {
    does: String,
    rows: u64,
    text: String,
}

/// Reads a file of statements. Before each is a line with what it does and its rows.
fn statements(file: &str, values: &[(&str, String)]) -> Vec<Statement> {
    let statement = |text: &str| {
        let (head, text) = text.split_once('\n').unwrap();
        let (does, rows) = head.rsplit_once(": ").unwrap();
        let filled = values.iter().fold(text.trim().to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        });
        Statement {
            does: does.to_owned(),
            rows: rows.parse().unwrap(),
            text: filled,
        }
    };
    let all: Vec<Statement> = format!("\n{file}")
        .split("\n-- ")
        .skip(1)
        .map(statement)
        .collect();
    assert!(all.len() > 10);
    all
}

/// Two coupons that this build made and wrote to: one has everything that the former build does not know, the
/// other is in another shard.
struct Stored {
    coupon: Owned,
    other: Owned,
}

impl Stored {
    async fn by_this_build(store: &impl CouponStore) -> Self {
        let full = Offer {
            description: Some("for loyal customers".to_owned()),
            metadata: [("campaign".to_owned(), "autumn".to_owned())].into(),
            discount: Some(Discount::Rate(10)),
            max_discount: Some(5_000),
            use_until: Some(after_noon(1_000_000_000)),
            time_zone: Some("Asia/Seoul".to_owned()),
            ..offer(Some(100), 2)
        };
        let claimant = Incarnation::random();
        let coupon = create(store, full).await;
        let mut other = create(store, offer(None, 2)).await;
        while other.id.shard() == coupon.id.shard() {
            other = create(store, offer(None, 2)).await;
        }
        let mut owned = [coupon, other].map(|coupon| (coupon, None));
        for (coupon, fence) in &mut owned {
            *fence = Some(claim_by(store, coupon.id.shard(), claimant).await);
        }
        let [coupon, other] = owned.map(|(coupon, fence)| Owned {
            coupon,
            fence: fence.unwrap(),
        });
        assert_eq!(store.write(&batch([coupon.strangers(1..=2)])).await.unwrap(), 2);
        let uses = batch([portion(&coupon, vec![reserved(&coupon, 1, 1)])]);
        assert_eq!(store.write(&uses).await.unwrap(), 1);
        Self { coupon, other }
    }

    fn values(&self, row: &str) -> Vec<(&'static str, String)> {
        let of = |owned: &Owned| {
            let (id, shard) = (owned.id().to_string(), owned.id().shard().to_string());
            (id, shard, owned.fence.epoch.get().to_string())
        };
        let ((coupon, shard, epoch), (other, other_shard, other_epoch)) = (of(&self.coupon), of(&self.other));
        vec![
            ("coupon", coupon),
            ("shard", shard),
            ("epoch", epoch),
            ("other", other),
            ("other_shard", other_shard),
            ("other_epoch", other_epoch),
            ("owner", self.coupon.fence.owner.get().to_string()),
            ("row", row.to_owned()),
        ]
    }

    /// Executes the statements of the former build.
    async fn used_by_the_former_build<D: Driver>(&self, file: &str, row: &str, connection: &mut D::Connection)
    where
        for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
        for<'q> D::Arguments: IntoArguments<D>,
        D::QueryResult: Stores,
        for<'r> i64: sqlx::Decode<'r, D> + sqlx::Type<D>,
        for<'n> &'n str: sqlx::ColumnIndex<D::Row>,
    {
        for statement in statements(file, &self.values(row)) {
            let Statement { does, rows, text } = statement;
            let query = sqlx::raw_sql(AssertSqlSafe(text.clone()));
            let found = if text.starts_with("SELECT") || text.starts_with("WITH") {
                let found = query.fetch_all(&mut *connection).await;
                let found = found.unwrap_or_else(|error| panic!("{does}: {error}"));
                for row in found.iter().filter(|_| text.contains("user_id, nth")) {
                    // The former build reads no issuance without it.
                    assert!(row.try_get::<i64, _>("nth").is_ok(), "{does}");
                }
                found.len() as u64
            } else {
                let stored = query.execute(&mut *connection).await;
                stored.unwrap_or_else(|error| panic!("{does}: {error}")).rows()
            };
            assert_eq!(found, rows, "{does}");
        }
    }

    /// Checks that this build reads what the former build stored, keeps what that build does not know, and
    /// goes on from there.
    async fn used_by_this_build(&self, store: &impl CouponStore) {
        let Self { coupon, other } = self;
        let id = coupon.id();
        assert_eq!(loaded(store, id, 0).await.len(), 5);
        assert_eq!(loaded(store, other.id(), 0).await.len(), 1);
        let Loaded::Read(head, rows) = store.load(id, None).await.unwrap() else {
            panic!("not loaded")
        };
        assert_eq!(
            (rows.uses.last(), rows.uses.counts().reserved),
            (UseNumber::new(1), 1)
        );
        let changed = Offer {
            title: "changed".to_owned(),
            discount: Some(Discount::Rate(20)),
            min_order_amount: None,
            total_quantity: Some(50),
            use_within_days: Some(7),
            ..coupon.coupon.offer.clone()
        };
        let now = head.coupon;
        assert_eq!(
            (now.version, now.status, &now.offer),
            (2, Status::Paused, &changed)
        );
        let old = NewCoupon {
            key: key("key-of-before"),
            offer: Offer {
                discount: Some(Discount::Amount(500)),
                total_quantity: Some(10),
                ..Offer::titled("of before")
            },
            status: Status::Open,
            created_at: noon(),
            record: None,
        };
        let repeated = store.create_coupon(&old).await.unwrap();
        assert!(matches!(repeated, Created::Before(_)), "{repeated:?}");
        let next = Owned {
            coupon: now,
            fence: coupon.fence,
        };
        assert_eq!(store.write(&batch([next.strangers(6..=6)])).await.unwrap(), 1);
        assert_eq!(store.write(&batch([resumed(&next)])).await.unwrap(), 1);
        let changes = store.changes(id, 0, 10).await.unwrap().unwrap();
        let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
        assert_eq!(versions, [1, 3], "the change of the former build is missing");
    }
}

fn resumed(owned: &Owned) -> Portion {
    let record = ChangeRecord {
        author: Author::new(AuthorKind::Key, "admin").unwrap(),
        asked: "{}".to_owned(),
    };
    owned.recorded_change(Some(record))
}

/// How many rows a statement stored.
trait Stores {
    fn rows(&self) -> u64;
}

impl Stores for sqlx::mysql::MySqlQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl Stores for sqlx::sqlite::SqliteQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

pub async fn the_former_build_works_with_this_schema(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let stored = Stored::by_this_build(&*database.store).await;
    let row = match kind {
        ServerKind::MySql => "ROW",
        ServerKind::MariaDb => "",
    };
    let mut shell = database.shell().await;
    let file = include_str!("former/mysql.sql");
    stored
        .used_by_the_former_build::<sqlx::MySql>(file, row, &mut shell)
        .await;
    stored.used_by_this_build(&*database.store).await;
}

#[tokio::test]
async fn the_former_build_works_with_this_schema_in_a_file() {
    let file = SqliteFile::new().await;
    let stored = Stored::by_this_build(&*file.store()).await;
    let mut shell = file.shell().await;
    let statements = include_str!("former/sqlite.sql");
    stored
        .used_by_the_former_build::<sqlx::Sqlite>(statements, "", &mut shell)
        .await;
    stored.used_by_this_build(&*file.store()).await;
}
