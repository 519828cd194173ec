//! The addresses that replies may come from. Every packet is asked about, and most are not
//! from there: so a sieve of a few hundred bytes is asked first, and only for what it lets
//! through the exact set.

use ahash::HashSet;
use sched::service::Family;

use crate::address::Bits;

/// Bits of the sieve for each address: of others, fewer than one in eight get through.
const BITS_PER_ADDRESS: usize = 8;

/// The sieve's least size, bits.
const BITS_MIN: usize = 1024;

/// A set of addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    exact: HashSet<(Family, Bits)>,
    sieve: Box<[u64]>,
    /// 64 less the logarithm of the sieve's size in bits.
    shift: u32,
}

impl Sources {
    pub(super) fn insert(&mut self, family: Family, address: Bits) {
        self.exact.insert((family, address));
    }

    /// Builds the sieve, once all addresses are in.
    pub(super) fn finish(&mut self) {
        if self.exact.is_empty() {
            return;
        }
        let bits = (self.exact.len() * BITS_PER_ADDRESS)
            .max(BITS_MIN)
            .next_power_of_two();
        self.shift = 64 - bits.trailing_zeros();
        self.sieve = vec![0; bits / 64].into_boxed_slice();
        for (_, address) in &self.exact {
            let place = place(*address, self.shift);
            self.sieve[place / 64] |= 1 << (place % 64);
        }
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
                sources.insert(Family::V4, 0x0a00_0000 + 7 * i);
                sources.insert(Family::V6, (0xfd02 << 112) + 7 * i);
            }
            sources.finish();
            for i in 0..7 * count + 7 {
                let is_in = i % 7 == 0 && i < 7 * count;
                assert_eq!(sources.contains(Family::V4, 0x0a00_0000 + i), is_in);
                assert_eq!(sources.contains(Family::V6, (0xfd02 << 112) + i), is_in);
                assert!(!sources.contains(Family::V6, 0x0a00_0000 + i));
            }
        }
    }
}
