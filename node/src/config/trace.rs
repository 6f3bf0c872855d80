//! Where spans of traced requests are sent.

use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::check::{between, positive_and_at_most_an_hour};
use super::keys::section;

/// Path of a receiver whose URL has none, as OTLP defines it.
const DEFAULT_PATH: &str = "/v1/traces";

/// Shares of requests.
const RATIOS: RangeInclusive<f64> = 0.0..=1.0;

/// Bounds of the queue: one batch, and some 500 MB.
const QUEUE: RangeInclusive<usize> = 512..=1_000_000;

section! {
    /// `trace.…`
    pub struct Trace in "trace." {
        /// URL of a receiver of OpenTelemetry's traces (OTLP over HTTP, protobuf), like
        /// `http://127.0.0.1:4318`. Without a path, `/v1/traces` is added. TLS is left to a collector beside
        /// the node.
        endpoint: Option<String> = None, "HTTP URL",
            check = |endpoint| endpoint.as_deref().map_or(Ok(()), |text| receiver(text).map(drop)),
            unset = "nothing is traced";
        /// Share of the requests under `/v1` that begin a trace. A request with a `traceparent` is traced if
        /// its caller traces it.
        ratio: f64 = 0.01, "number from 0 to 1", check = |ratio| between(*ratio, RATIOS);
        /// Time for the receiver to take a batch of spans; then the batch is dropped.
        #[serde(with = "humantime_serde")]
        timeout: Duration = Duration::from_secs(5), "duration", check = positive_and_at_most_an_hour;
        /// Maximum number of spans that wait to be sent; further spans are dropped.
        queue_max: usize = 8_192, "number", check = |max| between(*max, QUEUE);
    }
}

impl Trace {
    /// Returns the URL that spans are sent to; `None` if nothing is traced.
    pub(crate) fn receiver(&self) -> Option<Url> {
        self.endpoint.as_deref().and_then(|text| receiver(text).ok())
    }
}

/// Parses the URL of a receiver.
fn receiver(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    let fits = |url: &Url| {
        url.scheme() == "http" && url.has_host() && url.username().is_empty() && url.password().is_none()
    };
    let Some(mut url) = url.filter(fits) else {
        return Err("must be a URL like http://127.0.0.1:4318, without credentials".to_owned());
    };
    if url.path() == "/" {
        url.set_path(DEFAULT_PATH);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_an_http_url_with_the_path_of_otlp_unless_it_has_another() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector/", "http://collector/v1/traces"),
            ("http://collector/otlp", "http://collector/otlp"),
        ] {
            assert_eq!(receiver(text).unwrap().as_str(), url);
        }
        for text in [
            "",
            "collector:4318",
            "https://collector",
            "http://",
            "http://user:word@collector",
        ] {
            assert!(receiver(text).is_err(), "{text}");
        }
    }
}
