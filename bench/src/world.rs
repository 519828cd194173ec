//! A director with services, servers and next hops, in memory: the client side is port 0,
//! the server side port 1, every neighbour is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::connection::table::Table;
use dataplane::counters::Counters;
use dataplane::director::Director;
use dataplane::hops::routing::{
    Address, Link, Neighbour, NeighbourState, NextHop, Route, RouteKind, Routing,
    Table as RouteTable,
};
use dataplane::hops::{Hops, Mac, NeighbourKey};
use dataplane::snapshot::Snapshot;
use dataplane::tunables::Tunables;
use sched::command::Command;
use sched::server::{ServerKey, ServerSpec};
use sched::service::{Family, SchedulerFlags, ServiceKey, ServiceSpec};
use sched::table::{Limits, ServiceTable};

use crate::pipeline::Options;

/// Interface indexes of the two sides.
const CLIENT_SIDE: u32 = 2;
const SERVER_SIDE: u32 = 3;

/// The port that services listen on, and that of their servers.
pub const VIRTUAL_PORT: u16 = 80;
/// See [`VIRTUAL_PORT`].
pub const REAL_PORT: u16 = 8080;

/// A director and what it decides by.
#[derive(Debug)]
pub struct World {
    /// Decides.
    pub director: Director,
    /// By this.
    pub snapshot: Snapshot,
}

impl World {
    /// A world as the options want it.
    pub fn new(options: &Options) -> Self {
        // Time stands still, so what begins during the rounds stays too; one round more is
        // for the processor's counters. An IPv6 connection takes two places.
        let packets = options.packets * (options.rounds as u64 + 1);
        let new = packets * u64::from(options.new_per_mille) / 1000;
        let places = (options.connections + new) as usize * 5 / 4 + 4096;
        let table = Table::new(places * 2, 1, options.seed);
        Self::over(options, Arc::new(table), 0)
    }

    /// The world of one worker over a table that others may share.
    pub fn over(options: &Options, table: Arc<Table>, worker: usize) -> Self {
        let limits = Limits {
            services: options.services,
            servers: options.services * options.servers,
        };
        let mut services = ServiceTable::new(limits);
        for service in 0..options.services {
            add_service(&mut services, options, service);
        }
        let hops = Hops::new(&routing(), neighbours(options));
        let snapshot = Snapshot::new(
            1,
            services.services(),
            services.servers().map(|(server, _)| server),
            &[],
            hops,
            Tunables::default(),
        );
        let counters = Counters::new(limits.services as usize, limits.servers as usize);
        let mut director = Director::new(table, worker, Arc::new(counters));
        // Its frames are as they come off a wire.
        director.expect_partial(false);
        Self { director, snapshot }
    }
}

/// The virtual address of a service.
pub fn virtual_address(family: Family, service: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a01_0001 + service).into(),
        Family::V6 => Ipv6Addr::from_bits((0xfd01 << 112) + 1 + u128::from(service)).into(),
    }
}

/// The address of a real server: all services share the same ones.
pub fn real_address(family: Family, server: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a02_000b + server).into(),
        Family::V6 => Ipv6Addr::from_bits((0xfd02 << 112) + 11 + u128::from(server)).into(),
    }
}

fn add_service(table: &mut ServiceTable, options: &Options, number: u32) {
    let service = ServiceKey::Address {
        protocol: options.protocol,
        address: virtual_address(options.family, number),
        port: VIRTUAL_PORT,
    };
    let spec = ServiceSpec {
        scheduler: options.scheduler.clone(),
        flags: SchedulerFlags::default(),
        persistence: None,
        netmask: match options.family {
            Family::V4 => u32::MAX,
            Family::V6 => 128,
        },
        one_packet: false,
        engine: None,
    };
    apply(table, &Command::AddService { service, spec });
    for server in 0..options.servers {
        let port = if options.method.keeps_port() {
            VIRTUAL_PORT
        } else {
            REAL_PORT
        };
        let address = real_address(options.family, server);
        apply(
            table,
            &Command::AddServer {
                service,
                server: ServerKey { address, port },
                spec: ServerSpec {
                    forwarding: options.method.forwarding(),
                    weight: 1,
                    upper_threshold: 0,
                    lower_threshold: 0,
                },
            },
        );
    }
}

/// The options were checked, so that the table has nothing to refuse.
fn apply(table: &mut ServiceTable, command: &Command) {
    if let Err(refusal) = table.apply(command, 0) {
        panic!("{refusal}: {command:?}");
    }
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

fn routing() -> Routing {
    let link = |device, last| Link {
        device,
        name: format!("port{device}"),
        mac: mac(last),
        mtu: 1500,
        up: true,
        neighbourless: false,
        vlan: None,
        over: None,
    };
    let address = |device, address: &str, length| Address {
        device,
        address: ip(address),
        length,
        scope: 0,
        passive: false,
        deprecated: false,
    };
    let route = |prefix: &str, length, device, gateway: Option<&str>| Route {
        table: RouteTable::Main,
        prefix: ip(prefix),
        length,
        kind: RouteKind::Unicast,
        metric: 0,
        scope: 0,
        source: None,
        mtu: None,
        next_hops: vec![NextHop {
            device,
            gateway: gateway.map(ip),
            weight: 1,
            dead: false,
            encapsulates: false,
        }],
    };
    Routing {
        links: vec![link(CLIENT_SIDE, 1), link(SERVER_SIDE, 2)],
        addresses: vec![
            address(CLIENT_SIDE, "10.1.255.1", 16),
            address(SERVER_SIDE, "10.2.0.1", 16),
            address(CLIENT_SIDE, "fd01::ffff:1", 64),
            address(SERVER_SIDE, "fd02::1", 64),
        ],
        routes: vec![
            route("10.1.0.0", 16, CLIENT_SIDE, None),
            route("10.2.0.0", 16, SERVER_SIDE, None),
            route("0.0.0.0", 0, CLIENT_SIDE, Some("10.1.255.254")),
            route("fd01::", 64, CLIENT_SIDE, None),
            route("fd02::", 64, SERVER_SIDE, None),
            route("::", 0, CLIENT_SIDE, Some("fd01::ffff:fffe")),
        ],
        ports: vec![CLIENT_SIDE, SERVER_SIDE],
    }
}

fn neighbours(options: &Options) -> Vec<Neighbour> {
    let known = |device, address, last| Neighbour {
        key: NeighbourKey { device, address },
        state: NeighbourState::Permanent,
        mac: mac(last),
    };
    let servers =
        (0..options.servers).map(|n| known(SERVER_SIDE, real_address(options.family, n), n as u8));
    let gateways = ["10.1.255.254", "fd01::ffff:fffe"].map(|to| known(CLIENT_SIDE, ip(to), 3));
    servers.chain(gateways).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address of this file")
}
