//! Which addresses belong to one client.

use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that name a client. Providers give each customer at least this network, so the
/// remaining bits are the client's choice.
const CLIENT_BITS: u32 = 64;

/// Returns the address that stands for all addresses of a client: of IPv6 the network, of IPv4 the address
/// itself, also if it is written as an IPv6 address.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> CLIENT_BITS << CLIENT_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}
