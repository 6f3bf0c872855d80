//! Fetches a JWK set by HTTP. Redirects are not followed: the configuration names the one place whose keys
//! are trusted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::watched_file::FILE_BYTES_MAX;
use crate::config::JwksUrl;

/// Time for the whole fetch: requests with an unknown key wait for it, so it is no longer than they may take
/// by default.
pub(super) const FETCH_LIMIT: Duration = Duration::from_secs(3);

/// A place from which a JWK set is fetched.
pub(super) struct Source {
    url: JwksUrl,
    /// With `https`.
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.url)
    }
}

impl Source {
    /// Makes a source. With `https` it reads the authorities that this machine trusts.
    pub(super) fn new(url: JwksUrl) -> Result<Self, String> {
        let tls = if url.is_https() { Some(connector()?) } else { None };
        Ok(Self { url, tls })
    }

    /// Returns the URL.
    pub(super) fn url(&self) -> &JwksUrl {
        &self.url
    }

    /// Fetches the set within [`FETCH_LIMIT`].
    ///
    /// Cancel safe: a dropped future closes its connection.
    pub(super) async fn fetch(&self) -> Result<Bytes, String> {
        match tokio::time::timeout(FETCH_LIMIT, self.exchange()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no whole response within {FETCH_LIMIT:?}")),
        }
    }

    async fn exchange(&self) -> Result<Bytes, String> {
        let host = self.url.host();
        let stream = TcpStream::connect((host.as_str(), self.url.port())).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else {
            // A name may have been given another address.
            let peer = stream.peer_addr().map_err(|error| error.to_string())?;
            if !peer.ip().to_canonical().is_loopback() {
                return Err(format!(
                    "{peer} is not a loopback address, which http is limited to"
                ));
            }
            return self.get(stream).await;
        };
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        self.get(stream).await
    }

    async fn get(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Bytes, String> {
        let request = Request::get(self.url.target())
            .header(HOST, self.url.authority())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("firstcome/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends with this future.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("the response is {}, not 200", response.status().as_u16()));
        }
        let bytes_max = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        body.map(|body| body.to_bytes())
            .map_err(|error| error.to_string())
    }
}

fn connector() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "this machine trusts no authority, which https needs: install ca-certificates, or set SSL_CERT_FILE"
                .to_owned(),
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
