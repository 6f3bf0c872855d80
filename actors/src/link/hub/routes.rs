//! Changes of the tables of routes, which are read without a lock.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::ids::Incarnation;
use crate::link::egress::EgressHandle;
use crate::link::ingress::Routes;
use crate::link::payload::Payload;

/// Sets or removes the route to a peer, and returns the previous one.
pub(super) fn replace<P: Payload>(
    routes: &Routes<P>,
    peer: Incarnation,
    egress: Option<EgressHandle<P>>,
) -> Option<EgressHandle<P>> {
    let mut table = HashMap::clone(&routes.load());
    let previous = match egress {
        Some(egress) => table.insert(peer, egress),
        None => table.remove(&peer),
    };
    routes.store(Arc::new(table));
    previous
}

/// Removes a route. Returns true unless another route had replaced it.
pub(super) fn remove<P: Payload>(routes: &Routes<P>, peer: Incarnation, egress: &EgressHandle<P>) -> bool {
    let is_current = routes
        .load()
        .get(&peer)
        .is_some_and(|current| current.actor.get_id() == egress.actor.get_id());
    if is_current {
        replace(routes, peer, None);
    }
    is_current
}
