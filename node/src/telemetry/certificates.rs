//! When certificates expire, so that an alert can come before that.

use std::path::Path;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::metrics::TLS_EXPIRY;

/// Shows the earliest expiry of a certificate in a chain. `listener` is `http` or `cluster`.
pub(crate) fn show_expiry(listener: &'static str, chain: &[CertificateDer<'_>]) {
    if let Some(expiry) = expiry(chain) {
        metrics::gauge!(TLS_EXPIRY, "listener" => listener).set(expiry as f64);
    }
}

/// Shows the earliest expiry of a certificate in this file. A file that cannot be read shows nothing.
pub(crate) fn show_expiry_of_file(listener: &'static str, file: &Path) {
    let chain = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    show_expiry(listener, &chain.unwrap_or_default());
}

/// Returns the earliest expiry of a certificate in a chain, in seconds since the Unix epoch.
fn expiry(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let end = |certificate: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(certificate.validity().not_after.timestamp())
    };
    chain.iter().filter_map(end).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_expires_with_the_certificate_that_expires_first() {
        let certificate = |year| {
            let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            parameters.self_signed(&key).unwrap().der().clone()
        };
        assert_eq!(
            expiry(&[certificate(2040), certificate(2030)]),
            Some(1_893_456_000)
        );
        assert_eq!(expiry(&[]), None);
    }
}
