//! How many statements, steps and prepared statements the store needs, and which indexes its reads use.

mod issuances_of_ann;
mod searching;

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::offer::Phase;
use actors::coupon::rows::{CouponFilter, CouponQuery, CouponRows, IssuanceQuery, IssuancesOf, UserCursor};
use actors::coupon::uses::UseNumber;
use actors::ids::UserId;
use actors::store::EntryStore;
use actors::store::batch::FoundRows;
use actors::store::mysql::MySqlStore;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row};

use crate::database::OnServer;
use crate::locks::on_different_shards;
use crate::support::{Owned, batch, found, user};
use crate::using;
use testkit::servers::{ServerKind, run};

pub use self::searching::{
    a_step_goes_through_few_rows, steps_within_a_coupon_pass_over_the_issuances_of_others,
};

/// Returns the number of statements so far, of all sessions.
pub async fn statements(shell: &mut MySqlConnection) -> u64 {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Questions'")
        .fetch_one(shell)
        .await
        .unwrap();
    row.try_get::<String, _>(1).unwrap().parse().unwrap()
}

/// If reading back took one statement for each coupon, it would time out when the server is a millisecond
/// away, and the lane would retry for ever.
pub async fn a_batch_of_many_coupons_is_read_back_in_few_statements(kind: ServerKind) {
    const COUPONS: usize = 60;
    let database = OnServer::through(kind, None).await;
    let coupons = on_different_shards(&*database.store, COUPONS).await;
    let mut shell = database.shell().await;
    let batch_of = |coupons: &[Owned]| {
        batch(
            coupons
                .iter()
                .map(|owned| owned.strangers(1..=2))
                .collect::<Vec<_>>(),
        )
    };
    database
        .store
        .write(&batch_of(&coupons[..COUPONS / 2]))
        .await
        .unwrap();
    let sent = batch_of(&coupons);
    let before = statements(&mut shell).await;
    let found = database.store.read_back(&sent).await.unwrap();
    let taken = statements(&mut shell).await - before;
    let rows = |of: FoundRows| {
        found
            .iter()
            .filter(|found| found.fence_holds && found.rows == of)
            .count()
    };
    assert_eq!(
        (rows(FoundRows::Stored), rows(FoundRows::Absent)),
        (COUPONS / 2, COUPONS / 2)
    );
    assert!(taken < 20, "{taken} statements");
}

/// Returns the number of steps along an index so far, of all sessions.
async fn steps(shell: &mut MySqlConnection) -> u64 {
    let rows =
        sqlx::raw_sql("SHOW GLOBAL STATUS WHERE Variable_name IN ('Handler_read_next', 'Handler_read_prev')");
    let rows = rows.fetch_all(shell).await.unwrap();
    rows.iter()
        .map(|row| row.try_get::<String, _>(1).unwrap().parse::<u64>().unwrap())
        .sum()
}

pub async fn no_read_of_clients_goes_through_a_whole_coupon(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let owned = Owned::make(store, Some(5_000), 1).await;
    for first in (1..=4_000).step_by(2_000) {
        store
            .write(&batch([owned.strangers(first..=first + 1_999)]))
            .await
            .unwrap();
    }
    let mut shell = database.shell().await;
    run(&mut shell, "ANALYZE TABLE issuances, coupons").await;
    let (id, ann) = (owned.id(), user("user-1234"));
    let query = CouponQuery::all(None, 10);
    let before = steps(&mut shell).await;
    assert_eq!(store.coupon(id).await.unwrap().unwrap().issued.get(), 4_000);
    assert_eq!(
        store.coupons(&query).await.unwrap().coupons[0].issued.get(),
        4_000
    );
    assert_eq!(
        store.issuances_of_user(&ann, None, None, 10).await.unwrap().len(),
        1
    );
    assert_eq!(
        store
            .issuances_of_coupon(id, Some(&ann), Sequence::NONE, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        store
            .issuances_of_coupon(id, None, Sequence::new(2_000), 10)
            .await
            .unwrap()
            .len(),
        10
    );
    assert_eq!(
        store
            .write(&batch([
                owned.change(4_000, |coupon| coupon.offer.total_quantity = Some(4_500))
            ]))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        found(store, &batch([owned.strangers(4_001..=4_010)])).await.1,
        FoundRows::Absent
    );
    let taken = steps(&mut shell).await - before;
    // Of these steps, 256 are those of reading back, which goes through all shards once.
    assert!(taken < 456, "{taken} steps");
}

pub async fn nothing_goes_through_all_uses_of_a_coupon(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let owned = Owned::make(store, Some(2_000), 1).await;
    store.write(&batch([owned.strangers(1..=2_000)])).await.unwrap();
    for round in 0..2 {
        let uses = (1..=2_000).map(|sequence| using::reserved(&owned, round * 2_000 + sequence, sequence));
        let uses = using::portion(&owned, uses.collect());
        assert_eq!(store.write(&batch([uses])).await.unwrap(), 2_000);
    }
    let returned = using::portion(&owned, vec![using::revoked(&owned, 4_001, 1, 1)]);
    assert_eq!(store.write(&batch([returned])).await.unwrap(), 1);
    let mut shell = database.shell().await;
    run(&mut shell, "ANALYZE TABLE issuances, coupons, uses").await;
    let id = |sequence| IssuanceId {
        coupon: owned.id(),
        sequence: Sequence::new(sequence),
    };
    let mut before = steps(&mut shell).await;
    let mut taken = async || {
        let now = steps(&mut shell).await;
        now - std::mem::replace(&mut before, now)
    };
    let of = IssuancesOf::Coupon {
        coupon: owned.id(),
        user: None,
        after: Sequence::new(1),
    };
    let page = store.issuances(&IssuanceQuery::all(of, 200)).await.unwrap();
    let latest = page.unwrap().issuances.into_iter().filter_map(|used| used.latest);
    assert_eq!(latest.count(), 200);
    let page = taken().await;
    assert!(
        page < 2_000,
        "{page} steps for 200 issuances with their latest uses"
    );
    assert_eq!(store.uses_of(id(7), UseNumber::NONE, 10).await.unwrap().len(), 2);
    // All holds have lapsed.
    let read = store.coupon(owned.id()).await.unwrap().unwrap().uses;
    assert_eq!((read.reserved, read.returned), (0, 1));
    let listed = store.coupons(&CouponQuery::all(None, 10)).await.unwrap();
    assert_eq!(listed.coupons[0].uses, read);
    assert_eq!(
        store
            .write(&batch([owned.strangers(2_001..=2_001)]))
            .await
            .unwrap(),
        1
    );
    let one = taken().await;
    assert!(
        one < 100,
        "{one} steps for the uses of one issuance, a coupon twice and an issuance"
    );
}

/// Returns the reads of this table that the server executed since its log was last emptied.
async fn logged_statements(shell: &mut MySqlConnection, of: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(
        "SELECT CAST(argument AS CHAR) FROM mysql.general_log WHERE command_type = 'Execute' \
         ORDER BY event_time",
    );
    let texts = rows
        .fetch_all(shell)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.try_get::<String, _>(0).unwrap());
    texts
        .filter(|text| text.trim_start().starts_with("SELECT") && text.contains(of))
        .collect()
}

/// The lists that clients read, and the coupons, the user and the cursor of the queries.
struct Lists {
    ids: Vec<CouponId>,
    ann: UserId,
    after: UserCursor,
}

impl Lists {
    /// Stores 20 coupons with 100 issuances each.
    async fn new(store: &MySqlStore) -> Self {
        let mut ids = Vec::new();
        for _ in 0..20 {
            let owned = Owned::make(store, Some(5_000), 1).await;
            store.write(&batch([owned.strangers(1..=100)])).await.unwrap();
            ids.push(owned.id());
        }
        let ann = user("user-12");
        let newest = store.issuances_of_user(&ann, None, None, 1).await.unwrap();
        let after = UserCursor {
            issued_at: newest[0].issued_at,
            id: newest[0].id,
        };
        Self { ids, ann, after }
    }

    /// Reads a list, and returns the number of its rows.
    async fn read(&self, store: &MySqlStore, list: &str) -> usize {
        let coupons = async |before, phase, title: Option<&str>| {
            let query = CouponQuery {
                filter: CouponFilter {
                    phase,
                    title: title.map(str::to_owned),
                },
                examine: 5,
                ..CouponQuery::all(before, 10)
            };
            store.coupons(&query).await.unwrap().coupons.len()
        };
        let of_coupon = async |user, after| {
            let rows = store.issuances_of_coupon(self.ids[3], user, after, 10).await;
            rows.unwrap().len()
        };
        let of_user = async |coupon, after| {
            let rows = store.issuances_of_user(&self.ann, coupon, after, 10).await;
            rows.unwrap().len()
        };
        match list {
            "coupons" => coupons(None, None, None).await,
            "older coupons" => coupons(Some(self.ids[15]), None, None).await,
            "live coupons" => coupons(None, Some(Phase::Live), None).await,
            "sold-out coupons" => coupons(None, Some(Phase::SoldOut), None).await,
            "ended coupons" => coupons(None, Some(Phase::Ended), None).await,
            "closed coupons" => coupons(None, Some(Phase::Closed), None).await,
            "coupons by title" => coupons(None, None, Some("friday")).await,
            "live coupons by title" => coupons(None, Some(Phase::Live), Some("friday")).await,
            "of a coupon" => of_coupon(None, Sequence::new(50)).await,
            "of a coupon and a user" => of_coupon(Some(&self.ann), Sequence::NONE).await,
            "of a user" => of_user(None, None).await,
            "of a user and a coupon" => of_user(Some(self.ids[3]), None).await,
            _ => of_user(None, Some(self.after)).await,
        }
    }

    /// Returns the values of each statement that reads a list, in their order.
    fn values(&self, list: &str) -> Vec<Vec<String>> {
        let (now, title) = ("1".to_owned(), "'friday'".to_owned());
        let times = match list {
            _ if !list.contains("coupons") => return vec![self.values_of_issuances(list)],
            "live coupons" | "sold-out coupons" | "ended coupons" | "live coupons by title" => 2,
            _ => 0,
        };
        let (before, last) = (self.ids[15].to_string(), "0".to_owned());
        let mut found = vec![before.clone(), last];
        found.extend(vec![now; times]);
        found.extend(list.ends_with("by title").then_some(title));
        found.push("10".to_owned());
        if times > 0 || list.ends_with("by title") {
            vec![vec![before, "4".to_owned()], found]
        } else {
            vec![found]
        }
    }

    fn values_of_issuances(&self, list: &str) -> Vec<String> {
        let (ann, limit) = ("'user-12'".to_owned(), "10".to_owned());
        let (lowest, highest) = ("0".to_owned(), i64::MAX.to_string());
        match list {
            "of a user" => vec![ann, lowest, highest, limit],
            "of a user and a coupon" => {
                let coupon = self.ids[3].to_string();
                vec![ann, coupon.clone(), coupon, limit]
            }
            "older of a user" => vec![
                ann,
                lowest,
                highest,
                self.after.issued_at.as_micros().to_string(),
                self.after.id.coupon.to_string(),
                self.after.id.sequence.to_string(),
                limit,
            ],
            "of a coupon and a user" => {
                let coupon = self.ids[3].to_string();
                vec![ann, coupon.clone(), "0".to_owned(), highest, limit, coupon]
            }
            _ => vec![self.ids[3].to_string(), "50".to_owned(), highest, limit],
        }
    }
}

/// Returns table, type of access, index and extra of each step of a statement's plan.
async fn plan(shell: &mut MySqlConnection, kind: ServerKind, statement: &str) -> Vec<[String; 4]> {
    // MySQL would draw a tree by default; MariaDB has only the table.
    let explain = if kind == ServerKind::MySql {
        "EXPLAIN FORMAT=TRADITIONAL"
    } else {
        "EXPLAIN"
    };
    let plan = sqlx::raw_sql(AssertSqlSafe(format!("{explain} {statement}")))
        .fetch_all(shell)
        .await
        .unwrap();
    let text = |row: &MySqlRow, column: &str| {
        row.try_get::<Option<String>, _>(column)
            .unwrap()
            .unwrap_or_default()
    };
    plan.iter()
        .map(|row| ["table", "type", "key", "Extra"].map(|column| text(row, column)))
        .collect()
}

/// Explains the statements of clients' reads. They must read each table by the expected index, and must not
/// read a whole table or index.
pub async fn every_list_has_its_index(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let lists = Lists::new(store).await;
    let mut shell = database.shell().await;
    run(&mut shell, "ANALYZE TABLE issuances, coupons").await;
    run(&mut shell, "SET GLOBAL log_output = 'TABLE'").await;
    for (list, table, index, sorts) in [
        ("coupons", "coupons", "PRIMARY", false),
        ("older coupons", "coupons", "PRIMARY", false),
        ("live coupons", "coupons", "by_phase", false),
        ("sold-out coupons", "coupons", "by_phase", false),
        ("ended coupons", "coupons", "by_phase", false),
        ("closed coupons", "coupons", "by_phase", false),
        ("coupons by title", "coupons", "PRIMARY", false),
        ("live coupons by title", "coupons", "by_phase", false),
        ("of a coupon", "issuances", "PRIMARY", false),
        ("of a coupon and a user", "issuances", "by_user", true),
        ("of a user", "issuances", "by_user", true),
        ("of a user and a coupon", "issuances", "by_user", true),
        ("older of a user", "issuances", "by_user", true),
    ] {
        run(
            &mut shell,
            "SET GLOBAL general_log = OFF; TRUNCATE TABLE mysql.general_log; SET GLOBAL general_log = ON",
        )
        .await;
        let rows = lists.read(store, list).await;
        run(&mut shell, "SET GLOBAL general_log = OFF").await;
        let is_empty = ["sold-out coupons", "ended coupons", "closed coupons"].contains(&list);
        assert_eq!(rows == 0, is_empty, "{list}");
        let statements = logged_statements(&mut shell, &format!("FROM {table}")).await;
        let values = lists.values(list);
        assert_eq!(statements.len(), values.len(), "{list}: {statements:?}");
        for (statement, values) in statements.into_iter().zip(values) {
            // MariaDB's log has placeholders for the values.
            let statement = values
                .iter()
                .fold(statement, |statement, value| statement.replacen('?', value, 1));
            let steps = plan(&mut shell, kind, &statement).await;
            // A table like `<derived2>` holds the rows of a page, and is read whole. It is at most as long as
            // the limit.
            for [_, kind_of_read, key, extra] in steps.iter().filter(|step| !step[0].starts_with('<')) {
                // The first page of all coupons begins at the end of the index, and ends at its limit.
                let is_first_page = list == "coupons" && kind_of_read == "index";
                let reads_a_part = ["range", "ref", "eq_ref", "const"].contains(&kind_of_read.as_str());
                assert!(
                    (reads_a_part || is_first_page) && !key.is_empty(),
                    "{list}: {steps:?}"
                );
                assert!(sorts || !extra.contains("filesort"), "{list}: {steps:?}");
            }
            let searched = steps.iter().find(|step| step[2] == index);
            let searched = searched.unwrap_or_else(|| panic!("{list}: {steps:?}"));
            let is_covered =
                index == "by_phase" && !list.ends_with("by title") || list == "of a coupon and a user";
            assert!(
                !is_covered || searched[3].contains("Using index"),
                "{list}: {steps:?}"
            );
        }
    }
}

pub async fn batches_of_all_sizes_leave_no_prepared_statements(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let mut shell = database.shell().await;
    let mut prepared = async || -> u64 {
        let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
            .fetch_one(&mut shell)
            .await
            .unwrap();
        row.try_get::<String, _>(1).unwrap().parse().unwrap()
    };
    let before = prepared().await;
    let mut first = 1;
    for size in 1..=60 {
        assert_eq!(
            database
                .store
                .write(&batch([owned.strangers(first..=first + size - 1)]))
                .await
                .unwrap(),
            size
        );
        first += size;
    }
    assert!(prepared().await <= before);
}
