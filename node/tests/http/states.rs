//! Lists of issuances by state, with quotes and with the coupon.

use std::collections::BTreeMap;

use actors::time::timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::support::{Reply, TestNode, send};
use crate::uses::{Shop, order};

const STATES: [&str; 6] = ["issued", "reserved", "redeemed", "revoked", "expired", "usable"];

/// Gets a path as an administrator, and as Alice where the list is that of the user.
pub async fn get(node: &TestNode, path: &str) -> Reply {
    let request = match path.starts_with("/v1/me/") {
        true => node.request(Method::GET, path).header("X-User-Id", "alice"),
        false => node.admin(Method::GET, path),
    };
    send(request).await
}

pub fn ids(list: &Reply) -> Vec<String> {
    assert_eq!(list.status, 200, "{list:?}");
    let items = list.body["items"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The three lists of issuances.
pub fn lists(coupon: u64) -> [String; 3] {
    [
        "/v1/me/issuances".to_owned(),
        "/v1/issuances?user_id=alice".to_owned(),
        format!("/v1/coupons/{coupon}/issuances"),
    ]
}

pub fn with(path: &str, parameter: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}{parameter}")
}

#[tokio::test]
async fn every_list_by_state_shows_at_once_what_was_answered() {
    let shop = Shop::open(json!({"per_user_limit": null})).await;
    let path = shop.issue("alice").await;
    let id = path.rsplit('/').next().unwrap().to_owned();
    let steps: [(&str, Value, &str); 8] = [
        ("reserve", order("a", 20_000), "reserved"),
        ("release", json!({"order_id": "a"}), "issued"),
        ("redeem", order("b", 20_000), "redeemed"),
        ("refund", json!({"order_id": "b"}), "issued"),
        ("reserve", order("c", 20_000), "reserved"),
        ("redeem", json!({"order_id": "c"}), "redeemed"),
        ("refund", json!({"order_id": "c"}), "issued"),
        ("revoke", json!({}), "revoked"),
    ];
    for (step, body, state) in steps {
        let reply = shop.post(&path, step, body).await;
        assert_eq!(
            (reply.status, &reply.body["state"]),
            (200, &json!(state)),
            "{step}"
        );
        for list in lists(shop.coupon) {
            for asked in STATES {
                let shown = get(&shop.node, &with(&list, &format!("state={asked}"))).await;
                let is_in = asked == state || (asked == "usable" && state == "issued");
                let expected: &[&str] = if is_in { &[&id] } else { &[] };
                assert_eq!(ids(&shown), expected, "{list} {asked} after {step}");
                assert_eq!(shown.body["next_cursor"], Value::Null);
            }
        }
    }
}

#[tokio::test]
async fn a_hold_that_lapses_is_issued_and_an_end_of_use_that_passes_is_expired() {
    let end = timestamp().plus_seconds(2);
    let shop = Shop::open(json!({"per_user_limit": null, "use_until": end.to_string()})).await;
    let lapsing = shop.issue("alice").await;
    let expiring = shop.issue("alice").await;
    let body = json!({"order_id": "a", "order_amount": 20_000, "hold": 1});
    assert_eq!(shop.post(&lapsing, "reserve", body).await.status, 200);
    let by_state = async || {
        let mut found = BTreeMap::new();
        for state in STATES {
            let list = get(&shop.node, &format!("/v1/me/issuances?state={state}")).await;
            for item in list.body["items"].as_array().unwrap() {
                assert!(item["state"] == state || state == "usable", "{item}");
            }
            found.insert(state, ids(&list).len());
        }
        found.into_values().collect::<Vec<_>>()
    };
    // Expired, issued, redeemed, reserved, revoked, usable.
    let mut seen = vec![by_state().await];
    testkit::poll::within(crate::support::LIMIT, "both have expired", async || {
        let next = by_state().await;
        let is_over = next == [2, 0, 0, 0, 0, 0];
        seen.push(next);
        is_over
    })
    .await;
    assert_eq!(seen[0], [0, 1, 0, 1, 0, 1], "{seen:?}");
    assert!(seen.contains(&vec![0, 2, 0, 0, 0, 2]), "{seen:?}");
    assert_eq!(get(&shop.node, &expiring).await.body["status"], "issued");
}

#[tokio::test]
async fn each_issuance_of_a_list_has_its_quote_and_its_coupon_where_asked() {
    let shop = Shop::open(json!({"per_user_limit": null})).await;
    let other = shop
        .node
        .coupon(json!({"discount": {"kind": "amount", "value": 7}}))
        .await;
    let (first, second) = (shop.issue("alice").await, shop.issue("alice").await);
    let third = shop
        .node
        .issue("alice", other)
        .await
        .header("location")
        .to_owned();
    shop.post(&second, "reserve", order("a", 20_000)).await;
    for list in lists(shop.coupon) {
        let plain = get(&shop.node, &list).await;
        for item in plain.body["items"].as_array().unwrap() {
            assert_eq!((item.get("quote"), item.get("coupon")), (None, None), "{list}");
        }
        for amount in [0, 9_999, 20_001] {
            let quoted = get(&shop.node, &with(&list, &format!("order_amount={amount}"))).await;
            for item in quoted.body["items"].as_array().unwrap() {
                let id = item["id"].as_str().unwrap();
                let quote = format!("/v1/issuances/{id}/quote?order_amount={amount}");
                assert_eq!(
                    item["quote"],
                    get(&shop.node, &quote).await.body,
                    "{id} in {list}"
                );
                assert_eq!(item.get("coupon"), None);
            }
        }
        let whole = get(&shop.node, &with(&list, "expand=coupon&order_amount=20001")).await;
        for item in whole.body["items"].as_array().unwrap() {
            let coupon = shop.node.get(&format!("/v1/coupons/{}", item["coupon_id"])).await;
            assert_eq!(item["coupon"]["id"], item["coupon_id"]);
            for field in [
                "title",
                "discount",
                "min_order_amount",
                "version",
                "created_at",
                "issued",
            ] {
                assert_eq!(item["coupon"][field], coupon.body[field], "{field}");
            }
            assert!(item["quote"].is_object());
        }
        let expected = match list.contains("/coupons/") {
            true => vec![&first, &second],
            false => vec![&third, &second, &first],
        };
        let paths: Vec<String> = ids(&whole)
            .iter()
            .map(|id| format!("/v1/issuances/{id}"))
            .collect();
        assert_eq!(paths.iter().collect::<Vec<_>>(), expected, "{list}");
    }
}

#[tokio::test]
async fn wrong_values_of_a_lists_parameters_are_named() {
    let shop = Shop::open(json!({})).await;
    for list in lists(shop.coupon) {
        for (query, fields) in [
            ("state=open", vec!["state"]),
            ("state=", vec!["state"]),
            ("state=Issued", vec!["state"]),
            ("order_amount=-1", vec!["order_amount"]),
            ("order_amount=1.5", vec!["order_amount"]),
            ("order_amount=9007199254740992", vec!["order_amount"]),
            ("expand=user", vec!["expand"]),
            ("expand=coupon,user", vec!["expand"]),
            (
                "state=x&order_amount=y&expand=z",
                vec!["state", "order_amount", "expand"],
            ),
            ("usable=true", vec!["usable"]),
        ] {
            get(&shop.node, &with(&list, query)).await.assert_invalid(&fields);
        }
    }
}

/// Opens the database of a running node, to store rows that would take long to store over HTTP.
async fn shell(node: &TestNode) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(node.database());
    options
        .busy_timeout(crate::support::LIMIT)
        .connect()
        .await
        .unwrap()
}

/// Stores this many issuances of a coupon, of which all but those with these sequences are redeemed. `user`
/// is an expression of the number `n`.
async fn store_redeemed(node: &TestNode, coupon: u64, count: u32, user: &str, but: &[u32]) {
    let mut shell = shell(node).await;
    let but: Vec<String> = but.iter().map(u32::to_string).collect();
    let numbers = format!(
        "WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
    );
    let issuances = format!(
        "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         {numbers} SELECT {coupon}, n, {user}, n, 'key-' || n, 1700000000000000 + n FROM numbers"
    );
    let uses = format!(
        "INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, returns,
                           author, used_at, reserved, redeemed, revoked, returned)
         {numbers} SELECT {coupon}, row_number() OVER (ORDER BY n), n, 'redeemed', 'order-' || n, 20000, 3000,
                          0, 'key:shop', 1700000000000000 + n, 0, row_number() OVER (ORDER BY n), 0, 0
                     FROM numbers WHERE n NOT IN ({})",
        but.join(",")
    );
    for statement in [issuances, uses] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut shell)
            .await
            .unwrap();
    }
    shell.close().await.unwrap();
}

#[tokio::test]
async fn one_usable_issuance_of_ten_thousand_is_on_the_first_page() {
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({"per_user_limit": null})).await;
    store_redeemed(&node, coupon, 10_000, "'alice'", &[17]).await;
    for list in lists(coupon) {
        let usable = get(&node, &with(&list, "state=usable&limit=1&order_amount=20000")).await;
        assert_eq!(ids(&usable), [format!("{coupon}-17")], "{list}");
        assert_eq!(usable.body["next_cursor"], Value::Null, "{list}");
        assert_eq!(usable.body["items"][0]["quote"]["usable"], true);
    }
    // The other pages are full, and their cursors go on without a gap.
    for list in lists(coupon) {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(&node, &with(&list, &format!("state=redeemed&limit=200{cursor}"))).await;
            let found = ids(&page);
            seen.extend(
                found
                    .iter()
                    .map(|id| id.rsplit('-').next().unwrap().parse::<u32>().unwrap()),
            );
            match page.body["next_cursor"].as_str() {
                Some(next) => {
                    assert_eq!(found.len(), 200, "{list}");
                    cursor = format!("&cursor={next}");
                }
                None => break,
            }
        }
        seen.sort_unstable();
        let expected: Vec<u32> = (1..=10_000).filter(|n| *n != 17).collect();
        assert!(seen == expected, "{list} shows {} issuances", seen.len());
    }
}

/// The list of a user with so many issuances takes several steps for each page: within a coupon of which the
/// user has very many, and through the other coupons.
#[tokio::test]
async fn the_list_of_a_user_with_very_many_issuances_is_whole() {
    const COUNT: u32 = 10_500;
    let node = TestNode::start().await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let coupon = node.coupon(json!({})).await;
        others.push(node.issue("alice", coupon).await.body["id"].clone());
    }
    let coupon = node.coupon(json!({"per_user_limit": null})).await;
    store_redeemed(&node, coupon, COUNT, "'alice'", &[17, 9_000]).await;
    others.reverse();
    // The other coupons were issued later.
    let mut usable = others.clone();
    usable.extend([9_000, 17].map(|sequence| json!(format!("{coupon}-{sequence}"))));
    for list in &lists(coupon)[..2] {
        let query = with(list, "state=usable&order_amount=20000&expand=coupon");
        let all = get(&node, &query).await;
        all.assert_list("id", &usable, false);
        for item in all.body["items"].as_array().unwrap() {
            assert_eq!(item["coupon"]["id"], item["coupon_id"]);
            assert_eq!(item["quote"]["usable"], true);
        }
        let first = get(&node, &format!("{query}&limit=3")).await;
        first.assert_list("id", &usable[..3], true);
        let rest = get(&node, &format!("{query}&limit=3&cursor={}", first.next_cursor())).await;
        rest.assert_list("id", &usable[3..], false);
        let first = get(&node, &with(list, "limit=4")).await;
        let newest = [COUNT, COUNT - 1].map(|sequence| json!(format!("{coupon}-{sequence}")));
        first.assert_list("id", &[&others[..], &newest].concat(), true);
        let next = get(
            &node,
            &with(list, &format!("limit=200&cursor={}", first.next_cursor())),
        )
        .await;
        let expected = (0..200).map(|back| json!(format!("{coupon}-{}", COUNT - 2 - back)));
        next.assert_list("id", &expected.collect::<Vec<_>>(), true);
    }
    let of_coupon = get(
        &node,
        &format!("/v1/me/issuances?coupon_id={coupon}&state=usable"),
    )
    .await;
    of_coupon.assert_list("id", &usable[2..], false);
}

/// A list of a whole coupon by state takes several steps, and fills its page however far apart the issuances
/// are.
#[tokio::test]
async fn a_list_of_a_whole_coupon_by_state_fills_its_pages() {
    const COUNT: u32 = 30_000;
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({})).await;
    let usable = [3, 9_000, 9_001, 21_000, COUNT];
    store_redeemed(&node, coupon, COUNT, "'user-' || n", &usable).await;
    let list = format!("/v1/coupons/{coupon}/issuances?state=usable");
    let expected: Vec<String> = usable.iter().map(|n| format!("{coupon}-{n}")).collect();
    let all = get(&node, &list).await;
    assert_eq!(
        (ids(&all), &all.body["next_cursor"]),
        (expected.clone(), &Value::Null)
    );
    let first = get(&node, &format!("{list}&limit=3")).await;
    assert_eq!(ids(&first), expected[..3]);
    let rest = get(&node, &format!("{list}&limit=3&cursor={}", first.next_cursor())).await;
    assert_eq!(
        (ids(&rest), &rest.body["next_cursor"]),
        (expected[3..].to_vec(), &Value::Null)
    );
    let after = get(&node, &format!("{list}&after_sequence=9001")).await;
    assert_eq!(ids(&after), expected[3..]);
    let of_user = get(&node, &format!("{list}&user_id=user-9000")).await;
    assert_eq!(ids(&of_user), expected[1..2]);
    let unknown = get(&node, "/v1/coupons/9007199254740991/issuances?state=usable").await;
    unknown.assert_refused(404, "UNKNOWN_COUPON");
}
