//! Whatever a frame holds, once it parsed nothing may panic.

use proptest::prelude::*;
use sched::server::{Tunnel, TunnelChecksum};
use sched::service::Family;

use super::fragments::{Offered, Pieces, Reassembly};
use super::icmp::{self, ErrorKind};
use super::tunnel::{self, Wrap};
use super::{checksum, hop_limit, link, nat};
use crate::address::Endpoint;
use crate::frame::{Frame, Packet};
use crate::hops::{Hop, PortId};
use crate::testing::{frame, roomy};

/// Frames that parse, to be damaged.
const SEEDS: &[&str] = &[
    "10.9.0.1 > 10.1.0.1 opts=94040000 / tcp 1 > 80 S / data 60",
    "eth vlan=7 / 10.9.0.1 > 10.1.0.1 / udp 1 > 80 / data 60",
    "10.9.0.1 > 10.1.0.1 / sctp 1 > 80 / data 60",
    "10.9.0.1 > 10.1.0.1 mf / slice 0 64 / tcp 1 > 80 S / data 60",
    "10.9.0.1 > 10.1.0.1 off=64 opts=0707040000000000 / data 60",
    "10.9.0.1 > 10.1.0.1 / icmp 3 4 rest=500 / 10.1.0.1 > 10.9.0.1 / tcp 80 > 1 A",
    "10.2.0.9 > 10.2.0.1 / icmp 3 1 / 10.2.0.1 > 10.2.0.11 / 10.9.0.1 > 10.1.0.1 df / tcp 80 > 1 A",
    "10.2.0.9 > 10.2.0.1 / icmp 3 1 / 10.2.0.1 > 10.2.0.11 / udp 9 > 6080 sum=none / gue / fd09::1 > fd01::1 / udp 80 > 1",
    "10.2.0.9 > 10.2.0.1 / icmp 11 0 / 10.2.0.1 > 10.2.0.11 / gre sum / 10.9.0.1 > 10.1.0.1 / udp 80 > 1",
    "fd09::1 > fd01::1 / hop / dest / route / dest / tcp 1 > 80 S / data 60",
    "fd09::1 > fd01::1 / hop / frag id=5 mf / slice 0 64 / udp 1 > 80 / data 60",
    "fd09::1 > fd01::1 / frag id=5 off=64 / data 60",
    "fd09::1 > fd01::1 / icmp 2 0 rest=500 / fd01::1 > fd09::1 / hop / udp 1 > 80 / data 60",
];

fn wrap(bits: u8) -> Wrap {
    let checksum = [TunnelChecksum::None, TunnelChecksum::Full][usize::from(bits & 1)];
    Wrap {
        kind: match bits >> 1 & 3 {
            0 => Tunnel::Ipip,
            1 => Tunnel::Gre { checksum },
            _ => Tunnel::Gue {
                port: 6080,
                checksum,
            },
        },
        family: if bits & 8 == 0 {
            Family::V4
        } else {
            Family::V6
        },
        local: 1,
        remote: 2,
        identification: 3,
    }
}

/// Every rewriting, one at a time, on a copy of the frame each.
fn exercise(bytes: &[u8], port: u16, mtu: u16, bits: u8) {
    let to = Endpoint {
        address: 0x0a02_000b,
        port,
    };
    let hop = Hop {
        port: PortId(0),
        vlan: (bits & 16 == 0).then_some(port),
        source: [1; 6],
        destination: [2; 6],
        mtu,
        local: 0,
    };
    let fresh = |change: &mut dyn FnMut(&mut Frame<'_>, &mut Packet)| {
        let (mut memory, from, until) = roomy(bytes);
        let mut frame = Frame::new(&mut memory, from, until).unwrap();
        if let Ok(mut packet) = Packet::parse(&mut frame) {
            change(&mut frame, &mut packet);
        }
    };
    fresh(&mut |f, p| _ = nat::rewrite_destination(f, p, to));
    fresh(&mut |f, p| _ = nat::rewrite_source(f, p, to));
    fresh(&mut |f, p| _ = checksum::complete_if_partial(f, p));
    fresh(&mut |f, p| _ = hop_limit::decrement(f, p));
    fresh(&mut |f, p| _ = link::address(f, p, &hop));
    fresh(&mut |f, p| {
        if let Ok(outer) = tunnel::encapsulate(f, p, &wrap(bits)) {
            split(f, &outer, mtu);
        }
    });
    fresh(&mut |f, p| {
        let _ = icmp::write_error(f, p, ErrorKind::TooBig { mtu }, 1, 2);
    });
    fresh(&mut |f, p| {
        let Some(quoted) = icmp::quoted(f, p) else {
            return;
        };
        if let Some(inner) = quoted.inside(f, |_| true) {
            let _ = icmp::relay_tunnel_error(f, p, &inner, 1, 2);
        }
    });
    fresh(&mut |f, p| {
        if let Some(quoted) = icmp::quoted(f, p) {
            icmp::translate_to_server(f, p, &quoted, to);
            icmp::translate_to_client(f, p, &quoted, to);
        }
    });
    fresh(&mut |f, p| split(f, p, mtu));
    fresh(&mut |f, p| {
        let mut reassembly = Reassembly::new(1, 1);
        if reassembly.offer(0, f, p) == Offered::Whole {
            let _ = reassembly.whole();
        }
    });
}

fn split(frame: &Frame<'_>, packet: &Packet, mtu: u16) {
    let mut pieces = Pieces::new();
    pieces.load(frame, packet, mtu, None, 7);
    let mut memory = vec![0; 4096];
    while pieces.next(&mut Frame::new(&mut memory, 0, 0).unwrap()) {}
}

/// The frame with bytes damaged and, so that the damage is seen, its checksums mended.
fn damage(seed: usize, damages: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = frame(SEEDS[seed % SEEDS.len()]);
    let length = bytes.len();
    for &(at, value) in damages {
        bytes[14 + at % (length - 14)] = value;
    }
    bytes.truncate(length - cut % length);
    let header = usize::from(bytes.get(14).copied().unwrap_or(0) & 0x0f) * 4;
    if bytes.get(12..14) == Some(&[8, 0]) && header >= 20 && bytes.len() >= 14 + header {
        let total = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        checksum::write_header(&mut bytes[14..]);
        if bytes[23] == 1 && bytes.len() >= 14 + header + 8 {
            let icmp = &mut bytes[14 + header..];
            icmp[2..4].fill(0);
            let sum = crate::testing::checksum(icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn nothing_panics(
        seed: usize,
        damages in prop::collection::vec((any::<usize>(), any::<u8>()), 0..5),
        cut in prop_oneof![Just(0usize), 0usize..80],
        port: u16, mtu in 0u16..1500, bits: u8,
    ) {
        exercise(&damage(seed, &damages, cut), port, mtu, bits);
    }
}
