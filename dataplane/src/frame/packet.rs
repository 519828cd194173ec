//! What a frame holds, read once. Every later read and rewriting goes by the offsets here,
//! so the checks of [`Packet::parse`] are the only ones a packet meets.

use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};
use sched::service::Family;

use super::{Frame, field, network, protocol};
use crate::address::Endpoint;
use crate::verdict::Reason;

/// The length of an Ethernet header without tags, bytes.
pub const ETHERNET_LENGTH: usize = 14;

/// The length of a VLAN tag (IEEE 802.1Q), bytes.
pub const VLAN_TAG_LENGTH: usize = 4;

/// EtherTypes (IANA "IEEE 802 Numbers").
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag (IEEE 802.1ad). Only those that carry a priority are taken off.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Where a fragment belongs in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// The datagram's identification; 16 bits in IPv4.
    pub identification: u32,
    /// Where its payload belongs in the datagram's, bytes.
    pub offset_bytes: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// IPv6: the fragment header's offset from the start of the frame. IPv4: 0.
    pub header: u16,
    /// IPv6: the offset of the byte that names the fragment header as next. IPv4: 0.
    pub named_at: u16,
}

impl FragmentInfo {
    /// Whether it is the whole datagram (an "atomic" fragment, RFC 6946).
    pub(crate) fn is_whole(&self) -> bool {
        self.offset_bytes == 0 && !self.more
    }
}

/// What a frame holds. Plain data: it stays true only as long as the frame is changed
/// through the functions of [`crate::forward`], which keep it up to date.
///
/// Offsets count bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The VLAN of the tag it bears; none without a tag and for priority tags (id 0).
    pub vlan: Option<u16>,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the transport header begins; in a later fragment, its payload.
    pub transport: usize,
    /// The packet's family.
    pub family: Family,
    /// The transport protocol's number, behind any IPv6 extension headers.
    pub protocol: u8,
    /// The sender; port 0 where there is none (ICMP, later fragments).
    pub source: Endpoint,
    /// The receiver; port 0 where there is none.
    pub destination: Endpoint,
    /// IPv4's time to live, IPv6's hop limit.
    pub hop_limit: u8,
    /// IPv4's type of service, IPv6's traffic class.
    pub traffic_class: u8,
    /// Whether routers must not fragment it: IPv4's flag; always true for IPv6.
    pub dont_fragment: bool,
    /// The IP packet's length with its header, bytes.
    pub length: usize,
    /// TCP's flag byte (RFC 9293), else 0.
    pub tcp_flags: u8,
    /// The type of the SCTP chunk that counts for the association's state
    /// ([`crate::connection::state::sctp::event_chunk`]), else 0.
    pub sctp_chunk: u8,
    /// The type of an ICMP message, else 0.
    pub icmp_type: u8,
    /// The code of an ICMP message, else 0.
    pub icmp_code: u8,
    /// Its place in a datagram, if it is a fragment.
    pub fragment: Option<FragmentInfo>,
}

impl Packet {
    /// Reads and checks a frame, and cuts off the link's padding behind the IP packet.
    ///
    /// Checked are all lengths, the IPv4 header checksum, and that the transport header is
    /// whole (in a first fragment: that its ports are there). Transport checksums are not:
    /// a router forwards what it must not judge.
    ///
    /// An IPv6 packet with a fragment header that is no fragment (RFC 6946) loses that
    /// header here; Linux forwards it without as well.
    #[inline]
    pub fn parse(frame: &mut Frame<'_>) -> Result<Self, Reason> {
        let link = Link::parse(frame.bytes())?;
        match link.ether_type {
            ether_type::IPV4 => network::parse_ipv4(frame, &link),
            ether_type::IPV6 => network::parse_ipv6(frame, &link),
            _ => Err(Reason::NotIp),
        }
    }

    /// Where the IP packet ends.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.network + self.length
    }

    /// The length of what follows the IP header and its extensions, bytes.
    #[inline(always)]
    pub fn payload_length(&self) -> usize {
        self.end() - self.transport
    }

    /// Whether it is a fragment other than the first, so that no transport header is here.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|f| f.offset_bytes != 0)
    }

    /// Whether it is an ICMP message (of its own family) whose header is here.
    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        let icmp = match self.family {
            Family::V4 => protocol::ICMP,
            Family::V6 => protocol::ICMPV6,
        };
        self.protocol == icmp && !self.is_later_fragment()
    }

    /// What of the packet counts for its connection's state: TCP's flags, SCTP's chunk, 0
    /// for others.
    #[inline(always)]
    pub(crate) fn event(&self) -> u8 {
        match self.protocol {
            protocol::SCTP => self.sctp_chunk,
            _ => self.tcp_flags,
        }
    }

    /// Moves all offsets: the frame now begins `added` bytes earlier and `removed` later.
    pub(crate) fn shift(&mut self, added: usize, removed: usize) {
        let moved = |at: usize| at + added - removed;
        self.network = moved(self.network);
        self.transport = moved(self.transport);
        if let Some(fragment) = &mut self.fragment
            && self.family == Family::V6
        {
            fragment.header = moved(fragment.header.into()) as u16;
            fragment.named_at = moved(fragment.named_at.into()) as u16;
        }
    }
}

/// The link header.
pub(super) struct Link {
    pub(super) vlan: Option<u16>,
    ether_type: u16,
    pub(super) length: usize,
}

/// Tags of one frame that are taken off: all but the last only carry a priority.
const TAGS_MAX: usize = 4;

impl Link {
    #[inline(always)]
    fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        let header = Ethernet2HeaderSlice::from_slice(bytes).map_err(|_| Reason::LinkTruncated)?;
        match header.ether_type().0 {
            ether_type::VLAN | ether_type::SERVICE_VLAN => Self::tagged(bytes),
            ether_type => Ok(Self {
                vlan: None,
                ether_type,
                length: ETHERNET_LENGTH,
            }),
        }
    }

    /// As Linux takes tags off (`__netif_receive_skb_core`): of either kind while their id is 0,
    /// then one that names a VLAN. VLANs of service tags are nobody's here.
    fn tagged(bytes: &[u8]) -> Result<Self, Reason> {
        let mut length = ETHERNET_LENGTH;
        for _ in 0..TAGS_MAX {
            let outer = field::u16_at(bytes, length - 2);
            let tag = SingleVlanHeaderSlice::from_slice(&bytes[length..])
                .map_err(|_| Reason::LinkTruncated)?;
            let (id, ether_type) = (tag.vlan_identifier().value(), tag.ether_type().0);
            length += VLAN_TAG_LENGTH;
            let is_last = !matches!(ether_type, ether_type::VLAN | ether_type::SERVICE_VLAN);
            match (id, is_last) {
                (0, false) => continue,
                (1.., false) => break,
                (1.., true) if outer != ether_type::VLAN => break,
                _ => {}
            }
            return Ok(Self {
                vlan: (id != 0).then_some(id),
                ether_type,
                length,
            });
        }
        Err(Reason::LinkTruncated)
    }
}
