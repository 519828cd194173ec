//! Where a packet to an address goes next: the host's routes, neighbours and links as
//! workers read them.

use std::net::IpAddr;

use sched::service::Family;

use crate::address::Bits;

/// The place of a port in the director's list of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

/// A link-layer address.
pub type Mac = [u8; 6];

/// How a frame gets to its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The port it leaves by.
    pub port: PortId,
    /// The VLAN tag it bears, where the route leaves by a VLAN device of the port.
    pub vlan: Option<u16>,
    /// The port's own link address.
    pub source: Mac,
    /// The next hop's link address.
    pub destination: Mac,
    /// The largest packet that fits, bytes at layer 3.
    pub mtu: u16,
    /// The address the host would use as source on this route (a tunnel's outer source).
    pub local: Bits,
}

/// A next hop whose link address is asked for by this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourKey {
    /// The interface's index.
    pub device: u32,
    /// The neighbour's address.
    pub address: IpAddr,
}

/// What the host's routing says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By one of the director's ports; the neighbour is known.
    Ready(Hop),
    /// By one of the director's ports; the neighbour's link address is not known yet, so
    /// `hop.destination` means nothing.
    Unresolved(NeighbourKey, Hop),
    /// The address is the host's own.
    Local,
    /// By a device that is not a port of the director.
    NotAPort,
    /// No route, or a blackhole, prohibit or unreachable one.
    None,
}

/// The host's routing as one immutable table.
///
/// Built by the control side from rtnetlink; looked up by workers for addresses that no
/// snapshot can know in advance (clients). Longest prefix first.
#[derive(Debug, Default)]
pub struct Hops {
    // To be built: see `Hops::lookup`.
}

impl Hops {
    /// The way to `destination`.
    pub fn lookup(&self, family: Family, destination: Bits) -> Way {
        let _ = (family, destination);
        Way::None
    }
}
