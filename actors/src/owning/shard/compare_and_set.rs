//! The compare-and-sets of a shard on its own row.

use crate::ids::{Fence, Incarnation, ShardId};
use crate::metrics::{handles, shard_moved};
use crate::owning::shard::lifecycle::Raise;
use crate::owning::shard::moves::Moves;
use crate::store::{Claim, HandOff, Result, ShardRow};
use crate::summary::{self, Occurrence};

/// Raises a shard's epoch from this fence, and commits. If the outcome is unknown, this can be repeated: it
/// also succeeds if the earlier attempt succeeded.
pub(super) async fn raise(moves: &Moves, id: ShardId, from: Fence) -> Raise {
    let seen = ShardRow {
        id,
        epoch: from.epoch,
        owner: Some(from.owner),
    };
    let claim = Claim {
        seen,
        claimant: from.owner,
    };
    match moves.raise(claim).await {
        Ok(row) => match row {
            Some(row) if row.owner == Some(from.owner) && row.epoch > from.epoch => {
                handles().shard_claims.increment(1);
                tracing::debug!(shard = %id, epoch = %row.epoch, "raised the epoch of a shard");
                summary::count(Occurrence::EpochRaised, None, None);
                Raise::Ours(Fence {
                    epoch: row.epoch,
                    owner: from.owner,
                })
            }
            // The epoch was not raised, for instance because the row was locked for too long.
            Some(row) if row == seen => Raise::Failed,
            Some(_) => Raise::Lost,
            None => Raise::Failed,
        },
        Err(error) => {
            tracing::debug!(shard = %id, %error, "the epoch of a shard was not raised yet");
            summary::count(
                Occurrence::EpochNotRaised,
                None,
                Some(format!("shard {id}: {error}")),
            );
            Raise::Failed
        }
    }
}

/// Hands a shard off to the incarnation `to` in the next epoch, or releases it if `to` is `None`. Returns the
/// row if the shard is certainly not owned here any more.
pub(super) async fn hand_off(
    moves: &Moves,
    id: ShardId,
    from: Fence,
    to: Option<Incarnation>,
) -> Option<ShardRow> {
    match named(moves, id, from, to).await {
        Ok(row) if row.is_none_or(|row| (row.epoch, row.owner) == (from.epoch, Some(from.owner))) => {
            tracing::debug!(shard = %id, "a shard was not handed off yet: its row is locked");
            summary::count(Occurrence::ShardLocked, to, Some(format!("shard {id}")));
            None
        }
        Ok(row) => {
            match to {
                Some(to) if row.is_none_or(|row| row.owner != Some(to)) => {
                    let epoch = from.epoch;
                    tracing::debug!(shard = %id, %epoch, %to, "a shard was lost before its hand-off");
                    summary::count(Occurrence::ShardLostBeforeHandOff, Some(to), None);
                }
                Some(to) => {
                    shard_moved("handed_off");
                    tracing::debug!(shard = %id, epoch = %from.epoch, %to, "handed a shard off");
                    summary::count(Occurrence::ShardHandedOff, Some(to), None);
                }
                None => {
                    shard_moved("released");
                    tracing::debug!(shard = %id, epoch = %from.epoch, "released a shard");
                    summary::count(Occurrence::ShardReleased, None, None);
                }
            }
            row
        }
        Err(error) => {
            tracing::debug!(shard = %id, %error, "a shard may not have been handed off");
            summary::count(
                Occurrence::HandOffUnknown,
                to,
                Some(format!("shard {id}: {error}")),
            );
            None
        }
    }
}

async fn named(moves: &Moves, id: ShardId, from: Fence, to: Option<Incarnation>) -> Result<Option<ShardRow>> {
    let Some(to) = to else {
        moves.release(id, from).await?;
        return Ok(Some(ShardRow {
            id,
            epoch: from.epoch,
            owner: None,
        }));
    };
    moves.hand_off(HandOff { shard: id, from, to }).await
}
