//! Origins of web pages.

use std::fmt;

use serde::{Serialize, Serializer};
use url::Url;

/// The origin of a web page, as browsers write it: `https://shop.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Parses an origin. It must be written as browsers write it, because it is compared byte by byte. `*` is
    /// not accepted.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an origin like https://shop.example");
        let url = Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(wrong)?;
        let written = url.origin().ascii_serialization();
        if written == text {
            Ok(Self(written))
        } else {
            Err(format!("{}; browsers would write {written}", wrong()))
        }
    }

    /// The origin as browsers write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for text in [
            "https://shop.example",
            "http://localhost:3000",
            "https://shop.example:8443",
            "http://[::1]:3000",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(Origin::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "*",
            "null",
            "",
            "shop.example",
            "https://",
            "ftp://shop.example",
            "file:///index.html",
            "https://shop.example/",
            "https://shop.example/shop",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
        for text in [
            "https://Shop.example",
            "https://shop.example:443",
            "https://user@shop.example",
            "https://bücher.example",
            "https://shop.example?x",
        ] {
            assert!(
                Origin::parse(text)
                    .unwrap_err()
                    .contains("browsers would write https://"),
                "{text}"
            );
        }
    }
}
