//! Addresses as the packet path carries them: one integer, compared and hashed at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sched::service::Family;

/// An IP address as a number in host order; IPv4 in the low 32 bits. Its family is known
/// from where it stands.
pub type Bits = u128;

/// The number of an address.
pub fn bits(address: IpAddr) -> Bits {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address with this number.
pub fn address(family: Family, bits: Bits) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// An address and a port; the port in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Bits,
    /// The port.
    pub port: u16,
}
