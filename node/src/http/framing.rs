//! Checks of a head that hyper does not make: `Host` (RFC 9112, section 3.2) and the transfer codings
//! (section 6.1).
//!
//! A proxy in front of this node may interpret an invalid head differently than this node does. So the
//! request is refused before anything is done.

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Version};

use super::problem::RequestError;

/// Returns why a request must be refused, whatever its path and method are; `None` if the head is valid.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<RequestError> {
    check_host(request.version(), request.headers())
        .and_then(|()| check_codings(request.headers()))
        .err()
}

/// Checks that a request of HTTP/1.1 has exactly one `Host`, which may be empty. Earlier versions do not
/// require it.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), RequestError> {
    let mut hosts = headers.get_all(HOST).iter();
    let malformed = |message: &str| Err(RequestError::Malformed(message.to_owned()));
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => malformed("Host is missing"),
        (Some(host), None) if host.as_bytes().iter().copied().all(is_of_host) => Ok(()),
        (Some(_), None) => malformed("Host must be a host, with or without a port"),
        (Some(_), Some(_)) => malformed("Host must occur only once"),
    }
}

/// True if a host with a port may contain this byte (RFC 3986, section 3.2). User information is not part of
/// a `Host`.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// Checks that there is no transfer coding other than one `chunked`. hyper accepts any codings before
/// `chunked`, but decodes only the last one.
fn check_codings(headers: &HeaderMap) -> Result<(), RequestError> {
    let mut chunked = 0_u32;
    for value in headers.get_all(TRANSFER_ENCODING) {
        for coding in value.as_bytes().split(|byte| *byte == b',') {
            match coding.trim_ascii() {
                b"" => {}
                coding if coding.eq_ignore_ascii_case(b"chunked") => chunked += 1,
                _ => return Err(RequestError::UnsupportedTransferCoding),
            }
        }
    }
    if chunked > 1 {
        return Err(RequestError::Malformed(
            "Transfer-Encoding must not have chunked twice".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: Version, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(&request.body(()).unwrap()).map(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn a_request_of_http_1_1_has_exactly_one_host() {
        let eleven = |headers: &[(&str, &str)]| refused(Version::HTTP_11, headers);
        for host in [
            "",
            "x",
            "shop.example:8080",
            "[::1]:8080",
            "127.0.0.1",
            "a_b.internal",
        ] {
            assert_eq!(eleven(&[("host", host)]), None, "{host}");
        }
        for host in [
            "a b",
            "user@x",
            "x/path",
            "x?y",
            "x#y",
            "h\u{f6}st",
            "\"x\"",
            "x\\",
        ] {
            assert_eq!(eleven(&[("host", host)]), Some(400), "{host}");
        }
        assert_eq!(eleven(&[]), Some(400));
        assert_eq!(eleven(&[("host", "x"), ("host", "x")]), Some(400));
        assert_eq!(refused(Version::HTTP_10, &[]), None);
        let twice = [("host", "x"), ("host", "y")];
        assert_eq!(refused(Version::HTTP_10, &twice), Some(400));
    }

    #[test]
    fn only_a_single_chunked_is_supported_as_transfer_coding() {
        for (codings, status) in [
            (&["chunked"][..], None),
            (&["Chunked"], None),
            (&[" chunked ,"], None),
            (&["gzip, chunked"], Some(501)),
            (&["gzip,chunked"], Some(501)),
            (&["identity, chunked"], Some(501)),
            (&["gzip", "chunked"], Some(501)),
            (&["chunked;x=y"], Some(501)),
            (&["chunked, chunked"], Some(400)),
            (&["chunked", "chunked"], Some(400)),
        ] {
            let headers: Vec<_> = codings
                .iter()
                .map(|coding| ("transfer-encoding", *coding))
                .chain([("host", "x")])
                .collect();
            assert_eq!(refused(Version::HTTP_11, &headers), status, "{codings:?}");
        }
    }
}
