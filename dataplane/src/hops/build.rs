//! Builds the look-up structure: which route stands for a prefix, which next hops are
//! usable, and which source address the host would take, by Linux's rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ahash::{HashMap, HashSet};
use sched::service::Family;

use super::routing::{Address, Link, NextHop, Route, RouteKind, Routing, Table};
use super::{Hop, Path, PortId, PortPath, Prefixes, Routes, Target, Way, masked};
use crate::address::{Bits, bits};

/// `RT_SCOPE_LINK`: addresses and destinations on the link itself.
const SCOPE_LINK: u8 = 253;

/// How deep links may stand on each other (`MAX_NEST_DEV` of linux/netdevice.h).
const NESTED_MAX: usize = 8;

pub(super) fn routes(routing: &Routing) -> Routes {
    let builder = Builder {
        links: routing.links.iter().map(|l| (l.device, l)).collect(),
        routing,
    };
    // Linux keeps IPv4's local and main tables as one unless rules were added.
    let v4 = builder.tables(
        Family::V4,
        &[&[Table::Local, Table::Main], &[Table::Default]],
    );
    Routes {
        local_v4: locals(&v4),
        v4,
        v6: builder.tables(
            Family::V6,
            &[&[Table::Local], &[Table::Main], &[Table::Default]],
        ),
    }
}

/// The prefixes that lead to the host itself, by length.
fn locals(tables: &[Prefixes]) -> Vec<(u8, HashSet<Bits>)> {
    let mut lengths: BTreeMap<u8, HashSet<Bits>> = BTreeMap::new();
    for (length, prefixes) in tables.iter().flat_map(|table| &table.0) {
        for (prefix, target) in prefixes {
            if matches!(target, Target::End(Way::Local)) {
                lengths.entry(*length).or_default().insert(*prefix);
            }
        }
    }
    lengths.into_iter().collect()
}

struct Builder<'a> {
    routing: &'a Routing,
    links: HashMap<u32, &'a Link>,
}

impl<'a> Builder<'a> {
    fn tables(&self, family: Family, groups: &[&[Table]]) -> Vec<Prefixes> {
        groups
            .iter()
            .map(|group| self.table(family, group))
            .filter(|prefixes| !prefixes.0.is_empty())
            .collect()
    }

    fn table(&self, family: Family, group: &[Table]) -> Prefixes {
        let mut by_prefix: BTreeMap<(u8, Bits), Vec<&Route>> = BTreeMap::new();
        let width = width(family);
        for route in &self.routing.routes {
            if Family::of(route.prefix) == family && group.contains(&route.table) {
                let prefix = masked(bits(route.prefix), route.length, width);
                let key = (route.length.min(width), prefix);
                by_prefix.entry(key).or_default().push(route);
            }
        }
        let mut lengths: BTreeMap<u8, HashMap<Bits, Target>> = BTreeMap::new();
        for ((length, prefix), mut rivals) in by_prefix {
            rivals.sort_by_key(|route| (route.table, route.metric));
            if let Some(target) = self.target(family, &rivals) {
                lengths.entry(length).or_default().insert(prefix, target);
            }
        }
        Prefixes(lengths.into_iter().rev().collect())
    }

    /// The first of a prefix's routes that leads anywhere. IPv6 lists the next hops of one
    /// route as routes of the same metric: they are taken together.
    fn target(&self, family: Family, rivals: &[&'a Route]) -> Option<Target> {
        let mut index = 0;
        while let Some(&first) = rivals.get(index) {
            let same = |route: &&&Route| {
                family == Family::V6
                    && route.kind == RouteKind::Unicast
                    && (route.table, route.metric) == (first.table, first.metric)
            };
            let siblings = rivals[index + 1..].iter().take_while(same).count();
            let group = &rivals[index..=index + siblings];
            index += group.len();
            match first.kind {
                RouteKind::Local => return Some(Target::End(Way::Local)),
                RouteKind::Blocked => return Some(Target::End(Way::None)),
                RouteKind::Throw => return Some(Target::Throw),
                RouteKind::Unicast => {
                    if let Some(target) = self.paths(family, group) {
                        return Some(target);
                    }
                }
            }
        }
        None
    }

    /// The usable next hops of a route; none where there is no usable one, and then the
    /// next route decides, as in Linux.
    fn paths(&self, family: Family, group: &[&'a Route]) -> Option<Target> {
        let paths: Box<[Path]> = group
            .iter()
            .flat_map(|route| route.next_hops.iter().map(move |hop| (*route, hop)))
            .filter_map(|(route, hop)| self.path(family, route, hop))
            .collect();
        (!paths.is_empty()).then_some(Target::Paths(paths))
    }

    fn path(&self, family: Family, route: &Route, next: &NextHop) -> Option<Path> {
        let link = *self.links.get(&next.device)?;
        if next.dead || !link.up {
            return None;
        }
        let weight = next.weight.max(1);
        let Some((port, vlan)) = self.port(link).filter(|_| !next.encapsulates) else {
            return Some(Path::Elsewhere { weight });
        };
        let sources = self.sources(family, route, next);
        let mtu = route.mtu.filter(|m| *m > 0).unwrap_or(u32::MAX);
        Some(Path::Port(PortPath {
            weight,
            device: next.device,
            gateway: next.gateway,
            hop: Hop {
                port,
                vlan,
                source: link.mac,
                // Where no neighbour is asked for, Linux uses the device's own address.
                destination: link.mac,
                mtu: mtu.min(link.mtu).min(u32::from(u16::MAX)) as u16,
                local: sources.first().copied().unwrap_or(0),
            },
            neighbourless: link.neighbourless,
            sources,
        }))
    }

    /// The port that a link is, or stands on, and the tag that its frames bear there.
    fn port(&self, link: &Link) -> Option<(PortId, Option<u16>)> {
        let (mut device, mut tag) = (link.device, None);
        for _ in 0..=NESTED_MAX {
            let mut ports = self.routing.ports.iter();
            if let Some(place) = ports.position(|port| *port == device) {
                return Some((PortId(u8::try_from(place).ok()?), tag));
            }
            let link = self.links.get(&device)?;
            device = match (link.vlan, link.over) {
                // Frames with two tags are none of the director's.
                (Some((below, own)), _) => match tag.replace(own) {
                    None => below,
                    Some(_) => return None,
                },
                (None, over) => over?,
            };
        }
        None
    }

    fn sources(&self, family: Family, route: &Route, next: &NextHop) -> Box<[Bits]> {
        if let Some(source) = route.source {
            return [bits(source)].into();
        }
        match family {
            Family::V4 => self.source_v4(route, next).into_iter().collect(),
            Family::V6 => self.sources_v6(route, next),
        }
    }

    /// As `inet_select_addr` (net/ipv4/devinet.c): the device's first address whose
    /// network holds the gateway, else its first one in the route's scope, else the first
    /// of another device, in the order of devices.
    fn source_v4(&self, route: &Route, next: &NextHop) -> Option<Bits> {
        let all = || {
            self.routing
                .addresses
                .iter()
                .filter(|a| a.address.is_ipv4() && !a.passive && a.scope <= route.scope)
        };
        let own = || all().filter(|a| a.device == next.device);
        let holds = |a: &&Address| next.gateway.is_some_and(|gateway| contains(a, gateway));
        own()
            .find(holds)
            .or_else(|| own().next())
            .or_else(|| all().find(|a| a.scope != SCOPE_LINK))
            .map(|a| bits(a.address))
    }

    /// The candidates of RFC 6724 for the route's device: addresses of the destinations'
    /// scope, not deprecated where others are there; of other devices where it has none.
    fn sources_v6(&self, route: &Route, next: &NextHop) -> Box<[Bits]> {
        let on_link = is_link_local(route.prefix) && route.length >= 10;
        let all = || {
            self.routing.addresses.iter().filter(move |a| {
                a.address.is_ipv6() && !a.passive && is_link_local(a.address) == on_link
            })
        };
        let pick = |candidates: Vec<&Address>| -> Vec<Bits> {
            let fresh = candidates.iter().any(|a| !a.deprecated);
            let wanted = candidates.iter().filter(|a| !(fresh && a.deprecated));
            wanted.map(|a| bits(a.address)).collect()
        };
        let own = pick(all().filter(|a| a.device == next.device).collect());
        if !own.is_empty() || on_link {
            return own.into();
        }
        pick(all().filter(|a| !is_loopback(a.address)).collect()).into()
    }
}

fn width(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

fn contains(network: &Address, address: IpAddr) -> bool {
    let family = Family::of(network.address);
    let part = |a| masked(bits(a), network.length, width(family));
    family == Family::of(address) && part(network.address) == part(address)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}
