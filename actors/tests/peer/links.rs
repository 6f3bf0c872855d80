//! Links that are made, used, lost in every way, and made again.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use testkit::link_proxy::{LinkMode, LinkProxy};
use testkit::poll::eventually;
use testkit::process::Signal;

use super::node::{Node, both_linked, link, linked_pair};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_link_and_ask_each_other() {
    let (a, b) = linked_pair().await;
    for (asker, owner) in [(&a, &b), (&b, &a)] {
        assert_eq!(
            asker.issue(owner, 1, "first").await,
            json!({"sequence": 1, "key": "first"})
        );
        assert_eq!(
            asker.issue(owner, 1, "second").await,
            json!({"sequence": 2, "key": "second"})
        );
        let other_epoch =
            json!({"do": "ask", "incarnation": owner.incarnation, "coupon": 1, "key": "third", "epoch": 6});
        assert_eq!(asker.ask(other_epoch).await, "Err(Moved)");
        let change = asker
            .ask(json!({"do": "change", "incarnation": owner.incarnation, "coupon": 1}))
            .await;
        assert_eq!(change, "Ok(Ok(Err(StoreUnavailable)))");
        assert!(!asker.refuses(owner).await);
    }
    assert_eq!(a.metric("coupon_peers_up").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_a_full_mesh() {
    let (a, b, c) = tokio::join!(Node::start("a", 1), Node::start("b", 2), Node::start("c", 3));
    a.know(&[(&b, b.port), (&c, c.port)]).await;
    b.know(&[(&a, a.port), (&c, c.port)]).await;
    c.know(&[(&a, a.port), (&b, b.port)]).await;
    for (one, other) in [(&a, &b), (&b, &c), (&a, &c)] {
        both_linked(one, other).await;
        assert_eq!(one.issue(other, one.incarnation, "key").await["sequence"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_share_frames_and_each_request_gets_its_own_answer() {
    let (a, b) = linked_pair().await;
    let crowd = json!({"do": "crowd", "incarnation": b.incarnation, "coupon": 1, "key": "k", "size": 5_000});
    assert_eq!(a.ask(crowd).await, json!({"Issued": 5_000}));
    assert_eq!(a.issue(&b, 1, "last").await["sequence"], 5_001);
    let frames = a.metric("coupon_peer_frame_requests_count").await;
    // The number depends on scheduling.
    assert!(frames < 5_000.0, "{frames} frames for 5001 requests");
    assert_eq!(a.metric("coupon_peer_requests_in_flight").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_news_reach_the_handlers() {
    let (a, b) = linked_pair().await;
    assert_eq!(
        a.ask(json!({"do": "tell_all", "news": "wider"})).await,
        json!([2])
    );
    // A handler that cannot read news does not acknowledge them.
    assert_eq!(
        a.ask(json!({"do": "tell_all", "news": "nonsense", "limit_ms": 500}))
            .await,
        json!([])
    );
    a.ask(json!({"do": "say_to", "incarnation": 2, "news": "for b alone"}))
        .await;
    let said = async |node: &Node, what: &str| {
        node.ask(json!({"do": "said"}))
            .await
            .as_array()
            .unwrap()
            .contains(&what.into())
    };
    eventually("node b has the news", async || {
        said(&b, "1 has news: wider").await && said(&b, "1 has news: for b alone").await
    })
    .await;
    eventually("both answered heartbeats", async || {
        said(&a, "1 asked: what is new for 2").await && said(&b, "2 asked: what is new for 1").await
    })
    .await;
    assert!(a.metric("coupon_peer_round_trip_seconds_count").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_coupon_delays_only_its_own_requests() {
    let (a, b) = tokio::join!(
        Node::start_with("a", 1, json!({"flow_places": 1_000})),
        Node::start("b", 2)
    );
    link(&a, &b).await;
    b.ask(json!({"do": "hold", "coupon": 1})).await;
    let crowd = json!({"do": "crowd", "incarnation": b.incarnation, "coupon": 1, "key": "slow", "size": 1_500, "limit_ms": 15_000});
    let others = async {
        eventually("the window of the coupon is full", async || {
            a.metric("coupon_peer_windows_full_total").await >= 500.0
        })
        .await;
        for number in 0..100 {
            assert_eq!(
                a.issue(&b, 2, &format!("quick-{number}")).await["sequence"],
                number + 1
            );
        }
        assert_eq!(b.ask(json!({"do": "release", "coupon": 1})).await, 1_000);
    };
    let (slow, ()) = tokio::join!(a.ask(crowd), others);
    assert_eq!(slow, json!({"Issued": 1_000, "Err(Overloaded)": 500}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_a_request_on_a_lost_link_is_unknown_and_the_link_comes_back() {
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start("b", 2));
    let proxy = LinkProxy::before(b.port).await;
    a.know(&[(&b, proxy.port())]).await;
    both_linked(&a, &b).await;
    b.ask(json!({"do": "hold", "coupon": 1})).await;
    let cut = async {
        eventually("node b has the request", async || {
            b.ask(json!({"do": "asked", "key": "sent"})).await == 1
        })
        .await;
        proxy.set(LinkMode::Cut);
    };
    let (answer, ()) = tokio::join!(a.issue(&b, 1, "sent"), cut);
    assert_eq!(answer, "Err(Unknown)");
    eventually("node a knows that the link is lost", async || {
        !a.is_linked(&b).await
    })
    .await;
    assert_eq!(a.issue(&b, 1, "unsent").await, "Err(Moved)");
    assert_eq!(b.ask(json!({"do": "asked", "key": "unsent"})).await, 0);
    proxy.set(LinkMode::Pass);
    both_linked(&a, &b).await;
    // The late answer of the older link is dropped.
    assert_eq!(b.ask(json!({"do": "release", "coupon": 1})).await, 1);
    assert_eq!(
        a.issue(&b, 1, "again").await,
        json!({"sequence": 2, "key": "again"})
    );
    assert!(a.metric("coupon_peer_redials_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_silent_peer_ends_and_comes_back() {
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start("b", 2));
    let proxy = LinkProxy::before(b.port).await;
    a.know(&[(&b, proxy.port())]).await;
    both_linked(&a, &b).await;
    proxy.silence_existing();
    let answer = a.issue(&b, 1, "into-the-void").await;
    assert_eq!(answer, "Err(Unknown)");
    // Neither node is ever told that the old connection is gone.
    both_linked(&a, &b).await;
    eventually("both ended the old link", async || {
        a.logged("the peer is silent") == 1
            && b.logged("the peer is silent") + b.logged("the session ended") == 1
    })
    .await;
    both_linked(&a, &b).await;
    assert_eq!(a.issue(&b, 1, "again").await["sequence"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_refuses_connections_and_its_next_incarnation_is_linked() {
    let (mut a, b) = linked_pair().await;
    a.kill().await;
    eventually("the operating system refuses connections", async || {
        !b.is_linked(&a).await && b.refuses(&a).await
    })
    .await;
    assert_eq!(b.issue(&a, 1, "key").await, "Err(Moved)");
    let next = Node::start("a", 3).await;
    next.know(&[(&b, b.port)]).await;
    b.know(&[(&next, next.port)]).await;
    both_linked(&next, &b).await;
    assert_eq!(b.issue(&next, 1, "key").await["sequence"], 1);
    assert!(!b.refuses(&next).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_is_silent_but_does_not_refuse_connections() {
    let (a, b) = linked_pair().await;
    b.signal(Signal::STOP);
    eventually("node a ended the link", async || !a.is_linked(&b).await).await;
    // The node's operating system still accepts connections, so the node does not count as dead.
    for _ in 0..20 {
        assert!(!a.refuses(&b).await);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    b.signal(Signal::CONT);
    both_linked(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_all_its_requests() {
    let (a, b) = linked_pair().await;
    b.ask(json!({"do": "hold", "coupon": 1})).await;
    let stop = async {
        eventually("node b has the request", async || {
            b.ask(json!({"do": "asked", "key": "sent"})).await == 1
        })
        .await;
        a.ask(json!({"do": "stop"})).await;
    };
    let (answer, ()) = tokio::join!(a.issue(&b, 1, "sent"), stop);
    assert_eq!(answer, "Err(Unknown)");
    assert_eq!(a.issue(&b, 1, "late").await, "Err(Moved)");
    eventually("node b knows that the link is lost", async || {
        !b.is_linked(&a).await
    })
    .await;
    // No listener is left that could accept connections meant for the node's next incarnation.
    eventually("the port is closed", async || {
        TcpStream::connect(("127.0.0.1", a.port)).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_exits_if_its_hub_ends() {
    let (mut a, b) = linked_pair().await;
    a.say(&json!({"do": "kill_hub", "id": 0})).await;
    assert_eq!(a.ends().await, Some(70));
    eventually("node b knows that the link is lost", async || {
        !b.is_linked(&a).await && b.refuses(&a).await
    })
    .await;
}
