//! Tunnels: another IP header (and UDP with GUE, or GRE) in the room before the packet.
//!
//! The outer header is what Linux 6.1's IPVS writes: hop limit and traffic class of the
//! inner packet, with "congestion experienced" as ECT(0) (RFC 3168, 9.1.1, full
//! functionality); IPv4's "don't fragment" copied, and identification 0 with it; an IPv6
//! inner packet never sets it; IPv6's flow label 0.

use sched::server::{Tunnel, TunnelChecksum};
use sched::service::Family;

use super::checksum::{self, Sum};
use crate::address::{Bits, Endpoint};
use crate::frame::{Frame, Packet, ether_type, field, protocol};
use crate::verdict::Reason;

/// The outer header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// The kind of tunnel.
    pub kind: Tunnel,
    /// The outer header's family.
    pub family: Family,
    /// The director's address: the outer source.
    pub local: Bits,
    /// The real server's address: the outer destination.
    pub remote: Bits,
    /// IPv4's identification, where the packet may be fragmented.
    pub identification: u16,
}

/// The bytes that a tunnel adds at layer 3.
pub fn overhead(kind: Tunnel, outer: Family) -> usize {
    ip_length(outer) + shim_length(kind)
}

/// Wraps the packet for a tunnel: the frame then holds the outer packet, which is returned.
/// The link header stays in front, its EtherType for [`super::link::address`] to write.
///
/// A partial checksum is completed first, as nobody behind the tunnel would. Remote checksum
/// offload therefore never has anything to offload: its packets bear a full outer checksum,
/// as IPVS sends them when the inner one is complete.
///
/// # Errors
/// [`Reason::NoHeadroom`]; [`Reason::TooBig`] where the outer length exceeds 65,535 bytes.
/// The frame is then as before, but for a completed checksum.
pub fn encapsulate(frame: &mut Frame<'_>, packet: &Packet, wrap: &Wrap) -> Result<Packet, Reason> {
    checksum::complete_if_partial(frame, packet);
    let added = overhead(wrap.kind, wrap.family);
    let length = packet.length + added;
    if length > usize::from(u16::MAX) {
        return Err(Reason::TooBig);
    }
    if !frame.grow_front(added) {
        return Err(Reason::NoHeadroom);
    }
    let outer = outer_packet(packet, wrap, length);
    let bytes = frame.bytes_mut();
    bytes.copy_within(added..added + packet.network, 0);
    let ip = &mut bytes[packet.network..packet.network + length];
    write_ip(ip, &outer, wrap.identification);
    write_shim(
        &mut ip[ip_length(wrap.family)..],
        packet.family,
        wrap,
        &outer,
    );
    Ok(outer)
}

pub(super) fn ip_length(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// UDP's header.
const UDP_LENGTH: usize = 8;
/// GUE's header without options (draft-ietf-intarea-gue, variant 0).
const GUE_LENGTH: usize = 4;
/// GRE's header without options (RFC 2784).
const GRE_LENGTH: usize = 4;
/// GRE's checksum and the reserved bytes behind it.
const GRE_CHECKSUM_LENGTH: usize = 4;
/// GRE's flag "checksum present" in the first 16 bits.
const GRE_CHECKSUM_PRESENT: u16 = 0x8000;

fn shim_length(kind: Tunnel) -> usize {
    match kind {
        Tunnel::Ipip => 0,
        Tunnel::Gue { .. } => UDP_LENGTH + GUE_LENGTH,
        Tunnel::Gre {
            checksum: TunnelChecksum::None,
        } => GRE_LENGTH,
        Tunnel::Gre { .. } => GRE_LENGTH + GRE_CHECKSUM_LENGTH,
    }
}

/// The number of a packet of `family` as a payload.
fn payload_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => protocol::IPIP,
        Family::V6 => protocol::IPV6,
    }
}

fn outer_packet(inner: &Packet, wrap: &Wrap, length: usize) -> Packet {
    let (number, source_port, destination_port) = match wrap.kind {
        Tunnel::Ipip => (payload_protocol(inner.family), 0, 0),
        Tunnel::Gue { port, .. } => (protocol::UDP, flow_port(inner), port),
        Tunnel::Gre { .. } => (protocol::GRE, 0, 0),
    };
    let v6_outer = wrap.family == Family::V6;
    Packet {
        transport: inner.network + ip_length(wrap.family),
        family: wrap.family,
        protocol: number,
        source: Endpoint {
            address: wrap.local,
            port: source_port,
        },
        destination: Endpoint {
            address: wrap.remote,
            port: destination_port,
        },
        traffic_class: outer_class(inner.traffic_class),
        dont_fragment: v6_outer || (inner.family == Family::V4 && inner.dont_fragment),
        length,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: 0,
        icmp_code: 0,
        fragment: None,
        ..*inner
    }
}

/// The ECN bits of a traffic class (RFC 3168).
const ECN: u8 = 0b11;
/// ECN-capable transport, codepoint 0.
const ECT_0: u8 = 0b10;

fn outer_class(inner: u8) -> u8 {
    match inner & ECN {
        ECN => inner & !ECN | ECT_0,
        _ => inner,
    }
}

/// A UDP source port that spreads flows over paths and keeps each flow on one: Linux's
/// default range of local ports, 32,768 to 60,999.
fn flow_port(inner: &Packet) -> u16 {
    const FIRST: u32 = 32_768;
    const COUNT: u64 = 28_232;
    let fold = |a: Bits| (a as u64) ^ ((a >> 64) as u64);
    let ports = u64::from(inner.source.port) << 16 | u64::from(inner.destination.port);
    // Two rounds of multiply and fold mix every bit; the constants are the golden ratio's
    // and an arbitrary odd one.
    let mut h = fold(inner.source.address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= fold(inner.destination.address) ^ (ports << 8) ^ u64::from(inner.protocol);
    h = (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (FIRST + (((h >> 32) * COUNT) >> 32) as u32) as u16
}

fn write_ip(ip: &mut [u8], outer: &Packet, identification: u16) {
    match outer.family {
        Family::V4 => super::ip::write_v4(ip, outer, identification),
        Family::V6 => super::ip::write_v6(ip, outer),
    }
}

fn write_shim(payload: &mut [u8], inner: Family, wrap: &Wrap, outer: &Packet) {
    match wrap.kind {
        Tunnel::Ipip => {}
        Tunnel::Gue { checksum, .. } => write_gue(payload, inner, checksum, outer),
        Tunnel::Gre { checksum } => write_gre(payload, inner, checksum),
    }
}

fn write_gue(payload: &mut [u8], inner: Family, checksum: TunnelChecksum, outer: &Packet) {
    field::put_u16(payload, 0, outer.source.port);
    field::put_u16(payload, 2, outer.destination.port);
    field::put_u16(payload, 4, payload.len() as u16);
    field::put_u16(payload, 6, 0);
    field::put(payload, UDP_LENGTH, [0, payload_protocol(inner), 0, 0]);
    if checksum != TunnelChecksum::None {
        let sum = Sum::default().bytes(payload).pseudo_header(
            outer.family,
            outer.source.address,
            outer.destination.address,
            protocol::UDP,
            payload.len(),
        );
        field::put_u16(
            payload,
            6,
            checksum::sendable(protocol::UDP, sum.checksum()),
        );
    }
}

fn write_gre(payload: &mut [u8], inner: Family, checksum: TunnelChecksum) {
    let protocol_type = match inner {
        Family::V4 => ether_type::IPV4,
        Family::V6 => ether_type::IPV6,
    };
    field::put_u16(payload, 2, protocol_type);
    if checksum == TunnelChecksum::None {
        field::put_u16(payload, 0, 0);
        return;
    }
    field::put_u16(payload, 0, GRE_CHECKSUM_PRESENT);
    field::put(payload, GRE_LENGTH, [0; GRE_CHECKSUM_LENGTH]);
    let sum = Sum::default().bytes(payload).checksum();
    field::put_u16(payload, GRE_LENGTH, sum);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::bits;
    use crate::forward::hop_limit;
    use crate::testing::{assert_frame, frame, hex, roomy};

    fn address(text: &str) -> Bits {
        bits(text.parse().unwrap())
    }

    fn kind(text: &str) -> Tunnel {
        let (name, checksum) = text.split_once('+').unwrap_or((text, "none"));
        let checksum = match checksum {
            "none" => TunnelChecksum::None,
            "full" => TunnelChecksum::Full,
            "remote" => TunnelChecksum::Remote,
            other => panic!("{other}"),
        };
        match name {
            "ipip" => Tunnel::Ipip,
            "gue" => Tunnel::Gue {
                port: 6080,
                checksum,
            },
            "gre" => Tunnel::Gre { checksum },
            other => panic!("{other}"),
        }
    }

    fn run(before: &[u8], wrap: &Wrap, hops: bool) -> Result<Vec<u8>, Reason> {
        let (mut memory, from, until) = roomy(before);
        let mut frame = Frame::new(&mut memory, from, until).unwrap();
        let mut packet = Packet::parse(&mut frame).unwrap();
        if hops {
            assert!(hop_limit::decrement(&mut frame, &mut packet));
        }
        let outer = encapsulate(&mut frame, &packet, wrap)?;
        let hop = crate::hops::Hop {
            port: crate::hops::PortId(0),
            vlan: outer.vlan,
            source: [2, 0, 0, 0, 0, 2],
            destination: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            local: 0,
        };
        let mut linked = outer;
        crate::forward::link::address(&mut frame, &mut linked, &hop).unwrap();
        assert_eq!(linked, outer);
        assert_eq!(Packet::parse(&mut frame), Ok(outer));
        Ok(frame.bytes().to_vec())
    }

    /// The kernel's own choices: IPv4's identification and the UDP source port.
    fn wrap_as(kind: Tunnel, ip: &[u8]) -> Wrap {
        let family = if ip[0] >> 4 == 4 {
            Family::V4
        } else {
            Family::V6
        };
        let (local, remote) = match family {
            Family::V4 => (12, 16),
            Family::V6 => (8, 24),
        };
        Wrap {
            kind,
            family,
            local: field::address_at(ip, family, local),
            remote: field::address_at(ip, family, remote),
            identification: field::u16_at(ip, 4),
        }
    }

    #[test]
    fn wraps_as_the_kernel_does() {
        let rows = include_str!("tunnel_kernel.txt")
            .lines()
            .filter(|l| !l.starts_with('#'));
        for row in rows {
            let columns: Vec<&str> = row.split(" | ").collect();
            let wanted = hex(columns[3]);
            let kind = kind(columns[0]);
            let wrap = wrap_as(kind, &wanted);
            let ether_type = |ip: &[u8]| if ip[0] >> 4 == 4 { "0800" } else { "86dd" };
            let link = |ip: &[u8]| {
                let mut out = hex(&format!("020000000001020000000002{}", ether_type(ip)));
                out.extend(ip);
                out
            };
            let mut got = run(&link(&hex(columns[2])), &wrap, true).unwrap();
            let wanted = link(&wanted);
            if matches!(kind, Tunnel::Gue { .. }) {
                take_port(&mut got, &wanted, 14 + ip_length(wrap.family));
            }
            assert_frame(row, &got, &wanted);
        }
    }

    /// Gives the UDP packet at `at` the other's source port, checksum and all.
    fn take_port(bytes: &mut [u8], other: &[u8], at: usize) {
        let (mine, theirs) = (field::u16_at(bytes, at), field::u16_at(other, at));
        let sum = field::u16_at(bytes, at + 6);
        field::put_u16(bytes, at, theirs);
        if sum != 0 {
            field::put_u16(bytes, at + 6, checksum::update(sum, mine, theirs));
        }
    }

    #[test]
    fn wraps_what_the_kernel_was_not_asked() {
        let v4 = |kind, identification| Wrap {
            kind,
            family: Family::V4,
            local: address("10.2.0.1"),
            remote: address("10.2.0.11"),
            identification,
        };
        let rows = [
            (
                "a partial checksum is completed first",
                v4(Tunnel::Ipip, 7),
                "10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S sum=partial / data 9",
                "10.2.0.1 > 10.2.0.11 id=7 / 10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S / data 9",
            ),
            (
                "in a vlan, ECT(1) stays",
                v4(kind("gre+full"), 7),
                "eth vlan=9 / 10.9.0.1 > 10.1.0.1 tos=1 / udp 1 > 80 / data 9",
                "eth vlan=9 / 10.2.0.1 > 10.2.0.11 tos=1 id=7 / gre sum \
              / 10.9.0.1 > 10.1.0.1 tos=1 / udp 1 > 80 / data 9",
            ),
        ];
        for (what, wrap, before, after) in rows {
            let got = run(&frame(before), &wrap, false).unwrap();
            assert_frame(what, &got, &frame(after));
        }
    }

    #[test]
    fn refuses_without_changing_anything() {
        let wrap = Wrap {
            kind: Tunnel::Ipip,
            family: Family::V4,
            local: 1,
            remote: 2,
            identification: 3,
        };
        let mut tight = frame("10.9.0.1 > 10.1.0.1 / tcp 1 > 80 S");
        let before = tight.clone();
        let end = tight.len();
        let mut f = Frame::new(&mut tight, 0, end).unwrap();
        let packet = Packet::parse(&mut f).unwrap();
        assert_eq!(encapsulate(&mut f, &packet, &wrap), Err(Reason::NoHeadroom));
        assert_frame("no headroom", f.bytes(), &before);
        let longest = frame("10.9.0.1 > 10.1.0.1 / udp 1 > 80 / data 65500");
        assert_eq!(run(&longest, &wrap, false), Err(Reason::TooBig));
    }

    #[test]
    fn flows_spread_over_source_ports() {
        let port = |i: u16| {
            let text = format!("10.9.0.1 > 10.1.0.1 / tcp {} > 80 S", 1000 + i);
            let (mut memory, from, until) = roomy(&frame(&text));
            let mut f = Frame::new(&mut memory, from, until).unwrap();
            flow_port(&Packet::parse(&mut f).unwrap())
        };
        let ports: std::collections::HashSet<u16> = (0..200).map(port).collect();
        assert!(ports.len() > 190, "{} ports for 200 flows", ports.len());
        assert!(ports.iter().all(|p| (32_768..61_000).contains(p)));
        assert_eq!(port(5), port(5));
    }

    proptest! {
        #[test]
        fn strips_to_the_same(
            v6: bool, outer_v6: bool, kind in 0usize..6, class: u8, length in 0usize..200,
            local: u128, remote: u128,
        ) {
            let ends = if v6 { "fd09::1 > fd01::1" } else { "10.9.0.1 > 10.1.0.1" };
            let before = frame(&format!("{ends} tos={class} / udp 1 > 2 / data {length}"));
            let family = if outer_v6 { Family::V6 } else { Family::V4 };
            let mask = if outer_v6 { u128::MAX } else { 0xffff_ffff };
            let names = ["ipip", "gue", "gue+full", "gue+remote", "gre", "gre+full"];
            let kind = super::tests::kind(names[kind]);
            let wrap = Wrap { kind, family, local: local & mask, remote: remote & mask,
                identification: 5 };
            let got = run(&before, &wrap, false).unwrap();
            prop_assert_eq!(&got[14 + overhead(wrap.kind, family)..], &before[14..]);
            // A receiver's sum over what the tunnel's own checksum covers.
            let payload = &got[14 + ip_length(family)..];
            let sum = Sum::default().bytes(payload);
            match wrap.kind {
                Tunnel::Gue { checksum, .. } if checksum != TunnelChecksum::None => {
                    let whole = sum.pseudo_header(family, wrap.local, wrap.remote, 17,
                        payload.len());
                    prop_assert_eq!(whole.fold(), 0xffff);
                }
                Tunnel::Gre { checksum: TunnelChecksum::Full } => {
                    prop_assert_eq!(sum.fold(), 0xffff);
                }
                _ => {}
            }
        }
    }
}
