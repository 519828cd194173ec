//! Frames of the plain shape, which nearly all are: TCP or UDP in IPv4 without options or
//! IPv6 without extension headers, no fragment, behind Ethernet with at most one VLAN tag.
//!
//! The same checks as [`Packet::parse`](super::Packet::parse) for this one shape, and far
//! fewer instructions: nothing is put together but what the short way of the director
//! needs. Whatever is odd in any way is not plain, and left to `Packet::parse`.

use sched::service::Family;

use super::packet::{ETHERNET_LENGTH, VLAN_TAG_LENGTH, ether_type};
use super::{IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS, field};
use crate::address::Endpoint;
use crate::forward::checksum;

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
/// with the header, bytes, and its protocol. None where it is not plain or not right.
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
        && usize::from(length) <= ip.len();
    is_plain.then_some((length, header[9]))
}

/// As [`v4`]. The longest packets of all are left to the general way: their length does not
/// fit 16 bits.
#[inline(always)]
fn v6(ip: &[u8]) -> Option<(u16, u8)> {
    let header = ip.first_chunk::<IPV6_LENGTH>()?;
    let length = field::u16_at(header, 4).checked_add(IPV6_LENGTH as u16)?;
    let is_plain = header[0] >> 4 == 6 && usize::from(length) <= ip.len();
    is_plain.then_some((length, header[6]))
}

/// Checks the TCP header behind `network_bytes` of a packet of `length` bytes; its flag byte
/// (RFC 9293).
#[inline(always)]
pub(crate) fn tcp(ip: &[u8], network_bytes: usize, length: u16) -> Option<u8> {
    let header = ip.get(network_bytes..network_bytes + TCP_LENGTH)?;
    let end = network_bytes + usize::from(header[12] >> 4) * 4;
    let is_right = end >= network_bytes + TCP_LENGTH && end <= usize::from(length);
    is_right.then_some(header[13])
}

/// Whether a packet of `length` bytes has a whole UDP header behind `network_bytes`.
#[inline(always)]
pub(crate) fn is_udp(network_bytes: usize, length: u16) -> bool {
    usize::from(length) >= network_bytes + UDP_LENGTH
}

/// Sender and receiver of the plain packet whose IP header begins `ip`.
#[inline(always)]
pub(crate) fn ends(ip: &[u8], family: Family) -> (Endpoint, Endpoint) {
    let (addresses, width, ports) = match family {
        Family::V4 => (12, 4, IPV4_LENGTH),
        Family::V6 => (8, 16, IPV6_LENGTH),
    };
    let ip = &ip[..ports + 4];
    let source = Endpoint {
        address: field::address_at(ip, family, addresses),
        port: field::u16_at(ip, ports),
    };
    let destination = Endpoint {
        address: field::address_at(ip, family, addresses + width),
        port: field::u16_at(ip, ports + 2),
    };
    (source, destination)
}
