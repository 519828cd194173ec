//! Whole decisions as rows: what came in, what became of it. What the kernel's IPVS does
//! with the same packets is replayed from its traces in `tests/oracle`.

#[cfg(test)]
mod explain;
pub(super) mod fuzz;
mod known;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use sched::command::Command;
use sched::limit::ServiceLimits;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel};
use sched::service::{Persistence, Protocol, SchedulerFlags, ServiceKey, ServiceSpec};
use sched::table::{Limits, ServiceTable};

use super::*;
use crate::connection::state::tcp;
use crate::connection::table::Row;
use crate::connection::word::Word;
use crate::hops::Hops;
use crate::hops::routing::{
    Address, Link, Neighbour, NeighbourState, NextHop, Route, RouteKind, Routing,
};
use crate::hops::{NeighbourKey, PortId, routing};
use crate::testing::{assert_frame, frame, roomy};
use crate::tunables::Tunables;

const CLIENT_SIDE: u32 = 2;
const SERVER_SIDE: u32 = 3;

/// The client side is port 0 with link address 1, its gateway has 2; the server side is
/// port 1 with link address 3; real server 10.2.0.n has link address n.
struct World {
    services: ServiceTable,
    tunables: Tunables,
    snapshot: Snapshot,
    director: Director,
    table: Arc<Table>,
    now: Ticks,
    /// Whether each snapshot is made from nothing, and not of the one before.
    afresh: bool,
}

impl World {
    fn new() -> Self {
        let table = Arc::new(Table::new(1024, 1, 7));
        let counters = Arc::new(Counters::new(16, 64));
        let mut world = Self {
            services: ServiceTable::new(Limits {
                services: 16,
                servers: 64,
            }),
            tunables: Tunables::default(),
            snapshot: Snapshot::default(),
            director: Director::new(table.clone(), 0, counters),
            table,
            now: 1000,
            afresh: false,
        };
        world.snapshot.hops = Hops::new(&routing(), neighbours());
        world.publish();
        world
    }

    /// With one rr service on 10.1.0.1 (or fd01::1), port 80 or 53, and servers 11 and 12.
    fn serving(protocol: Protocol, forwarding: Forwarding) -> Self {
        let mut world = Self::new();
        let port = if protocol == Protocol::Udp { 53 } else { 80 };
        let real_port = if forwarding == Forwarding::Masquerade {
            8080
        } else {
            port
        };
        for (vip, rip) in [("10.1.0.1", "10.2.0."), ("fd01::1", "fd02::")] {
            let service = service(protocol, vip, port);
            world.apply(Command::AddService {
                service,
                spec: spec(vip),
            });
            for last in [11, 12] {
                let server = server(&format!("{rip}{last}"), real_port);
                let spec = weighing(forwarding, 1);
                world.apply(Command::AddServer {
                    service,
                    server,
                    spec,
                });
            }
        }
        world
    }

    /// Port 80 of 10.1.0.1 by NAT, and 81 of 10.1.0.2 (8080 where it is not NAT), both to port
    /// 8080 of server 11.
    fn two_services(&mut self, protocol: Protocol, second: Forwarding) {
        let port = match second {
            Forwarding::Masquerade => 81,
            _ => 8080,
        };
        for (vip, port, forwarding) in [
            ("10.1.0.1", 80, Forwarding::Masquerade),
            ("10.1.0.2", port, second),
        ] {
            let service = service(protocol, vip, port);
            let spec = spec(vip);
            self.apply(Command::AddService { service, spec });
            self.apply(Command::AddServer {
                service,
                server: server("10.2.0.11", 8080),
                spec: weighing(forwarding, 1),
            });
        }
    }

    fn apply(&mut self, command: Command) {
        self.services.apply(&command, 0).unwrap();
        self.publish();
    }

    fn publish(&mut self) {
        self.publish_with(self.snapshot.hops.clone());
    }

    fn publish_with(&mut self, hops: Hops) {
        let nothing = Snapshot::default();
        let before = if self.afresh {
            &nothing
        } else {
            &self.snapshot
        };
        self.snapshot = before.next(
            self.snapshot.generation + 1,
            self.services.services(),
            self.services.servers().map(|(server, _)| server),
            &[],
            hops,
            self.tunables.clone(),
        );
    }

    /// What becomes of a frame, and the frame.
    fn meet(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let (mut memory, start, end) = roomy(bytes);
        let mut frame = Frame::new(&mut memory, start, end).unwrap();
        // As a worker does; that `handle` alone does the same, `known` shows.
        let mut glance = super::known::Glance::default();
        self.director.glance(&self.snapshot, &frame, &mut glance);
        self.director.reach(&mut glance);
        let verdict = self
            .director
            .handle_glanced(&self.snapshot, self.now, &mut frame, &glance);
        let out = frame.bytes().to_vec();
        self.director.tidy(&self.snapshot, self.now);
        (verdict, out)
    }

    fn expect(&mut self, what: &str, incoming: &str, verdict: Verdict, outgoing: &str) {
        let (got, bytes) = self.meet(&frame(incoming));
        assert_eq!(got, verdict, "{what}");
        assert_frame(what, &bytes, &frame(outgoing));
    }

    fn expect_drop(&mut self, what: &str, incoming: &str, reason: Reason) {
        let before = self.director.counters.drops(reason);
        let (got, _) = self.meet(&frame(incoming));
        assert_eq!(got, Verdict::Drop(reason), "{what}");
        assert_eq!(self.director.counters.drops(reason), before + 1, "{what}");
    }

    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds * 4 {
            self.now += 4;
            self.director.tidy(&self.snapshot, self.now);
        }
    }

    /// Packets and bytes that server 10.2.0.`last` sent back.
    fn replies(&self, last: u8) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let address: IpAddr = format!("10.2.0.{last}").parse().unwrap();
        let mut servers = self.services.servers();
        let (server, _) = servers.find(|(s, _)| s.key.address == address).unwrap();
        let traffic = self.director.counters.server(server.id);
        let counts = [&traffic.out_packets, &traffic.out_bytes];
        counts.map(|n| n.load(Relaxed)).into()
    }

    fn rows(&self) -> Vec<Row> {
        let indexes = 0..self.table.high_water();
        indexes.filter_map(|i| self.table.read(i)).collect()
    }

    fn load(&self, last: u8) -> (u32, u32, u32) {
        use std::sync::atomic::Ordering::Relaxed;
        let address: IpAddr = format!("10.2.0.{last}").parse().unwrap();
        let of = |s: &RealServer| {
            let l = &s.load;
            let counts = [&l.active, &l.inactive, &l.persistent];
            counts.map(|n| n.load(Relaxed)).into()
        };
        let mut servers = self.services.servers();
        let found = servers.find(|(s, _)| s.key.address == address);
        of(found.unwrap().0)
    }
}

use sched::server::RealServer;

fn service(protocol: Protocol, address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        address: address.parse().unwrap(),
        port,
    }
}

fn spec(vip: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: "rr".to_owned(),
        flags: SchedulerFlags::default(),
        persistence: None,
        netmask: if vip.contains(':') { 128 } else { u32::MAX },
        one_packet: false,
        engine: None,
    }
}

fn server(address: &str, port: u16) -> ServerKey {
    ServerKey {
        address: address.parse().unwrap(),
        port,
    }
}

fn weighing(forwarding: Forwarding, weight: u32) -> ServerSpec {
    ServerSpec {
        forwarding,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn routing() -> Routing {
    let link = |device, last, mtu| Link {
        device,
        name: format!("port{device}"),
        mac: [2, 0, 0, 0, 0, last],
        mtu,
        up: true,
        neighbourless: false,
        vlan: None,
        over: None,
    };
    let address = |device, address: &str, length| Address {
        device,
        address: address.parse().unwrap(),
        length,
        scope: 0,
        passive: false,
        deprecated: false,
    };
    let to = |prefix: &str, length, device, gateway: Option<&str>| Route {
        table: routing::Table::Main,
        prefix: prefix.parse().unwrap(),
        length,
        kind: RouteKind::Unicast,
        metric: 0,
        scope: if gateway.is_some() { 0 } else { 253 },
        source: None,
        mtu: None,
        next_hops: vec![NextHop {
            device,
            gateway: gateway.map(|g| g.parse().unwrap()),
            weight: 1,
            dead: false,
            encapsulates: false,
        }],
    };
    Routing {
        links: vec![link(CLIENT_SIDE, 1, 1500), link(SERVER_SIDE, 3, 1500)],
        addresses: vec![
            address(CLIENT_SIDE, "10.1.0.253", 24),
            address(SERVER_SIDE, "10.2.0.1", 24),
            address(CLIENT_SIDE, "fd01::253", 64),
            address(SERVER_SIDE, "fd02::1", 64),
        ],
        routes: vec![
            to("10.1.0.0", 24, CLIENT_SIDE, None),
            to("10.2.0.0", 24, SERVER_SIDE, None),
            to("10.9.0.0", 16, CLIENT_SIDE, Some("10.1.0.254")),
            to("fd01::", 64, CLIENT_SIDE, None),
            to("fd02::", 64, SERVER_SIDE, None),
            to("fd09::", 64, CLIENT_SIDE, Some("fd01::254")),
        ],
        ports: vec![CLIENT_SIDE, SERVER_SIDE],
    }
}

fn neighbours() -> Vec<Neighbour> {
    let known = |device, address: &str, last| Neighbour {
        key: NeighbourKey {
            device,
            address: address.parse().unwrap(),
        },
        state: NeighbourState::Permanent,
        mac: [2, 0, 0, 0, 0, last],
    };
    vec![
        known(CLIENT_SIDE, "10.1.0.254", 2),
        known(CLIENT_SIDE, "fd01::254", 2),
        known(SERVER_SIDE, "10.2.0.11", 11),
        known(SERVER_SIDE, "10.2.0.12", 12),
        known(SERVER_SIDE, "fd02::11", 11),
        known(SERVER_SIDE, "fd02::12", 12),
    ]
}

const TO_CLIENT: Verdict = Verdict::Transmit(PortId(0));
const TO_SERVER: Verdict = Verdict::Transmit(PortId(1));

#[test]
fn masquerading_rewrites_both_ways() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    world.expect(
        "a SYN goes to the newest server, port mapped, a hop less",
        "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
        TO_SERVER,
        "eth to=12 from=3 / 10.9.0.1 > 10.2.0.12 ttl=63 / tcp 1001 > 8080 S",
    );
    world.expect(
        "the reply comes from the virtual service",
        "eth to=3 from=12 / 10.2.0.12 > 10.9.0.1 / tcp 8080 > 1001 SA / data 9",
        TO_CLIENT,
        "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 ttl=63 / tcp 80 > 1001 SA / data 9",
    );
    world.expect(
        "what follows goes to the same server",
        "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A",
        TO_SERVER,
        "eth to=12 from=3 / 10.9.0.1 > 10.2.0.12 ttl=63 / tcp 1001 > 8080 A",
    );
    world.expect(
        "IPv6 likewise",
        "fd09::1 > fd01::1 / tcp 1001 > 80 S",
        TO_SERVER,
        "eth to=12 from=3 / fd09::1 > fd02::12 ttl=63 / tcp 1001 > 8080 S",
    );
    world.expect(
        "and back",
        "eth to=3 from=12 / fd02::12 > fd09::1 / tcp 8080 > 1001 SA",
        TO_CLIENT,
        "eth to=2 from=1 / fd01::1 > fd09::1 ttl=63 / tcp 80 > 1001 SA",
    );
}

/// Two services, one server's endpoint, one client's endpoint.
#[test]
fn a_reply_is_of_the_newest_connection() {
    let mut world = World::new();
    world.two_services(Protocol::Tcp, Forwarding::Masquerade);
    let rows = [
        ("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S", "10.1.0.1", 80),
        ("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A", "10.1.0.1", 80),
        ("10.9.0.1 > 10.1.0.2 / tcp 1001 > 81 S", "10.1.0.2", 81),
        ("10.9.0.1 > 10.1.0.2 / tcp 1001 > 81 A", "10.1.0.2", 81),
        // As in IPVS: the older stays the older.
        ("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A", "10.1.0.2", 81),
    ];
    for (request, virtual_, port) in rows {
        assert_eq!(world.meet(&frame(request)).0, TO_SERVER, "{request}");
        world.expect(
            request,
            "eth to=3 from=11 / 10.2.0.11 > 10.9.0.1 / tcp 8080 > 1001 A",
            TO_CLIENT,
            &format!("eth to=2 from=1 / {virtual_} > 10.9.0.1 ttl=63 / tcp {port} > 1001 A"),
        );
    }
    world.expect(
        "an error speaks of the newest, too",
        "eth to=3 from=11 / 10.2.0.11 > 10.9.0.1 / icmp 3 3 / 10.9.0.1 > 10.2.0.11 / tcp 1001 > 8080",
        TO_CLIENT,
        "eth to=2 from=1 / 10.1.0.2 > 10.9.0.1 ttl=63 / icmp 3 3 / 10.9.0.1 > 10.1.0.2 / tcp 1001 > 81 sum=546d",
    );
}

#[test]
fn datagrams_by_turns_are_each_answered_by_whom_they_asked() {
    let mut world = World::new();
    world.two_services(Protocol::Udp, Forwarding::Masquerade);
    for (virtual_, port) in [("10.1.0.1", 80), ("10.1.0.2", 81)]
        .into_iter()
        .cycle()
        .take(9)
    {
        let request = format!("10.9.0.1 > {virtual_} / udp 1001 > {port}");
        assert_eq!(world.meet(&frame(&request)).0, TO_SERVER);
        for _ in 0..2 {
            world.expect(
                &request,
                "eth to=3 from=11 / 10.2.0.11 > 10.9.0.1 / udp 8080 > 1001",
                TO_CLIENT,
                &format!("eth to=2 from=1 / {virtual_} > 10.9.0.1 ttl=63 / udp {port} > 1001"),
            );
        }
    }
}

/// What is not translated back hides nothing that is.
#[test]
fn a_direct_connection_takes_no_masqueraded_ones_reply() {
    for other in [Forwarding::Route, Forwarding::Tunnel(Tunnel::Ipip)] {
        for direct_first in [false, true] {
            let mut world = World::new();
            world.two_services(Protocol::Tcp, other);
            let mut requests = [
                "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S",
                "10.9.0.1 > 10.1.0.2 / tcp 1001 > 8080 S",
            ];
            if direct_first {
                requests.reverse();
            }
            for request in requests {
                assert_eq!(world.meet(&frame(request)).0, TO_SERVER, "{request}");
            }
            world.expect(
                "a reply",
                "eth to=3 from=11 / 10.2.0.11 > 10.9.0.1 / tcp 8080 > 1001 SA",
                TO_CLIENT,
                "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 ttl=63 / tcp 80 > 1001 SA",
            );
        }
    }
}

/// Without ports: ESP and AH go where the keys were exchanged, and keep that alive.
#[test]
fn ipsec_follows_its_key_exchange() {
    let ways = [
        (Forwarding::Masquerade, "10.2.0.12", "fd02::12"),
        (Forwarding::Route, "10.1.0.1", "fd01::1"),
    ];
    for (forwarding, real, real6) in ways {
        let mut world = World::new();
        for (vip, rip) in [("10.1.0.1", "10.2.0."), ("fd01::1", "fd02::")] {
            let service = service(Protocol::Udp, vip, 500);
            let spec = spec(vip);
            world.apply(Command::AddService { service, spec });
            for last in [11, 12] {
                world.apply(Command::AddServer {
                    service,
                    server: server(&format!("{rip}{last}"), 500),
                    spec: weighing(forwarding, 1),
                });
            }
        }
        let esp = |ends: &str, number: u8| format!("{ends} proto={number} / data 40");
        let (to, to6) = ("10.9.0.1 > 10.1.0.1", "fd09::1 > fd01::1");
        for ends in [to, to6, "10.2.0.12 > 10.9.0.1"] {
            let verdict = world.meet(&frame(&esp(ends, 50))).0;
            assert_eq!(verdict, Verdict::Host, "{forwarding:?}: no keys, {ends}");
        }
        for ends in [to, to6] {
            world.meet(&frame(&format!("{ends} / udp 500 > 500")));
        }
        // Of another port, and for another port, no keys of IPsec are exchanged.
        world.meet(&frame("10.9.0.3 > 10.1.0.1 / udp 501 > 500"));
        let verdict = world.meet(&frame(&esp("10.9.0.3 > 10.1.0.1", 50))).0;
        assert_eq!(verdict, Verdict::Host, "{forwarding:?}: another port");
        for (ends, real) in [(to, real), (to6, real6)] {
            let client = ends.split(' ').next().unwrap();
            for number in [50, 51] {
                if number == 51 && ends == to6 {
                    continue;
                }
                let out = esp(&format!("{client} > {real} ttl=63"), number);
                let out = format!("eth to=12 from=3 / {out}");
                world.expect("there", &esp(ends, number), TO_SERVER, &out);
            }
        }
        if forwarding != Forwarding::Masquerade {
            continue;
        }
        for number in [50, 51] {
            let back = esp("10.2.0.12 > 10.9.0.1", number);
            let out = esp("10.1.0.1 > 10.9.0.1 ttl=63", number);
            let out = format!("eth to=2 from=1 / {out}");
            world.expect(
                "back",
                &format!("eth to=3 from=12 / {back}"),
                TO_CLIENT,
                &out,
            );
            let other = esp("10.2.0.11 > 10.9.0.1", number);
            assert_eq!(
                world.meet(&frame(&other)).0,
                Verdict::Host,
                "not its server"
            );
        }
        for (what, place) in [("first", "mf"), ("last", "off=40")] {
            world.expect(
                what,
                &format!("eth to=3 from=12 / 10.2.0.12 > 10.9.0.1 {place} proto=50 / data 40"),
                TO_CLIENT,
                &format!("eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 ttl=63 {place} proto=50 / data 40"),
            );
            let other = format!("10.2.0.11 > 10.9.0.1 {place} proto=50 / data 40");
            assert_eq!(world.meet(&frame(&other)).0, Verdict::Host, "{what}");
        }
        let own = "10.9.0.1 > 10.1.0.1 mf proto=50 / data 40";
        assert_eq!(
            world.meet(&frame(own)).0,
            Verdict::Held,
            "waits for its fellows"
        );
        world.expect(
            "a router says what fits the way of a reply",
            "10.9.0.9 > 10.1.0.1 / icmp 3 4 rest=578 / 10.1.0.1 > 10.9.0.1 proto=50 / data 40",
            TO_SERVER,
            "eth to=12 from=3 / 10.9.0.9 > 10.2.0.12 ttl=63 / icmp 3 4 rest=578 / 10.2.0.12 > 10.9.0.1 proto=50 / data 40",
        );
        world.expect(
            "and of a request",
            "eth to=3 from=12 / 10.2.0.12 > 10.9.0.1 / icmp 3 3 / 10.9.0.1 > 10.2.0.12 proto=50 / data 40",
            TO_CLIENT,
            "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 ttl=63 / icmp 3 3 / 10.9.0.1 > 10.1.0.1 proto=50 / data 40",
        );
    }
}

#[test]
fn ipsec_renews_the_timer_of_its_key_exchange() {
    let mut world = World::new();
    let service = service(Protocol::Udp, "10.1.0.1", 500);
    let spec = spec("10.1.0.1");
    world.apply(Command::AddService { service, spec });
    world.apply(Command::AddServer {
        service,
        server: server("10.2.0.11", 500),
        spec: weighing(Forwarding::Masquerade, 1),
    });
    world.meet(&frame("10.9.0.1 > 10.1.0.1 / udp 500 > 500"));
    // UDP's timeout is 300 s.
    for (what, packet) in [
        ("to the server", "10.9.0.1 > 10.1.0.1 proto=50 / data 40"),
        (
            "from it",
            "eth to=3 from=11 / 10.2.0.11 > 10.9.0.1 proto=51 / data 40",
        ),
    ] {
        world.pass(200);
        assert_ne!(world.meet(&frame(packet)).0, Verdict::Host, "{what}");
        assert_eq!(world.rows()[0].expires, world.now + ticks(300), "{what}");
    }
    world.pass(302);
    assert_eq!(world.rows().len(), 0);
}

#[test]
fn direct_routing_and_tunnels_leave_the_packet_whole() {
    let mut world = World::serving(Protocol::Udp, Forwarding::Route);
    world.expect(
        "direct routing changes the link addresses and the hop limit",
        "10.9.0.1 > 10.1.0.1 / udp 1001 > 53 / data 5",
        TO_SERVER,
        "eth to=12 from=3 / 10.9.0.1 > 10.1.0.1 ttl=63 / udp 1001 > 53 / data 5",
    );
    world.expect(
        "a checksum that was left to hardware is completed",
        "10.9.0.1 > 10.1.0.1 / udp 1001 > 53 sum=partial / data 5",
        TO_SERVER,
        "eth to=12 from=3 / 10.9.0.1 > 10.1.0.1 ttl=63 / udp 1001 > 53 / data 5",
    );
    let mut world = World::serving(Protocol::Udp, Forwarding::Tunnel(Tunnel::Ipip));
    world.expect(
        "a tunnel wraps it",
        "10.9.0.1 > 10.1.0.1 / udp 1001 > 53 / data 5",
        TO_SERVER,
        "eth to=12 from=3 / 10.2.0.1 > 10.2.0.12 ttl=63 / 10.9.0.1 > 10.1.0.1 ttl=63 / udp 1001 > 53 / data 5",
    );
}

#[test]
fn what_is_not_the_directors_goes_to_the_host_as_it_came() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let rows = [
        ("another port", "10.9.0.1 > 10.1.0.1 / tcp 1001 > 81 S"),
        (
            "no SYN and no connection",
            "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 A",
        ),
        ("an RST", "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 R"),
        (
            "FTP data is never scheduled",
            "10.9.0.1 > 10.1.0.1 / tcp 20 > 80 S",
        ),
        ("an echo request", "10.9.0.1 > 10.1.0.1 / icmp 8 0 / data 4"),
        (
            "an error about no connection",
            "10.9.0.1 > 10.1.0.1 / icmp 3 3 / 10.1.0.1 > 10.9.0.1 / tcp 80 > 7 S",
        ),
        (
            "a server's own connection",
            "10.2.0.11 > 10.9.0.1 / tcp 8080 > 7 S",
        ),
        (
            "a reply with no hop left: the host says so to the server",
            "10.2.0.11 > 10.9.0.1 ttl=1 / tcp 8080 > 7 SA",
        ),
        ("another protocol", "10.9.0.1 > 10.1.0.1 proto=99 / data 4"),
    ];
    for (what, text) in rows {
        world.expect(what, text, Verdict::Host, text);
    }
    assert!(world.rows().is_empty());
}

#[test]
fn refusals_are_told_to_the_client() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Route);
    world.expect(
        "a hop limit that ends here",
        "10.9.0.1 > 10.1.0.1 ttl=1 id=5 / tcp 1 > 80 S",
        TO_CLIENT,
        "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 tos=192 id=1 / icmp 11 0 / 10.9.0.1 > 10.1.0.1 ttl=1 id=5 / tcp 1 > 80 S",
    );
    for last in [11, 12] {
        world.apply(Command::DeleteServer {
            service: service(Protocol::Tcp, "10.1.0.1", 80),
            server: server(&format!("10.2.0.{last}"), 80),
        });
    }
    world.expect(
        "no server is left",
        "10.9.0.2 > 10.1.0.1 id=6 / tcp 1 > 80 S",
        TO_CLIENT,
        "eth to=2 from=1 / 10.1.0.1 > 10.9.0.2 tos=192 id=2 / icmp 3 3 / 10.9.0.2 > 10.1.0.1 id=6 / tcp 1 > 80 S",
    );
    world.expect_drop(
        "the first client's server is gone",
        "10.9.0.1 > 10.1.0.1 / tcp 1 > 80 A",
        Reason::ServerGone,
    );
    assert_eq!(world.director.counters.drops(Reason::HopLimit), 1);
    assert_eq!(world.director.counters.drops(Reason::NoServer), 1);
}

/// As Linux 6.1 did: `tests/oracle-extra/scenarios/silent-server.txt`.
#[test]
fn a_silent_servers_clients_are_told() {
    let (masquerade, route) = (Forwarding::Masquerade, Forwarding::Route);
    let tunnel = Forwarding::Tunnel(Tunnel::Ipip);
    let rows = [
        (
            "masquerading: of the client's own packet",
            masquerade,
            "10.9.0.1 > 10.1.0.1 id=5 / tcp 1 > 80 S",
            "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 tos=192 id=1 / icmp 3 1 / 10.9.0.1 > 10.1.0.1 ttl=63 id=5 / tcp 1 > 80 S",
        ),
        (
            "direct routing: in the host's name",
            route,
            "10.9.0.1 > 10.1.0.1 id=5 / tcp 1 > 80 S",
            "eth to=2 from=1 / 10.1.0.253 > 10.9.0.1 tos=192 id=1 / icmp 3 1 / 10.9.0.1 > 10.1.0.1 ttl=63 id=5 / tcp 1 > 80 S",
        ),
        (
            "IPv6, masquerading",
            masquerade,
            "fd09::1 > fd01::1 / tcp 1 > 80 S",
            "eth to=2 from=1 / fd01::1 > fd09::1 / icmp 1 3 / fd09::1 > fd01::1 ttl=63 / tcp 1 > 80 S",
        ),
        (
            "IPv6, direct routing: in the service's name",
            route,
            "fd09::1 > fd01::1 / tcp 1 > 80 S",
            "eth to=2 from=1 / fd01::1 > fd09::1 / icmp 1 3 / fd09::1 > fd01::1 ttl=63 / tcp 1 > 80 S",
        ),
        (
            "a tunnel: nobody is told",
            tunnel,
            "10.9.0.1 > 10.1.0.1 id=5 / tcp 1 > 80 S",
            "",
        ),
    ];
    for (what, forwarding, incoming, told) in rows {
        let mut world = World::serving(Protocol::Tcp, forwarding);
        let known = neighbours().into_iter();
        let clients = known.filter(|known| known.key.device == CLIENT_SIDE);
        world.publish_with(Hops::new(&routing(), clients));
        let (verdict, waiting) = world.meet(&frame(incoming));
        assert!(
            matches!(verdict, Verdict::Unresolved(_)),
            "{what}: {verdict:?}"
        );
        let (mut memory, start, end) = roomy(&waiting);
        let mut waiting = Frame::new(&mut memory, start, end).unwrap();
        let verdict = world
            .director
            .give_up(&world.snapshot, world.now, &mut waiting);
        let reason = Reason::NeighbourUnreachable;
        if told.is_empty() {
            assert_eq!(verdict, Verdict::Drop(reason), "{what}");
        } else {
            assert_eq!(verdict, TO_CLIENT, "{what}");
            assert_frame(what, waiting.bytes(), &frame(told));
        }
        assert_eq!(world.director.counters.drops(reason), 1, "{what}");
    }
}

#[test]
fn errors_keep_the_type_of_service_and_count_as_replies() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Route);
    world.expect(
        "the class of what it is about, below its own precedence",
        "10.9.0.1 > 10.1.0.1 ttl=1 tos=233 id=5 / tcp 1 > 80 S",
        TO_CLIENT,
        "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 tos=200 id=1 / icmp 11 0 / 10.9.0.1 > 10.1.0.1 ttl=1 tos=233 id=5 / tcp 1 > 80 S",
    );
    assert_eq!(world.replies(12), (1, 68), "direct routing");
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    world.meet(&frame("10.9.0.1 > 10.1.0.1 ttl=1 / tcp 1 > 80 S"));
    assert_eq!(world.replies(12), (0, 0), "masquerading");
}

#[test]
fn a_tunnels_path_mtu_is_learned() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Tunnel(Tunnel::Ipip));
    world.meet(&frame("10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S"));
    let inner = "10.9.0.1 > 10.1.0.1 ttl=63 id=7 df / tcp 1 > 80 A / data 100";
    let told = |mtu: &str| {
        format!(
            "eth to=3 / 10.2.0.254 > 10.2.0.1 / icmp 3 4 rest={mtu} / 10.2.0.1 > 10.2.0.12 ttl=63 df / {inner}"
        )
    };
    let relayed = |mtu: &str, id: u8| {
        format!(
            "eth to=2 from=1 / 10.1.0.1 > 10.9.0.1 tos=192 id={id} / icmp 3 4 rest={mtu} / {inner}"
        )
    };
    let big = "10.9.0.1 > 10.1.0.1 id=8 df / tcp 1 > 80 A / data 1300";
    // As IPVS: the client is told what the last packet met, the next one is what was learned.
    world.expect("at first", &told("514"), TO_CLIENT, &relayed("5c8", 2));
    assert_eq!(world.meet(&frame(big)).0, TO_CLIENT, "refused");
    world.expect("then", &told("4b0"), TO_CLIENT, &relayed("500", 4));
    let small = "10.9.0.1 > 10.1.0.1 id=9 df / tcp 1 > 80 A / data 900";
    assert_eq!(world.meet(&frame(small)).0, TO_SERVER);
    world.expect("far too little", &told("50"), TO_CLIENT, &relayed("49c", 5));
    assert_eq!(world.meet(&frame(small)).0, TO_CLIENT, "552 bytes fit");
    world.pass(601);
    world.meet(&frame("10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S"));
    assert_eq!(world.meet(&frame(big)).0, TO_SERVER, "forgotten");
}

#[test]
fn a_server_is_told_in_the_hosts_name() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    world.tunables.nat_icmp_send = true;
    world.publish();
    world.expect(
        "a packet of no connection, as it would have been forwarded",
        "10.2.0.11 > 10.9.0.1 id=3 / tcp 8080 > 7 SA",
        TO_SERVER,
        "eth to=11 from=3 / 10.2.0.1 > 10.2.0.11 tos=192 id=1 / icmp 3 3 / 10.2.0.11 > 10.9.0.1 ttl=63 id=3 / tcp 8080 > 7 SA",
    );
    for (what, text) in [
        (
            "no hop left",
            "10.2.0.11 > 10.9.0.1 ttl=1 / tcp 8080 > 7 SA",
        ),
        ("a reset", "10.2.0.11 > 10.9.0.1 / tcp 8080 > 7 R"),
        ("another port", "10.2.0.11 > 10.9.0.1 / tcp 8081 > 7 SA"),
    ] {
        world.expect(what, text, Verdict::Host, text);
    }
}

#[test]
fn a_source_that_nobody_has_begins_nothing() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let v4 = ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"];
    for source in v4 {
        let text = format!("{source} > 10.1.0.1 / tcp 1 > 80 S");
        world.expect(source, &text, Verdict::Host, &text);
    }
    for source in ["::1", "ff02::1", "::ffff:10.9.0.1"] {
        let text = format!("{source} > fd01::1 / tcp 1 > 80 S");
        world.expect(source, &text, Verdict::Host, &text);
    }
    assert!(world.rows().is_empty());
    assert_eq!(
        world.meet(&frame("240.0.0.1 > 10.1.0.1 / tcp 1 > 80 S")).0,
        TO_SERVER,
        "reserved, not a group"
    );
}

#[test]
fn options_that_the_host_refuses_are_left_to_it() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    for options in ["94ff0000", "8307040102030400"] {
        let text = format!("10.9.0.1 > 10.1.0.1 opts={options} / tcp 1 > 80 S");
        world.expect(options, &text, Verdict::Host, &text);
    }
    let text = "10.9.0.1 > 10.1.0.1 opts=94040000 / tcp 1 > 80 S";
    assert_eq!(world.meet(&frame(text)).0, TO_SERVER);
}

#[test]
fn a_fragment_that_cannot_be_forwarded_is_the_hosts() {
    let mut world = World::serving(Protocol::Udp, Forwarding::Masquerade);
    let whole = "udp 8080 > 7 / data 4000";
    for (what, flags) in [("no hop left", "ttl=1"), ("too big", "df")] {
        let text =
            format!("10.2.0.11 > 10.9.0.1 {flags} id=9 mf proto=17 / slice 0 1600 / {whole}");
        world.expect(what, &text, Verdict::Host, &text);
    }
    let text = format!("10.2.0.11 > 10.9.0.1 id=9 mf proto=17 / slice 0 1600 / {whole}");
    assert_eq!(world.meet(&frame(&text)).0, Verdict::Held);
}

#[test]
fn a_reply_put_together_never_leaks_untranslated() {
    let mut world = World::serving(Protocol::Udp, Forwarding::Masquerade);
    world.meet(&frame("10.9.0.1 > 10.1.0.1 / udp 7 > 53"));
    world.meet(&frame("fd09::1 > fd01::1 / udp 7 > 53"));
    let whole = "udp 8080 > 7 / data 1992";
    let v4 = |rest: &str| frame(&format!("10.2.0.12 > 10.9.0.1 df id=9 {rest} / {whole}"));
    assert_eq!(
        world.meet(&v4("mf proto=17 / slice 0 1400")).0,
        Verdict::Held
    );
    assert_eq!(
        world.meet(&v4("off=1400 proto=17 / slice 1400 600")).0,
        Verdict::Drop(Reason::TooBig)
    );
}

#[test]
fn malformed_frames_are_dropped_by_name() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Route);
    let rows = [
        (
            "a wrong header checksum",
            "10.9.0.1 > 10.1.0.1 sum=bad / tcp 1 > 80 S",
            Reason::NetworkChecksum,
        ),
        (
            "half a TCP header",
            "10.9.0.1 > 10.1.0.1 / cut 10 / tcp 1 > 80 S",
            Reason::TransportMalformed,
        ),
        (
            "longer than its frame",
            "10.9.0.1 > 10.1.0.1 len=900 / tcp 1 > 80 S",
            Reason::NetworkMalformed,
        ),
    ];
    for (what, text, reason) in rows {
        world.expect_drop(what, text, reason);
    }
}

#[test]
fn connections_count_and_expire() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let (verdict, _) = world.meet(&frame("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S"));
    assert_eq!(verdict, TO_SERVER);
    assert_eq!(world.load(12), (1, 0, 0), "SYN_RECV counts as active");
    world.meet(&frame(
        "eth to=3 from=12 / 10.2.0.12 > 10.9.0.1 / tcp 8080 > 1001 R",
    ));
    assert_eq!(world.load(12), (0, 1, 0), "CLOSE does not");
    world.pass(8);
    assert_eq!(world.rows().len(), 1);
    world.pass(4);
    assert_eq!(world.rows().len(), 0, "CLOSE lasts 10 s");
    assert_eq!(world.load(12), (0, 0, 0));
}

#[test]
fn limits_refuse_new_connections_only() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    world.apply(Command::LimitService {
        service: service(Protocol::Tcp, "10.1.0.1", 80),
        limits: ServiceLimits {
            connections_per_s: 5,
            source_connections_per_s: 3,
            source_v4_bits: 24,
            ..ServiceLimits::default()
        },
    });
    let syn = |client: &str, port: u16| format!("{client} > 10.1.0.1 / tcp {port} > 80 S");
    let mut begin = |what: &str, client: &str, port: u16, reason: Option<Reason>| match reason {
        Some(reason) => world.expect_drop(what, &syn(client, port), reason),
        None => {
            let (verdict, _) = world.meet(&frame(&syn(client, port)));
            assert_eq!(verdict, Verdict::Transmit(PortId(1)), "{what}");
        }
    };
    begin("the first of a network", "10.9.0.1", 1, None);
    begin("its second", "10.9.0.2", 2, None);
    begin("its third", "10.9.0.3", 3, None);
    begin("its fourth", "10.9.0.4", 4, Some(Reason::SourceLimit));
    begin("of another network", "10.9.1.1", 5, None);
    begin("the fifth of all", "10.9.1.2", 6, None);
    begin(
        "the sixth of all",
        "10.9.2.1",
        7,
        Some(Reason::ServiceLimit),
    );
    begin("no new connection: a SYN again", "10.9.0.1", 1, None);
    world.pass(1);
    let (verdict, _) = world.meet(&frame(&syn("10.9.0.4", 4)));
    assert_eq!(verdict, Verdict::Transmit(PortId(1)), "a second later");
    let explained = world.explain(&frame(&syn("10.9.0.5", 5)));
    assert!(explain::names(&explained).contains("service within-limits schedule"));
}

#[test]
fn a_template_keeps_a_network_with_its_server() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    world.apply(Command::EditService {
        service: service(Protocol::Tcp, "10.1.0.1", 80),
        spec: ServiceSpec {
            persistence: Some(Persistence { timeout_s: 20 }),
            netmask: 0xffff_ff00,
            ..spec("10.1.0.1")
        },
    });
    for last in 1..=4 {
        let text = format!("10.9.7.{last} > 10.1.0.1 / tcp 1001 > 80 S");
        let (_, out) = world.meet(&frame(&text));
        assert_eq!(out[5], 12, "{text}");
    }
    let (_, out) = world.meet(&frame("10.9.8.1 > 10.1.0.1 / tcp 1001 > 80 S"));
    assert_eq!(out[5], 11, "another network gets the next server");
    assert_eq!(world.load(12), (4, 0, 1));
    let templates = world.rows().iter().filter(|r| r.key.template).count();
    assert_eq!(templates, 2);
    // The connections (SYN_RECV, 60 s) hold their templates beyond the template's own 20 s.
    world.pass(50);
    assert_eq!(world.rows().len(), 7);
    world.pass(80);
    assert_eq!(world.rows().len(), 0);
    assert_eq!(world.load(12), (0, 0, 0));
}

#[test]
fn a_retired_template_lives_as_long_as_its_connections() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let key = service(Protocol::Tcp, "10.1.0.1", 80);
    world.apply(Command::EditService {
        service: key,
        spec: ServiceSpec {
            persistence: Some(Persistence { timeout_s: 20 }),
            ..spec("10.1.0.1")
        },
    });
    let weigh = |world: &mut World, last: u8, weight| {
        world.apply(Command::EditServer {
            service: key,
            server: server(&format!("10.2.0.{last}"), 8080),
            spec: weighing(Forwarding::Masquerade, weight),
        });
    };
    world.tunables.expire_quiescent_template = true;
    world.publish();
    // Drained again and again, the client changes its server each time.
    for (round, to) in [12, 11, 12, 11, 12, 11].into_iter().enumerate() {
        for port in [1001, 1002] {
            let text = format!("10.9.7.1 > 10.1.0.1 / tcp {} > 80 S", port + 10 * round);
            assert_eq!(world.meet(&frame(&text)).1[5], to, "{round}");
        }
        weigh(&mut world, to, 0);
        weigh(&mut world, 23 - to, 1);
        let templates: Vec<bool> = world
            .rows()
            .iter()
            .filter(|r| r.key.template)
            .map(|r| Word(r.word).is_retired())
            .collect();
        assert_eq!(templates.len(), (round + 1).min(4), "{round}");
        assert_eq!(templates.iter().filter(|retired| !**retired).count(), 1);
    }
    // In the last two rounds the first place was made free: for 12's, then for 11's.
    assert_eq!((world.load(11).2, world.load(12).2), (3, 1));
    world.pass(55);
    assert_eq!(world.rows().len(), 16, "held by their connections");
    world.pass(200);
    assert_eq!(world.rows().len(), 0);
    assert_eq!((world.load(11), world.load(12)), ((0, 0, 0), (0, 0, 0)));
}

#[test]
fn without_a_service_of_the_family_all_is_the_hosts() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let syn = frame("10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S");
    let reply = frame("eth to=3 from=12 / 10.2.0.12 > 10.9.0.1 / tcp 8080 > 1001 SA");
    assert_eq!(world.meet(&syn).0, TO_SERVER);
    // The service of the other family is there still.
    world.apply(Command::DeleteService {
        service: service(Protocol::Tcp, "10.1.0.1", 80),
    });
    for packet in [&syn, &reply] {
        assert_eq!(world.meet(packet), (Verdict::Host, packet.clone()));
    }
    world.apply(Command::AddService {
        service: service(Protocol::Tcp, "10.1.0.1", 443),
        spec: spec("10.1.0.1"),
    });
    let gone = Verdict::Drop(Reason::ServerGone);
    assert_eq!(world.meet(&syn).0, gone, "the connection is known again");
}

#[test]
fn drop_entry_ends_half_open_connections_only() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    for last in 1..=8 {
        world.meet(&frame(&format!(
            "10.9.7.{last} > 10.1.0.1 / tcp 1001 > 80 S"
        )));
    }
    world.meet(&frame("10.9.7.1 > 10.1.0.1 / tcp 1001 > 80 A"));
    world.meet(&frame(
        "eth to=3 from=12 / 10.2.0.12 > 10.9.7.1 / tcp 8080 > 1001 SA",
    ));
    world.meet(&frame("10.9.7.1 > 10.1.0.1 / tcp 1001 > 80 A"));
    world.pass(10);
    assert_eq!(world.rows().len(), 8, "not in force");
    world.tunables.drop_entry = 3;
    world.publish();
    // SYN_RECV lasts 60 s: what is gone after 44 s was ended early.
    world.pass(34);
    assert_eq!(world.rows().len(), 1);
    assert_eq!(Word(world.rows()[0].word).state(), tcp::ESTABLISHED);
}

#[test]
fn a_flood_makes_room_of_its_own_handshakes() {
    let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
    let syn = |client: &str| frame(&format!("{client} > 10.1.0.1 / tcp 1001 > 80 S"));
    // The clients of these numbers, of 10.16.0.0/12; how many are refused.
    let flood = |world: &mut World, clients: std::ops::Range<u32>| {
        let client = |n: u32| Ipv4Addr::from_bits(0x0a10_0000 + n).to_string();
        let syns = clients.map(|n| syn(&client(n)));
        syns.filter(|syn| world.meet(syn).0 == Verdict::Drop(Reason::TableFull))
            .count()
    };
    // Established, and the oldest of all.
    world.meet(&syn("10.9.7.1"));
    world.meet(&frame("10.9.7.1 > 10.1.0.1 / tcp 1001 > 80 A"));
    world.meet(&frame(
        "eth to=3 from=12 / 10.2.0.12 > 10.9.7.1 / tcp 8080 > 1001 SA",
    ));
    world.meet(&frame("10.9.7.1 > 10.1.0.1 / tcp 1001 > 80 A"));
    let refused = flood(&mut world, 0..2000);
    assert!(refused > 800, "{refused}");
    // A moment later nothing is old enough: who has just begun may still go on.
    world.now += 4;
    world.director.tidy(&world.snapshot, world.now);
    let ended = |world: &World| world.director.counters.events(Event::HalfOpenEnded);
    assert_eq!(ended(&world), 0);
    world.meet(&frame("10.16.0.9 > 10.1.0.1 / tcp 1001 > 80 A"));
    // After half a second there is room, at once for many and soon for all.
    for _ in 0..10 {
        world.now += 1;
        (0..4).for_each(|_| world.director.tidy(&world.snapshot, world.now));
    }
    assert!((128..400).contains(&ended(&world)), "{}", ended(&world));
    assert_eq!(flood(&mut world, 2000..2100), 0, "new connections come in");
    // The flood goes on for 30 s at 400/s: the oldest make way for each new one.
    let mut refused = 0;
    for round in 0..480 {
        world.now += 1;
        let first = 3000 + 25 * round;
        refused += flood(&mut world, first..first + 25);
        (0..4).for_each(|_| world.director.tidy(&world.snapshot, world.now));
    }
    assert_eq!(refused, 0);
    let rows = world.rows();
    let number = |row: &Row| (row.key.client.address as u32).wrapping_sub(0x0a10_0000);
    let young = rows
        .iter()
        .filter(|row| (14_500..15_000).contains(&number(row)));
    assert_eq!(
        young.count(),
        500,
        "the youngest half of the table is whole"
    );
    let established = |row: &Row| Word(row.word).state() == tcp::ESTABLISHED;
    assert!(
        rows.iter()
            .any(|row| row.key.client.address == 0x0a09_0701 && established(row))
    );
}

#[test]
fn a_drained_server_loses_its_clients_where_nodest_connections_expire() {
    // expire_nodest_conn, conn_reuse_mode, whether the SYN stays with the drained server.
    for (expire, mode, stays) in [
        (false, 1, true),
        (true, 0, false),
        (true, 1, false),
        (true, 2, false),
    ] {
        let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
        let syn = frame("10.9.7.1 > 10.1.0.1 / tcp 1001 > 80 S");
        assert_eq!(world.meet(&syn).1[5], 12);
        world.apply(Command::EditServer {
            service: service(Protocol::Tcp, "10.1.0.1", 80),
            server: server("10.2.0.12", 8080),
            spec: weighing(Forwarding::Masquerade, 0),
        });
        world.tunables.expire_nodest_conn = expire;
        world.tunables.conn_reuse_mode = mode;
        world.publish();
        let to = if stays { 12 } else { 11 };
        assert_eq!(world.meet(&syn).1[5], to, "{expire} {mode}");
    }
}

#[test]
fn sloppy_sctp_takes_any_chunk_but_abort() {
    for (sloppy, chunk, begins) in [
        (false, 1, true),
        (false, 0, false),
        (true, 0, true),
        (true, 6, false),
    ] {
        let mut world = World::serving(Protocol::Sctp, Forwarding::Masquerade);
        world.tunables.sloppy_sctp = sloppy;
        world.publish();
        let text = format!("10.9.7.1 > 10.1.0.1 / sctp 1001 > 80 chunk={chunk}");
        world.meet(&frame(&text));
        assert_eq!(world.rows().len(), usize::from(begins), "{sloppy} {chunk}");
    }
}

#[test]
fn fragments_meet_and_leave_as_they_came() {
    let mut world = World::serving(Protocol::Udp, Forwarding::Masquerade);
    let whole = "udp 3001 > 53 / data 1200";
    let first = format!("10.9.0.1 > 10.1.0.1 id=9 mf proto=17 / slice 0 800 / {whole}");
    let second = format!("10.9.0.1 > 10.1.0.1 id=9 off=800 proto=17 / slice 800 408 / {whole}");
    assert_eq!(world.meet(&frame(&second)).0, Verdict::Held);
    assert_eq!(
        world.meet(&frame(&first)).0,
        Verdict::Split(PortId(1)),
        "the second was first"
    );
    let mut lengths = Vec::new();
    let mut memory = vec![0; 4096];
    loop {
        let mut piece = Frame::new(&mut memory, 256, 256).unwrap();
        if !world.director.next_piece(&mut piece) {
            break;
        }
        lengths.push(piece.len() - 14);
    }
    assert_eq!(lengths, [820, 428]);
}

proptest! {
    /// Whatever comes, there is a verdict and no panic, also against a warm table.
    #[test]
    fn any_bytes_get_a_verdict(noise in prop::collection::vec(any::<(u8, u8)>(), 0..12)) {
        let mut world = World::serving(Protocol::Tcp, Forwarding::Masquerade);
        let texts = [
            "10.9.0.1 > 10.1.0.1 / tcp 1001 > 80 S / data 30",
            "10.2.0.12 > 10.9.0.1 / tcp 8080 > 1001 SA / data 9",
            "10.9.0.1 > 10.1.0.1 / icmp 3 3 / 10.1.0.1 > 10.9.0.1 / tcp 80 > 1001 S",
            "fd09::1 > fd01::1 / tcp 1001 > 80 S",
        ];
        for text in texts {
            let mut bytes = frame(text);
            world.meet(&bytes);
            for &(at, value) in &noise {
                let length = bytes.len();
                bytes[usize::from(at) % length] = value;
                world.meet(&bytes);
            }
            world.meet(&bytes[..usize::from(noise.first().map_or(0, |n| n.0)) % bytes.len()]);
        }
    }
}
