//! Pauses between attempts: an endless series with jitter, each twice as long as the previous one up to a
//! maximum.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Returns pauses that begin with `first` and grow up to `longest`.
pub(crate) fn backoff(first: Duration, longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build()
}
