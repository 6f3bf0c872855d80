//! What goes wrong: owners panic and are unloaded; nodes hang, die, leave, are cut from the database, lose a
//! link; statements go on by themselves.

use actors::owning::request::OwnerCommand;
use actors::owning::shard::ShardCommand;
use actors::store::batch::Batch;
use rand::Rng;

use super::node::{Both, Call};
use super::world::{NODES, World};

impl World {
    pub(super) fn panic_owner(&mut self, n: usize) {
        let id = self.any_id();
        // Its mailbox and its gate go with it; every reply in them answers by being dropped.
        let node = self.node(n);
        if node.homes.remove(&id).is_some() {
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

    /// Something befalls a node, or is over.
    pub(super) fn step_fate(&mut self) {
        let n = self.rng.random_range(0..NODES);
        let micros = self.micros;
        let Some(node) = self.nodes[n].as_mut() else {
            return self.start(n);
        };
        match self.rng.random_range(0..10) {
            // Up to three leases: what it does after that it does as one that was ended.
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

    /// kill -9: whoever waited hears nothing, and what was sent may be stored yet.
    fn die(&mut self, n: usize) {
        if let Some(dead) = self.nodes[n].take() {
            let under_way = dead.call.and_then(|call| match call {
                Call::Write(batch) => Some(batch),
                Call::ReadBack(_) | Call::Pause => None,
            });
            let sent: Option<Batch<Both>> = under_way.filter(|_| self.rng.random() && !dead.cut);
            self.zombies.extend(sent);
            let cut = dead.cut;
            let sent_hand_offs = dead.hand_offs.into_iter().filter(|_| self.rng.random() && !cut);
            self.late_hand_offs.extend(sent_hand_offs);
        }
    }

    /// A statement that nobody waits for any more is done.
    pub(super) fn step_zombie(&mut self) {
        if self.rng.random() && !self.zombies.is_empty() {
            let batch = self.zombies.remove(0);
            drop(self.db.write(&batch));
        } else if !self.late_hand_offs.is_empty() {
            let (from, to) = self.late_hand_offs.remove(0);
            self.db.give(from, to);
        }
    }

    /// From here on nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.link_down = None;
        for n in 0..NODES {
            match &mut self.nodes[n] {
                Some(node) if !node.member.leaving => {
                    node.hangs_until = 0;
                    node.cut = false;
                }
                // Who was leaving is started again, as who is gone.
                Some(_) | None => {
                    self.die(n);
                    self.start(n);
                }
            }
        }
    }
}
