//! Limits how many lines of a kind the log takes, where clients or strangers decide how often they occur.
//!
//! Within a period the first lines are logged, and the others are only counted. When the period ends, one
//! line says how many were suppressed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// A limit that the lines of one kind share. It is a static beside the place that logs them:
///
/// ```
/// # use actors::log_limit::LogLimit;
/// # use std::time::Duration;
/// static LIMIT: LogLimit = LogLimit::new(10, Duration::from_secs(10), |suppressed| {
///     tracing::warn!(suppressed, "further requests could not be read");
/// });
///
/// if LIMIT.admits() {
///     tracing::warn!("a request could not be read");
/// }
/// ```
pub struct LogLimit {
    lines_max: u32,
    period: Duration,
    report: fn(u64),
    current: Mutex<Option<Period>>,
}

/// A period, from its first line on.
#[derive(Debug, Clone, Copy)]
struct Period {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

/// Whether a line is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The line is logged.
    Admitted {
        /// The number of lines that were suppressed in an earlier period and not reported yet.
        unreported: u64,
    },
    /// The line is the first one in its period that is not logged. The period ends after this time.
    FirstSuppressed(Duration),
    /// The line is not logged, and not the first such line in its period.
    Suppressed,
}

impl LogLimit {
    /// Makes a limit of `lines_max` lines per `period`. `report` logs the number of lines that were
    /// suppressed.
    pub const fn new(lines_max: u32, period: Duration, report: fn(u64)) -> Self {
        Self {
            lines_max,
            period,
            report,
            current: Mutex::new(None),
        }
    }

    /// Returns true if a line may be logged now; otherwise the line is counted.
    pub fn admits(&'static self) -> bool {
        match self.judge(Instant::now()) {
            Verdict::Admitted { unreported } => {
                self.report(unreported);
                true
            }
            Verdict::FirstSuppressed(rest) => {
                // Outside of a runtime, the next line that is admitted reports the number.
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(async move {
                        tokio::time::sleep(rest).await;
                        self.report(self.take_suppressed());
                    });
                }
                false
            }
            Verdict::Suppressed => false,
        }
    }

    fn judge(&self, now: Instant) -> Verdict {
        let mut current = self.current();
        let period = current.filter(|period| now.saturating_duration_since(period.began) < self.period);
        let Some(mut period) = period else {
            let unreported = current.map_or(0, |last| last.suppressed);
            *current = Some(Period {
                began: now,
                lines: 1,
                suppressed: 0,
            });
            return Verdict::Admitted { unreported };
        };
        let verdict = if period.lines < self.lines_max {
            period.lines += 1;
            Verdict::Admitted { unreported: 0 }
        } else {
            period.suppressed += 1;
            if period.suppressed == 1 {
                Verdict::FirstSuppressed(self.period - now.saturating_duration_since(period.began))
            } else {
                Verdict::Suppressed
            }
        };
        *current = Some(period);
        verdict
    }

    fn take_suppressed(&self) -> u64 {
        let mut current = self.current();
        let period = current.as_mut();
        period.map_or(0, |period| std::mem::take(&mut period.suppressed))
    }

    fn report(&self, suppressed: u64) {
        if suppressed > 0 {
            (self.report)(suppressed);
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Period>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for LogLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLimit")
            .field("lines_max", &self.lines_max)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_period_has_as_many_lines_as_the_limit_and_the_next_one_reports_the_rest() {
        let limit = LogLimit::new(2, 10 * SECOND, |_| ());
        let start = Instant::now();
        let at = |seconds: u32| limit.judge(start + seconds * SECOND);
        assert_eq!(at(0), Verdict::Admitted { unreported: 0 });
        assert_eq!(at(1), Verdict::Admitted { unreported: 0 });
        assert_eq!(at(4), Verdict::FirstSuppressed(6 * SECOND));
        assert_eq!(at(5), Verdict::Suppressed);
        assert_eq!(at(9), Verdict::Suppressed);
        assert_eq!(at(10), Verdict::Admitted { unreported: 3 });
        assert_eq!(at(11), Verdict::Admitted { unreported: 0 });
        assert_eq!(at(12), Verdict::FirstSuppressed(8 * SECOND));
        assert_eq!(limit.take_suppressed(), 1);
        assert_eq!(at(99), Verdict::Admitted { unreported: 0 });
    }

    #[tokio::test]
    async fn the_number_of_suppressed_lines_is_reported_when_their_period_ends() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        static LIMIT: LogLimit = LogLimit::new(3, Duration::from_millis(100), |suppressed| {
            REPORTED.fetch_add(suppressed, Ordering::Relaxed);
        });
        let admitted = (0..1_000).filter(|_| LIMIT.admits()).count() as u64;
        // Few lines are admitted even if the loop takes several periods.
        assert!(admitted < 500, "{admitted}");
        // No further line is needed for the report.
        let reported = async {
            while REPORTED.load(Ordering::Relaxed) < 1_000 - admitted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reported)
            .await
            .expect("reported in time");
    }
}
