//! How many issue requests one user may send.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actors::ids::UserId;
use actors::metrics::RATE_LIMITED;
use dashmap::{DashMap, Entry};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use metrics::Counter;

use crate::config::Limits;
use crate::http::problem::Problem;

/// Most users that are remembered: a million who press the button together, at about 17 bytes each. Whoever
/// comes beyond them is let pass uncounted, for the limit is there against a few who ask too much, and nobody
/// is to pay for how many others there are.
const USERS_MAX: usize = 1 << 20;

/// How often those are forgotten who may send as many as if they had never sent any: seldom enough that
/// looking at a million costs little, often enough that they do not fill the table.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// The limit of one user's issue requests.
pub(crate) struct UserLimit<C: Clock = DefaultClock> {
    limiter: Arc<Limiter<C>>,
    clock: C,
    /// Of this process alone, so that nobody can choose names that share a place.
    hasher: RandomState,
}

type Limiter<C> = RateLimiter<u64, Users, C, NoOpMiddleware<<C as Clock>::Instant>>;

static REFUSED: LazyLock<Counter> = LazyLock::new(|| metrics::counter!(RATE_LIMITED));

impl UserLimit {
    /// The limit that is configured, if there is one.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        let rate = limits.user_rate?;
        // So that it is shown before anybody is refused.
        LazyLock::force(&REFUSED);
        Self::with(rate, limits.burst(rate), USERS_MAX, DefaultClock::default())
    }

    /// Forgets whom it need not remember, for as long as it is polled.
    pub(crate) async fn forget_idle(&self) {
        let mut ticks = tokio::time::interval(FORGET_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.limiter.len() >= USERS_MAX {
                tracing::warn!(
                    users = USERS_MAX,
                    "more users ask than limits.user_rate remembers; some were not counted"
                );
            }
            let limiter = Arc::clone(&self.limiter);
            // It only fails if it panics, which would be a mistake here.
            if let Err(error) = tokio::task::spawn_blocking(move || limiter.retain_recent()).await {
                tracing::error!(%error, "users who ask no more are not forgotten");
            }
        }
    }
}

impl<C: Clock + Clone> UserLimit<C> {
    fn with(rate: f64, burst: NonZeroU32, users_max: usize, clock: C) -> Option<Self> {
        let quota = Quota::with_period(Duration::from_secs_f64(rate.recip()))?.allow_burst(burst);
        let limiter = Arc::new(RateLimiter::new(quota, Users::new(users_max), clock.clone()));
        Some(Self {
            limiter,
            clock,
            hasher: RandomState::new(),
        })
    }

    /// Passes, and counts, unless the user has asked too much.
    pub(crate) fn admit(&self, user: &UserId) -> Result<(), Problem> {
        let admitted = self.limiter.check_key(&self.hasher.hash_one(user.as_str()));
        admitted.map_err(|until| {
            REFUSED.increment(1);
            Problem::RateLimited(until.wait_time_from(self.clock.now()))
        })
    }
}

impl<C: Clock> std::fmt::Debug for UserLimit<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserLimit")
            .field("users", &self.limiter.len())
            .finish()
    }
}

/// How much each user has asked, for so many users and no more. Users are known by a hash of 64 bits.
struct Users {
    asked: DashMap<u64, Nanos>,
    count: AtomicUsize,
    users_max: usize,
}

impl Users {
    fn new(users_max: usize) -> Self {
        Self {
            asked: DashMap::new(),
            count: AtomicUsize::new(0),
            users_max,
        }
    }

    /// Whether there was room for one more, which is taken.
    fn reserve(&self) -> bool {
        let one_more = |count: usize| (count < self.users_max).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

impl StateStore for Users {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, user: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // The entry holds its part of the table, so nobody measures the same user meanwhile.
        match self.asked.entry(*user) {
            Entry::Occupied(mut asked) => {
                let (outcome, now_asked) = measure(Some(*asked.get()))?;
                asked.insert(now_asked);
                Ok(outcome)
            }
            Entry::Vacant(place) => {
                let (outcome, now_asked) = measure(None)?;
                if self.reserve() {
                    place.insert(now_asked);
                }
                Ok(outcome)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<u64> for Users {
    fn retain_recent(&self, drop_below: Nanos) {
        self.asked.retain(|_, asked| {
            let recent = *asked > drop_below;
            if !recent {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            recent
        });
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn limit(rate: f64, burst: u32, users_max: usize) -> (UserLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (
            UserLimit::with(rate, NonZeroU32::new(burst).unwrap(), users_max, clock.clone()).unwrap(),
            clock,
        )
    }

    fn admitted(limit: &UserLimit<FakeRelativeClock>, user: &str) -> bool {
        limit.admit(&UserId::parse(user).unwrap()).is_ok()
    }

    #[test]
    fn a_user_may_send_a_burst_and_then_so_many_a_second() {
        let (limit, clock) = limit(2.0, 3, 10);
        assert_eq!(
            [(); 5].map(|()| admitted(&limit, "alice")),
            [true, true, true, false, false]
        );
        assert!(admitted(&limit, "bob"));
        clock.advance(Duration::from_millis(499));
        let Err(Problem::RateLimited(wait)) = limit.admit(&UserId::parse("alice").unwrap()) else {
            panic!("admitted")
        };
        assert_eq!(wait, Duration::from_millis(1));
        clock.advance(wait);
        assert!(admitted(&limit, "alice") && !admitted(&limit, "alice"));
    }

    #[test]
    fn slow_rates_are_rates_too() {
        let (limit, clock) = limit(0.1, 1, 10);
        assert!(admitted(&limit, "alice"));
        clock.advance(Duration::from_secs(9));
        assert!(!admitted(&limit, "alice"));
        clock.advance(Duration::from_secs(1));
        assert!(admitted(&limit, "alice"));
    }

    #[test]
    fn a_full_table_neither_grows_nor_punishes_whoever_is_not_in_it() {
        let (limit, clock) = limit(1.0, 1, 2);
        assert!(admitted(&limit, "alice") && admitted(&limit, "bob"));
        // Carol is not counted, and those who are stay limited.
        assert!(admitted(&limit, "carol") && admitted(&limit, "carol"));
        assert!(!admitted(&limit, "alice") && !admitted(&limit, "bob"));
        assert_eq!((limit.limiter.len(), limit.limiter.is_empty()), (2, false));
        // Whoever could have sent nothing is forgotten, and there is room again.
        clock.advance(Duration::from_secs(3));
        limit.limiter.retain_recent();
        assert_eq!(limit.limiter.len(), 0);
        assert!(admitted(&limit, "carol") && !admitted(&limit, "carol"));
        assert_eq!(limit.limiter.len(), 1);
    }

    #[tokio::test]
    async fn whoever_could_have_sent_nothing_is_forgotten_without_being_asked_for() {
        let limit = UserLimit::new(&Limits {
            user_rate: Some(1_000_000.0),
            user_burst: None,
        })
        .unwrap();
        assert!(limit.admit(&UserId::parse("alice").unwrap()).is_ok());
        let forgotten = async {
            while !limit.limiter.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = limit.forget_idle() => unreachable!("it goes on for as long as it is polled"),
            forgotten = tokio::time::timeout(2 * FORGET_EVERY, forgotten) => forgotten.expect("forgotten in time"),
        }
    }

    #[test]
    fn whoever_asked_lately_is_not_forgotten() {
        let (limit, _) = limit(1.0, 1, 2);
        assert!(admitted(&limit, "alice"));
        limit.limiter.retain_recent();
        assert!(!admitted(&limit, "alice"));
    }
}
