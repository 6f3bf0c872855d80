//! What a shard asks of the store about its own row.

use crate::ids::{Fence, Incarnation, ShardId};
use crate::metrics::{handles, shard_moved};
use crate::owning::shard::lifecycle::Raise;
use crate::store::{Claim, HandOver, Result, ShardRow, Store};

/// Raises a shard's epoch from the fence under which it is ours, and commits. Asked again after an unknown
/// outcome, it finds its own earlier success.
pub(super) async fn raise(store: &dyn Store, id: ShardId, from: Fence) -> Raise {
    let seen = ShardRow {
        id,
        epoch: from.epoch,
        owner: Some(from.owner),
    };
    match store
        .claim(&[Claim {
            seen,
            claimant: from.owner,
        }])
        .await
    {
        Ok(rows) => match rows.first() {
            Some(row) if row.owner == Some(from.owner) && row.epoch > from.epoch => {
                handles().shard_claims.increment(1);
                tracing::info!(shard = %id, epoch = %row.epoch, "raised the epoch of a shard of ours");
                Raise::Ours(Fence {
                    epoch: row.epoch,
                    owner: from.owner,
                })
            }
            // Not raised, say because its row was locked for too long.
            Some(row) if *row == seen => Raise::Failed,
            Some(_) => Raise::Lost,
            None => Raise::Failed,
        },
        Err(error) => {
            tracing::warn!(shard = %id, %error, "the epoch was not raised yet");
            Raise::Failed
        }
    }
}

/// Gives a shard up: to this node in the next epoch, or to nobody. The row, if the shard surely is ours no
/// more.
pub(super) async fn give(
    store: &dyn Store,
    id: ShardId,
    from: Fence,
    to: Option<Incarnation>,
) -> Option<ShardRow> {
    match given(store, id, from, to).await {
        Ok(row) if row.is_none_or(|row| (row.epoch, row.owner) == (from.epoch, Some(from.owner))) => {
            tracing::warn!(shard = %id, "a shard was not given up yet: its row is locked");
            None
        }
        Ok(row) => {
            match to {
                Some(to) if row.is_none_or(|row| row.owner != Some(to)) => {
                    tracing::warn!(shard = %id, epoch = %from.epoch, %to, "a shard was another's before it was handed over");
                }
                Some(to) => {
                    shard_moved("handed_over");
                    tracing::info!(shard = %id, epoch = %from.epoch, %to, "handed a shard over");
                }
                None => {
                    shard_moved("released");
                    tracing::info!(shard = %id, epoch = %from.epoch, "released a shard");
                }
            }
            row
        }
        Err(error) => {
            tracing::warn!(shard = %id, %error, "a shard may not have been given up");
            None
        }
    }
}

async fn given(
    store: &dyn Store,
    id: ShardId,
    from: Fence,
    to: Option<Incarnation>,
) -> Result<Option<ShardRow>> {
    let Some(to) = to else {
        store.release(&[(id, from)]).await?;
        return Ok(Some(ShardRow {
            id,
            epoch: from.epoch,
            owner: None,
        }));
    };
    Ok(store
        .hand_over(&[HandOver { shard: id, from, to }])
        .await?
        .first()
        .copied())
}
