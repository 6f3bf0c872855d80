//! Checks whether a node is ready, for containers without a shell or curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::config::Http;

/// Timeout of the check. It is about as long as the timeout of orchestrators, so that operators see this
/// program's message and not the orchestrator's.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why a node is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhealthy {
    /// The node cannot be reached, or closed the connection.
    #[error("{0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    /// The node did not respond in time.
    #[error("{0}: no response within {TIMEOUT:?}")]
    TimedOut(SocketAddr),
    /// The node's response is not 200.
    #[error("{0}: not ready: {1}")]
    NotReady(SocketAddr, String),
}

/// Succeeds if the node responds to `GET /readyz` with 200.
pub(crate) async fn check(http: &Http) -> Result<(), Unhealthy> {
    let address = reachable(http.listen);
    let status = tokio::time::timeout(TIMEOUT, status_line(address, http.scheme() == "https")).await;
    let status = status
        .map_err(|_| Unhealthy::TimedOut(address))?
        .map_err(|error| Unhealthy::Unreachable(address, error))?;
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(Unhealthy::NotReady(address, status))
    }
}

/// Returns an address at which a node that listens at `listen` can be reached: loopback, if the node listens
/// on all addresses.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

/// Returns the first line of the response.
async fn status_line(address: SocketAddr, tls: bool) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    if tls {
        let stream = TlsConnector::from(Arc::new(client_config()?))
            .connect(address.ip().into(), stream)
            .await?;
        exchange(stream, address).await
    } else {
        exchange(stream, address).await
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> std::io::Result<String> {
    stream
        .write_all(format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    stream.flush().await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

fn client_config() -> std::io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(std::io::Error::other)?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth())
}

/// Accepts any certificate. Certificates do not name loopback addresses, and nothing secret is sent. A
/// process that could impersonate the node on this machine could replace this program as well.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
