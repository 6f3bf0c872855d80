//! The life of a shard as a state machine, `event → effects`. The shard is claimed, served, raised and handed
//! off. In it, the owner of each id is loading, active or stopping.
//!
//! There are two rules. First, an id is loaded only under a committed fence of this node. Rows that were
//! loaded ahead are completed under such a fence before anything is decided from them. Second, if an owner
//! stopped with anything unsettled, a higher epoch is committed before the id is loaded again. So a write
//! that the stopped owner still has under way is void.
//!
//! ```text
//! unserved ──claimed──► serving ◄──► raising
//!     ▲                   │  ▲
//!     │               hand off └── the epoch raised ── reclaiming
//!     │                   ▼                                 ▲
//!     │                closing                              │
//!     │                   │ everything stored               │
//!     │                   ▼                                 │
//!     └─ handed off ─ handing off ───── outcome unknown ────┘
//! ```

mod event;
mod moving;
mod slot;

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{Epoch, Fence, Incarnation};
use crate::owning::kind::Kind;
use crate::owning::request::{Request, Setback};
pub use crate::owning::shard::lifecycle::event::{Effect, Event, Load, Raise};
use crate::owning::shard::lifecycle::slot::{Ahead, Loading, Slot};

/// Maximum number of ids of a shard that are loaded ahead. Few ids of a shard are in use at a time, and the
/// other ids are loaded on demand.
pub const AHEAD_MAX: usize = 64;

/// The stage that the shard is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShardStage {
    Unserved,
    Serving(Fence),
    Raising(Fence),
    /// Owners store what they decided, and stop. No request is admitted.
    Closing {
        from: Fence,
        to: Option<Incarnation>,
    },
    /// The compare-and-set that names the next owner is under way.
    HandingOff(Fence),
    /// The outcome of that compare-and-set is unknown. Raising the epoch makes the compare-and-set void, or
    /// shows that it was done.
    Reclaiming(Fence),
    Draining(Option<Fence>),
    /// The shard is drained for good, because the node is stopping.
    Drained,
}

/// The stage of a shard as the rest of the node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// Not served.
    Unserved,
    /// Served under this epoch.
    Serving(Epoch),
    /// Being handed off or released.
    Moving,
    /// Not served again.
    Drained,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct ShardLifecycle<K: Kind> {
    stage: ShardStage,
    /// The last fence of this node that was reported. A reported fence that is not newer than this one is a
    /// late or repeated report.
    last: Option<Fence>,
    /// The slots are in order, so that the same events have the same effects.
    slots: BTreeMap<K::Id, Slot<K>>,
    /// Maximum number of requests that wait for one owner to be loaded.
    waiting_max: usize,
}

impl<K: Kind> ShardLifecycle<K> {
    /// Makes the lifecycle of a shard that is not served yet. At most `waiting_max` requests wait for one
    /// owner to be loaded: as many as its queue takes, because they all go there.
    pub fn new(waiting_max: usize) -> Self {
        Self {
            stage: ShardStage::Unserved,
            last: None,
            slots: BTreeMap::new(),
            waiting_max,
        }
    }

    /// Returns the fence under which the shard is served.
    pub fn fence(&self) -> Option<Fence> {
        match self.stage {
            ShardStage::Serving(fence) | ShardStage::Raising(fence) => Some(fence),
            ShardStage::Unserved
            | ShardStage::Closing { .. }
            | ShardStage::HandingOff(_)
            | ShardStage::Reclaiming(_)
            | ShardStage::Draining(_)
            | ShardStage::Drained => None,
        }
    }

    /// Returns the stage as the rest of the node sees it.
    pub fn serving(&self) -> ServingState {
        match self.stage {
            ShardStage::Unserved => ServingState::Unserved,
            ShardStage::Serving(fence) | ShardStage::Raising(fence) => ServingState::Serving(fence.epoch),
            ShardStage::Closing { .. }
            | ShardStage::HandingOff(_)
            | ShardStage::Reclaiming(_)
            | ShardStage::Draining(_) => ServingState::Moving,
            ShardStage::Drained => ServingState::Drained,
        }
    }

    /// Returns the ids that have an active owner.
    pub fn active(&self) -> impl Iterator<Item = K::Id> {
        self.slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Active))
            .map(|(id, _)| *id)
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event<K>, effects: &mut Vec<Effect<K>>) {
        match event {
            Event::Claimed(fence) => self.claimed(fence, effects),
            Event::Lost => self.lost(effects),
            Event::Asked(id, request) => self.asked(id, request, effects),
            Event::Bounced(id, request) => {
                if matches!(self.slots.get(&id), Some(Slot::Active)) {
                    self.slots.insert(id, Slot::Stopping(VecDeque::new()));
                }
                self.asked(id, request, effects);
            }
            Event::Loaded(id, load) => self.loaded(id, load, effects),
            Event::Stopped { id, epoch, unsettled } => {
                let void_already = self.fence().is_some_and(|fence| fence.epoch > epoch);
                self.gone(id, unsettled && !void_already, effects);
            }
            Event::Panicked(id) => self.gone(id, true, effects),
            Event::Fenced(epoch) => {
                // If a raise is under way, that raise fenced the owner. The owner is told the new epoch after
                // the raise.
                if self.stage_is_serving_at(epoch) {
                    self.lost(effects);
                }
            }
            Event::Raised { from, raise } => self.raised(from, raise, effects),
            Event::HandOff { from, to } => self.hand_off(from, to, effects),
            Event::HandedOff { from, done } => self.handed_off(from, done, effects),
            Event::LoadAhead(ids) => {
                self.load_ahead(ids, effects);
                self.report_loaded_ahead(effects);
            }
            Event::LoadedAhead(id, read) => {
                self.loaded_ahead(id, read, effects);
                self.report_loaded_ahead(effects);
            }
            Event::Sweep => self.sweep(effects),
            Event::Drain => self.drain(effects),
        }
        if let ShardStage::Closing { from, to } = self.stage
            && self.slots.is_empty()
        {
            self.stage = ShardStage::HandingOff(from);
            effects.push(Effect::HandOff { from, to });
        }
        if let ShardStage::Draining(fence) = self.stage
            && self.slots.is_empty()
        {
            self.stage = ShardStage::Drained;
            effects.push(Effect::Drained(fence));
        }
    }

    /// Returns true if a later fence of the same incarnation was reported.
    fn is_known_beyond(&self, fence: Fence) -> bool {
        self.last
            .is_some_and(|last| last.owner == fence.owner && last.epoch > fence.epoch)
    }

    fn stage_is_serving_at(&self, epoch: Epoch) -> bool {
        matches!(self.stage, ShardStage::Serving(fence) if fence.epoch == epoch)
    }

    fn claimed(&mut self, fence: Fence, effects: &mut Vec<Effect<K>>) {
        let is_news = self.last != Some(fence) && !self.is_known_beyond(fence);
        if is_news && !matches!(self.stage, ShardStage::Draining(_) | ShardStage::Drained) {
            self.serve(fence, effects);
        }
    }

    /// Serves under a fence that was just committed: active owners get its epoch, and the ids that wait for a
    /// raise are loaded.
    fn serve(&mut self, fence: Fence, effects: &mut Vec<Effect<K>>) {
        self.stage = ShardStage::Serving(fence);
        self.last = Some(fence);
        effects.extend(self.active().map(|id| Effect::Refence(id, fence.epoch)));
        self.slots.retain(|id, slot| match slot {
            Slot::AwaitingRaise(requests) if requests.is_empty() => false,
            Slot::AwaitingRaise(requests) => {
                effects.push(Effect::Load(*id));
                *slot = Loading::of(fence, std::mem::take(requests));
                true
            }
            // The id had an owner on the shard's previous node, so its owner is made here before the first
            // request.
            Slot::Ahead(Ahead { read: true, .. }) => {
                effects.push(Effect::LoadRest(*id));
                *slot = Loading::of(fence, VecDeque::new());
                true
            }
            Slot::Ahead(_) | Slot::Loading(_) | Slot::Active | Slot::Stopping(_) => true,
        });
    }

    fn lost(&mut self, effects: &mut Vec<Effect<K>>) {
        self.stage = match self.stage {
            ShardStage::Draining(_) => ShardStage::Draining(None),
            ShardStage::Drained => ShardStage::Drained,
            ShardStage::Unserved
            | ShardStage::Serving(_)
            | ShardStage::Raising(_)
            | ShardStage::Closing { .. }
            | ShardStage::HandingOff(_)
            | ShardStage::Reclaiming(_) => ShardStage::Unserved,
        };
        self.clear(effects, Effect::Stop);
    }

    fn sweep(&mut self, effects: &mut Vec<Effect<K>>) {
        let is_served = self.fence().is_some();
        self.slots.retain(|id, slot| {
            let stays = slot.sweep(is_served);
            if !stays {
                effects.push(Effect::Forget(*id));
            }
            stays
        });
    }

    fn drain(&mut self, effects: &mut Vec<Effect<K>>) {
        self.stage = match self.stage {
            // While a raise or a hand-off is under way, the epoch is not known. So the row is not released,
            // and the next claim takes it over.
            ShardStage::Unserved
            | ShardStage::Raising(_)
            | ShardStage::HandingOff(_)
            | ShardStage::Reclaiming(_)
            | ShardStage::Drained => ShardStage::Draining(None),
            ShardStage::Serving(fence) | ShardStage::Closing { from: fence, .. } => {
                ShardStage::Draining(Some(fence))
            }
            ShardStage::Draining(fence) => ShardStage::Draining(fence),
        };
        self.clear(effects, Effect::Drain);
    }

    /// Sets back all waiting requests, and tells every active owner to end.
    fn clear(&mut self, effects: &mut Vec<Effect<K>>, end: fn(K::Id) -> Effect<K>) {
        let mut away = Vec::new();
        self.slots.retain(|id, slot| {
            away.extend(slot.waiting().map(std::mem::take).unwrap_or_default());
            match slot {
                Slot::Active => {
                    effects.push(end(*id));
                    *slot = Slot::Stopping(VecDeque::new());
                    true
                }
                // Requests that arrive from now on were not there when the read began.
                Slot::Loading(loading) => {
                    loading.before = 0;
                    true
                }
                Slot::Stopping(_) => true,
                Slot::AwaitingRaise(_) => false,
                Slot::Ahead(_) => {
                    effects.push(Effect::Forget(*id));
                    false
                }
            }
        });
        effects.extend(
            away.into_iter()
                .map(|request| Effect::SetBack(request, Setback::Moved)),
        );
    }

    fn asked(&mut self, id: K::Id, request: Request<K>, effects: &mut Vec<Effect<K>>) {
        let Some(present) = self.fence() else {
            effects.push(Effect::SetBack(request, Setback::Moved));
            return;
        };
        match self.slots.get_mut(&id) {
            Some(Slot::Active) => effects.push(Effect::Deliver(id, request)),
            // An id that was not loaded ahead in time is loaded now, so that it does not queue behind ids
            // without requests.
            None | Some(Slot::Ahead(_)) => {
                self.slots
                    .insert(id, Loading::of(present, VecDeque::from([request])));
                effects.push(Effect::Load(id));
            }
            Some(
                Slot::Loading(Loading { requests, .. })
                | Slot::Stopping(requests)
                | Slot::AwaitingRaise(requests),
            ) => match requests.len() < self.waiting_max {
                true => requests.push_back(request),
                false => effects.push(Effect::SetBack(request, Setback::Overloaded)),
            },
        }
    }

    fn loaded(&mut self, id: K::Id, load: Load, effects: &mut Vec<Effect<K>>) {
        if !matches!(self.slots.get(&id), Some(Slot::Loading(_))) {
            return;
        }
        let Some(Slot::Loading(Loading {
            under,
            mut requests,
            before,
        })) = self.slots.remove(&id)
        else {
            return;
        };
        match (load, self.fence()) {
            (Load::Read, Some(present)) if present == under => {
                self.slots.insert(id, Slot::Active);
                effects.push(Effect::Activate(id, present));
                effects.extend(requests.into_iter().map(|request| Effect::Deliver(id, request)));
                return;
            }
            // The id was read under an earlier fence, and another node may have written since then.
            (Load::Read, Some(_)) => {}
            (Load::Absent, _) => {
                effects.extend(requests.drain(..before.min(requests.len())).map(Effect::Absent));
            }
            (Load::Failed, _) => effects.extend(
                requests
                    .drain(..)
                    .map(|request| Effect::SetBack(request, Setback::StoreUnavailable)),
            ),
            (Load::NoPlace, _) => effects.extend(
                requests
                    .drain(..)
                    .map(|request| Effect::SetBack(request, Setback::Overloaded)),
            ),
            (Load::Read, None) => {}
        }
        match self.fence() {
            Some(present) if !requests.is_empty() => {
                self.slots.insert(id, Loading::of(present, requests));
                effects.push(Effect::Load(id));
            }
            _ => effects.extend(
                requests
                    .into_iter()
                    .map(|request| Effect::SetBack(request, Setback::Moved)),
            ),
        }
    }

    fn gone(&mut self, id: K::Id, unsettled: bool, effects: &mut Vec<Effect<K>>) {
        let requests = match self.slots.remove(&id) {
            Some(Slot::Stopping(requests)) => requests,
            Some(Slot::Active) => VecDeque::new(),
            // The end of the owner was reported twice.
            Some(other) => {
                self.slots.insert(id, other);
                return;
            }
            None => return,
        };
        match self.stage {
            ShardStage::Serving(fence) if unsettled => {
                self.stage = ShardStage::Raising(fence);
                self.slots.insert(id, Slot::AwaitingRaise(requests));
                effects.push(Effect::Raise {
                    from: fence,
                    pause: false,
                });
            }
            ShardStage::Raising(_) if unsettled => {
                // The owner's portions carry the epoch that the raise under way makes void.
                self.slots.insert(id, Slot::AwaitingRaise(requests));
            }
            ShardStage::Serving(fence) | ShardStage::Raising(fence) if !requests.is_empty() => {
                self.slots.insert(id, Loading::of(fence, requests));
                effects.push(Effect::Load(id));
            }
            ShardStage::Serving(_) | ShardStage::Raising(_) => {}
            ShardStage::Unserved
            | ShardStage::Closing { .. }
            | ShardStage::HandingOff(_)
            | ShardStage::Reclaiming(_)
            | ShardStage::Draining(_)
            | ShardStage::Drained => {
                effects.extend(
                    requests
                        .into_iter()
                        .map(|request| Effect::SetBack(request, Setback::Moved)),
                );
            }
        }
    }

    fn raised(&mut self, from: Fence, raise: Raise, effects: &mut Vec<Effect<K>>) {
        if self.stage != ShardStage::Raising(from) && self.stage != ShardStage::Reclaiming(from) {
            return;
        }
        match raise {
            Raise::Ours(fence) => self.serve(fence, effects),
            Raise::Lost => self.lost(effects),
            Raise::Failed => effects.push(Effect::Raise { from, pause: true }),
        }
    }
}

#[cfg(test)]
mod tests;
