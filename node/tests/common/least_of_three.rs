//! Promises about time, measured where others work too.

use std::time::Duration;

/// Does what is to take no longer than the limit, and again while it took longer, three times at the most;
/// the least that it took.
///
/// Others on the machine make it longer, and never shorter: so it is the least that says what it takes by
/// itself.
pub async fn least_of_three(limit: Duration, mut attempt: impl AsyncFnMut() -> Duration) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        least = least.min(attempt().await);
        if least <= limit {
            return least;
        }
    }
    panic!("not within {limit:?}: the least of three took {least:?}");
}
