//! Limits the requests in flight to a peer. There is one limit for all requests, and one for the requests of
//! each flow, so that a slow flow delays only its own requests.

use hashbrown::HashMap;

/// Default maximum number of requests in flight to one peer. It is the size of an owner's queue, so that
/// every node can keep one owner busy.
pub const PEER_PLACES: usize = 65_536;
/// Default maximum number of requests in flight in one flow. It is half of [`PEER_PLACES`], so that a flow
/// without answers leaves room for all other flows.
pub const FLOW_PLACES: usize = PEER_PLACES / 2;

/// The taken places of one link.
#[derive(Debug)]
pub struct Window {
    flow_places: usize,
    taken: HashMap<u64, usize>,
}

impl Window {
    /// Makes a window with this many places for each flow. The places of the whole link are counted
    /// elsewhere, before a request enters the mailbox.
    pub fn new(flow_places: usize) -> Self {
        Self {
            flow_places,
            taken: HashMap::new(),
        }
    }

    /// Takes a place, if there is one.
    pub fn enter(&mut self, flow: u64) -> bool {
        let taken = self.taken.entry(flow).or_default();
        let free = *taken < self.flow_places;
        *taken += usize::from(free);
        free
    }

    /// Gives a place back.
    pub fn leave(&mut self, flow: u64) {
        if let hashbrown::hash_map::Entry::Occupied(mut taken) = self.taken.entry(flow) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }

    /// Returns how many flows have a request in flight.
    #[cfg(test)]
    pub fn flows(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_flow_leaves_room_for_other_flows_and_idle_flows_are_forgotten() {
        let mut window = Window::new(2);
        assert!(window.enter(1) && window.enter(1) && !window.enter(1));
        assert!(window.enter(2));
        window.leave(1);
        assert!(window.enter(1));
        for flow in [1, 1, 2] {
            window.leave(flow);
        }
        assert_eq!(window.flows(), 0);
    }
}
