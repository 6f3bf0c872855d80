//! The limit on the connections of one client address.

use std::net::{Ipv4Addr, SocketAddr};

use testkit::poll::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::hostile::metric;
use crate::support::{LIMIT, TestNode};

/// Connects from an address of this machine, with a small buffer for what the node sends.
pub async fn connect_from(last: u8, node: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(own).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(node).await.unwrap()
}

/// Sends a request, and returns the status of the response.
async fn status(stream: &mut TcpStream) -> u16 {
    // A refused connection may be closed before the request is sent.
    let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    if text.starts_with("HTTP/1.1 503 ") {
        assert!(
            text.contains("\"code\":\"OVERLOADED\"") && text.to_lowercase().contains("retry-after: "),
            "{text}"
        );
    }
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_beyond_its_limit_of_connections_is_refused_and_others_are_served() {
    let node = TestNode::start_with(&[("limits.client_connections_max", "2")]).await;
    let (mut first, mut second) = (
        connect_from(2, node.service.address()).await,
        connect_from(2, node.service.address()).await,
    );
    assert_eq!((status(&mut first).await, status(&mut second).await), (200, 200));
    assert_eq!(
        status(&mut connect_from(2, node.service.address()).await).await,
        503
    );
    assert_eq!(
        status(&mut connect_from(3, node.service.address()).await).await,
        200
    );
    assert_eq!(status(&mut first).await, 200, "its other connections stay open");
    drop(second);
    eventually("the client may connect again", async || {
        status(&mut connect_from(2, node.service.address()).await).await == 200
    })
    .await;
    assert!(metric(&node, "coupon_http_client_connections_refused_total").await >= 1.0);
}

#[tokio::test]
async fn one_client_has_half_of_all_connections_by_default() {
    let node = TestNode::start_with(&[("http.connections_max", "6")]).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = connect_from(2, node.service.address()).await;
        assert_eq!(status(&mut stream).await, 200);
        streams.push(stream);
    }
    assert_eq!(
        status(&mut connect_from(2, node.service.address()).await).await,
        503
    );
    assert_eq!(
        status(&mut connect_from(3, node.service.address()).await).await,
        200
    );
}

#[tokio::test]
async fn a_trusted_proxy_has_no_limit_of_its_own() {
    let node = TestNode::start_with(&[
        ("limits.client_connections_max", "1"),
        ("auth.trusted_proxies", "127.0.0.2"),
    ])
    .await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = connect_from(2, node.service.address()).await;
        assert_eq!(status(&mut stream).await, 200);
        streams.push(stream);
    }
    let mut other = connect_from(3, node.service.address()).await;
    assert_eq!(status(&mut other).await, 200);
    assert_eq!(
        status(&mut connect_from(3, node.service.address()).await).await,
        503
    );
}
