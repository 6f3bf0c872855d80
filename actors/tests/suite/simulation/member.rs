//! A node as a member of the cluster: the shell around its lifecycle and its planner. It runs one statement
//! at a time, so that steps of other nodes come in between.

use std::time::Duration;

use actors::cluster::claim::{ClaimPlanner, HandOffPlan, LocalState, PlanningNode, ShardSteps};
use actors::cluster::group::Group;
use actors::cluster::membership::claiming::ClaimsUnderWay;
use actors::cluster::membership::member::{Beaten, MemberLifecycle};
use actors::cluster::membership::round::{Round, Statement};
use actors::ids::{Incarnation, NodeId};
use actors::owning::shard::ShardCommand;
use actors::store::{Claim, NodeRow, NodeState, ShardRow};
use actors::time::Moment;
use rand::Rng;

use super::node::Node;
use super::world::{Breakage, World};

/// Time between two beats, about ten steps: enough for the statements of a beat, and few enough that leases
/// end often.
pub(super) const BEAT: Duration = Duration::from_millis(200);
pub(super) const LEASE: Duration = Duration::from_millis(1_200);

/// Returns the lease of the node with this index. Leases differ between nodes, as they do while operators
/// change the configuration of one node after the other.
fn lease_of(place: usize) -> Duration {
    LEASE + BEAT * 3 * u32::try_from(place % 2).unwrap()
}

/// How far a beat has come.
enum Stage {
    Idle,
    Sent {
        sent_at: Moment,
        state: NodeState,
        links: Vec<Incarnation>,
    },
    InRound(Round),
}

/// Claims that run beside the beats, even if their incarnation ends meanwhile.
#[derive(Default)]
pub(super) struct Claiming {
    under_way: ClaimsUnderWay,
    portions: Vec<Portion>,
}

enum Portion {
    Sent(Vec<Claim>),
    /// The store has answered with these rows, or the answer was lost.
    Answered(Vec<Claim>, Vec<ShardRow>),
}

impl Claiming {
    pub(super) fn is_idle(&self) -> bool {
        self.portions.is_empty()
    }

    /// Returns the claims that may have reached the database and are not carried out yet.
    pub(super) fn into_sent(self) -> impl Iterator<Item = Claim> {
        let sent = |portion| match portion {
            Portion::Sent(claims) => claims,
            Portion::Answered(..) => Vec::new(),
        };
        self.portions.into_iter().flat_map(sent)
    }
}

pub(super) struct Member {
    pub(super) id: NodeId,
    lifecycle: MemberLifecycle,
    planner: ClaimPlanner,
    stage: Stage,
    next_beat: Moment,
    pub(super) lease_until: Moment,
    pub(super) leaving: bool,
}

impl Member {
    pub(super) fn incarnation(&self) -> Incarnation {
        self.lifecycle.incarnation()
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }
}

impl World {
    /// Joins as a new incarnation, and computes the group from the rows of this moment.
    fn join(&mut self, place: usize) -> Member {
        self.incarnations += 1;
        let (now, incarnation) = (self.now().moment, Incarnation::new(self.incarnations).unwrap());
        let id = NodeId::parse(&format!("node-{place}")).unwrap();
        let cluster = format!("10.0.0.{place}:1");
        let lease = lease_of(place);
        self.db.join(NodeRow {
            cluster,
            lease: (self.breakage != Breakage::LeaseUnknown).then_some(lease),
            ..NodeRow::new(id.clone(), incarnation)
        });
        let mut lifecycle = MemberLifecycle::new(incarnation, lease, BEAT);
        lifecycle.grouped(now, Group::of(&self.db.nodes).has(incarnation));
        let (planner, stage) = (ClaimPlanner::new(lease, BEAT), Stage::Idle);
        Member {
            id,
            lifecycle,
            planner,
            stage,
            next_beat: now,
            lease_until: Moment::ORIGIN,
            leaving: false,
        }
    }

    pub(super) fn start(&mut self, place: usize) {
        let node = Node::new(self.join(place), self.db.shard.id);
        node.ownership.live_as(node.member.incarnation());
        self.nodes[place] = Some(node);
    }

    /// Takes the next step of this node's beat.
    pub(super) fn step_member(&mut self, n: usize) {
        let (now, cut, lost) = (
            self.now().moment,
            self.node(n).cut,
            self.faults && self.rng.random_ratio(1, 40),
        );
        let links = self.linked(n);
        let member = &mut self.node(n).member;
        match std::mem::replace(&mut member.stage, Stage::Idle) {
            Stage::Idle if now < member.next_beat => {}
            Stage::Idle if member.lifecycle.is_over() => self.join_again(n, cut),
            Stage::Idle => {
                member.next_beat = now + BEAT;
                member.stage = Stage::Sent {
                    sent_at: now,
                    state: member.lifecycle.state(member.leaving),
                    links,
                };
            }
            Stage::Sent { .. } if cut => self.beat_failed(n),
            Stage::Sent {
                sent_at,
                state,
                links,
            } => self.write_beat(n, sent_at, state, &links, lost),
            // If a read fails, the rest of the beat is dropped: the next beat reads again.
            Stage::InRound(_) if cut || lost => {}
            Stage::InRound(round) => self.step_round(n, round),
        }
    }

    /// Writes a beat to the node's row. The answer may be lost.
    fn write_beat(
        &mut self,
        n: usize,
        sent_at: Moment,
        state: NodeState,
        links: &[Incarnation],
        is_lost: bool,
    ) {
        let member = &self.node(n).member;
        let (id, incarnation) = (member.id.clone(), member.incarnation());
        let counted = self.db.beat(&id, incarnation, state, links);
        if is_lost {
            self.beat_failed(n);
        } else {
            self.beaten(n, sent_at, counted);
        }
    }

    /// Executes the next statement of the round, or plans what to do about the shard.
    fn step_round(&mut self, n: usize, mut round: Round) {
        match round.statement() {
            Some(Statement::ReadShards) => self.read_shard(n, &mut round),
            Some(Statement::ReadNodes) => {
                let (now, rows, running) = (self.now().moment, self.db.nodes.clone(), self.running());
                let lifecycle = &mut self.node(n).member.lifecycle;
                round.read_nodes(lifecycle, now, rows, |peer| !running.contains(&peer));
            }
            Some(Statement::End(dead)) => {
                let me = self.node(n).member.incarnation();
                round.answered(self.db.end(me, &dead));
            }
            // The read of the shard comes some steps later, so that a node can join and claim the shard
            // before it.
            None if self.breakage == Breakage::NodesReadFirst && self.rng.random_bool(0.75) => {}
            None => {
                if self.breakage == Breakage::NodesReadFirst {
                    self.read_shard(n, &mut round);
                }
                return self.plan(n, round);
            }
        }
        self.node(n).member.stage = Stage::InRound(round);
    }

    fn read_shard(&mut self, n: usize, round: &mut Round) {
        let changes = self.node(n).status.changes();
        round.read_shards(vec![changes], vec![self.db.shard]);
    }

    fn beaten(&mut self, n: usize, sent_at: Moment, counted: Option<u64>) {
        let member = &mut self.node(n).member;
        match member.lifecycle.beaten(sent_at, counted) {
            Beaten::Alive(until) => {
                member.lease_until = until;
                member.stage = Stage::InRound(Round::new(sent_at));
            }
            Beaten::Ended | Beaten::WentBackwards { .. } => {
                member.lifecycle.end();
                member.lease_until = Moment::ORIGIN;
                self.node(n).claiming.under_way.end();
                self.node(n).send_to_shard(ShardCommand::Lost);
            }
        }
    }

    fn beat_failed(&mut self, n: usize) {
        let now = self.now().moment;
        if self.node(n).member.lease_until <= now {
            self.node(n).send_to_shard(ShardCommand::Lost);
        }
    }

    fn join_again(&mut self, n: usize, cut: bool) {
        if !cut {
            let leaving = self.node(n).member.leaving;
            let member = self.join(n);
            self.node(n).ownership.live_as(member.incarnation());
            self.node(n).member = Member { leaving, ..member };
        }
    }

    fn plan(&mut self, n: usize, round: Round) {
        let loaded = self.rng.random();
        let node = self.node(n);
        let sent_at = round.sent_at();
        let found = round.finish(&mut node.member.lifecycle);
        let state: LocalState = node.status.local_state(found.changes[0]);
        let under_way = &node.claiming.under_way;
        let (me, id) = (node.member.incarnation(), node.member.id.clone());
        node.ownership.publish(me, &found.nodes, &found.shards);
        let member = &mut node.member;
        let placed = PlanningNode {
            id: &id,
            incarnation: me,
            ready: member.lifecycle.is_ready(),
            leaving: member.leaving,
        };
        let ShardSteps {
            claim,
            drop,
            load_ahead,
            hand_off,
        } = member.planner.steps(
            placed,
            sent_at,
            &found.nodes,
            &found.shards,
            |shard| under_way.judged(shard, state),
            |_, _| loaded,
        );
        let portions = node.claiming.under_way.begin(me, &claim);
        node.claiming
            .portions
            .extend(portions.into_iter().map(Portion::Sent));
        for _ in drop {
            node.send_to_shard(ShardCommand::Lost);
        }
        for HandOffPlan { from, to, .. } in hand_off {
            node.send_to_shard(ShardCommand::HandOff(from, to));
        }
        let ids: Vec<_> = node.owners.keys().copied().collect();
        for (_, to) in load_ahead {
            // The request goes over a link, and may be lost.
            let arrives = self.rng.random_ratio(3, 4);
            let mut others = self.nodes.iter_mut().flatten();
            let peer = others.find(|node| node.member.incarnation() == to);
            if let Some(peer) = peer.filter(|_| arrives) {
                peer.send_to_shard(ShardCommand::LoadAhead(me, ids.clone()));
            }
        }
    }

    /// Takes the next step of the node's claims. The statement or its answer may be lost.
    pub(super) fn step_claims(&mut self, n: usize) {
        if self.node(n).claiming.portions.is_empty() {
            return;
        }
        let lost = self.node(n).cut || self.faults && self.rng.random_ratio(1, 40);
        match self.node(n).claiming.portions.remove(0) {
            Portion::Sent(claims) => {
                let arrives = !lost || !self.node(n).cut && self.rng.random();
                let claimed = |claim: &Claim| self.db.claim(claim.seen, claim.claimant);
                let rows: Vec<ShardRow> = claims.iter().filter(|_| arrives).map(claimed).collect();
                let answer = if lost { Vec::new() } else { rows };
                self.node(n)
                    .claiming
                    .portions
                    .push(Portion::Answered(claims, answer));
            }
            Portion::Answered(claims, rows) => {
                let node = self.node(n);
                for (claim, fence) in node.claiming.under_way.answered(&claims, &rows) {
                    node.ownership.learn(claim.seen.id, fence);
                    node.send_to_shard(ShardCommand::Claimed(fence));
                }
            }
        }
    }

    /// Goes on with leaving: drains the shard, and ends the node's row once the shard is drained.
    pub(super) fn step_leaving(&mut self, n: usize) {
        let node = self.node(n);
        if !node.member.leaving || node.cut {
            return;
        }
        if node.drained && node.owners.is_empty() {
            let (id, incarnation) = (node.member.id.clone(), node.member.incarnation());
            self.db.beat(&id, incarnation, NodeState::Ended, &[]);
            self.nodes[n] = None;
        } else if !node.drained && self.rng.random_ratio(1, 60) {
            // A shard that has not been handed off by now is released.
            self.node(n)
                .send_to_shard(ShardCommand::Drain(tokio::sync::oneshot::channel().0));
        }
    }

    pub(super) fn lease_holds(&mut self, n: usize, incarnation: Incarnation) -> bool {
        let (now, breakage) = (self.now().moment, self.breakage);
        let member = &self.node(n).member;
        breakage == Breakage::NoLease || member.incarnation() == incarnation && now < member.lease_until
    }

    /// Returns the incarnations whose processes exist. Some may hang, but their system still accepts
    /// connections.
    fn running(&self) -> Vec<Incarnation> {
        self.nodes
            .iter()
            .flatten()
            .map(|node| node.member.incarnation())
            .collect()
    }

    /// Returns the incarnations to which this node is linked.
    fn linked(&mut self, n: usize) -> Vec<Incarnation> {
        let down = self.link_down;
        let is_up = |place: &usize| *place != n && down != Some((n.min(*place), n.max(*place)));
        let places: Vec<usize> = (0..self.nodes.len()).filter(is_up).collect();
        places
            .into_iter()
            .filter_map(|place| self.nodes[place].as_ref())
            .map(|node| node.member.incarnation())
            .collect()
    }
}
