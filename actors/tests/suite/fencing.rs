//! Storing entries of any kind: fences, guards, clashes, loading.

use actors::ids::{Epoch, Fence, Incarnation, SHARDS};
use actors::owning::kind::Kind;
use actors::store::batch::{FoundRows, Portion};
use actors::store::{ClusterStore, EntryStore, HandOff, Store, StoreError};

use crate::cluster::node;
use crate::subject::{Subject, load, loaded, on_different_shards, take_over, with_entries, write};
use crate::support::{Database, batch, found};

pub async fn a_batch_is_stored_before_a_claim_and_not_after_the_claim<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, owned) = with_entries::<D, T>(database, None, 2).await;
    take_over(&*store, &owned).await;
    let late = batch([owned.at(3..=4)]);
    assert_eq!(store.write(&late).await.unwrap(), 0);
    assert_eq!(found(&*store, &late).await, (false, FoundRows::Absent));
    assert_eq!(
        found(&*store, &batch([owned.at(1..=2)])).await,
        (false, FoundRows::Stored)
    );
    assert_eq!(loaded(&*store, &owned).await, 2);
}

pub async fn epoch_and_owner_must_both_match<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, mut owned) = with_entries::<D, T>(database, None, 0).await;
    let right = owned.fence();
    for fence in [
        Fence {
            epoch: Epoch::new(right.epoch.get() - 1),
            ..right
        },
        Fence {
            epoch: right.epoch.next(),
            ..right
        },
        Fence {
            owner: Incarnation::random(),
            ..right
        },
    ] {
        owned.set_fence(fence);
        assert_eq!(write(&*store, &owned, 1..=1).await, 0, "{fence:?}");
    }
    let shard = T::Kind::shard(owned.id());
    store.release(&[(shard, right)]).await.unwrap();
    owned.set_fence(right);
    assert_eq!(write(&*store, &owned, 1..=1).await, 0, "released");
}

pub async fn a_fenced_shard_does_not_hold_up_the_others<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let store = database.store();
    let owned: Vec<T> = on_different_shards(&*store, 3).await;
    take_over(&*store, &owned[1]).await;
    let portions: Vec<_> = owned.iter().map(|owned| owned.at(1..=4)).collect();
    let sent = batch(portions);
    assert_eq!(store.write(&sent).await.unwrap(), 8);
    let stands: Vec<_> = store
        .read_back(&sent)
        .await
        .unwrap()
        .into_iter()
        .map(|found| (found.fence_holds, found.rows))
        .collect();
    assert_eq!(
        stands,
        [
            (true, FoundRows::Stored),
            (false, FoundRows::Absent),
            (true, FoundRows::Stored)
        ]
    );
}

pub async fn a_batch_that_is_sent_again_clashes_and_is_found_stored<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, owned) = with_entries::<D, T>(database, None, 0).await;
    let sent = batch([owned.at(1..=50)]);
    assert_eq!(store.write(&sent).await.unwrap(), 50);
    assert!(matches!(store.write(&sent).await, Err(StoreError::Clash(_))));
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    assert_eq!(loaded(&*store, &owned).await, 50);
}

pub async fn other_rows_in_the_same_places_clash_and_nothing_of_the_batch_is_stored<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let store = database.store();
    let both: Vec<T> = on_different_shards(&*store, 2).await;
    let (owned, bystander) = (&both[0], &both[1]);
    assert_eq!(write(&*store, owned, 1..=3).await, 3);
    for run in owned.clashing() {
        let portion = owned.portion_of(run);
        let sent = batch([bystander.at(1..=2), portion.clone()]);
        assert!(
            matches!(store.write(&sent).await, Err(StoreError::Clash(_))),
            "{portion:?}"
        );
        assert_eq!(
            found(&*store, &batch([portion])).await,
            (true, FoundRows::Different)
        );
        assert_eq!(
            found(&*store, &batch([bystander.at(1..=2)])).await,
            (true, FoundRows::Absent)
        );
    }
    assert_eq!(loaded(&*store, owned).await, 3);
}

pub async fn rows_that_differ_in_one_field_are_different<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, owned) = with_entries::<D, T>(database, None, 2).await;
    for run in owned.differing() {
        let other = batch([owned.portion_of(run)]);
        assert_eq!(found(&*store, &other).await.1, FoundRows::Different, "{other:?}");
    }
    // Only some of the rows are stored, so this batch is not: portions are stored whole or not at all.
    assert_eq!(
        found(&*store, &batch([owned.at(1..=3)])).await.1,
        FoundRows::Different
    );
}

pub async fn a_refusing_guard_does_not_hold_up_other_portions<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let store = database.store();
    let mut owned: Vec<T> = Vec::new();
    for entries_max in [1, 10] {
        owned.push(T::make(&store, Some(entries_max)).await);
        renew(&mut owned);
    }
    let (narrow, wide) = (&owned[0], &owned[1]);
    let sent = batch([narrow.at(1..=2), wide.at(1..=2)]);
    assert_eq!(store.write(&sent).await.unwrap(), 2);
    assert_eq!(
        (loaded(&*store, narrow).await, loaded(&*store, wide).await),
        (0, 2)
    );
    assert_eq!(
        found(&*store, &batch([narrow.at(1..=2)])).await,
        (true, FoundRows::Absent)
    );
}

/// Gives the fence of the last subject to all subjects on its shard, because a claim changes the fence of the
/// whole shard.
fn renew<S, T: Subject<S>>(owned: &mut [T]) {
    let Some(last) = owned.last() else { return };
    let (shard, fence) = (T::Kind::shard(last.id()), last.fence());
    owned
        .iter_mut()
        .filter(|owned| T::Kind::shard(owned.id()) == shard)
        .for_each(|owned| owned.set_fence(fence));
}

pub async fn a_batch_of_many_portions_is_stored<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let store = database.store();
    let mut owned: Vec<T> = Vec::new();
    for _ in 0..100 {
        owned.push(T::make(&store, None).await);
        renew(&mut owned);
    }
    let portions: Vec<Portion<T::Kind>> = owned.iter().map(|owned| owned.at(1..=3)).collect();
    assert_eq!(store.write(&batch(portions)).await.unwrap(), 300);
}

pub async fn rows_loaded_ahead_are_completed<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, owned) = with_entries::<D, T>(database, None, 0).await;
    let mut ahead = load(&*store, &owned, None).await;
    assert_eq!(T::entries(&ahead), 0);
    for first in (1..=5_000).step_by(1_000) {
        let sent = batch([owned.at(first..=first + 999)]);
        assert_eq!(store.write(&sent).await.unwrap(), 1_000);
        ahead = load(&*store, &owned, Some(ahead)).await;
        assert_eq!(T::entries(&ahead), first + 999);
        // Loading is also complete if nothing was stored in between.
        ahead = load(&*store, &owned, Some(ahead)).await;
        assert_eq!(T::entries(&ahead), first + 999);
    }
    assert_eq!(loaded(&*store, &owned).await, 5_000);
}

pub async fn loading_stops_at_rows_that_the_owner_refuses<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, owned) = with_entries::<D, T>(database, None, 2).await;
    let ahead = load(&*store, &owned, None).await;
    assert_eq!(write(&*store, &owned, 4..=5).await, 2);
    for ahead in [None, Some(ahead)] {
        let result = store.load(owned.id(), ahead).await;
        assert!(matches!(result, Err(StoreError::Unreadable(_))), "{result:?}");
    }
}

pub async fn a_batch_is_stored_before_a_hand_off_and_not_after_the_hand_off<D, T>(database: &D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, mut owned) = with_entries::<D, T>(database, Some(10), 3).await;
    let ahead = load(&*store, &owned, None).await;
    let (from, to) = (owned.fence(), Incarnation::random());
    let shard = T::Kind::shard(owned.id());
    let row = store.hand_off(&[HandOff { shard, from, to }]).await.unwrap()[0];
    let late = batch([owned.at(4..=6)]);
    assert_eq!(store.write(&late).await.unwrap(), 0);
    assert_eq!(found(&*store, &late).await, (false, FoundRows::Absent));
    // The new epoch alone is not enough, nor is the new owner alone.
    for half in [
        Fence {
            epoch: row.epoch,
            ..from
        },
        Fence { owner: to, ..from },
    ] {
        owned.set_fence(half);
        assert_eq!(write(&*store, &owned, 4..=6).await, 0);
    }
    owned.set_fence(Fence {
        epoch: row.epoch,
        owner: to,
    });
    assert_eq!(write(&*store, &owned, 4..=6).await, 3);
    assert_eq!(T::entries(&load(&*store, &owned, Some(ahead)).await), 6);
}

pub async fn opening_again_finds_everything<D, T>(database: &mut D)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let (store, owned) = with_entries::<D, T>(database, Some(10), 0).await;
    let sent = batch([owned.at(1..=7)]);
    assert_eq!(store.write(&sent).await.unwrap(), 7);
    let joined = node("a");
    store.join(&joined, None).await.unwrap();
    let before = store.shards().await.unwrap();
    drop(store);
    database.reopen().await;
    let store = database.store();
    store.check().await.unwrap();
    assert_eq!(store.shards().await.unwrap(), before);
    assert_eq!(before.len(), usize::from(SHARDS));
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    assert_eq!(loaded(&*store, &owned).await, 7);
    assert_eq!(store.nodes().await.unwrap(), [joined]);
}
