//! Starting a node: databases that it refuses or warns about, and the time limit of every wait during the
//! start.

use crate::FIRSTCOME;
use std::time::{Duration, Instant};
use testkit::on_each_server;

use serde_json::json;
use sqlx::mysql::MySqlConnection;
use testkit::database_proxy::{DatabaseProxy, Rule};
use testkit::poll::eventually;
use testkit::ports::free_port;
use testkit::servers::{PASSWORD, Server, ServerKind, run};

use testkit::node::{self, Node};

/// Longer than any refusal takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A database on a server, and the directory of a node.
struct Opening {
    url: String,
    shell: MySqlConnection,
    folder: tempfile::TempDir,
}

impl Opening {
    /// Makes an empty database. The node reaches it through `port` if that is given.
    async fn empty(server: &Server, port: Option<u16>) -> Self {
        let name = server.make_writable_database().await;
        let shell = server.shell(&name).await.unwrap();
        Self {
            url: format!("store.url={}", server.url(&name, port)),
            shell,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Makes a database that a node has used.
    async fn used(server: &Server) -> Self {
        let opening = Self::empty(server, None).await;
        drop(tokio::task::block_in_place(|| {
            Node::start(
                FIRSTCOME,
                opening.folder.path(),
                std::slice::from_ref(&opening.url),
            )
        }));
        opening
    }

    /// Checks that a command of the program fails in time and says why.
    fn refused(&self, command: &str, why: &[&str]) {
        let keys = [
            self.url.clone(),
            "http.listen=127.0.0.1:0".to_owned(),
            "store.migration_wait=1s".to_owned(),
        ];
        let (succeeded, log) =
            tokio::task::block_in_place(|| node::run(FIRSTCOME, self.folder.path(), command, &keys, LIMIT));
        assert!(!succeeded, "{command} succeeded: {log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("firstcome: ") && why.iter().all(|why| last.contains(why)),
            "{why:?} is not in the error: {log}"
        );
        assert!(!log.contains("panicked") && !log.contains(PASSWORD), "{log}");
    }
}

async fn an_incompatible_database_is_refused(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut opening = Opening::used(server).await;
    let newer = "INSERT INTO firstcome_migrations VALUES
        (100, 'newer', NOW(), TRUE, x'00', 0), (101, 'newer', NOW(), TRUE, x'00', 0)";
    run(&mut opening.shell, newer).await;
    opening.refused(
        "serve",
        &["the database has schema 101", "this program knows up to"],
    );
    opening.refused("migrate", &["the database has schema 101"]);
    run(
        &mut opening.shell,
        "DELETE FROM firstcome_migrations WHERE version >= 100; UPDATE cluster SET shards = 128",
    )
    .await;
    opening.refused(
        "serve",
        &["the cluster was made with 128 shards", "this program has 256"],
    );
    run(&mut opening.shell, "UPDATE cluster SET shards = 256").await;
    // Once all of that is corrected, the node starts.
    drop(tokio::task::block_in_place(|| {
        Node::start(
            FIRSTCOME,
            opening.folder.path(),
            std::slice::from_ref(&opening.url),
        )
    }));
}

/// A proxy that has rules for sessions changes the statement that sets the isolation.
async fn a_session_without_the_required_isolation_is_refused(kind: ServerKind) {
    let server = Server::shared(kind);
    let proxy = DatabaseProxy::with_rule(
        server.port(),
        Rule::Replace("LEVEL REPEATABLE READ", "LEVEL READ COMMITTED "),
    )
    .await;
    let opening = Opening::empty(server, Some(proxy.port())).await;
    opening.refused("serve", &["the isolation of a session stays \"READ-COMMITTED\""]);
}

/// Another session holds the migration's lock, and servers become silent at different moments.
async fn every_wait_at_the_start_has_a_limit(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut opening = Opening::empty(server, None).await;
    run(
        &mut opening.shell,
        "DO GET_LOCK(CONCAT('firstcome-', LEFT(SHA2(DATABASE(), 256), 32)), 0)",
    )
    .await;
    let begun = Instant::now();
    opening.refused(
        "migrate",
        &["another migration of this database did not end within 1s"],
    );
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    opening.refused(
        "serve",
        &["another migration of this database did not end within 1s"],
    );
    let mut muted = Vec::new();
    for said in [
        "SHOW GLOBAL VARIABLES",
        "GET_LOCK",
        "CREATE TABLE IF NOT EXISTS coupons",
    ] {
        let proxy = DatabaseProxy::with_rule(server.port(), Rule::MuteAt(said)).await;
        muted.push((Opening::empty(server, Some(proxy.port())).await, proxy));
    }
    // Each command waits until its limit, so all commands run at once.
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for (opening, _proxy) in &muted {
                scope.spawn(|| opening.refused("migrate", &["did not answer within"]));
            }
        });
    });
}

/// The server does not run when the node starts.
async fn a_node_waits_for_a_server_that_is_not_there_yet(kind: ServerKind) {
    let server = Server::own(kind, &[]);
    let opening = Opening::empty(&server, None).await;
    tokio::task::block_in_place(|| server.kill());
    let address = format!("127.0.0.1:{}", free_port());
    let node = Node::begin_at(
        &address,
        FIRSTCOME,
        opening.folder.path(),
        std::slice::from_ref(&opening.url),
    );
    let get = async |path: &str| {
        let response = reqwest::get(format!("http://{address}{path}")).await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    };
    let says = async |path: &str, status: u16, body: &str| get(path).await == Some((status, body.to_owned()));
    eventually("the node waits", async || {
        says(
            "/readyz",
            503,
            r#"{"ready":false,"reasons":["starting","no_store"]}"#,
        )
        .await
    })
    .await;
    assert!(says("/livez", 200, r#"{"live":true}"#).await);
    assert_refusals_are_counted(&address).await;
    let reported = "the database cannot be reached; waiting for it";
    eventually("the node reports that again", async || {
        node.log().matches(reported).count() >= 2
    })
    .await;
    let log = node.log();
    let names_server = log.contains(&format!("127.0.0.1:{}/fc_", server.port()));
    assert!(names_server && log.contains("Connection refused"), "{log}");
    assert!(
        !log.contains(PASSWORD) && !log.contains("%61"),
        "the log shows the password: {log}"
    );
    tokio::task::block_in_place(|| server.resume()).unwrap();
    eventually("the node is ready", async || {
        says("/readyz", 200, r#"{"ready":true}"#).await
    })
    .await;
}

/// Checks that a starting node counts what it refuses, by outcome.
async fn assert_refusals_are_counted(address: &str) {
    let client = reqwest::Client::new();
    let post = |path: &str| client.post(format!("http://{address}{path}"));
    let admin = |path: &str| post(path).bearer_auth(node::ADMIN_TOKEN);
    let redeem = json!({"order_id": "a", "order_amount": 1});
    for request in [
        post("/v1/coupons/1/issuances").header("X-User-Id", "alice"),
        admin("/v1/issuances/1-1/redeem").json(&redeem),
        admin("/v1/coupons/1/pause"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 503, "{response:?}");
    }
    let metrics = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    let text = metrics.text().await.unwrap();
    for series in [
        r#"coupon_issue_total{outcome="store_unavailable"}"#,
        r#"coupon_issue_duration_seconds_count{outcome="store_unavailable"}"#,
        r#"coupon_use_total{step="redeem",outcome="store_unavailable"}"#,
        r#"coupon_change_total{outcome="store_unavailable"}"#,
    ] {
        assert_eq!(testkit::prometheus::value(&text, series), 1.0, "{series}");
    }
}

/// Waiting cannot help here: an operator has to change something first.
async fn a_node_that_its_server_refuses_ends_and_says_what_to_do(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut opening = Opening::empty(server, None).await;
    let name = server.make_writable_database().await;
    let at = |user: &str, database: &str| {
        format!(
            "store.url=mysql://{user}@127.0.0.1:{}/{database}?ssl-mode=DISABLED",
            server.port()
        )
    };
    opening.url = at("firstcome:wrong", &name);
    opening.refused("serve", &["1045", "check user and password", &format!("/{name}")]);
    opening.url = format!("store.url={}", server.url("fc_nowhere", None));
    opening.refused("serve", &["1049", "create the database", "/fc_nowhere"]);
    if kind == ServerKind::MariaDb {
        run(
            &mut opening.shell,
            "INSTALL SONAME 'auth_ed25519';
             CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
        )
        .await;
        opening.url = at("modern:secret", &name);
        opening.refused(
            "serve",
            &["client_ed25519", "by mysql_native_password on MariaDB"],
        );
    }
}

/// The second node has no address for links, so it can never be ready beside the first.
async fn a_node_without_links_reports_other_nodes_on_its_database(kind: ServerKind) {
    let opening = Opening::empty(Server::shared(kind), None).await;
    let keys = |id: &str| vec![opening.url.clone(), format!("node.id={id}")];
    let first = tokio::task::block_in_place(|| Node::start(FIRSTCOME, opening.folder.path(), &keys("first")));
    let folder = tempfile::tempdir().unwrap();
    let second = Node::begin_at("127.0.0.1:0", FIRSTCOME, folder.path(), &keys("second"));
    eventually("the second node names the first", async || {
        let log = second.log();
        log.contains("ERROR") && log.contains("cluster.listen is not set") && log.contains("others=\"first\"")
    })
    .await;
    drop(first);
}

/// The server has settings that may lose commits, and then is read-only.
async fn a_server_that_may_lose_commits_causes_a_warning_and_a_read_only_server_is_refused(kind: ServerKind) {
    let server = Server::own(kind, &["--log-bin=binlog", "--server-id=1", "--sync-binlog=0"]);
    let mut opening = Opening::empty(&server, None).await;
    let process = tokio::task::block_in_place(|| {
        Node::start(
            FIRSTCOME,
            opening.folder.path(),
            std::slice::from_ref(&opening.url),
        )
    });
    for warning in [
        "innodb_flush_log_at_trx_commit = 2: a power failure loses commits",
        "sync_binlog = 0: a power failure loses commits",
    ] {
        assert!(
            process.log().contains(warning),
            "{warning} is not in {}",
            process.log()
        );
    }
    drop(process);
    let quiet = Opening::empty(&server, None).await;
    run(
        &mut opening.shell,
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1; SET GLOBAL sync_binlog = 1",
    )
    .await;
    let process = tokio::task::block_in_place(|| {
        Node::start(FIRSTCOME, quiet.folder.path(), std::slice::from_ref(&quiet.url))
    });
    assert!(
        !process.log().contains("a power failure loses commits"),
        "{}",
        process.log()
    );
    drop(process);
    run(&mut opening.shell, "SET GLOBAL read_only = 1").await;
    opening.refused("serve", &["the server is read-only"]);
    opening.refused("migrate", &["the server is read-only"]);
}

/// Returns the statements of docs/operations.md, with other names for the database and its users.
fn documented_rights(database: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = page
        .split("```sql\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let statements = block.expect("the page has the statements");
    let own = statements
        .replace("firstcome_migrate", &format!("m_{database}"))
        .replace("firstcome_serve", &format!("s_{database}"))
        .replace("firstcome", database);
    own.replace(&format!("CREATE DATABASE {database};"), "")
}

async fn the_rights_in_the_documentation_suffice(kind: ServerKind) {
    let server = Server::shared(kind);
    let mut opening = Opening::empty(server, None).await;
    let database = server.make_writable_database().await;
    run(&mut opening.shell, &documented_rights(&database)).await;
    let url = |user: &str| {
        format!(
            "store.url=mysql://{user}_{database}:a%20password@127.0.0.1:{}/{database}?ssl-mode=DISABLED",
            server.port()
        )
    };
    // Without tables, the database user of nodes can do nothing. The error names the command that creates
    // them.
    opening.url = url("s");
    opening.refused("serve", &["1142", "`firstcome migrate`"]);
    let migrated = tokio::task::block_in_place(|| {
        node::run(FIRSTCOME, opening.folder.path(), "migrate", &[url("m")], LIMIT)
    });
    assert!(migrated.0, "{}", migrated.1);
    let node = tokio::task::block_in_place(|| {
        Node::start(
            FIRSTCOME,
            opening.folder.path(),
            std::slice::from_ref(&opening.url),
        )
    });
    let client = reqwest::Client::new();
    let post = async |path: &str, body: serde_json::Value| {
        let request = client.post(format!("http://{}{path}", node.address)).json(&body);
        let request = request
            .bearer_auth(node::ADMIN_TOKEN)
            .header("X-User-Id", "alice");
        request.send().await.unwrap().status().as_u16()
    };
    let coupon = serde_json::json!({"title": "a", "total_quantity": 2});
    assert_eq!(post("/v1/coupons", coupon).await, 201);
    let issue = client
        .post(format!("http://{}/v1/coupons/1/issuances", node.address))
        .header("X-User-Id", "alice");
    assert_eq!(issue.send().await.unwrap().status().as_u16(), 201);
    assert_eq!(post("/v1/coupons/1/close", serde_json::json!({})).await, 200);
    let stopped = tokio::task::block_in_place(|| node.stop(LIMIT));
    assert!(stopped, "{}", node.log());
    assert!(!node.log().contains("denied"), "{}", node.log());
}

on_each_server! {
    an_incompatible_database_is_refused
    a_session_without_the_required_isolation_is_refused
    every_wait_at_the_start_has_a_limit
    a_node_waits_for_a_server_that_is_not_there_yet
    a_node_that_its_server_refuses_ends_and_says_what_to_do
    a_node_without_links_reports_other_nodes_on_its_database
    the_rights_in_the_documentation_suffice
    a_server_that_may_lose_commits_causes_a_warning_and_a_read_only_server_is_refused
}
