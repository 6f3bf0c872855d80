//! Lists with so many coupons that a search does not end within a request.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use testkit::node::{ADMIN_TOKEN, Node};
use testkit::on_each_server;
use testkit::poll::within;
use testkit::servers::{Server, ServerKind, run};
use tokio::sync::{Mutex, OnceCell};

use crate::FIRSTCOME;

/// Number of coupons. The titles of none contain what is searched for.
const COUPONS: usize = 200_000;

/// The searches take turns, so each gets a small part of the time of a request. There are so many that all of
/// them take about this long, which is several times what a request may take. One search alone may end within
/// a request.
const WORK: Duration = Duration::from_secs(12);

/// Maximum number of searches, below that of a node.
const SEARCHES_MAX: usize = 200;

/// Place of a coupon, from the newest on, that every search has examined before its first request fails.
const EXAMINED: usize = 5_000;

/// Far longer than all searches take.
const LIMIT: Duration = Duration::from_secs(240);

/// Number of coupons of a list that takes several steps, within one request.
const SEVERAL_STEPS: usize = 20_000;

/// Makes a statement that creates this many coupons, which have ended.
fn creation(concatenated: &str, count: usize) -> String {
    format!(
        "INSERT INTO coupons (title, per_user_limit, ends_at, status, version, created_at, updated_at,
                              creation_key, creation_body)
         WITH RECURSIVE digits AS (SELECT 0 AS digit UNION ALL SELECT digit + 1 FROM digits WHERE digit < 9)
         SELECT 'Coupon', 1, 1, 'open', 1, 0, 0, {concatenated}, ''
           FROM (SELECT a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit + 10000 * e.digit
                        + 100000 * f.digit AS number
                   FROM digits a JOIN digits b JOIN digits c
                        JOIN digits d JOIN digits e JOIN digits f) AS numbers
          WHERE number < {count}"
    )
}

/// Returns the number of searches that together take as long as `WORK`, where one takes this long alone.
fn number_of_searches(alone: Duration) -> usize {
    let number = WORK.as_millis() / alone.as_millis().max(1);
    usize::try_from(number).unwrap().clamp(10, SEARCHES_MAX)
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

    /// Lists page by page until the list ends, as clients do. Returns the titles found, and how often the
    /// node asked for a retry. Calls `after_first` after the first of these answers.
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
        let number = number_of_searches(alone);
        println!("one search takes {alone:?} and {retries} retries; {number} searches follow");
        // The first searches share their snapshot with no others, and may end within a request.
        let last = number - 1;
        let searches = (0..number).map(async |number| {
            let query = match number {
                0 => "phase=live".to_owned(),
                1 => "phase=scheduled&title=none".to_owned(),
                _ => format!("title=none-{number}."),
            };
            let (found, retries) = self
                .search(&query, async || {
                    if number == last {
                        self.rename_examined(&format!("none-{last}. but later")).await;
                    }
                })
                .await;
            (query, found, retries)
        });
        let searches = futures_util::future::join_all(searches).await;
        let retries: Vec<u32> = searches.iter().map(|(_, _, retries)| *retries).collect();
        println!("at most {:?} retries", retries.iter().max());
        assert!(retries[last] >= 1, "it ended within a request");
        let renamed = [json!(format!("none-{last}. but later"))];
        for (number, (query, found, _)) in searches.iter().enumerate() {
            let expected: &[Value] = if number == last { &renamed } else { &[] };
            assert_eq!(found, expected, "{query}");
        }
    }
}

/// Creates a coupon for this list, which is live or paused.
async fn create(searched: &Searched, status: &str) -> u64 {
    let request = searched
        .client
        .post(format!("http://{}/v1/coupons", searched.node.address))
        .bearer_auth(ADMIN_TOKEN)
        .json(&json!({"title": "Toggled Coupon", "total_quantity": null, "status": status}));
    let coupon: Value = request.send().await.unwrap().json().await.unwrap();
    coupon["id"].as_u64().unwrap()
}

/// Returns the title in letters of varying case, so that each list is searched, and none is answered from a
/// copy.
fn spelled(number: usize) -> String {
    let letter = |(at, letter): (usize, char)| match number >> at & 1 {
        0 => letter.to_ascii_lowercase(),
        _ => letter.to_ascii_uppercase(),
    };
    let title: String = "toggledcoupon".chars().enumerate().map(letter).collect();
    let (first, second) = title.split_at("toggled".len());
    format!("{first}%20{second}")
}

/// The first and the last coupon of a long list change their places between live and paused, in one
/// transaction. A list that takes several steps always shows exactly one of them.
async fn shows_one_moment(searched: &Searched, ids: [u64; 2], toggle: impl AsyncFn(&str)) {
    const LISTS: usize = 200;
    let [first, last] = ids;
    let toggled = format!(
        "UPDATE coupons SET status = CASE status WHEN 'open' THEN 'paused' ELSE 'open' END
          WHERE id IN ({first}, {last})"
    );
    let is_done = AtomicBool::new(false);
    let toggling = async {
        let mut number = 0;
        while !is_done.load(Ordering::Relaxed) {
            toggle(&toggled).await;
            number += 1;
        }
        number
    };
    let listing = async {
        let mut seen = std::collections::BTreeMap::<Vec<u64>, usize>::new();
        for number in 0..LISTS {
            let query = format!("phase=live&title={}&limit=200", spelled(number));
            let (status, page) = searched.list(&query).await;
            assert_eq!((status, &page["next_cursor"]), (200, &Value::Null), "{page}");
            let items = page["items"].as_array().unwrap().iter();
            *seen
                .entry(items.map(|item| item["id"].as_u64().unwrap()).collect())
                .or_default() += 1;
        }
        is_done.store(true, Ordering::Relaxed);
        seen
    };
    let (number, seen) = tokio::join!(toggling, listing);
    println!("{number} changes beside {LISTS} lists, which showed {seen:?}");
    let shown: Vec<&Vec<u64>> = seen.keys().collect();
    assert_eq!(shown, [&vec![first], &vec![last]], "{seen:?}");
}

async fn a_list_that_takes_several_steps_is_of_one_moment(kind: ServerKind) {
    let server = Server::shared(kind);
    let name = server.make_writable_database().await;
    let folder = tempfile::tempdir().unwrap();
    let searched = Searched::start(
        folder.path(),
        vec![format!("store.url={}", server.url(&name, None))],
    );
    let first = create(&searched, "open").await;
    let shell = Mutex::new(server.shell(&name).await.unwrap());
    let creation = creation("CONCAT('made-', number)", SEVERAL_STEPS);
    run(&mut *shell.lock().await, &creation).await;
    let last = create(&searched, "paused").await;
    shows_one_moment(&searched, [first, last], async |statement| {
        run(&mut *shell.lock().await, statement).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_takes_several_steps_is_of_one_moment_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let searched = Searched::start(folder.path(), Vec::new());
    let first = create(&searched, "open").await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("data").join("firstcome.db"));
    let shell = Mutex::new(options.busy_timeout(LIMIT).connect().await.unwrap());
    let executed = async |statement: &str| {
        let statement = AssertSqlSafe(statement.to_owned());
        let mut shell = shell.lock().await;
        sqlx::raw_sql(statement).execute(&mut *shell).await.unwrap();
        // The node writes too.
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    executed(&creation("'made-' || number", SEVERAL_STEPS)).await;
    let last = create(&searched, "paused").await;
    shows_one_moment(&searched, [first, last], executed).await;
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
    run(&mut shell, &creation("CONCAT('made-', number)", COUPONS)).await;
    searched.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_that_match_nothing_end_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let searched = Searched::start(folder.path(), Vec::new());
    let options = SqliteConnectOptions::new().filename(folder.path().join("data").join("firstcome.db"));
    let mut shell = options.connect().await.unwrap();
    let creation = creation("'made-' || number", COUPONS);
    sqlx::raw_sql(AssertSqlSafe(creation))
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    searched.judge().await;
}

/// Number of issuances of a coupon that is searched. Only the last one can be used.
const ISSUANCES: u64 = 150_000;

/// Sequence of an issuance that is refunded once a search has examined it. All searches begin before it.
const REFUNDED: u64 = 1_000;

/// Makes the statements that store them, and the redemptions of the others.
fn redeemed(coupon: u64) -> [String; 2] {
    let numbers = format!(
        "WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {ISSUANCES})"
    );
    let issuances = format!(
        "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         {numbers} SELECT {coupon}, n, 'user-' || n, 1, 'key-' || n, 1700000000000000 FROM numbers"
    );
    let uses = format!(
        "INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, returns,
                           author, used_at, reserved, redeemed, revoked, returned)
         {numbers} SELECT {coupon}, n, n, 'redeemed', 'order-' || n, 5, 0, 0,
                          'key:shop', 1700000000000000, 0, n, 0, 0 FROM numbers WHERE n < {ISSUANCES}"
    );
    [issuances, uses]
}

/// Starts a node with the coupon that is searched.
async fn nearly_all_redeemed() -> (Searched, u64, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let searched = Searched::start(folder.path(), Vec::new());
    let coupon = create(&searched, "open").await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("data").join("firstcome.db"));
    let mut shell = options.busy_timeout(LIMIT).connect().await.unwrap();
    for statement in redeemed(coupon) {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut shell)
            .await
            .unwrap();
    }
    shell.close().await.unwrap();
    (searched, coupon, folder)
}

/// Lists the issuances that can be used, page by page until the list ends. Returns their sequences, and how
/// often the node asked for a retry. Calls `before_retry` before each.
async fn usable(
    searched: &Searched,
    coupon: u64,
    after: usize,
    before_retry: impl AsyncFn(),
) -> (Vec<u64>, u32) {
    let address = &searched.node.address;
    let url = format!("http://{address}/v1/coupons/{coupon}/issuances?state=usable&after_sequence={after}");
    let (mut retries, mut found, mut cursor) = (0, Vec::new(), String::new());
    within(LIMIT, "the list ends", async || {
        let list = searched.client.get(format!("{url}{cursor}"));
        let list = list.bearer_auth(ADMIN_TOKEN).send().await.unwrap();
        let (status, page): (_, Value) = (list.status().as_u16(), list.json().await.unwrap());
        if status != 200 {
            assert_eq!((status, &page["code"]), (503, &json!("STORE_UNAVAILABLE")));
            retries += 1;
            before_retry().await;
            return false;
        }
        let items = page["items"].as_array().unwrap().iter();
        found.extend(items.map(|item| item["sequence"].as_u64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else {
            return true;
        };
        cursor = format!("&cursor={next}");
        false
    })
    .await;
    (found, retries)
}

/// Searches for issuances that can be used, with so many searches at once that few end within a request.
/// Calls `before_retry` with the number of a search before each of its retries. All that retried must find
/// what was given back by then.
async fn search_for_usable(searched: &Searched, coupon: u64, before_retry: impl AsyncFn(usize)) {
    let begun = Instant::now();
    let (found, _) = usable(searched, coupon, REFUNDED as usize, async || ()).await;
    assert_eq!(found, [ISSUANCES]);
    let alone = begun.elapsed();
    let number = number_of_searches(alone);
    println!("one search takes {alone:?}; {number} searches follow");
    let before_retry = &before_retry;
    let searches =
        (0..number).map(|after| usable(searched, coupon, after, async move || before_retry(after).await));
    let searches = futures_util::future::join_all(searches).await;
    let retries: Vec<u32> = searches.iter().map(|(_, retries)| *retries).collect();
    println!("retries: {retries:?}");
    assert!(
        retries.iter().any(|retries| *retries > 0),
        "all ended within a request"
    );
    for (found, retries) in searches.iter().filter(|(_, retries)| *retries > 0) {
        assert_eq!(found, &[REFUNDED, ISSUANCES], "after {retries} retries");
    }
}

/// Searches that take longer than a request continue with each retry. They find issuances that were given
/// back meanwhile, even among those that they have already examined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_for_issuances_end_and_miss_no_use() {
    let (searched, coupon, _folder) = nearly_all_redeemed().await;
    // Each retry comes after the answer to the refund.
    let refunded = OnceCell::new();
    let refund = async || {
        let address = &searched.node.address;
        // Beside the searches, a slow machine may take longer than a request to load the coupon.
        within(LIMIT, "the refund is answered", async || {
            let refund = searched.client.post(format!(
                "http://{address}/v1/issuances/{coupon}-{REFUNDED}/refund"
            ));
            let refund = refund
                .bearer_auth(ADMIN_TOKEN)
                .json(&json!({"order_id": format!("order-{REFUNDED}")}));
            refund.send().await.unwrap().status() == 200
        })
        .await;
    };
    search_for_usable(&searched, coupon, async |_| {
        refunded.get_or_init(&refund).await;
    })
    .await;
}

/// Number of uses that are stored before a search retries.
const USES: u64 = 600;

/// Makes the statement that stores the next uses of a coupon, of which so many are stored. The first one
/// gives an issuance back.
fn further_uses(coupon: u64, stored: u64) -> String {
    format!(
        "WITH RECURSIVE numbers AS (
            SELECT {stored} + 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {stored} + {USES})
         INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, returns,
                           author, used_at, reserved, redeemed, revoked, returned)
         SELECT {coupon}, n, CASE n WHEN {ISSUANCES} THEN {REFUNDED} ELSE 2000 + n % 1000 END,
                CASE n WHEN {ISSUANCES} THEN 'refunded' ELSE 'redeemed' END, 'order-' || n, 5, 0, 0,
                'key:shop', 1700000000000000, 0, n, 0, 0 FROM numbers"
    )
}

/// Searches continue however many issuances are used between their retries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_for_issuances_end_while_issuances_are_used_all_the_time() {
    let (searched, coupon, folder) = nearly_all_redeemed().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("data").join("firstcome.db"));
    let shell = options.busy_timeout(LIMIT).connect().await.unwrap();
    // The connection, the number of uses, and how many of them each search had seen when it retried last.
    let rows = Mutex::new((shell, ISSUANCES - 1, [ISSUANCES - 1; SEARCHES_MAX]));
    search_for_usable(&searched, coupon, async |search| {
        let mut rows = rows.lock().await;
        let (shell, stored, seen) = &mut *rows;
        let seen = &mut seen[search];
        if *seen == *stored {
            let statement = AssertSqlSafe(further_uses(coupon, *stored));
            sqlx::raw_sql(statement).execute(shell).await.unwrap();
            *stored += USES;
        }
        *seen = *stored;
    })
    .await;
}

on_each_server! {
    searches_that_match_nothing_end
    a_list_that_takes_several_steps_is_of_one_moment
}
