//! Work at every beat that belongs to no other part: passing owners' notices to this node's door, passivating
//! idle owners, setting gauges, logging summaries.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::cluster::lease::Lease;
use crate::metrics::handles;
use crate::owning::door::{Board, Door};
use crate::owning::kind::Kind;
use crate::owning::router::Router;
use crate::owning::shard::ShardHandle;
use crate::summary;
use crate::time;

/// Interval of sweeps, which drop requests and answers whose callers no longer wait. It is shorter than the
/// time that callers wait.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Runs the housekeeping task.
pub(super) struct Housekeeping<K: Kind> {
    pub(super) door: Arc<Door<K>>,
    pub(super) board: Arc<Board<K>>,
    pub(super) lease: Lease,
    pub(super) shards: Arc<[ShardHandle<K>]>,
    pub(super) router: Router<K>,
    pub(super) beat: Duration,
    pub(super) idle: Duration,
}

impl<K: Kind> Housekeeping<K> {
    pub(super) async fn run(self) {
        let mut beats = tokio::time::interval(self.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut swept_at, mut passivated_at) = (time::moment(), time::moment());
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = self.board.changed() => {}
            }
            let asked_at = time::moment();
            if let Some(incarnation) = self.lease.holder(asked_at) {
                self.door.hear(asked_at, self.board.read(incarnation));
            }
            summary::log_due();
            handles().door_notices.set(self.door.notices() as f64);
            handles().admitted.set(self.router.admitted() as f64);
            handles().moving_waiting.set(self.router.waiting() as f64);
            if asked_at.since(swept_at) >= SWEEP_EVERY {
                swept_at = asked_at;
                self.shards.iter().for_each(ShardHandle::sweep);
            }
            if asked_at.since(passivated_at) >= self.idle / 4 {
                passivated_at = asked_at;
                self.shards.iter().for_each(ShardHandle::passivate);
            }
        }
    }
}
