//! The addresses that replies may come from. Every packet is asked about, and nearly every
//! packet from a client has to hear "no": so beside the counted set there is a filter of one
//! bit, which says so for nearly all of IPv4 unless servers are thousands, and a table of
//! keys with open addressing, in which most questions end at the first place.

use sched::service::Family;

use super::servers::Counts;
use crate::address::Bits;

/// Places of the table for each address, at least.
const ROOM: usize = 4;

/// The table's least size.
const PLACES_MIN: usize = 64;

/// A set of addresses, each as often as it was added.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    counts: Counts<(Family, Bits)>,
    /// See [`key`]; 0 where there is none. As many as a power of two, or none.
    keys: Box<[u64]>,
    /// 64 less the logarithm of their number.
    shift: u32,
    /// See [`bit`]. Of IPv4 only.
    filter: Filter,
    /// Keys taken out since the filter was made: it may still let theirs pass.
    taken: usize,
}

impl Sources {
    pub(super) fn add(&mut self, family: Family, address: Bits) {
        if !self.counts.add((family, address)) {
            return;
        }
        if self.counts.len() * ROOM > self.keys.len() {
            self.grow();
        } else {
            self.put(key(family, address));
            self.filter.add(family, address);
        }
    }

    pub(super) fn take(&mut self, family: Family, address: Bits) {
        if self.counts.take((family, address)) {
            self.remove(key(family, address));
            self.taken += 1;
            if self.taken > self.counts.len() {
                self.filter_anew();
            }
        }
    }

    #[inline(always)]
    pub(super) fn contains(&self, family: Family, address: Bits) -> bool {
        if family == Family::V4 && !self.filter.may_have(address) {
            return false;
        }
        let wanted = key(family, address);
        let mut place = self.home(wanted);
        // Three of four places are free, so this ends.
        while let Some(&found) = self.keys.get(place)
            && found != 0
        {
            if found == wanted {
                return family == Family::V4 || self.counts_in(family, address);
            }
            place = self.after(place);
        }
        false
    }

    #[inline(never)]
    fn counts_in(&self, family: Family, address: Bits) -> bool {
        self.counts.contains(&(family, address))
    }

    /// Makes the table twice as large as it must be.
    fn grow(&mut self) {
        let places = (self.counts.len() * 2 * ROOM)
            .max(PLACES_MIN)
            .next_power_of_two();
        self.shift = 64 - places.trailing_zeros();
        self.keys = vec![0; places].into_boxed_slice();
        let members = self.counts.members();
        let keys: Vec<u64> = members
            .map(|(family, address)| key(*family, *address))
            .collect();
        keys.into_iter().for_each(|key| self.put(key));
        self.filter_anew();
    }

    fn filter_anew(&mut self) {
        self.taken = 0;
        self.filter = Filter::default();
        for (family, address) in self.counts.members() {
            self.filter.add(*family, *address);
        }
    }

    /// Enters a key, also where it is there: that of another address.
    fn put(&mut self, key: u64) {
        let mut place = self.home(key);
        while self.keys[place] != 0 {
            place = self.after(place);
        }
        self.keys[place] = key;
    }

    /// Takes a key out, and moves those up that it stood in the way of (Knuth, "The Art of
    /// Computer Programming", 6.4, algorithm R).
    fn remove(&mut self, key: u64) {
        let mut hole = self.home(key);
        while self.keys[hole] != key {
            hole = self.after(hole);
        }
        let mask = self.keys.len() - 1;
        let mut place = hole;
        loop {
            self.keys[hole] = 0;
            place = self.after(place);
            let key = self.keys[place];
            if key == 0 {
                return;
            }
            let from_home = place.wrapping_sub(self.home(key)) & mask;
            let from_hole = place.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.keys[hole] = key;
                hole = place;
            }
        }
    }

    /// Fibonacci hashing (Knuth, 6.4).
    #[inline(always)]
    fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (self.shift & 63)) as usize
    }

    #[inline(always)]
    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.keys.len() - 1)
    }
}

/// 4,096 bits, of which each address of IPv4 has one.
#[derive(Clone, Debug)]
struct Filter([u64; 64]);

impl Default for Filter {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Filter {
    fn add(&mut self, family: Family, address: Bits) {
        if family == Family::V4 {
            let bit = bit(address);
            self.0[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    #[inline(always)]
    fn may_have(&self, address: Bits) -> bool {
        let bit = bit(address);
        self.0[(bit / 64) as usize] >> (bit % 64) & 1 != 0
    }
}

/// The bit of an address of IPv4, as packets have it: Fibonacci hashing again, in 32 bits.
#[inline(always)]
fn bit(address: Bits) -> u32 {
    (address as u32).to_be().wrapping_mul(0x9e37_79b9) >> 20
}

/// Never 0. Of IPv4 the address itself; of IPv6 an address folded, which others may share.
#[inline(always)]
fn key(family: Family, address: Bits) -> u64 {
    match family {
        Family::V4 => address as u64 | 1 << 32,
        Family::V6 => address as u64 ^ (address >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Neighbours, and of IPv6 also such as fold to the same key.
    fn address(family: Family, number: u8) -> Bits {
        let number = Bits::from(number);
        match family {
            Family::V4 => number,
            Family::V6 => ((0xfd02 ^ (number / 2)) << 64) | (number / 2),
        }
    }

    proptest! {
        #[test]
        fn the_table_hides_nothing_and_adds_nothing(
            changes in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u8>()), 0..600),
        ) {
            let mut sources = Sources::default();
            let mut model = HashMap::new();
            for (is_v6, adds, number) in changes {
                let family = if is_v6 { Family::V6 } else { Family::V4 };
                let count: &mut u32 = model.entry((family, address(family, number))).or_default();
                if adds {
                    sources.add(family, address(family, number));
                    *count += 1;
                } else {
                    sources.take(family, address(family, number));
                    *count = count.saturating_sub(1);
                }
            }
            for family in [Family::V4, Family::V6] {
                for number in 0..=255 {
                    let end = (family, address(family, number));
                    let is_in = model.get(&end).is_some_and(|count| *count > 0);
                    prop_assert_eq!(sources.contains(end.0, end.1), is_in);
                }
            }
        }
    }
}
