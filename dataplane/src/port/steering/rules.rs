//! What the steering program is to look for, and the maps' contents that say so.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ahash::HashMap;
use sched::prefix::{Prefix, Prefixes};
use sched::server::Tunnel;
use sched::service::Protocol;

use crate::frame::ipsec;
use crate::hops::Mac;

/// An address, protocol and port; port 0 stands for every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SteeredEndpoint {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port, host order.
    pub port: u16,
}

/// Which frames are the director's. The order within a list does not matter, nor do
/// repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteeringRules {
    /// Packets to these: virtual services, and endpoints that bear a firewall mark.
    pub virtuals: Vec<SteeredEndpoint>,
    /// Packets from these: NAT real servers.
    pub reals: Vec<SteeredEndpoint>,
    /// Every packet from these: NAT real servers of services that span protocols (marks).
    pub reals_whole: Vec<IpAddr>,
    /// ICMP errors about tunnelled packets to these: the tunnels' real servers.
    pub tunnels: Vec<(IpAddr, Tunnel)>,
    /// VLANs served beside untagged frames: a port's device number and the VLAN, 1 to 4094.
    pub vlans: Vec<(u32, u16)>,
    /// The link-layer address of each port by its device number.
    pub macs: Vec<(u32, Mac)>,
    /// Further link-layer addresses that the host has on ports (macvlans'), by the ports'
    /// device numbers. Frames to all others pass.
    pub stations: Vec<(u32, Mac)>,
    /// Clients that are let in or kept out.
    pub prefixes: Arc<Prefixes>,
}

/// A role of an address or endpoint, as in steer.bpf.c.
pub(super) const VIRTUAL: u32 = 1;
pub(super) const REAL: u32 = 2;
pub(super) const TUNNEL: u32 = 4;
pub(super) const REAL_WHOLE: u32 = 8;

/// `struct address` of steer.bpf.c: network order, IPv4 as ::ffff:a.b.c.d.
pub(super) type AddressKey = [u8; 16];
/// `struct endpoint` of steer.bpf.c: address, port in network order, protocol, zero.
pub(super) type EndpointKey = [u8; 20];
/// `struct vlan` of steer.bpf.c.
pub(super) type VlanKey = [u8; 8];
/// `struct station` of steer.bpf.c.
pub(super) type StationKey = [u8; 12];

/// By an address's hash, all roles of the addresses with that hash.
pub(super) type Filter = Vec<u8>;

/// As FILTER_PLACES of steer.bpf.c.
const FILTER_PLACES: usize = 65_536;

/// `struct known` of steer.bpf.c: an endpoint, and its roles.
pub(super) type KnownValue = [u8; 24];
/// By an endpoint's hash, the first of the endpoints with that hash.
pub(super) type Known = Vec<KnownValue>;

/// As KNOWN_PLACES of steer.bpf.c.
const KNOWN_PLACES: usize = 65_536;

/// What stands where no endpoint is known. A packet that matches it, of protocol 0, finds no role
/// here, and the maps are asked.
const NOBODY: KnownValue = [0; 24];

/// The contents of the maps for a set of rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) endpoints: HashMap<EndpointKey, u32>,
    pub(super) addresses: HashMap<AddressKey, u32>,
    pub(super) filter: Filter,
    pub(super) known: Known,
    pub(super) vlans: HashMap<VlanKey, u8>,
    pub(super) stations: HashMap<StationKey, u8>,
    pub(super) prefixes: Arc<Prefixes>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            endpoints: HashMap::default(),
            addresses: HashMap::default(),
            filter: vec![0; FILTER_PLACES],
            known: vec![NOBODY; KNOWN_PLACES],
            vlans: HashMap::default(),
            stations: HashMap::default(),
            prefixes: Arc::default(),
        }
    }
}

impl Contents {
    pub(super) fn of(rules: &SteeringRules) -> Self {
        let mut contents = Self::default();
        for (ends, role) in [(&rules.virtuals, VIRTUAL), (&rules.reals, REAL)] {
            for end in ends {
                contents.endpoint(end.address, end.protocol.number(), end.port, role);
                for &protocol in followers(end) {
                    contents.endpoint(end.address, protocol, 0, role);
                }
            }
        }
        for &address in &rules.reals_whole {
            contents.role(address, REAL | REAL_WHOLE);
        }
        for &(address, tunnel) in &rules.tunnels {
            for &(protocol, port) in outer(tunnel).iter() {
                contents.endpoint(address, protocol, port, TUNNEL);
            }
        }
        for &(device, vlan) in &rules.vlans {
            contents.vlans.insert(vlan_key(device, vlan), 1);
        }
        for &(device, mac) in &rules.stations {
            contents.stations.insert(station_key(device, mac), 1);
        }
        contents.prefixes = rules.prefixes.clone();
        contents.filter = filter_of(&contents.addresses);
        contents.known = known_of(&contents.endpoints);
        contents
    }

    fn endpoint(&mut self, address: IpAddr, protocol: u8, port: u16, role: u32) {
        let key = endpoint_key(address, protocol, port);
        *self.endpoints.entry(key).or_default() |= role;
        self.role(address, role);
    }

    fn role(&mut self, address: IpAddr, role: u32) {
        *self.addresses.entry(address_key(address)).or_default() |= role;
    }
}

/// The filter of these addresses.
pub(super) fn filter_of(addresses: &HashMap<AddressKey, u32>) -> Filter {
    let mut filter = vec![0; FILTER_PLACES];
    for (address, &roles) in addresses {
        filter[place_in_filter(address)] |= roles as u8;
    }
    filter
}

/// The endpoints that are known at once: of several in one place the least, so that it is the
/// same in each process.
pub(super) fn known_of(endpoints: &HashMap<EndpointKey, u32>) -> Known {
    let mut known = vec![NOBODY; KNOWN_PLACES];
    for (endpoint, &roles) in endpoints {
        let there = &mut known[place_among_known(endpoint)];
        if *there == NOBODY || endpoint[..] < there[..20] {
            there[..20].copy_from_slice(endpoint);
            there[20..].copy_from_slice(&roles.to_ne_bytes());
        }
    }
    known
}

/// As `hash_of` of steer.bpf.c: words as they lie in memory, odd factors, so that the last 16
/// bits of IPv4 addresses alone reach every place once.
fn hash_of(address: &[u8]) -> u32 {
    const FACTORS: [u32; 4] = [0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f, 0x9e37_79b1];
    let words = address.as_chunks::<4>().0.iter();
    let words = words.map(|word| u32::from_ne_bytes(*word));
    let products = words
        .zip(FACTORS)
        .map(|(word, factor)| word.wrapping_mul(factor));
    products.fold(0, u32::wrapping_add)
}

fn place_in_filter(address: &AddressKey) -> usize {
    (hash_of(address) >> 16) as usize
}

/// As `known_roles_of` of steer.bpf.c.
fn place_among_known(endpoint: &EndpointKey) -> usize {
    let port = u16::from_ne_bytes([endpoint[16], endpoint[17]]);
    let rest = u32::from(port) | u32::from(endpoint[18]) << 16;
    let hash = hash_of(&endpoint[..16]).wrapping_add(rest.wrapping_mul(0x1656_67b1));
    (hash >> 16) as usize
}

/// The protocols whose packets go where this endpoint's go: those of IPsec, without ports, where
/// their keys are exchanged.
fn followers(end: &SteeredEndpoint) -> &'static [u8] {
    match (end.protocol, end.port) {
        (Protocol::Udp, 0 | ipsec::IKE_PORT) => &ipsec::PROTOCOLS,
        _ => &[],
    }
}

/// The protocol and port that a tunnel's outer packet goes to. IP in IP carries either
/// family: protocol 4 (RFC 2003) and 41 (RFC 2473); GRE is 47 (RFC 2784).
fn outer(tunnel: Tunnel) -> [(u8, u16); 2] {
    match tunnel {
        Tunnel::Ipip => [(4, 0), (41, 0)],
        Tunnel::Gre { .. } => [(47, 0); 2],
        Tunnel::Gue { port, .. } => [(17, port); 2],
    }
}

fn address_key(address: IpAddr) -> AddressKey {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn endpoint_key(address: IpAddr, protocol: u8, port: u16) -> EndpointKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&address_key(address));
    key[16..18].copy_from_slice(&port.to_be_bytes());
    key[18] = protocol;
    key
}

/// `struct prefix` of steer.bpf.c: its length, and its address.
pub(super) fn prefix_key(prefix: &Prefix) -> (u32, AddressKey) {
    let before = if prefix.address().is_ipv4() { 96 } else { 0 };
    (
        before + u32::from(prefix.bits()),
        address_key(prefix.address()),
    )
}

/// The prefix of a key; none where it is no director's.
pub(super) fn prefix_of((bits, key): (u32, AddressKey)) -> Option<Prefix> {
    let address = Ipv6Addr::from(key).to_canonical();
    let before = if address.is_ipv4() { 96 } else { 0 };
    let bits = u8::try_from(bits.checked_sub(before)?).ok()?;
    Some(Prefix::of(address, bits))
}

pub(super) fn vlan_key(device: u32, vlan: u16) -> VlanKey {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&device.to_ne_bytes());
    key[4..6].copy_from_slice(&vlan.to_ne_bytes());
    key
}

pub(super) fn station_key(device: u32, mac: Mac) -> StationKey {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&device.to_ne_bytes());
    key[4..10].copy_from_slice(&mac);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_may_have_several_roles() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let protocol = Protocol::Tcp;
        let end = |port| SteeredEndpoint {
            address,
            protocol,
            port,
        };
        let contents = Contents::of(&SteeringRules {
            virtuals: vec![end(80), end(80), end(443)],
            reals: vec![end(80)],
            reals_whole: vec![address],
            tunnels: vec![(address, Tunnel::Ipip)],
            ..SteeringRules::default()
        });
        let key = endpoint_key(address, 6, 80);
        assert_eq!(key[10..], [0xff, 0xff, 10, 0, 0, 1, 0, 80, 6, 0]);
        assert_eq!(contents.endpoints[&key], VIRTUAL | REAL);
        assert_eq!(contents.endpoints.len(), 4);
        let all = VIRTUAL | REAL | TUNNEL | REAL_WHOLE;
        assert_eq!(contents.addresses[&address_key(address)], all);
    }
}
