//! IP headers and IPv6's extension headers.

use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice,
};
use sched::service::Family;

use super::packet::{FragmentInfo, Link, Packet};
use super::{Frame, field, protocol, transport};
use crate::address::{Bits, Endpoint};
use crate::forward::checksum;
use crate::verdict::Reason;

/// IPv6 extension headers that are followed in one packet. RFC 8200 knows eight places for
/// them; more is no honest packet.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Reads an IPv4 packet behind its link header.
// The packet is put together in one go at the end: it is larger than all else that is done
// here, and each copy of it costs as much as a header check.
#[inline(always)]
pub(super) fn parse_ipv4(frame: &mut Frame<'_>, link: &Link) -> Result<Packet, Reason> {
    let here = &frame.bytes()[link.length..];
    let header = Ipv4HeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let header = header.slice();
    let length = usize::from(field::u16_at(header, 2));
    let payload = here
        .get(header.len()..length)
        .ok_or(Reason::NetworkMalformed)?;
    if !checksum::header_is_valid(header) {
        return Err(Reason::NetworkChecksum);
    }
    let place = field::u16_at(header, 6);
    let number = header[9];
    let (fragment, transport) = if place & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) == 0 {
        (None, transport::parse(payload, Family::V4, number)?)
    } else {
        let fragment = ipv4_fragment(place, field::u16_at(header, 4));
        check_fragment(&fragment, payload.len())?;
        let transport = transport::parse_fragment(payload, Family::V4, number, &fragment)?;
        (Some(fragment), transport)
    };
    let address = |at| field::address_at(header, Family::V4, at);
    let packet = Packet {
        vlan: link.vlan,
        network: link.length,
        transport: link.length + header.len(),
        family: Family::V4,
        protocol: number,
        source: endpoint(address(12), transport.source_port),
        destination: endpoint(address(16), transport.destination_port),
        hop_limit: header[8],
        traffic_class: header[1],
        dont_fragment: place & IPV4_DONT_FRAGMENT != 0,
        length,
        tcp_flags: transport.tcp_flags,
        sctp_chunk: transport.sctp_chunk,
        icmp_type: transport.icmp_type,
        icmp_code: transport.icmp_code,
        fragment,
    };
    frame.truncate(link.length + length);
    Ok(packet)
}

/// IPv4's flag "don't fragment" in the 16 bits at offset 6 (RFC 791).
pub(crate) const IPV4_DONT_FRAGMENT: u16 = 0x4000;
/// IPv4's flag "more fragments" in the same 16 bits.
pub(crate) const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
/// IPv4's fragment offset in the same 16 bits, in units of 8 bytes.
pub(crate) const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;

fn ipv4_fragment(place: u16, identification: u16) -> FragmentInfo {
    FragmentInfo {
        identification: u32::from(identification),
        offset_bytes: (place & IPV4_FRAGMENT_OFFSET) << 3,
        more: place & IPV4_MORE_FRAGMENTS != 0,
        header: 0,
        named_at: 0,
    }
}

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

#[inline(always)]
fn endpoint(address: Bits, port: u16) -> Endpoint {
    Endpoint { address, port }
}

/// Reads an IPv6 packet behind its link header.
#[inline(always)]
pub(super) fn parse_ipv6(frame: &mut Frame<'_>, link: &Link) -> Result<Packet, Reason> {
    let bytes = frame.bytes();
    let here = &bytes[link.length..];
    let header = Ipv6HeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let header = header.slice();
    let length = header.len() + usize::from(field::u16_at(header, 4));
    let end = link.length + length;
    let bytes = bytes.get(..end).ok_or(Reason::NetworkMalformed)?;
    let found = if is_extension(header[6]) {
        extension_headers(bytes, link.length)?
    } else {
        Extensions {
            protocol: header[6],
            end: link.length + header.len(),
            fragment: None,
        }
    };
    let payload = &bytes[found.end..];
    let transport = match &found.fragment {
        None => transport::parse(payload, Family::V6, found.protocol)?,
        Some(whole) if whole.is_whole() => {
            return without_fragment_header(frame, link.length, length, whole);
        }
        Some(fragment) => {
            check_fragment(fragment, end - fragment.header - FRAGMENT_HEADER_LENGTH)?;
            transport::parse_fragment(payload, Family::V6, found.protocol, fragment)?
        }
    };
    let address = |at| field::address_at(header, Family::V6, at);
    let packet = Packet {
        vlan: link.vlan,
        network: link.length,
        transport: found.end,
        family: Family::V6,
        protocol: found.protocol,
        source: endpoint(address(8), transport.source_port),
        destination: endpoint(address(24), transport.destination_port),
        hop_limit: header[7],
        traffic_class: (field::u16_at(header, 0) >> 4) as u8,
        dont_fragment: true,
        length,
        tcp_flags: transport.tcp_flags,
        sctp_chunk: transport.sctp_chunk,
        icmp_type: transport.icmp_type,
        icmp_code: transport.icmp_code,
        fragment: found.fragment,
    };
    frame.truncate(end);
    Ok(packet)
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
        end: network + 40,
        fragment: None,
    };
    let mut named_at = network + 6;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(found.protocol) {
            return Ok(found);
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

fn ipv6_fragment(here: &[u8], at: usize, named_at: usize) -> Result<FragmentInfo, Reason> {
    let header = Ipv6FragmentHeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    Ok(FragmentInfo {
        identification: header.identification(),
        offset_bytes: header.fragment_offset().value() << 3,
        more: header.more_fragments(),
        header: at,
        named_at,
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
    bytes[fragment.named_at] = bytes[fragment.header];
    let payload = length - 40 - FRAGMENT_HEADER_LENGTH;
    field::put_u16(bytes, network + 4, payload as u16);
    bytes.copy_within(..fragment.header, FRAGMENT_HEADER_LENGTH);
    frame.shrink_front(FRAGMENT_HEADER_LENGTH);
    Packet::parse(frame)
}
