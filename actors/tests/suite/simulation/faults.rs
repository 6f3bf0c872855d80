//! Faults: owners panic or are passivated; nodes hang, die, leave, or lose the database or a link; statements
//! go on after their callers are gone.

use actors::owning::request::OwnerCommand;
use actors::owning::shard::ShardCommand;
use rand::Rng;

use super::node::Call;
use super::world::{NODES, World};

impl World {
    pub(super) fn panic_owner(&mut self, n: usize) {
        let id = self.any_id();
        // The mailbox and the gate are dropped with the owner. When a reply in them is dropped, its caller
        // gets an answer.
        let node = self.node(n);
        if node.owners.remove(&id).is_some() {
            node.board.withdraw(id);
            node.send_to_shard(ShardCommand::OwnerPanicked(id));
        }
    }

    pub(super) fn passivate(&mut self, n: usize) {
        let id = self.any_id();
        self.node(n).command(id, OwnerCommand::Passivate);
        if self.rng.random_ratio(1, 8) {
            self.node(n).send_to_shard(ShardCommand::Sweep);
        }
    }

    /// Begins or ends a fault of a random node.
    pub(super) fn step_fault(&mut self) {
        let n = self.rng.random_range(0..NODES);
        let micros = self.micros;
        let Some(node) = self.nodes[n].as_mut() else {
            return self.start(n);
        };
        match self.rng.random_range(0..10) {
            // The node hangs for up to about three leases. Another node may end it meanwhile.
            0..2 => node.hangs_until = micros + self.rng.random_range(10..200),
            2..4 => node.cut = !node.cut,
            4 => self.die(n),
            5 => node.member.leaving = true,
            6..8 => {
                let other = (n + 1) % NODES;
                self.link_down = if self.link_down.is_some() {
                    None
                } else {
                    Some((n.min(other), n.max(other)))
                };
            }
            _ => {
                node.hangs_until = 0;
                node.cut = false;
            }
        }
    }

    /// Kills the process: its callers get no answer, and statements that were sent may still be stored.
    fn die(&mut self, n: usize) {
        if let Some(dead) = self.nodes[n].take() {
            let calls = dead.lanes.into_iter().filter_map(|task| task.call);
            let under_way = calls.filter_map(|call| match call {
                Call::Write(batch) => Some(batch),
                Call::ReadBack(_) | Call::Pause => None,
            });
            let sent = under_way.filter(|_| self.rng.random() && !dead.cut);
            self.zombies.extend(sent);
            let cut = dead.cut;
            let sent_hand_offs = dead.hand_offs.into_iter().filter(|_| self.rng.random() && !cut);
            self.late_hand_offs.extend(sent_hand_offs);
            let sent_claims = dead.claiming.into_sent().filter(|_| self.rng.random() && !cut);
            self.late_claims.extend(sent_claims);
        }
    }

    /// Runs a statement whose caller is gone.
    pub(super) fn step_zombie(&mut self) {
        if self.rng.random() && !self.zombies.is_empty() {
            let batch = self.zombies.remove(0);
            drop(self.db.write(&batch));
        } else if !self.late_hand_offs.is_empty() {
            let (from, to) = self.late_hand_offs.remove(0);
            self.db.give(from, to);
        } else if let Some(claim) = self.late_claims.pop() {
            self.db.claim(claim.seen, claim.claimant);
        }
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.link_down = None;
        for n in 0..NODES {
            match &mut self.nodes[n] {
                Some(node) if !node.member.leaving => {
                    node.hangs_until = 0;
                    node.cut = false;
                }
                // A node that was leaving is started again, like a node that is gone.
                Some(_) | None => {
                    self.die(n);
                    self.start(n);
                }
            }
        }
    }
}
