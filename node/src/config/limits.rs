//! Bounds of queues and rates.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::InvalidConfig;
use super::check::{at_least_one, between};
use super::keys::section;
use crate::http::unsent;

/// Bounds of a rate, in requests per second. The lowest is one request in about a quarter of an hour; the
/// highest is more than a node can serve.
const RATES: RangeInclusive<f64> = 0.001..=1_000_000.0;

/// Least value of `limits.unsent_bytes_max`. It gives each of two clients room for the longest page of a
/// list, and an operator room for the metrics.
const UNSENT_BYTES_MIN: usize = 2 * 1024 * 1024;

section! {
    /// `limits.…`
    pub struct Limits in "limits." {
        /// Maximum number of requests in all queues of the node; further requests are answered `OVERLOADED`
        /// at once.
        requests_max: usize = actors::owning::router::REQUESTS_MAX, "number", check = at_least_one;
        /// Maximum number of requests in the queue of one coupon, about two seconds of its owner's work;
        /// further requests are answered `OVERLOADED` at once.
        coupon_requests_max: usize = actors::owning::owner::actor::OWNER_PLACES, "number",
            check = at_least_one;
        /// Maximum number of coupons with metrics of their own: the busiest with an owner on this node. Each
        /// has seven series.
        coupon_metrics_max: usize = 100, "number", check = |max| between(*max, 0..=10_000);
        /// Maximum number of open HTTP connections of one client address (of IPv6, of one /64 network);
        /// further connections are answered `OVERLOADED` and closed. A proxy in `auth.trusted_proxies` has no
        /// such limit.
        client_connections_max: Option<usize> = None, "number",
            check = |max| max.as_ref().map_or(Ok(()), at_least_one),
            unset = "half of `http.connections_max`";
        /// Maximum number of bytes of large responses, like lists, that clients have not read yet; further
        /// large responses are answered `OVERLOADED`. A quarter is reserved for `/metrics`. One client
        /// address may take half of the rest, if it is not a proxy in `auth.trusted_proxies`.
        unsent_bytes_max: usize = unsent::UNSENT_BYTES_MAX, "number of bytes",
            check = |max| if *max < UNSENT_BYTES_MIN {
                Err(format!("must be at least {UNSENT_BYTES_MIN}"))
            } else {
                Ok(())
            };
        /// Issue requests a second that each user may send on average, like 5 or 0.2; more are answered
        /// `RATE_LIMITED`.
        user_rate: Option<f64> = None, "number, also below 1",
            check = |rate| rate.map_or(Ok(()), |rate| between(rate, RATES)),
            unset = "no limit";
        /// Number of issue requests that each user may send at once.
        user_burst: Option<NonZeroU32> = None, "number", unset = "the requests of one second, at least 1";
        /// Maximum number of searches for one client address at the same time: lists of coupons, lists of a
        /// coupon's issuances by state, lists of users with more than 10,000 issuances, and statistics;
        /// further ones are answered `RATE_LIMITED`. Lists that were read within the last second do not
        /// count. An IPv6 client is its /64.
        client_lists: usize = 8, "number", check = at_least_one;
        /// Maximum number of exports of issuances (`.csv`, `.ndjson`) in progress on the node; further
        /// exports are answered `OVERLOADED`.
        exports_max: usize = 4, "number", check = at_least_one;
        /// Rows a second that all exports of the node read. More of them make exports faster, and slow
        /// issuing down.
        export_rate: usize = 20_000, "number", check = |rate| between(*rate, 1..=1_000_000_000);
    }
}

impl Limits {
    /// Returns the number of requests that a user with this rate may send at once.
    pub(crate) fn burst(&self, rate: f64) -> NonZeroU32 {
        // A rate within its bounds fits into 32 bits.
        self.user_burst
            .or_else(|| NonZeroU32::new(rate.ceil() as u32))
            .unwrap_or(NonZeroU32::MIN)
    }

    /// Checks the values together.
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        if self.user_rate.is_none() && self.user_burst.is_some() {
            return Err(InvalidConfig(
                "limits.user_burst has no effect without limits.user_rate".to_owned(),
            ));
        }
        Ok(())
    }
}
