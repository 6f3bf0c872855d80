//! Loads an owner's state from the store. Either everything is loaded at once, or the rows are loaded before
//! this node owns the shard, and the rest afterwards.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::admission::{Admission, Permit};
use crate::metrics::handles;
use crate::owning::kind::Kind;
use crate::owning::shard::lifecycle::Load;
use crate::store::{Loaded, Result, Store};
use crate::summary::{self, Occurrence};

/// How loading ended.
#[derive(Debug)]
pub enum LoadResult<K: Kind> {
    /// Everything that an owner is made of was read.
    Read(OwnerParts<K>),
    /// The id does not exist.
    Absent,
    /// The store did not answer, or the stored rows cannot be read. The log says which.
    Failed,
    /// The node has as many owners as it may have.
    NoPlace,
}

/// What an owner is made of.
#[derive(Debug)]
pub struct OwnerParts<K: Kind> {
    /// The state from which the owner decides.
    pub state: Box<K::State>,
    /// The owner's place among the owners of the node.
    pub place: Permit,
}

/// Rows that were read without a fence. Stored rows never change, and new rows are only added after them. So
/// these rows are the beginning of what is stored, and only the rest is missing.
#[derive(Debug)]
pub struct AheadRows<K: Kind> {
    /// The rows.
    pub rows: K::Rows,
    /// The place of the owner that will be made of them.
    pub place: Permit,
}

impl<K: Kind> LoadResult<K> {
    /// Returns the event for the shard, and what was read.
    pub(super) fn split(self) -> (Load, Option<OwnerParts<K>>) {
        match self {
            Self::Read(parts) => (Load::Read, Some(parts)),
            Self::Absent => (Load::Absent, None),
            Self::Failed => (Load::Failed, None),
            Self::NoPlace => (Load::NoPlace, None),
        }
    }
}

/// Loads an owner's state once one of `loads` is free: all of it, or only what follows the rows loaded ahead.
/// The fence must be committed before.
pub(super) async fn load<K: Kind>(
    store: Arc<dyn Store<K>>,
    loads: &Semaphore,
    places: &Admission,
    id: K::Id,
    ahead: Option<AheadRows<K>>,
) -> LoadResult<K> {
    let Ok(_free) = loads.acquire().await else {
        return LoadResult::Failed;
    };
    let (place, rows) = match ahead {
        Some(AheadRows { rows, place }) => (place, Some(rows)),
        None => match places.admit() {
            Ok(place) => (place, None),
            Err(_full) => return LoadResult::NoPlace,
        },
    };
    let started = Instant::now();
    let loaded = match store.load(id, rows).await {
        Ok(Loaded::WentBackwards) => {
            tracing::error!(%id, "the database went backwards after loading ahead; loading everything");
            store.load(id, None).await
        }
        other => other,
    };
    finish(id, loaded, place, started)
}

/// Loads rows before this node owns their shard, once one of `loads` is free. Returns `None` if that fails.
/// The rows are then read when a request needs them.
pub(super) async fn load_ahead<K: Kind>(
    store: Arc<dyn Store<K>>,
    loads: &Semaphore,
    places: &Admission,
    id: K::Id,
) -> Option<AheadRows<K>> {
    let _free = loads.acquire().await.ok()?;
    let place = places.admit().ok()?;
    match store.load(id, None).await {
        Ok(Loaded::Read(_, rows)) => Some(AheadRows { rows, place }),
        Ok(Loaded::Absent | Loaded::WentBackwards) => None,
        Err(error) => {
            tracing::debug!(%id, %error, "loading ahead failed");
            summary::count(Occurrence::LoadAheadFailed, None, Some(format!("{id}: {error}")));
            None
        }
    }
}

fn finish<K: Kind>(id: K::Id, loaded: Result<Loaded<K>>, place: Permit, started: Instant) -> LoadResult<K> {
    match loaded {
        Ok(Loaded::Read(head, rows)) => {
            let state = K::state(head, rows);
            let seconds = started.elapsed().as_secs_f64();
            handles().owner_activation_seconds.record(seconds);
            tracing::debug!(%id, entries = K::entries(&state), seconds, "loaded");
            let state = Box::new(state);
            LoadResult::Read(OwnerParts { state, place })
        }
        Ok(Loaded::Absent) => LoadResult::Absent,
        Ok(Loaded::WentBackwards) => {
            tracing::error!(
                %id,
                "a full load reported that the database went backwards; only a load of the tail can find that"
            );
            LoadResult::Failed
        }
        Err(error) => {
            tracing::debug!(%id, %error, "loading failed");
            summary::count(Occurrence::LoadFailed, None, Some(format!("{id}: {error}")));
            LoadResult::Failed
        }
    }
}
