//! A database in memory that does what the store's contract says, one statement at a time.

use std::collections::HashMap;

use actors::coupon::CouponKind;
use actors::coupon::entry::CouponRun;
use actors::coupon::ids::CouponId;
use actors::coupon::issued::LoadedIssuance;
use actors::coupon::ledger::LedgerRows;
use actors::coupon::offer::{Coupon, Issuance};
use actors::coupon::uses::latest::LoadedUse;
use actors::coupon::uses::{Use, UseKind};
use actors::ids::{Epoch, Fence, Incarnation, NodeId, ShardId};
use actors::owning::kind::{Kind, Run};
use actors::owning::pair::Either::{First, Second};
use actors::store::batch::{self, Found, FoundRows};
use actors::store::{NodeRow, NodeState, ShardRow, StoreError};

use super::node::{Both, Id};
use crate::tally::{Addition, Additions, Tally, TallyHead, TallyId};

type Batch = batch::Batch<Both>;
type Portion = batch::Portion<Both>;

/// One shard and its coupons, and the nodes.
#[derive(Debug)]
pub struct Database {
    pub shard: ShardRow,
    /// The rows of nodes, in the order of their ids.
    pub nodes: Vec<NodeRow>,
    /// The owner of the shard in each epoch.
    owners: HashMap<Epoch, Incarnation>,
    /// Says what is wrong if an epoch had two owners.
    pub broken: Option<String>,
    pub coupons: HashMap<CouponId, Coupon>,
    pub issuances: HashMap<CouponId, Vec<Issuance>>,
    pub uses: HashMap<CouponId, Vec<Use>>,
    /// True if holds are not loaded, because a test takes that out.
    pub forgets_holds: bool,
    /// True if a test takes out that the orders of releases and refunds are loaded.
    pub forgets_repeats: bool,
    /// The versions of each coupon, in the order of their commits.
    pub history: HashMap<CouponId, Vec<Coupon>>,
    pub tallies: HashMap<TallyId, TallyHead>,
    pub additions: HashMap<TallyId, Vec<Addition>>,
    /// True if the fence is not checked, because a test takes it out.
    pub unfenced: bool,
    /// True if a test takes out that the fence of uses is checked.
    pub uses_unfenced: bool,
    /// True if a node is ended although it has beaten since its row was read. A test takes that check out.
    pub ends_blindly: bool,
    /// True if a hand-off keeps the epoch, because a test takes its increase out.
    pub keeps_epoch: bool,
}

impl Database {
    pub fn new(shard: ShardId, coupons: Vec<Coupon>, tallies: Vec<TallyHead>) -> Self {
        let history = coupons
            .iter()
            .map(|coupon| (coupon.id, vec![coupon.clone()]))
            .collect();
        let issuances = coupons.iter().map(|coupon| (coupon.id, Vec::new())).collect();
        let uses = coupons.iter().map(|coupon| (coupon.id, Vec::new())).collect();
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
            uses,
            forgets_holds: false,
            forgets_repeats: false,
            history,
            additions: tallies.iter().map(|tally| (tally.id, Vec::new())).collect(),
            tallies: tallies.into_iter().map(|tally| (tally.id, tally)).collect(),
            unfenced: false,
            uses_unfenced: false,
            ends_blindly: false,
            keeps_epoch: false,
        }
    }

    /// Raises the epoch and names the owner, if the row has not changed since it was read.
    pub fn claim(&mut self, seen: ShardRow, claimant: Incarnation) -> ShardRow {
        if self.shard == seen {
            self.own(self.shard.epoch.next(), claimant);
        }
        self.shard
    }

    /// Hands the shard off, or releases it, if the fence holds.
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
            self.broken = Some(format!("epoch {epoch} had the owner {before}, and has {owner}"));
        }
    }

    fn fence(&self) -> Option<Fence> {
        self.shard.owner.map(|owner| Fence {
            epoch: self.shard.epoch,
            owner,
        })
    }

    /// Puts a node's row in place of the row with its id.
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

    /// Stores a batch in one guarded statement.
    pub fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let passing: Vec<&Portion> = batch
            .portions
            .iter()
            .filter(|portion| self.passes(portion))
            .collect();
        if passing.iter().any(|portion| self.clashes(portion)) {
            return Err(StoreError::Clash("the row exists".to_owned()));
        }
        let passing: Vec<Portion> = passing.into_iter().cloned().collect();
        let mut rows = 0;
        for portion in passing {
            rows += portion.run.rows() as u64;
            match (portion.id, portion.run) {
                (First(id), First(CouponRun::Issuances(issuances))) => {
                    self.issuances
                        .entry(id)
                        .or_default()
                        .extend(issuances.iter().cloned());
                }
                (First(id), First(CouponRun::Uses(uses))) => {
                    self.uses.entry(id).or_default().extend(uses.iter().cloned());
                }
                (First(id), First(CouponRun::Change(change))) => {
                    self.coupons.insert(id, change.coupon.clone());
                    self.history.entry(id).or_default().push(change.coupon.clone());
                }
                (Second(id), Second(Additions(additions))) => {
                    self.additions
                        .entry(id)
                        .or_default()
                        .extend(additions.iter().cloned());
                }
                (id, run) => panic!("{run:?} of {id}"),
            }
        }
        Ok(rows)
    }

    pub fn read_back(&self, batch: &Batch) -> Vec<Found> {
        let found = batch.portions.iter().map(|portion| Found {
            fence_holds: Some(portion.fence) == self.fence(),
            rows: self.find(portion),
        });
        found.collect()
    }

    /// Returns the stored rows, continuing the rows loaded ahead; `None` if the stored rows do not begin with
    /// the rows loaded ahead.
    pub fn rows(&self, id: Id, ahead: Option<<Both as Kind>::Rows>) -> Option<<Both as Kind>::Rows> {
        match id {
            First(id) => {
                let ahead = ahead.and_then(actors::owning::pair::Either::first);
                self.ledger_rows(id, ahead).map(First)
            }
            Second(id) => {
                let mut reading = Tally::begin_load(id, ahead.and_then(actors::owning::pair::Either::second));
                let after = usize::try_from(reading.after()).unwrap();
                for addition in self.additions[&id].iter().skip(after) {
                    reading.take(addition.clone()).expect("the database is dense");
                }
                Tally::finish_load(reading).map(Second)
            }
        }
    }

    fn ledger_rows(&self, id: CouponId, ahead: Option<LedgerRows>) -> Option<LedgerRows> {
        let mut reading = CouponKind::begin_load(id, ahead);
        let from = reading.after();
        let after = usize::try_from(from.issuances_after.unwrap().get()).unwrap();
        for row in self.issuances[&id].iter().skip(after) {
            reading.take(&loaded(row)).expect("the database is dense");
        }
        let after = usize::try_from(from.uses_after.get()).unwrap();
        for row in self.uses[&id].iter().skip(after) {
            let mut row = LoadedUse::from(row);
            if self.forgets_holds {
                row.hold_until = row.hold_until.map(|_| row.at);
            }
            if self.forgets_repeats && matches!(row.kind, UseKind::Released | UseKind::Refunded) {
                row.order = Some("forgotten");
            }
            reading.take_use(&row).expect("the database is dense");
        }
        CouponKind::finish_load(reading)
    }

    /// Returns how many issuances were given back.
    pub fn returned(&self, id: CouponId) -> u64 {
        self.uses[&id].last().map_or(0, |last| last.counts.returned)
    }

    fn passes(&self, portion: &Portion) -> bool {
        let guards = match (portion.id, &portion.run) {
            (First(id), First(run)) => self.coupon_guards_hold(id, run),
            (Second(id), Second(Additions(additions))) => {
                let bound = self.tallies[&id].bound;
                additions.iter().all(|addition| addition.total <= bound)
            }
            _ => false,
        };
        let is_of_uses = matches!(portion.run, First(CouponRun::Uses(_)));
        let unfenced = self.unfenced || self.uses_unfenced && is_of_uses;
        guards && (unfenced || Some(portion.fence) == self.fence())
    }

    fn coupon_guards_hold(&self, id: CouponId, run: &CouponRun) -> bool {
        let coupon = &self.coupons[&id];
        match run {
            CouponRun::Issuances(issuances) => issuances.iter().all(|issuance| {
                let total = coupon.offer.total_quantity;
                let most = |total: u64| total + self.returned(id);
                let within = total.is_none_or(|total| issuance.id.sequence.get() <= most(total));
                let limit = coupon.offer.per_user_limit;
                within && limit.is_none_or(|limit| issuance.nth <= u32::from(limit))
            }),
            CouponRun::Uses(_) => true,
            CouponRun::Change(change) => {
                let issued = self.issuances[&id].len() as u64;
                let total = change.coupon.offer.total_quantity;
                let enough = total.is_none_or(|total| total + self.returned(id) >= issued);
                let is_known = change.returned == self.returned(id);
                change.coupon.version == coupon.version + 1 && enough && is_known
            }
        }
    }

    fn clashes(&self, portion: &Portion) -> bool {
        match (portion.id, &portion.run) {
            (First(id), First(CouponRun::Issuances(issuances))) => {
                let is_same = |new: &Issuance, old: &Issuance| {
                    old.id.sequence == new.id.sequence || (old.user == new.user && old.nth == new.nth)
                };
                let stored = &self.issuances[&id];
                issuances
                    .iter()
                    .any(|new| stored.iter().any(|old| is_same(new, old)))
            }
            (First(id), First(CouponRun::Uses(uses))) => {
                let stored = &self.uses[&id];
                uses.iter()
                    .any(|new| stored.iter().any(|old| old.number == new.number))
            }
            (Second(id), Second(Additions(additions))) => {
                let is_same = |new: &Addition, old: &Addition| old.number == new.number || old.key == new.key;
                let stored = &self.additions[&id];
                additions
                    .iter()
                    .any(|new| stored.iter().any(|old| is_same(new, old)))
            }
            _ => false,
        }
    }

    fn find(&self, portion: &Portion) -> FoundRows {
        let is_stored = match (portion.id, &portion.run) {
            (First(id), First(CouponRun::Issuances(issuances))) => {
                let stored = &self.issuances[&id];
                issuances.iter().all(|issuance| stored.contains(issuance))
            }
            (First(id), First(CouponRun::Uses(uses))) => {
                let stored = &self.uses[&id];
                uses.iter().all(|made| stored.contains(made))
            }
            (Second(id), Second(Additions(additions))) => {
                let stored = &self.additions[&id];
                additions.iter().all(|addition| stored.contains(addition))
            }
            (First(id), First(CouponRun::Change(change))) => {
                let coupon = &self.coupons[&id];
                if *coupon != change.coupon && coupon.version + 1 != change.coupon.version {
                    return FoundRows::Different;
                }
                *coupon == change.coupon
            }
            _ => false,
        };
        if is_stored {
            FoundRows::Stored
        } else if self.clashes(portion) {
            FoundRows::Different
        } else {
            FoundRows::Absent
        }
    }
}

fn loaded(row: &Issuance) -> LoadedIssuance<'_> {
    LoadedIssuance {
        sequence: row.id.sequence,
        user: row.user.as_str(),
        nth: row.nth,
        key: row.key.as_str(),
        issued_at: row.issued_at,
        expires_at: row.expires_at,
    }
}
