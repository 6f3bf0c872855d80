//! The intended times of requests.
//!
//! In a closed loop each connection sends its next request after an answer, so a slow service gets fewer
//! requests. In an open loop each arrival has an intended time. An arrival that finds no free connection
//! waits, and that wait is part of its latency. Without that wait a pause of a second would show as one slow
//! answer per connection (*coordinated omission*, <https://www.youtube.com/watch?v=lJ8ydIuPFeU>).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// The pace of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each connection sends its next request after an answer.
    Closed,
    /// This many requests a second, independent of answers.
    Rate(f64),
    /// All requests at the same time.
    Spike,
}

/// The bounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Time from the beginning after which nothing arrives.
    pub duration: Option<Duration>,
    /// Number of arrivals.
    pub requests: Option<u64>,
}

/// Shortest sleep between two readings of the clock. Arrivals are released at most this late, and the delay
/// counts as latency. Shorter sleeps would take more processor time from the service.
const TICK: Duration = Duration::from_micros(200);
/// Longest sleep, so that a stop is noticed.
const TICK_MAX: Duration = Duration::from_millis(20);

/// A request that is due.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The number of the request, from 0.
    pub number: u64,
    /// The intended time.
    pub intended: Instant,
}

/// Distributes arrivals to all connections of a run.
#[derive(Debug)]
pub struct Arrivals {
    pace: Pace,
    bounds: Bounds,
    start: Instant,
    next: AtomicU64,
    due: Semaphore,
    stopped: AtomicBool,
}

impl Arrivals {
    /// Begins arrivals at `start`. With a [`Pace::Rate`], a thread must [`pace`](Self::pace) them.
    pub fn new(pace: Pace, bounds: Bounds, start: Instant) -> Self {
        Self {
            pace,
            bounds,
            start,
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends all arrivals.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.due.close();
    }

    /// True if arrivals have ended.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Waits for the next arrival; `None` if there are no more. Cancel safe: a call that is dropped takes no
    /// arrival.
    pub async fn next(&self) -> Option<Arrival> {
        match self.pace {
            Pace::Rate(_) => {
                // The semaphore is closed after a stop, or once the last arrival was taken.
                self.due.acquire().await.ok()?.forget();
                self.take(None)
            }
            Pace::Spike => self.take(None),
            Pace::Closed => {
                let now = Instant::now();
                if self
                    .bounds
                    .duration
                    .is_some_and(|duration| now >= self.start + duration)
                {
                    return None;
                }
                self.take(Some(now))
            }
        }
    }

    fn take(&self, now: Option<Instant>) -> Option<Arrival> {
        if self.stopped() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.bounds.requests.is_some_and(|requests| number >= requests) {
            return None;
        }
        let intended = now.unwrap_or_else(|| match self.pace {
            Pace::Rate(rate) => self.start + Duration::from_secs_f64(number as f64 / rate),
            Pace::Spike | Pace::Closed => self.start,
        });
        Some(Arrival { number, intended })
    }

    /// Returns the number of arrivals so far, sent or not; `None` in a closed loop, where all arrivals are
    /// sent.
    pub fn arrived(&self, now: Instant) -> Option<u64> {
        let most = self.bounds.requests.unwrap_or(u64::MAX);
        match self.pace {
            Pace::Closed => None,
            Pace::Spike => Some(most),
            Pace::Rate(rate) => {
                let since = now.saturating_duration_since(self.start);
                let since = self.bounds.duration.map_or(since, |duration| since.min(duration));
                // An arrival exactly at the end of the duration does not count.
                Some(((since.as_secs_f64() * rate).ceil() as u64).min(most))
            }
        }
    }

    /// Returns how many arrivals the connections have taken.
    pub fn taken(&self) -> u64 {
        self.next
            .load(Ordering::Relaxed)
            .min(self.bounds.requests.unwrap_or(u64::MAX))
    }

    /// Releases arrivals when they are due. It uses its own thread, because a thread can sleep for
    /// microseconds and the runtime's timer only for milliseconds. The thread ends when the run is stopped,
    /// or when a bound is reached and all released arrivals are taken.
    pub fn pace(self: &Arc<Self>) -> Option<std::thread::JoinHandle<()>> {
        let Pace::Rate(rate) = self.pace else { return None };
        let arrivals = Arc::clone(self);
        Some(std::thread::spawn(move || arrivals.release(rate)))
    }

    fn release(&self, rate: f64) {
        let mut released = 0;
        std::thread::sleep(self.start.saturating_duration_since(Instant::now()));
        while !self.stopped() {
            let now = Instant::now();
            let over = self
                .bounds
                .duration
                .is_some_and(|duration| now >= self.start + duration);
            // Arrival 0 is due at time zero, so there is one more arrival than whole intervals.
            let arrived = if over {
                self.arrived(now)
            } else {
                self.arrived(now).map(|arrived| arrived.max(1))
            }
            .unwrap_or(0);
            if arrived > released {
                // The number of due arrivals always fits into a usize and the semaphore's bound.
                let more = usize::try_from(arrived - released).unwrap_or(usize::MAX);
                self.due
                    .add_permits(more.min(Semaphore::MAX_PERMITS - self.due.available_permits()));
                released = arrived;
            }
            if over || self.bounds.requests.is_some_and(|requests| released >= requests) {
                return self.drain(released);
            }
            let next = self.start + Duration::from_secs_f64(released as f64 / rate);
            std::thread::sleep(
                next.saturating_duration_since(Instant::now())
                    .clamp(TICK, TICK_MAX),
            );
        }
    }

    /// Waits until the last arrival was taken, and then closes the semaphore, which ends all waits for
    /// further arrivals. If the semaphore were closed earlier, tasks that have got a permit but have not run
    /// since would fail too.
    fn drain(&self, released: u64) {
        while self.taken() < released && !self.stopped() {
            std::thread::sleep(TICK_MAX);
        }
        self.due.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn all(arrivals: &Arrivals) -> Vec<Arrival> {
        let mut all = Vec::new();
        while let Some(arrival) = tokio::time::timeout(LIMIT, arrivals.next()).await.unwrap() {
            all.push(arrival);
        }
        all
    }

    #[tokio::test]
    async fn intended_times_of_an_open_loop_do_not_depend_on_connections() {
        let start = Instant::now();
        let bounds = Bounds {
            duration: Some(Duration::from_millis(100)),
            requests: None,
        };
        let arrivals = Arc::new(Arrivals::new(Pace::Rate(1_000.0), bounds, start));
        let pacer = arrivals.pace().unwrap();
        // No task takes arrivals until the run is over.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let all = all(&arrivals).await;
        assert_eq!(all.len(), 100);
        for (number, arrival) in (0..).zip(&all) {
            assert_eq!(
                (arrival.number, arrival.intended),
                (number, start + Duration::from_secs_f64(number as f64 / 1_000.0))
            );
        }
        pacer.join().unwrap();
        assert_eq!(
            (arrivals.taken(), arrivals.arrived(Instant::now())),
            (100, Some(100))
        );
    }

    #[tokio::test]
    async fn no_arrival_is_released_before_its_intended_time() {
        let start = Instant::now() + Duration::from_millis(20);
        let arrivals = Arc::new(Arrivals::new(
            Pace::Rate(500.0),
            Bounds {
                duration: None,
                requests: Some(50),
            },
            start,
        ));
        let pacer = arrivals.pace().unwrap();
        let mut taken = 0;
        while let Some(arrival) = tokio::time::timeout(LIMIT, arrivals.next()).await.unwrap() {
            assert!(Instant::now() >= arrival.intended, "{} was early", arrival.number);
            taken += 1;
        }
        assert_eq!(taken, 50);
        pacer.join().unwrap();
    }

    #[tokio::test]
    async fn all_arrivals_of_a_spike_have_the_same_intended_time() {
        let start = Instant::now();
        let arrivals = Arrivals::new(
            Pace::Spike,
            Bounds {
                duration: None,
                requests: Some(30),
            },
            start,
        );
        let all = all(&arrivals).await;
        assert_eq!(all.len(), 30);
        assert!(all.iter().all(|arrival| arrival.intended == start));
    }

    #[tokio::test]
    async fn a_task_that_waits_for_an_arrival_goes_on_when_the_run_is_stopped() {
        let arrivals = Arc::new(Arrivals::new(
            Pace::Rate(0.001),
            Bounds {
                duration: None,
                requests: None,
            },
            Instant::now(),
        ));
        let pacer = arrivals.pace().unwrap();
        assert_eq!(
            tokio::time::timeout(LIMIT, arrivals.next())
                .await
                .unwrap()
                .unwrap()
                .number,
            0
        );
        let waiting = tokio::spawn({
            let arrivals = Arc::clone(&arrivals);
            async move { arrivals.next().await.is_none() }
        });
        arrivals.stop();
        assert!(tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap());
        pacer.join().unwrap();
    }

    #[tokio::test]
    async fn a_task_that_runs_late_still_takes_the_last_arrival() {
        let start = Instant::now() + Duration::from_millis(20);
        let bounds = Bounds {
            duration: None,
            requests: Some(1),
        };
        let arrivals = Arc::new(Arrivals::new(Pace::Rate(1_000.0), bounds, start));
        let waiting = tokio::spawn({
            let arrivals = Arc::clone(&arrivals);
            async move { arrivals.next().await.is_some() }
        });
        tokio::task::yield_now().await;
        let pacer = arrivals.pace().unwrap();
        // The only thread of this runtime is busy, as under load, until after the pacer has ended.
        std::thread::sleep(Duration::from_millis(200));
        assert!(tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap());
        pacer.join().unwrap();
    }
}
