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

/// IPv4's header without options, bytes.
pub(crate) const IPV4_LENGTH: usize = 20;
/// IPv6's header, bytes.
pub(crate) const IPV6_LENGTH: usize = 40;
/// TCP's header without options, bytes.
const TCP_LENGTH: usize = 20;
/// UDP's header, bytes.
const UDP_LENGTH: usize = 8;

/// What a plain frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The packet's family.
    pub family: Family,
    /// Where the IP header begins.
    pub network: u8,
    /// TCP's or UDP's number.
    pub protocol: u8,
    /// TCP's flag byte (RFC 9293), else 0.
    pub tcp_flags: u8,
    /// The IP packet's length with its header, bytes.
    pub length: u16,
}

impl Plain {
    /// Reads and checks a frame; none where it is not plain or not right.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (family, network) = link(bytes)?;
        Self::of(bytes.get(network..)?, family, network)
    }

    /// Reads and checks the rest of a frame, whose IP header begins `ip`.
    #[inline(always)]
    pub(crate) fn of(ip: &[u8], family: Family, network: usize) -> Option<Self> {
        let (length, protocol, header) = match family {
            Family::V4 => v4(ip)?,
            Family::V6 => v6(ip)?,
        };
        Some(Self {
            family,
            network: network as u8,
            protocol,
            tcp_flags: transport(&ip[header..length], protocol)?,
            length: length as u16,
        })
    }
}

/// What the link header says: the packet's family, and where it begins.
#[inline(always)]
pub(crate) fn link(bytes: &[u8]) -> Option<(Family, usize)> {
    let link = bytes.first_chunk::<{ ETHERNET_LENGTH + VLAN_TAG_LENGTH }>()?;
    match field::u16_at(link, 12) {
        ether_type::IPV4 => Some((Family::V4, ETHERNET_LENGTH)),
        ether_type::IPV6 => Some((Family::V6, ETHERNET_LENGTH)),
        ether_type::VLAN => match field::u16_at(link, 16) {
            ether_type::IPV4 => Some((Family::V4, ETHERNET_LENGTH + VLAN_TAG_LENGTH)),
            ether_type::IPV6 => Some((Family::V6, ETHERNET_LENGTH + VLAN_TAG_LENGTH)),
            _ => None,
        },
        _ => None,
    }
}

/// The packet's length, its protocol, and its header's length.
#[inline(always)]
fn v4(ip: &[u8]) -> Option<(usize, u8, usize)> {
    let header = ip.first_chunk::<IPV4_LENGTH>()?;
    let length = usize::from(field::u16_at(header, 2));
    let parts = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET;
    let is_plain = header[0] == 0x45
        && field::u16_at(header, 6) & parts == 0
        && (IPV4_LENGTH..=ip.len()).contains(&length)
        && checksum::header_is_valid(header, &[]);
    is_plain.then_some((length, header[9], IPV4_LENGTH))
}

/// As [`v4`]. The longest packets of all are left to the general way: their length does not
/// fit 16 bits.
#[inline(always)]
fn v6(ip: &[u8]) -> Option<(usize, u8, usize)> {
    let header = ip.first_chunk::<IPV6_LENGTH>()?;
    let length = IPV6_LENGTH + usize::from(field::u16_at(header, 4));
    let is_plain = header[0] >> 4 == 6 && length <= ip.len() && length <= usize::from(u16::MAX);
    is_plain.then_some((length, header[6], IPV6_LENGTH))
}

/// TCP's flags (0 for UDP) of a whole header of either.
#[inline(always)]
fn transport(segment: &[u8], number: u8) -> Option<u8> {
    match number {
        protocol::TCP => {
            let header = segment.first_chunk::<TCP_LENGTH>()?;
            let length = usize::from(header[12] >> 4) * 4;
            (TCP_LENGTH..=segment.len())
                .contains(&length)
                .then_some(header[13])
        }
        protocol::UDP => (segment.len() >= UDP_LENGTH).then_some(0),
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
