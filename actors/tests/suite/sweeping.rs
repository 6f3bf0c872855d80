//! Removal of the rows of ended nodes on a database that is far away.

use std::time::Duration;

use actors::store::mysql::{MySqlStore, Options};
use actors::store::{ClusterStore, ENDED_ROWS_MAX, NodeRow, NodeState};
use sqlx::mysql::MySqlConnection;
use testkit::database_proxy::DatabaseProxy;
use testkit::servers::{ServerKind, run};

use crate::cluster::node;
use crate::database::OnServer;

/// Number of rows beyond those that stay. At one statement each, they take longer than a write may.
const BEYOND: usize = 60;
/// How long everything takes in each direction: a database one ocean away.
const EACH_WAY: Duration = Duration::from_millis(75);

/// If all rows were marked or removed by one commit, a distant database would never come to that commit.
pub async fn rows_of_ended_nodes_are_removed_a_few_at_a_time_if_the_database_is_far_away(kind: ServerKind) {
    let near = OnServer::through(kind, None).await;
    let mut shell = near.shell().await;
    let proxy = DatabaseProxy::before(near.server.port()).await;
    let url = near.server.url(&near.name, Some(proxy.port()));
    let far = MySqlStore::open(&Options::new(url)).await.unwrap();
    // Connects, so that no sweep below does.
    assert_eq!(far.sweep_nodes().await.unwrap(), 0);
    for number in 0..ENDED_ROWS_MAX + BEYOND {
        let state = NodeState::Ended;
        let gone = NodeRow {
            state,
            ..node(&format!("gone-{number:03}"))
        };
        assert!(near.store.join(&gone, None).await.unwrap());
    }
    proxy.delay(EACH_WAY);

    assert_eq!(far.sweep_nodes().await.unwrap(), 0, "rows are marked first");
    let marked = rows(&mut shell, "ended_at > 0").await;
    assert!((1..ENDED_ROWS_MAX).contains(&marked), "{marked} rows are marked");

    run(&mut shell, "UPDATE nodes SET ended_at = UNIX_TIMESTAMP()").await;
    let mut left = ENDED_ROWS_MAX + BEYOND;
    for _ in 0..2 {
        let removed = far.sweep_nodes().await.unwrap();
        assert!((1..BEYOND).contains(&removed), "{removed} rows are removed");
        left -= removed;
        assert_eq!(rows(&mut shell, "TRUE").await, left);
    }
    proxy.delay(Duration::ZERO);
    assert_eq!(far.sweep_nodes().await.unwrap(), left - ENDED_ROWS_MAX);
}

/// Returns how many rows of nodes satisfy a condition.
async fn rows(shell: &mut MySqlConnection, condition: &str) -> usize {
    let asked = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM nodes WHERE {condition}"));
    let count: i64 = sqlx::query_scalar(asked).fetch_one(shell).await.unwrap();
    usize::try_from(count).unwrap()
}
