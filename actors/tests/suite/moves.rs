//! Claims, hand-offs and releases of many shards: how many statements they take, and which locks.

use actors::ids::{Fence, Incarnation, ShardId};
use actors::store::{Claim, ClusterStore, HandOff, StoreError};
use testkit::servers::{ServerKind, run};
use tokio::time::Instant;

use crate::database::OnServer;
use crate::locks::{waiting, with_long_lock_waits};
use crate::plans::statements;
use testkit::poll::eventually;

async fn claims_of(store: &impl ClusterStore, claimant: Incarnation, count: usize) -> Vec<Claim> {
    let rows = store.shards().await.unwrap();
    let claim = |seen| Claim { seen, claimant };
    rows.into_iter().take(count).map(claim).collect()
}

/// If each shard took a statement and a commit, a take-over on a database with slow commits would outlast
/// leases.
pub async fn many_shards_are_claimed_handed_off_and_released_by_few_statements(kind: ServerKind) {
    const SHARDS: usize = 128;
    let database = OnServer::through(kind, None).await;
    let (store, mut shell) = (&database.store, database.shell().await);
    let (owner, to) = (Incarnation::random(), Incarnation::random());
    let claims = claims_of(&**store, owner, SHARDS).await;
    let before = statements(&mut shell).await;
    let rows = store.claim(&claims).await.unwrap();
    let hand_offs: Vec<HandOff> = rows
        .iter()
        .map(|row| HandOff {
            shard: row.id,
            from: Fence {
                epoch: row.epoch,
                owner,
            },
            to,
        })
        .collect();
    let rows = store.hand_off(&hand_offs).await.unwrap();
    let held: Vec<(ShardId, Fence)> = rows
        .iter()
        .map(|row| {
            let fence = Fence {
                epoch: row.epoch,
                owner: to,
            };
            (row.id, fence)
        })
        .collect();
    store.release(&held).await.unwrap();
    let taken = statements(&mut shell).await - before;
    let rows = store.shards().await.unwrap();
    assert!(
        rows[..SHARDS]
            .iter()
            .all(|row| row.epoch.get() == 2 && row.owner.is_none())
    );
    // Each of the three calls takes two statements and perhaps a new connection. Two of the calls also read.
    assert!(taken <= 24, "{taken} statements");
}

pub async fn a_shard_that_stays_locked_does_not_hold_up_the_claims_of_others(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let (store, mut holder) = (&database.store, database.shell().await);
    run(
        &mut holder,
        "BEGIN; SELECT * FROM shards WHERE shard_id = 40 FOR UPDATE",
    )
    .await;
    let claimant = Incarnation::random();
    let claims = claims_of(&**store, claimant, 100).await;
    let begun = Instant::now();
    let rows = store.claim(&claims).await.unwrap();
    let took = begun.elapsed();
    for row in &rows {
        let owner = (row.id.get() != 40).then_some(claimant);
        assert_eq!(row.owner, owner, "shard {}", row.id);
    }
    // The store waits for the lock once, and not again for each later shard.
    assert!(took.as_millis() < 4_000, "{took:?}");
    let held: Vec<(ShardId, Fence)> = rows
        .iter()
        .map(|row| {
            let fence = Fence {
                epoch: row.epoch,
                owner: claimant,
            };
            (row.id, fence)
        })
        .collect();
    run(
        &mut holder,
        "ROLLBACK; BEGIN; SELECT * FROM shards WHERE shard_id = 41 FOR UPDATE",
    )
    .await;
    assert!(
        matches!(
            store.release(&held).await,
            Err(StoreError::NotStored(_) | StoreError::Unknown(_))
        ),
        "a shard was not released"
    );
    let rows = store.shards().await.unwrap();
    let owned: Vec<u16> = rows
        .iter()
        .filter(|row| row.owner.is_some())
        .map(|row| row.id.get())
        .collect();
    assert_eq!(owned, [41]);
    run(&mut holder, "ROLLBACK").await;
    store.release(&held).await.unwrap();
    assert!(
        store
            .shards()
            .await
            .unwrap()
            .iter()
            .all(|row| row.owner.is_none())
    );
}

pub async fn waiting_claims_have_locked_only_the_shards_that_they_name(kind: ServerKind) {
    let (_, database) = with_long_lock_waits(kind).await;
    let (store, mut holder) = (database.store.clone(), database.shell().await);
    let mut watcher = database.shell().await;
    run(
        &mut holder,
        "BEGIN; SELECT * FROM shards WHERE shard_id = 40 FOR UPDATE",
    )
    .await;
    let claimant = Incarnation::random();
    let mut claims = claims_of(&*store, claimant, 100).await;
    // Every second shard up to the locked one.
    claims.retain(|claim| claim.seen.id.get() % 2 == 0 && claim.seen.id.get() <= 40);
    let named = claims.clone();
    let claiming = tokio::spawn(async move { store.claim(&named).await });
    eventually("the claims wait", async || waiting(&mut watcher).await == 1).await;
    let others: Vec<Claim> = claims_of(&*database.store, Incarnation::random(), 100)
        .await
        .into_iter()
        .filter(|claim| claim.seen.id.get() % 2 == 1 || claim.seen.id.get() > 40)
        .collect();
    let rows = database.store.claim(&others).await.unwrap();
    assert!(
        others
            .iter()
            .zip(rows)
            .all(|(claim, row)| claim.fence(&row).is_some()),
        "a shard that was not named is locked"
    );
    run(&mut holder, "ROLLBACK").await;
    match claiming.await.unwrap() {
        Ok(rows) => assert!(rows.iter().all(|row| row.owner == Some(claimant))),
        // On a busy machine the store stops waiting, and the statement goes on.
        Err(error) => assert!(matches!(error, StoreError::Unknown(_)), "{error}"),
    }
}
