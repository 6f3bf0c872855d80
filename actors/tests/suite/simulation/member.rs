//! A node as a member: the shell around its life and its judge, one statement at a time, so that whatever the
//! others do comes in between.

use std::time::Duration;

use actors::cluster::claim::{ClaimPlanner, HandOffPlan, LocalState, Placed, ShardSteps};
use actors::cluster::group::Group;
use actors::cluster::membership::Predecessor;
use actors::cluster::membership::member::{Beaten, MemberLifecycle};
use actors::ids::{Fence, Incarnation, NodeId};
use actors::owning::shard::ShardCommand;
use actors::store::{Claim, NodeRow, NodeState, ShardRow};
use actors::time::Moment;
use rand::Rng;

use super::node::Node;
use super::world::{Breakage, World};

/// Some ten steps: few enough that leases end often, and enough for a beat's statements.
pub(super) const BEAT: Duration = Duration::from_millis(200);
pub(super) const LEASE: Duration = Duration::from_millis(1_200);

/// What a beat has come to.
enum Stage {
    Idle,
    Sent {
        sent_at: Moment,
        state: NodeState,
        links: Vec<Incarnation>,
    },
    Counted {
        sent_at: Moment,
    },
    Read {
        sent_at: Moment,
        shard: ShardRow,
        changes: u64,
    },
    Ending {
        sent_at: Moment,
        shard: ShardRow,
        changes: u64,
        nodes: Vec<NodeRow>,
        dead: Vec<NodeRow>,
    },
    Claiming(Vec<Claim>),
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
    /// Joins as a fresh incarnation; the rows are those of that moment.
    fn join(&mut self, place: usize) -> Member {
        self.incarnations += 1;
        let (now, incarnation) = (self.now().moment, Incarnation::new(self.incarnations).unwrap());
        let id = NodeId::parse(&format!("node-{place}")).unwrap();
        let cluster = format!("10.0.0.{place}:1");
        let before = self.db.nodes.iter().find(|row| row.id == id);
        assert_ne!(
            Predecessor::of(before, &cluster),
            Predecessor::Elsewhere,
            "names are told apart"
        );
        let (http, state, links) = (String::new(), NodeState::Joining, Vec::new());
        self.db.join(NodeRow {
            id: id.clone(),
            incarnation,
            beat: 0,
            state,
            http,
            cluster,
            links,
        });
        let mut lifecycle = MemberLifecycle::new(incarnation, LEASE, BEAT);
        lifecycle.grouped(now, Group::of(&self.db.nodes).has(incarnation));
        let (planner, stage) = (ClaimPlanner::new(LEASE, BEAT), Stage::Idle);
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

    /// What comes next of this node's beat.
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
            Stage::Idle if member.lifecycle.is_over() => self.join_anew(n, cut),
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
            } => {
                let (id, incarnation) = (member.id.clone(), member.lifecycle.incarnation());
                let counted = self.db.beat(&id, incarnation, state, &links);
                if lost {
                    self.beat_failed(n);
                } else {
                    self.beaten(n, sent_at, counted);
                }
            }
            // Reading fails, and so does whatever comes of it: the next beat reads again.
            Stage::Counted { .. } | Stage::Read { .. } | Stage::Ending { .. } | Stage::Claiming(_)
                if cut || lost => {}
            Stage::Counted { sent_at } => {
                let shard = self.db.shard;
                let node = self.node(n);
                node.member.stage = Stage::Read {
                    sent_at,
                    shard,
                    changes: node.status.changes(),
                };
            }
            Stage::Read {
                sent_at,
                shard,
                changes,
            } => {
                let (nodes, running) = (self.db.nodes.clone(), self.running());
                let member = &mut self.node(n).member;
                let dead = member
                    .lifecycle
                    .observed(sent_at, now, &nodes, |peer| !running.contains(&peer));
                member.stage = Stage::Ending {
                    sent_at,
                    shard,
                    changes,
                    nodes,
                    dead,
                };
            }
            Stage::Ending {
                sent_at,
                shard,
                changes,
                mut nodes,
                dead,
            } => {
                let me = member.lifecycle.incarnation();
                for dead in dead {
                    if self.db.end(me, &dead) {
                        nodes
                            .iter_mut()
                            .filter(|row| row.incarnation == dead.incarnation)
                            .for_each(|row| row.state = NodeState::Ended);
                    }
                }
                self.node(n)
                    .member
                    .lifecycle
                    .grouped(sent_at, Group::of(&nodes).has(me));
                let (shard, changes) = match self.breakage {
                    Breakage::NodesReadFirst => (self.db.shard, self.node(n).status.changes()),
                    _ => (shard, changes),
                };
                self.plan(n, sent_at, &nodes, shard, changes);
            }
            Stage::Claiming(claims) => self.claim(n, &claims),
        }
    }

    fn beaten(&mut self, n: usize, sent_at: Moment, counted: Option<u64>) {
        let member = &mut self.node(n).member;
        match member.lifecycle.beaten(sent_at, counted) {
            Beaten::Alive(until) => {
                member.lease_until = until;
                member.stage = Stage::Counted { sent_at };
            }
            Beaten::Ended | Beaten::WentBackwards { .. } => {
                member.lifecycle.end();
                member.lease_until = Moment::ORIGIN;
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

    fn join_anew(&mut self, n: usize, cut: bool) {
        if !cut {
            let leaving = self.node(n).member.leaving;
            let member = self.join(n);
            self.node(n).ownership.live_as(member.incarnation());
            self.node(n).member = Member { leaving, ..member };
        }
    }

    fn plan(&mut self, n: usize, sent_at: Moment, nodes: &[NodeRow], shard: ShardRow, changes: u64) {
        let rows = [shard];
        let state: LocalState = self.node(n).status.local_state(changes);
        let loaded = self.rng.random();
        let node = self.node(n);
        let (me, id) = (node.member.incarnation(), node.member.id.clone());
        node.ownership.publish(me, nodes, &rows);
        let member = &mut node.member;
        let placed = Placed {
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
        } = member
            .planner
            .steps(placed, sent_at, nodes, &rows, |_| state, |_, _| loaded);
        member.stage = if claim.is_empty() {
            Stage::Idle
        } else {
            Stage::Claiming(claim)
        };
        for _ in drop {
            node.send_to_shard(ShardCommand::Lost);
        }
        for HandOffPlan { from, to, .. } in hand_off {
            node.send_to_shard(ShardCommand::HandOff(from, to));
        }
        let ids: Vec<_> = node.homes.keys().copied().collect();
        for (_, to) in load_ahead {
            // A hint by a link, which may be lost.
            let heard = self.rng.random_ratio(3, 4);
            let mut others = self.nodes.iter_mut().flatten();
            let peer = others.find(|node| node.member.incarnation() == to);
            if let Some(peer) = peer.filter(|_| heard) {
                peer.send_to_shard(ShardCommand::LoadAhead(me, ids.clone()));
            }
        }
    }

    fn claim(&mut self, n: usize, claims: &[Claim]) {
        for claim in claims {
            let row = self.db.claim(claim.seen, claim.claimant);
            if row.owner == Some(claim.claimant) && row.epoch > claim.seen.epoch {
                let fence = Fence {
                    epoch: row.epoch,
                    owner: claim.claimant,
                };
                self.node(n).ownership.learn(row.id, fence);
                self.node(n).send_to_shard(ShardCommand::Claimed(fence));
            }
        }
    }

    /// Leaving comes to its end: the shard is drained for good, and the row ended.
    pub(super) fn step_leaving(&mut self, n: usize) {
        let node = self.node(n);
        if !node.member.leaving || node.cut {
            return;
        }
        if node.drained && node.homes.is_empty() {
            let (id, incarnation) = (node.member.id.clone(), node.member.incarnation());
            self.db.beat(&id, incarnation, NodeState::Ended, &[]);
            self.nodes[n] = None;
        } else if !node.drained && self.rng.random_ratio(1, 60) {
            // Whatever has not been handed over by now is given up.
            self.node(n)
                .send_to_shard(ShardCommand::Drain(tokio::sync::oneshot::channel().0));
        }
    }

    pub(super) fn lease_holds(&mut self, n: usize, incarnation: Incarnation) -> bool {
        let (now, breakage) = (self.now().moment, self.breakage);
        let member = &self.node(n).member;
        breakage == Breakage::NoLease || member.incarnation() == incarnation && now < member.lease_until
    }

    /// Processes that run, be it without doing anything: their system refuses nobody.
    fn running(&self) -> Vec<Incarnation> {
        self.nodes
            .iter()
            .flatten()
            .map(|node| node.member.incarnation())
            .collect()
    }

    /// Whom this node is linked to.
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
