//! Waiting for what must come, without sleeping for it.

use std::time::{Duration, Instant};

/// Longer than anything here takes, shorter than patience.
const LIMIT: Duration = Duration::from_secs(120);

/// Looks until it holds, within a limit; how long that took.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
