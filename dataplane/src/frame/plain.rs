//! Frames of the plain shape, which nearly all are: TCP or UDP in IPv4 without options or
//! IPv6 without extension headers, no fragment, behind Ethernet with at most one VLAN tag.
//!
//! The same checks as [`Packet::parse`](super::Packet::parse) for this one shape, and far
//! fewer instructions: nothing is put together but what the short way of the director
//! needs. Whatever is odd in any way is not plain, and left to `Packet::parse`.

use sched::service::Family;

use super::packet::{ETHERNET_LENGTH, VLAN_TAG_LENGTH, ether_type};
use super::{IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS, field, protocol};
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

/// What a plain packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// The IP packet's length with its header, bytes.
    pub(crate) length: u16,
    /// UDP, and not TCP.
    pub(crate) is_udp: bool,
    /// TCP's flag byte (RFC 9293), else 0.
    pub(crate) tcp_flags: u8,
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

/// Reads and checks the packet that begins `ip`; none where it is not plain or not right.
#[inline(always)]
pub(crate) fn read(ip: &[u8], family: Family) -> Option<Plain> {
    match family {
        Family::V4 => v4(ip),
        Family::V6 => v6(ip),
    }
}

#[inline(always)]
fn v4(ip: &[u8]) -> Option<Plain> {
    let header = ip.first_chunk::<IPV4_LENGTH>()?;
    let parts = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET;
    let is_plain = header[0] == 0x45
        && field::u16_at(header, 6) & parts == 0
        && checksum::header_is_valid(header, &[]);
    let length = usize::from(field::u16_at(header, 2));
    if is_plain && length <= ip.len() {
        transport(ip, IPV4_LENGTH, header[9], length)
    } else {
        None
    }
}

/// As [`v4`]. The longest packets of all are left to the general way: their length does not
/// fit 16 bits.
#[inline(always)]
fn v6(ip: &[u8]) -> Option<Plain> {
    let header = ip.first_chunk::<IPV6_LENGTH>()?;
    let length = IPV6_LENGTH + usize::from(field::u16_at(header, 4));
    let is_plain = header[0] >> 4 == 6 && length <= usize::from(u16::MAX);
    if is_plain && length <= ip.len() {
        transport(ip, IPV6_LENGTH, header[6], length)
    } else {
        None
    }
}

/// Of a packet of `length` bytes, which has a whole transport header behind the `network`
/// bytes of its own.
#[inline(always)]
fn transport(ip: &[u8], network: usize, number: u8, length: usize) -> Option<Plain> {
    match number {
        protocol::TCP => {
            let header = ip.get(network..network + TCP_LENGTH)?;
            let end = network + usize::from(header[12] >> 4) * 4;
            (end >= network + TCP_LENGTH && end <= length).then_some(Plain {
                length: length as u16,
                is_udp: false,
                tcp_flags: header[13],
            })
        }
        protocol::UDP => (length >= network + UDP_LENGTH).then_some(Plain {
            length: length as u16,
            is_udp: true,
            tcp_flags: 0,
        }),
        _ => None,
    }
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
