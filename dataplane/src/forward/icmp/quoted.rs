//! The packet inside an ICMP error: cut short, so read with what is there.

use sched::server::{Tunnel, TunnelChecksum};
use sched::service::Family;

use super::error::message_sum;
use crate::address::Endpoint;
use crate::frame::{Frame, Packet, ether_type, extension_headers, field, protocol};

/// The packet that an ICMP error is about. Offsets count from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The packet's family.
    pub family: Family,
    /// Its transport protocol's number.
    pub protocol: u8,
    /// Its sender; the port is 0 where it is not quoted.
    pub source: Endpoint,
    /// Its receiver.
    pub destination: Endpoint,
    /// Where its IP header begins.
    pub network: usize,
    /// Where its transport header begins.
    pub transport: usize,
    /// Where the quotation ends.
    pub end: usize,
    /// IPv4's type of service; 0 for IPv6, which nobody asks for.
    pub traffic_class: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
    /// Its ICMP type, where it is an ICMP message itself; else 0.
    pub icmp_type: u8,
    /// The tunnel packet around it, where the error is about one.
    pub tunnel: Option<TunnelQuote>,
    /// What fits the path, bytes at layer 3, where the error says "too big"; for a packet
    /// in a tunnel, what fits the tunnel packet's path.
    pub path_mtu: Option<u16>,
}

/// The tunnel packet that a quoted packet was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelQuote {
    /// The kind of tunnel, as its headers tell it.
    pub kind: Tunnel,
    /// The outer family.
    pub family: Family,
    /// The tunnel packet's source: an address of the director, if it sent it.
    pub local: Endpoint,
    /// Its destination: the real server.
    pub remote: Endpoint,
    /// The bytes that the tunnel added at layer 3.
    pub overhead: usize,
}

impl Quoted {
    /// Whether it is of a protocol with ports and they are quoted.
    pub fn has_ports(&self) -> bool {
        is_balanced(self.protocol) && self.end >= self.transport + 4
    }

    /// The packet inside this tunnel packet, if it is one: IPIP, GRE, or GUE to UDP port
    /// `gue_port`. Its `tunnel` then tells about the outer one.
    pub fn inside(&self, frame: &Frame<'_>, gue_port: impl Fn(u16) -> bool) -> Option<Self> {
        let bytes = &frame.bytes()[..self.end];
        let (kind, family, at) = match self.protocol {
            protocol::IPIP => (Tunnel::Ipip, Family::V4, self.transport),
            protocol::IPV6 => (Tunnel::Ipip, Family::V6, self.transport),
            protocol::GRE => gre(bytes, self.transport)?,
            protocol::UDP if self.has_ports() && gue_port(self.destination.port) => {
                gue(bytes, self.transport, self.destination.port)?
            }
            _ => return None,
        };
        let mut inner = read(bytes, at, family)?;
        inner.path_mtu = self.path_mtu;
        inner.tunnel = Some(TunnelQuote {
            kind,
            family: self.family,
            local: self.source,
            remote: self.destination,
            overhead: at - self.network,
        });
        Some(inner)
    }
}

/// The packet that an ICMP error is about; none where IPVS takes the message for the host:
/// not an error that it relays (IPv4: unreachable, source quench, time exceeded; IPv6: all),
/// a wrong checksum, a quotation without a whole IP header, or of a later fragment.
pub fn quoted(frame: &Frame<'_>, packet: &Packet) -> Option<Quoted> {
    let relayed = match packet.family {
        Family::V4 => matches!(packet.icmp_type, 3 | 4 | 11),
        Family::V6 => packet.icmp_type < 128,
    };
    if !packet.is_icmp() || packet.fragment.is_some() || !relayed {
        return None;
    }
    let bytes = &frame.bytes()[..packet.end()];
    let mut found = read(bytes, packet.transport + 8, packet.family)?;
    found.path_mtu = path_mtu(bytes, packet);
    (message_sum(bytes, packet).fold() == 0xffff).then_some(found)
}

/// RFC 1191 and RFC 4443: the last bytes of the header, in either family.
fn path_mtu(bytes: &[u8], packet: &Packet) -> Option<u16> {
    let too_big = match packet.family {
        Family::V4 => (packet.icmp_type, packet.icmp_code) == (3, 4),
        Family::V6 => packet.icmp_type == 2,
    };
    let mtu = field::u32_at(bytes, packet.transport + 4);
    too_big.then(|| match packet.family {
        Family::V4 => mtu as u16,
        Family::V6 => mtu.min(u32::from(u16::MAX)) as u16,
    })
}

fn is_balanced(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

fn read(bytes: &[u8], network: usize, family: Family) -> Option<Quoted> {
    let mut found = match family {
        Family::V4 => read_v4(bytes, network)?,
        Family::V6 => read_v6(bytes, network)?,
    };
    let transport = bytes.get(found.transport..)?;
    if found.has_ports() {
        found.source.port = field::u16_at(transport, 0);
        found.destination.port = field::u16_at(transport, 2);
    }
    if matches!(found.protocol, protocol::ICMP | protocol::ICMPV6) {
        found.icmp_type = *transport.first()?;
    }
    Some(found)
}

fn read_v4(bytes: &[u8], network: usize) -> Option<Quoted> {
    let here = bytes.get(network..)?;
    let header = here.get(..20)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let place = field::u16_at(header, 6);
    let total = usize::from(field::u16_at(header, 2));
    let whole = header[0] >> 4 == 4 && header_length >= 20 && here.len() >= header_length;
    if !whole || total < header_length || place & 0x1fff != 0 {
        return None;
    }
    Some(Quoted {
        family: Family::V4,
        protocol: header[9],
        source: host(header, Family::V4, 12),
        destination: host(header, Family::V4, 16),
        network,
        transport: network + header_length,
        end: bytes.len().min(network + total),
        traffic_class: header[1],
        dont_fragment: place & 0x4000 != 0,
        icmp_type: 0,
        tunnel: None,
        path_mtu: None,
    })
}

fn read_v6(bytes: &[u8], network: usize) -> Option<Quoted> {
    let header = bytes.get(network..network + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let total = 40 + usize::from(field::u16_at(header, 4));
    let end = bytes.len().min(network + total);
    let chain = extension_headers(&bytes[..end], network).ok()?;
    if chain.fragment.is_some_and(|f| f.offset_bytes != 0) {
        return None;
    }
    Some(Quoted {
        family: Family::V6,
        protocol: chain.protocol,
        source: host(header, Family::V6, 8),
        destination: host(header, Family::V6, 24),
        network,
        transport: chain.end,
        end,
        traffic_class: 0,
        dont_fragment: true,
        icmp_type: 0,
        tunnel: None,
        path_mtu: None,
    })
}

fn host(header: &[u8], family: Family, at: usize) -> Endpoint {
    Endpoint {
        address: field::address_at(header, family, at),
        port: 0,
    }
}

/// The packet inside a GRE packet of version 0 without key and sequence number.
fn gre(bytes: &[u8], at: usize) -> Option<(Tunnel, Family, usize)> {
    let header = bytes.get(at..at + 4)?;
    let family = match field::u16_at(header, 2) {
        ether_type::IPV4 => Family::V4,
        ether_type::IPV6 => Family::V6,
        _ => return None,
    };
    let (checksum, length) = match field::u16_at(header, 0) {
        0 => (TunnelChecksum::None, 4),
        0x8000 => (TunnelChecksum::Full, 8),
        _ => return None,
    };
    Some((Tunnel::Gre { checksum }, family, at + length))
}

/// The packet inside a GUE packet of variant 0: data, with or without options.
fn gue(bytes: &[u8], at: usize, port: u16) -> Option<(Tunnel, Family, usize)> {
    let header = bytes.get(at..at + 12)?;
    let control_or_variant = header[8] & 0xe0;
    let options = usize::from(header[8] & 0x1f) * 4;
    let family = match header[9] {
        protocol::IPIP => Family::V4,
        protocol::IPV6 => Family::V6,
        _ => return None,
    };
    let checksum = match field::u16_at(header, 6) {
        0 => TunnelChecksum::None,
        _ => TunnelChecksum::Full,
    };
    let tunnel = Tunnel::Gue { port, checksum };
    (control_or_variant == 0).then_some((tunnel, family, at + 12 + options))
}
