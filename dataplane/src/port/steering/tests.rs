//! What the program says of a frame, asked by BPF_PROG_TEST_RUN: the kernel runs the loaded
//! program on bytes that never were on a wire. Needs root, as loading does.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::TestRunOptions;
use aya::programs::TestRun;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sched::prefix::{Guard, Prefixes};
use sched::server::{Tunnel, TunnelChecksum};
use sched::service::Protocol;

use super::*;

/// Test runs come from the loopback, which has number 1 in every network namespace.
const DEVICE: u32 = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Drop = 1,
    Pass = 2,
    Redirect = 4,
}
use Says::{Drop, Pass, Redirect};

/// Client, virtual address, NAT server, tunnel server, NAT server of a marked service,
/// some other host, where keys of IPsec are exchanged; the same in both families.
fn who(family: u8, name: &str) -> IpAddr {
    let number = match name {
        "client" => 1,
        "vip" => 2,
        "nat" => 3,
        "tun" => 4,
        "whole" => 5,
        "anyport" => 6,
        "ike" => 7,
        "gateway" => 8,
        _ => 9,
    };
    match family {
        4 => IpAddr::from([10, 0, 0, number]),
        _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

fn rules() -> SteeringRules {
    let mut rules = SteeringRules {
        vlans: vec![(DEVICE, 100)],
        macs: vec![(DEVICE, MAC)],
        ..SteeringRules::default()
    };
    for family in [4, 6] {
        let end = |name, port| SteeredEndpoint {
            address: who(family, name),
            protocol: Protocol::Tcp,
            port,
        };
        rules.virtuals.extend([end("vip", 80), end("anyport", 0)]);
        let ike = |name| SteeredEndpoint {
            protocol: Protocol::Udp,
            ..end(name, 500)
        };
        rules.virtuals.push(ike("ike"));
        rules.reals.push(ike("gateway"));
        rules.reals.push(end("nat", 8080));
        rules.reals_whole.push(who(family, "whole"));
        let gue = Tunnel::Gue {
            port: 6080,
            checksum: TunnelChecksum::None,
        };
        let gre = Tunnel::Gre {
            checksum: TunnelChecksum::None,
        };
        for tunnel in [Tunnel::Ipip, gue, gre] {
            rules.tunnels.push((who(family, "tun"), tunnel));
        }
    }
    rules
}

/// A packet in words: family, source, destination, protocol, ports.
#[derive(Clone, Copy)]
struct Packet {
    family: u8,
    from: &'static str,
    to: &'static str,
    protocol: u8,
    ports: [u16; 2],
}

fn tcp(family: u8, from: &'static str, sport: u16, to: &'static str, dport: u16) -> Packet {
    Packet {
        family,
        from,
        to,
        protocol: 6,
        ports: [sport, dport],
    }
}

impl Packet {
    fn with(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    fn payload(self) -> Vec<u8> {
        let ports = self.ports.map(u16::to_be_bytes).concat();
        [ports, vec![0; 16]].concat()
    }

    /// The IP packet over `payload`, its first `extensions` written between.
    fn over(self, extensions: &[u8], first: Option<u8>, payload: &[u8]) -> Vec<u8> {
        let next = first.unwrap_or(self.protocol);
        let mut bytes = vec![0; if self.family == 4 { 20 } else { 40 }];
        let source = who(self.family, self.from);
        let target = who(self.family, self.to);
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                bytes[0] = 0x45;
                bytes[9] = next;
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&target.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                bytes[0] = 0x60;
                bytes[6] = next;
                bytes[8..24].copy_from_slice(&source.octets());
                bytes[24..40].copy_from_slice(&target.octets());
            }
            _ => unreachable!("both are of one family"),
        }
        bytes.extend(extensions);
        bytes.extend(payload);
        bytes
    }

    fn ip(self) -> Vec<u8> {
        self.over(&[], None, &self.payload())
    }

    fn frame(self) -> Vec<u8> {
        link(&[], self.family, &self.ip())
    }

    /// An ICMP error from `from` to `to` that quotes this packet.
    fn error(self, kind: u8, from: &'static str, to: &'static str) -> Vec<u8> {
        let icmp = [vec![kind, 0, 0, 0, 0, 0, 0, 0], self.ip()].concat();
        let outer = Packet { from, to, ..self };
        let outer = outer.with(if self.family == 4 { 1 } else { 58 });
        link(&[], self.family, &outer.over(&[], None, &icmp))
    }
}

/// A frame to the port; `tags` are (EtherType, VLAN).
fn link(tags: &[(u16, u16)], family: u8, packet: &[u8]) -> Vec<u8> {
    let mut bytes = [MAC, OTHER_MAC].concat();
    for (kind, vlan) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((0xe000 | vlan).to_be_bytes());
    }
    bytes.extend(if family == 4 { [8, 0] } else { [0x86, 0xdd] });
    bytes.extend(packet);
    bytes
}

fn with_bytes(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

type Row = (&'static str, Vec<u8>, Says);

/// Rows that read alike in both families.
fn rows_of(family: u8) -> Vec<Row> {
    let to_vip = tcp(family, "client", 5000, "vip", 80);
    let tagged = |tags: &[(u16, u16)]| link(tags, family, &to_vip.ip());
    let (unreachable, echo, exceeded) = if family == 4 { (3, 8, 11) } else { (1, 128, 3) };
    let from_nat = tcp(family, "nat", 8080, "client", 5000);
    let to_tunnel = tcp(family, "other", 0, "tun", 0);
    let gue = Packet {
        ports: [40_000, 6080],
        ..to_tunnel.with(17)
    };
    let echo_of = |to| Packet {
        to,
        ports: [u16::from(echo) << 8, 0],
        ..to_vip.with(if family == 4 { 1 } else { 58 })
    };
    vec![
        ("to a service", to_vip.frame(), Redirect),
        (
            "to another port",
            tcp(family, "client", 5000, "vip", 22).frame(),
            Pass,
        ),
        ("to another protocol", to_vip.with(17).frame(), Pass),
        (
            "to a service of every port",
            tcp(family, "client", 1, "anyport", 9).frame(),
            Redirect,
        ),
        (
            "to another host",
            tcp(family, "client", 5000, "other", 80).frame(),
            Pass,
        ),
        (
            "from a service",
            tcp(family, "vip", 80, "client", 5000).frame(),
            Pass,
        ),
        ("from a NAT server", from_nat.frame(), Redirect),
        (
            "from its other port",
            tcp(family, "nat", 22, "client", 5000).frame(),
            Pass,
        ),
        (
            "to a NAT server",
            tcp(family, "client", 5000, "nat", 8080).frame(),
            Pass,
        ),
        (
            "from a marked service's server",
            tcp(family, "whole", 7, "client", 1).frame(),
            Redirect,
        ),
        (
            "not TCP or UDP from it",
            tcp(family, "whole", 7, "client", 1).with(47).frame(),
            Redirect,
        ),
        (
            "from a tunnel's server",
            tcp(family, "tun", 80, "client", 5000).frame(),
            Pass,
        ),
        (
            "to another link address",
            with_bytes(to_vip.frame(), 0, &OTHER_MAC),
            Pass,
        ),
        ("broadcast", with_bytes(to_vip.frame(), 0, &[0xff; 6]), Pass),
        ("in a served VLAN", tagged(&[(0x8100, 100)]), Redirect),
        // Linux has a device for a VLAN of either kind of tag.
        ("in its number by 802.1ad", tagged(&[(0x88a8, 100)]), Pass),
        ("priority only", tagged(&[(0x8100, 0)]), Redirect),
        ("priority by 802.1ad", tagged(&[(0x88a8, 0)]), Redirect),
        (
            "priority twice",
            tagged(&[(0x88a8, 0), (0x8100, 0)]),
            Redirect,
        ),
        ("priority four times", tagged(&[(0x8100, 0); 4]), Redirect),
        ("priority five times", tagged(&[(0x8100, 0); 5]), Pass),
        (
            "priority, then a served VLAN",
            tagged(&[(0x8100, 0), (0x8100, 100)]),
            Redirect,
        ),
        (
            "priority, then another VLAN",
            tagged(&[(0x8100, 0), (0x8100, 101)]),
            Pass,
        ),
        (
            "a served VLAN, then priority",
            tagged(&[(0x8100, 100), (0x8100, 0)]),
            Pass,
        ),
        (
            "cut within the second tag",
            tagged(&[(0x8100, 0), (0x8100, 0)])[..20].to_vec(),
            Pass,
        ),
        (
            "ESP to where keys are exchanged",
            tcp(family, "client", 0, "ike", 0).with(50).frame(),
            Redirect,
        ),
        (
            "ESP from where they are exchanged",
            tcp(family, "gateway", 0, "client", 0).with(50).frame(),
            Redirect,
        ),
        ("ESP to another service", to_vip.with(50).frame(), Pass),
        (
            "GRE to there",
            tcp(family, "client", 0, "ike", 0).with(47).frame(),
            Pass,
        ),
        ("in another VLAN", tagged(&[(0x8100, 101)]), Pass),
        (
            "in two VLANs",
            tagged(&[(0x88a8, 100), (0x8100, 100)]),
            Pass,
        ),
        (
            "cut within the tag",
            tagged(&[(0x8100, 100)])[..16].to_vec(),
            Pass,
        ),
        (
            "cut within the IP header",
            to_vip.frame()[..30].to_vec(),
            Pass,
        ),
        (
            "cut within the ports",
            {
                let frame = to_vip.frame();
                frame[..frame.len() - 17].to_vec()
            },
            Pass,
        ),
        (
            "of another IP version",
            with_bytes(to_vip.frame(), 14, &[0x55]),
            Pass,
        ),
        (
            "neither IPv4 nor IPv6",
            with_bytes(to_vip.frame(), 12, &[8, 6]),
            Pass,
        ),
        ("echo to a service", echo_of("vip").frame(), Pass),
        (
            "error to a service's address",
            from_nat.error(unreachable, "other", "vip"),
            Redirect,
        ),
        (
            "hop limit error to it",
            from_nat.error(exceeded, "other", "vip"),
            Redirect,
        ),
        (
            "error about a packet to a NAT server",
            tcp(family, "client", 5, "nat", 8080).error(unreachable, "other", "client"),
            Redirect,
        ),
        (
            "error about its other port",
            tcp(family, "client", 5, "nat", 22).error(unreachable, "other", "client"),
            Pass,
        ),
        (
            "error about a packet from a NAT server",
            from_nat.error(unreachable, "client", "other"),
            Redirect,
        ),
        (
            "error about a packet from a service",
            tcp(family, "vip", 80, "client", 5).error(unreachable, "client", "other"),
            Redirect,
        ),
        (
            "error about a stranger's packet",
            tcp(family, "client", 5, "other", 80).error(unreachable, "other", "client"),
            Pass,
        ),
        (
            "echo that quotes a service's",
            from_nat.error(echo, "client", "other"),
            Pass,
        ),
        (
            "error about IPv4 in IP",
            to_tunnel.with(4).error(exceeded, "other", "client"),
            Redirect,
        ),
        (
            "error about IPv6 in IP",
            to_tunnel.with(41).error(exceeded, "other", "client"),
            Redirect,
        ),
        (
            "error about GRE",
            to_tunnel.with(47).error(exceeded, "other", "client"),
            Redirect,
        ),
        (
            "error about GUE",
            gue.error(exceeded, "other", "client"),
            Redirect,
        ),
        (
            "error about other UDP there",
            Packet {
                ports: [40_000, 53],
                ..gue
            }
            .error(exceeded, "other", "client"),
            Pass,
        ),
        (
            "error about TCP there",
            to_tunnel.error(exceeded, "other", "client"),
            Pass,
        ),
        (
            "error with a quote cut short",
            {
                let frame =
                    tcp(family, "client", 5, "nat", 8080).error(unreachable, "other", "client");
                frame[..frame.len() - 19].to_vec()
            },
            Pass,
        ),
    ]
}

fn rows_of_ipv4() -> Vec<Row> {
    let fragment =
        |from, to, offset: [u8; 2]| with_bytes(tcp(4, from, 5000, to, 9).frame(), 14 + 6, &offset);
    let mut options = tcp(4, "client", 5000, "vip", 80).over(&[1; 40], None, &[0; 4]);
    options[0] = 0x4f;
    let after = tcp(4, "client", 5000, "vip", 80).payload();
    let options = [options[..60].to_vec(), after].concat();
    vec![
        (
            "first fragment to a service's address",
            fragment("client", "vip", [0x20, 0]),
            Redirect,
        ),
        (
            "last fragment to it",
            fragment("client", "vip", [0, 99]),
            Redirect,
        ),
        (
            "fragment from a NAT server",
            fragment("nat", "client", [0x20, 7]),
            Redirect,
        ),
        (
            "fragment of strangers",
            fragment("client", "other", [0x20, 7]),
            Pass,
        ),
        (
            "fragment from a service",
            fragment("vip", "client", [0x20, 7]),
            Pass,
        ),
        (
            "with \"do not fragment\"",
            fragment("client", "vip", [0x40, 0]),
            Pass,
        ),
        (
            "behind 40 bytes of options",
            link(&[], 4, &options),
            Redirect,
        ),
        (
            "header of 16 bytes",
            with_bytes(tcp(4, "client", 5, "vip", 80).frame(), 14, &[0x44]),
            Pass,
        ),
        (
            "redirect to a service's address",
            tcp(4, "vip", 80, "client", 5).error(5, "other", "vip"),
            Pass,
        ),
    ]
}

fn rows_of_ipv6() -> Vec<Row> {
    let to_vip = tcp(6, "client", 5000, "vip", 80);
    let behind = |extensions: &[u8], first, packet: Packet| {
        link(
            &[],
            6,
            &packet.over(extensions, Some(first), &packet.payload()),
        )
    };
    let hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination = [51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let authentication = [
        6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let all = [&hop[..], &destination, &authentication].concat();
    let fragment = [6, 0, 0, 1, 0, 0, 0, 7];
    let long = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    vec![
        (
            "behind three extension headers",
            behind(&all, 0, to_vip),
            Redirect,
        ),
        (
            "and to another port",
            behind(&all, 0, tcp(6, "client", 1, "vip", 22)),
            Pass,
        ),
        (
            "fragment to a service's address",
            behind(&fragment, 44, to_vip),
            Redirect,
        ),
        (
            "fragment from a NAT server",
            behind(&fragment, 44, tcp(6, "nat", 1, "client", 2)),
            Redirect,
        ),
        (
            "fragment of strangers",
            behind(&fragment, 44, tcp(6, "client", 1, "other", 2)),
            Pass,
        ),
        (
            "too many extension headers",
            behind(&long, 60, to_vip),
            Redirect,
        ),
        (
            "too many, of strangers",
            behind(&long, 60, tcp(6, "client", 1, "other", 80)),
            Pass,
        ),
        (
            "extension header beyond the frame",
            {
                let frame = behind(&[6, 200, 0, 0, 0, 0, 0, 0], 60, to_vip);
                with_bytes(frame, 12, &[0x86, 0xdd])
            },
            Pass,
        ),
        (
            "neighbour solicitation",
            Packet {
                ports: [135 << 8, 0],
                ..to_vip.with(58)
            }
            .frame(),
            Pass,
        ),
    ]
}

fn run(steering: &mut Steering, frame: &[u8]) -> u32 {
    let mut out = [0; 4096];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    steering
        .program
        .xdp()
        .test_run(options)
        .expect("test run")
        .return_value
}

/// An AF_XDP socket, which [`Steering::register`] asks for: of no queue, as nothing is received.
fn afxdp_socket() -> OwnedFd {
    let (family, kind) = (AddressFamily::XDP, SocketType::RAW);
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).expect("AF_XDP")
}

fn loaded() -> Steering {
    let mut steering = Steering::load(SteeringOptions::default()).expect("load (as root)");
    steering.set_mac(0, DEVICE, MAC).unwrap();
    steering
}

#[test]
fn frames_go_where_they_belong() {
    let mut steering = loaded();
    steering.set(&rules()).unwrap();
    let socket = afxdp_socket();
    steering.register(PortId(0), 0, socket.as_fd()).unwrap();
    let rows: [(&str, Vec<Row>); 4] = [
        ("IPv4", rows_of(4)),
        ("IPv6", rows_of(6)),
        ("IPv4 only", rows_of_ipv4()),
        ("IPv6 only", rows_of_ipv6()),
    ];
    let (mut passed, mut redirected) = (0, 0);
    for (family, rows) in rows {
        for (what, frame, says) in rows {
            assert_eq!(run(&mut steering, &frame), says as u32, "{family}: {what}");
            let model = rules().steer(DEVICE, &frame);
            assert_eq!(
                model.is_taken(),
                says == Redirect,
                "{family}: {what}: {model:?}"
            );
            passed += u64::from(says == Pass);
            redirected += u64::from(says == Redirect);
        }
    }
    let counters = steering.counters().unwrap();
    assert_eq!((counters.passed, counters.redirected), (passed, redirected));
}

/// A macvlan's address is the port's too, for as long as the rules say so.
#[test]
fn further_link_addresses_are_the_directors() {
    const VMAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 0x33];
    const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    let mut steering = loaded();
    let with = |stations| SteeringRules {
        stations,
        ..rules()
    };
    let rows = [
        ("not the host's", vec![], VMAC, Pass),
        ("a macvlan's", vec![(DEVICE, VMAC)], VMAC, Redirect),
        ("the port's own still", vec![(DEVICE, VMAC)], MAC, Redirect),
        ("another's still", vec![(DEVICE, VMAC)], OTHER_MAC, Pass),
        ("on another device", vec![(DEVICE + 1, VMAC)], VMAC, Pass),
        ("a group's", vec![(DEVICE, VMAC)], GROUP, Pass),
        ("gone again", vec![], VMAC, Pass),
    ];
    let socket = afxdp_socket();
    steering.register(PortId(0), 0, socket.as_fd()).unwrap();
    for (what, stations, to, says) in rows {
        let rules = with(stations);
        steering.set(&rules).unwrap();
        assert_eq!(steering.contents, Contents::of(&rules), "{what}");
        for family in [4, 6] {
            let frame = with_bytes(tcp(family, "client", 5000, "vip", 80).frame(), 0, &to);
            assert_eq!(run(&mut steering, &frame), says as u32, "{what}");
            let model = rules.steer(DEVICE, &frame);
            assert_eq!(model.is_taken(), says == Redirect, "{what}: {model:?}");
        }
    }
}

#[test]
fn without_a_socket_the_directors_frames_are_dropped() {
    let mut steering = loaded();
    let frame = tcp(4, "client", 5000, "vip", 80).frame();
    assert_eq!(run(&mut steering, &frame), Pass as u32, "no rules yet");
    steering.set(&rules()).unwrap();
    assert_eq!(run(&mut steering, &frame), Drop as u32);
    assert_eq!(steering.counters().unwrap().dropped, 1);
    let socket = afxdp_socket();
    steering.register(PortId(0), 0, socket.as_fd()).unwrap();
    assert_eq!(run(&mut steering, &frame), Redirect as u32);
    drop(socket);
    assert_eq!(
        run(&mut steering, &frame),
        Drop as u32,
        "a closed socket leaves"
    );
}

#[test]
fn clients_are_kept_out_by_their_longest_prefix() {
    let mut steering = loaded();
    let list = |rows: &[(&str, Guard)]| {
        let rows = rows
            .iter()
            .map(|(text, guard)| (text.parse().unwrap(), *guard));
        Arc::new(rows.collect::<Prefixes>())
    };
    let denied = list(&[("10.0.0.0/8", Guard::Deny), ("fd00::/16", Guard::Deny)]);
    let but_one = list(&[
        ("10.0.0.0/8", Guard::Deny),
        ("10.0.0.1/32", Guard::Allow),
        ("fd00::/16", Guard::Deny),
        ("fd00::1/128", Guard::Allow),
    ]);
    let others = list(&[("11.0.0.0/8", Guard::Deny), ("fd01::/16", Guard::Deny)]);
    let none = Arc::<Prefixes>::default();
    let steps = [
        ("nobody is named", none.clone(), Drop),
        ("kept out", denied, Drop),
        ("let in again", but_one, Redirect),
        ("others are kept out", others, Redirect),
        ("nobody again", none, Redirect),
    ];
    let socket = afxdp_socket();
    for (place, (what, prefixes, says)) in steps.into_iter().enumerate() {
        let rules = SteeringRules {
            prefixes,
            ..rules()
        };
        steering.set(&rules).unwrap();
        for family in [4, 6] {
            let before = steering.counters().unwrap().denied;
            let asked = tcp(family, "client", 5000, "vip", 80).frame();
            assert_eq!(run(&mut steering, &asked), says as u32, "{what}");
            let is_denied = steering.counters().unwrap().denied > before;
            assert_eq!(is_denied, place == 1, "{what}");
            assert_eq!(
                rules.steer(DEVICE, &asked) == Steered::Denied,
                is_denied,
                "{what}"
            );
            let other = tcp(family, "client", 5000, "other", 80).frame();
            assert_eq!(
                run(&mut steering, &other),
                Pass as u32,
                "the host's: {what}"
            );
        }
        steering.register(PortId(0), 0, socket.as_fd()).unwrap();
    }
}

#[test]
fn rules_are_replaced_whole() {
    let mut steering = loaded();
    let frame = tcp(6, "client", 5000, "vip", 80).frame();
    for round in 0..3 {
        steering.set(&rules()).unwrap();
        assert_eq!(run(&mut steering, &frame), Drop as u32, "round {round}");
        steering.set(&SteeringRules::default()).unwrap();
        assert_eq!(run(&mut steering, &frame), Pass as u32, "round {round}");
    }
}

#[test]
fn a_full_map_is_named() {
    let options = SteeringOptions {
        endpoints: 2,
        ..SteeringOptions::default()
    };
    let mut steering = Steering::load(options).unwrap();
    let error = steering.set(&rules()).unwrap_err();
    assert!(
        matches!(
            error,
            SteeringError::Full {
                name: "endpoints",
                limit: 2
            }
        ),
        "{error}"
    );
    steering.set(&SteeringRules::default()).unwrap();
}

#[test]
fn a_map_that_does_not_hold_old_and_new_together_holds_the_new() {
    let size = Contents::of(&rules());
    let options = SteeringOptions {
        endpoints: size.endpoints.len() as u32,
        addresses: size.addresses.len() as u32,
        ..SteeringOptions::default()
    };
    let mut steering = Steering::load(options).unwrap();
    steering.set(&rules()).unwrap();
    let mut others = rules();
    others.virtuals.iter_mut().for_each(|end| end.port += 1);
    others.tunnels.iter_mut().for_each(|(address, _)| {
        *address = who(if address.is_ipv4() { 4 } else { 6 }, "other");
    });
    for (what, rules) in [("others", others), ("the first again", rules())] {
        steering.set(&rules).expect(what);
        assert_eq!(steering.contents, Contents::of(&rules), "{what}");
    }
}

#[test]
fn sockets_have_their_place() {
    let mut steering = loaded();
    let socket = afxdp_socket();
    for (port, queue) in [(PORTS_MAX as u8, 0), (0, QUEUES_MAX)] {
        let error = steering
            .register(PortId(port), queue, socket.as_fd())
            .unwrap_err();
        assert!(
            matches!(error, SteeringError::NoSuchQueue { .. }),
            "{error}"
        );
    }
}

/// `cargo test -p lvx-dataplane --lib steering::tests::cost -- --ignored --nocapture`: what the
/// program takes a frame, by the kernel's clock; "to another station" is nearly nothing but the
/// measurement's own loop.
#[test]
#[ignore = "a measurement: wants an idle core"]
fn cost() {
    let mut steering = loaded();
    steering.set(&rules()).unwrap();
    let socket = afxdp_socket();
    steering.register(PortId(0), 0, socket.as_fd()).unwrap();
    for family in [4, 6] {
        let to = |name| tcp(family, "client", 5000, name, 80).frame();
        let rows = [
            ("to a service", to("vip")),
            ("to a service of every port", to("anyport")),
            (
                "from a server",
                tcp(family, "nat", 8080, "client", 1).frame(),
            ),
            ("of strangers", to("other")),
            ("to another station", with_bytes(to("other"), 0, &OTHER_MAC)),
        ];
        for (what, frame) in rows {
            let mut times: Vec<_> = (0..9).map(|_| time(&mut steering, &frame)).collect();
            times.sort();
            println!("IPv{family} {what}: {:?}, from {:?}", times[4], times[0]);
        }
    }
}

/// One run of the program on this frame, the mean of a million.
fn time(steering: &mut Steering, frame: &[u8]) -> std::time::Duration {
    let mut out = [0; 4096];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        repeat: 1_000_000,
        ..TestRunOptions::default()
    };
    let program = steering.program.xdp();
    program.test_run(options).expect("test run").duration
}

#[test]
fn ports_come_go_and_change_numbers() {
    let mut steering = loaded();
    steering.set(&rules()).unwrap();
    let frame = tcp(4, "client", 5000, "vip", 80).frame();
    let socket = afxdp_socket();
    steering.register(PortId(3), 0, socket.as_fd()).unwrap();
    // Others before and after it, as many as there may be.
    for device in 2..=PORTS_MAX as u32 {
        steering.set_mac(device as usize - 1, device, MAC).unwrap();
    }
    assert!(steering.set_mac(0, 99, MAC).is_err(), "one more than fit");
    assert_eq!(run(&mut steering, &frame), Drop as u32, "port 0: no socket");
    steering.set_mac(3, DEVICE, MAC).unwrap();
    assert_eq!(run(&mut steering, &frame), Redirect as u32, "port 3 now");
    steering.forget_devices(|device| device == DEVICE).unwrap();
    assert_eq!(run(&mut steering, &frame), Pass as u32, "no port any more");
    steering.set_mac(0, 99, MAC).expect("its place is free");
    steering.forget_devices(|device| device == 7).unwrap();
    steering.set_mac(3, DEVICE, MAC).unwrap();
    assert_eq!(
        run(&mut steering, &frame),
        Redirect as u32,
        "in another's place"
    );
}

/// Many share places of the arrays that are asked first: what they do not settle is looked up.
#[test]
fn full_arrays_change_nothing() {
    let mut steering = loaded();
    let mut all = rules();
    let end = |number: u32| SteeredEndpoint {
        address: IpAddr::from((0x0b00_0000 | number).to_be_bytes()),
        protocol: Protocol::Tcp,
        port: 1,
    };
    all.virtuals.extend((0..100_000).map(end));
    all.reals.extend((100_000..200_000).map(end));
    steering.set(&all).unwrap();
    let socket = afxdp_socket();
    steering.register(PortId(0), 0, socket.as_fd()).unwrap();
    for family in [4, 6] {
        for (what, frame, says) in rows_of(family) {
            assert_eq!(
                run(&mut steering, &frame),
                says as u32,
                "IPv{family}: {what}"
            );
        }
    }
    let own = tcp(4, "client", 5000, "vip", 1).frame();
    for number in (0..100_000_u32).step_by(1000) {
        let address = (0x0b00_0000 | number).to_be_bytes();
        let frame = with_bytes(own.clone(), 30, &address);
        assert_eq!(run(&mut steering, &frame), Redirect as u32, "{address:?}");
        let other_port = with_bytes(frame, 36, &[0, 2]);
        assert_eq!(run(&mut steering, &other_port), Pass as u32, "{address:?}");
    }
    steering.set(&rules()).unwrap();
    assert_eq!(steering.contents, Contents::of(&rules()), "nothing is left");
}
