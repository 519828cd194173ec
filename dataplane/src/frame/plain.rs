//! Frames of the plain shape, which nearly all are: TCP or UDP in IPv4 without options or
//! IPv6 without extension headers, no fragment, behind Ethernet with at most one VLAN tag.
//!
//! The same checks as [`Packet::parse`](super::Packet::parse) for this one shape, and far
//! fewer instructions: nothing is put together but what the short way of the director
//! needs. Whatever is odd in any way is not plain, and left to `Packet::parse`.

use sched::service::Family;

use super::packet::{ETHERNET_LENGTH, VLAN_TAG_LENGTH, ether_type};
use super::{
    IPV4_DONT_FRAGMENT, IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS, field, protocol, tcp_flag,
};
use crate::address::Endpoint;
use crate::forward::checksum::{self, Sum};
use crate::forward::hop_limit;

/// A link header without a VLAN tag, bytes.
pub(crate) const UNTAGGED: usize = ETHERNET_LENGTH;
/// A link header with one, bytes.
pub(crate) const TAGGED: usize = ETHERNET_LENGTH + VLAN_TAG_LENGTH;
/// IPv4's header without options, bytes.
pub(crate) const IPV4_LENGTH: usize = 20;
/// IPv6's header, bytes.
pub(crate) const IPV6_LENGTH: usize = 40;
/// TCP's header without options, bytes.
pub(crate) const TCP_LENGTH: usize = 20;
/// UDP's header, bytes.
pub(crate) const UDP_LENGTH: usize = 8;

/// All headers of a frame that [`over_v4`] reads, bytes.
pub(crate) const USUAL_HEAD: usize = UNTAGGED + IPV4_LENGTH + TCP_LENGTH;

/// See [`over_v4`].
pub(crate) enum OverV4 {
    /// The packet's length with its IP header, bytes. Its flags cannot change a connection's
    /// state.
    Tcp(u16),
    /// The packet's length with its IP header, bytes.
    Udp(u16),
}

/// What the link header says: the packet's family, and whether there is a VLAN tag.
#[inline(always)]
pub(crate) fn link(bytes: &[u8]) -> Option<(Family, bool)> {
    let link = bytes.first_chunk::<TAGGED>()?;
    match field::u16_at(link, 12) {
        ether_type::IPV4 => Some((Family::V4, false)),
        ether_type::IPV6 => Some((Family::V6, false)),
        ether_type::VLAN => match field::u16_at(link, 16) {
            ether_type::IPV4 => Some((Family::V4, true)),
            ether_type::IPV6 => Some((Family::V6, true)),
            _ => None,
        },
        _ => None,
    }
}

/// Checks the IP header that begins `ip`, and that the whole packet is there: its length
/// with the header, bytes, and its protocol. None where it is not plain or not right, or has
/// no hop left.
#[inline(always)]
pub(crate) fn network(ip: &[u8], family: Family) -> Option<(u16, u8)> {
    match family {
        Family::V4 => v4(ip),
        Family::V6 => v6(ip),
    }
}

#[inline(always)]
fn v4(ip: &[u8]) -> Option<(u16, u8)> {
    let header = ip.first_chunk::<IPV4_LENGTH>()?;
    let length = field::u16_at(header, 2);
    let parts = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET;
    let is_plain = header[0] == 0x45
        && field::u16_at(header, 6) & parts == 0
        && checksum::header_is_valid(header, &[])
        && hop_limit::of(header, Family::V4) > 1
        && usize::from(length) <= ip.len();
    is_plain.then_some((length, header[9]))
}

/// As [`v4`]. The longest packets of all are left to the general way: their length does not
/// fit 16 bits.
#[inline(always)]
fn v6(ip: &[u8]) -> Option<(u16, u8)> {
    let header = ip.first_chunk::<IPV6_LENGTH>()?;
    let length = field::u16_at(header, 4).checked_add(IPV6_LENGTH as u16)?;
    let is_plain = header[0] >> 4 == 6
        && hop_limit::of(header, Family::V6) > 1
        && usize::from(length) <= ip.len();
    is_plain.then_some((length, header[6]))
}

/// What the most usual frames say: TCP or UDP over IPv4 behind no VLAN tag, as long as TCP's
/// headers are. `head` is all headers, `length` the frame's in bytes. None where it is of
/// another shape or not right, or its flags may change a connection's state.
///
/// The same as [`link`], [`network`] and [`tcp`] or [`is_udp`], with fewer questions.
#[inline(always)]
pub(crate) fn over_v4(head: &[u8], length: usize, may_be_partial: bool) -> Option<OverV4> {
    let head = head.first_chunk::<USUAL_HEAD>()?;
    let (link, ip) = head.split_at(UNTAGGED);
    let parts = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET;
    let is_of_shape = field::u16_at(link, 12) == ether_type::IPV4
        && ip[0] == 0x45
        && field::u16_at(ip, 6) & parts == 0
        && hop_limit::of(ip, Family::V4) > 1;
    if !is_of_shape {
        return None;
    }
    let word = |at| Sum::of_word(field::array(ip, at));
    let addresses = word(12).and(word(16));
    let header = addresses.and(word(8));
    if !header.and_last_eight(field::array(ip, 0)).is_whole() {
        return None;
    }
    let transport = &ip[IPV4_LENGTH..];
    let packet = field::u16_at(ip, 2);
    let is_there = UNTAGGED + usize::from(packet) <= length;
    match ip[9] {
        protocol::TCP => {
            let header = usize::from(transport[12] >> 4 << 2);
            let is_right = is_there
                && header >= TCP_LENGTH
                && IPV4_LENGTH + header <= usize::from(packet)
                && transport[13] & tcp_flag::DECISIVE == tcp_flag::ACK
                && (!may_be_partial
                    || is_complete(transport, addresses, (Family::V4, protocol::TCP, packet)));
            is_right.then_some(OverV4::Tcp(packet))
        }
        protocol::UDP => {
            let is_right = is_there
                && usize::from(packet) >= IPV4_LENGTH + UDP_LENGTH
                && (!may_be_partial
                    || is_complete(transport, addresses, (Family::V4, protocol::UDP, packet)));
            is_right.then_some(OverV4::Udp(packet))
        }
        _ => None,
    }
}

/// Whether the IPv4 packet that begins `ip` must not be fragmented.
#[inline(always)]
pub(crate) fn must_stay_whole(ip: &[u8]) -> bool {
    ip[6] & (IPV4_DONT_FRAGMENT >> 8) as u8 != 0
}

/// Checks the TCP header of the packet of `length` bytes whose IP header begins `ip`; its flag
/// byte (RFC 9293). None also where its checksum is not complete.
#[inline(always)]
pub(crate) fn tcp(ip: &[u8], family: Family, length: u16) -> Option<u8> {
    let begin = header_bytes(family);
    let header = ip.get(begin..begin + TCP_LENGTH)?;
    let end = begin + usize::from(header[12] >> 4) * 4;
    let is_right = end >= begin + TCP_LENGTH
        && end <= usize::from(length)
        && is_complete(
            header,
            addresses(ip, family),
            (family, protocol::TCP, length),
        );
    is_right.then_some(header[13])
}

/// Whether the packet of `length` bytes whose IP header begins `ip` has a whole UDP header,
/// and a checksum that is complete or not there at all.
#[inline(always)]
pub(crate) fn is_udp(ip: &[u8], family: Family, length: u16) -> bool {
    let begin = header_bytes(family);
    usize::from(length) >= begin + UDP_LENGTH
        && is_complete(
            &ip[begin..],
            addresses(ip, family),
            (family, protocol::UDP, length),
        )
}

#[inline(always)]
fn header_bytes(family: Family) -> usize {
    match family {
        Family::V4 => IPV4_LENGTH,
        Family::V6 => IPV6_LENGTH,
    }
}

#[inline(always)]
fn addresses(ip: &[u8], family: Family) -> Sum {
    let (source, destination) = ends(ip, family);
    Sum::default()
        .address(family, source.address)
        .address(family, destination.address)
}

/// Whether the checksum of a packet was not left to its sender's hardware, as far as one can
/// tell without summing: then it would be that of the pseudo-header alone. Of the packet's
/// `transport` header, the sum of its addresses, and what else that header is made of.
#[inline(always)]
fn is_complete(
    transport: &[u8],
    addresses: Sum,
    (family, protocol, length): (Family, u8, u16),
) -> bool {
    let inside = length - header_bytes(family) as u16;
    let partial = addresses.word(u16::from(protocol)).word(inside);
    let sum = checksum::transport_field(transport, protocol);
    !partial.word(!sum).is_whole()
}

/// Sender and receiver of the plain packet whose IP header begins `ip`.
#[inline(always)]
pub(crate) fn ends(ip: &[u8], family: Family) -> (Endpoint, Endpoint) {
    (source(ip, family), destination(ip, family))
}

/// Its sender.
#[inline(always)]
pub(crate) fn source(ip: &[u8], family: Family) -> Endpoint {
    end(ip, family, 0)
}

/// Its receiver.
#[inline(always)]
pub(crate) fn destination(ip: &[u8], family: Family) -> Endpoint {
    end(ip, family, 1)
}

#[inline(always)]
fn end(ip: &[u8], family: Family, number: usize) -> Endpoint {
    let (addresses, width, ports) = match family {
        Family::V4 => (12, 4, IPV4_LENGTH),
        Family::V6 => (8, 16, IPV6_LENGTH),
    };
    let ip = &ip[..ports + 4];
    Endpoint {
        address: field::address_at(ip, family, addresses + number * width),
        port: field::u16_at(ip, ports + number * 2),
    }
}
