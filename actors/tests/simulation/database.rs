//! A database in memory that does what the store's contract says, one statement at a time.

use std::collections::HashMap;

use actors::coupon::offer::{Coupon, Issuance};
use actors::ids::{CouponId, Epoch, Fence, Incarnation, NodeId, ShardId};
use actors::store::batch::{Batch, Entries, Found, FoundRows, Portion};
use actors::store::{NodeRow, NodeState, ShardRow, StoreError};

/// One shard and its coupons, and the nodes.
#[derive(Debug)]
pub struct Database {
    pub shard: ShardRow,
    /// By id.
    pub nodes: Vec<NodeRow>,
    /// Who has owned it in each epoch.
    owners: HashMap<Epoch, Incarnation>,
    /// What was broken of that: an epoch had two owners.
    pub broken: Option<String>,
    pub coupons: HashMap<CouponId, Coupon>,
    pub issuances: HashMap<CouponId, Vec<Issuance>>,
    /// Every coupon's versions as they were committed.
    pub history: HashMap<CouponId, Vec<Coupon>>,
    /// Taken out for a test: the fence is not looked at.
    pub unfenced: bool,
    /// Taken out for a test: whoever stood still when it was seen is ended, though it has beaten since.
    pub ends_blindly: bool,
    /// Taken out for a test: a hand-over leaves the epoch as it is.
    pub keeps_epoch: bool,
}

impl Database {
    pub fn new(shard: ShardId, coupons: Vec<Coupon>) -> Self {
        let history = coupons
            .iter()
            .map(|coupon| (coupon.id, vec![coupon.clone()]))
            .collect();
        let issuances = coupons.iter().map(|coupon| (coupon.id, Vec::new())).collect();
        let coupons = coupons.into_iter().map(|coupon| (coupon.id, coupon)).collect();
        Self {
            shard: ShardRow {
                id: shard,
                epoch: Epoch::new(0),
                owner: None,
            },
            nodes: Vec::new(),
            owners: HashMap::new(),
            broken: None,
            coupons,
            issuances,
            history,
            unfenced: false,
            ends_blindly: false,
            keeps_epoch: false,
        }
    }

    /// Raises the epoch and names the owner, if the row is as it was seen.
    pub fn claim(&mut self, seen: ShardRow, claimant: Incarnation) -> ShardRow {
        if self.shard == seen {
            self.own(self.shard.epoch.next(), claimant);
        }
        self.shard
    }

    /// Gives the shard to another, or to nobody, if the fence holds.
    pub fn give(&mut self, from: Fence, to: Option<Incarnation>) -> ShardRow {
        if self.fence() == Some(from) {
            match to {
                Some(to) if self.keeps_epoch => self.own(self.shard.epoch, to),
                Some(to) => self.own(self.shard.epoch.next(), to),
                None => self.shard.owner = None,
            }
        }
        self.shard
    }

    fn own(&mut self, epoch: Epoch, owner: Incarnation) {
        self.shard = ShardRow {
            epoch,
            owner: Some(owner),
            ..self.shard
        };
        if let Some(before) = self.owners.insert(epoch, owner)
            && before != owner
        {
            self.broken = Some(format!(
                "epoch {epoch} had {before} for its owner, and has {owner}"
            ));
        }
    }

    fn fence(&self) -> Option<Fence> {
        self.shard.owner.map(|owner| Fence {
            epoch: self.shard.epoch,
            owner,
        })
    }

    /// Puts a node's row in place of the one of its name.
    pub fn join(&mut self, row: NodeRow) {
        self.nodes.retain(|node| node.id != row.id);
        self.nodes.push(row);
        self.nodes.sort_by(|one, other| one.id.cmp(&other.id));
    }

    pub fn beat(
        &mut self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Option<u64> {
        let row = self.nodes.iter_mut().find(|node| {
            node.id == *id && node.incarnation == incarnation && node.state != NodeState::Ended
        })?;
        (row.beat, row.state, row.links) = (row.beat + 1, state, links.to_vec());
        Some(row.beat)
    }

    pub fn end(&mut self, by: Incarnation, dead: &NodeRow) -> bool {
        let lives = self
            .nodes
            .iter()
            .any(|node| node.incarnation == by && node.state != NodeState::Ended);
        let blindly = self.ends_blindly;
        let row = self
            .nodes
            .iter_mut()
            .find(|node| node.incarnation == dead.incarnation && (blindly || node.beat == dead.beat));
        match row.filter(|row| lives && row.state != NodeState::Ended) {
            Some(row) => {
                row.state = NodeState::Ended;
                true
            }
            None => false,
        }
    }

    /// One guarded statement.
    pub fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let passing: Vec<&Portion> = batch
            .portions
            .iter()
            .filter(|portion| self.passes(portion))
            .collect();
        if passing.iter().any(|portion| self.clashes(portion)) {
            return Err(StoreError::Clash("a row is there".to_owned()));
        }
        let passing: Vec<Portion> = passing.into_iter().cloned().collect();
        let mut rows = 0;
        for portion in passing {
            rows += portion.entries.len() as u64;
            match portion.entries {
                Entries::Issuances(issuances) => {
                    self.stored(portion.coupon).extend(issuances.iter().cloned())
                }
                Entries::Change(change) => {
                    self.coupons.insert(portion.coupon, change.coupon.clone());
                    self.history
                        .entry(portion.coupon)
                        .or_default()
                        .push(change.coupon.clone());
                }
            }
        }
        Ok(rows)
    }

    pub fn read_back(&self, batch: &Batch) -> Vec<Found> {
        batch
            .portions
            .iter()
            .map(|portion| Found {
                fence_holds: Some(portion.fence) == self.fence(),
                rows: self.find(portion),
            })
            .collect()
    }

    fn stored(&mut self, coupon: CouponId) -> &mut Vec<Issuance> {
        self.issuances.entry(coupon).or_default()
    }

    fn passes(&self, portion: &Portion) -> bool {
        let coupon = &self.coupons[&portion.coupon];
        let guards = match &portion.entries {
            Entries::Issuances(issuances) => issuances.iter().all(|issuance| {
                let within = coupon
                    .offer
                    .total_quantity
                    .is_none_or(|total| issuance.id.sequence.get() <= total);
                within && issuance.nth <= coupon.offer.per_user_limit
            }),
            Entries::Change(change) => {
                let issued = self.issuances[&portion.coupon].len() as u64;
                let enough = change
                    .coupon
                    .offer
                    .total_quantity
                    .is_none_or(|total| total >= issued);
                change.coupon.version == coupon.version + 1 && enough
            }
        };
        guards && (self.unfenced || Some(portion.fence) == self.fence())
    }

    fn clashes(&self, portion: &Portion) -> bool {
        let Entries::Issuances(issuances) = &portion.entries else {
            return false;
        };
        let stored = &self.issuances[&portion.coupon];
        issuances.iter().any(|new| {
            stored
                .iter()
                .any(|old| old.id.sequence == new.id.sequence || (old.user == new.user && old.nth == new.nth))
        })
    }

    fn find(&self, portion: &Portion) -> FoundRows {
        match &portion.entries {
            Entries::Issuances(issuances) => {
                let stored = &self.issuances[&portion.coupon];
                if issuances.iter().all(|issuance| stored.contains(issuance)) {
                    FoundRows::Stored
                } else if self.clashes(portion) {
                    FoundRows::Different
                } else {
                    FoundRows::Absent
                }
            }
            Entries::Change(change) => {
                let coupon = &self.coupons[&portion.coupon];
                if *coupon == change.coupon {
                    FoundRows::Stored
                } else if coupon.version + 1 == change.coupon.version {
                    FoundRows::Absent
                } else {
                    FoundRows::Different
                }
            }
        }
    }
}
