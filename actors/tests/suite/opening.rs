//! Refusals at start, and the creation of schemas.

use std::time::{Duration, Instant};

use actors::coupon::CouponKind;
use actors::coupon::code::SECRETS_MAX;
use actors::coupon::offer::Status;
use actors::coupon::rows::{AddSecretError, CodeRows, CouponRows, Created, NewCoupon};
use actors::ids::{REQUEST_KEY_BYTES_MAX, USER_ID_BYTES_MAX};
use actors::store::batch::FoundRows;
use actors::store::mysql::{MySqlStore, OpenError, Options};
use actors::store::{ClusterStore, EntryStore, StoreError};
use futures_util::future::join_all;
use sqlx::mysql::MySqlConnection;

use crate::database::OnServer;
use crate::locks::{waiting, with_long_lock_waits};
use crate::support::{Owned, batch, found, key, loaded, noon, offer, user};
use testkit::database_proxy::DatabaseProxy;
use testkit::poll::eventually;
use testkit::servers::{PASSWORD, Server, ServerKind, run};

async fn opened_with_newer_schema(kind: ServerKind, versions: i64) -> Result<(), OpenError> {
    let database = OnServer::through(kind, None).await;
    let mut shell = database.shell().await;
    for version in 5..5 + versions {
        run(
            &mut shell,
            &format!("INSERT INTO firstcome_migrations VALUES ({version}, 'newer', NOW(), TRUE, x'00', 0)"),
        )
        .await;
    }
    database.open().await?.check().await.unwrap();
    Ok(())
}

pub async fn a_schema_is_accepted_one_version_ahead_and_refused_two_versions_ahead(kind: ServerKind) {
    opened_with_newer_schema(kind, 1).await.unwrap();
    assert!(matches!(
        opened_with_newer_schema(kind, 2).await,
        Err(OpenError::TooNew { found: 6, known: 4 })
    ));
}

pub async fn a_schema_of_another_program_is_refused(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    run(
        &mut database.shell().await,
        "UPDATE firstcome_migrations SET checksum = x'00'",
    )
    .await;
    assert!(matches!(database.open().await, Err(OpenError::Migrate(_))));
}

pub async fn a_database_with_a_table_of_another_program_is_left_as_it_is(kind: ServerKind) {
    let (server, name) = OnServer::empty(kind).await;
    let mut shell = server.shell(&name).await.unwrap();
    run(
        &mut shell,
        "CREATE TABLE coupons (id BIGINT PRIMARY KEY, code VARCHAR(20), title TEXT)",
    )
    .await;
    let refused = MySqlStore::open(&Options::new(server.url(&name, None))).await;
    let why = refused.unwrap_err().to_string();
    let named = [
        "a table coupons of another program",
        "creation_key",
        "but code",
        "a database of its own",
    ];
    assert!(named.iter().all(|named| why.contains(named)), "{why}");
    assert_eq!(tables(&mut shell).await, ["coupons"]);
}

pub async fn the_migrations_of_another_program_are_left_alone(kind: ServerKind) {
    let (server, name) = OnServer::empty(kind).await;
    let mut shell = server.shell(&name).await.unwrap();
    run(
        &mut shell,
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
             installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL,
             checksum BLOB NOT NULL, execution_time BIGINT NOT NULL);
         INSERT INTO _sqlx_migrations VALUES (20240101, 'of a shop', NOW(), TRUE, x'00', 0)",
    )
    .await;
    let store = MySqlStore::open(&Options::new(server.url(&name, None)))
        .await
        .unwrap();
    store.check().await.unwrap();
    assert_eq!(versions(&mut shell, "_sqlx_migrations").await, [20_240_101]);
    assert_eq!(versions(&mut shell, "firstcome_migrations").await, [1, 2, 3, 4]);
}

pub async fn a_database_of_an_earlier_build_keeps_its_table_of_migrations(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let mut shell = database.shell().await;
    run(
        &mut shell,
        "RENAME TABLE firstcome_migrations TO _sqlx_migrations;
         DELETE FROM _sqlx_migrations WHERE version >= 2; ALTER TABLE nodes DROP COLUMN links, DROP COLUMN lease,
         DROP COLUMN lease_of, DROP COLUMN ended_at;
         ALTER TABLE coupons DROP COLUMN change_keys",
    )
    .await;
    database.open().await.unwrap().check().await.unwrap();
    assert_eq!(versions(&mut shell, "_sqlx_migrations").await, [1, 2, 3, 4]);
    assert!(
        !tables(&mut shell)
            .await
            .contains(&"firstcome_migrations".to_owned())
    );
}

pub async fn a_database_of_an_earlier_build_takes_longer_user_ids_and_keys(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    run(
        &mut database.shell().await,
        "DELETE FROM firstcome_migrations WHERE version >= 3;
         ALTER TABLE issuances MODIFY user_id VARCHAR(64) NOT NULL, MODIFY request_key VARCHAR(64) NOT NULL;
         ALTER TABLE coupons MODIFY creation_key VARCHAR(64) NOT NULL",
    )
    .await;
    let store = database.open().await.unwrap();
    store.check().await.unwrap();
    let new = NewCoupon {
        key: key(&"k".repeat(REQUEST_KEY_BYTES_MAX)),
        offer: offer(None, 1),
        status: Status::Open,
        created_at: noon(),
        record: None,
    };
    assert!(matches!(
        store.create_coupon(&new).await.unwrap(),
        Created::New(_)
    ));
    assert!(matches!(
        store.create_coupon(&new).await.unwrap(),
        Created::Before(_)
    ));
    let owned = Owned::make(&store, None, 1).await;
    let mut issuance = owned.issuance(1, &"U".repeat(USER_ID_BYTES_MAX), 1);
    issuance.key = new.key;
    let rows = vec![issuance];
    assert_eq!(
        store.write(&batch([owned.portion(rows.clone())])).await.unwrap(),
        1
    );
    assert_eq!(loaded(&store, owned.id(), 0).await, rows);
    let of_another_case = user(&"u".repeat(USER_ID_BYTES_MAX));
    assert_eq!(
        store
            .issuances_of_user(&of_another_case, None, None, 10)
            .await
            .unwrap(),
        []
    );
}

pub async fn a_database_that_lost_a_table_is_refused(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    run(&mut database.shell().await, "DROP TABLE issuances").await;
    let why = database.open().await.unwrap_err().to_string();
    assert!(why.contains("the table issuances is missing"), "{why}");
}

/// Returns the names of all tables.
async fn tables(shell: &mut MySqlConnection) -> Vec<String> {
    let asked = "SELECT CONCAT('', TABLE_NAME) FROM information_schema.TABLES
                 WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME";
    sqlx::query_scalar(asked).fetch_all(shell).await.unwrap()
}

/// Returns the versions in a table of migrations.
async fn versions(shell: &mut MySqlConnection, table: &str) -> Vec<i64> {
    let asked = sqlx::AssertSqlSafe(format!("SELECT version FROM {table} ORDER BY version"));
    sqlx::query_scalar(asked).fetch_all(shell).await.unwrap()
}

pub async fn a_migration_cut_short_is_run_again(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let mut shell = database.shell().await;
    for cut_short in [
        "DELETE FROM firstcome_migrations WHERE version > 1; \
         UPDATE firstcome_migrations SET success = FALSE; DROP TABLE issuances, cluster",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 2; \
         ALTER TABLE nodes DROP COLUMN links",
        // The column was added, but this was not recorded.
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 2",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 3; \
         ALTER TABLE coupons DROP COLUMN change_keys",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 3; DROP INDEX by_phase ON coupons",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 3",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 4; \
         ALTER TABLE coupons DROP COLUMN description, DROP COLUMN metadata, DROP COLUMN max_discount, \
         DROP COLUMN use_until, DROP COLUMN time_zone, DROP COLUMN no_user_limit; \
         ALTER TABLE issuances MODIFY nth TINYINT NOT NULL",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 4; \
         ALTER TABLE issuances MODIFY nth TINYINT NOT NULL",
        "UPDATE firstcome_migrations SET success = FALSE WHERE version = 4",
    ] {
        run(&mut shell, cut_short).await;
        let store = database.open().await.unwrap();
        store.check().await.unwrap();
        assert_eq!(store.nodes().await.unwrap(), []);
        let owned = Owned::make(&store, None, 1).await;
        assert_eq!(store.write(&batch([owned.strangers(1..=1)])).await.unwrap(), 1);
    }
}

pub async fn waiting_for_a_migration_in_progress_times_out(kind: ServerKind) {
    let (server, name) = OnServer::empty(kind).await;
    let mut other: MySqlConnection = server.shell("mysql").await.unwrap();
    run(
        &mut other,
        &format!("USE {name}; DO GET_LOCK(CONCAT('firstcome-', LEFT(SHA2(DATABASE(), 256), 32)), 0)"),
    )
    .await;
    let options = Options {
        migration_wait: Duration::from_secs(1),
        ..Options::new(server.url(&name, None))
    };
    let begun = Instant::now();
    assert!(matches!(
        MySqlStore::migrate(&options).await,
        Err(OpenError::Locked(_))
    ));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    run(&mut other, "DO RELEASE_ALL_LOCKS()").await;
    MySqlStore::migrate(&options).await.unwrap();
    MySqlStore::migrate(&options).await.unwrap();
    // An up-to-date schema needs no lock.
    run(
        &mut other,
        "DO GET_LOCK(CONCAT('firstcome-', LEFT(SHA2(DATABASE(), 256), 32)), 0)",
    )
    .await;
    MySqlStore::open(&options).await.unwrap().check().await.unwrap();
}

pub async fn secrets_of_codes_are_added_one_after_the_other(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    database.store.make_first_code_secret().await.unwrap();
    let url = database.server.url(&database.name, None);
    for number in 2..=SECRETS_MAX {
        assert_eq!(MySqlStore::add_code_secret(&url).await.unwrap(), number);
    }
    let refused = MySqlStore::add_code_secret(&url).await;
    assert!(
        matches!(refused, Err(AddSecretError::TooMany(SECRETS_MAX))),
        "{refused:?}"
    );
    let secrets = database.store.code_secrets().await.unwrap();
    assert!(secrets.iter().map(|secret| secret.number).eq(1..=SECRETS_MAX));
    run(&mut database.shell().await, "DROP TABLE code_secrets").await;
    let refused = MySqlStore::add_code_secret(&url).await.unwrap_err().to_string();
    assert!(refused.contains("run `firstcome migrate` first"), "{refused}");
}

/// A node that read the secrets before this one was stored may refuse its codes for 45 seconds. So the minute
/// before it is used must not begin with a statement that takes long to be stored.
pub async fn a_secret_of_codes_has_its_age_from_when_it_was_stored(kind: ServerKind) {
    let (proxy, database) = with_long_lock_waits(kind).await;
    database.store.make_first_code_secret().await.unwrap();
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    run(&mut holder, "BEGIN; SELECT * FROM code_secrets FOR UPDATE").await;
    let url = database.server.url(&database.name, Some(proxy.port()));
    let adding = tokio::spawn(async move { MySqlStore::add_code_secret(&url).await });
    eventually("the statement waits", async || waiting(&mut watcher).await == 1).await;
    let clock = "SELECT CAST(UNIX_TIMESTAMP() AS SIGNED)";
    let begun = number(&mut watcher, clock).await;
    eventually("a second has passed", async || {
        number(&mut watcher, clock).await > begun
    })
    .await;
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(adding.await.unwrap().unwrap(), 2);
    let made_at = "SELECT made_at FROM code_secrets WHERE number = 2";
    let made_at = number(&mut watcher, made_at).await;
    assert!(made_at > begun, "{made_at} is not after {begun}");
    // A command that ended too early leaves the secret like this.
    run(
        &mut holder,
        "UPDATE code_secrets SET made_at = 253402300799 WHERE number = 2",
    )
    .await;
    let secrets = database.store.code_secrets().await.unwrap();
    assert_eq!((secrets.len(), secrets[1].age), (2, Duration::ZERO));
}

/// Each command finds its secret some milliseconds after it was stored, and others are stored meanwhile.
pub async fn secrets_of_codes_that_are_added_at_once_have_numbers_and_ages_of_their_own(kind: ServerKind) {
    const ADDED: usize = 4;
    let proxy = DatabaseProxy::before(Server::shared(kind).port()).await;
    let database = OnServer::through(kind, None).await;
    database.store.make_first_code_secret().await.unwrap();
    let url = database.server.url(&database.name, Some(proxy.port()));
    proxy.delay(Duration::from_millis(20));
    let add = async || loop {
        match MySqlStore::add_code_secret(&url).await {
            Ok(number) => break number,
            // The server may refuse a statement if another one adds a row at the same moment.
            Err(AddSecretError::Store(StoreError::NotStored(_) | StoreError::Clash(_))) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let mut numbers = join_all((0..ADDED).map(|_| add())).await;
    numbers.sort_unstable();
    let secrets = database.store.code_secrets().await.unwrap();
    let stored: Vec<u32> = secrets.iter().skip(1).map(|secret| secret.number).collect();
    assert_eq!((stored.len(), &numbers), (ADDED, &stored));
    let without_age = "SELECT COUNT(*) FROM code_secrets WHERE made_at = 253402300799";
    assert_eq!(number(&mut database.shell().await, without_age).await, 0);
}

async fn number(shell: &mut MySqlConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(shell).await.unwrap()
}

pub async fn nodes_that_start_together_make_one_schema(kind: ServerKind) {
    let (server, name) = OnServer::empty(kind).await;
    let options = Options::new(server.url(&name, None));
    let started =
        join_all((0..4).map(async |_| MySqlStore::open(&options).await.unwrap().check().await)).await;
    // A node that inserts the rows at the same moment as another node may have to retry.
    for result in started {
        assert!(
            matches!(result, Ok(()) | Err(StoreError::NotStored(_))),
            "{result:?}"
        );
    }
    MySqlStore::open(&options).await.unwrap().check().await.unwrap();
}

pub async fn a_cluster_that_was_made_with_other_settings_is_unreadable(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let mut shell = database.shell().await;
    for spoil in [
        "UPDATE cluster SET shards = 128",
        "UPDATE cluster SET shards = 256, hash = 'fnv'",
        "DROP TABLE cluster",
    ] {
        run(&mut shell, spoil).await;
        assert!(
            matches!(database.store.check().await, Err(StoreError::Unreadable(_))),
            "{spoil}"
        );
    }
}

pub async fn a_database_that_is_not_there_is_refused(kind: ServerKind) {
    let server = Server::shared(kind);
    for (url, why) in [
        (server.url("fc_nowhere", None), "1049"),
        (server.url("", None), "names no database"),
        (
            "mysql://firstcome:wrong@127.0.0.1/fc_x"
                .replace("127.0.0.1", &format!("127.0.0.1:{}", server.port())),
            "1045",
        ),
        (
            "postgres://somewhere/else".to_owned(),
            "does not begin with mysql://",
        ),
    ] {
        let refused = MySqlStore::open(&Options::new(url))
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(why), "{refused} does not say {why}");
    }
}

pub async fn invalid_rows_are_unreadable(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let sent = batch([owned.strangers(1..=2)]);
    database.store.write(&sent).await.unwrap();
    run(
        &mut database.shell().await,
        "UPDATE issuances SET issued_at = 9223372036854775807 WHERE sequence = 2",
    )
    .await;
    let result = EntryStore::<CouponKind>::load(&*database.store, owned.id(), None).await;
    assert!(matches!(result, Err(StoreError::Unreadable(_))));
    assert_eq!(
        found(&*database.store, &sent).await,
        (true, FoundRows::Different),
        "only this coupon is affected"
    );
    let change = batch([owned.change(2, |coupon| coupon.status = Status::Paused)]);
    run(
        &mut database.shell().await,
        "UPDATE coupons SET created_at = 9223372036854775807",
    )
    .await;
    assert_eq!(
        found(&*database.store, &change).await,
        (true, FoundRows::Different)
    );
}

/// Without the index, statements that name it always fail. Repeating them would only hold up their lane.
pub async fn an_index_that_is_gone_makes_its_statements_unreadable(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let sent = batch([owned.strangers(1..=2)]);
    run(
        &mut database.shell().await,
        "ALTER TABLE issuances DROP KEY by_user",
    )
    .await;
    let why = database.store.read_back(&sent).await.unwrap_err();
    assert!(
        matches!(&why, StoreError::Unreadable(why) if why.contains("by_user")),
        "{why}"
    );
    let listed = database
        .store
        .issuances_of_user(&user("alice"), None, None, 1)
        .await;
    assert!(matches!(listed, Err(StoreError::Unreadable(_))), "{listed:?}");
}

pub async fn secrets_are_not_shown(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let options = Options::new(database.server.url(&database.name, None));
    let shown = format!("{options:?} {:?}", database.store);
    assert!(!shown.contains(PASSWORD) && !shown.contains("%61"), "{shown}");
}

pub async fn passwords_are_sent_over_tls_if_the_server_has_it(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let url = database
        .server
        .url(&database.name, None)
        .replace("DISABLED", "REQUIRED");
    let opened = MySqlStore::open(&Options::new(url)).await;
    match kind {
        ServerKind::MySql => opened.unwrap().check().await.unwrap(),
        // Before 11.4 MariaDB creates no certificates for itself, so no password is sent.
        ServerKind::MariaDb => {
            assert!(opened.is_ok() || opened.is_err_and(|refused| refused.to_string().contains("TLS")));
        }
    }
}

pub async fn a_packet_limit_too_small_for_a_batch_is_refused(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let mut shell = database.shell().await;
    run(
        &mut shell,
        "SET @before = @@GLOBAL.max_allowed_packet; SET GLOBAL max_allowed_packet = 1048576",
    )
    .await;
    let too_small = database.open().await;
    run(&mut shell, "SET GLOBAL max_allowed_packet = 2097152").await;
    let just_enough = database.open().await.unwrap();
    let owned = Owned::make(&just_enough, None, 1).await;
    let mut rows = crate::support::issuances(&owned.strangers(1..=2_048));
    for (number, row) in rows.iter_mut().enumerate() {
        row.user = user(&format!("{number:\\>USER_ID_BYTES_MAX$}"));
        row.key = key(&"\\".repeat(REQUEST_KEY_BYTES_MAX));
    }
    let stored = just_enough.write(&batch([owned.portion(rows)])).await;
    run(&mut shell, "SET GLOBAL max_allowed_packet = @before").await;
    assert!(matches!(
        too_small,
        Err(OpenError::Packet { found: 1_048_576, .. })
    ));
    assert_eq!(stored.unwrap(), 2_048);
}
