//! A database in memory that does what the store's contract says, one statement at a time.

use std::collections::HashMap;

use actors::ids::{CouponId, Epoch, Fence, Incarnation};
use actors::offer::{Coupon, Issuance};
use actors::store::StoreError;
use actors::write_back::batch::{Batch, Entries, Found, FoundRows, Portion};

/// One shard and its coupons.
#[derive(Debug)]
pub struct Database {
    pub fence: Fence,
    pub coupons: HashMap<CouponId, Coupon>,
    pub issuances: HashMap<CouponId, Vec<Issuance>>,
    /// Every coupon's versions as they were committed.
    pub history: HashMap<CouponId, Vec<Coupon>>,
    /// Taken out for a test: the fence is not looked at.
    pub unfenced: bool,
}

impl Database {
    pub fn new(coupons: Vec<Coupon>, owner: Incarnation) -> Self {
        let history = coupons.iter().map(|coupon| (coupon.id, vec![coupon.clone()])).collect();
        let issuances = coupons.iter().map(|coupon| (coupon.id, Vec::new())).collect();
        let coupons = coupons.into_iter().map(|coupon| (coupon.id, coupon)).collect();
        Self { fence: Fence { epoch: Epoch::new(1), owner }, coupons, issuances, history, unfenced: false }
    }

    /// Raises the epoch and names the owner.
    pub fn claim(&mut self, owner: Incarnation) -> Fence {
        self.fence = Fence { epoch: self.fence.epoch.next(), owner };
        self.fence
    }

    /// One guarded statement.
    pub fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let passing: Vec<&Portion> = batch.portions.iter().filter(|portion| self.passes(portion)).collect();
        if passing.iter().any(|portion| self.clashes(portion)) {
            return Err(StoreError::Clash("a row is there".to_owned()));
        }
        let passing: Vec<Portion> = passing.into_iter().cloned().collect();
        let mut rows = 0;
        for portion in passing {
            rows += portion.entries.len() as u64;
            match portion.entries {
                Entries::Issuances(issuances) => self.stored(portion.coupon).extend(issuances.iter().cloned()),
                Entries::Change(change) => {
                    self.coupons.insert(portion.coupon, change.coupon.clone());
                    self.history.entry(portion.coupon).or_default().push(change.coupon.clone());
                }
            }
        }
        Ok(rows)
    }

    pub fn read_back(&self, batch: &Batch) -> Vec<Found> {
        batch.portions.iter().map(|portion| Found { fence_holds: portion.fence == self.fence, rows: self.find(portion) }).collect()
    }

    fn stored(&mut self, coupon: CouponId) -> &mut Vec<Issuance> {
        self.issuances.entry(coupon).or_default()
    }

    fn passes(&self, portion: &Portion) -> bool {
        let coupon = &self.coupons[&portion.coupon];
        let guards = match &portion.entries {
            Entries::Issuances(issuances) => issuances.iter().all(|issuance| {
                let within = coupon.offer.total_quantity.is_none_or(|total| issuance.id.sequence.get() <= total);
                within && issuance.nth <= coupon.offer.per_user_limit
            }),
            Entries::Change(change) => {
                let issued = self.issuances[&portion.coupon].len() as u64;
                let enough = change.coupon.offer.total_quantity.is_none_or(|total| total >= issued);
                change.coupon.version == coupon.version + 1 && enough
            }
        };
        guards && (self.unfenced || portion.fence == self.fence)
    }

    fn clashes(&self, portion: &Portion) -> bool {
        let Entries::Issuances(issuances) = &portion.entries else { return false };
        let stored = &self.issuances[&portion.coupon];
        issuances
            .iter()
            .any(|new| stored.iter().any(|old| old.id.sequence == new.id.sequence || (old.user == new.user && old.nth == new.nth)))
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
