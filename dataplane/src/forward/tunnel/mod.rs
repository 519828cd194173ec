//! Tunnels: another IP header (and UDP with GUE, or GRE) in the room before the packet.
//!
//! The outer header is what Linux 6.1's IPVS writes: hop limit and traffic class of the
//! inner packet, with "congestion experienced" as ECT(0) (RFC 3168, 9.1.1, full
//! functionality); IPv4's "don't fragment" copied, and identification 0 with it; an IPv6
//! inner packet never sets it; IPv6's flow label 0.

use sched::server::{Tunnel, TunnelChecksum};
use sched::service::Family;

use crate::address::{Bits, Endpoint};
use crate::forward::checksum::{self, Sum};
use crate::frame::plain::{self, IPV4_LENGTH};
use crate::frame::{Frame, IPV4_DONT_FRAGMENT, Packet, ether_type, field, protocol};
use crate::verdict::Reason;

#[cfg(test)]
mod tests;

/// The outer header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// The kind of tunnel.
    pub kind: Tunnel,
    /// The outer header's family.
    pub family: Family,
    /// The director's address: the outer source.
    pub local: Bits,
    /// The real server's address: the outer destination.
    pub remote: Bits,
    /// IPv4's identification, where the packet may be fragmented.
    pub identification: u16,
}

/// The bytes that a tunnel adds at layer 3.
pub fn overhead(kind: Tunnel, outer: Family) -> usize {
    ip_length(outer) + shim_length(kind)
}

/// Wraps the packet for a tunnel: the frame then holds the outer packet, which is returned.
/// The link header stays in front, its EtherType for [`crate::forward::link::address`] to write.
///
/// A partial checksum is completed first, as nobody behind the tunnel would. Remote checksum
/// offload therefore never has anything to offload: its packets bear a full outer checksum,
/// as IPVS sends them when the inner one is complete.
///
/// # Errors
/// [`Reason::NoHeadroom`]; [`Reason::TooBig`] where the outer length exceeds 65,535 bytes.
/// The frame is then as before, but for a completed checksum.
pub fn encapsulate(frame: &mut Frame<'_>, packet: &Packet, wrap: &Wrap) -> Result<Packet, Reason> {
    checksum::complete_if_partial(frame, packet);
    let added = overhead(wrap.kind, wrap.family);
    let length = packet.length + added;
    if length > usize::from(u16::MAX) {
        return Err(Reason::TooBig);
    }
    if !frame.grow_front(added) {
        return Err(Reason::NoHeadroom);
    }
    let outer = outer_packet(packet, wrap, length);
    let bytes = frame.bytes_mut();
    bytes.copy_within(added..added + packet.network, 0);
    let ip = &mut bytes[packet.network..packet.network + length];
    write_ip(ip, &outer, wrap.identification);
    write_shim(
        &mut ip[ip_length(wrap.family)..],
        packet.family,
        wrap,
        &outer,
    );
    Ok(outer)
}

/// What must fit inside a tunnel over IPv4, bytes; where it does not, Linux's IPVS drops
/// everything (`__ip_vs_get_out_rt`). It is the least MTU of IPv4 (RFC 791).
pub(crate) const LEAST_INSIDE_V4: usize = 68;

/// What is the same in the outer headers of all packets through one IP-in-IP tunnel over IPv4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    /// From where and to where.
    addresses: [u8; 8],
    /// The sum of these, of the protocol and of "must stay whole", as it lies in memory.
    sum: u16,
}

impl Outer {
    pub(crate) fn new(local: u32, remote: u32) -> Self {
        let addresses = (u64::from(local) << 32 | u64::from(remote)).to_be_bytes();
        let sum = Sum::NONE
            .bytes(&addresses)
            .word(protocol::IPIP.into())
            .word(IPV4_DONT_FRAGMENT);
        Self {
            addresses,
            sum: sum.fold_as_is(),
        }
    }

    /// To and from nowhere.
    pub(crate) const NONE: Self = Self {
        addresses: [0; 8],
        sum: 0,
    };

    /// As [`encapsulate`], for a plain IPv4 packet without a partial checksum, of at most
    /// [`LONGEST_INSIDE`]. `ip` begins with room for the outer header; the packet follows.
    /// `identify` is asked where the outer packet may be fragmented.
    #[inline(always)]
    pub(crate) fn wrap(&self, ip: &mut [u8], usual: &Usual, identify: impl FnOnce() -> u16) {
        let (outer, inner) = ip[..2 * IPV4_LENGTH].split_at_mut(IPV4_LENGTH);
        if usual.is(inner) {
            // The inner one's: version and header length, traffic class, length.
            let first = field::u32_at(inner, 0) + IPV4_LENGTH as u32;
            self.write(outer, inner[8], first, (IPV4_DONT_FRAGMENT.into(), 0));
        } else {
            self.wrap_otherwise(outer, inner, usual, identify);
        }
    }

    #[cold]
    #[inline(never)]
    fn wrap_otherwise(
        &self,
        outer: &mut [u8],
        inner: &[u8],
        usual: &Usual,
        identify: impl FnOnce() -> u16,
    ) {
        let first = field::u32_at(inner, 0) + IPV4_LENGTH as u32;
        let second = match usual.must_stay_whole(inner) {
            true => (IPV4_DONT_FRAGMENT.into(), 0),
            false => fragmentable(identify()),
        };
        self.write(outer, inner[8], uncongested(first), second);
    }

    /// Writes an outer header: of its `second` word also what that adds to `self.sum`.
    #[inline(always)]
    fn write(&self, outer: &mut [u8], hops: u8, first: u32, (second, term): (u32, u32)) {
        // By words: as many stores, and as many terms of the sum.
        let sum = u32::from(self.sum) + u32::from(u16::from_ne_bytes([hops, 0])) + term;
        let [high, low] = (!checksum::add_word(sum, first.to_be_bytes())).to_ne_bytes();
        field::put(outer, 0, first.to_be_bytes());
        field::put(outer, 4, second.to_be_bytes());
        field::put(outer, 8, [hops, protocol::IPIP, high, low]);
        field::put(outer, 12, self.addresses);
    }
}

/// Of which kind nearly all packets through tunnels are: they must stay whole, and of ECN
/// their headers say nothing. One question asks for both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usual {
    /// What of a header's first eight bytes is looked at.
    mask: u64,
    value: u64,
}

impl Usual {
    /// What is usual where outer packets stay whole (`pmtu_disc`); where they need not,
    /// nothing is.
    pub(crate) fn new(pmtu_disc: bool) -> Self {
        let bytes = |class, fragment| u64::from_ne_bytes([0, class, 0, 0, 0, 0, fragment, 0]);
        let dont_fragment = (IPV4_DONT_FRAGMENT >> 8) as u8;
        match pmtu_disc {
            true => Self {
                mask: bytes(ECN, dont_fragment),
                value: bytes(0, dont_fragment),
            },
            false => Self { mask: 0, value: 1 },
        }
    }

    #[inline(always)]
    fn is(&self, ip: &[u8]) -> bool {
        u64::from_ne_bytes(field::array(ip, 0)) & self.mask == self.value
    }

    /// Whether the outer packet must stay whole.
    fn must_stay_whole(&self, ip: &[u8]) -> bool {
        self.mask != 0 && plain::must_stay_whole(ip)
    }
}

impl Default for Usual {
    fn default() -> Self {
        Self::new(true)
    }
}

/// The longest IPv4 packet whose outer header [`Outer::wrap`] writes, bytes: up to that, the
/// header's first word leaves room for what is added to it while it is summed.
pub(crate) const LONGEST_INSIDE: u16 = 0xfb00;

/// An outer header's second word where the packet need not stay whole, and what this adds to a
/// sum that is of one that must.
fn fragmentable(identification: u16) -> (u32, u32) {
    let term = identification.to_be();
    let without = !IPV4_DONT_FRAGMENT.to_be();
    (
        u32::from(identification) << 16,
        u32::from(term) + u32::from(without),
    )
}

/// An outer header's first word, made from the inner one's (RFC 6040: see `outer_class`).
fn uncongested(first: u32) -> u32 {
    match first & CONGESTED {
        CONGESTED => first & !CONGESTED | CAPABLE,
        _ => first,
    }
}

/// The lowest bit of the traffic class in the first word of an IPv4 header.
const ECN_UNIT: u32 = 1 << 16;
/// [`ECN`] there: "congestion experienced".
const CONGESTED: u32 = ECN as u32 * ECN_UNIT;
/// [`ECT_0`] there.
const CAPABLE: u32 = ECT_0 as u32 * ECN_UNIT;

pub(super) fn ip_length(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// UDP's header.
const UDP_LENGTH: usize = 8;
/// GUE's header without options (draft-ietf-intarea-gue, variant 0).
const GUE_LENGTH: usize = 4;
/// GRE's header without options (RFC 2784).
const GRE_LENGTH: usize = 4;
/// GRE's checksum and the reserved bytes behind it.
const GRE_CHECKSUM_LENGTH: usize = 4;
/// GRE's flag "checksum present" in the first 16 bits.
const GRE_CHECKSUM_PRESENT: u16 = 0x8000;

fn shim_length(kind: Tunnel) -> usize {
    match kind {
        Tunnel::Ipip => 0,
        Tunnel::Gue { .. } => UDP_LENGTH + GUE_LENGTH,
        Tunnel::Gre {
            checksum: TunnelChecksum::None,
        } => GRE_LENGTH,
        Tunnel::Gre { .. } => GRE_LENGTH + GRE_CHECKSUM_LENGTH,
    }
}

/// The number of a packet of `family` as a payload.
fn payload_protocol(family: Family) -> u8 {
    match family {
        Family::V4 => protocol::IPIP,
        Family::V6 => protocol::IPV6,
    }
}

fn outer_packet(inner: &Packet, wrap: &Wrap, length: usize) -> Packet {
    let (number, source_port, destination_port) = match wrap.kind {
        Tunnel::Ipip => (payload_protocol(inner.family), 0, 0),
        Tunnel::Gue { port, .. } => (protocol::UDP, flow_port(inner), port),
        Tunnel::Gre { .. } => (protocol::GRE, 0, 0),
    };
    let v6_outer = wrap.family == Family::V6;
    Packet {
        transport: inner.network + ip_length(wrap.family),
        family: wrap.family,
        protocol: number,
        source: Endpoint {
            address: wrap.local,
            port: source_port,
        },
        destination: Endpoint {
            address: wrap.remote,
            port: destination_port,
        },
        traffic_class: outer_class(inner.traffic_class),
        dont_fragment: v6_outer || (inner.family == Family::V4 && inner.dont_fragment),
        length,
        tcp_flags: 0,
        sctp_chunk: 0,
        icmp_type: 0,
        icmp_code: 0,
        fragment: None,
        ..*inner
    }
}

/// The ECN bits of a traffic class (RFC 3168).
const ECN: u8 = 0b11;
/// ECN-capable transport, codepoint 0.
const ECT_0: u8 = 0b10;

fn outer_class(inner: u8) -> u8 {
    match inner & ECN {
        ECN => inner & !ECN | ECT_0,
        _ => inner,
    }
}

/// A UDP source port that spreads flows over paths and keeps each flow on one: Linux's
/// default range of local ports, 32,768 to 60,999.
fn flow_port(inner: &Packet) -> u16 {
    const FIRST: u32 = 32_768;
    const COUNT: u64 = 28_232;
    let fold = |a: Bits| (a as u64) ^ ((a >> 64) as u64);
    let ports = u64::from(inner.source.port) << 16 | u64::from(inner.destination.port);
    // Two rounds of multiply and fold mix every bit; the constants are the golden ratio's
    // and an arbitrary odd one.
    let mut h = fold(inner.source.address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= fold(inner.destination.address) ^ (ports << 8) ^ u64::from(inner.protocol);
    h = (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (FIRST + (((h >> 32) * COUNT) >> 32) as u32) as u16
}

fn write_ip(ip: &mut [u8], outer: &Packet, identification: u16) {
    match outer.family {
        Family::V4 => crate::forward::ip::write_v4(ip, outer, identification),
        Family::V6 => crate::forward::ip::write_v6(ip, outer),
    }
}

fn write_shim(payload: &mut [u8], inner: Family, wrap: &Wrap, outer: &Packet) {
    match wrap.kind {
        Tunnel::Ipip => {}
        Tunnel::Gue { checksum, .. } => write_gue(payload, inner, checksum, outer),
        Tunnel::Gre { checksum } => write_gre(payload, inner, checksum),
    }
}

fn write_gue(payload: &mut [u8], inner: Family, checksum: TunnelChecksum, outer: &Packet) {
    field::put_u16(payload, 0, outer.source.port);
    field::put_u16(payload, 2, outer.destination.port);
    field::put_u16(payload, 4, payload.len() as u16);
    field::put_u16(payload, 6, 0);
    field::put(payload, UDP_LENGTH, [0, payload_protocol(inner), 0, 0]);
    if checksum != TunnelChecksum::None {
        let sum = Sum::default().bytes(payload).pseudo_header(
            outer.family,
            outer.source.address,
            outer.destination.address,
            protocol::UDP,
            payload.len(),
        );
        field::put_u16(
            payload,
            6,
            checksum::sendable(protocol::UDP, sum.checksum()),
        );
    }
}

fn write_gre(payload: &mut [u8], inner: Family, checksum: TunnelChecksum) {
    let protocol_type = match inner {
        Family::V4 => ether_type::IPV4,
        Family::V6 => ether_type::IPV6,
    };
    field::put_u16(payload, 2, protocol_type);
    if checksum == TunnelChecksum::None {
        field::put_u16(payload, 0, 0);
        return;
    }
    field::put_u16(payload, 0, GRE_CHECKSUM_PRESENT);
    field::put(payload, GRE_LENGTH, [0; GRE_CHECKSUM_LENGTH]);
    let sum = Sum::default().bytes(payload).checksum();
    field::put_u16(payload, GRE_LENGTH, sum);
}
