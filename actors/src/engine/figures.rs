//! Figures of an engine that are collected when metrics are read: queues against their bounds, owners by
//! stage, the oldest unstored entry, the lease, and the busiest owners.

use std::sync::{Mutex, PoisonError};

use crate::admission::Admission;
use crate::engine::{Engine, NodeLinks};
use crate::metrics::handles;
use crate::owning::figures::OwnerReading;
use crate::owning::kind::Kind;
use crate::owning::request::OwnerCommand;
use crate::time::{self, Moment};

/// The bounded queues that no other part of the engine holds.
pub(super) struct Queues {
    /// The places of owners in memory.
    pub(super) owners: Admission,
    /// The places of owners that are being loaded or wait to be loaded.
    pub(super) loads: Admission,
    /// Maximum number of requests in one owner's queue.
    pub(super) owner_requests_max: usize,
    /// When the owners' numbers of requests were last compared.
    pub(super) compared_at: Mutex<Moment>,
}

/// Sums over all owners of a node.
#[derive(Default)]
struct Sums {
    serving: usize,
    draining: usize,
    longest_queue: usize,
    unstored_since: Option<Moment>,
}

impl Sums {
    fn add(&mut self, owner: &OwnerReading) {
        match owner.is_draining {
            true => self.draining += 1,
            false => self.serving += 1,
        }
        self.longest_queue = self.longest_queue.max(owner.queued);
        let oldest = self.unstored_since.into_iter().chain(owner.unstored_since);
        self.unstored_since = oldest.min();
    }
}

impl<K: Kind> Engine<K> {
    /// Sets the gauges that are collected on demand. Returns the owners with the most requests in the last
    /// minutes, at most `most`, in order of their ids. Counts of an owner that has had no mail since the last
    /// call are as of that call.
    pub fn collect(&self, most: usize) -> Vec<(K::Id, OwnerReading)> {
        let queues = &self.inner.queues;
        let mut compared_at = queues.compared_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::moment();
        let passed = now.since(std::mem::replace(&mut *compared_at, now));
        let mut sums = Sums::default();
        let mut owners = Vec::new();
        for shard in self.inner.shards.iter() {
            shard.each_owner(|id, owner| {
                let reading = owner.read();
                sums.add(&reading);
                owners.push((owner.recent(passed), id, reading));
            });
        }
        drop(compared_at);
        self.show(&sums, now);
        if owners.len() > most {
            // With an equal number of requests, the newer id comes first.
            owners.select_nth_unstable_by(most, |(a, a_id, _), (b, b_id, _)| {
                b.total_cmp(a).then(b_id.cmp(a_id))
            });
            owners.truncate(most);
        }
        owners.sort_unstable_by_key(|(_, id, _)| *id);
        let owners: Vec<_> = owners.into_iter().map(|(_, id, reading)| (id, reading)).collect();
        self.count_again(&owners);
        owners
    }

    /// Makes these owners set their figures, for the next call.
    fn count_again(&self, owners: &[(K::Id, OwnerReading)]) {
        for shard in self.inner.shards.iter() {
            shard.each_owner(|id, owner| {
                if owners.binary_search_by_key(&id, |(id, _)| *id).is_ok() {
                    owner.command(OwnerCommand::Count);
                }
            });
        }
    }

    fn show(&self, sums: &Sums, now: Moment) {
        let inner = &self.inner;
        let queues = &inner.queues;
        let metrics = handles();
        let age = sums.unstored_since.map(|since| now.since(since));
        metrics.oldest_unstored.set(age.unwrap_or_default().as_secs_f64());
        // The lease runs out while a beat hangs, so it is not measured by beats.
        let lease = inner.lease.remaining(now);
        metrics.lease_seconds.set(lease.as_secs_f64());
        metrics.owners.serving.set(sums.serving as f64);
        metrics.owners.draining.set(sums.draining as f64);
        metrics.owners.loading.set(queues.loads.taken() as f64);
        metrics.lanes.all.set(inner.lanes.count() as f64);
        metrics.lanes.delayed.set(inner.lanes.delayed() as f64);
        inner.router.show_queues();
        metrics
            .queues
            .owner
            .set(sums.longest_queue, queues.owner_requests_max);
        metrics
            .queues
            .owners
            .set(queues.owners.taken(), queues.owners.places());
        metrics
            .queues
            .loads
            .set(queues.loads.taken(), queues.loads.places());
        let (length, length_max) = inner.lanes.longest_queue();
        metrics.queues.lane.set(length, length_max);
        if let Some((length, length_max)) = inner.links.as_ref().and_then(NodeLinks::fullest) {
            metrics.queues.link.set(length, length_max);
        }
    }
}
