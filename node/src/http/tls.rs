//! Optional TLS, with certificate and key from files that are reloaded when they change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::critical::critical;
use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::metrics::tls_reloaded;
use crate::telemetry::certificates::show_expiry;

/// Options of TLS.
#[derive(Debug, Clone)]
pub struct Options {
    /// The certificate and its chain, in PEM.
    pub certificate_file: PathBuf,
    /// The key of the certificate, in PEM.
    pub key_file: PathBuf,
    /// Timeout of a handshake.
    pub handshake_timeout: Duration,
    /// Interval between checks whether the files have changed.
    pub reload_every: Duration,
}

impl Options {
    /// Checks that the files can be used.
    pub(crate) fn check(&self) -> Result<(), Error> {
        server_config(self, &read(self)?).map(drop)
    }
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, io::Error),
    /// A file is not in PEM.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Pem(PathBuf, pem::Error),
    /// The file has no certificate.
    #[error("{}: no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key do not match, or cannot be used.
    #[error("certificate and key: {0}")]
    Unusable(#[from] tokio_rustls::rustls::Error),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The client does not speak TLS, has no version or cipher in common, or closed the connection.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// The handshake took too long.
    #[error("not finished within {0:?}")]
    Late(Duration),
}

/// The configuration of handshakes, which can be replaced at any time.
#[derive(Debug)]
pub(super) struct Tls {
    current: ArcSwap<ServerConfig>,
    handshake_timeout: Duration,
}

/// The content of both files.
#[derive(PartialEq, Eq)]
struct Files {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files, and reloads them until the returned value is dropped.
    pub(super) fn start(options: Options) -> Result<Arc<Self>, Error> {
        let files = read(&options)?;
        let tls = Arc::new(Self {
            current: ArcSwap::from(server_config(&options, &files)?),
            handshake_timeout: options.handshake_timeout,
        });
        let reloading = reload(Arc::downgrade(&tls), options, files);
        tokio::spawn(critical("reloading the TLS certificate", reloading));
        Ok(tls)
    }

    /// Makes the handshake of one connection.
    pub(super) async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let accepted = tokio::time::timeout(self.handshake_timeout, acceptor.accept(stream)).await;
        Ok(accepted.map_err(|_| HandshakeError::Late(self.handshake_timeout))??)
    }
}

/// Reloads the files when they change. Compares contents and not times, because files are also changed
/// through links, or twice within the resolution of a timestamp.
async fn reload(tls: std::sync::Weak<Tls>, options: Options, mut files: Files) {
    loop {
        tokio::time::sleep(options.reload_every).await;
        let reading = options.clone();
        let now = match tokio::task::spawn_blocking(move || read(&reading)).await {
            Ok(Ok(now)) => now,
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to read the TLS certificate; the old one stays");
                continue;
            }
            Err(_panicked) => continue,
        };
        let Some(tls) = tls.upgrade() else { return };
        if now == files {
            continue;
        }
        let result = match server_config(&options, &now) {
            Ok(config) => {
                tls.current.store(config);
                tracing::info!(file = %options.certificate_file.display(), "TLS certificate replaced");
                "replaced"
            }
            Err(error) => {
                tracing::error!(%error, "new TLS certificate cannot be used; the old one stays");
                "refused"
            }
        };
        tls_reloaded(result);
        // Each change is reported once.
        files = now;
    }
}

fn read(options: &Options) -> Result<Files, Error> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| Error::Read(path.clone(), error));
    Ok(Files {
        certificates: read(&options.certificate_file)?,
        key: read(&options.key_file)?,
    })
}

fn server_config(options: &Options, files: &Files) -> Result<Arc<ServerConfig>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&files.certificates)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Pem(options.certificate_file.clone(), error))?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate(options.certificate_file.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|error| Error::Pem(options.key_file.clone(), error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let chain = certificates.clone();
    let mut config = config.with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    show_expiry("http", &chain);
    Ok(Arc::new(config))
}
