//! ICMP errors that the director writes.

use sched::service::Family;

use super::{Quoted, TunnelQuote};
use crate::address::{Bits, Endpoint};
use crate::forward::checksum::Sum;
use crate::forward::{ip, tunnel};
use crate::frame::{ETHERNET_LENGTH, Frame, Packet, field, protocol};
use crate::verdict::Reason;

/// What to tell a packet's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nobody serves this port.
    PortUnreachable,
    /// No way to the destination's host (IPv6: "address unreachable").
    HostUnreachable,
    /// No way to the destination's network (IPv6: "no route to destination").
    NetworkUnreachable,
    /// The hop limit is spent.
    TimeExceeded,
    /// The packet is larger than the way allows.
    TooBig {
        /// The largest packet that fits, bytes at layer 3.
        mtu: u16,
    },
}

/// Turns the frame in place into an ICMP error about the packet, from `source` to the
/// packet's sender, and returns the new packet. The packet is quoted as it stands: IPv4 up
/// to 576 bytes in all (RFC 1812), IPv6 up to 1,280 (RFC 4443). The link header stays in
/// front, for [`crate::forward::link::address`] to write.
///
/// # Errors
/// [`Reason::IcmpForbidden`] where RFC 1122 (3.2.2) and RFC 4443 (2.4) forbid an error:
/// about an ICMP error, a later fragment, a link or IP broadcast or multicast, or a packet
/// whose source is no single host; [`Reason::NoHeadroom`]. The frame is then as before.
pub fn write_error(
    frame: &mut Frame<'_>,
    packet: &Packet,
    kind: ErrorKind,
    source: Bits,
    identification: u16,
) -> Result<Packet, Reason> {
    if is_forbidden(frame, packet) {
        return Err(Reason::IcmpForbidden);
    }
    let message = Message::of(packet.family, kind);
    write_message(frame, packet, message, source, identification)
}

/// Answers the client about an error that reached the director for one of its own tunnel
/// packets: the same error about the packet inside, from `source`. "Too big" speaks of what
/// fits inside the tunnel. As IPVS does for IPv4 in `ip_vs_in_icmp`.
///
/// # Errors
/// [`Reason::IcmpMalformed`] where `quoted` is of no tunnel; [`Reason::IcmpForbidden`] where
/// an error across families has no counterpart, where the client does not do path MTU
/// discovery (IPv4 without "don't fragment": its packets are split instead), and as in
/// [`write_error`].
pub fn relay_tunnel_error(
    frame: &mut Frame<'_>,
    packet: &Packet,
    quoted: &Quoted,
    source: Bits,
    identification: u16,
) -> Result<Packet, Reason> {
    let tunnel = quoted.tunnel.ok_or(Reason::IcmpMalformed)?;
    let message = Message::relayed(frame.bytes(), packet, quoted, &tunnel)?;
    // What lies before the inner packet goes, but for room for a link header in front.
    let link = packet.network;
    let inner = as_packet(quoted, link);
    if is_forbidden_about(&inner) {
        return Err(Reason::IcmpForbidden);
    }
    let removed = quoted.network - link;
    frame.bytes_mut().copy_within(..link, removed);
    frame.shrink_front(removed);
    write_message(frame, &inner, message, source, identification)
}

/// The 8 bytes of an ICMP error's header but for its checksum.
#[derive(Clone, Copy)]
struct Message {
    kind: u8,
    code: u8,
    rest: u32,
}

impl Message {
    /// Types and codes of RFC 792, RFC 1191 and RFC 4443.
    fn of(family: Family, kind: ErrorKind) -> Self {
        let (kind, code, rest) = match (family, kind) {
            (Family::V4, ErrorKind::NetworkUnreachable) => (3, 0, 0),
            (Family::V4, ErrorKind::HostUnreachable) => (3, 1, 0),
            (Family::V4, ErrorKind::PortUnreachable) => (3, 3, 0),
            (Family::V4, ErrorKind::TooBig { mtu }) => (3, 4, u32::from(mtu)),
            (Family::V4, ErrorKind::TimeExceeded) => (11, 0, 0),
            (Family::V6, ErrorKind::NetworkUnreachable) => (1, 0, 0),
            (Family::V6, ErrorKind::HostUnreachable) => (1, 3, 0),
            (Family::V6, ErrorKind::PortUnreachable) => (1, 4, 0),
            (Family::V6, ErrorKind::TooBig { mtu }) => (2, 0, u32::from(mtu)),
            (Family::V6, ErrorKind::TimeExceeded) => (3, 0, 0),
        };
        Self { kind, code, rest }
    }

    /// What the director tells about a packet whose tunnel packet met the error `packet`.
    fn relayed(
        bytes: &[u8],
        packet: &Packet,
        quoted: &Quoted,
        tunnel: &TunnelQuote,
    ) -> Result<Self, Reason> {
        let (kind, code) = (packet.icmp_type, packet.icmp_code);
        let rest = field::u32_at(bytes, packet.transport + 4);
        if let Some(mtu) = quoted.path_mtu {
            if !quoted.dont_fragment {
                return Err(Reason::IcmpForbidden);
            }
            let mtu = inner_mtu(mtu, quoted.family, tunnel.overhead);
            return Ok(Self::of(quoted.family, ErrorKind::TooBig { mtu }));
        }
        if packet.family == quoted.family {
            return Ok(Self { kind, code, rest });
        }
        Err(Reason::IcmpForbidden)
    }
}

/// What fits inside the tunnel, never below what its family guarantees (RFC 791, RFC 8200).
fn inner_mtu(mtu: u16, family: Family, overhead: usize) -> u16 {
    let least = match family {
        Family::V4 => 68,
        Family::V6 => 1280,
    };
    usize::from(mtu).saturating_sub(overhead).max(least) as u16
}

/// The packet inside as if it began right behind the link header.
fn as_packet(quoted: &Quoted, link: usize) -> Packet {
    Packet {
        vlan: None,
        network: link,
        transport: quoted.transport - quoted.network + link,
        family: quoted.family,
        protocol: quoted.protocol,
        source: quoted.source,
        destination: quoted.destination,
        hop_limit: 0,
        traffic_class: quoted.traffic_class,
        dont_fragment: quoted.dont_fragment,
        length: quoted.end - quoted.network,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: quoted.icmp_type,
        icmp_code: 0,
        fragment: None,
    }
}

/// The length of an ICMP error's header.
const HEADER_LENGTH: usize = 8;

/// What an error of this family may measure, bytes at layer 3.
const fn longest(family: Family) -> usize {
    match family {
        Family::V4 => 576,
        Family::V6 => 1280,
    }
}

fn write_message(
    frame: &mut Frame<'_>,
    about: &Packet,
    message: Message,
    source: Bits,
    identification: u16,
) -> Result<Packet, Reason> {
    let ip_length = tunnel::ip_length(about.family);
    let added = ip_length + HEADER_LENGTH;
    if !frame.grow_front(added) {
        return Err(Reason::NoHeadroom);
    }
    let link = about.network;
    let length = (about.length + added).min(longest(about.family));
    frame.bytes_mut().copy_within(added..added + link, 0);
    frame.truncate(link + length);
    let error = error_packet(about, message, source, length);
    let bytes = frame.bytes_mut();
    let network = &mut bytes[link..];
    match error.family {
        Family::V4 => ip::write_v4(network, &error, identification),
        Family::V6 => ip::write_v6(network, &error),
    }
    let icmp = &mut bytes[error.transport..];
    field::put(icmp, 0, [message.kind, message.code]);
    field::put(icmp, 4, message.rest.to_be_bytes());
    message_checksum(bytes, &error);
    Ok(error)
}

/// Linux's choice for its errors: hop limit 64, and for IPv4 precedence "internetwork
/// control" with the type of service of what they are about (`icmp_route_lookup`'s `RT_TOS`).
fn error_packet(about: &Packet, message: Message, source: Bits, length: usize) -> Packet {
    let host = |address| Endpoint { address, port: 0 };
    let (number, class) = match about.family {
        Family::V4 => (protocol::ICMP, 0xc0 | about.traffic_class & 0x1e),
        Family::V6 => (protocol::ICMPV6, 0),
    };
    Packet {
        transport: about.network + tunnel::ip_length(about.family),
        protocol: number,
        source: host(source),
        destination: host(about.source.address),
        hop_limit: 64,
        traffic_class: class,
        dont_fragment: about.family == Family::V6,
        length,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: message.kind,
        icmp_code: message.code,
        fragment: None,
        ..*about
    }
}

/// Writes an ICMP message's checksum in full. `bytes` ends where the packet does.
pub(super) fn message_checksum(bytes: &mut [u8], packet: &Packet) {
    field::put_u16(bytes, packet.transport + 2, 0);
    let sum = message_sum(bytes, packet).checksum();
    field::put_u16(bytes, packet.transport + 2, sum);
}

/// The sum that an ICMP message's checksum complements; ICMPv6's covers a pseudo-header.
pub(super) fn message_sum(bytes: &[u8], packet: &Packet) -> Sum {
    let sum = Sum::default().bytes(&bytes[packet.transport..packet.end()]);
    match packet.family {
        Family::V4 => sum,
        Family::V6 => sum.pseudo_header(
            Family::V6,
            packet.source.address,
            packet.destination.address,
            protocol::ICMPV6,
            packet.payload_length(),
        ),
    }
}

fn is_forbidden(frame: &Frame<'_>, packet: &Packet) -> bool {
    // The group bit of the destination's MAC address: sent to more than one host.
    let to_group = packet.network >= ETHERNET_LENGTH && frame.bytes()[0] & 1 != 0;
    to_group || packet.is_later_fragment() || is_forbidden_about(packet)
}

fn is_forbidden_about(packet: &Packet) -> bool {
    let about_error = packet.is_icmp() && is_error(packet.family, packet.icmp_type);
    let (source, destination) = (packet.source.address, packet.destination.address);
    about_error || !is_single_host(packet.family, source) || is_group(packet.family, destination)
}

/// Error messages, and redirects, which nobody answers either.
fn is_error(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        Family::V6 => icmp_type < 128 || icmp_type == 137,
    }
}

/// IPv4: not "this network", not loopback. IPv6: neither unspecified nor loopback.
fn is_single_host(family: Family, address: Bits) -> bool {
    let special = match family {
        Family::V4 => matches!(address >> 24, 0 | 127),
        Family::V6 => address <= 1,
    };
    !special && !is_group(family, address)
}

/// Multicast; for IPv4 also the reserved block, which holds the limited broadcast.
fn is_group(family: Family, address: Bits) -> bool {
    match family {
        Family::V4 => address >> 28 >= 0xe,
        Family::V6 => address >> 120 == 0xff,
    }
}
