//! What `-S` prints, `-R` reads: any table comes back as it was, but for what ipvsadm's
//! lines cannot say: thresholds, marks from 2^31 on (printed as negative numbers), flag-3
//! under sh and mh (it has no name there), a mask without persistence.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use proptest::prelude::*;
use sched::command::Command;
use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel, TunnelChecksum};
use sched::service::{Family, Persistence, Protocol, SchedulerFlags, ServiceKey, ServiceSpec};

use super::Session;
use super::names::FewNames;
use crate::testing::MemoryDirector;

fn address(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        // Unicast, so that the table takes them as servers.
        Family::V4 => (0x0100_0000u32..0xe000_0000)
            .prop_map(|bits| Ipv4Addr::from_bits(bits).into())
            .boxed(),
        Family::V6 => (1u128..1 << 127)
            .prop_map(|bits| Ipv6Addr::from_bits(bits).into())
            .boxed(),
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Sctp)
    ];
    let by_address = (protocol, family().prop_flat_map(address), 1u16..).prop_map(
        |(protocol, address, port)| ServiceKey::Address {
            protocol,
            address,
            port,
        },
    );
    let by_mark = (1..=i32::MAX as u32, family()).prop_map(|(mark, family)| ServiceKey::Fwmark {
        mark: NonZeroU32::new(mark).unwrap(),
        family,
    });
    prop_oneof![3 => by_address, 1 => by_mark]
}

fn spec(family: Family) -> impl Strategy<Value = ServiceSpec> {
    let mask = match family {
        Family::V4 => any::<u32>().boxed(),
        Family::V6 => (1u32..=128).boxed(),
    };
    let default_mask = match family {
        Family::V4 => u32::MAX,
        Family::V6 => 128,
    };
    let persistence = proptest::option::of((1u32..=2_678_400, mask));
    let scheduler = proptest::sample::select(vec!["rr", "wlc", "sh", "mh", "twos"]);
    (
        scheduler,
        0u8..8,
        persistence,
        proptest::option::of(Just("sip".to_owned())),
    )
        .prop_map(move |(scheduler, flags, persistence, engine)| ServiceSpec {
            scheduler: scheduler.to_owned(),
            flags: SchedulerFlags(match scheduler {
                "sh" | "mh" => flags & 3,
                _ => flags,
            }),
            persistence: persistence.map(|(timeout_s, _)| Persistence { timeout_s }),
            netmask: persistence.map_or(default_mask, |(_, mask)| mask),
            one_packet: false,
            engine,
        })
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    use TunnelChecksum::{Full, None, Remote};
    let gue = (1u16.., proptest::sample::select(vec![None, Full, Remote]))
        .prop_map(|(port, checksum)| Tunnel::Gue { port, checksum });
    let gre =
        proptest::sample::select(vec![None, Full]).prop_map(|checksum| Tunnel::Gre { checksum });
    let tunnel = prop_oneof![Just(Tunnel::Ipip), gue, gre];
    prop_oneof![
        Just(Forwarding::Masquerade),
        Just(Forwarding::Route),
        tunnel.prop_map(Forwarding::Tunnel)
    ]
}

fn server(service: ServiceKey) -> impl Strategy<Value = (ServerKey, ServerSpec)> {
    (forwarding(), family(), any::<u16>(), 0..=i32::MAX as u32).prop_flat_map(
        move |(forwarding, other, port, weight)| {
            let family = match forwarding {
                Forwarding::Tunnel(_) => other,
                _ => service.family(),
            };
            // Direct routing and tunnels keep the port of a service that has one.
            let port = match (forwarding, service) {
                (Forwarding::Masquerade, _) | (_, ServiceKey::Fwmark { .. }) => port,
                _ => service.port(),
            };
            let spec = ServerSpec {
                forwarding,
                weight,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            address(family).prop_map(move |address| (ServerKey { address, port }, spec))
        },
    )
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let one = key().prop_flat_map(|service| {
        let servers = proptest::collection::vec(server(service), 0..4);
        (spec(service.family()), servers).prop_map(move |(spec, servers)| {
            let add = Command::AddService { service, spec };
            let servers = servers
                .into_iter()
                .map(move |(server, spec)| Command::AddServer {
                    service,
                    server,
                    spec,
                });
            std::iter::once(add).chain(servers).collect::<Vec<_>>()
        })
    });
    proptest::collection::vec(one, 0..8).prop_map(|services| services.concat())
}

fn run(director: &mut MemoryDirector, words: &[&str], mut input: &[u8]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let status = Session {
        program: "ipvsadm",
        director,
        names: &FewNames,
        input: Some(&mut input),
        out: &mut out,
        err: &mut err,
    }
    .run(&words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status, text(out), text(err))
}

proptest! {
    #[test]
    fn saved_tables_come_back(commands in commands()) {
        let mut before = MemoryDirector::default();
        for command in &commands {
            let _ = before.apply(command);
        }
        let (_, saved, _) = run(&mut before, &["-S", "-n"], b"");
        let mut after = MemoryDirector::default();
        let restored = run(&mut after, &["-R"], saved.as_bytes());
        prop_assert_eq!(restored, (0, String::new(), String::new()));
        for row in &before.table.services {
            let services = &after.table.services;
            let back = services.iter().find(|back| back.service == row.service);
            let back = back.expect("the service");
            prop_assert_eq!(&back.spec, &row.spec);
            prop_assert_eq!(back.servers.len(), row.servers.len());
            for server in &row.servers {
                let back = back.servers.iter().find(|back| back.server == server.server);
                prop_assert_eq!(back.expect("the server").spec, server.spec);
            }
        }
        prop_assert_eq!(before.table.services.len(), after.table.services.len());
    }
}

#[test]
fn many_lines_go_in_few_batches() {
    let lines: Vec<_> = (0..25_000)
        .map(|i| match i % 10 {
            0 => format!("-A -t 10.1.{}.{}:80\n", i / 2500, i / 10 % 250),
            _ => "-Z\n".to_owned(),
        })
        .collect();
    let mut director = MemoryDirector::default();
    let ended = run(&mut director, &["-R"], lines.concat().as_bytes());
    assert_eq!(ended, (0, String::new(), String::new()));
    assert_eq!(director.table.services.len(), 2500);
    assert_eq!(director.batches, [10_000, 10_000, 5000]);
}

/// Whoever feeds `-R` line by line sees each line in force before the next is asked for.
#[test]
fn a_line_is_in_force_before_reading_can_block() {
    struct LineByLine(Vec<&'static str>);
    impl std::io::Read for LineByLine {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some(line) = self.0.pop() else {
                return Ok(0);
            };
            buffer[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }
    let mut director = MemoryDirector::default();
    let mut input = LineByLine(vec!["-A -f 2\n", "-A -f 1\n", "-C\n"]);
    let status = Session {
        program: "ipvsadm",
        director: &mut director,
        names: &FewNames,
        input: Some(&mut input),
        out: &mut Vec::new(),
        err: &mut Vec::new(),
    }
    .run(&["-R".to_owned()]);
    assert_eq!((status, director.batches), (0, vec![1, 1, 1]));
}
