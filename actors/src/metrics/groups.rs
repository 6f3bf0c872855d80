//! Handles that belong together: those of owners, queues, lanes, and of what the rows say.

use metrics::Gauge;

use super::{
    LANES, LANES_BUSY, LANES_DELAYED, NODES, OWNERS, QUEUE_LENGTH, QUEUE_LENGTH_MAX, SHARD_EPOCH_MAX, SHARDS,
    SHARDS_UNOWNED,
};

/// The gauges of one bounded queue.
pub(crate) struct QueueHandles {
    length: Gauge,
    length_max: Gauge,
}

impl QueueHandles {
    fn of(queue: &'static str) -> Self {
        Self {
            length: metrics::gauge!(QUEUE_LENGTH, "queue" => queue),
            length_max: metrics::gauge!(QUEUE_LENGTH_MAX, "queue" => queue),
        }
    }

    /// Sets the length and the bound.
    pub(crate) fn set(&self, length: usize, length_max: usize) {
        self.length.set(length as f64);
        self.length_max.set(length_max as f64);
    }
}

/// Owners by stage.
pub(crate) struct OwnersHandles {
    pub(crate) loading: Gauge,
    pub(crate) ahead: Gauge,
    pub(crate) serving: Gauge,
    pub(crate) draining: Gauge,
}

impl OwnersHandles {
    pub(super) fn new() -> Self {
        let owners = |stage: &'static str| metrics::gauge!(OWNERS, "stage" => stage);
        Self {
            loading: owners("loading"),
            ahead: owners("loaded_ahead"),
            serving: owners("serving"),
            draining: owners("draining"),
        }
    }
}

/// The engine's bounded queues.
pub(crate) struct QueuesHandles {
    pub(crate) node: QueueHandles,
    pub(crate) moving: QueueHandles,
    pub(crate) owner: QueueHandles,
    pub(crate) owners: QueueHandles,
    pub(crate) loads: QueueHandles,
    pub(crate) lane: QueueHandles,
    pub(crate) link: QueueHandles,
}

impl QueuesHandles {
    pub(super) fn new() -> Self {
        Self {
            node: QueueHandles::of("node"),
            moving: QueueHandles::of("moving"),
            owner: QueueHandles::of("owner"),
            owners: QueueHandles::of("owners"),
            loads: QueueHandles::of("loads"),
            lane: QueueHandles::of("lane"),
            link: QueueHandles::of("link"),
        }
    }
}

/// Numbers of lanes.
pub(crate) struct LanesHandles {
    pub(crate) all: Gauge,
    pub(crate) busy: Gauge,
    pub(crate) delayed: Gauge,
}

impl LanesHandles {
    pub(super) fn new() -> Self {
        Self {
            all: metrics::gauge!(LANES),
            busy: metrics::gauge!(LANES_BUSY),
            delayed: metrics::gauge!(LANES_DELAYED),
        }
    }
}

/// What the rows of nodes and shards say.
pub(crate) struct RowsHandles {
    pub(crate) shards: Gauge,
    pub(crate) unowned: Gauge,
    pub(crate) epoch_max: Gauge,
    pub(crate) joining: Gauge,
    pub(crate) ready: Gauge,
    pub(crate) leaving: Gauge,
}

impl RowsHandles {
    pub(super) fn new() -> Self {
        let nodes = |state: &'static str| metrics::gauge!(NODES, "state" => state);
        Self {
            shards: metrics::gauge!(SHARDS),
            unowned: metrics::gauge!(SHARDS_UNOWNED),
            epoch_max: metrics::gauge!(SHARD_EPOCH_MAX),
            joining: nodes("joining"),
            ready: nodes("ready"),
            leaving: nodes("leaving"),
        }
    }
}
