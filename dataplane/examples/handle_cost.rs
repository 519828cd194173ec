//! Runs whole decisions so that callgrind can count their instructions:
//!
//! ```text
//! cargo build --release -p lvx-dataplane --example handle_cost
//! for step in known begun; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!     --toggle-collect="handle_cost::$step*" target/release/examples/handle_cost
//! done
//! ```
//!
//! Divide "Collected" by the 1,000 rounds: `known` are packets of a masqueraded connection,
//! `begun` each begin one.

use std::hint::black_box;
use std::sync::Arc;

use dataplane::connection::table::Table;
use dataplane::counters::Counters;
use dataplane::director::Director;
use dataplane::forward::checksum;
use dataplane::frame::Frame;
use dataplane::hops::Hops;
use dataplane::hops::routing::{Link, NextHop, Route, RouteKind, Routing, Table as RoutingTable};
use dataplane::snapshot::Snapshot;
use dataplane::verdict::Verdict;
use sched::command::Command;
use sched::server::{Forwarding, ServerKey, ServerSpec};
use sched::service::{Protocol, SchedulerFlags, ServiceKey, ServiceSpec};
use sched::table::{Limits, ServiceTable};

const ROUNDS: u16 = 1000;

#[inline(never)]
fn known(director: &mut Director, snapshot: &Snapshot, frame: &mut Frame<'_>) -> Verdict {
    // Another moment, so that the two functions are not made one.
    director.handle(snapshot, 1001, frame)
}

#[inline(never)]
fn begun(director: &mut Director, snapshot: &Snapshot, frame: &mut Frame<'_>) -> Verdict {
    director.handle(snapshot, 1000, frame)
}

/// All of 10.0.0.0/8 lies behind one port, which asks for no neighbours.
fn routing() -> Routing {
    Routing {
        routes: vec![Route {
            table: RoutingTable::Main,
            prefix: [10, 0, 0, 0].into(),
            length: 8,
            kind: RouteKind::Unicast,
            metric: 0,
            scope: 253,
            source: None,
            mtu: None,
            next_hops: vec![NextHop {
                device: 2,
                gateway: None,
                weight: 1,
                dead: false,
                encapsulates: false,
            }],
        }],
        links: vec![Link {
            device: 2,
            name: "eth0".into(),
            mac: [2; 6],
            mtu: 1500,
            up: true,
            neighbourless: true,
            vlan: None,
        }],
        addresses: Vec::new(),
        ports: vec![2],
    }
}

fn snapshot() -> Snapshot {
    let mut services = ServiceTable::new(Limits {
        services: 4,
        servers: 8,
    });
    let service = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: [10, 1, 0, 1].into(),
        port: 80,
    };
    let spec = ServiceSpec {
        scheduler: "rr".into(),
        flags: SchedulerFlags::default(),
        persistence: None,
        netmask: u32::MAX,
        one_packet: false,
        engine: None,
    };
    let mut commands = vec![Command::AddService { service, spec }];
    for last in 1..=4 {
        commands.push(Command::AddServer {
            service,
            server: ServerKey {
                address: [10, 2, 0, last].into(),
                port: 8080,
            },
            spec: ServerSpec {
                forwarding: Forwarding::Masquerade,
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
        });
    }
    for command in &commands {
        services.apply(command, 0).expect("a good command");
    }
    let servers = services.servers().map(|(server, _)| server);
    let hops = Arc::new(Hops::new(&routing(), []));
    Snapshot::new(
        1,
        services.services(),
        servers,
        &[],
        hops,
        Default::default(),
    )
}

/// A TCP frame of 64 bytes between free space.
fn build(port: u16, flags: u8) -> Vec<u8> {
    let mut out = vec![0; 256];
    out.extend([2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]);
    out.extend([8, 0, 0x45, 0, 0, 50, 0, 1, 0, 0, 64, 6, 0, 0]);
    out.extend([10, 9, 0, 1, 10, 1, 0, 1]);
    checksum::write_header(&mut out[256 + 14..]);
    out.extend(port.to_be_bytes());
    out.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags]);
    out.extend([0; 16]);
    out.extend([0; 64]);
    out
}

fn main() {
    let snapshot = snapshot();
    let table = Arc::new(Table::new(8192, 1, 1));
    let mut director = Director::new(table, 0, Arc::new(Counters::new(4, 8)));
    for round in 0..ROUNDS {
        for flags in [0x02, 0x10] {
            let mut memory = build(1000 + round, flags);
            let end = memory.len() - 64;
            let mut frame = Frame::new(&mut memory, 256, end).expect("it fits");
            let verdict = match flags {
                0x02 => begun(&mut director, &snapshot, &mut frame),
                _ => known(&mut director, &snapshot, &mut frame),
            };
            assert!(matches!(black_box(verdict), Verdict::Transmit(_)));
        }
    }
    println!("{ROUNDS} rounds each");
}
