//! Lists of coupons under load: they do not hold up other reads, and the lists of each client are bounded.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use testkit::poll::eventually;

use crate::hostile::metric_in;
use crate::process::Serving;
use crate::support::{ADMIN_TOKEN, LIMIT};

/// Number of coupons in the lists.
const COUPONS: i64 = 20_000;
/// Number of clients that list, each at an address of its own, and number of connections of each.
const LISTERS: u8 = 30;
const CONNECTIONS: usize = 10;
/// How long these clients list.
const STORM: Duration = Duration::from_secs(4);

/// Lets one test of this file run at a time, because each measures how long reads take.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A node in a process of its own, with coupons that have ended.
struct Listed {
    serving: Serving,
    _data: TempDir,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Listed {
    async fn start() -> Self {
        Self::start_with(COUPONS, &[]).await
    }

    /// Starts a node that has so many coupons and these flags.
    async fn start_with(coupons: i64, flags: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let data = tempfile::tempdir().unwrap();
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let serving = Serving::start(&data, &[&["--set", &token], flags].concat());
        let mut shell = SqliteConnectOptions::new()
            .filename(data.path().join("data").join("firstcome.db"))
            .connect()
            .await
            .unwrap();
        sqlx::query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO coupons (title, per_user_limit, ends_at, status, version, created_at, updated_at,
                                  creation_key, creation_body)
             SELECT 'Coupon ' || i, 1, 1, 'open', 1, 0, 0, 'made-' || i, '' FROM n",
        )
        .bind(coupons)
        .execute(&mut shell)
        .await
        .unwrap();
        Self {
            serving,
            _data: data,
            _turn: turn,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.serving.address)
    }

    /// Returns the cursors of the first pages of the list of ended coupons.
    async fn cursors(&self, client: &Client) -> Vec<String> {
        let (mut cursors, mut query) = (Vec::new(), String::new());
        while cursors.len() < 300 {
            let path = format!("/v1/coupons?phase=ended&limit=20{query}");
            let page: Value = get(client, &self.url(&path)).await.1;
            let next = page["next_cursor"].as_str().expect("a further page").to_owned();
            query = format!("&cursor={next}");
            cursors.push(next);
        }
        cursors
    }

    /// Returns how many lists were refused for this reason.
    async fn refused(&self, client: &Client, reason: &str) -> f64 {
        let metrics = client.get(self.url("/metrics")).send().await.unwrap();
        let text = metrics.text().await.unwrap();
        let name = format!("coupon_lists_refused_total{{reason=\"{reason}\"}}");
        metric_in(&text, &name)
    }
}

fn client_at(address: IpAddr) -> Client {
    let builder = Client::builder().local_address(address).timeout(LIMIT);
    builder.build().unwrap()
}

async fn get(client: &Client, url: &str) -> (u16, Value) {
    let response = client.get(url).header("X-User-Id", "alice").send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

/// Answers that the listing clients got.
#[derive(Default)]
struct Answers {
    listed: AtomicU64,
    refused: AtomicU64,
    /// Searches that found nothing in the time of a request; a retry goes on.
    unfinished: AtomicU64,
    other: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_that_list_do_not_hold_up_other_reads() {
    let listed = Listed::start().await;
    let reader = client_at(Ipv4Addr::LOCALHOST.into());
    let cursors = Arc::new(listed.cursors(&reader).await);
    let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(Answers::default()));
    let mut listers = tokio::task::JoinSet::new();
    for lister in 0..LISTERS {
        let client = client_at(Ipv4Addr::new(127, 0, 1, lister + 1).into());
        for connection in 0..CONNECTIONS {
            let (client, cursors, over, answers) = (
                client.clone(),
                Arc::clone(&cursors),
                Arc::clone(&over),
                Arc::clone(&answers),
            );
            let base = listed.url("/v1/coupons?limit=20&phase=");
            listers.spawn(async move {
                let mut number = usize::from(lister) * CONNECTIONS + connection;
                while !over.load(Ordering::Relaxed) {
                    number += 7;
                    // Most pages are filled at once; for a rare phase all coupons are examined.
                    let phase = if number.is_multiple_of(3) { "live" } else { "ended" };
                    let url = format!("{base}{phase}&cursor={}", cursors[number % cursors.len()]);
                    let status = client.get(url).send().await.unwrap().status().as_u16();
                    let counter = match status {
                        200 => &answers.listed,
                        429 => &answers.refused,
                        503 => &answers.unfinished,
                        _ => &answers.other,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < STORM {
        let asked = Instant::now();
        let (status, _) = get(&reader, &listed.url("/v1/me/issuances")).await;
        assert_eq!(status, 200);
        took.push(asked.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    listers.join_all().await;
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (listed, refused) = (counted(&answers.listed), counted(&answers.refused));
    let unfinished = counted(&answers.unfinished);
    println!(
        "{listed} lists, {refused} refused, {unfinished} unfinished; {} other reads took {median:?}, at most {longest:?}",
        took.len()
    );
    assert_eq!(counted(&answers.other), 0);
    assert!(listed > 100, "{listed} lists");
    // The median is below 1 ms. If searches did not take turns, it would be above 150 ms.
    assert!(median < Duration::from_millis(50), "{median:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_too_many_lists_at_once_is_refused_and_others_are_not() {
    let listed = Listed::start().await;
    let (greedy, other) = (
        client_at(Ipv4Addr::LOCALHOST.into()),
        client_at(Ipv4Addr::new(127, 0, 0, 2).into()),
    );
    // Each title gives another list, and each search examines all coupons.
    let number = AtomicU64::new(0);
    let list = async |client: &Client| {
        let title = number.fetch_add(1, Ordering::Relaxed);
        get(client, &listed.url(&format!("/v1/coupons?title=none-{title}"))).await
    };
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "nothing was refused");
        let (answers, of_other) = tokio::join!(
            futures_util::future::join_all((0..60).map(|_| list(&greedy))),
            list(&other)
        );
        assert_eq!(of_other.0, 200, "{of_other:?}");
        let refused: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
        for (status, problem) in &refused {
            assert_eq!((*status, &problem["code"]), (429, &"RATE_LIMITED".into()));
        }
        if !refused.is_empty() && refused.len() < answers.len() {
            break;
        }
    }
    assert!(listed.refused(&greedy, "client").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_that_find_nothing_end_and_hold_up_no_list_without_a_filter() {
    // More than a node searches at the same time, each for another title that no coupon has.
    const SEARCHES: u32 = 300;
    let listed = Listed::start_with(25 * COUPONS, &["--set", "limits.client_lists=1000"]).await;
    let searcher = client_at(Ipv4Addr::LOCALHOST.into());
    let reader = client_at(Ipv4Addr::new(127, 0, 0, 2).into());
    let search = async |number: u32| {
        let url = listed.url(&format!("/v1/coupons?title=none-{number}"));
        get(&searcher, &url).await
    };
    let begun = Instant::now();
    let (status, page) = search(0).await;
    assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(0)));
    // As many as a node searches at the same time take 256 times as long.
    let alone = begun.elapsed();

    let (begun, are_over) = (Instant::now(), AtomicBool::new(false));
    let searches = async {
        futures_util::future::join_all((1..=SEARCHES).map(search)).await;
        are_over.store(true, Ordering::Relaxed);
    };
    let lists = async {
        eventually("all places are taken", async || {
            listed.refused(&reader, "full").await > 0.0
        })
        .await;
        let (mut took, mut query) = (Vec::new(), String::new());
        while !are_over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let (status, page) = get(&reader, &listed.url(&format!("/v1/coupons?limit=20{query}"))).await;
            assert_eq!(status, 200, "{page}");
            took.push(asked.elapsed());
            query = format!(
                "&cursor={}",
                page["next_cursor"].as_str().expect("a further page")
            );
        }
        took
    };
    let ((), mut took) = tokio::join!(searches, lists);
    took.sort();
    let median = took[took.len() / 2];
    // Such a list has one step and waits for no turn. In turn with the searches it would take as long as two
    // of them alone.
    assert!(
        median < alone / 2,
        "{median:?}, and a search alone takes {alone:?}"
    );

    // The clients of the searches are gone, and other searches find places.
    let found = listed.url("/v1/coupons?title=coupon%2099");
    eventually("a search ends with a result", async || {
        get(&reader, &found).await.0 == 200
    })
    .await;
    let (took, limit) = (begun.elapsed(), Duration::from_secs(3) + 60 * alone);
    println!("lists took {median:?}, a search alone {alone:?}; places were free after {took:?}");
    assert!(took < limit, "{took:?} of {limit:?}");
}
