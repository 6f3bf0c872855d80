//! Pages whose items have long texts: they are bounded, and together they are the whole list.

use serde_json::{Value, json};

use crate::states::{get, ids, lists, with};
use crate::support::TestNode;

/// Maximum size of a page with more than one item.
const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Number of items. Together they have more bytes than one address may have of the least
/// `limits.unsent_bytes_max`.
const ITEMS: usize = 60;

async fn start() -> TestNode {
    TestNode::start_with(&[("limits.unsent_bytes_max", "2097152")]).await
}

/// The fields of a coupon that takes nearly as many bytes as one request can carry.
fn long_texts() -> Value {
    let metadata: serde_json::Map<String, Value> = (0..14)
        .map(|number| (format!("key-{number}"), json!("x".repeat(500))))
        .collect();
    json!({"description": "\u{1f39f}".repeat(2_000), "metadata": metadata, "per_user_limit": null})
}

/// Lists page by page. Returns the items of each page.
async fn pages(node: &TestNode, path: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(node, &format!("{path}{cursor}")).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        let bytes: usize = page.header("content-length").parse().unwrap();
        assert!(bytes <= PAGE_BYTES_MAX, "{path}: {bytes} bytes");
        let items = page.body["items"].as_array().unwrap().clone();
        assert!(!items.is_empty(), "{path}");
        pages.push(items);
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn a_page_of_issuances_with_long_coupons_ends_early_and_the_list_goes_on() {
    let node = start().await;
    let texts = long_texts();
    let coupon = node.coupon(texts.clone()).await;
    for _ in 0..ITEMS {
        assert_eq!(node.issue("alice", coupon).await.status, 201);
    }
    for list in lists(coupon) {
        let all = ids(&get(&node, &with(&list, "limit=200")).await);
        assert_eq!(all.len(), ITEMS, "{list}");
        for query in ["expand=coupon&limit=200", "expand=coupon&limit=200&state=usable"] {
            let pages = pages(&node, &with(&list, query)).await;
            assert!(pages.len() > 1, "{list}");
            let items: Vec<&Value> = pages.iter().flatten().collect();
            let shown: Vec<&Value> = items.iter().map(|item| &item["id"]).collect();
            assert_eq!(shown, all.iter().collect::<Vec<_>>(), "{list} {query}");
            for item in items {
                for field in ["description", "metadata"] {
                    assert_eq!(item["coupon"][field], texts[field]);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_long_coupons_ends_early_and_the_list_goes_on() {
    let node = start().await;
    let mut all = Vec::new();
    for _ in 0..ITEMS {
        all.insert(0, json!(node.coupon(long_texts()).await));
    }
    for query in [
        "limit=200",
        "limit=50",
        "limit=200&phase=live",
        "limit=200&title=black",
    ] {
        let pages = pages(&node, &format!("/v1/coupons?{query}")).await;
        assert!(pages.len() > 1, "{query}");
        let shown: Vec<&Value> = pages.iter().flatten().map(|item| &item["id"]).collect();
        assert_eq!(shown, all.iter().collect::<Vec<_>>(), "{query}");
    }
    // A short page is not cut.
    let first = node.get("/v1/coupons?limit=3").await;
    first.assert_list("id", &all[..3], true);
}

#[tokio::test]
async fn a_page_of_long_changes_ends_early_and_the_list_goes_on() {
    let node = start().await;
    let coupon = node.coupon(long_texts()).await;
    for number in 0..ITEMS {
        let mut patch = long_texts();
        patch.as_object_mut().unwrap().remove("per_user_limit");
        patch["min_order_amount"] = json!(number);
        assert_eq!(node.patch(coupon, patch).await.status, 200);
    }
    let pages = pages(&node, &format!("/v1/coupons/{coupon}/changes?limit=200")).await;
    assert!(pages.len() > 1);
    let versions: Vec<u64> = pages
        .iter()
        .flatten()
        .map(|change| change["version"].as_u64().unwrap())
        .collect();
    assert!(versions.iter().copied().eq(1..=ITEMS as u64 + 1), "{versions:?}");
}
