//! Rows of nodes that ended, as containers with fresh data directories leave them.

use std::time::Duration;

use actors::store::ENDED_ROWS_MAX;
use serde_json::Value;
use sqlx::mysql::MySqlConnection;
use testkit::node::{ADMIN_TOKEN, Node};
use testkit::on_each_server;
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind, run};

use crate::FIRSTCOME;

/// Longer than stopping takes.
const LIMIT: Duration = Duration::from_secs(30);

/// Inserts rows of 5,000 nodes, of which one ended each second. For two of them the time is not known, and
/// two ended more than a day ago.
const ENDED: &str = "
INSERT INTO nodes (node_id, incarnation, beat, state, http, cluster, links, ended_at)
WITH RECURSIVE digits AS (SELECT 0 AS digit UNION ALL SELECT digit + 1 FROM digits WHERE digit < 9)
SELECT CONCAT('gone-', number), number + 1, 7, 'ended', '', '', '', UNIX_TIMESTAMP() - number
  FROM (SELECT a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit AS number
          FROM digits a JOIN digits b JOIN digits c JOIN digits d) AS numbers
 WHERE number BETWEEN 1 AND 5000;
UPDATE nodes SET ended_at = 0 WHERE node_id IN ('gone-4999', 'gone-5000');
UPDATE nodes SET ended_at = UNIX_TIMESTAMP() - 86401 WHERE node_id IN ('gone-1', 'gone-2')";

async fn ended(shell: &mut MySqlConnection) -> Vec<String> {
    sqlx::query_scalar("SELECT node_id FROM nodes WHERE state = 'ended' ORDER BY node_id")
        .fetch_all(shell)
        .await
        .unwrap()
}

async fn rows_of_ended_nodes_are_removed(kind: ServerKind) {
    let server = Server::shared(kind);
    let name = server.make_writable_database().await;
    let mut shell = server.shell(&name).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let keys = [format!("store.url={}", server.url(&name, None))];
    let start = || tokio::task::block_in_place(|| Node::start(FIRSTCOME, folder.path(), &keys));
    let first = start();
    assert!(tokio::task::block_in_place(|| first.stop(LIMIT)));
    run(&mut shell, ENDED).await;
    assert_eq!(ended(&mut shell).await.len(), 5_001);
    let node = start();
    eventually("a few hundred rows are left", async || {
        ended(&mut shell).await.len() <= ENDED_ROWS_MAX
    })
    .await;
    let left = ended(&mut shell).await;
    assert_eq!(left.len(), ENDED_ROWS_MAX, "{left:?}");
    for (id, stays) in [
        ("gone-1", false),
        ("gone-3", true),
        ("gone-4998", false),
        // It is not known when this node ended, so it may be the latest.
        ("gone-5000", true),
    ] {
        assert_eq!(left.iter().any(|left| left == id), stays, "{id}: {left:?}");
    }
    let unmarked = "SELECT COUNT(*) FROM nodes WHERE state = 'ended' AND ended_at = 0";
    let unmarked: i64 = sqlx::query_scalar(unmarked).fetch_one(&mut shell).await.unwrap();
    assert_eq!(unmarked, 0);
    // Operators see these rows and the row of the live node, and every beat reads them.
    let view = reqwest::Client::new()
        .get(format!("http://{}/v1/cluster", node.address))
        .bearer_auth(ADMIN_TOKEN)
        .send()
        .await
        .unwrap()
        .json::<Value>()
        .await
        .unwrap();
    assert!(
        view["nodes"].as_array().unwrap().len() <= ENDED_ROWS_MAX + 1,
        "{view}"
    );
    assert!(tokio::task::block_in_place(|| node.stop(LIMIT)), "{}", node.log());
}

on_each_server! { rows_of_ended_nodes_are_removed }
