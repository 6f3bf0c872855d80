//! Figures of an owner for metrics. The owner's actor sets them, and readers need no message to the actor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::owning::kind::{COUNTS, Kind};
use crate::owning::owner::Owner;
use crate::time::{Moment, Timestamp};

/// Time in which requests lose half of their weight in [`OwnerFigures::recent`].
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Stands in place of a bound or a moment if there is none. No bound and no moment is this large.
const NONE: u64 = u64::MAX;

/// The figures of one owner, in atomics. Each figure is right by itself, but two figures may be from
/// different decisions.
#[derive(Debug)]
pub struct OwnerFigures {
    requests: AtomicU64,
    entries: AtomicU64,
    entries_max: AtomicU64,
    counts: [AtomicU64; COUNTS],
    unstored: AtomicU64,
    unstored_since: AtomicU64,
    is_draining: AtomicBool,
    /// How many of the requests are counted in `recent` already.
    weighed: AtomicU64,
    /// The weight of the requests of the last minutes, as the bits of a float.
    recent: AtomicU64,
}

/// An owner's figures, as they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerReading {
    /// Requests that reached the owner since it was loaded.
    pub requests: u64,
    /// Stored entries. Never falls.
    pub entries: u64,
    /// How many entries there may be; `None` if there is no bound.
    pub entries_max: Option<u64>,
    /// The counts that the kind chooses, as of the owner's last mail.
    pub counts: [u64; COUNTS],
    /// Entries that are decided and not stored.
    pub unstored: u64,
    /// When the oldest of these was decided.
    pub unstored_since: Option<Moment>,
    /// Requests that are queued or wait for their answer.
    pub queued: usize,
    /// True if the owner decides nothing more.
    pub is_draining: bool,
}

impl OwnerFigures {
    /// Makes the figures of an owner.
    pub fn new<K: Kind>(owner: &mut Owner<K>, now: Timestamp) -> Self {
        let figures = Self {
            requests: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            entries_max: AtomicU64::new(NONE),
            counts: Default::default(),
            unstored: AtomicU64::new(0),
            unstored_since: AtomicU64::new(NONE),
            is_draining: AtomicBool::new(false),
            weighed: AtomicU64::new(0),
            recent: AtomicU64::new(0),
        };
        figures.set(owner, now);
        figures
    }

    /// Sets the figures at `now`. Only the owner's actor calls this.
    pub fn set<K: Kind>(&self, owner: &mut Owner<K>, now: Timestamp) {
        let since = owner.unstored_since().map_or(NONE, Moment::as_nanos);
        self.requests.store(owner.requests(), Ordering::Relaxed);
        self.entries.store(owner.stored_entries(), Ordering::Relaxed);
        self.entries_max
            .store(owner.entries_max().unwrap_or(NONE), Ordering::Relaxed);
        for (shown, count) in self.counts.iter().zip(owner.counts(now)) {
            shown.store(count, Ordering::Relaxed);
        }
        self.unstored.store(owner.unstored(), Ordering::Relaxed);
        self.unstored_since.store(since, Ordering::Relaxed);
        self.is_draining.store(owner.is_draining(), Ordering::Relaxed);
    }

    /// Reads the figures of an owner with this many requests in its queue.
    pub fn read(&self, queued: usize) -> OwnerReading {
        let some = |figure: &AtomicU64| Some(figure.load(Ordering::Relaxed)).filter(|figure| *figure != NONE);
        OwnerReading {
            requests: self.requests.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
            entries_max: some(&self.entries_max),
            counts: self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
            unstored: self.unstored.load(Ordering::Relaxed),
            unstored_since: some(&self.unstored_since).map(Moment::from_nanos),
            queued,
            is_draining: self.is_draining.load(Ordering::Relaxed),
        }
    }

    /// Returns how busy the owner was lately, for comparing owners: the number of its requests, of which
    /// older ones count less. `passed` is the time since the last call; calls must not overlap.
    pub fn recent(&self, passed: Duration) -> f64 {
        let requests = self.requests.load(Ordering::Relaxed);
        let new = requests.saturating_sub(self.weighed.swap(requests, Ordering::Relaxed));
        let kept = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let recent = f64::from_bits(self.recent.load(Ordering::Relaxed)) * kept + new as f64;
        self.recent.store(recent.to_bits(), Ordering::Relaxed);
        recent
    }
}
