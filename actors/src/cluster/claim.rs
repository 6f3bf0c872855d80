//! What a node does about the shards after it has read the rows: claim, drop, hand over, give up. A function
//! of the rows, and of what was read before.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::group::Group;
use crate::cluster::membership::member::are_far_apart;
use crate::cluster::placement::Plan;
use crate::ids::{Epoch, Fence, Incarnation, NodeId, ShardId};
use crate::store::{Claim, NodeRow, NodeState, ShardRow};
use crate::time::Moment;

/// Number of beats of a node before a shard is handed to it, so that a node that starts, fails and starts
/// again gets none.
const READY_BEATS: u64 = 3;

/// Maximum number of shards of a node that are being handed off or given up at a time. Each is closed for
/// about a commit and, at its new owner, for the read of a tail; so a node with all 256 has given them up
/// within some ten beats if its peers load ahead with each, and their loading never queues for long.
const MOVING_MAX: usize = 32;

/// How many beats a successor has for loading ahead. Whatever it has not read by then, or has not told us of,
/// is read while people wait.
const AHEAD_BEATS: u32 = 5;

/// How a shard stands on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalState {
    /// It is not served.
    Unserved,
    /// It is served under this epoch.
    Serving(Epoch),
    /// It is being given up.
    Moving,
    /// It was claimed, lost or given up since the rows began to be read: they say nothing about it.
    Unjudged,
}

/// The node that plans.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Its name.
    pub id: &'a NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// It is placed upon: it joined, and was not outside the group for long.
    pub ready: bool,
    /// It is leaving.
    pub leaving: bool,
}

/// A shard of ours to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOffPlan {
    /// Which.
    pub shard: ShardId,
    /// The fence under which it is ours.
    pub from: Fence,
    /// The node that is to own it; `None` if none.
    pub to: Option<Incarnation>,
}

/// What to do about the shards after reading the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardSteps {
    /// To be claimed, and served once they are.
    pub claim: Vec<Claim>,
    /// Served here, and another's.
    pub drop: Vec<ShardId>,
    /// To be handed to this node once it has loaded ahead or has had five beats for it, if then it still
    /// should have it.
    pub load_ahead: Vec<(ShardId, Incarnation)>,
    /// To be handed off, or given up.
    pub hand_off: Vec<HandOffPlan>,
}

/// Plans, after each beat of one incarnation, what to do about the shards.
#[derive(Debug)]
pub struct ClaimPlanner {
    lease: Duration,
    beat: Duration,
    last_sent: Option<Moment>,
    /// Shards that no living node owns, and since when their rows have been the same.
    free: HashMap<ShardId, (ShardRow, Moment)>,
    /// Nodes to which shards are about to be handed.
    loading_ahead: HashMap<ShardId, LoadingAhead>,
}

#[derive(Debug, Clone, Copy)]
struct LoadingAhead {
    to: Incarnation,
    /// How many beats ago.
    beats: u32,
}

impl ClaimPlanner {
    /// Of an incarnation that has read nothing yet.
    pub fn new(lease: Duration, beat: Duration) -> Self {
        Self {
            lease,
            beat,
            last_sent: None,
            free: HashMap::new(),
            loading_ahead: HashMap::new(),
        }
    }

    /// Compares the rows, read after a beat sent at `sent_at`, with the plan and with what is served here.
    /// The shards were read before the nodes: an owner that is not among these was ended, and will never be
    /// again.
    ///
    /// Claimed are shards without a living owner, by the node that should have them at once and by another
    /// after a lease; and those that are this node's own by the row but not served: the epoch is raised
    /// before they are, so that nothing of an earlier service of theirs can still be stored.
    ///
    /// `has_loaded` returns true if a node that was to load a shard ahead has done so.
    pub fn steps(
        &mut self,
        member: Placed<'_>,
        sent_at: Moment,
        nodes: &[NodeRow],
        shards: &[ShardRow],
        local_state: impl Fn(ShardId) -> LocalState,
        has_loaded: impl Fn(ShardId, Incarnation) -> bool,
    ) -> ShardSteps {
        if are_far_apart(self.last_sent, sent_at, self.beat) {
            self.free.clear();
        }
        self.last_sent = Some(sent_at);
        let view = RowsView::new(member, nodes);
        let states: Vec<(&ShardRow, LocalState)> =
            shards.iter().map(|row| (row, local_state(row.id))).collect();
        let moving = states
            .iter()
            .filter(|(_, state)| *state == LocalState::Moving)
            .count();
        let mut steps = ShardSteps::default();
        let mut room = MOVING_MAX.saturating_sub(moving);
        let mut loading_ahead = HashMap::new();
        for (row, state) in states {
            let free_since = self.free_since(row, &view, sent_at);
            match view.judge(row, state, sent_at.since(free_since) >= self.lease) {
                Step::Leave => {}
                Step::Claim => steps.claim.push(Claim {
                    seen: *row,
                    claimant: member.incarnation,
                }),
                Step::Drop => steps.drop.push(row.id),
                // The successor loads a served shard ahead first. One that is not served has nothing to load.
                Step::HandOff(Some(to))
                    if state != LocalState::Unserved && self.beats_since(row.id, to).is_none() =>
                {
                    if loading_ahead.len() < MOVING_MAX {
                        loading_ahead.insert(row.id, LoadingAhead { to, beats: 0 });
                        steps.load_ahead.push((row.id, to));
                    }
                }
                Step::HandOff(to) => {
                    let beats = to
                        .and_then(|to| self.beats_since(row.id, to))
                        .map_or(0, |beats| beats + 1);
                    let is_due = to.is_none_or(|to| {
                        state == LocalState::Unserved || beats >= AHEAD_BEATS || has_loaded(row.id, to)
                    });
                    if is_due && room > 0 {
                        room -= 1;
                        let from = Fence {
                            epoch: row.epoch,
                            owner: member.incarnation,
                        };
                        steps.hand_off.push(HandOffPlan {
                            shard: row.id,
                            from,
                            to,
                        });
                    } else {
                        loading_ahead.extend(to.map(|to| (row.id, LoadingAhead { to, beats })));
                    }
                }
            }
        }
        self.loading_ahead = loading_ahead;
        steps
    }

    /// Returns how many beats ago this node was first to load the shard ahead; `None` if it was not.
    fn beats_since(&self, shard: ShardId, to: Incarnation) -> Option<u32> {
        self.loading_ahead
            .get(&shard)
            .filter(|loading_ahead| loading_ahead.to == to)
            .map(|loading_ahead| loading_ahead.beats)
    }

    /// Since when the shard has been without a living owner, unchanged.
    fn free_since(&mut self, row: &ShardRow, view: &RowsView<'_>, sent_at: Moment) -> Moment {
        if row.owner.is_some_and(|owner| view.lives(owner)) {
            self.free.remove(&row.id);
            return sent_at;
        }
        let (seen, since) = self.free.entry(row.id).or_insert((*row, sent_at));
        if seen != row {
            (*seen, *since) = (*row, sent_at);
        }
        *since
    }
}

/// What to do about one shard.
enum Step {
    Leave,
    Claim,
    Drop,
    HandOff(Option<Incarnation>),
}

/// The nodes' rows, and what follows from them.
struct RowsView<'a> {
    member: Placed<'a>,
    nodes: &'a [NodeRow],
    ready: Vec<&'a NodeRow>,
    plan: Plan,
    /// The group has this node.
    inside: bool,
    /// By its own row too.
    may_claim: bool,
}

impl<'a> RowsView<'a> {
    fn new(member: Placed<'a>, nodes: &'a [NodeRow]) -> Self {
        let group = Group::of(nodes);
        let ready: Vec<&NodeRow> = group.ready().collect();
        let plan = Plan::new(ready.iter().map(|node| node.id.clone()));
        let may_claim = member.ready
            && !member.leaving
            && ready.iter().any(|node| node.incarnation == member.incarnation);
        let inside = group.has(member.incarnation);
        Self {
            member,
            nodes,
            ready,
            plan,
            inside,
            may_claim,
        }
    }

    fn lives(&self, incarnation: Incarnation) -> bool {
        self.nodes
            .iter()
            .any(|node| node.incarnation == incarnation && node.state != NodeState::Ended)
    }

    /// Returns the node that should have the shard.
    fn planned(&self, shard: ShardId) -> Option<&'a NodeRow> {
        let id = self.plan.owner_of(shard)?;
        self.ready.iter().copied().find(|node| node.id == *id)
    }

    fn judge(&self, row: &ShardRow, state: LocalState, free_for_a_lease: bool) -> Step {
        let mine = row.owner == Some(self.member.incarnation);
        match state {
            LocalState::Moving | LocalState::Unjudged => Step::Leave,
            LocalState::Serving(epoch) if !mine && epoch <= row.epoch => Step::Drop,
            LocalState::Serving(epoch) if mine && epoch == row.epoch => self.keep_or_hand_off(row.id),
            // The rows are older than what is served, or it learns of its own raise in a moment.
            LocalState::Serving(_) => Step::Leave,
            LocalState::Unserved if mine && self.member.ready && !self.member.leaving => Step::Claim,
            LocalState::Unserved if mine => {
                Step::HandOff(self.successor(row.id).filter(|_| self.member.ready))
            }
            LocalState::Unserved if !self.may_claim || row.owner.is_some_and(|owner| self.lives(owner)) => {
                Step::Leave
            }
            LocalState::Unserved => {
                let planned = self
                    .planned(row.id)
                    .is_some_and(|node| node.incarnation == self.member.incarnation);
                if planned || free_for_a_lease {
                    Step::Claim
                } else {
                    Step::Leave
                }
            }
        }
    }

    /// About a shard that is ours and served.
    fn keep_or_hand_off(&self, shard: ShardId) -> Step {
        if !self.member.ready {
            // The nodes that can reach each other cannot reach this one; the one that claims it can be
            // reached.
            return Step::HandOff(None);
        }
        // A node that is outside may be inside again with the next beat. And one that leaves serves what no
        // other takes until it stops.
        let may_move = self.inside || self.member.leaving;
        self.successor(shard)
            .filter(|_| may_move)
            .map_or(Step::Leave, |to| Step::HandOff(Some(to)))
    }

    /// The node to which a shard of ours is to be handed, if there is one.
    fn successor(&self, shard: ShardId) -> Option<Incarnation> {
        let node = self.planned(shard)?;
        let may_have_it = node.incarnation != self.member.incarnation && node.beat >= READY_BEATS;
        may_have_it.then_some(node.incarnation)
    }
}

#[cfg(test)]
mod tests;
