use super::*;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use actors::cluster::membership::life_record::LifeRecord;
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::offer::{Offer, Status};
use actors::coupon::uses::{UseNumber, UseState};
use actors::engine::Options;
use actors::ids::{Author, AuthorKind, RequestKey, UserId};
use actors::store::sqlite::{self, SqliteStore};
use actors::time::{self, Timestamp};
use actors::trace::Spans;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;

use super::auth::{KeyRing, UserSource};
use super::engine::{CouponFilter, NewCoupon, StatisticsQuery, UserCursor};
use super::issuance_lists::{Examined, IssuanceListOptions, ListKey, Requester};
use super::list::PAGE_BYTES_MAX;
use super::store_calls::STORE_CALLS_MAX;
use super::user_lists::{PageKey, Reached};
use crate::api::routes;
use crate::http::listener::{self, Listener};

fn service(config: &Config) -> Arc<Service> {
    let users = UserSource::new(&config.auth).unwrap();
    let keys = KeyRing::new(&SecretString::from("token"), None).unwrap();
    let authenticator = Authenticator::new(keys, users);
    Arc::new(Service::new(NodeId::random(), authenticator, config))
}

async fn listen(service: &Arc<Service>) -> Listener {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    Listener::serve(socket, routes(Arc::clone(service)), listener::Options::default()).unwrap()
}

/// Sends a request with the credentials of an administrator and of a user.
async fn send(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request
        .bearer_auth("token")
        .header("X-User-Id", "alice")
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn reads_beyond_the_limit_are_refused_until_a_read_ends() {
    let config = Config::default();
    let service = service(&config);
    let (release, released) = tokio::sync::watch::channel(false);
    let blocked = |_| {
        let (service, mut released) = (Arc::clone(&service), released.clone());
        let reading = async move {
            released
                .wait_for(|released| *released)
                .await
                .map(drop)
                .map_err(|_| unreachable!())
        };
        tokio::spawn(async move { service.read(reading).await })
    };
    let waiting: Vec<_> = (0..STORE_CALLS_MAX).map(blocked).collect();
    let full = async {
        while service.store_calls.0.taken() < STORE_CALLS_MAX {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(config.http.deadline / 2, full)
        .await
        .expect("each read takes a permit");
    let is_overloaded = |result| matches!(result, Err(Error::Setback(Setback::Overloaded)));
    assert!(is_overloaded(service.read(async { Ok(()) }).await));
    let shared = service.store_calls.run(async { Ok(()) });
    assert!(is_overloaded(service.await_read(shared).await));
    release.send_replace(true);
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_ok());
    }
    assert!(service.read(async { Ok(()) }).await.is_ok());
    assert!(service.store_calls.run(async { Ok(()) }).await.is_ok());
    assert_eq!(service.store_calls.0.taken(), 0);
}

/// Starts an engine over a file in this folder.
async fn start_engine(service: &Service, config: &Config, folder: &Path) {
    let options = Options {
        node: service.node.clone(),
        http: String::new(),
        lease: config.cluster.lease,
        beat: config.cluster.beat,
        idle: Duration::from_secs(300),
        requests_max: config.limits.requests_max,
        owner_requests_max: config.limits.coupon_requests_max,
        record: LifeRecord::default(),
        lanes: 1,
        cluster: None,
        spans: Spans::default(),
    };
    let store = SqliteStore::open(&sqlite::Options::new(folder.join("test.db")))
        .await
        .unwrap();
    let store = Arc::new(store);
    let engine = CouponEngine::start(options, store.clone(), store).await.unwrap();
    service.set_engine(engine);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_store_is_refused_at_the_limit() {
    let (config, folder) = (Config::default(), tempfile::tempdir().unwrap());
    let service = service(&config);
    start_engine(&service, &config, folder.path()).await;
    let listener = listen(&service).await;
    let permits: Vec<_> = (0..STORE_CALLS_MAX)
        .map(|_| service.store_calls.0.admit().unwrap())
        .collect();
    let client = reqwest::Client::new();
    let second_page = format!("coupons?cursor={}", {
        use super::list::Cursor;
        CouponId::parse("5").unwrap().encode()
    });
    for path in [
        "coupons",
        &second_page,
        "coupons/1",
        "coupons/1/issuances",
        "me/issuances",
        "issuances/1-1",
        "cluster",
        "cluster/coupons/1",
    ] {
        let (status, body) = send(client.get(format!("http://{}/v1/{path}", listener.address()))).await;
        assert_eq!(
            (status, &body["code"], &body["applied"]),
            (503, &json!("OVERLOADED"), &json!(false)),
            "{path}"
        );
    }
    let create = || {
        client
            .post(format!("http://{}/v1/coupons", listener.address()))
            .json(&json!({"title": "T", "total_quantity": null}))
    };
    let (status, body) = send(create()).await;
    assert_eq!(
        (status, &body["code"], &body["applied"]),
        (503, &json!("OVERLOADED"), &json!(false))
    );
    drop(permits);
    assert_eq!(send(create()).await.0, 201);
}

#[tokio::test]
async fn an_abandoned_read_counts_until_it_ends() {
    let mut config = Config::default();
    config.http.deadline = Duration::from_millis(10);
    let service = service(&config);
    let (release, mut released) = tokio::sync::watch::channel(false);
    let blocked = async move {
        released
            .wait_for(|released| *released)
            .await
            .map(drop)
            .map_err(|_| unreachable!())
    };
    let result = tokio::time::timeout(Duration::from_secs(10), service.read(blocked))
        .await
        .expect("the request waits no longer than the deadline");
    assert!(matches!(result, Err(Error::Setback(Setback::StoreUnavailable))));
    assert_eq!(
        service.store_calls.0.taken(),
        1,
        "the store still works on the read"
    );
    release.send_replace(true);
    while service.store_calls.0.taken() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A computation of statistics that waits for another one gives its places back when its request has ended.
#[tokio::test(flavor = "multi_thread")]
async fn statistics_wait_for_other_computations_no_longer_than_their_request() {
    let (mut config, folder) = (Config::default(), tempfile::tempdir().unwrap());
    config.http.deadline = Duration::from_millis(50);
    let service = service(&config);
    start_engine(&service, &config, folder.path()).await;
    let query = StatisticsQuery {
        coupon: CouponId::parse("5").unwrap(),
        bucket_micros: 60_000_000,
        from: None,
        to: None,
    };
    let client = IpAddr::from(Ipv4Addr::LOCALHOST);
    let refused = async || {
        let refused = service.statistics(client, query).await;
        assert!(
            matches!(refused, Err(Error::Setback(Setback::StoreUnavailable))),
            "{refused:?}"
        );
        // Far longer than the request.
        let limit = Duration::from_secs(20);
        testkit::poll::within(limit, "nothing waits any more", async || {
            service.store_calls.0.taken() == 0
        })
        .await;
    };
    let other = service.computations.running.acquire().await.unwrap();
    refused().await;
    drop(other);
    // Another request goes on with the same statistics.
    let same = service.computations.computation(&query, time::moment());
    let other = same.so_far.lock().await;
    refused().await;
    drop(other);
}

fn new_coupon(offer: Offer) -> NewCoupon {
    NewCoupon {
        key: RequestKey::random(),
        offer,
        status: Status::Open,
        created_at: time::timestamp(),
        record: None,
    }
}

/// A list of coupons keeps no more coupons than fit on a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_long_coupons_takes_no_more_memory_than_a_page() {
    let (config, folder) = (Config::default(), tempfile::tempdir().unwrap());
    let service = service(&config);
    start_engine(&service, &config, folder.path()).await;
    for _ in 0..40 {
        let offer = Offer {
            description: Some("x".repeat(20_000)),
            ..Offer::titled("Coupon")
        };
        service.create_coupon(new_coupon(offer), "admin").await.unwrap();
    }
    let client = IpAddr::from(Ipv4Addr::LOCALHOST);
    for title in [None, Some("coupon".to_owned())] {
        let filter = CouponFilter { phase: None, title };
        let list = service.coupons(client, filter, None).await.unwrap();
        let bytes = list.bytes();
        assert!(
            bytes > PAGE_BYTES_MAX / 2 && bytes <= PAGE_BYTES_MAX + 1_000,
            "{bytes}"
        );
        let page = list.page(40);
        assert_eq!(page.next, page.items.last().map(|view| view.coupon.id));
    }
}

/// Stores 10,001 issuances of the user `many` and 10,000 of the user `few`.
async fn insert_many_and_few(folder: &Path, coupon: CouponId) {
    let options = SqliteConnectOptions::new().filename(folder.join("test.db"));
    let mut shell = options.connect().await.unwrap();
    let issuances =
        "WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 20001)
         INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         SELECT ?1, n, iif(n <= 10001, 'many', 'few'), iif(n <= 10001, n, n - 10001), 'key', n FROM numbers";
    let inserted = sqlx::query(issuances)
        .bind(i64::try_from(coupon.get()).unwrap())
        .execute(&mut shell)
        .await;
    assert_eq!(inserted.unwrap().rows_affected(), 20_001);
}

/// Starts a service whose users `many` and `few` have very many issuances of a coupon.
async fn of_many_and_few(config: &Config, folder: &Path) -> (Arc<Service>, CouponId) {
    let service = service(config);
    start_engine(&service, config, folder).await;
    let unlimited = Offer {
        per_user_limit: None,
        ..Offer::titled("Coupon")
    };
    let (coupon, _) = service
        .create_coupon(new_coupon(unlimited), "admin")
        .await
        .unwrap();
    insert_many_and_few(folder, coupon.coupon.id).await;
    (service, coupon.coupon.id)
}

fn requester(key: &str) -> Requester {
    Requester {
        address: IpAddr::from(Ipv4Addr::LOCALHOST),
        author: Author::new(AuthorKind::Key, key).unwrap(),
    }
}

/// Takes all places of a client for searches.
fn all_places(service: &Service, config: &Config) -> Vec<coupon_lists::Places> {
    let client = requester("shop").address;
    let places = (0..config.limits.client_lists).map(|_| service.lists.admit(client, true));
    places.collect::<Result<_, _>>().unwrap()
}

/// With a state, all of them are examined.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_a_coupon_and_a_user_with_very_many_of_it_is_a_search() {
    let (config, folder) = (Config::default(), tempfile::tempdir().unwrap());
    let (service, coupon) = of_many_and_few(&config, folder.path()).await;
    let list = async |user: &str, state| {
        let of = (coupon, Some(UserId::parse(user).unwrap()));
        let options = IssuanceListOptions {
            state,
            ..IssuanceListOptions::default()
        };
        let after = Sequence::new(9_995);
        let list = service.issuances_of_coupon(requester("shop"), of, options, after, 10);
        let list = list.await.map(|list| list.page);
        list.map(|page| (page.items.len(), page.next.map(Sequence::get)))
    };
    let (issued, revoked) = (Some(UseState::Issued), Some(UseState::Revoked));
    let places = all_places(&service, &config);
    assert!(matches!(list("few", issued).await, Ok((10, Some(10_011)))));
    assert!(matches!(list("few", revoked).await, Ok((0, None))));
    assert!(matches!(list("many", None).await, Ok((6, None))));
    assert!(matches!(list("many", issued).await, Err(Error::RateLimited(_))));
    drop(places);
    assert!(matches!(list("many", issued).await, Ok((6, None))));
    assert!(matches!(list("many", revoked).await, Ok((0, None))));
}

/// A list that takes several statements counts as a search of its client.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_a_user_with_very_many_issuances_is_a_search() {
    let (config, folder) = (Config::default(), tempfile::tempdir().unwrap());
    let (service, coupon) = of_many_and_few(&config, folder.path()).await;
    let list_for = async |key: &str, user: &str| {
        let user = UserId::parse(user).unwrap();
        let options = IssuanceListOptions::default();
        let list = service.issuances_of_user(requester(key), (user, None), options, None, 10);
        list.await.map(|list| {
            (
                list.page.items.len(),
                list.page.next.map(|next| next.id.sequence.get()),
            )
        })
    };
    let list = async |user| list_for("shop", user).await;
    let places = all_places(&service, &config);
    assert!(matches!(list("few").await, Ok((10, Some(19_992)))));
    assert!(matches!(list("many").await, Err(Error::RateLimited(_))));
    drop(places);
    assert!(matches!(list("many").await, Ok((10, Some(9_992)))));
    // What a search kept whose request was not answered in time is used by the next request of the same
    // principal, and by no other.
    let key = PageKey {
        author: requester("shop").author,
        user: UserId::parse("many").unwrap(),
        coupon: None,
        state: None,
        after: None,
        limit: 10,
    };
    let fifth = UserCursor {
        issued_at: Timestamp::from_micros(5).unwrap(),
        id: IssuanceId {
            coupon,
            sequence: Sequence::new(5),
        },
    };
    let reached = Reached {
        parts: Vec::new(),
        next: None,
        newest: vec![fifth],
        floor: Some(fifth),
    };
    let now = time::moment();
    service.user_progress.keep(&key, reached, now, now);
    assert!(matches!(list_for("bank", "many").await, Ok((10, Some(9_992)))));
    assert!(matches!(list("many").await, Ok((1, Some(5)))));
    assert!(matches!(list("many").await, Ok((10, Some(9_992)))));
}

/// What a search kept whose request was not answered in time is used by the next request of the same principal,
/// and by no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_progress_of_a_list_by_state_is_used_until_the_list_is_answered() {
    let (config, folder) = (Config::default(), tempfile::tempdir().unwrap());
    let (service, coupon) = of_many_and_few(&config, folder.path()).await;
    let key = ListKey {
        author: requester("shop").author,
        coupon,
        user: None,
        state: UseState::Issued,
        after: Sequence::NONE,
    };
    let examined = Examined {
        up_to: Sequence::new(5),
        used: UseNumber::NONE,
    };
    let now = time::moment();
    service.issuance_progress.keep(&key, examined, now, now);
    let options = IssuanceListOptions {
        state: Some(UseState::Issued),
        ..IssuanceListOptions::default()
    };
    for (name, expected) in [("bank", 1), ("shop", 6), ("shop", 1)] {
        let of = (coupon, None);
        let list = service.issuances_of_coupon(requester(name), of, options, Sequence::NONE, 10);
        let first = list.await.unwrap().page.items[0].issuance.id.sequence;
        assert_eq!(first, Sequence::new(expected));
    }
}

#[tokio::test]
async fn a_starting_node_is_alive_and_responds_that_it_cannot_serve() {
    let service = service(&Config::default());
    let listener = listen(&service).await;
    let get = async |path: &str| {
        let request = reqwest::Client::new().get(format!("http://{}{path}", listener.address()));
        send(request).await
    };
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(
        get("/readyz").await,
        (503, json!({"ready": false, "reasons": ["starting"]}))
    );
    for path in [
        "/v1/coupons",
        "/v1/coupons/1",
        "/v1/coupons/1/issuances",
        "/v1/me/issuances",
        "/v1/issuances/1-1",
        "/v1/cluster",
    ] {
        let (status, body) = get(path).await;
        assert_eq!(
            (status, &body["code"], &body["applied"]),
            (503, &json!("STORE_UNAVAILABLE"), &json!(false)),
            "{path}"
        );
    }
    assert_eq!(get("/v1/coupons/x").await.0, 400);
}
