//! Handles of the database's calls, by kind, and of its connections, by pool.

use std::time::Instant;

use metrics::{Gauge, Histogram};

use super::{STORE_CALL_SECONDS, STORE_CONNECTIONS, STORE_CONNECTIONS_MAX, STORE_WAIT_SECONDS};

/// Kinds of calls of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreCall {
    /// Stores a batch.
    Batch,
    /// Reads back what is stored of a batch.
    ReadBack,
    /// Loads an owner.
    Load,
    /// Writes a beat.
    Beat,
    /// Reads the rows of nodes and shards.
    ClusterRead,
    /// Reads for a client.
    Read,
    /// Everything else, mostly what operators and administrators cause: claims, hand-offs, new coupons.
    Other,
}

impl StoreCall {
    const ALL: [Self; 7] = [
        Self::Batch,
        Self::ReadBack,
        Self::Load,
        Self::Beat,
        Self::ClusterRead,
        Self::Read,
        Self::Other,
    ];

    /// Returns the kind of a call on a connection of this pool. `work` is the path of the function that the
    /// call runs, as it is written in the source.
    pub(crate) fn of(work: &str, pool: Pool) -> Self {
        let name = work.rsplit(':').next().unwrap_or(work).trim();
        match name {
            "write" | "sqlite_write" => Self::Batch,
            "read_back" => Self::ReadBack,
            "mysql_head" | "mysql_page" | "sqlite_head" | "sqlite_page" => Self::Load,
            "beat" => Self::Beat,
            "nodes" | "shards" => Self::ClusterRead,
            _ if pool == Pool::Readers => Self::Read,
            _ => Self::Other,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::ReadBack => "read_back",
            Self::Load => "load",
            Self::Beat => "beat",
            Self::ClusterRead => "cluster_read",
            Self::Read => "read",
            Self::Other => "other",
        }
    }
}

/// Pools of connections to the database, each for one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Batches. With SQLite, the one connection that writes.
    Writers,
    /// Beats, and the rows read with them.
    Beats,
    /// Loading owners; on a server also claims and the calls of administrators.
    Others,
    /// Reads of clients.
    Readers,
}

impl Pool {
    const ALL: [Self; 4] = [Self::Writers, Self::Beats, Self::Others, Self::Readers];

    const fn label(self) -> &'static str {
        match self {
            Self::Writers => "writers",
            Self::Beats => "beats",
            Self::Others => "others",
            Self::Readers => "readers",
        }
    }
}

/// The handles of the database's calls and connections.
pub(crate) struct StoreHandles {
    calls: [Histogram; StoreCall::ALL.len()],
    pools: [PoolHandles; Pool::ALL.len()],
}

struct PoolHandles {
    wait: Histogram,
    in_use: Gauge,
    max: Gauge,
}

impl StoreHandles {
    pub(super) fn new() -> Self {
        Self {
            calls: StoreCall::ALL.map(|call| metrics::histogram!(STORE_CALL_SECONDS, "call" => call.label())),
            pools: Pool::ALL.map(|pool| PoolHandles {
                wait: metrics::histogram!(STORE_WAIT_SECONDS, "pool" => pool.label()),
                in_use: metrics::gauge!(STORE_CONNECTIONS, "pool" => pool.label()),
                max: metrics::gauge!(STORE_CONNECTIONS_MAX, "pool" => pool.label()),
            }),
        }
    }

    /// Records that a call which began at `begun` has ended.
    pub(crate) fn called(&self, call: StoreCall, begun: Instant) {
        self.calls[call as usize].record(begun.elapsed());
    }

    /// Records how long a call has waited for its connection. The connection is in use until the returned
    /// value is dropped.
    pub(crate) fn taken(&'static self, pool: Pool, begun: Instant) -> InUse {
        let handles = &self.pools[pool as usize];
        handles.wait.record(begun.elapsed());
        handles.in_use.increment(1.0);
        InUse(&handles.in_use)
    }

    /// Sets the maximum number of connections of a pool.
    pub(crate) fn set_max(&self, pool: Pool, max: u32) {
        self.pools[pool as usize].max.set(f64::from(max));
    }
}

/// Counts one connection as in use until this value is dropped.
#[derive(Debug)]
pub(crate) struct InUse(&'static Gauge);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_their_work_and_their_pool() {
        assert_eq!(
            StoreCall::of(stringify!(K::sqlite_write), Pool::Writers),
            StoreCall::Batch
        );
        assert_eq!(
            StoreCall::of(stringify!(cluster::beat), Pool::Beats),
            StoreCall::Beat
        );
        assert_eq!(
            StoreCall::of(stringify!(K::mysql_page), Pool::Others),
            StoreCall::Load
        );
        assert_eq!(
            StoreCall::of(stringify!(reads::coupon), Pool::Readers),
            StoreCall::Read
        );
        assert_eq!(
            StoreCall::of(stringify!(cluster::claim), Pool::Others),
            StoreCall::Other
        );
    }
}
