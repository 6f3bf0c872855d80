//! Connections that do not come from peers, and frames that no peer should send.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::poll::eventually;

use super::node::{Node, both_linked, link, linked_pair};

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_disturbs_no_link() {
    let (a, b) = linked_pair().await;
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        vec![0; 100_000],
        vec![0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", b.port)).await.unwrap();
        // The node may hang up before everything is written.
        let _ = stream.write_all(&garbage).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the node does not hang up");
        assert_eq!(a.issue(&b, 1, "key").await["key"], "key");
    }
    assert!(b.metric("coupon_peer_refused_total").await >= 4.0);
    assert!(a.is_linked(&b).await && b.is_linked(&a).await);
    assert_eq!(a.metric("coupon_peer_redials_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_stall_do_not_keep_peers_out() {
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start("b", 2));
    let mut stalled = Vec::new();
    for number in 0..40 {
        let mut stream = TcpStream::connect(("127.0.0.1", b.port)).await.unwrap();
        // Some connections send nothing at all, and others send a first byte.
        if number % 2 == 0 {
            stream.write_all(&[0]).await.unwrap();
        }
        stalled.push(stream);
    }
    let begun = Instant::now();
    link(&a, &b).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for mut stream in stalled {
        let hung_up = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
        assert!(hung_up.unwrap().is_err(), "the node does not hang up");
    }
    assert!(b.metric("coupon_peer_refused_total{reason=\"handshake\"}").await >= 20.0);
    assert!(b.metric("coupon_peer_refused_total{reason=\"late\"}").await >= 20.0);
    both_linked(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_frames_are_refused_and_disturb_nothing_else() {
    let (a, b) = linked_pair().await;
    for _ in 0..3 {
        a.ask(json!({"do": "send_bytes", "bytes": [255, 255, 255, 1, 2, 3]}))
            .await;
    }
    eventually("the frames are counted", async || {
        b.metric("coupon_peer_refused_total{reason=\"unreadable\"}").await == 3.0
    })
    .await;
    assert_eq!(b.logged("a frame was refused"), 1);
    assert_eq!(a.issue(&b, 1, "key").await["sequence"], 1);
    assert!(a.is_linked(&b).await && b.is_linked(&a).await);
    assert_eq!(a.metric("coupon_peer_redials_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_an_older_link_are_dropped_and_a_missing_frame_replaces_the_link() {
    let (a, b) = linked_pair().await;
    let frame = |generation: u64, number: u64| json!({"do": "send_frame", "from": 1, "to": 2, "generation": generation, "number": number});
    a.ask(frame(0, 1)).await;
    eventually("the frame is dropped", async || {
        b.metric("coupon_peer_refused_total{reason=\"generation\"}").await == 1.0
    })
    .await;
    assert_eq!(a.issue(&b, 1, "key").await["sequence"], 1);
    assert_eq!(a.metric("coupon_peer_redials_total").await, 0.0);
    b.ask(json!({"do": "hold", "coupon": 1})).await;
    let miss = async {
        eventually("b has the request", async || {
            b.ask(json!({"do": "asked", "key": "lost"})).await == 1
        })
        .await;
        a.ask(frame(1, 1_000_000)).await;
    };
    let (answer, ()) = tokio::join!(a.issue(&b, 1, "lost"), miss);
    assert_eq!(answer, "Err(Unknown)");
    assert_eq!(b.logged("received frame 1000000"), 1);
    both_linked(&a, &b).await;
}
