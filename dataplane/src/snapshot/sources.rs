//! The addresses that replies may come from. Every packet is asked about, and most are not
//! from there: so a sieve of a few hundred bytes is asked first, and only for what it lets
//! through the exact set.

use sched::service::Family;

use super::servers::Counts;
use crate::address::Bits;

/// Bits of the sieve for each address, at least: of others, fewer than one in eight get
/// through.
const BITS_PER_ADDRESS: usize = 8;

/// The sieve's least size, bits.
const BITS_MIN: usize = 1024;

/// A set of addresses, each as often as it was added.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    exact: Counts<(Family, Bits)>,
    /// An address that was taken out leaves its bit: the exact set knows.
    sieve: Box<[u64]>,
    /// 64 less the logarithm of the sieve's size in bits.
    shift: u32,
}

impl Sources {
    pub(super) fn add(&mut self, family: Family, address: Bits) {
        if !self.exact.add((family, address)) {
            return;
        }
        if self.exact.len() * BITS_PER_ADDRESS > self.sieve.len() * 64 {
            self.grow();
        } else {
            self.mark(address);
        }
    }

    pub(super) fn take(&mut self, family: Family, address: Bits) {
        self.exact.take((family, address));
    }

    #[inline(always)]
    pub(super) fn contains(&self, family: Family, address: Bits) -> bool {
        let place = place(address, self.shift);
        match self.sieve.get(place / 64) {
            Some(word) if word >> (place % 64) & 1 != 0 => self.is_exact(family, address),
            _ => false,
        }
    }

    #[inline(never)]
    fn is_exact(&self, family: Family, address: Bits) -> bool {
        self.exact.contains(&(family, address))
    }

    /// Makes the sieve twice as large as it must be.
    fn grow(&mut self) {
        let bits = (self.exact.len() * 2 * BITS_PER_ADDRESS)
            .max(BITS_MIN)
            .next_power_of_two();
        self.shift = 64 - bits.trailing_zeros();
        self.sieve = vec![0; bits / 64].into_boxed_slice();
        let all: Vec<Bits> = self.exact.members().map(|(_, address)| *address).collect();
        all.into_iter().for_each(|address| self.mark(address));
    }

    fn mark(&mut self, address: Bits) {
        let place = place(address, self.shift);
        self.sieve[place / 64] |= 1 << (place % 64);
    }
}

/// Fibonacci hashing (Knuth, "The Art of Computer Programming", 6.4) of the folded address.
#[inline(always)]
fn place(address: Bits, shift: u32) -> usize {
    let folded = address as u64 ^ (address >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (shift & 63)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sieve_hides_nothing_and_adds_nothing() {
        for count in [0_u128, 1, 2, 100, 5000] {
            let mut sources = Sources::default();
            for i in 0..count {
                // Twice, and once again taken out; the odd ones not at all in the end.
                for family in [Family::V4, Family::V4, Family::V6] {
                    sources.add(family, base(family) + 7 * i);
                    sources.add(family, base(family) + 7 * i + 1);
                }
                sources.take(Family::V4, base(Family::V4) + 7 * i);
                sources.take(Family::V4, base(Family::V4) + 7 * i + 1);
                sources.take(Family::V4, base(Family::V4) + 7 * i + 1);
                sources.take(Family::V6, base(Family::V6) + 7 * i + 1);
            }
            for i in 0..7 * count + 7 {
                let is_in = i % 7 == 0 && i < 7 * count;
                for family in [Family::V4, Family::V6] {
                    assert_eq!(sources.contains(family, base(family) + i), is_in);
                }
                assert!(!sources.contains(Family::V6, base(Family::V4) + i));
            }
        }
    }

    fn base(family: Family) -> Bits {
        match family {
            Family::V4 => 0x0a00_0000,
            Family::V6 => 0xfd02 << 112,
        }
    }
}
