//! What every router does: one hop less.

use sched::service::Family;

use super::checksum;
use crate::frame::{Frame, Packet, field};

/// Offset of IPv4's time to live (RFC 791).
const IPV4_TTL: usize = 8;
/// Offset of IPv6's hop limit (RFC 8200).
const IPV6_HOP_LIMIT: usize = 7;

/// Takes one hop off. False, and nothing changed, where none is left to take (1 or 0):
/// the packet must not be forwarded.
#[inline]
#[must_use]
pub fn decrement(frame: &mut Frame<'_>, packet: &mut Packet) -> bool {
    if packet.hop_limit <= 1 {
        return false;
    }
    packet.hop_limit -= 1;
    let bytes = &mut frame.bytes_mut()[packet.network..];
    match packet.family {
        Family::V4 => {
            // The field shares its 16-bit word with the protocol.
            let before = u16::from_be_bytes(field::array(bytes, IPV4_TTL));
            let after = before - 0x100;
            field::put_u16(bytes, IPV4_TTL, after);
            let sum = field::u16_at(bytes, checksum::IPV4_CHECKSUM);
            let sum = checksum::update(sum, before, after);
            field::put_u16(bytes, checksum::IPV4_CHECKSUM, sum);
        }
        Family::V6 => bytes[IPV6_HOP_LIMIT] = packet.hop_limit,
    }
    true
}
