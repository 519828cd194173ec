//! IP headers and IPv6's extension headers.

use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice,
};
use sched::service::Family;

use super::packet::{FragmentInfo, Packet};
use super::{Frame, field, protocol};
use crate::address::{Bits, Endpoint};
use crate::forward::checksum;
use crate::verdict::Reason;

/// IPv6 extension headers that are followed in one packet. RFC 8200 knows eight places for
/// them; more is no honest packet.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Reads the IPv4 header at `network` and checks it against the frame.
#[inline(always)]
pub(super) fn parse_ipv4(bytes: &[u8], network: usize) -> Result<Packet, Reason> {
    let here = &bytes[network..];
    let header = Ipv4HeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let header_length = header.slice().len();
    let length = usize::from(header.total_len());
    if length < header_length || length > here.len() {
        return Err(Reason::NetworkMalformed);
    }
    if !checksum::header_is_valid(header.slice()) {
        return Err(Reason::NetworkChecksum);
    }
    let place = field::u16_at(here, 6);
    let packet = Packet {
        vlan: None,
        network,
        transport: network + header_length,
        family: Family::V4,
        protocol: header.protocol().0,
        source: host(Bits::from(u32::from_be_bytes(header.source()))),
        destination: host(Bits::from(u32::from_be_bytes(header.destination()))),
        hop_limit: header.ttl(),
        traffic_class: here[1],
        dont_fragment: place & IPV4_DONT_FRAGMENT != 0,
        length,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: 0,
        icmp_code: 0,
        fragment: ipv4_fragment(place, header.identification()),
    };
    match packet.fragment {
        None => Ok(packet),
        Some(fragment) => check_fragment(fragment, length - header_length).map(|()| packet),
    }
}

/// IPv4's flag "don't fragment" in the 16 bits at offset 6 (RFC 791).
pub(crate) const IPV4_DONT_FRAGMENT: u16 = 0x4000;
/// IPv4's flag "more fragments" in the same 16 bits.
pub(crate) const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
/// IPv4's fragment offset in the same 16 bits, in units of 8 bytes.
pub(crate) const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;

#[inline(always)]
fn ipv4_fragment(place: u16, identification: u16) -> Option<FragmentInfo> {
    (place & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) != 0).then(|| FragmentInfo {
        identification: u32::from(identification),
        offset_bytes: (place & IPV4_FRAGMENT_OFFSET) << 3,
        more: place & IPV4_MORE_FRAGMENTS != 0,
        header: 0,
        named_at: 0,
    })
}

/// A fragment must carry something, and end within a datagram's 65,535 bytes; all but the
/// last must be a multiple of 8 bytes long (RFC 791, RFC 8200).
#[cold]
fn check_fragment(fragment: FragmentInfo, payload: usize) -> Result<(), Reason> {
    let end = usize::from(fragment.offset_bytes) + payload;
    let ragged = fragment.more && !payload.is_multiple_of(8);
    if payload == 0 || end > usize::from(u16::MAX) || ragged {
        return Err(Reason::FragmentInvalid);
    }
    Ok(())
}

fn host(address: Bits) -> Endpoint {
    Endpoint { address, port: 0 }
}

/// Reads the IPv6 header at `network` and its extension headers.
#[inline]
pub(super) fn parse_ipv6(bytes: &[u8], network: usize) -> Result<Packet, Reason> {
    let here = &bytes[network..];
    let header = Ipv6HeaderSlice::from_slice(here).map_err(|_| Reason::NetworkMalformed)?;
    let length = header.slice().len() + usize::from(header.payload_length());
    if length > here.len() {
        return Err(Reason::NetworkMalformed);
    }
    let mut packet = Packet {
        vlan: None,
        network,
        transport: network + header.slice().len(),
        family: Family::V6,
        protocol: header.next_header().0,
        source: host(Bits::from_be_bytes(header.source())),
        destination: host(Bits::from_be_bytes(header.destination())),
        hop_limit: header.hop_limit(),
        traffic_class: header.traffic_class(),
        dont_fragment: true,
        length,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: 0,
        icmp_code: 0,
        fragment: None,
    };
    if is_extension(packet.protocol) {
        let chain = extension_headers(&bytes[..network + length], network)?;
        packet.protocol = chain.protocol;
        packet.transport = chain.end;
        packet.fragment = chain.fragment;
        if let Some(fragment) = chain.fragment {
            let payload = fragment.header + FRAGMENT_HEADER_LENGTH;
            check_fragment(fragment, network + length - payload)?;
        }
    }
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

/// Takes the fragment header out of an IPv6 packet that is no fragment. The parser bounds
/// how many there can be.
#[cold]
pub(super) fn remove_fragment_header(
    frame: &mut Frame<'_>,
    packet: &Packet,
    fragment: &FragmentInfo,
) {
    let bytes = frame.bytes_mut();
    bytes[fragment.named_at] = bytes[fragment.header];
    let payload = packet.length - 40 - FRAGMENT_HEADER_LENGTH;
    field::put_u16(bytes, packet.network + 4, payload as u16);
    bytes.copy_within(..fragment.header, FRAGMENT_HEADER_LENGTH);
    frame.shrink_front(FRAGMENT_HEADER_LENGTH);
}
