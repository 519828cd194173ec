//! Requests and answers as people meet them: one port, one service, two servers.

use dataplane::connection::table::Draft;
use dataplane::connection::word::Method;
use dataplane::connection::word::Word;
use dataplane::hops::Hops;
use dataplane::hops::routing::{Link, NextHop, Route, RouteKind, Routing, Table as RoutingTable};
use dataplane::port::steering::SteeredEndpoint;
use sched::command::Command;
use sched::server::{Forwarding, ServerId, ServerKey, ServerSpec};
use sched::service::{SchedulerFlags, ServiceKey, ServiceSpec};
use sched::table::{Limits, ServiceTable};

use super::*;

const MAC: Mac = [2, 0, 0, 0, 0, 1];

fn world() -> World {
    let mut services = ServiceTable::new(Limits {
        services: 4,
        servers: 4,
    });
    let service = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: [10, 1, 0, 1].into(),
        port: 80,
    };
    let spec = ServiceSpec {
        scheduler: "wlc".into(),
        flags: SchedulerFlags::default(),
        persistence: None,
        netmask: u32::MAX,
        one_packet: false,
        engine: None,
    };
    let mut commands = vec![Command::AddService { service, spec }];
    for last in [11, 12] {
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
        services.apply(command, 0).unwrap();
    }
    let servers = services.servers().map(|(server, _)| server);
    let hops = Hops::new(&routing(), []);
    let tunables = Default::default();
    let snapshot = Snapshot::new(1, services.services(), servers, &[], hops, tunables);
    let end = |address: [u8; 4], port| SteeredEndpoint {
        address: address.into(),
        protocol: Protocol::Tcp,
        port,
    };
    World {
        snapshot: Arc::new(snapshot),
        steered: SteeringRules {
            virtuals: vec![end([10, 1, 0, 1], 80)],
            reals: vec![end([10, 2, 0, 11], 8080), end([10, 2, 0, 12], 8080)],
            macs: vec![(2, MAC)],
            ..SteeringRules::default()
        }
        .into(),
        ports: vec!["eth0".into()],
    }
}

/// All of 10.0.0.0/8 lies behind the port, which asks for no neighbours.
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
            mac: MAC,
            mtu: 1500,
            up: true,
            neighbourless: true,
            vlan: None,
            over: None,
        }],
        addresses: Vec::new(),
        ports: vec![2],
    }
}

fn flow(client: &str, destination: &str, flags: &str, from_server: bool) -> ExplainRequest {
    ExplainRequest::Flow {
        protocol: Protocol::Tcp,
        client: client.parse().unwrap(),
        destination: destination.parse().unwrap(),
        flags: flags.into(),
        from_server,
    }
}

#[test]
fn flows_are_told_in_words() {
    let table = Table::new(1024, 1, 0);
    let connection = Draft {
        key: Key {
            family: Family::V4,
            template: false,
            protocol: 6,
            client: Endpoint {
                address: 0x0a09_0002,
                port: 7,
            },
            virtual_: Endpoint {
                address: 0x0a01_0001,
                port: 80,
            },
        },
        real_family: Family::V4,
        real: Endpoint {
            address: 0x0a02_000b,
            port: 8080,
        },
        server: ServerId(0),
        word: Word::new(Method::Masquerade).0,
        mark: 0,
        template: None,
        timeout: 160,
    };
    table
        .insert(&mut table.cache(0), &connection, 1000)
        .unwrap();
    let rows = [
        (
            "a new connection",
            flow("10.9.0.1:1001", "10.1.0.1:80", "S", false),
            "transmit",
            vec![
                "taken: its destination is a service's",
                "none of tcp 10.9.0.1:1001 > 10.1.0.1:80",
                "tcp 10.1.0.1:80 (by its exact port), scheduler wlc",
                "wlc takes 10.2.0.12:8080",
                "SYN_RECV, expires in 60 s",
                "to server 10.2.0.12:8080 by NAT",
                "destination 10.1.0.1:80 -> 10.2.0.12:8080",
                "hop limit 64 -> 63",
                "by eth0 to ",
                "sent by eth0",
            ],
        ),
        (
            "a known one",
            flow("10.9.0.2:7", "10.1.0.1:80", "A", false),
            "transmit",
            vec![
                "found: tcp 10.9.0.2:7 > 10.1.0.1:80 on server 10.2.0.11:8080, state NONE, expires in 10 s",
            ],
        ),
        (
            "its reply",
            flow("10.9.0.2:7", "10.1.0.1:80", "SA", true),
            "transmit",
            vec![
                "taken: it comes from a masquerading server",
                "source 10.2.0.11:8080 -> 10.1.0.1:80",
            ],
        ),
        (
            "no connection and no SYN",
            flow("10.9.0.3:7", "10.1.0.1:80", "A", false),
            "host",
            vec!["no packet that begins a connection"],
        ),
        (
            "another port",
            flow("10.9.0.3:7", "10.1.0.1:81", "S", false),
            "passed",
            vec!["no service, mark or masquerading server"],
        ),
    ];
    for (what, request, verdict, texts) in rows {
        let told = explain(&world(), &table, 1000, &request).unwrap();
        assert_eq!(told.verdict, verdict, "{what}: {told:#?}");
        for text in texts {
            let has = told.steps.iter().any(|step| step.text.contains(text));
            assert!(has, "{what}: no {text:?} in {told:#?}");
        }
        // What was made up for a flow is a frame that can be asked for itself.
        let again = ExplainRequest::Frame {
            hex: told.frame.clone(),
            any_link: true,
        };
        explain(&world(), &table, 1000, &again).unwrap();
    }
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let frame = |hex: &str| ExplainRequest::Frame {
        hex: hex.into(),
        any_link: false,
    };
    let rows = [
        (frame("abc"), "an odd number"),
        (frame("zz"), "z is no hexadecimal digit"),
        (frame(&"00".repeat(70_000)), "longer than"),
        (
            flow("10.9.0.1:1", "10.1.0.1:80", "X", false),
            "X is none of",
        ),
        (
            flow("10.9.0.1:1", "[fd01::1]:80", "S", false),
            "two families",
        ),
        (
            flow("10.9.0.1:1", "10.1.0.1:80", "S", true),
            "no connection",
        ),
    ];
    let table = Table::new(1024, 1, 0);
    for (request, wanted) in rows {
        let error = explain(&world(), &table, 0, &request).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    for hex in ["", "00", "020000000001"] {
        let told = explain(&world(), &table, 0, &frame(hex)).unwrap();
        assert_eq!(told.verdict, "passed", "{hex}");
    }
}
