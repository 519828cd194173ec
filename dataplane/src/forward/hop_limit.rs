//! What every router does: one hop less.

use sched::service::Family;

use super::checksum::{self, Sum};
use crate::frame::{Frame, Packet};

/// Offset of IPv4's time to live (RFC 791).
const IPV4_TTL: usize = 8;
/// Offset of IPv6's hop limit (RFC 8200).
const IPV6_HOP_LIMIT: usize = 7;

/// What one hop less adds to the sum of an IPv4 header: the field is the upper byte of a
/// 16-bit word.
pub(crate) const ONE_LESS: Sum = Sum::NONE.without_word(0x100);

/// Takes one hop off. False, and nothing changed, where none is left to take (1 or 0):
/// the packet must not be forwarded.
#[inline]
#[must_use]
pub fn decrement(frame: &mut Frame<'_>, packet: &mut Packet) -> bool {
    if packet.hop_limit <= 1 {
        return false;
    }
    packet.hop_limit -= 1;
    let header = &mut frame.bytes_mut()[packet.network..packet.transport];
    take_one(header, packet.family);
    true
}

/// The hop limit of the packet whose IP header begins `header`.
#[inline(always)]
pub(crate) fn of(header: &[u8], family: Family) -> u8 {
    header[match family {
        Family::V4 => IPV4_TTL,
        Family::V6 => IPV6_HOP_LIMIT,
    }]
}

/// Takes one hop off the IP header that begins `header`, which has at least one.
#[inline(always)]
pub(crate) fn take_one(header: &mut [u8], family: Family) {
    match family {
        Family::V4 => {
            take_one_unsummed(header);
            checksum::take_off(header, checksum::IPV4_CHECKSUM, ONE_LESS.fold_as_is());
        }
        Family::V6 => header[IPV6_HOP_LIMIT] -= 1,
    }
}

/// As [`take_one`] of IPv4, but for the checksum: that changes by [`ONE_LESS`].
#[inline(always)]
pub(crate) fn take_one_unsummed(header: &mut [u8]) {
    header[IPV4_TTL] -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_frame, frame, roomy};

    #[test]
    fn takes_one_hop_off() {
        let rows = [
            (
                "ipv4",
                "10.9.0.1 > 10.1.0.1 ttl=64 / tcp 1 > 80 S",
                63,
                true,
            ),
            (
                "ipv4 with options",
                "10.9.0.1 > 10.1.0.1 ttl=2 opts=94040000 / udp 1 > 2",
                1,
                true,
            ),
            (
                "ipv4, the last",
                "10.9.0.1 > 10.1.0.1 ttl=1 / tcp 1 > 80 S",
                1,
                false,
            ),
            (
                "ipv4, none",
                "10.9.0.1 > 10.1.0.1 ttl=0 / tcp 1 > 80 S",
                0,
                false,
            ),
            (
                "ipv6",
                "fd09::1 > fd01::1 ttl=255 / tcp 1 > 80 S",
                254,
                true,
            ),
            (
                "ipv6, the last",
                "fd09::1 > fd01::1 ttl=1 / tcp 1 > 80 S",
                1,
                false,
            ),
        ];
        for (what, before, left, goes) in rows {
            let (mut memory, from, until) = roomy(&frame(before));
            let mut f = Frame::new(&mut memory, from, until).unwrap();
            let mut packet = Packet::parse(&mut f).unwrap();
            assert_eq!(decrement(&mut f, &mut packet), goes, "{what}");
            assert_eq!(packet.hop_limit, left, "{what}");
            let spent = before.find("ttl=").unwrap();
            let rest = before[spent..].split_once(' ').unwrap().1;
            let after = format!("{}ttl={left} {rest}", &before[..spent]);
            assert_frame(what, f.bytes(), &frame(&after));
        }
    }

    #[test]
    fn the_checksum_stays_right_for_every_header() {
        for ttl in 2..=255 {
            for id in [0, 1, 0x7fff, 0xfffe, 0xffff, 44_000, 45_000] {
                let text = |ttl| format!("10.9.0.1 > 10.1.0.1 ttl={ttl} id={id} / udp 1 > 2");
                let mut bytes = frame(&text(ttl));
                let end = bytes.len();
                let mut f = Frame::new(&mut bytes, 0, end).unwrap();
                let mut packet = Packet::parse(&mut f).unwrap();
                assert!(decrement(&mut f, &mut packet));
                assert_frame("ttl", f.bytes(), &frame(&text(ttl - 1)));
            }
        }
    }
}
