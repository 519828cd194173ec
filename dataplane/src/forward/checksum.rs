//! Checksums: the Internet checksum in full (RFC 1071) and incrementally (RFC 1624), and
//! SCTP's CRC32c (RFC 9260, appendix A).
//!
//! A local sender with transmit offload (a veth, a tap) leaves TCP and UDP checksum fields
//! holding the folded, not complemented, sum of the pseudo-header alone, and SCTP's zero.
//! On a wire nobody would complete them, so the director does: [`complete_if_partial`].

use sched::service::Family;

use crate::address::Bits;
use crate::frame::{Frame, Packet, field, protocol};

/// Offset of IPv4's header checksum (RFC 791).
pub const IPV4_CHECKSUM: usize = 10;

/// Offset of TCP's checksum (RFC 9293).
pub(crate) const TCP_CHECKSUM: usize = 16;

/// Offset of UDP's checksum (RFC 768).
pub(crate) const UDP_CHECKSUM: usize = 6;

/// Offset of SCTP's checksum (RFC 9260).
pub(crate) const SCTP_CHECKSUM: usize = 8;

/// A ones' complement sum in the making.
///
/// Words are added in the machine's byte order, as they lie in memory: the sum of swapped
/// words is the swapped sum (RFC 1071, section 2B), so only its ends convert.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub(crate) const NONE: Self = Self(0);

    /// Adds bytes that begin at an even place of what is summed; an odd end is padded
    /// with a zero byte.
    #[inline]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self = self.four(*word);
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_ne_bytes(last));
        self
    }

    /// Adds eight bytes that begin at an even place. What is carried out is added again, so
    /// modulo 65,535 it is the sum of the 16-bit words in them (2^64 leaves 1 there). Only as
    /// the last: nothing more is known to fit.
    #[inline(always)]
    pub(crate) fn and_last_eight(self, bytes: [u8; 8]) -> Self {
        let (sum, carries) = self.0.overflowing_add(u64::from_ne_bytes(bytes));
        Self(sum + u64::from(carries))
    }

    /// Adds four bytes that begin at an even place.
    #[inline(always)]
    pub(crate) fn four(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + u64::from(u32::from_ne_bytes(bytes)))
    }

    /// Adds a 16-bit word, given in host order.
    #[inline(always)]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Takes a 16-bit word off again: adds its complement.
    #[inline(always)]
    pub const fn without_word(self, word: u16) -> Self {
        Self(self.0 + !word.to_be() as u64)
    }

    /// The sum of four bytes as they lie in memory.
    #[inline(always)]
    pub(crate) fn of_word(bytes: [u8; 4]) -> Self {
        Self(u64::from(u32::from_ne_bytes(bytes)))
    }

    /// Adds what another sum holds.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds an address.
    #[inline(always)]
    pub fn address(self, family: Family, address: Bits) -> Self {
        match family {
            Family::V4 => Self(self.0 + u64::from((address as u32).to_be())),
            Family::V6 => self.wide(address.to_be()),
        }
    }

    /// Takes an address off again.
    #[inline(always)]
    pub fn without_address(self, family: Family, address: Bits) -> Self {
        match family {
            Family::V4 => Self(self.0 + u64::from(!(address as u32).to_be())),
            Family::V6 => self.wide(!address.to_be()),
        }
    }

    /// Adds the pseudo-header of `length` bytes of `protocol` (RFC 9293, RFC 8200).
    #[inline(always)]
    pub fn pseudo_header(
        self,
        family: Family,
        source: Bits,
        destination: Bits,
        protocol: u8,
        length: usize,
    ) -> Self {
        // The length is below 2^16 but for IPv6's jumbograms, which are not parsed.
        self.address(family, source)
            .address(family, destination)
            .word(u16::from(protocol))
            .word(length as u16)
    }

    /// The sum in 16 bits, host order.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        u16::from_be(self.fold_as_is())
    }

    /// The sum in 16 bits, as it would lie in memory.
    #[inline(always)]
    pub(crate) const fn fold_as_is(self) -> u16 {
        // Each half added to the other: the upper half then holds the sum with its carry.
        fold((self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32)
    }

    /// Whether this is the sum of words and their right checksum: it folds to all ones, or it
    /// is of nothing but zeros.
    #[inline(always)]
    pub fn is_whole(self) -> bool {
        is_whole(self.0)
    }

    /// The checksum field for this sum, host order.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    #[inline(always)]
    fn wide(self, w: u128) -> Self {
        let half = |shift: u32| u64::from((w >> shift) as u32);
        Self(self.0 + half(0) + half(32) + half(64) + half(96))
    }
}

/// The sum of two 16-bit words, in 16 bits.
#[inline(always)]
const fn fold(words: u32) -> u16 {
    (words.wrapping_add(words.rotate_left(16)) >> 16) as u16
}

/// The sum of `word`, four bytes, and of other words, both as they lie in memory; in 16 bits.
/// They must not be so much that they overflow together.
#[inline(always)]
pub(crate) fn add_word(sum: u32, word: [u8; 4]) -> u16 {
    fold(sum + u32::from_ne_bytes(word))
}

/// Whether a sum is a multiple of 65,535. Asked without folding, which keeps the rest by
/// 65,535: times its inverse, a multiple of an odd number is small, and nothing else is
/// (Granlund and Montgomery, "Division by invariant integers using multiplication", section 9).
/// Said so because the compiler divides where it knows that the sum is not 0.
#[inline(always)]
fn is_whole(sum: u64) -> bool {
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// A checksum field after a word that it covers went from `before` to `after`
/// (RFC 1624, equation 3).
#[inline(always)]
pub fn update(checksum: u16, before: u16, after: u16) -> u16 {
    Sum::default()
        .word(!checksum)
        .without_word(before)
        .word(after)
        .checksum()
}

/// Takes `less`, a sum as it lies in memory, off the checksum at `at`. That adds it to the
/// sum which the checksum is the complement of: a borrow is that sum's carry.
#[inline(always)]
pub(crate) fn take_off(header: &mut [u8], at: usize, less: u16) {
    let old = u16::from_ne_bytes(field::array(header, at));
    let (new, borrow) = old.overflowing_sub(less);
    field::put(header, at, (new - u16::from(borrow)).to_ne_bytes());
}

/// Whether an IPv4 header, its options apart, bears the right checksum.
#[inline(always)]
pub fn header_is_valid(fixed: &[u8; 20], options: &[u8]) -> bool {
    // Word by word: the general loop would start up vector code for five words.
    let word = |at| Sum::of_word(field::array(fixed, at));
    let sum = word(0)
        .and(word(4))
        .and(word(8))
        .and(word(12))
        .and(word(16));
    let sum = if options.is_empty() {
        sum
    } else {
        sum.bytes(options)
    };
    sum.is_whole() && fixed[0] != 0
}

/// Writes the checksum of the IPv4 header that begins `header`.
pub fn write_header(header: &mut [u8]) {
    let length = usize::from(header[0] & 0x0f) * 4;
    field::put_u16(header, IPV4_CHECKSUM, 0);
    let sum = Sum::default().bytes(&header[..length]).checksum();
    field::put_u16(header, IPV4_CHECKSUM, sum);
}

/// SCTP's checksum over a whole SCTP packet, its own field taken as zero. Stored in
/// little-endian order (RFC 9260, appendix A).
pub fn sctp(segment: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&segment[..SCTP_CHECKSUM]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &segment[SCTP_CHECKSUM + 4..])
}

/// Writes SCTP's checksum into a whole SCTP packet.
pub fn write_sctp(segment: &mut [u8]) {
    let crc = sctp(segment);
    field::put(segment, SCTP_CHECKSUM, crc.to_le_bytes());
}

/// A finished checksum as UDP sends it: zero would say "none" (RFC 768).
#[inline(always)]
pub(crate) fn sendable(protocol: u8, checksum: u16) -> u16 {
    match (protocol, checksum) {
        (protocol::UDP, 0) => 0xffff,
        _ => checksum,
    }
}

/// Completes a transport checksum that the sender left to its hardware; tells whether it
/// did. Complete checksums, right or wrong, stay as they are.
///
/// Fragments are never partial: the sender sums before it splits.
#[inline(always)]
pub fn complete_if_partial(frame: &mut Frame<'_>, packet: &Packet) -> bool {
    let segment = &mut frame.bytes_mut()[packet.transport..];
    complete_segment(segment, packet, packet.family)
}

/// [`complete_if_partial`] for the packet's IP payload; `family` is the packet's, given
/// apart where the caller knows it as a constant.
#[inline(always)]
pub(super) fn complete_segment(segment: &mut [u8], packet: &Packet, family: Family) -> bool {
    let offset = match packet.protocol {
        protocol::TCP => TCP_CHECKSUM,
        protocol::UDP => UDP_CHECKSUM,
        protocol::SCTP if packet.fragment.is_none() => return complete_sctp(segment),
        _ => return false,
    };
    let Some(field) = segment.get(offset..offset + 2) else {
        return false;
    };
    let looks_partial = field::u16_at(field, 0) == pseudo_header(packet, family, segment).fold();
    looks_partial && packet.fragment.is_none() && complete(segment, packet, offset)
}

/// The checksum field of a whole TCP or UDP `segment`.
#[inline(always)]
pub(crate) fn transport_field(segment: &[u8], protocol: u8) -> u16 {
    match protocol {
        protocol::TCP => field::u16_at(segment, TCP_CHECKSUM),
        _ => field::u16_at(segment, UDP_CHECKSUM),
    }
}

#[inline(always)]
fn pseudo_header(packet: &Packet, family: Family, segment: &[u8]) -> Sum {
    Sum::default().pseudo_header(
        family,
        packet.source.address,
        packet.destination.address,
        packet.protocol,
        segment.len(),
    )
}

/// Whether the TCP checksum in `segment`, the packet's whole IP payload, is right.
pub(super) fn is_complete(segment: &[u8], packet: &Packet) -> bool {
    pseudo_header(packet, packet.family, segment)
        .bytes(segment)
        .is_whole()
}

/// Writes the TCP checksum of `segment`, a whole IP payload between the packet's addresses.
pub(super) fn write_tcp(segment: &mut [u8], packet: &Packet) {
    field::put_u16(segment, TCP_CHECKSUM, 0);
    let sum = pseudo_header(packet, packet.family, segment).bytes(segment);
    field::put_u16(segment, TCP_CHECKSUM, sum.checksum());
}

/// Writes the checksum of a UDP datagram that bears none; `segment` is the packet's whole
/// IP payload.
#[cold]
pub(super) fn write_udp(segment: &mut [u8], packet: &Packet) {
    let sum = pseudo_header(packet, packet.family, segment).bytes(segment);
    field::put_u16(segment, 6, sendable(protocol::UDP, sum.checksum()));
}

/// One complete checksum in 65,536 equals its own pseudo-header's sum; the full sum tells.
#[cold]
fn complete(segment: &mut [u8], packet: &Packet, offset: usize) -> bool {
    let other_length =
        packet.protocol == protocol::UDP && usize::from(field::u16_at(segment, 4)) != segment.len();
    let sum = Sum::default().bytes(segment);
    let already_complete = pseudo_header(packet, packet.family, segment)
        .bytes(segment)
        .fold()
        == 0xffff;
    if other_length || already_complete {
        return false;
    }
    // The field's own content is the pseudo-header's part of the sum.
    field::put_u16(segment, offset, sendable(packet.protocol, sum.checksum()));
    true
}

#[cold]
fn complete_sctp(segment: &mut [u8]) -> bool {
    if field::u32_at(segment, SCTP_CHECKSUM) != 0 {
        return false;
    }
    write_sctp(segment);
    true
}
