//! Lists with so many coupons that a search does not end within a request.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use testkit::node::{ADMIN_TOKEN, Node};
use testkit::on_each_server;
use testkit::poll::within;
use testkit::servers::{Server, ServerKind, run};

use crate::FIRSTCOME;

/// Number of coupons. The titles of none contain what is searched for.
const COUPONS: usize = 200_000;

/// The searches take turns, so each gets a small part of the time of a request. There are so many that all of them
/// take about this long, which is several times what a request may take. One search alone may end within a request.
const WORK: Duration = Duration::from_secs(12);

/// Maximum number of searches, below that of a node.
const SEARCHES_MAX: usize = 200;

/// Place of a coupon, from the newest on, that every search has examined before its first request fails.
const EXAMINED: usize = 5_000;

/// Far longer than all searches take.
const LIMIT: Duration = Duration::from_secs(240);

/// Makes a statement that creates the coupons, which have ended.
fn creation(concatenated: &str) -> String {
    format!(
        "INSERT INTO coupons (title, per_user_limit, ends_at, status, version, created_at, updated_at, creation_key, creation_body)
         WITH RECURSIVE digits AS (SELECT 0 AS digit UNION ALL SELECT digit + 1 FROM digits WHERE digit < 9)
         SELECT 'Coupon', 1, 1, 'open', 1, 0, 0, {concatenated}, ''
           FROM (SELECT a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit + 10000 * e.digit + 100000 * f.digit AS number
                   FROM digits a JOIN digits b JOIN digits c JOIN digits d JOIN digits e JOIN digits f) AS numbers
          WHERE number < {COUPONS}"
    )
}

struct Searched {
    node: Node,
    client: Client,
}

impl Searched {
    fn start(directory: &Path, mut keys: Vec<String>) -> Self {
        keys.push(format!("limits.client_lists={}", 2 * SEARCHES_MAX));
        let node = tokio::task::block_in_place(|| Node::start(FIRSTCOME, directory, &keys));
        let client = Client::builder().timeout(Duration::from_secs(10));
        Self {
            node,
            client: client.build().unwrap(),
        }
    }

    async fn list(&self, query: &str) -> (u16, Value) {
        let request = self
            .client
            .get(format!("http://{}/v1/coupons?{query}", self.node.address));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Lists page by page until the list ends, as clients do. Returns the titles found, and how often the node asked
    /// for a retry. Calls `after_first` after the first of these answers.
    async fn search(&self, query: &str, after_first: impl AsyncFn()) -> (Vec<Value>, u32) {
        let (mut titles, mut retries, mut cursor) = (Vec::new(), 0, String::new());
        within(LIMIT, &format!("the list {query} ends"), async || {
            let (status, mut page) = self.list(&format!("{query}{cursor}")).await;
            if status != 200 {
                assert_eq!((status, &page["code"]), (503, &json!("STORE_UNAVAILABLE")));
                if retries == 0 {
                    after_first().await;
                }
                retries += 1;
                return false;
            }
            let items = page["items"].as_array_mut().unwrap();
            titles.extend(items.iter_mut().map(|item| item["title"].take()));
            let Some(next) = page["next_cursor"].as_str() else {
                return true;
            };
            assert_ne!(page["items"], json!([]), "{page}");
            cursor = format!("&cursor={next}");
            false
        })
        .await;
        (titles, retries)
    }

    /// Gives a coupon another title, which all searches have examined, and no search for it may skip.
    async fn rename_examined(&self, title: &str) {
        let (_, newest) = self.list("limit=1").await;
        let id = newest["items"][0]["id"].as_u64().unwrap() - EXAMINED as u64;
        let request = self
            .client
            .patch(format!("http://{}/v1/coupons/{id}", self.node.address))
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({"title": title}));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    async fn judge(&self) {
        let begun = Instant::now();
        let (found, retries) = self.search("title=none.", async || ()).await;
        assert_eq!(found, [] as [Value; 0]);
        let alone = begun.elapsed();
        let number = WORK.as_millis() / alone.as_millis().max(1);
        let number = usize::try_from(number).unwrap().clamp(10, SEARCHES_MAX);
        println!("one search takes {alone:?} and {retries} retries; {number} searches follow");
        let searches = (0..number).map(async |number| {
            let query = match number {
                0 => "phase=live".to_owned(),
                1 => "phase=scheduled&title=none".to_owned(),
                _ => format!("title=none-{number}."),
            };
            let (found, retries) = self
                .search(&query, async || {
                    if number == 2 {
                        self.rename_examined("none-2. but later").await;
                    }
                })
                .await;
            (query, found, retries)
        });
        let searches = futures_util::future::join_all(searches).await;
        let retries: Vec<u32> = searches.iter().map(|(_, _, retries)| *retries).collect();
        println!("at most {:?} retries", retries.iter().max());
        assert!(retries[2] >= 1, "it ended within a request");
        for (number, (query, found, _)) in searches.iter().enumerate() {
            let expected: &[Value] = match number {
                2 => &[json!("none-2. but later")],
                _ => &[],
            };
            assert_eq!(found, expected, "{query}");
        }
    }
}

async fn searches_that_match_nothing_end(kind: ServerKind) {
    let server = Server::shared(kind);
    let name = server.make_writable_database().await;
    let folder = tempfile::tempdir().unwrap();
    let searched = Searched::start(
        folder.path(),
        vec![format!("store.url={}", server.url(&name, None))],
    );
    let mut shell = server.shell(&name).await.unwrap();
    run(&mut shell, &creation("CONCAT('made-', number)")).await;
    searched.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_that_match_nothing_end_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let searched = Searched::start(folder.path(), Vec::new());
    let options = SqliteConnectOptions::new().filename(folder.path().join("data").join("firstcome.db"));
    let mut shell = options.connect().await.unwrap();
    let creation = creation("'made-' || number");
    sqlx::raw_sql(AssertSqlSafe(creation))
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    searched.judge().await;
}

on_each_server! { searches_that_match_nothing_end }
