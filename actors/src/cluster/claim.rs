//! Plans what a node does about shards after it has read the rows: claim, drop, hand off or release them. The
//! plan is a function of these rows, of the rows that the node read before, of the shards that it serves, and
//! of what its peers have loaded ahead.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::group::Group;
use crate::cluster::membership::member::are_far_apart;
use crate::cluster::placement::Plan;
use crate::ids::{Epoch, Fence, Incarnation, NodeId, ShardId};
use crate::store::{Claim, NodeRow, NodeState, ShardRow};
use crate::time::Moment;

/// Number of beats that a node must have sent before a shard is handed off to it, so that a node that keeps
/// restarting gets no shards.
const READY_BEATS: u64 = 3;

/// Maximum number of shards of a node that are being handed off or released at a time. Such a shard is closed
/// for about one commit, and then until its new owner has read the rows stored since it loaded ahead. With
/// this number, a node with all 256 shards hands them off within about ten beats, if its peers load ahead at
/// each beat. The peers' loading never queues for long.
const MOVING_MAX: usize = 32;

/// Number of beats that a next owner has for loading ahead. A shard whose loading is not finished or not
/// reported by then is loaded while users wait.
const AHEAD_BEATS: u32 = 5;

/// The state of a shard on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalState {
    /// It is not served.
    Unserved,
    /// It is served under this epoch.
    Serving(Epoch),
    /// It is being handed off or released.
    Moving,
    /// The shard was claimed, lost, handed off or released after the read of the rows began, so the rows say
    /// nothing about it.
    Unsettled,
}

/// The node that plans.
#[derive(Debug, Clone, Copy)]
pub struct PlanningNode<'a> {
    /// Its name.
    pub id: &'a NodeId,
    /// Its present incarnation.
    pub incarnation: Incarnation,
    /// True if shards may be placed on the node: it joined, and was not outside the group for long.
    pub ready: bool,
    /// True if it is leaving.
    pub leaving: bool,
}

/// A shard of this node to hand off or release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOffPlan {
    /// The shard.
    pub shard: ShardId,
    /// The fence under which this node owns it.
    pub from: Fence,
    /// The next owner; `None` to release it.
    pub to: Option<Incarnation>,
}

/// What to do about the shards after reading the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardSteps {
    /// Shards to claim, and to serve once they are claimed.
    pub claim: Vec<Claim>,
    /// Shards that this node serves but another node owns.
    pub drop: Vec<ShardId>,
    /// Shards that their next owners should begin to load ahead. Such a shard is handed off once its next
    /// owner has loaded it, or after five beats. If the plan names another node by then, the shard is not
    /// handed off to this one.
    pub load_ahead: Vec<(ShardId, Incarnation)>,
    /// Shards to hand off or release.
    pub hand_off: Vec<HandOffPlan>,
}

/// Plans, after each beat of one incarnation, what to do about the shards.
#[derive(Debug)]
pub struct ClaimPlanner {
    lease: Duration,
    beat: Duration,
    last_sent: Option<Moment>,
    /// Shards that no live node owns, and since when their rows have been the same.
    free: HashMap<ShardId, (ShardRow, Moment)>,
    /// Shards that are being loaded ahead by their next owners.
    loading_ahead: HashMap<ShardId, LoadingAhead>,
}

#[derive(Debug, Clone, Copy)]
struct LoadingAhead {
    to: Incarnation,
    /// Number of beats since `to` was asked to load the shard ahead.
    beats: u32,
}

impl ClaimPlanner {
    /// Makes the planner of an incarnation that has read nothing yet.
    pub fn new(lease: Duration, beat: Duration) -> Self {
        Self {
            lease,
            beat,
            last_sent: None,
            free: HashMap::new(),
            loading_ahead: HashMap::new(),
        }
    }

    /// Compares the rows with the plan and with what this node serves. The rows were read after a beat sent
    /// at `sent_at`: first the shards, then the nodes. So if the owner of a shard is not among the nodes,
    /// that owner has ended and never returns.
    ///
    /// A shard without a live owner is claimed at once by the node that should have it. Any other ready node
    /// of the group claims it if its row has not changed for a lease. A node that is ready and not leaving
    /// also claims each shard that it does not serve although the row names it as the owner. The claim raises
    /// the epoch before the shard is served, so that a decision from an earlier epoch can no longer be
    /// stored.
    ///
    /// `has_loaded` returns true if a node that was to load a shard ahead has done so.
    pub fn steps(
        &mut self,
        member: PlanningNode<'_>,
        sent_at: Moment,
        nodes: &[NodeRow],
        shards: &[ShardRow],
        local_state: impl Fn(ShardId) -> LocalState,
        has_loaded: impl Fn(ShardId, Incarnation) -> bool,
    ) -> ShardSteps {
        if are_far_apart(self.last_sent, sent_at, self.lease, self.beat) {
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
        let mut builder = StepsBuilder::new(member.incarnation, moving);
        for (row, state) in states {
            let free_since = self.free_since(row, &view, sent_at);
            match view.judge(row, state, sent_at.since(free_since) >= self.lease) {
                Step::Leave => {}
                Step::Claim => builder.claim(row),
                Step::Drop => builder.steps.drop.push(row.id),
                Step::HandOff(Some(to)) => {
                    let is_served = state != LocalState::Unserved;
                    self.move_to(to, row, is_served, || has_loaded(row.id, to), &mut builder);
                }
                // If there is no room now, the next beat plans the release again.
                Step::HandOff(None) => {
                    builder.hand_off(row, None);
                }
            }
        }
        self.loading_ahead = builder.loading_ahead;
        builder.steps
    }

    /// Plans the next step of moving a shard to `to`: that node loads the shard ahead, or the shard is handed
    /// off. Plans nothing if the shard must wait for the next beat.
    fn move_to(
        &self,
        to: Incarnation,
        row: &ShardRow,
        is_served: bool,
        has_loaded: impl FnOnce() -> bool,
        builder: &mut StepsBuilder,
    ) {
        let beats = match self.beats_since(row.id, to) {
            Some(beats) => beats + 1,
            // The successor loads a served shard ahead first. A shard that is not served has nothing to load.
            None if is_served => return builder.load_ahead(row.id, to),
            None => 0,
        };
        let is_due = !is_served || beats >= AHEAD_BEATS || has_loaded();
        if !is_due || !builder.hand_off(row, Some(to)) {
            builder.loading_ahead.insert(row.id, LoadingAhead { to, beats });
        }
    }

    /// Returns how many beats ago the node `to` was asked to load the shard ahead; `None` if it was not
    /// asked.
    fn beats_since(&self, shard: ShardId, to: Incarnation) -> Option<u32> {
        self.loading_ahead
            .get(&shard)
            .filter(|loading_ahead| loading_ahead.to == to)
            .map(|loading_ahead| loading_ahead.beats)
    }

    /// Returns since when the shard has been unchanged and without a live owner.
    fn free_since(&mut self, row: &ShardRow, view: &RowsView<'_>, sent_at: Moment) -> Moment {
        if row.owner.is_some_and(|owner| view.is_live(owner)) {
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

/// The steps of one beat, while they are planned.
struct StepsBuilder {
    me: Incarnation,
    steps: ShardSteps,
    /// Number of shards that may still begin to move.
    room: usize,
    loading_ahead: HashMap<ShardId, LoadingAhead>,
}

impl StepsBuilder {
    fn new(me: Incarnation, moving: usize) -> Self {
        Self {
            me,
            steps: ShardSteps::default(),
            room: MOVING_MAX.saturating_sub(moving),
            loading_ahead: HashMap::new(),
        }
    }

    fn claim(&mut self, row: &ShardRow) {
        self.steps.claim.push(Claim {
            seen: *row,
            claimant: self.me,
        });
    }

    /// Plans that `to` loads the shard ahead, unless too many shards are being loaded ahead.
    fn load_ahead(&mut self, shard: ShardId, to: Incarnation) {
        if self.loading_ahead.len() < MOVING_MAX {
            self.loading_ahead.insert(shard, LoadingAhead { to, beats: 0 });
            self.steps.load_ahead.push((shard, to));
        }
    }

    /// Plans to hand the shard off, or to release it if `to` is `None`. Returns false if too many shards are
    /// moving.
    fn hand_off(&mut self, row: &ShardRow, to: Option<Incarnation>) -> bool {
        let has_room = self.room > 0;
        if has_room {
            self.room -= 1;
            let from = Fence {
                epoch: row.epoch,
                owner: self.me,
            };
            self.steps.hand_off.push(HandOffPlan {
                shard: row.id,
                from,
                to,
            });
        }
        has_room
    }
}

/// The nodes' rows, and what follows from them.
struct RowsView<'a> {
    member: PlanningNode<'a>,
    nodes: &'a [NodeRow],
    ready: Vec<&'a NodeRow>,
    plan: Plan,
    /// True if the group contains this node.
    inside: bool,
    /// True if this node may claim shards that no live node owns. For that, its row must also say that it is
    /// ready.
    may_claim: bool,
}

impl<'a> RowsView<'a> {
    fn new(member: PlanningNode<'a>, nodes: &'a [NodeRow]) -> Self {
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

    fn is_live(&self, incarnation: Incarnation) -> bool {
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
            LocalState::Moving | LocalState::Unsettled => Step::Leave,
            LocalState::Serving(epoch) if !mine && epoch <= row.epoch => Step::Drop,
            LocalState::Serving(epoch) if mine && epoch == row.epoch => self.keep_or_hand_off(row.id),
            // The rows are older than what is served, or the shard has yet to learn of its raised epoch.
            LocalState::Serving(_) => Step::Leave,
            LocalState::Unserved if mine && self.member.ready && !self.member.leaving => Step::Claim,
            LocalState::Unserved if mine => {
                Step::HandOff(self.successor(row.id).filter(|_| self.member.ready))
            }
            LocalState::Unserved if !self.may_claim || row.owner.is_some_and(|owner| self.is_live(owner)) => {
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

    /// Plans the step for a shard that this node owns and serves.
    fn keep_or_hand_off(&self, shard: ShardId) -> Step {
        if !self.member.ready {
            // The members of the group cannot reach this node. They can reach the member that claims the
            // shard.
            return Step::HandOff(None);
        }
        // A node outside the group keeps its shards, because it may be inside again at the next beat. A
        // leaving node hands its shards off even if it is outside. Until it stops, it keeps the shards that
        // no other node takes.
        let may_move = self.inside || self.member.leaving;
        self.successor(shard)
            .filter(|_| may_move)
            .map_or(Step::Leave, |to| Step::HandOff(Some(to)))
    }

    /// Returns the node to which a shard of this node should be handed off, if there is one.
    fn successor(&self, shard: ShardId) -> Option<Incarnation> {
        let node = self.planned(shard)?;
        let may_have_it = node.incarnation != self.member.incarnation && node.beat >= READY_BEATS;
        may_have_it.then_some(node.incarnation)
    }
}

#[cfg(test)]
mod tests;
