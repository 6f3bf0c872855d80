//! The accepted connections that are not links yet: how many there may be, and which of them gives way.
//!
//! A connection costs memory and time before its other end has shown that it knows the cookie. So their
//! number is limited, for each address and in all. A new connection takes the place of the oldest silent one,
//! so that connections that never greet keep no peer out.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Maximum number of connections that are not links yet: as many as a node may have peers.
const GREETINGS_MAX: usize = 64;
/// Maximum number of them from one address. Several nodes may share a machine, or be behind one address.
const ADDRESS_GREETINGS_MAX: usize = 16;
/// Interval at which the names of members are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Time limit for resolving one name.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// The connections that are not links yet; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Greetings {
    table: Arc<Mutex<Table>>,
}

/// The place of one connection.
pub(super) struct Greeting {
    number: u64,
    greetings: Greetings,
    cut: CancellationToken,
}

/// Whether a connection gets a place.
pub(super) enum Reception {
    /// It has a place.
    Admitted(Greeting),
    /// It has the place of another connection, which is cut.
    InPlaceOfAnother(Greeting),
    /// All places are taken by connections that have precedence.
    Refused,
}

impl Greetings {
    /// Gives a connection from this address a place.
    pub(super) fn admit(&self, from: IpAddr) -> Reception {
        let mut table = self.table();
        let from = from.to_canonical();
        let evicted = match table.evict_for(from) {
            Eviction::None => None,
            Eviction::Of(number) => table.places.remove(&number),
            Eviction::Impossible => return Reception::Refused,
        };
        let cut = CancellationToken::new();
        let greeting = Greeting {
            number: table.add(from, cut.clone()),
            greetings: self.clone(),
            cut,
        };
        match evicted {
            None => Reception::Admitted(greeting),
            Some(evicted) => {
                evicted.cut.cancel();
                Reception::InPlaceOfAnother(greeting)
            }
        }
    }

    /// Keeps the IP addresses of members up to date, until the sender of the members' `host:port` is dropped.
    pub(super) async fn follow_members(self, mut members: watch::Receiver<Vec<String>>) {
        loop {
            let addresses = members.borrow_and_update().clone();
            let resolved = join_all(addresses.iter().map(|address| resolve(address))).await;
            self.table().members = resolved.into_iter().flatten().collect();
            if let Ok(Err(_gone)) = timeout(RESOLVE_EVERY, members.changed()).await {
                return;
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn resolve(address: &str) -> Vec<IpAddr> {
    match timeout(RESOLVE_LIMIT, tokio::net::lookup_host(address)).await {
        Ok(Ok(found)) => found.map(|address| address.ip().to_canonical()).collect(),
        // Connections from this member count as those of a stranger until its name is resolved.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

impl Greeting {
    /// Returns the token that cuts the connection.
    pub(super) fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Notes that the connection has begun its handshake.
    pub(super) fn has_begun(&self) {
        if let Some(place) = self.greetings.table().places.get_mut(&self.number) {
            place.is_silent = false;
        }
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.greetings.table().places.remove(&self.number);
    }
}

#[derive(Debug)]
struct Place {
    from: IpAddr,
    is_silent: bool,
    cut: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// In the order in which the connections were accepted.
    places: BTreeMap<u64, Place>,
    members: HashSet<IpAddr>,
}

/// Which connection gives way to a new one.
#[derive(Debug, PartialEq, Eq)]
enum Eviction {
    None,
    Of(u64),
    Impossible,
}

impl Table {
    fn add(&mut self, from: IpAddr, cut: CancellationToken) -> u64 {
        self.next += 1;
        let place = Place {
            from,
            is_silent: true,
            cut,
        };
        self.places.insert(self.next, place);
        self.next
    }

    /// Returns which connection gives way to a new one from this address. If the address's network has its
    /// maximum, that is one of the same network. Otherwise, if all places are taken, it is one of all.
    /// Strangers give way before members, then silent connections before others, then older ones before newer
    /// ones.
    fn evict_for(&self, from: IpAddr) -> Eviction {
        let network = network(from);
        let of_network = || {
            let places = self.places.iter();
            places.filter(|(_, place)| self::network(place.from) == network)
        };
        let is_member = |address: IpAddr| self.members.contains(&address);
        let order = |(number, place): &(&u64, &Place)| (is_member(place.from), !place.is_silent, **number);
        let first = if of_network().count() >= ADDRESS_GREETINGS_MAX {
            of_network().min_by_key(order)
        } else if self.places.len() >= GREETINGS_MAX {
            self.places.iter().min_by_key(order)
        } else {
            None
        };
        match first {
            Some((_, place)) if is_member(place.from) && !is_member(from) => Eviction::Impossible,
            Some((number, _)) => Eviction::Of(*number),
            None => Eviction::None,
        }
    }
}

/// Returns what counts as one address. In IPv6 that is a network of 64 bits, which usually belongs to one
/// machine.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn stranger(number: usize) -> IpAddr {
        IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()])
    }

    fn admit(greetings: &Greetings, from: IpAddr) -> Greeting {
        match greetings.admit(from) {
            Reception::Admitted(greeting) | Reception::InPlaceOfAnother(greeting) => greeting,
            Reception::Refused => panic!("{from} is refused"),
        }
    }

    /// Returns the places of the connections that were cut.
    fn cut(all: &[Greeting]) -> Vec<usize> {
        let cut = all.iter().enumerate().filter(|(_, one)| one.cut.is_cancelled());
        cut.map(|(place, _)| place).collect()
    }

    #[test]
    fn an_address_has_a_maximum_beyond_which_its_oldest_silent_connection_gives_way() {
        let greetings = Greetings::default();
        let mut all: Vec<_> = (0..ADDRESS_GREETINGS_MAX)
            .map(|_| admit(&greetings, stranger(1)))
            .collect();
        all[0].has_begun();
        all.push(admit(&greetings, stranger(2)));
        assert!(cut(&all).is_empty());
        for _ in 0..2 {
            all.push(admit(&greetings, stranger(1)));
        }
        assert_eq!(cut(&all), [1, 2]);
        all.iter().for_each(Greeting::has_begun);
        all.push(admit(&greetings, stranger(1)));
        assert_eq!(cut(&all), [0, 1, 2]);
    }

    #[test]
    fn a_network_of_ipv6_has_the_maximum_of_one_address() {
        let greetings = Greetings::default();
        let all: Vec<_> = (0..=ADDRESS_GREETINGS_MAX)
            .map(|host| admit(&greetings, address(&format!("2001:db8::{host:x}"))))
            .collect();
        assert_eq!(cut(&all), [0]);
        let mapped: Vec<_> = (0..ADDRESS_GREETINGS_MAX)
            .map(|host| admit(&greetings, address(&format!("::ffff:192.0.2.{host}"))))
            .collect();
        assert!(cut(&mapped).is_empty());
    }

    #[test]
    fn a_member_takes_a_strangers_place_and_a_stranger_takes_no_members_place() {
        let greetings = Greetings::default();
        let members: Vec<IpAddr> = (0..GREETINGS_MAX)
            .map(|number| IpAddr::from([10, 0, 0, u8::try_from(number).unwrap()]))
            .collect();
        greetings.table().members = members.iter().copied().collect();
        let mut all = vec![admit(&greetings, members[0])];
        all.extend((1..GREETINGS_MAX).map(|number| admit(&greetings, stranger(number))));
        all[1].has_begun();
        // A stranger takes the place of the oldest silent stranger, although a member is older.
        all.push(admit(&greetings, stranger(100)));
        assert_eq!(cut(&all), [2]);
        for member in &members[1..] {
            all.push(admit(&greetings, *member));
        }
        let strangers: Vec<usize> = (1..=GREETINGS_MAX).collect();
        assert_eq!(cut(&all), strangers);
        assert!(matches!(greetings.admit(stranger(101)), Reception::Refused));
        all.push(admit(&greetings, members[1]));
        assert_eq!(cut(&all)[0], 0, "the oldest silent member gives way to a member");
    }

    #[test]
    fn strangers_in_the_network_of_a_member_do_not_take_its_place() {
        let greetings = Greetings::default();
        let member = address("2001:db8::1");
        greetings.table().members = [member].into_iter().collect();
        let mut all = vec![admit(&greetings, member)];
        for host in 0..2 * ADDRESS_GREETINGS_MAX {
            all.push(admit(&greetings, address(&format!("2001:db8::1:{host:x}"))));
            all[host + 1].has_begun();
        }
        // The member is silent and the oldest, and stays.
        assert_eq!(cut(&all).len(), ADDRESS_GREETINGS_MAX + 1);
        assert!(!cut(&all).contains(&0));
    }

    #[test]
    fn a_connection_that_ends_frees_its_place() {
        let greetings = Greetings::default();
        for number in 0..3 * GREETINGS_MAX {
            drop(admit(&greetings, stranger(number)));
        }
        assert_eq!(greetings.table().places.len(), 0);
    }

    #[tokio::test]
    async fn members_are_known_by_the_addresses_of_their_names() {
        let greetings = Greetings::default();
        let names = [
            "localhost:1",
            "10.1.2.3:4",
            "[::ffff:10.1.2.4]:5",
            "no-such-host.invalid:6",
        ];
        let (sender, members) = watch::channel(names.map(str::to_owned).to_vec());
        let following = tokio::spawn(greetings.clone().follow_members(members));
        let known = async || {
            while greetings.table().members.len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            greetings.table().members.clone()
        };
        let known = timeout(Duration::from_secs(20), known()).await.unwrap();
        for member in ["127.0.0.1", "10.1.2.3", "10.1.2.4"] {
            assert!(known.contains(&address(member)), "{known:?}");
        }
        drop(sender);
        timeout(Duration::from_secs(10), following)
            .await
            .unwrap()
            .unwrap();
    }
}
