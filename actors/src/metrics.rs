//! All metrics of the engine in one table, with name, kind, unit and help, and the handles that the hot path
//! keeps. Each kind has a table of its own, and so has the node.
//!
//! Handles are looked up once, here. A metric that is not in [`METRICS`] does not exist: tests compare the
//! table with the metrics of a running node.

mod database;
mod groups;
mod known;

use std::sync::LazyLock;

pub use metrics::Unit;
use metrics::{Counter, Gauge, Histogram};

pub(crate) use database::{InUse, Pool, StoreCall, StoreHandles};
pub(crate) use groups::{LanesHandles, OwnersHandles, QueuesHandles, RowsHandles};
pub use known::register;
pub(crate) use known::shard_moved;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, as Prometheus shows it.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// The unit of its numbers.
    pub unit: Unit,
    /// Its meaning for an operator.
    pub help: &'static str,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy)]
pub enum MetricKind {
    /// A number that only rises until the process ends.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// Counts of observations in the buckets below these bounds.
    Histogram(&'static [f64]),
}

impl MetricKind {
    /// Returns the name of the kind in the text format of Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Bucket bounds for times from a tenth of a millisecond to ten seconds.
pub const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Bucket bounds for the times that clients wait, for which there are objectives: from a millisecond to five
/// seconds.
pub const OBJECTIVE_SECONDS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Bucket bounds for rows in a batch, up to the maximum of a batch.
pub const ROWS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0,
];

/// Declares a constant for each metric's name, and `METRICS` with all of them.
#[macro_export]
macro_rules! metric_table {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// All metrics of this table.
        pub const METRICS: &[$crate::metrics::Metric] = &[$($crate::metrics::Metric {
            name: $name,
            kind: $kind,
            unit: $crate::metrics::Unit::$unit,
            help: $help,
        },)*];
    };
}

metric_table! {
    DOOR_ANSWERS = "coupon_door_answers_total", MetricKind::Counter, Count,
        "Requests that the door answered without asking the owner.";
    DOOR_NOTICES = "coupon_door_notices", MetricKind::Gauge, Count, "Sold-out coupons that the door knows.";
    OWNERS_ACTIVE = "coupon_owners_active", MetricKind::Gauge, Count, "Owners in memory on this node.";
    OWNERS = "coupon_owners", MetricKind::Gauge, Count,
        "Owners on this node, by stage: loading (or waiting to be loaded), loaded ahead of a hand-off, \
         serving, draining.";
    OWNER_ACTIVATIONS = "coupon_owner_activations_total", MetricKind::Counter, Count,
        "Owners loaded from the store.";
    OWNER_ACTIVATION_SECONDS = "coupon_owner_activation_duration_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time to load an owner from the store.";
    OWNER_PANICS = "coupon_owner_panics_total", MetricKind::Counter, Count,
        "Owners that panicked and were reloaded.";
    ADMITTED = "coupon_requests_admitted", MetricKind::Gauge, Count,
        "Requests in this node's queues or waiting for their answer.";
    REQUESTS_REFUSED = "coupon_requests_refused_total", MetricKind::Counter, Count,
        "Requests refused because a queue was full, by bound: node (requests on this node), owner (requests of \
         one owner), owners (owners in memory, owners being loaded, and requests that wait for one of them), \
         link (requests sent to one peer), waiting (requests that wait for a moving shard).";
    QUEUE_LENGTH = "coupon_queue_length", MetricKind::Gauge, Count,
        "Entries in a bounded queue, by queue. For owners, lanes and links it is the fullest queue of each. The \
         queue of the log is measured in bytes.";
    QUEUE_LENGTH_MAX = "coupon_queue_length_max", MetricKind::Gauge, Count,
        "Bound of a queue, by queue. A queue at its bound refuses.";
    FORWARDED = "coupon_requests_forwarded_total", MetricKind::Counter, Count,
        "Attempts that went to an owner on another node.";
    MOVING_WAITING = "coupon_requests_waiting_for_owner", MetricKind::Gauge, Count,
        "Requests that wait on this node because their shard moves, has no owner, or did not answer.";
    SHARD_MOVES = "coupon_shard_moves_total", MetricKind::Counter, Count,
        "Changes of a shard's owner to or from this node, by kind: handed off, released, received, \
         claimed, lost.";
    SHARD_MOVE_SECONDS = "coupon_shard_move_duration_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time for which a shard had no owner, by kind: handed off, from closing it to the row that names \
         the next owner; taken over, from the last beat seen of its owner to the claim.";
    WAITING = "coupon_requests_waiting", MetricKind::Gauge, Count,
        "Answers decided here that wait at the output gate.";
    UNSTORED = "coupon_entries_unstored", MetricKind::Gauge, Count,
        "Entries decided minus entries stored, on this node.";
    OLDEST_UNSTORED = "coupon_oldest_unstored_entry_age_seconds", MetricKind::Gauge, Seconds,
        "Time since the oldest unstored entry was decided; 0 if everything is stored.";
    LANES = "coupon_lanes", MetricKind::Gauge, Count,
        "Lanes of this node, each of which stores one batch at a time.";
    LANES_BUSY = "coupon_lanes_busy", MetricKind::Gauge, Count,
        "Lanes that store a batch, or wait to send it again.";
    LANES_DELAYED = "coupon_lanes_delayed", MetricKind::Gauge, Count,
        "Lanes whose batch the store does not accept.";
    BATCH_ROWS = "coupon_batch_rows", MetricKind::Histogram(ROWS), Count, "Rows of a committed batch.";
    COMMIT_SECONDS = "coupon_commit_duration_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time from sending a batch to knowing that it is stored.";
    WRITE_RETRIES = "coupon_write_retries_total", MetricKind::Counter, Count,
        "Batches whose write failed or may have failed, by reason. They are sent again, or read back.";
    STORE_ERRORS = "coupon_store_errors_total", MetricKind::Counter, Count,
        "Calls of the database that failed, by kind: not_stored (a lock, no connection, a full disk), \
         unknown (the connection was lost, or no answer), clash (other rows, or a constraint), \
         unreadable (a missing table, rows that make no sense).";
    STORE_CALL_SECONDS = "coupon_store_call_duration_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time of a call of the database on its connection, by kind of call.";
    STORE_WAIT_SECONDS = "coupon_store_connection_wait_duration_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time until a call got a connection, including opening or testing it, by pool.";
    STORE_CONNECTIONS = "coupon_store_connections_in_use", MetricKind::Gauge, Count,
        "Connections to the database that a call uses, by pool.";
    STORE_CONNECTIONS_MAX = "coupon_store_connections_max", MetricKind::Gauge, Count,
        "Maximum number of connections to the database, by pool.";
    SQLITE_LOG_BYTES = "coupon_sqlite_log_bytes", MetricKind::Gauge, Bytes,
        "Size of SQLite's log (the file -wal), which is moved into the database at about 128 MiB.";
    FENCED_ROWS = "coupon_fenced_rows_total", MetricKind::Counter, Count,
        "Rows that the store refused because their shard has another owner or epoch.";
    CONTRADICTIONS = "coupon_contradictions_total", MetricKind::Counter, Count,
        "Portions that the store contradicted: other rows in their place, or guards that refuse. \
         Never expected.";
    SHARDS_OWNED = "coupon_shards_owned", MetricKind::Gauge, Count, "Shards this node serves.";
    SHARDS = "coupon_shards", MetricKind::Gauge, Count, "Shards of the cluster, a fixed number.";
    SHARDS_UNOWNED = "coupon_shards_unowned", MetricKind::Gauge, Count,
        "Shards whose row names no live node, as this node last read the rows.";
    SHARD_EPOCH_MAX = "coupon_shard_epoch_max", MetricKind::Gauge, Count,
        "Highest epoch of all shards, as this node last read the rows. It rises with every change of an \
         owner.";
    NODES = "coupon_cluster_nodes", MetricKind::Gauge, Count,
        "Live nodes of the cluster by state, as this node last read the rows.";
    SHARD_CLAIMS = "coupon_shard_claims_total", MetricKind::Counter, Count,
        "Successful shard claims, including those that raise the epoch of a shard of this node.";
    LEASE_SECONDS = "coupon_lease_remaining_seconds", MetricKind::Gauge, Seconds,
        "Time left in this node's lease; 0 without one.";
    BEATS = "coupon_beats_total", MetricKind::Counter, Count, "Beats in the database, by result.";
    WENT_BACKWARDS = "coupon_database_went_backwards_total", MetricKind::Counter, Count,
        "Times the database had lost a confirmed beat: a restore, or a bad fail-over. Never expected.";
    PEERS_UP = "coupon_peers_up", MetricKind::Gauge, Count, "Peers to which this node has a link.";
    PEER_ROUND_TRIP = "coupon_peer_round_trip_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time from a heartbeat to a peer to its answer.";
    PEER_FRAMES = "coupon_peer_frames_total", MetricKind::Counter, Count,
        "Frames sent to and received from peers, by direction.";
    PEER_BYTES = "coupon_peer_bytes_total", MetricKind::Counter, Bytes,
        "Bytes of frames sent to and received from peers, by direction.";
    PEER_FRAME_REQUESTS = "coupon_peer_frame_requests", MetricKind::Histogram(ROWS), Count,
        "Requests that went to a peer in one frame.";
    PEER_REFUSED = "coupon_peer_refused_total", MetricKind::Counter, Count,
        "Frames that were dropped, and connections and links that were refused or given up, by reason.";
    PEER_REDIALS = "coupon_peer_redials_total", MetricKind::Counter, Count,
        "Dials of peers that had been dialled before.";
    PEER_IN_FLIGHT = "coupon_peer_requests_in_flight", MetricKind::Gauge, Count,
        "Requests sent to peers and not yet answered.";
    PEER_WINDOWS_FULL = "coupon_peer_windows_full_total", MetricKind::Counter, Count,
        "Requests refused because too many were in flight, to the peer or to the owner.";
}

/// Passes the units and the help of these metrics to the recorder. Call it once, after the recorder is
/// installed.
pub fn describe(table: &[Metric]) {
    for metric in table {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// The engine's handles, looked up once.
pub(crate) struct Handles {
    pub(crate) owners: OwnersHandles,
    pub(crate) queues: QueuesHandles,
    pub(crate) lanes: LanesHandles,
    pub(crate) rows: RowsHandles,
    pub(crate) door_answers: Counter,
    pub(crate) door_notices: Gauge,
    pub(crate) owners_active: Gauge,
    pub(crate) owner_activations: Counter,
    pub(crate) owner_activation_seconds: Histogram,
    pub(crate) owner_panics: Counter,
    pub(crate) admitted: Gauge,
    pub(crate) refused_by_node: Counter,
    pub(crate) refused_by_owner: Counter,
    pub(crate) refused_by_owners: Counter,
    pub(crate) refused_by_link: Counter,
    pub(crate) refused_waiting: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) moving_waiting: Gauge,
    pub(crate) hand_off_seconds: Histogram,
    pub(crate) take_over_seconds: Histogram,
    pub(crate) waiting: Gauge,
    pub(crate) unstored: Gauge,
    pub(crate) oldest_unstored: Gauge,
    pub(crate) batch_rows: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) retries_not_stored: Counter,
    pub(crate) retries_unknown: Counter,
    pub(crate) retries_clash: Counter,
    pub(crate) store_not_stored: Counter,
    pub(crate) store_unknown: Counter,
    pub(crate) store_clashes: Counter,
    pub(crate) store_unreadable: Counter,
    pub(crate) store: StoreHandles,
    pub(crate) sqlite_log_bytes: Gauge,
    pub(crate) fenced_rows: Counter,
    pub(crate) contradictions: Counter,
    pub(crate) shards_owned: Gauge,
    pub(crate) shard_claims: Counter,
    pub(crate) lease_seconds: Gauge,
    pub(crate) beats_ok: Counter,
    pub(crate) beats_failed: Counter,
    pub(crate) went_backwards: Counter,
}

/// Returns the engine's handles. First used when an engine starts, which is after the recorder is installed.
pub(crate) fn handles() -> &'static Handles {
    static HANDLES: LazyLock<Handles> = LazyLock::new(|| {
        let retry = |reason: &'static str| metrics::counter!(WRITE_RETRIES, "reason" => reason);
        let store_error = |kind: &'static str| metrics::counter!(STORE_ERRORS, "kind" => kind);
        Handles {
            owners: OwnersHandles::new(),
            queues: QueuesHandles::new(),
            lanes: LanesHandles::new(),
            rows: RowsHandles::new(),
            door_answers: metrics::counter!(DOOR_ANSWERS),
            door_notices: metrics::gauge!(DOOR_NOTICES),
            owners_active: metrics::gauge!(OWNERS_ACTIVE),
            owner_activations: metrics::counter!(OWNER_ACTIVATIONS),
            owner_activation_seconds: metrics::histogram!(OWNER_ACTIVATION_SECONDS),
            owner_panics: metrics::counter!(OWNER_PANICS),
            admitted: metrics::gauge!(ADMITTED),
            refused_by_node: metrics::counter!(REQUESTS_REFUSED, "bound" => "node"),
            refused_by_owner: metrics::counter!(REQUESTS_REFUSED, "bound" => "owner"),
            refused_by_owners: metrics::counter!(REQUESTS_REFUSED, "bound" => "owners"),
            refused_by_link: metrics::counter!(REQUESTS_REFUSED, "bound" => "link"),
            refused_waiting: metrics::counter!(REQUESTS_REFUSED, "bound" => "waiting"),
            forwarded: metrics::counter!(FORWARDED),
            moving_waiting: metrics::gauge!(MOVING_WAITING),
            hand_off_seconds: metrics::histogram!(SHARD_MOVE_SECONDS, "kind" => "handed_off"),
            take_over_seconds: metrics::histogram!(SHARD_MOVE_SECONDS, "kind" => "taken_over"),
            waiting: metrics::gauge!(WAITING),
            unstored: metrics::gauge!(UNSTORED),
            oldest_unstored: metrics::gauge!(OLDEST_UNSTORED),
            batch_rows: metrics::histogram!(BATCH_ROWS),
            commit_seconds: metrics::histogram!(COMMIT_SECONDS),
            retries_not_stored: retry("not_stored"),
            retries_unknown: retry("unknown"),
            retries_clash: retry("clash"),
            store_not_stored: store_error("not_stored"),
            store_unknown: store_error("unknown"),
            store_clashes: store_error("clash"),
            store_unreadable: store_error("unreadable"),
            store: StoreHandles::new(),
            sqlite_log_bytes: metrics::gauge!(SQLITE_LOG_BYTES),
            fenced_rows: metrics::counter!(FENCED_ROWS),
            contradictions: metrics::counter!(CONTRADICTIONS),
            shards_owned: metrics::gauge!(SHARDS_OWNED),
            shard_claims: metrics::counter!(SHARD_CLAIMS),
            lease_seconds: metrics::gauge!(LEASE_SECONDS),
            beats_ok: metrics::counter!(BEATS, "result" => "ok"),
            beats_failed: metrics::counter!(BEATS, "result" => "failed"),
            went_backwards: metrics::counter!(WENT_BACKWARDS),
        }
    });
    &HANDLES
}

/// The handles of links, looked up once. They are separate from [`Handles`], as a single node has no links.
pub(crate) struct PeerHandles {
    pub(crate) peers_up: Gauge,
    pub(crate) round_trip: Histogram,
    pub(crate) frames_sent: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) frame_requests: Histogram,
    pub(crate) redials: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) windows_full_peer: Counter,
    pub(crate) windows_full_flow: Counter,
}

impl PeerHandles {
    /// Counts a refusal. Refusals are rare enough to look the metric up each time.
    pub(crate) fn refuse(&self, reason: &'static str) {
        debug_assert!(
            known::PEER_REFUSALS.contains(&reason),
            "{reason} is not registered"
        );
        metrics::counter!(PEER_REFUSED, "reason" => reason).increment(1);
    }
}

/// Returns the handles of links. First used when links start, which is after the recorder is installed.
pub(crate) fn peer_handles() -> &'static PeerHandles {
    static HANDLES: LazyLock<PeerHandles> = LazyLock::new(|| {
        let full = |of: &'static str| metrics::counter!(PEER_WINDOWS_FULL, "of" => of);
        PeerHandles {
            peers_up: metrics::gauge!(PEERS_UP),
            round_trip: metrics::histogram!(PEER_ROUND_TRIP),
            frames_sent: metrics::counter!(PEER_FRAMES, "direction" => "sent"),
            frames_received: metrics::counter!(PEER_FRAMES, "direction" => "received"),
            bytes_sent: metrics::counter!(PEER_BYTES, "direction" => "sent"),
            bytes_received: metrics::counter!(PEER_BYTES, "direction" => "received"),
            frame_requests: metrics::histogram!(PEER_FRAME_REQUESTS),
            redials: metrics::counter!(PEER_REDIALS),
            in_flight: metrics::gauge!(PEER_IN_FLIGHT),
            windows_full_peer: full("peer"),
            windows_full_flow: full("owner"),
        }
    });
    &HANDLES
}
