//! Mutual TLS between nodes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::poll::eventually;

use super::node::{Node, link};

/// Makes an authority, and a certificate that the authority signed for nodes on loopback. Returns three
/// files: the authority, the certificate, and the key of the certificate.
fn authority(folder: &Path, name: &str) -> (PathBuf, PathBuf, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let node = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let write = |what: &str, pem: String| {
        let path = folder.join(format!("{name}-{what}.pem"));
        std::fs::write(&path, pem).unwrap();
        path
    };
    (
        write("authority", authority.pem()),
        write("node", node.pem()),
        write("key", key.serialize_pem()),
    )
}

fn tls((authority, certificate, key): (&Path, &Path, &Path)) -> Value {
    json!({"tls": [authority, certificate, key]})
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_with_certificates_of_the_same_authority_are_linked() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (
        authority(folder.path(), "ours"),
        authority(folder.path(), "theirs"),
    );
    let right = tls((&ours.0, &ours.1, &ours.2));
    // Node c trusts our authority and so would accept our nodes, but its own certificate is from another
    // authority.
    let wrong = tls((&ours.0, &theirs.1, &theirs.2));
    let (a, b, c) = tokio::join!(
        Node::start_with("a", 1, right.clone()),
        Node::start_with("b", 2, right.clone()),
        Node::start_with("c", 3, wrong)
    );
    link(&a, &b).await;
    assert_eq!(a.issue(&b, 1, "key").await["sequence"], 1);
    a.know(&[(&b, b.port), (&c, c.port)]).await;
    let refused = "coupon_peer_refused_total{reason=\"handshake\"}";
    eventually("node a refuses c as a server", async || {
        a.metric(refused).await >= 1.0
    })
    .await;
    // Node d must refuse c as a client: d has the larger id, so c dials d.
    let d = Node::start_with("d", 4, right).await;
    c.know(&[(&d, d.port)]).await;
    eventually("node d refuses c as a client", async || {
        d.metric(refused).await >= 1.0
    })
    .await;
    assert!(!a.is_linked(&c).await && !c.is_linked(&d).await && !d.is_linked(&c).await);
    assert!(a.is_linked(&b).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_does_not_keep_peers_out() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority(folder.path(), "ours");
    let right = tls((&ours.0, &ours.1, &ours.2));
    let (a, b) = tokio::join!(
        Node::start_with("a", 1, right.clone()),
        Node::start_with("b", 2, right)
    );
    let mut stalled = TcpStream::connect(("127.0.0.1", b.port)).await.unwrap();
    // Only the first byte of a TLS record is sent.
    stalled.write_all(&[22]).await.unwrap();
    link(&a, &b).await;
    let hung_up = tokio::time::timeout(Duration::from_secs(10), stalled.read_to_end(&mut Vec::new())).await;
    assert!(hung_up.is_ok(), "the node does not hang up");
    assert!(a.is_linked(&b).await);
}
