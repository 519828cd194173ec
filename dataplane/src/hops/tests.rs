//! Rows against a small host, and a property: the structure answers as a plain scan does.

use std::net::IpAddr;

use proptest::prelude::*;

use super::routing::*;
use super::*;
use crate::address::bits;

const CLIENTS: u32 = 2;
const SERVERS: u32 = 3;
const TAGGED: u32 = 4;
const MANAGEMENT: u32 = 5;
const DOWN: u32 = 6;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let (address, length) = text.split_once('/').unwrap();
    (ip(address), length.parse().unwrap())
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

fn link(device: u32, mtu: u32) -> Link {
    Link {
        device,
        name: format!("dev{device}"),
        mac: mac(device as u8),
        mtu,
        up: device != DOWN,
        neighbourless: false,
        vlan: (device == TAGGED).then_some((SERVERS, 7)),
        over: None,
    }
}

fn address(device: u32, text: &str) -> Address {
    let (address, length) = prefix(text);
    Address {
        device,
        address,
        length,
        scope: if is_link_local(address) { 253 } else { 0 },
        passive: false,
        deprecated: false,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn route(table: Table, to: &str, kind: RouteKind) -> Route {
    let (prefix, length) = prefix(to);
    Route {
        table,
        prefix,
        length,
        kind,
        metric: 0,
        scope: 253,
        source: None,
        mtu: None,
        next_hops: Vec::new(),
    }
}

fn by(to: &str, device: u32, gateway: Option<&str>) -> Route {
    Route {
        scope: if gateway.is_some() { 0 } else { 253 },
        next_hops: vec![hop(device, gateway)],
        ..route(Table::Main, to, RouteKind::Unicast)
    }
}

fn hop(device: u32, gateway: Option<&str>) -> NextHop {
    NextHop {
        device,
        gateway: gateway.map(ip),
        weight: 1,
        dead: false,
        encapsulates: false,
    }
}

fn known(device: u32, to: &str, state: NeighbourState, last: u8) -> Neighbour {
    Neighbour {
        key: NeighbourKey {
            device,
            address: ip(to),
        },
        state,
        mac: mac(last),
    }
}

fn host() -> Routing {
    let mut dead = by("198.51.100.0/24", CLIENTS, Some("10.0.1.9"));
    dead.next_hops[0].dead = true;
    let mut wrapped = by("203.0.114.0/24", SERVERS, Some("10.0.2.8"));
    wrapped.next_hops[0].encapsulates = true;
    Routing {
        links: vec![
            link(1, 65_536),
            link(CLIENTS, 1500),
            link(SERVERS, 9000),
            link(TAGGED, 1496),
            link(MANAGEMENT, 1500),
            link(DOWN, 1500),
        ],
        addresses: vec![
            address(CLIENTS, "10.0.1.1/24"),
            address(CLIENTS, "10.0.7.1/24"),
            address(SERVERS, "10.0.2.1/24"),
            address(TAGGED, "10.0.3.1/24"),
            address(MANAGEMENT, "192.168.0.1/24"),
            address(SERVERS, "2001:db8:2::1/64"),
            address(SERVERS, "2001:db8:3::1/64"),
            address(SERVERS, "fe80::3/64"),
        ],
        routes: vec![
            route(Table::Local, "10.0.1.1/32", RouteKind::Local),
            route(Table::Local, "10.0.1.255/32", RouteKind::Blocked),
            route(Table::Local, "127.0.0.0/8", RouteKind::Local),
            by("10.0.1.0/24", CLIENTS, None),
            by("10.0.2.0/24", SERVERS, None),
            by("10.0.3.0/24", TAGGED, None),
            by("192.168.0.0/24", MANAGEMENT, None),
            by("0.0.0.0/0", CLIENTS, Some("10.0.1.254")),
            Route {
                mtu: Some(1400),
                ..by("172.16.0.0/12", SERVERS, Some("10.0.2.254"))
            },
            Route {
                source: Some(ip("10.0.9.9")),
                ..by("172.16.5.0/24", SERVERS, Some("10.0.2.254"))
            },
            by("172.16.7.0/24", CLIENTS, Some("10.0.7.254")),
            route(Table::Main, "172.16.6.0/24", RouteKind::Blocked),
            by("172.16.8.0/24", DOWN, None),
            by("127.9.0.0/16", SERVERS, None),
            dead,
            Route {
                metric: 10,
                ..by("198.51.100.0/24", SERVERS, Some("10.0.2.7"))
            },
            wrapped,
            route(Table::Main, "203.0.113.0/24", RouteKind::Throw),
            Route {
                table: Table::Default,
                ..by("203.0.113.0/24", SERVERS, None)
            },
            by("203.0.115.0/24", SERVERS, Some("fe80::9")),
            route(Table::Local, "2001:db8:2::1/128", RouteKind::Local),
            by("2001:db8:2::/64", SERVERS, None),
            by("2001:db8:3::/64", SERVERS, None),
            by("2001:db8::/32", SERVERS, Some("fe80::9")),
            by("fe80::/64", SERVERS, None),
        ],
        ports: vec![CLIENTS, SERVERS],
    }
}

fn neighbours() -> Vec<Neighbour> {
    use NeighbourState::*;
    vec![
        known(CLIENTS, "10.0.1.254", Reachable, 101),
        known(SERVERS, "10.0.2.10", Stale, 102),
        known(SERVERS, "10.0.2.11", Failed, 103),
        known(SERVERS, "10.0.2.12", Delay, 104),
        known(SERVERS, "10.0.2.13", Probe, 105),
        known(SERVERS, "10.0.2.14", Permanent, 106),
        known(SERVERS, "10.0.2.15", NoArp, 107),
        known(SERVERS, "10.0.2.16", Incomplete, 108),
        known(SERVERS, "10.0.2.254", Reachable, 109),
        known(CLIENTS, "10.0.2.17", Reachable, 110),
        known(TAGGED, "10.0.3.10", Reachable, 111),
        known(SERVERS, "fe80::9", Reachable, 112),
        known(SERVERS, "10.0.2.7", Reachable, 113),
        known(CLIENTS, "10.0.7.254", Reachable, 114),
    ]
}

/// A row's expectation in short: port, tag, next hop's MAC, MTU, source.
enum Expect {
    Ready(u8, Option<u16>, u8, u16, &'static str),
    Unresolved(u32, &'static str),
    Is(Way),
}

#[test]
fn rows() {
    use Expect::*;
    let rows = [
        ("own address", "10.0.1.1", Is(Way::Local)),
        ("own loopback network", "127.1.2.3", Is(Way::Local)),
        (
            "IPv4 merges local and main: longest first",
            "127.9.1.1",
            Unresolved(SERVERS, "127.9.1.1"),
        ),
        ("broadcast", "10.0.1.255", Is(Way::None)),
        (
            "on the link, stale",
            "10.0.2.10",
            Ready(1, None, 102, 9000, "10.0.2.1"),
        ),
        (
            "failed neighbour",
            "10.0.2.11",
            Unresolved(SERVERS, "10.0.2.11"),
        ),
        (
            "delayed neighbour",
            "10.0.2.12",
            Ready(1, None, 104, 9000, "10.0.2.1"),
        ),
        (
            "probed neighbour",
            "10.0.2.13",
            Ready(1, None, 105, 9000, "10.0.2.1"),
        ),
        (
            "permanent neighbour",
            "10.0.2.14",
            Ready(1, None, 106, 9000, "10.0.2.1"),
        ),
        (
            "neighbour without ARP",
            "10.0.2.15",
            Ready(1, None, 107, 9000, "10.0.2.1"),
        ),
        (
            "incomplete neighbour",
            "10.0.2.16",
            Unresolved(SERVERS, "10.0.2.16"),
        ),
        (
            "known on another device only",
            "10.0.2.17",
            Unresolved(SERVERS, "10.0.2.17"),
        ),
        (
            "VLAN device of a port",
            "10.0.3.10",
            Ready(1, Some(7), 111, 1496, "10.0.3.1"),
        ),
        (
            "default route",
            "8.8.8.8",
            Ready(0, None, 101, 1500, "10.0.1.1"),
        ),
        (
            "route's MTU",
            "172.16.1.1",
            Ready(1, None, 109, 1400, "10.0.2.1"),
        ),
        (
            "route's source",
            "172.16.5.1",
            Ready(1, None, 109, 9000, "10.0.9.9"),
        ),
        (
            "source in the gateway's network",
            "172.16.7.1",
            Ready(0, None, 114, 1500, "10.0.7.1"),
        ),
        ("blackhole", "172.16.6.1", Is(Way::None)),
        (
            "device down: the shorter prefix",
            "172.16.8.1",
            Ready(1, None, 109, 1400, "10.0.2.1"),
        ),
        (
            "dead next hop: the next metric",
            "198.51.100.1",
            Ready(1, None, 113, 9000, "10.0.2.1"),
        ),
        ("encapsulating route", "203.0.114.1", Is(Way::NotAPort)),
        (
            "throw: the default table",
            "203.0.113.1",
            Unresolved(SERVERS, "203.0.113.1"),
        ),
        (
            "gateway of the other family",
            "203.0.115.1",
            Ready(1, None, 112, 9000, "10.0.2.1"),
        ),
        ("not a port", "192.168.0.9", Is(Way::NotAPort)),
        ("own IPv6 address", "2001:db8:2::1", Is(Way::Local)),
        (
            "IPv6 by a gateway, nearest source",
            "2001:db8:3000::1",
            Ready(1, None, 112, 9000, "2001:db8:2::1"),
        ),
        (
            "IPv6 on the link",
            "2001:db8:3::9",
            Unresolved(SERVERS, "2001:db8:3::9"),
        ),
        ("no IPv6 default route", "2002::1", Is(Way::None)),
    ];
    let hops = Hops::new(&host(), neighbours());
    for (description, to, expect) in rows {
        let to = ip(to);
        let way = hops.lookup(Family::of(to), bits(to));
        match expect {
            Is(expected) => assert_eq!(way, expected, "{description}"),
            Unresolved(device, address) => {
                let key = NeighbourKey {
                    device,
                    address: ip(address),
                };
                assert!(
                    matches!(way, Way::Unresolved(k, _) if k == key),
                    "{description}: {way:?}"
                );
                let neighbour = hops.neighbour(Family::of(to), bits(to));
                assert_eq!(neighbour, Some(key), "{description}");
            }
            Ready(port, vlan, last, mtu, local) => {
                let device = if vlan.is_some() {
                    TAGGED
                } else {
                    u32::from(port) + 2
                };
                let hop = Hop {
                    port: PortId(port),
                    vlan,
                    source: mac(device as u8),
                    destination: mac(last),
                    mtu,
                    local: bits(ip(local)),
                };
                assert_eq!(way, Way::Ready(hop), "{description}");
            }
        }
    }
}

#[test]
fn ipv6_source_shares_most_bits_with_the_destination() {
    let rows = [
        ("2001:db8:2::9", "2001:db8:2::1"),
        ("2001:db8:3::9", "2001:db8:3::1"),
        ("fe80::77", "fe80::3"),
    ];
    let hops = Hops::new(&host(), []);
    for (to, source) in rows {
        match hops.lookup(Family::V6, bits(ip(to))) {
            Way::Unresolved(_, hop) => assert_eq!(hop.local, bits(ip(source)), "{to}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn multipath_spreads_by_weight_and_keeps_its_choice() {
    let mut routing = host();
    let mut route = by("0.0.0.0/0", CLIENTS, Some("10.0.1.254"));
    route.next_hops.push(NextHop {
        weight: 3,
        ..hop(SERVERS, Some("10.0.2.254"))
    });
    routing.routes.retain(|r| r.length != 0);
    routing.routes.push(route);
    let hops = Hops::new(&routing, neighbours());
    let mut counts = [0u32; 2];
    for n in 0..4000u32 {
        let to = u128::from(0x0900_0000 + n);
        let way = hops.lookup(Family::V4, to);
        assert_eq!(way, hops.lookup(Family::V4, to));
        match way {
            Way::Ready(hop) => counts[usize::from(hop.port.0)] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((850..1150).contains(&counts[0]), "{counts:?}");
}

#[test]
fn ipv6_routes_of_one_metric_are_one_route() {
    let mut routing = host();
    routing
        .routes
        .push(by("3fff::/20", CLIENTS, Some("fe80::1")));
    routing
        .routes
        .push(by("3fff::/20", SERVERS, Some("fe80::2")));
    let hops = Hops::new(&routing, []);
    let ports: std::collections::BTreeSet<u8> = (0..64)
        .map(|n| match hops.lookup(Family::V6, bits(ip("3fff::1")) + n) {
            Way::Unresolved(_, hop) => hop.port.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ports.len(), 2);
}

#[test]
fn new_neighbours_keep_the_routes() {
    let hops = Hops::new(&host(), []);
    let to = bits(ip("10.0.2.10"));
    assert!(matches!(hops.lookup(Family::V4, to), Way::Unresolved(..)));
    let hops = hops.with_neighbours(neighbours());
    assert!(matches!(hops.lookup(Family::V4, to), Way::Ready(_)));
}

/// The plain scan: every route that holds the address, best first.
fn scan(routing: &Routing, to: Bits) -> Way {
    for group in [&[Table::Local, Table::Main][..], &[Table::Default]] {
        let mut matching: Vec<&Route> = routing
            .routes
            .iter()
            .filter(|r| group.contains(&r.table))
            .filter(|r| masked(bits(r.prefix), r.length, 32) == masked(to, r.length, 32))
            .collect();
        matching.sort_by_key(|r| (std::cmp::Reverse(r.length), r.table, r.metric));
        for route in matching {
            match route.kind {
                RouteKind::Local => return Way::Local,
                RouteKind::Blocked => return Way::None,
                RouteKind::Throw => break,
                RouteKind::Unicast if route.next_hops[0].device == DOWN => continue,
                RouteKind::Unicast => {
                    return match route.next_hops[0].device {
                        MANAGEMENT => Way::NotAPort,
                        device => unresolved(routing, device, route, to),
                    };
                }
            }
        }
    }
    Way::None
}

fn unresolved(routing: &Routing, device: u32, route: &Route, to: Bits) -> Way {
    // The source's choice has rows of its own.
    let hops = Hops::new(
        &Routing {
            routes: vec![Route {
                prefix: IpAddr::from([0, 0, 0, 0]),
                length: 0,
                ..route.clone()
            }],
            ..routing.clone()
        },
        [],
    );
    match hops.lookup(Family::V4, to) {
        way @ Way::Unresolved(key, _) if key.device == device => way,
        other => panic!("{other:?}"),
    }
}

fn any_route() -> impl Strategy<Value = Route> {
    let table = prop_oneof![Just(Table::Local), Just(Table::Main), Just(Table::Default)];
    let kind = prop_oneof![
        4 => Just(RouteKind::Unicast),
        1 => Just(RouteKind::Local),
        1 => Just(RouteKind::Blocked),
        1 => Just(RouteKind::Throw),
    ];
    let device = prop_oneof![
        Just(CLIENTS),
        Just(SERVERS),
        Just(TAGGED),
        Just(MANAGEMENT),
        Just(DOWN)
    ];
    (table, 0u32..4, 0u8..=34, kind, 0u32..3, device).prop_map(
        |(table, address, length, kind, metric, device)| Route {
            table,
            kind,
            metric,
            length: length.min(32),
            // Few bits, so that prefixes meet.
            prefix: IpAddr::from((address << 30 | address).to_be_bytes()),
            next_hops: vec![hop(device, None)],
            ..route(table, "0.0.0.0/0", kind)
        },
    )
}

proptest! {
    #[test]
    fn answers_as_a_plain_scan(
        routes in prop::collection::vec(any_route(), 0..24),
        tos in prop::collection::vec((0u32..4, 0u32..6), 1..16),
    ) {
        let routing = Routing { routes, ..host() };
        let hops = Hops::new(&routing, []);
        for (high, low) in tos {
            let to = u128::from(high << 30 | low);
            prop_assert_eq!(hops.lookup(Family::V4, to), scan(&routing, to));
            prop_assert_eq!(hops.is_local_v4(to), scan(&routing, to) == Way::Local);
        }
    }
}

/// The port by which a link's frames leave, and their tag, however links stand on each other.
#[test]
fn links_that_stand_on_ports() {
    let vlan = |device, below, tag| Link {
        vlan: Some((below, tag)),
        ..link(device, 1500)
    };
    let over = |device, below| Link {
        over: Some(below),
        ..link(device, 1500)
    };
    const TOP: u32 = 40;
    type Row = (&'static str, Vec<Link>, Option<(u8, Option<u16>)>);
    let rows: [Row; 8] = [
        ("a macvlan", vec![over(TOP, SERVERS)], Some((1, None))),
        (
            "a VLAN device",
            vec![vlan(TOP, CLIENTS, 9)],
            Some((0, Some(9))),
        ),
        (
            "a macvlan on a VLAN device",
            vec![over(TOP, 41), vlan(41, SERVERS, 9)],
            Some((1, Some(9))),
        ),
        (
            "a VLAN device on a macvlan",
            vec![vlan(TOP, 41, 9), over(41, SERVERS)],
            Some((1, Some(9))),
        ),
        (
            "two tags",
            vec![vlan(TOP, 41, 9), vlan(41, SERVERS, 8)],
            None,
        ),
        ("on no port", vec![over(TOP, 41), link(41, 1500)], None),
        ("on what is not there", vec![over(TOP, 41)], None),
        ("on each other", vec![over(TOP, 41), over(41, TOP)], None),
    ];
    for (what, links, expected) in rows {
        let mut routing = host();
        routing.links.extend(links);
        let mut to_it = route(Table::Main, "192.0.2.0/24", RouteKind::Unicast);
        to_it.next_hops = vec![NextHop {
            device: TOP,
            gateway: None,
            weight: 1,
            dead: false,
            encapsulates: false,
        }];
        routing.routes.push(to_it);
        let way = Hops::new(&routing, []).lookup(Family::V4, bits(ip("192.0.2.1")));
        let found = match way {
            Way::Unresolved(key, hop) => {
                assert_eq!(key.device, TOP, "{what}: asked by the link itself");
                assert_eq!(hop.source, mac(TOP as u8), "{what}: with its own address");
                Some((hop.port.0, hop.vlan))
            }
            Way::NotAPort => None,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(found, expected, "{what}");
    }
}
