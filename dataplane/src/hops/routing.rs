//! A host's routing as plain data: what [`super::Hops`] is built from. Whoever fills it
//! (rtnetlink, a file, a test) does no judging: the rules live in the builder.

use std::net::IpAddr;

use crate::hops::{Mac, NeighbourKey};

/// Routes, links and addresses of one network namespace.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// The routes, in the order the host lists them.
    pub routes: Vec<Route>,
    /// The links.
    pub links: Vec<Link>,
    /// The addresses, in the order the host lists them.
    pub addresses: Vec<Address>,
    /// The devices (by interface index) of the director's ports, in the ports' order.
    pub ports: Vec<u32>,
}

/// The routing tables that are followed (`/etc/iproute2/rt_tables`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Table 255: the host's own addresses.
    Local,
    /// Table 254: what `ip route` shows.
    Main,
    /// Table 253: asked last.
    Default,
}

impl Table {
    /// The table with this number, if it is one that is followed.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            255 => Some(Self::Local),
            254 => Some(Self::Main),
            253 => Some(Self::Default),
            _ => None,
        }
    }
}

/// What becomes of packets on a route (`RTN_*` of linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// They go to a next hop.
    Unicast,
    /// They are for this host (local and anycast routes).
    Local,
    /// They go nowhere that a director forwards to: blackhole, unreachable, prohibit,
    /// broadcast and multicast routes.
    Blocked,
    /// The next table decides.
    Throw,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The table it stands in.
    pub table: Table,
    /// The first address of its prefix, whose family is the route's.
    pub prefix: IpAddr,
    /// The prefix's length, bits.
    pub length: u8,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// Lower is preferred.
    pub metric: u32,
    /// How far its destinations are (`RT_SCOPE_*`: 0 global, 253 link, 254 host).
    pub scope: u8,
    /// The source address the route names.
    pub source: Option<IpAddr>,
    /// The route's own limit on packets, bytes at layer 3.
    pub mtu: Option<u32>,
    /// Its next hops.
    pub next_hops: Vec<NextHop>,
}

/// A next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The device (interface index).
    pub device: u32,
    /// The gateway, of either family; none on the link itself.
    pub gateway: Option<IpAddr>,
    /// Its share among the route's next hops, 1 to 256.
    pub weight: u16,
    /// The host has marked it dead.
    pub dead: bool,
    /// It wraps packets (MPLS, SRv6 and the like), which a port cannot do.
    pub encapsulates: bool,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its interface index.
    pub device: u32,
    /// Its name.
    pub name: String,
    /// Its link address; zeros where it has none of six bytes.
    pub mac: Mac,
    /// Its limit on packets, bytes at layer 3.
    pub mtu: u32,
    /// It is up.
    pub up: bool,
    /// It asks for no neighbours (`IFF_NOARP`).
    pub neighbourless: bool,
    /// For an 802.1Q device: the interface index of the device below, and the tag.
    pub vlan: Option<(u32, u16)>,
    /// For a macvlan: the interface index of the device below, by which its frames leave.
    pub over: Option<u32>,
}

/// An address of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device (interface index) that bears it.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// Its network's prefix length, bits.
    pub length: u8,
    /// Where it is valid (`RT_SCOPE_*`).
    pub scope: u8,
    /// Not to be chosen as a source: a second address of a network (IPv4), or tentative.
    pub passive: bool,
    /// To be chosen only where there is no other (IPv6).
    pub deprecated: bool,
}

/// The state of a neighbour entry (`NUD_*` of linux/neighbour.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Known, not confirmed of late.
    Stale,
    /// In use, to be confirmed soon.
    Delay,
    /// Being asked again.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no asking.
    NoArp,
    /// Set by the operator.
    Permanent,
    /// No state.
    None,
}

impl NeighbourState {
    /// Whether frames may be sent to the link address that it has (`NUD_VALID`).
    pub fn is_usable(self) -> bool {
        !matches!(self, Self::Incomplete | Self::Failed | Self::None)
    }
}

/// An entry of the host's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Which neighbour.
    pub key: NeighbourKey,
    /// How well it is known.
    pub state: NeighbourState,
    /// Its link address.
    pub mac: Mac,
}
