//! What the translation of a connection's packets changes in their checksums: the same for
//! each, so it is reckoned once, when the connection begins (RFC 1624).

use sched::service::Family;

use crate::address::Endpoint;
use crate::forward::checksum::{self, Sum};
use crate::forward::hop_limit;
use crate::frame::field;

/// What translation from a connection's virtual endpoint to its real one takes off checksums,
/// 16 bits each: below IPv4's, one hop included, above it TCP's or UDP's. In the machine's
/// byte order, as checksums lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Correction(pub(crate) u32);

impl Correction {
    /// For both ends of `family`.
    pub(crate) fn between(family: Family, virtual_: Endpoint, real: Endpoint) -> Self {
        let of_address = Sum::default()
            .without_address(family, virtual_.address)
            .address(family, real.address);
        let of_both = of_address.without_word(virtual_.port).word(real.port);
        let header = of_address.and(hop_limit::ONE_LESS).fold_as_is();
        Self(u32::from(header) | u32::from(of_both.fold_as_is()) << 16)
    }

    /// Updates the header's checksum at `at` of a packet to the real endpoint.
    #[inline(always)]
    pub(super) fn header_there(self, header: &mut [u8], at: usize) {
        checksum::take_off(header, at, self.0 as u16);
    }

    /// Updates the transport's checksum at `at` of a packet to the real endpoint.
    #[inline(always)]
    pub(super) fn transport_there(self, header: &mut [u8], at: usize) {
        checksum::take_off(header, at, (self.0 >> 16) as u16);
    }

    /// Updates the header's checksum of a packet from the real endpoint. The hop counts the
    /// same way as there, and the rest the other way.
    #[inline(always)]
    pub(super) fn header_back(self, header: &mut [u8], at: usize) {
        let twice_the_hop = 2 * u32::from(hop_limit::ONE_LESS.fold_as_is());
        give(header, at, twice_the_hop, !(self.0 as u16));
    }

    /// Updates the transport's checksum of a packet from the real endpoint.
    #[inline(always)]
    pub(super) fn transport_back(self, header: &mut [u8], at: usize) {
        give(header, at, 0, !((self.0 >> 16) as u16));
    }
}

/// Adds `more`, which may be 0, and a small constant to the sum that a checksum is the
/// complement of.
#[inline(always)]
fn give(header: &mut [u8], at: usize, constant: u32, more: u16) {
    let old = u16::from_ne_bytes(field::array(header, at));
    // All ones count as nothing, and let no sum be 0: the sum of all changes never is.
    let sum = 0xffff + constant + u32::from(!old) + u32::from(more);
    let folded = sum.wrapping_add(sum.rotate_left(16)) >> 16;
    field::put(header, at, (!folded as u16).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::checksum::IPV4_CHECKSUM;

    /// Small numbers make the corner cases, in which all bits of a sum are alike.
    fn corner() -> impl Strategy<Value = u16> {
        prop_oneof![
            Just(0),
            Just(1),
            Just(0xff),
            Just(0xff00),
            Just(0xfffe),
            Just(0xffff),
            any::<u16>()
        ]
    }

    fn end() -> impl Strategy<Value = (u128, u16)> {
        (prop::collection::vec(corner(), 8), corner()).prop_map(|(words, port)| {
            let address = words
                .iter()
                .fold(0, |address, word| address << 16 | u128::from(*word));
            (address, port)
        })
    }

    fn updated(old: u16, change: Sum) -> u16 {
        change.word(!old).checksum()
    }

    proptest! {
        #[test]
        fn is_what_the_changes_add_up_to(
            is_v6 in any::<bool>(), virtual_ in end(), real in end(), old in corner(), hops in 2_u8..,
        ) {
            let family = if is_v6 { Family::V6 } else { Family::V4 };
            let [virtual_, real] = [virtual_, real].map(|(address, port)| Endpoint {
                address: if is_v6 { address } else { address & 0xffff_ffff },
                port,
            });
            let correction = Correction::between(family, virtual_, real);
            for (from, to, there) in [(virtual_, real, true), (real, virtual_, false)] {
                let of_address = Sum::default()
                    .without_address(family, from.address)
                    .address(family, to.address);
                let of_both = of_address.without_word(from.port).word(to.port);
                let mut header = [0; 20];
                let hop = |hops: u8| u16::from_be_bytes([hops, 6]);
                let of_hop = Sum::default().without_word(hop(hops)).word(hop(hops - 1));
                for (is_header, change) in [(true, of_address.and(of_hop)), (false, of_both)] {
                    field::put_u16(&mut header, IPV4_CHECKSUM, old);
                    match (is_header, there) {
                        (true, true) => correction.header_there(&mut header, IPV4_CHECKSUM),
                        (true, false) => correction.header_back(&mut header, IPV4_CHECKSUM),
                        (false, true) => correction.transport_there(&mut header, IPV4_CHECKSUM),
                        (false, false) => correction.transport_back(&mut header, IPV4_CHECKSUM),
                    }
                    let got = field::u16_at(&header, IPV4_CHECKSUM);
                    prop_assert_eq!(got, updated(old, change), "{} {}", is_header, there);
                }
            }
        }
    }
}
