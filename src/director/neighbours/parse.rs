//! rtnetlink's messages as the plain data that `Hops` is built from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane::hops::routing::{
    Address, Link, Neighbour, NeighbourState, NextHop, Route, RouteKind, Table,
};
use dataplane::hops::{Mac, NeighbourKey};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::links::{Facts, Kind};

/// The metric that Linux gives an IPv6 route without one (`IP6_RT_PRIO_USER`).
const METRIC_V6: u32 = 1024;

/// A link.
pub fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        device: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        neighbourless: flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback),
        vlan: None,
        over: None,
    };
    let mut below = None;
    let mut tag = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(device) => below = Some(*device),
            LinkAttribute::LinkInfo(infos) => tag = infos.iter().find_map(vlan_tag),
            _ => {}
        }
    }
    let below = below.filter(|_| !is_of_another_namespace(message));
    link.vlan = below.zip(tag);
    link.over = below.filter(|_| kind_of(message) == Kind::Macvlan);
    link
}

/// Whether the device below, or the other end, is in another network namespace: its number is
/// one of that.
fn is_of_another_namespace(message: &LinkMessage) -> bool {
    let mut attributes = message.attributes.iter();
    attributes.any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)))
}

/// What a link is to the director's ports.
pub fn facts(message: &LinkMessage) -> Facts {
    let flags = message.header.flags;
    let mut facts = Facts {
        device: message.header.index,
        kind: kind_of(message),
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        ..Facts::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => facts.name.clone_from(name),
            LinkAttribute::Address(bytes) => facts.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
            LinkAttribute::Controller(master) => facts.master = Some(*master),
            LinkAttribute::NumRxQueues(queues) => facts.queues = *queues,
            LinkAttribute::LinkInfo(infos) => facts.tag = infos.iter().find_map(vlan_tag),
            LinkAttribute::Link(device) if !is_of_another_namespace(message) => {
                facts.below = Some(*device);
            }
            _ => {}
        }
    }
    facts.settled()
}

fn kind_of(message: &LinkMessage) -> Kind {
    let mut attributes = message.attributes.iter();
    let kind = attributes.find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    });
    match kind {
        Some(InfoKind::Veth) => Kind::Veth,
        Some(InfoKind::Bond) => Kind::Bond,
        Some(InfoKind::Team) => Kind::Team,
        Some(InfoKind::Bridge) => Kind::Bridge,
        Some(InfoKind::Vlan) => Kind::Vlan,
        Some(InfoKind::MacVlan) => Kind::Macvlan,
        Some(InfoKind::MacVtap) => Kind::Macvtap,
        Some(InfoKind::IpVlan | InfoKind::IpVtap) => Kind::Ipvlan,
        Some(InfoKind::Vrf) => Kind::Vrf,
        Some(InfoKind::Other(name)) if name == "openvswitch" => Kind::Switch,
        _ => Kind::Plain,
    }
}

fn vlan_tag(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(parts)) = info else {
        return None;
    };
    let double = InfoVlan::Protocol(VlanProtocol::Ieee8021Ad);
    if parts.contains(&double) {
        return None;
    }
    parts.iter().find_map(|part| match part {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

/// An address of the host.
pub fn address(message: &AddressMessage) -> Option<Address> {
    let header = &message.header;
    let mut peer = None;
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    let address = local.or(peer)?;
    // IPv6 calls temporary addresses secondary; they may be chosen.
    let passive = match address {
        IpAddr::V4(_) => AddressHeaderFlags::Secondary,
        IpAddr::V6(_) => AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed,
    };
    Some(Address {
        device: header.index,
        address,
        length: header.prefix_len,
        scope: header.scope.into(),
        passive: header.flags.intersects(passive),
        deprecated: header.flags.contains(AddressHeaderFlags::Deprecated),
    })
}

/// When an address came into being, since the system's start.
pub fn created(message: &AddressMessage) -> Option<Duration> {
    message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::CacheInfo(info) = attribute else {
            return None;
        };
        // In hundredths of a second (`struct ifa_cacheinfo` of linux/if_addr.h).
        Some(Duration::from_millis(u64::from(info.cstamp) * 10))
    })
}

/// A neighbour; none for entries that are not of a kind to forward to (proxies).
pub fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let header = &message.header;
    if header
        .flags
        .contains(netlink_packet_route::neighbour::NeighbourFlags::Proxy)
    {
        return None;
    }
    let mut address = None;
    let mut link_address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => link_address = mac(bytes),
            _ => {}
        }
    }
    let key = NeighbourKey {
        device: header.ifindex,
        address: address?,
    };
    Some(Neighbour {
        key,
        // Without a link address of Ethernet's size nothing can be sent.
        state: link_address.map_or(NeighbourState::None, |_| state(header.state)),
        mac: link_address.unwrap_or_default(),
    })
}

fn state(state: State) -> NeighbourState {
    match state {
        State::Incomplete => NeighbourState::Incomplete,
        State::Reachable => NeighbourState::Reachable,
        State::Stale => NeighbourState::Stale,
        State::Delay => NeighbourState::Delay,
        State::Probe => NeighbourState::Probe,
        State::Failed => NeighbourState::Failed,
        State::Noarp => NeighbourState::NoArp,
        State::Permanent => NeighbourState::Permanent,
        _ => NeighbourState::None,
    }
}

/// A route; none for those of tables that are not followed and of other kinds of lookup
/// (by source, by type of service, cached).
pub fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let v4 = match header.address_family {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    if header.tos != 0
        || header.source_prefix_length != 0
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let any: IpAddr = match v4 {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut route = Route {
        table: Table::Main,
        prefix: any,
        length: header.destination_prefix_length,
        kind: kind(header.kind)?,
        metric: if v4 { 0 } else { METRIC_V6 },
        scope: header.scope.into(),
        source: None,
        mtu: None,
        next_hops: Vec::new(),
    };
    let mut number = u32::from(header.table);
    let mut single = single_hop(header.flags);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => number = *table,
            RouteAttribute::Destination(to) => route.prefix = ip(to)?,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
            RouteAttribute::MultiPath(hops) => {
                route.next_hops = hops
                    .iter()
                    .map(|hop| {
                        let mut next = NextHop {
                            device: hop.interface_index,
                            weight: u16::from(hop.hops) + 1,
                            dead: hop.flags.contains(RouteNextHopFlags::Dead),
                            ..single_hop(RouteFlags::empty())
                        };
                        hop.attributes.iter().for_each(|a| fill(&mut next, a));
                        next
                    })
                    .collect();
            }
            other => fill(&mut single, other),
        }
    }
    if route.next_hops.is_empty() && single.device != 0 {
        route.next_hops.push(single);
    }
    route.table = Table::from_number(number)?;
    Some(route)
}

fn single_hop(flags: RouteFlags) -> NextHop {
    NextHop {
        device: 0,
        gateway: None,
        weight: 1,
        dead: flags.contains(RouteFlags::Dead),
        encapsulates: false,
    }
}

fn fill(hop: &mut NextHop, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Oif(device) => hop.device = *device,
        RouteAttribute::Gateway(gateway) => hop.gateway = ip(gateway),
        RouteAttribute::Via(RouteVia::Inet(v4)) => hop.gateway = Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => hop.gateway = Some((*v6).into()),
        RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => hop.encapsulates = true,
        _ => {}
    }
}

fn kind(kind: RouteType) -> Option<RouteKind> {
    Some(match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local | RouteType::Anycast => RouteKind::Local,
        RouteType::Throw => RouteKind::Throw,
        RouteType::Broadcast
        | RouteType::Multicast
        | RouteType::BlackHole
        | RouteType::Unreachable
        | RouteType::Prohibit => RouteKind::Blocked,
        _ => return None,
    })
}

fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

/// Whether a rule is one of those that every host has: all packets, by the tables local,
/// main and default, in this order.
pub fn is_default_rule(message: &RuleMessage) -> bool {
    let header = &message.header;
    // Multicast routing has rules of its own in the same listing.
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return true;
    }
    let plain = header.dst_len == 0 && header.src_len == 0 && header.tos == 0;
    let mut table = u32::from(header.table);
    let mut priority = 0;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => return false,
        }
    }
    plain
        && header.action == RuleAction::ToTable
        && matches!((priority, table), (0, 255) | (32_766, 254) | (32_767, 253))
}
