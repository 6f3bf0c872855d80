//! How much may be on its way to a peer: so much together, and so much for one coupon, so that a slow coupon
//! holds up none but its own.

use hashbrown::HashMap;

use crate::ids::CouponId;

/// Most requests on their way to one peer: what an owner takes, so that one coupon alone can be kept busy
/// from every node.
pub const PEER_PLACES: usize = 65_536;
/// Most of them for one coupon: half, so that one that does not answer leaves room for all others.
pub const COUPON_PLACES: usize = PEER_PLACES / 2;

/// The places of one link that are taken.
#[derive(Debug)]
pub struct Window {
    coupon_places: usize,
    taken: HashMap<CouponId, usize>,
}

impl Window {
    /// So many places for each coupon. Those of the link as a whole are counted before its mailbox.
    pub fn new(coupon_places: usize) -> Self {
        Self {
            coupon_places,
            taken: HashMap::new(),
        }
    }

    /// Takes a place, if there is one.
    pub fn enter(&mut self, coupon: CouponId) -> bool {
        let taken = self.taken.entry(coupon).or_default();
        let free = *taken < self.coupon_places;
        *taken += usize::from(free);
        free
    }

    /// Gives a place back.
    pub fn leave(&mut self, coupon: CouponId) {
        if let hashbrown::hash_map::Entry::Occupied(mut taken) = self.taken.entry(coupon) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }

    /// How many coupons have somebody on the way.
    pub fn coupons(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_coupon_leaves_room_for_others_and_no_trace() {
        let [one, other] = [1, 2].map(|number| CouponId::new(number).unwrap());
        let mut window = Window::new(2);
        assert!(window.enter(one) && window.enter(one) && !window.enter(one));
        assert!(window.enter(other));
        window.leave(one);
        assert!(window.enter(one));
        for coupon in [one, one, other] {
            window.leave(coupon);
        }
        assert_eq!(window.coupons(), 0);
    }
}
