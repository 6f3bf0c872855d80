//! Links over TLS: both sides present certificates of one authority.

use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::on_each_server;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::servers::{Server, ServerKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::Stage;

/// The first byte of a TLS server's answer to plain text: an alert.
const ALERT: u8 = 0x15;

/// Far longer than an answer takes.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes three files: an authority's certificate, a certificate for nodes on loopback, and the key of that
/// certificate.
fn files(folder: &Path) -> [(&'static str, PathBuf); 3] {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let node = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    [
        ("ca_file", authority.pem()),
        ("certificate_file", node.pem()),
        ("key_file", key.serialize_pem()),
    ]
    .map(|(name, pem)| {
        let path = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        (name, path)
    })
}

async fn nodes_with_certificates_form_one_cluster(kind: ServerKind) {
    let server = Server::shared(kind);
    let folder = tempfile::tempdir().unwrap();
    let keys = files(folder.path()).map(|(name, path)| format!("cluster.tls.{name}={}", path.display()));
    let stage = Stage::on(server, &keys.each_ref().map(String::as_str), false).await;
    for owner in 0..3 {
        let coupon = stage.coupon_of(owner).await;
        for asked in 0..3 {
            stage.until_issued(asked, coupon).await;
        }
    }
    let mut stranger = TcpStream::connect(&stage.members[0].links).await.unwrap();
    stranger
        .write_all(b"in plain text, longer than a record's head")
        .await
        .unwrap();
    let answer = tokio::time::timeout(LIMIT, stranger.read_u8())
        .await
        .expect("an answer");
    assert_eq!(answer.unwrap(), ALERT, "links speak TLS");
    stage.judge().await;
}

on_each_server! { nodes_with_certificates_form_one_cluster }
