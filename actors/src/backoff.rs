//! Pauses between attempts: each twice as long as the one before, up to a longest, without end, with jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Returns pauses that begin with `first` and grow to `longest`.
pub(crate) fn backoff(first: Duration, longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build()
}
