//! A shard between two nodes: giving it up, and loading ahead where it is expected.

use std::collections::VecDeque;

use crate::ids::{CouponId, Fence, Incarnation};
use crate::owning::shard::lifecycle::slot::{Expected, Loading, Seat};
use crate::owning::shard::lifecycle::{EXPECTED_MAX, Effect, Life, Standing};

impl Life {
    pub(super) fn give_up(&mut self, from: Fence, to: Option<Incarnation>, effects: &mut Vec<Effect>) {
        match self.standing {
            Standing::Serving(fence) if fence == from => {}
            // Ours by its row alone. An owner of before that has not stopped yet may still decide: it is
            // waited for too.
            Standing::Unserved if !self.is_known_beyond(from) => self.last = Some(from),
            // Served in another epoch, or given up already.
            Standing::Unserved
            | Standing::Serving(_)
            | Standing::Raising(_)
            | Standing::GivingUp { .. }
            | Standing::Giving(_)
            | Standing::Regaining(_)
            | Standing::Draining(_)
            | Standing::Drained => return,
        }
        self.standing = Standing::GivingUp { from, to };
        self.clear(effects, Effect::Drain);
    }

    pub(super) fn given(&mut self, from: Fence, given: bool, effects: &mut Vec<Effect>) {
        if self.standing != Standing::Giving(from) {
            return;
        }
        if given {
            self.standing = Standing::Unserved;
        } else {
            self.standing = Standing::Regaining(from);
            effects.push(Effect::Raise { from, pause: true });
        }
    }

    pub(super) fn expect(&mut self, coupons: Vec<CouponId>, effects: &mut Vec<Effect>) {
        if self.standing != Standing::Unserved {
            return;
        }
        let mut room = EXPECTED_MAX.saturating_sub(
            self.seats
                .values()
                .filter(|seat| matches!(seat, Seat::Expected(_)))
                .count(),
        );
        for coupon in coupons {
            if room > 0 && !self.seats.contains_key(&coupon) {
                room -= 1;
                self.seats.insert(coupon, Seat::Expected(Expected::default()));
                effects.push(Effect::Preload(coupon));
            }
        }
    }

    /// Whoever is about to hand it to us waits for that.
    pub(super) fn say_if_loaded_ahead(&self, effects: &mut Vec<Effect>) {
        if !self
            .seats
            .values()
            .any(|seat| matches!(seat, Seat::Expected(Expected { read: false, .. })))
        {
            effects.push(Effect::LoadedAhead);
        }
    }

    pub(super) fn preloaded(&mut self, coupon: CouponId, read: bool, effects: &mut Vec<Effect>) {
        let present = self.fence();
        let Some(Seat::Expected(expected @ Expected { read: false, .. })) = self.seats.get_mut(&coupon)
        else {
            return;
        };
        match present {
            None if read => {
                expected.read = true;
                effects.push(Effect::Keep(coupon));
            }
            // The shard came meanwhile: what is read from now on is read under its fence.
            Some(fence) if read => {
                self.seats.insert(coupon, Loading::of(fence, VecDeque::new()));
                effects.extend([Effect::Keep(coupon), Effect::LoadTail(coupon)]);
            }
            Some(_) | None => {
                self.seats.remove(&coupon);
            }
        }
    }
}
