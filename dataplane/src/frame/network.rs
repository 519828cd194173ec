//! IP headers and IPv6's extension headers.

use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice,
};
use sched::service::Family;

use super::packet::{FragmentInfo, Link, Packet};
use super::transport::{self, Transport};
use super::{Frame, field, protocol};
use crate::address::{Bits, Endpoint};
use crate::forward::checksum;
use crate::verdict::Reason;

/// IPv6 extension headers that are followed in one packet: as many as fit a frame of 1,500
/// bytes. Linux follows all there are.
pub const MAX_EXTENSION_HEADERS: usize = 184;

/// Fragment headers in one packet: each that is no fragment's is taken out, and all is read again.
const FRAGMENT_HEADERS_MAX: usize = 8;

/// Reads an IPv4 packet behind its link header.
#[inline(always)]
pub(super) fn parse_ipv4(frame: &mut Frame<'_>, link: &Link) -> Result<Packet, Reason> {
    let here = &frame.bytes()[link.length..];
    let header = Ipv4HeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let (fixed, options) = header
        .slice()
        .split_first_chunk::<20>()
        .ok_or(Reason::NetworkMalformed)?;
    let length = usize::from(field::u16_at(fixed, 2));
    let payload = here
        .get(header.slice().len()..length)
        .ok_or(Reason::NetworkMalformed)?;
    if !checksum::header_is_valid(fixed, options) {
        return Err(Reason::NetworkChecksum);
    }
    let place = field::u16_at(fixed, 6);
    if place & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) != 0 {
        let packet = ipv4_fragment(fixed, payload, link)?;
        frame.truncate(packet.end());
        return Ok(packet);
    }
    let transport = transport::parse(payload, Family::V4, fixed[9])?;
    let packet = ipv4_packet(fixed, payload, link, transport, None);
    frame.truncate(packet.end());
    Ok(packet)
}

#[cold]
#[inline(never)]
fn ipv4_fragment(fixed: &[u8; 20], payload: &[u8], link: &Link) -> Result<Packet, Reason> {
    let place = field::u16_at(fixed, 6);
    let fragment = FragmentInfo {
        identification: u32::from(field::u16_at(fixed, 4)),
        offset_bytes: (place & IPV4_FRAGMENT_OFFSET) << 3,
        more: place & IPV4_MORE_FRAGMENTS != 0,
        header: 0,
        named_at: 0,
    };
    check_fragment(&fragment, payload.len())?;
    let transport = transport::parse_fragment(payload, Family::V4, fixed[9], &fragment)?;
    Ok(ipv4_packet(fixed, payload, link, transport, Some(fragment)))
}

/// Puts the packet together in one go: it is larger than all else that is done here, and
/// each copy of it would cost as much as checking a header.
#[inline(always)]
fn ipv4_packet(
    fixed: &[u8; 20],
    payload: &[u8],
    link: &Link,
    transport: Transport,
    fragment: Option<FragmentInfo>,
) -> Packet {
    let length = usize::from(field::u16_at(fixed, 2));
    let address = |at| field::address_at(fixed, Family::V4, at);
    Packet {
        vlan: link.vlan,
        network: link.length,
        transport: link.length + length - payload.len(),
        family: Family::V4,
        protocol: fixed[9],
        source: endpoint(address(12), transport.source_port),
        destination: endpoint(address(16), transport.destination_port),
        hop_limit: fixed[8],
        traffic_class: fixed[1],
        dont_fragment: fixed[6] & (IPV4_DONT_FRAGMENT >> 8) as u8 != 0,
        length,
        tcp_flags: transport.tcp_flags,
        sctp_chunk: transport.sctp_chunk,
        icmp_type: transport.icmp_type,
        icmp_code: transport.icmp_code,
        fragment,
    }
}

/// IPv4's flag "don't fragment" in the 16 bits at offset 6 (RFC 791).
pub(crate) const IPV4_DONT_FRAGMENT: u16 = 0x4000;
/// IPv4's flag "more fragments" in the same 16 bits.
pub(crate) const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
/// IPv4's fragment offset in the same 16 bits, in units of 8 bytes.
pub(crate) const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;

/// A fragment must carry something, and end within a datagram's 65,535 bytes; all but the
/// last must be a multiple of 8 bytes long (RFC 791, RFC 8200).
#[cold]
fn check_fragment(fragment: &FragmentInfo, payload: usize) -> Result<(), Reason> {
    let end = usize::from(fragment.offset_bytes) + payload;
    let ragged = fragment.more && !payload.is_multiple_of(8);
    if payload == 0 || end > usize::from(u16::MAX) || ragged {
        return Err(Reason::FragmentInvalid);
    }
    Ok(())
}

/// IPv6's header, bytes.
const IPV6_LENGTH: usize = 40;

/// Reads an IPv6 packet behind its link header.
#[inline(always)]
pub(super) fn parse_ipv6(frame: &mut Frame<'_>, link: &Link) -> Result<Packet, Reason> {
    let here = &frame.bytes()[link.length..];
    let header = Ipv6HeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let fixed = header
        .slice()
        .first_chunk::<IPV6_LENGTH>()
        .ok_or(Reason::NetworkMalformed)?;
    let length = IPV6_LENGTH + usize::from(field::u16_at(fixed, 4));
    let payload = here
        .get(IPV6_LENGTH..length)
        .ok_or(Reason::NetworkMalformed)?;
    let number = fixed[6];
    if is_extension(number) {
        return parse_extended(frame, link, length);
    }
    let transport = transport::parse(payload, Family::V6, number)?;
    let plain = Extensions {
        protocol: number,
        end: link.length + IPV6_LENGTH,
        fragment: None,
    };
    let packet = ipv6_packet(fixed, link, plain, transport);
    frame.truncate(packet.end());
    Ok(packet)
}

/// Reads an IPv6 packet of `length` bytes with extension headers.
#[cold]
#[inline(never)]
fn parse_extended(frame: &mut Frame<'_>, link: &Link, length: usize) -> Result<Packet, Reason> {
    let bytes = &frame.bytes()[..link.length + length];
    let found = extension_headers(bytes, link.length)?;
    let payload = &bytes[found.end..];
    let transport = match &found.fragment {
        None => transport::parse(payload, Family::V6, found.protocol)?,
        Some(whole) if whole.is_whole() => {
            return without_fragment_header(frame, link.length, length, whole);
        }
        Some(fragment) => {
            let header_end = usize::from(fragment.header) + FRAGMENT_HEADER_LENGTH;
            check_fragment(fragment, bytes.len() - header_end)?;
            transport::parse_fragment(payload, Family::V6, found.protocol, fragment)?
        }
    };
    let fixed = field::array(bytes, link.length);
    let packet = ipv6_packet(&fixed, link, found, transport);
    frame.truncate(packet.end());
    Ok(packet)
}

#[inline(always)]
fn ipv6_packet(
    fixed: &[u8; IPV6_LENGTH],
    link: &Link,
    found: Extensions,
    transport: Transport,
) -> Packet {
    let address = |at| field::address_at(fixed, Family::V6, at);
    Packet {
        vlan: link.vlan,
        network: link.length,
        transport: found.end,
        family: Family::V6,
        protocol: found.protocol,
        source: endpoint(address(8), transport.source_port),
        destination: endpoint(address(24), transport.destination_port),
        hop_limit: fixed[7],
        traffic_class: (field::u16_at(fixed, 0) >> 4) as u8,
        dont_fragment: true,
        length: IPV6_LENGTH + usize::from(field::u16_at(fixed, 4)),
        tcp_flags: transport.tcp_flags,
        sctp_chunk: transport.sctp_chunk,
        icmp_type: transport.icmp_type,
        icmp_code: transport.icmp_code,
        fragment: found.fragment,
    }
}

#[inline(always)]
fn endpoint(address: Bits, port: u16) -> Endpoint {
    Endpoint { address, port }
}

/// What the walk over IPv6's extension headers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// The protocol behind the last header followed.
    pub protocol: u8,
    /// Where that protocol's header (in a later fragment: the payload) begins.
    pub end: usize,
    /// The first fragment header.
    pub fragment: Option<FragmentInfo>,
}

const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

/// Walks the extension headers of the IPv6 packet whose header lies, whole, at `network`,
/// up to the end of `bytes`. Stops behind the fragment header of a later fragment.
#[cold]
pub fn extension_headers(bytes: &[u8], network: usize) -> Result<Extensions, Reason> {
    let mut found = Extensions {
        protocol: bytes[network + 6],
        end: network + IPV6_LENGTH,
        fragment: None,
    };
    let mut named_at = network + 6;
    let mut fragment_headers = 0;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(found.protocol) {
            return Ok(found);
        }
        fragment_headers += usize::from(found.protocol == protocol::FRAGMENT);
        if fragment_headers > FRAGMENT_HEADERS_MAX {
            return Err(Reason::ExtensionLimit);
        }
        let here = bytes.get(found.end..).ok_or(Reason::NetworkMalformed)?;
        let (next, length) = extension(here, found.protocol)?;
        if found.protocol == protocol::FRAGMENT && found.fragment.is_none() {
            found.fragment = Some(ipv6_fragment(here, found.end, named_at)?);
        }
        named_at = found.end;
        found.protocol = next;
        found.end += length;
        if found.fragment.is_some_and(|f| f.offset_bytes != 0) {
            return Ok(found);
        }
    }
    if is_extension(found.protocol) {
        return Err(Reason::ExtensionLimit);
    }
    Ok(found)
}

/// The next header's number and the length of the extension header of kind `number`.
fn extension(here: &[u8], number: u8) -> Result<(u8, usize), Reason> {
    const MALFORMED: Reason = Reason::NetworkMalformed;
    match number {
        protocol::FRAGMENT => Ipv6FragmentHeaderSlice::from_slice(here)
            .map(|h| (h.next_header().0, h.slice().len()))
            .map_err(|_| MALFORMED),
        protocol::AUTHENTICATION => IpAuthHeaderSlice::from_slice(here)
            .map(|h| (h.next_header().0, h.slice().len()))
            .map_err(|_| MALFORMED),
        _ => Ipv6RawExtHeaderSlice::from_slice(here)
            .map(|h| (h.next_header().0, h.slice().len()))
            .map_err(|_| MALFORMED),
    }
}

/// Offsets fit but behind more headers than anybody sends: a datagram's 65,575 bytes.
fn ipv6_fragment(here: &[u8], at: usize, named_at: usize) -> Result<FragmentInfo, Reason> {
    let header = Ipv6FragmentHeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let place = |at: usize| u16::try_from(at).map_err(|_| Reason::NetworkMalformed);
    Ok(FragmentInfo {
        identification: header.identification(),
        offset_bytes: header.fragment_offset().value() << 3,
        more: header.more_fragments(),
        header: place(at)?,
        named_at: place(named_at)?,
    })
}

/// The length of IPv6's fragment header.
pub(crate) const FRAGMENT_HEADER_LENGTH: usize = 8;

/// Takes the fragment header out of an IPv6 packet that is no fragment, and reads on. The
/// walk over the extension headers bounds how many there can be.
#[cold]
fn without_fragment_header(
    frame: &mut Frame<'_>,
    network: usize,
    length: usize,
    fragment: &FragmentInfo,
) -> Result<Packet, Reason> {
    let bytes = frame.bytes_mut();
    let header = usize::from(fragment.header);
    bytes[usize::from(fragment.named_at)] = bytes[header];
    let payload = length - IPV6_LENGTH - FRAGMENT_HEADER_LENGTH;
    field::put_u16(bytes, network + 4, payload as u16);
    bytes.copy_within(..header, FRAGMENT_HEADER_LENGTH);
    frame.shrink_front(FRAGMENT_HEADER_LENGTH);
    Packet::parse(frame)
}
