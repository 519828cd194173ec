//! Where a packet to an address goes next: the host's routes, neighbours and links as
//! workers read them.
//!
//! The control side mirrors the host's routing and builds one immutable [`Hops`] from it;
//! a look-up answers as the host itself would. Next hops whose devices are down are left
//! out when the table is built, so a look-up never has to judge them.

mod build;
pub mod path_mtu;
pub mod routing;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use ahash::{HashMap, HashSet};
use sched::service::Family;

use crate::address::{Bits, address};
use path_mtu::PathMtus;
use routing::{Neighbour, Routing};

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
    /// The address the host would use as source on this route (a tunnel's outer source);
    /// 0 where the host has none.
    pub local: Bits,
}

/// A next hop whose link address is asked for by this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// The host's routing as one immutable table. A copy shares it.
///
/// Built by the control side from rtnetlink; looked up by workers for addresses that no
/// snapshot can know in advance (clients). Longest prefix first; a look-up costs one hash
/// probe per prefix length in use and one for the neighbour.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    routes: Arc<Routes>,
    neighbours: Arc<HashMap<NeighbourKey, Mac>>,
    path_mtus: Arc<PathMtus>,
}

/// The part that changes with routes, links and addresses but not with neighbours.
#[derive(Debug, Default)]
struct Routes {
    /// The prefixes of IPv4's local routes, by length: few, and asked for each new client.
    local_v4: Vec<(u8, HashSet<Bits>)>,
    v4: Vec<Prefixes>,
    v6: Vec<Prefixes>,
}

/// One routing table: for each prefix length in use, longest first, its prefixes.
#[derive(Debug, Default)]
struct Prefixes(Vec<(u8, HashMap<Bits, Target>)>);

/// Where a prefix leads.
#[derive(Clone, Debug)]
enum Target {
    /// To the same end for every address.
    End(Way),
    /// On with the next table.
    Throw,
    /// Over one of several next hops, never none.
    Paths(Box<[Path]>),
}

/// One next hop of a route.
#[derive(Clone, Debug)]
enum Path {
    /// By one of the director's ports.
    Port(PortPath),
    /// By another device.
    Elsewhere {
        /// Its share among the next hops, 1 to 256.
        weight: u16,
    },
}

#[derive(Clone, Debug)]
struct PortPath {
    weight: u16,
    device: u32,
    /// None on the link itself, where the destination is the neighbour.
    gateway: Option<IpAddr>,
    /// Complete but for the neighbour's link address.
    hop: Hop,
    /// Whether `hop.destination` is right already: the device asks for no neighbours.
    neighbourless: bool,
    /// IPv6 sources to choose from by the destination, where there are several.
    sources: Box<[Bits]>,
}

impl Hops {
    /// The table for a host's routing. Of the neighbours only usable ones are kept.
    pub fn new(routing: &Routing, neighbours: impl IntoIterator<Item = Neighbour>) -> Self {
        Self {
            routes: Arc::new(build::routes(routing)),
            neighbours: Arc::new(usable(neighbours)),
            path_mtus: Arc::default(),
        }
    }

    /// The same routes with other neighbours: cheap, as neighbours change most.
    pub fn with_neighbours(&self, neighbours: impl IntoIterator<Item = Neighbour>) -> Self {
        Self {
            routes: Arc::clone(&self.routes),
            neighbours: Arc::new(usable(neighbours)),
            path_mtus: Arc::clone(&self.path_mtus),
        }
    }

    /// Whether this is a copy of `other`, or the other way round: then nothing differs.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
            && Arc::ptr_eq(&self.neighbours, &other.neighbours)
            && Arc::ptr_eq(&self.path_mtus, &other.path_mtus)
    }

    /// The same routing, with path MTUs of its own: what they learn leaves no trace here.
    #[must_use]
    pub fn forked(&self) -> Self {
        Self {
            path_mtus: Arc::new(self.path_mtus.forked()),
            ..self.clone()
        }
    }

    /// What routers said of the paths behind these routes.
    pub fn path_mtus(&self) -> &PathMtus {
        &self.path_mtus
    }

    /// The way to `destination`.
    ///
    /// IPv4's local and main tables are one, as Linux merges them; IPv6's are asked one
    /// after the other; then the default table. Of several next hops of a route, a hash
    /// of the destination picks one by weight, the same each time.
    pub fn lookup(&self, family: Family, destination: Bits) -> Way {
        match self.routes.target(family, destination) {
            Some(Target::End(way)) => *way,
            Some(Target::Paths(paths)) => match choose(paths, destination) {
                Path::Port(path) => self.resolve(path, family, destination),
                Path::Elsewhere { .. } => Way::NotAPort,
            },
            Some(Target::Throw) | None => Way::None,
        }
    }

    /// Whether an IPv4 address is the host's own: as `lookup` tells, but at little cost for
    /// those that are not.
    #[inline]
    pub fn is_local_v4(&self, address: Bits) -> bool {
        let mut locals = self.routes.local_v4.iter();
        let may_be = |(length, prefixes): &(u8, HashSet<Bits>)| {
            prefixes.contains(&masked(address, *length, 32))
        };
        // A longer prefix within a local one may lead elsewhere.
        locals.any(may_be) && self.lookup(Family::V4, address) == Way::Local
    }

    /// The way again, now that its neighbour may be known: an unresolved one becomes ready
    /// when it is, any other stays as it is.
    pub fn resolved(&self, way: Way) -> Way {
        match way {
            Way::Unresolved(key, hop) => match self.neighbours.get(&key) {
                Some(&destination) => Way::Ready(Hop { destination, ..hop }),
                None => way,
            },
            other => other,
        }
    }

    /// The neighbour that packets to `destination` are handed to, known or not; none
    /// where the way is not by a port.
    pub fn neighbour(&self, family: Family, destination: Bits) -> Option<NeighbourKey> {
        match self.routes.target(family, destination)? {
            Target::Paths(paths) => match choose(paths, destination) {
                Path::Port(path) => Some(path.neighbour(family, destination)),
                Path::Elsewhere { .. } => None,
            },
            _ => None,
        }
    }

    fn resolve(&self, path: &PortPath, family: Family, destination: Bits) -> Way {
        let mut hop = path.hop;
        if path.sources.len() > 1 {
            hop.local = nearest(&path.sources, destination);
        }
        if path.neighbourless {
            return Way::Ready(hop);
        }
        let key = path.neighbour(family, destination);
        match self.neighbours.get(&key) {
            Some(mac) => {
                hop.destination = *mac;
                Way::Ready(hop)
            }
            None => Way::Unresolved(key, hop),
        }
    }
}

impl Routes {
    fn target(&self, family: Family, destination: Bits) -> Option<&Target> {
        let (tables, width) = match family {
            Family::V4 => (&self.v4, 32),
            Family::V6 => (&self.v6, 128),
        };
        tables
            .iter()
            .filter_map(|table| table.find(destination, width))
            .find(|target| !matches!(target, Target::Throw))
    }
}

impl Prefixes {
    fn find(&self, destination: Bits, width: u8) -> Option<&Target> {
        self.0
            .iter()
            .find_map(|(length, prefixes)| prefixes.get(&masked(destination, *length, width)))
    }
}

impl PortPath {
    fn neighbour(&self, family: Family, destination: Bits) -> NeighbourKey {
        NeighbourKey {
            device: self.device,
            address: self.gateway.unwrap_or_else(|| address(family, destination)),
        }
    }
}

impl Path {
    fn weight(&self) -> u32 {
        match self {
            Self::Port(path) => u32::from(path.weight),
            Self::Elsewhere { weight } => u32::from(*weight),
        }
    }
}

/// The first `length` bits of an address of `width` bits; the others 0.
fn masked(bits: Bits, length: u8, width: u8) -> Bits {
    match width - length.min(width) {
        0 => bits,
        128 => 0,
        free => bits >> free << free,
    }
}

/// The next hop for a destination: always the same, and spread by weight.
fn choose(paths: &[Path], destination: Bits) -> &Path {
    if paths.len() == 1 {
        return &paths[0];
    }
    let total: u32 = paths.iter().map(Path::weight).sum();
    let mut place = (mix(destination) % u64::from(total.max(1))) as u32;
    for path in paths {
        match place.checked_sub(path.weight()) {
            Some(rest) => place = rest,
            None => return path,
        }
    }
    &paths[0]
}

/// Spreads an address over 64 bits (the finalizer of SplitMix64).
fn mix(bits: Bits) -> u64 {
    let mut z = (bits as u64) ^ ((bits >> 64) as u64).rotate_left(32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The source that shares most leading bits with the destination; the first of equals
/// (RFC 6724, section 5, rule 8).
fn nearest(sources: &[Bits], destination: Bits) -> Bits {
    let shared = |source: Bits| (source ^ destination).leading_zeros();
    let mut best = sources[0];
    for &source in &sources[1..] {
        if shared(source) > shared(best) {
            best = source;
        }
    }
    best
}

fn usable(neighbours: impl IntoIterator<Item = Neighbour>) -> HashMap<NeighbourKey, Mac> {
    neighbours
        .into_iter()
        .filter(|neighbour| neighbour.state.is_usable())
        .map(|neighbour| (neighbour.key, neighbour.mac))
        .collect()
}
