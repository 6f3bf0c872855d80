//! Mutual TLS between nodes: both nodes show a certificate of the same authority. Certificates are read once,
//! when the links start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::link::LinksError;

/// The PEM files by which nodes authenticate each other. A node's certificate names the host by which it is
/// dialled, and is used in both directions.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority that signed the certificates of all nodes.
    pub authority: PathBuf,
    /// This node's certificate, and the certificates between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Checks that the files can be used.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or used; the error names it.
    pub fn check(&self) -> Result<(), LinksError> {
        Tls::load(self).map(drop)
    }
}

/// Both ends of TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, LinksError> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            authorities
                .add(certificate)
                .map_err(|error| wrong(&files.authority, error))?;
        }
        let authorities = Arc::new(authorities);
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), provider())
            .build()
            .map_err(|error| wrong(&files.authority, error))?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), key.clone_key())
            })
            .map_err(|error| wrong(&files.certificate, error))?;
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_root_certificates(authorities)
                    .with_client_auth_cert(chain, key)
            })
            .map_err(|error| wrong(&files.certificate, error))?;
        Ok(Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
        })
    }
}

/// Returns an acceptor that has no certificate, and so does not accept any connection.
pub(super) fn closed_acceptor() -> Result<TlsAcceptor, LinksError> {
    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| LinksError::NotStarted(error.to_string()))?;
    Ok(Arc::new(
        config
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate)),
    )
    .into())
}

/// Returns the provider of cryptography. It is named explicitly, because libraries bring different providers
/// and so the process has no default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinksError> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, error))?;
    if read.is_empty() {
        Err(wrong(path, "it holds no certificate"))
    } else {
        Ok(read)
    }
}

fn wrong(path: &Path, error: impl ToString) -> LinksError {
    LinksError::Tls {
        path: path.to_owned(),
        error: error.to_string(),
    }
}
