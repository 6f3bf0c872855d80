//! A shard on its way between two nodes: handing it off, and loading ahead on the node that gets it.

use std::collections::VecDeque;

use crate::ids::{Fence, Incarnation};
use crate::owning::kind::Kind;
use crate::owning::shard::lifecycle::slot::{Ahead, Loading, Slot};
use crate::owning::shard::lifecycle::{AHEAD_MAX, Effect, ShardLifecycle, ShardStage};

impl<K: Kind> ShardLifecycle<K> {
    pub(super) fn hand_off(&mut self, from: Fence, to: Option<Incarnation>, effects: &mut Vec<Effect<K>>) {
        match self.stage {
            ShardStage::Serving(fence) if fence == from => {}
            // The shard is owned here in the store, but not served. Earlier owners that have not stopped yet
            // may still decide, so the hand-off waits for them too.
            ShardStage::Unserved if !self.is_known_beyond(from) => self.last = Some(from),
            // The shard is served in another epoch, or is moving already.
            ShardStage::Unserved
            | ShardStage::Serving(_)
            | ShardStage::Raising(_)
            | ShardStage::Closing { .. }
            | ShardStage::HandingOff(_)
            | ShardStage::Reclaiming(_)
            | ShardStage::Draining(_)
            | ShardStage::Drained => return,
        }
        self.stage = ShardStage::Closing { from, to };
        self.clear(effects, Effect::Drain);
    }

    pub(super) fn handed_off(&mut self, from: Fence, done: bool, effects: &mut Vec<Effect<K>>) {
        if self.stage != ShardStage::HandingOff(from) {
            return;
        }
        if done {
            self.stage = ShardStage::Unserved;
        } else {
            self.stage = ShardStage::Reclaiming(from);
            effects.push(Effect::Raise { from, pause: true });
        }
    }

    pub(super) fn load_ahead(&mut self, ids: Vec<K::Id>, effects: &mut Vec<Effect<K>>) {
        if self.stage != ShardStage::Unserved {
            return;
        }
        let mut room = AHEAD_MAX.saturating_sub(
            self.slots
                .values()
                .filter(|slot| matches!(slot, Slot::Ahead(_)))
                .count(),
        );
        for id in ids {
            if room > 0 && !self.slots.contains_key(&id) {
                room -= 1;
                self.slots.insert(id, Slot::Ahead(Ahead::default()));
                effects.push(Effect::LoadAhead(id));
            }
        }
    }

    /// Reports that loading ahead is done, if nothing is being loaded ahead. The node that hands the shard
    /// off waits for this report.
    pub(super) fn report_loaded_ahead(&self, effects: &mut Vec<Effect<K>>) {
        if !self
            .slots
            .values()
            .any(|slot| matches!(slot, Slot::Ahead(Ahead { read: false, .. })))
        {
            effects.push(Effect::ReportLoadedAhead);
        }
    }

    pub(super) fn loaded_ahead(&mut self, id: K::Id, read: bool, effects: &mut Vec<Effect<K>>) {
        let present = self.fence();
        let Some(Slot::Ahead(expected @ Ahead { read: false, .. })) = self.slots.get_mut(&id) else {
            return;
        };
        match present {
            None if read => {
                expected.read = true;
                effects.push(Effect::Keep(id));
            }
            // This node got the shard meanwhile, so the rest is read under the shard's fence.
            Some(fence) if read => {
                self.slots.insert(id, Loading::of(fence, VecDeque::new()));
                effects.extend([Effect::Keep(id), Effect::LoadRest(id)]);
            }
            Some(_) | None => {
                self.slots.remove(&id);
            }
        }
    }
}
