//! Limits the rate of issue requests of each user. A replay does not count: a client that lost a response
//! must be able to ask for it.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::metrics::RATE_LIMITED;
use actors::ids::UserId;
use dashmap::{DashMap, Entry};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use metrics::Counter;

use super::Error;
use crate::config::Limits;

/// Maximum number of users that are counted: a rush of a million users, at about 17 bytes each. Further users
/// are admitted without being counted. The limit is meant for a few users with many requests, and the number
/// of other users must not matter.
const USERS_MAX: usize = 1 << 20;

/// Interval between evictions of users whose full burst is available again. Each eviction visits up to a
/// million users, so evictions are rare, but not so rare that these users fill the table.
const EVICT_INTERVAL: Duration = Duration::from_secs(5);

/// The limit on each user's issue requests.
pub(crate) struct UserLimit<C: Clock = DefaultClock> {
    limiter: Arc<Limiter<C>>,
    /// The states of the limiter.
    users: Users,
    /// Time in which one request is replenished.
    interval: Nanos,
    clock: C,
    /// Random for each process, so that clients cannot choose ids with equal hashes.
    hasher: RandomState,
}

type Limiter<C> = RateLimiter<u64, Users, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A request that was counted for its user.
#[derive(Debug)]
pub(crate) struct Admitted(u64);

static REFUSED: LazyLock<Counter> = LazyLock::new(|| metrics::counter!(RATE_LIMITED));

impl UserLimit {
    /// Returns the configured limit, if there is one.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        let rate = limits.user_rate?;
        // Shows the metric before the first refusal.
        LazyLock::force(&REFUSED);
        Self::with(rate, limits.burst(rate), USERS_MAX, DefaultClock::default())
    }

    /// Evicts idle users, for as long as the future is polled.
    pub(crate) async fn evict_idle(&self) {
        let mut ticks = tokio::time::interval(EVICT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.limiter.len() >= USERS_MAX {
                tracing::warn!(
                    users = USERS_MAX,
                    "too many users for limits.user_rate; some were not counted"
                );
            }
            let limiter = Arc::clone(&self.limiter);
            // The task only fails if it panics, which would be a bug.
            if let Err(error) = tokio::task::spawn_blocking(move || limiter.retain_recent()).await {
                tracing::error!(%error, "failed to evict idle users");
            }
        }
    }
}

impl<C: Clock + Clone> UserLimit<C> {
    fn with(rate: f64, burst: NonZeroU32, users_max: usize, clock: C) -> Option<Self> {
        let quota = Quota::with_period(Duration::from_secs_f64(rate.recip()))?.allow_burst(burst);
        let users = Users::new(users_max);
        let limiter = Arc::new(RateLimiter::new(quota, users.clone(), clock.clone()));
        Some(Self {
            limiter,
            users,
            interval: quota.replenish_interval().into(),
            clock,
            hasher: RandomState::new(),
        })
    }

    /// Counts a request. Fails if the user has sent too many requests.
    pub(crate) fn admit(&self, user: &UserId) -> Result<Admitted, Error> {
        let user = self.hasher.hash_one(user.as_str());
        match self.limiter.check_key(&user) {
            Ok(()) => Ok(Admitted(user)),
            Err(until) => {
                REFUSED.increment(1);
                Err(Error::RateLimited(until.wait_time_from(self.clock.now())))
            }
        }
    }

    /// Takes back the count of a request that turned out to be a replay. Until then it counts, so a user's
    /// replays are limited to the burst at any one time.
    pub(crate) fn restore(&self, Admitted(user): Admitted) {
        self.users.rewind(user, self.interval);
    }
}

impl<C: Clock> std::fmt::Debug for UserLimit<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserLimit")
            .field("users", &self.limiter.len())
            .finish()
    }
}

/// The states of a bounded number of users, each by a 64-bit hash of the user's id.
#[derive(Clone)]
struct Users(Arc<Table>);

struct Table {
    states: DashMap<u64, Nanos>,
    count: AtomicUsize,
    users_max: usize,
}

impl Users {
    fn new(users_max: usize) -> Self {
        Self(Arc::new(Table {
            states: DashMap::new(),
            count: AtomicUsize::new(0),
            users_max,
        }))
    }

    /// Sets the state of a user back by this time. A user that is not counted has no state.
    fn rewind(&self, user: u64, by: Nanos) {
        if let Some(mut state) = self.0.states.get_mut(&user) {
            *state = state.saturating_sub(by);
        }
    }

    /// Reserves room for one more user. Returns false if there is none.
    fn reserve(&self) -> bool {
        let one_more = |count: usize| (count < self.0.users_max).then_some(count + 1);
        self.0
            .count
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
        // The entry locks a part of the map, so requests of one user are measured one at a time.
        match self.0.states.entry(*user) {
            Entry::Occupied(mut state) => {
                let (outcome, new_state) = measure(Some(*state.get()))?;
                state.insert(new_state);
                Ok(outcome)
            }
            Entry::Vacant(place) => {
                let (outcome, new_state) = measure(None)?;
                if self.reserve() {
                    place.insert(new_state);
                }
                Ok(outcome)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<u64> for Users {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.states.retain(|_, state| {
            let recent = *state > drop_below;
            if !recent {
                self.0.count.fetch_sub(1, Ordering::Relaxed);
            }
            recent
        });
    }

    fn len(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
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
    fn a_user_may_send_a_burst_and_then_requests_at_the_rate() {
        let (limit, clock) = limit(2.0, 3, 10);
        assert_eq!(
            [(); 5].map(|()| admitted(&limit, "alice")),
            [true, true, true, false, false]
        );
        assert!(admitted(&limit, "bob"));
        clock.advance(Duration::from_millis(499));
        let Err(Error::RateLimited(wait)) = limit.admit(&UserId::parse("alice").unwrap()) else {
            panic!("admitted")
        };
        assert_eq!(wait, Duration::from_millis(1));
        clock.advance(wait);
        assert!(admitted(&limit, "alice") && !admitted(&limit, "alice"));
    }

    #[test]
    fn a_rate_below_one_a_second_is_enforced() {
        let (limit, clock) = limit(0.1, 1, 10);
        assert!(admitted(&limit, "alice"));
        clock.advance(Duration::from_secs(9));
        assert!(!admitted(&limit, "alice"));
        clock.advance(Duration::from_secs(1));
        assert!(admitted(&limit, "alice"));
    }

    #[test]
    fn a_full_table_does_not_grow_and_other_users_are_admitted() {
        let (limit, clock) = limit(1.0, 1, 2);
        assert!(admitted(&limit, "alice") && admitted(&limit, "bob"));
        // Carol is not counted. Alice and Bob are counted, and stay limited.
        assert!(admitted(&limit, "carol") && admitted(&limit, "carol"));
        assert!(!admitted(&limit, "alice") && !admitted(&limit, "bob"));
        assert_eq!((limit.limiter.len(), limit.limiter.is_empty()), (2, false));
        // Idle users are evicted, and there is room again.
        clock.advance(Duration::from_secs(3));
        limit.limiter.retain_recent();
        assert_eq!(limit.limiter.len(), 0);
        assert!(admitted(&limit, "carol") && !admitted(&limit, "carol"));
        assert_eq!(limit.limiter.len(), 1);
    }

    #[test]
    fn a_restored_request_does_not_count() {
        let (limit, clock) = limit(2.0, 2, 10);
        let alice = UserId::parse("alice").unwrap();
        for _ in 0..10 {
            limit.restore(limit.admit(&alice).unwrap());
        }
        let (first, second) = (limit.admit(&alice).unwrap(), limit.admit(&alice).unwrap());
        assert!(
            !admitted(&limit, "alice"),
            "restoring gives no more than was counted"
        );
        limit.restore(second);
        assert!(admitted(&limit, "alice") && !admitted(&limit, "alice"));
        // A user that was evicted meanwhile has no count to take back.
        clock.advance(Duration::from_secs(3));
        limit.limiter.retain_recent();
        limit.restore(first);
        assert_eq!(limit.limiter.len(), 0);
        assert!(admitted(&limit, "alice") && admitted(&limit, "alice") && !admitted(&limit, "alice"));
    }

    #[tokio::test]
    async fn idle_users_are_evicted() {
        let limit = UserLimit::new(&Limits {
            user_rate: Some(1_000_000.0),
            ..Limits::default()
        })
        .unwrap();
        assert!(limit.admit(&UserId::parse("alice").unwrap()).is_ok());
        let evicted = async {
            while !limit.limiter.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = limit.evict_idle() => unreachable!("eviction does not end"),
            evicted = tokio::time::timeout(2 * EVICT_INTERVAL, evicted) => evicted.expect("evicted in time"),
        }
    }

    #[test]
    fn a_recent_user_is_not_evicted() {
        let (limit, _) = limit(1.0, 1, 2);
        assert!(admitted(&limit, "alice"));
        limit.limiter.retain_recent();
        assert!(!admitted(&limit, "alice"));
    }
}
