//! What goes wrong: owners panic, are unloaded, and another node takes the shard and gives it back.

use actors::coupon::message::OwnerCommand;
use actors::door::Knowledge;
use actors::ids::{CouponId, Incarnation, IssuanceId, RequestKey, Sequence, UserId};
use actors::offer::{Coupon, Issuance, Status};
use actors::shard::life::{self};
use actors::time::Timestamp;
use rand::Rng;

use super::world::{USERS, World};

impl World {
    pub(super) fn panic_owner(&mut self) {
        let id = self.any_coupon();
        // Its mailbox and its gate go with it; every reply in them answers by being dropped.
        if self.homes.remove(&id).is_some() {
            self.board.withdraw(id);
            self.shard_mailbox.push_back(life::Event::Panicked(id));
        }
    }

    pub(super) fn passivate(&mut self) {
        let id = self.any_coupon();
        self.tell(id, OwnerCommand::Passivate);
    }

    pub(super) fn step_foreign(&mut self) {
        if self.foreign {
            self.come_back();
            return;
        }
        // Our lease ends first, and this incarnation is ended; then the other claims, and issues.
        self.foreign = true;
        self.lease = None;
        // What the other widens it answers only once our door has forgotten.
        self.door = Knowledge::default();
        self.heartbeats.clear();
        let other = Incarnation::new(1_000).unwrap();
        self.db.claim(other);
        let id = self.any_coupon();
        self.write_as_another(id);
    }

    pub(super) fn write_as_another(&mut self, id: CouponId) {
        let coupon = self.db.coupons[&id].clone();
        let rows = &self.db.issuances[&id];
        let user = UserId::parse(&format!("user-{}", self.rng.random_range(0..USERS))).unwrap();
        let nth = rows.iter().filter(|row| row.user == user).count() as u8 + 1;
        if coupon.status == Status::Open && !coupon.is_sold_out(Sequence::new(rows.len() as u64)) && nth <= coupon.offer.per_user_limit {
            let issued_at = Timestamp::from_micros(self.micros).unwrap();
            let row = Issuance {
                id: IssuanceId { coupon: id, sequence: Sequence::new(rows.len() as u64 + 1) },
                user,
                nth,
                key: RequestKey::parse(&format!("other-{}", self.micros)).unwrap(),
                issued_at,
                expires_at: Some(issued_at.plus_days(7)),
            };
            self.db.issuances.entry(id).or_default().push(row);
        }
        // And its administrator pauses or resumes there.
        let status = if coupon.status == Status::Open { Status::Paused } else { Status::Open };
        let changed = Coupon { status, version: coupon.version + 1, ..coupon };
        self.db.history.entry(id).or_default().push(changed.clone());
        self.db.coupons.insert(id, changed);
    }

    /// We join anew and get the shard back: what was lost is said before the new claim is, and the lease is the new incarnation's.
    pub(super) fn come_back(&mut self) {
        self.foreign = false;
        self.me = Incarnation::new(self.me.get() + 1).unwrap();
        self.shard_mailbox.push_back(life::Event::Lost);
        let fence = self.db.claim(self.me);
        self.shard_mailbox.push_back(life::Event::Claimed(fence));
        self.lease = Some(self.me);
    }
}
