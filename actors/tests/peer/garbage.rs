//! Connections that do not come from peers, and frames that no peer should send.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use testkit::poll::eventually;

use super::node::{Node, both_linked, link, linked_pair};

/// Time in which a connection must send its first frame.
const FIRST_FRAME_LIMIT: Duration = Duration::from_secs(2);

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

/// A frame with these bytes, as the library under links sends it.
fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_be_bytes()[..], bytes].concat()
}

/// The first frame of a peer named `x@1`.
fn name() -> Vec<u8> {
    frame(b"\x0a\x0a\x0a\x08\x0a\x03x@1\x1a\x01y")
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_strangers_are_counted_and_cause_few_log_lines() {
    let everything = json!({"logs_all_of_links": true});
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start_with("b", 2, everything));
    link(&a, &b).await;
    // The library logs a line for each of these frames if the peer that sends it is not authenticated yet.
    let (node, control) = (frame(&[0x12, 0]), frame(&[0x1a, 0]));
    let floods = [[node.repeat(20_000), control.repeat(20_000)].concat(), name()];
    for number in 0..40 {
        let mut stream = TcpStream::connect(("127.0.0.1", b.port)).await.unwrap();
        let begins = number % 2 == 0;
        let _ = stream.write_all(&floods[usize::from(begins)]).await;
        if begins {
            // The node answers a name with its challenge.
            let answers = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
            assert!(answers.unwrap().is_ok());
            let _ = stream.write_all(&floods[0]).await;
        }
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the node does not hang up");
    }
    eventually("all refusals are counted", async || {
        b.metric("coupon_peer_refused_total{reason=\"handshake\"}").await == 40.0
    })
    .await;
    assert_eq!(b.logged("connection from a peer failed"), 5);
    let frames = b.logged("unauthenticated") + b.logged("framing error");
    assert_eq!(frames, 0, "{}", b.log());
    eventually("the log says how many lines were left out", async || {
        b.logged("further connections from peers failed suppressed=35") == 1
    })
    .await;
    assert_eq!(a.issue(&b, 1, "key").await["sequence"], 1);
    assert!(a.is_linked(&b).await && b.is_linked(&a).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_stall_do_not_keep_peers_out() {
    let (a, b) = tokio::join!(Node::start("a", 1), Node::start("b", 2));
    let (begun, mut stalled) = (Instant::now(), Vec::new());
    for number in 0..80 {
        let mut stream = TcpStream::connect(("127.0.0.1", b.port)).await.unwrap();
        // Some connections send nothing at all, some a first byte, and some the first frame.
        let sent: &[u8] = match number % 3 {
            0 => &[],
            1 => &[0],
            _ => &name(),
        };
        // The node may have cut it already.
        let _ = stream.write_all(sent).await;
        stalled.push(stream);
    }
    link(&a, &b).await;
    // No place was free because its time was over.
    assert!(begun.elapsed() < FIRST_FRAME_LIMIT, "{:?}", begun.elapsed());
    for mut stream in stalled {
        let hung_up = async { while stream.read_u8().await.is_ok() {} };
        let hung_up = tokio::time::timeout(Duration::from_secs(10), hung_up).await;
        assert!(hung_up.is_ok(), "the node does not hang up");
    }
    assert!(b.metric("coupon_peer_refused_total{reason=\"crowded\"}").await >= 64.0);
    // Connections that have begun their handshake give way last.
    eventually("the others are cut in time", async || {
        b.metric("coupon_peer_refused_total{reason=\"late\"}").await >= 1.0
    })
    .await;
    assert_eq!(b.logged("are not links yet"), 5);
    both_linked(&a, &b).await;
}

/// Connects to a node from an address of this machine.
async fn connect_from(address: Ipv4Addr, node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    let node = SocketAddr::from((Ipv4Addr::LOCALHOST, node.port));
    socket.connect(node).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_no_place_of_a_member() {
    // "a" is a member for "b", and its address is 127.0.0.1.
    let (_a, b) = linked_pair().await;
    for crowd in 1..=5 {
        let mut member = connect_from(Ipv4Addr::LOCALHOST, &b).await;
        let begun = Instant::now();
        let mut strangers = Vec::new();
        for number in 0..8 * 16 {
            strangers.push(connect_from(Ipv4Addr::new(127, 0, crowd, 1 + number / 16), &b).await);
        }
        // There are 64 places, and a stranger that does not give way is cut later.
        let refused = f64::from(crowd) * 65.0;
        eventually("strangers give way", async || {
            b.metric("coupon_peer_refused_total").await >= refused
        })
        .await;
        // Of all silent connections it is the oldest.
        let _ = member.write_all(&name()).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), member.read_u8()).await;
        if answer.is_ok_and(|answer| answer.is_ok()) {
            return;
        }
        // On a busy machine it may have been too late.
        assert!(begun.elapsed() > FIRST_FRAME_LIMIT, "the member was cut");
    }
    panic!("the machine is too slow to tell");
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
        eventually("node b has the request", async || {
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
