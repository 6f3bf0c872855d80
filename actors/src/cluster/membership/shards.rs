//! Carries out what was planned for the shards after a beat: drops, loads ahead, hands off and claims them.
//! Nothing here waits: claims run beside the beats.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::cluster::claim::{HandOffPlan, ShardSteps};
use crate::cluster::membership::Shared;
use crate::cluster::membership::claiming::ClaimsUnderWay;
use crate::cluster::ownership::{Holder, ShardLocation};
use crate::critical::critical;
use crate::ids::{Fence, Incarnation};
use crate::metrics::{handles, shard_moved};
use crate::store::{Claim, NodeRow, NodeState, ShardRow};
use crate::summary::{self, Occurrence};
use crate::time::{self, Moment};

/// The claims of a node, which its rounds begin and the answers of the store end.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) under_way: ClaimsUnderWay,
    /// True if the node was inside the group as of the last round.
    is_inside: bool,
}

/// Shows in the metrics what the rows say about nodes and shards.
pub(super) fn show(nodes: &[NodeRow], shards: &[ShardRow]) {
    let metrics = &handles().rows;
    let count = |state: NodeState| nodes.iter().filter(|node| node.state == state).count() as f64;
    metrics.joining.set(count(NodeState::Joining));
    metrics.ready.set(count(NodeState::Ready));
    metrics.leaving.set(count(NodeState::Leaving));
    let is_live = |owner| {
        let mut live = nodes.iter().filter(|node| node.state != NodeState::Ended);
        live.any(|node| node.incarnation == owner)
    };
    let unowned = shards.iter().filter(|shard| !shard.owner.is_some_and(is_live));
    metrics.shards.set(shards.len() as f64);
    metrics.unowned.set(unowned.count() as f64);
    let epochs = shards.iter().map(|shard| shard.epoch.get());
    metrics.epoch_max.set(epochs.max().unwrap_or(0) as f64);
}

impl Shared {
    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the steps of a round. `silent` has the nodes that died recently, and when their last beats
    /// were first seen.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        me: Incarnation,
        is_inside: bool,
        steps: ShardSteps,
        silent: &HashMap<Incarnation, Moment>,
    ) {
        let ShardSteps {
            claim,
            drop,
            load_ahead,
            hand_off,
        } = steps;
        for id in drop {
            let ShardLocation { epoch, holder } = self.ownership.location(id);
            shard_moved("lost");
            tracing::debug!(shard = %id, %epoch, ?holder, "another node owns this shard now");
            let owner = match holder {
                Holder::Peer(owner) | Holder::Unreachable(owner) => Some(owner),
                Holder::Local | Holder::Unowned => None,
            };
            summary::count(
                Occurrence::ShardLost,
                owner,
                Some(format!("shard {id}, epoch {epoch}")),
            );
            self.local.lost(id);
        }
        for (id, to) in load_ahead {
            self.local.ask_to_load_ahead(id, to);
        }
        for HandOffPlan { shard, from, to } in hand_off {
            self.local.hand_off(shard, from, to);
        }
        let mut claims = self.claims();
        claims.is_inside = is_inside;
        let portions = claims.under_way.begin(me, &claim);
        self.show_ready(&claims);
        if !portions.is_empty() {
            let claiming = Arc::clone(self).claim(portions, silent.clone());
            tokio::spawn(critical("claims", claiming));
        }
    }

    /// Claims these portions one after another, and serves what was claimed. What is not claimed is planned
    /// again by a later round.
    async fn claim(self: Arc<Self>, portions: Vec<Vec<Claim>>, silent: HashMap<Incarnation, Moment>) {
        for portion in portions {
            let rows = self.store.claim(&portion).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "claiming shards failed");
                Vec::new()
            });
            self.claimed(&portion, &rows, &silent);
        }
    }

    /// Serves the shards that were claimed. Requests that arrive later are served, because mailboxes keep the
    /// order.
    fn claimed(&self, portion: &[Claim], rows: &[ShardRow], silent: &HashMap<Incarnation, Moment>) {
        // The lock is held until the shards know of their claims. So a round that judges a shard sees either
        // that its claim is under way or that its state has changed. And no shard is served for an
        // incarnation that ended meanwhile.
        let mut claims = self.claims();
        let claimed = claims.under_way.answered(portion, rows);
        let count = claimed.len();
        for (claim, fence) in claimed {
            self.serve(claim, fence, silent);
        }
        self.show_ready(&claims);
        handles().shard_claims.increment(count as u64);
        if count < portion.len() {
            tracing::debug!(
                claimed = count,
                wanted = portion.len(),
                "did not claim all shards"
            );
        }
    }

    fn serve(&self, claim: &Claim, fence: Fence, silent: &HashMap<Incarnation, Moment>) {
        shard_moved("claimed");
        let (shard, before) = (claim.seen.id, claim.seen.owner);
        let named = before.map(tracing::field::display);
        tracing::debug!(%shard, epoch = %fence.epoch, before = named, "claimed a shard");
        summary::count(Occurrence::ShardClaimed, before, None);
        if let Some(since) = before.and_then(|owner| silent.get(&owner)) {
            handles()
                .take_over_seconds
                .record(time::moment().since(*since).as_secs_f64());
        }
        // The shard is served before it is published, so that a request routed here is served.
        self.local.claimed(shard, fence);
        self.peers.publish(shard, fence);
        self.ownership.learn(shard, fence);
    }

    /// Updates whether the node is ready. A node that has once claimed all its shards stays ready while it
    /// takes over other shards. If it did not, a load balancer could drop all nodes during a take-over.
    fn show_ready(&self, claims: &Claims) {
        let has_all = claims.under_way.are_complete() || self.is_ready();
        self.set_ready(claims.is_inside && has_all);
    }

    /// Notes that nothing is served any more. A claim that is answered later does not make the node ready;
    /// the next round may.
    pub(super) fn show_unready(&self) {
        let mut claims = self.claims();
        claims.is_inside = false;
        self.show_ready(&claims);
    }
}
