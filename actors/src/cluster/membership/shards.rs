//! Carries out what was planned for the shards after a beat: drops, loads ahead, hands off and claims them.

use std::collections::HashMap;

use crate::cluster::claim::{HandOffPlan, ShardSteps};
use crate::cluster::membership::Shared;
use crate::cluster::ownership::{Holder, ShardLocation};
use crate::ids::Incarnation;
use crate::metrics::{handles, shard_moved};
use crate::store::{Claim, Result};
use crate::summary::{self, Occurrence};
use crate::time::{self, Moment};

/// Maximum number of shards that one call claims. The claimed shards are served before the next call. If one
/// call claimed all shards of a cluster, a slow database could take longer than a round is allowed to take.
/// Then no shard would be served, and all shards would be claimed again.
const CLAIMS_MAX: usize = 32;

impl Shared {
    /// Carries out the steps. Returns how many of the planned claims were not made.
    pub(super) async fn carry_out(
        &self,
        sent_at: Moment,
        steps: ShardSteps,
        silent: &HashMap<Incarnation, Moment>,
    ) -> Result<usize> {
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
                Holder::Peer(owner) => Some(owner),
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
        let mut missing = claim.len();
        for claims in claim.chunks(CLAIMS_MAX) {
            missing -= self.claim(claims, silent).await?;
            // The next round claims the rest. The next beat must be sent within two beats of this one,
            // because beats further apart prove nothing about other nodes.
            if time::moment().since(sent_at) >= self.options.beat * 3 / 2 {
                break;
            }
        }
        Ok(missing)
    }

    /// Claims these shards, and serves those whose claim succeeded. Returns their number. Requests that
    /// arrive later are served, because mailboxes keep the order.
    async fn claim(&self, claims: &[Claim], silent: &HashMap<Incarnation, Moment>) -> Result<usize> {
        let rows = self.store.claim(claims).await?;
        let mut claimed = 0;
        for (claim, row) in claims.iter().zip(rows) {
            if let Some(fence) = claim.fence(&row) {
                claimed += 1;
                shard_moved("claimed");
                let before = claim.seen.owner;
                let named = before.map(tracing::field::display);
                tracing::debug!(shard = %row.id, epoch = %row.epoch, before = named, "claimed a shard");
                summary::count(Occurrence::ShardClaimed, before, None);
                if let Some(since) = before.and_then(|owner| silent.get(&owner)) {
                    handles()
                        .take_over_seconds
                        .record(time::moment().since(*since).as_secs_f64());
                }
                // The shard is served before it is published, so that a request routed here is served.
                self.local.claimed(row.id, fence);
                self.peers.publish(row.id, fence);
                self.ownership.learn(row.id, fence);
            }
        }
        handles().shard_claims.increment(claimed as u64);
        if claimed < claims.len() {
            tracing::debug!(claimed, wanted = claims.len(), "did not claim all shards");
        }
        Ok(claimed)
    }
}
