//! Nodes that do not fit each other. Their link is refused, and the refusal is logged once and counted. They
//! do not dial again at once, and other links are not disturbed.

use std::time::Duration;

use actors::link::hello::VERSIONS;
use serde_json::{Value, json};

use testkit::poll::eventually;

use super::node::{Node, both_linked};

/// Starts three nodes: `a`, then `b` with this other configuration, and `c`, which fits `a`. Node `a` knows
/// both other nodes. Node `c` shows whether other links are disturbed.
async fn misfits(otherwise: Value) -> (Node, Node, Node) {
    let (a, b, c) = tokio::join!(
        Node::start("a", 1),
        Node::start_with("b", 2, otherwise),
        Node::start("c", 3)
    );
    a.know(&[(&b, b.port), (&c, c.port)]).await;
    b.know(&[(&a, a.port)]).await;
    c.know(&[(&a, a.port)]).await;
    (a, b, c)
}

async fn are_refused(otherwise: Value, reason: &str, line: &str) {
    let (a, b, c) = misfits(otherwise).await;
    both_linked(&a, &c).await;
    eventually("node b refuses the link", async || {
        b.metric(&format!("coupon_peer_refused_total{{reason=\"{reason}\"}}"))
            .await
            == 1.0
    })
    .await;
    eventually("node a knows that it was refused", async || {
        a.metric("coupon_peer_refused_total{reason=\"by_peer\"}").await == 1.0
    })
    .await;
    // If node a did not pause, this would be long enough for many redials.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((a.logged(line), b.logged(line)), (1, 1));
    assert_eq!(a.metric("coupon_peer_redials_total").await, 0.0);
    assert!(!a.is_linked(&b).await && !b.is_linked(&a).await);
    assert_eq!(a.issue(&c, 1, "key").await["sequence"], 1);
    // The operating system of either node still accepts connections.
    assert!(!a.refuses(&b).await && !b.refuses(&a).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_number_of_shards_is_refused() {
    are_refused(json!({"shards": 128}), "shards", "shards by").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_with_the_same_cookie_is_refused() {
    are_refused(json!({"cluster": "other"}), "cluster", "it is of the cluster").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_no_version_in_common_is_refused() {
    are_refused(
        json!({"versions": [VERSIONS[0] + 2, VERSIONS[0] + 1]}),
        "versions",
        "it speaks the link versions",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_release_links_with_this_one() {
    let (a, b, _c) = misfits(json!({"versions": [VERSIONS[0] + 1, VERSIONS[0]]})).await;
    both_linked(&a, &b).await;
    assert_eq!(a.issue(&b, 1, "key").await["sequence"], 1);
    assert_eq!(b.issue(&a, 1, "key").await["sequence"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_cookie_is_refused() {
    let (a, b, c) = misfits(json!({"cookie": "stones"})).await;
    both_linked(&a, &c).await;
    let refused = "coupon_peer_refused_total{reason=\"not_let_in\"}";
    eventually("both noticed", async || {
        a.metric(refused).await >= 1.0 && b.metric(refused).await >= 1.0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let redials = a.metric("coupon_peer_redials_total").await;
    assert!((1.0..12.0).contains(&redials), "{redials} redials in two seconds");
    assert!(a.logged("do both nodes have the same cookie?") > 0);
    assert!(!a.is_linked(&b).await && !b.is_linked(&a).await);
    assert_eq!(a.issue(&c, 1, "key").await["sequence"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_refused_unless_it_is_the_node_of_the_row() {
    let (a, b, c) = tokio::join!(Node::start("a", 1), Node::start("b", 2), Node::start("c", 3));
    // As with a stale row, another incarnation than the expected one answers at the address.
    a.know(&[(&c, b.port)]).await;
    eventually("node a refuses the link", async || {
        a.metric("coupon_peer_refused_total{reason=\"identity\"}").await >= 1.0
    })
    .await;
    assert!(!a.is_linked(&c).await && !a.is_linked(&b).await);
    a.know(&[(&b, b.port), (&c, c.port)]).await;
    both_linked(&a, &b).await;
    both_linked(&a, &c).await;
}
