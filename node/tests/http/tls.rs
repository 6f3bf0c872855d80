//! HTTPS, over real sockets: certificates, their replacement, and stalled handshakes.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::hostile::metric_in;
use crate::process::Serving;
use testkit::poll::eventually;

use crate::support::{ADMIN_TOKEN, LIMIT};

/// Returns a certificate for this name, in PEM, and a server that shows it.
pub fn server(name: &str) -> (String, TlsAcceptor) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    (cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// A certificate and its key, in files.
struct Files {
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = write(&folder);
        Self { folder, certificate }
    }

    fn replace(&mut self) -> CertificateDer<'static> {
        let new = write(&self.folder);
        std::mem::replace(&mut self.certificate, new)
    }

    fn certificate_path(&self) -> PathBuf {
        self.folder.path().join("tls.crt")
    }

    fn settings(&self) -> Vec<String> {
        let files = [("certificate_file", "tls.crt"), ("key_file", "tls.key")];
        let files = files
            .map(|(key, name)| format!("--set=http.tls.{key}={}", self.folder.path().join(name).display()));
        let more = ["http.tls.reload_every=50ms", "http.tls.handshake_timeout=6s"]
            .map(|setting| format!("--set={setting}"));
        files.into_iter().chain(more).collect()
    }
}

fn write(folder: &TempDir) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["shop.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn start(data: &TempDir, files: &Files, more: &[&str]) -> Serving {
    let settings = files.settings();
    let arguments: Vec<&str> = settings
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    Serving::start(data, &arguments)
}

/// Makes a connection that trusts only this certificate.
async fn connect(
    serving: &Serving,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(&serving.address).await?;
    TlsConnector::from(Arc::new(config))
        .connect("shop.example".try_into().unwrap(), stream)
        .await
}

/// Sends a request on a new connection, and returns the whole response.
async fn ask(
    serving: &Serving,
    certificate: &CertificateDer<'static>,
    path: &str,
) -> std::io::Result<String> {
    let mut stream = connect(serving, certificate).await?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()?;
    Ok(answer)
}

#[tokio::test]
async fn a_node_with_a_certificate_serves_https() {
    let (data, files) = (tempfile::tempdir().unwrap(), Files::new());
    let serving = start(&data, &files, &[]);
    assert!(
        ask(&serving, &files.certificate, "/livez")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
    let metrics = ask(&serving, &files.certificate, "/metrics").await.unwrap();
    let expiry = metric_in(
        &metrics,
        r#"coupon_tls_certificate_expiry_timestamp_seconds{listener="http"}"#,
    );
    // The test's certificate expires in the year 4096.
    assert!(expiry > 60e9, "{expiry}");
    let lines: Vec<&String> = serving
        .welcome
        .iter()
        .filter(|line| line.starts_with("curl "))
        .collect();
    assert_eq!(lines.len(), 3, "{:?}", serving.welcome);
    for line in lines {
        let output = Command::new("sh")
            .args(["-c", &format!("{line} --fail --silent --show-error")])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let settings = files.settings();
    let listen = format!("--listen={}", serving.address);
    let arguments: Vec<&str> = ["healthcheck", &listen]
        .into_iter()
        .chain(settings.iter().map(String::as_str))
        .collect();
    let (ok, _, stderr) = crate::process::run(&data, &arguments);
    assert!(ok, "{stderr}");
    // A client without TLS is not served.
    let (ok, _, stderr) = crate::process::run(&data, &["healthcheck", &listen]);
    assert!(!ok, "{stderr}");
}

#[tokio::test]
async fn a_new_certificate_is_loaded_but_an_invalid_certificate_is_not() {
    let (data, mut files) = (tempfile::tempdir().unwrap(), Files::new());
    let serving = start(
        &data,
        &files,
        &["--set", &format!("auth.admin_token={ADMIN_TOKEN}")],
    );
    let mut before = connect(&serving, &files.certificate).await.unwrap();
    let old = files.replace();
    eventually("the new certificate is served", async || {
        ask(&serving, &files.certificate, "/livez").await.is_ok()
    })
    .await;
    assert!(connect(&serving, &old).await.is_err());
    // A connection from before the change stays open.
    before
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    before.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    std::fs::write(files.certificate_path(), "-----BEGIN CERTIFICATE-----\nbroken").unwrap();
    let refused = async || {
        let metrics = ask(&serving, &files.certificate, "/metrics").await.unwrap();
        metric_in(&metrics, r#"coupon_tls_reloads_total{result="refused"}"#)
    };
    eventually("the broken file is noticed", async || refused().await >= 1.0).await;
    assert!(
        ask(&serving, &files.certificate, "/livez")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
    // A certificate and key that do not match are refused as well.
    let before_it = refused().await;
    let other = tempfile::tempdir().unwrap();
    write(&other);
    std::fs::copy(other.path().join("tls.crt"), files.certificate_path()).unwrap();
    eventually("the certificate of another key is noticed", async || {
        refused().await > before_it
    })
    .await;
    assert!(
        ask(&serving, &files.certificate, "/livez")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
    drop(before);
    let log = serving.end().await;
    assert!(
        log.contains("new TLS certificate cannot be used; the old one stays"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_time_out_and_do_not_delay_other_clients() {
    let (data, files) = (tempfile::tempdir().unwrap(), Files::new());
    let serving = start(
        &data,
        &files,
        &["--set", &format!("auth.admin_token={ADMIN_TOKEN}")],
    );
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(&serving.address).await.unwrap();
        // Only the beginning of a handshake is sent.
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        stalled.push(stream);
    }
    let started = Instant::now();
    assert!(
        ask(&serving, &files.certificate, "/livez")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a request waited for the stalled handshakes: {:?}",
        started.elapsed()
    );
    for mut stream in stalled {
        let mut rest = Vec::new();
        // The connection is closed or reset.
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
    let metrics = ask(&serving, &files.certificate, "/metrics").await.unwrap();
    assert!(
        metric_in(
            &metrics,
            r#"coupon_http_connections_cut_total{reason="handshake"}"#
        ) >= 64.0,
        "{metrics}"
    );
}

#[tokio::test]
async fn a_client_that_is_refused_over_tls_can_read_the_response() {
    let (data, files) = (tempfile::tempdir().unwrap(), Files::new());
    let token = format!("--set=auth.admin_token={ADMIN_TOKEN}");
    let serving = start(&data, &files, &[&token, "--set=http.connections_max=1"]);
    let mut only = connect(&serving, &files.certificate).await.unwrap();
    only.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    only.read_u8().await.unwrap();
    let mut more = connect(&serving, &files.certificate).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, more.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ")
            && answer.contains("OVERLOADED")
            && answer.contains("retry-after"),
        "{answer}"
    );
}

#[test]
fn invalid_certificate_files_are_refused_at_the_start() {
    let (data, files) = (tempfile::tempdir().unwrap(), Files::new());
    let path = files.certificate_path();
    let settings = files.settings();
    let refused = |settings: &[&str]| {
        let arguments: Vec<&str> = ["serve", "--listen=127.0.0.1:0"]
            .into_iter()
            .chain(settings.iter().copied())
            .collect();
        let (ok, _, stderr) = crate::process::run(&data, &arguments);
        assert!(!ok, "{stderr}");
        stderr
    };
    let both: Vec<&str> = settings.iter().map(String::as_str).collect();
    assert!(refused(&both[..1]).contains("http.tls.key_file"));
    let (certificate, key_path) = (std::fs::read(&path).unwrap(), files.folder.path().join("tls.key"));
    let key = std::fs::read(&key_path).unwrap();
    for text in [
        "-----BEGIN CERTIFICATE-----\nbroken",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(refused(&both).contains("tls.crt: "), "{text}");
    }
    // The file is PEM, but its content is not a certificate.
    std::fs::write(
        &path,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    assert!(refused(&both).contains("certificate and key: "));
    std::fs::write(&path, "nothing").unwrap();
    assert!(refused(&both).contains("no certificate"));
    std::fs::remove_file(&path).unwrap();
    assert!(refused(&both).contains("tls.crt"));
    std::fs::write(&path, certificate).unwrap();
    for text in ["nothing", "-----BEGIN PRIVATE KEY-----\nbroken"] {
        std::fs::write(&key_path, text).unwrap();
        assert!(refused(&both).contains("tls.key: "), "{text}");
    }
    let other = tempfile::tempdir().unwrap();
    write(&other);
    std::fs::copy(other.path().join("tls.key"), &key_path).unwrap();
    assert!(refused(&both).contains("certificate and key: "));
    // With valid files the node starts, so the errors were about the files.
    std::fs::write(&key_path, key).unwrap();
    drop(start(&data, &files, &[]));
}
