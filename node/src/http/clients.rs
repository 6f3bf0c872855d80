//! What each client address takes of the node: connections, and bytes that are not sent yet. One address
//! cannot take all of either.
//!
//! The address is the one at the other end of the connection. A trusted proxy has no limit, because many
//! clients share its connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::unsent::OfAddress;
use crate::client_address::client_of;

/// Client addresses with open connections. There are at most as many as connections.
#[derive(Debug)]
pub(super) struct Clients {
    connections_max: usize,
    trusted_proxies: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, Client>>,
}

/// What one address takes.
#[derive(Debug, Default)]
struct Client {
    connections: usize,
    unsent: Arc<OfAddress>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Taken>);

#[derive(Debug)]
struct Taken {
    clients: Arc<Clients>,
    address: IpAddr,
    unsent: Arc<OfAddress>,
}

impl Clients {
    /// Makes a set that gives each address `connections_max` places, and each address of `trusted_proxies`
    /// any number.
    pub(super) fn new(connections_max: usize, trusted_proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            trusted_proxies,
            open: Mutex::default(),
        })
    }

    /// Takes a place for a connection from this address; `None` if the address has no place left.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        if self.trusted_proxies.iter().any(|network| network.contains(&peer)) {
            return Some(Place(None));
        }
        let address = client_of(peer);
        let mut open = self.lock();
        let client = open.entry(address).or_default();
        if client.connections >= self.connections_max {
            return None;
        }
        client.connections += 1;
        let unsent = Arc::clone(&client.unsent);
        drop(open);
        Some(Place(Some(Taken {
            clients: Arc::clone(self),
            address,
            unsent,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Client>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns what all connections from this address have not read; `None` if the address has no limit.
    pub(super) fn unsent(&self) -> Option<&Arc<OfAddress>> {
        self.0.as_ref().map(|taken| &taken.unsent)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Entry::Occupied(mut client) = self.clients.lock().entry(self.address) {
            client.get_mut().connections -= 1;
            if client.get().connections == 0 {
                client.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(connections_max: usize) -> Arc<Clients> {
        Clients::new(connections_max, vec!["10.0.0.0/8".parse().unwrap()])
    }

    fn take(clients: &Arc<Clients>, peer: &str) -> Option<Place> {
        clients.take(peer.parse().unwrap())
    }

    #[test]
    fn an_address_has_a_limited_number_of_places_and_gets_them_back() {
        let clients = clients(2);
        let (first, second) = (take(&clients, "192.0.2.1"), take(&clients, "::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && take(&clients, "192.0.2.1").is_none());
        assert!(take(&clients, "192.0.2.2").is_some(), "each address has its own");
        drop(first);
        let third = take(&clients, "192.0.2.1");
        assert!(third.is_some() && take(&clients, "192.0.2.1").is_none());
        drop((second, third));
        assert!(clients.lock().is_empty(), "closed connections leave nothing");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let clients = clients(1);
        let place = take(&clients, "2001:db8:0:1::1");
        assert!(place.is_some() && take(&clients, "2001:db8:0:1:ffff::2").is_none());
        assert!(take(&clients, "2001:db8:0:2::1").is_some());
    }

    #[test]
    fn a_trusted_proxy_has_no_limit() {
        let clients = clients(1);
        let places: Vec<_> = (0..5).map(|_| take(&clients, "::ffff:10.0.0.1")).collect();
        assert!(
            places
                .iter()
                .all(|place| place.as_ref().is_some_and(|place| place.unsent().is_none()))
        );
    }
}
