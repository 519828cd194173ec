//! A datagram's bytes as blocks of eight, the unit of fragment offsets: one bit each.

use std::ops::Range;

/// Bytes in a block.
pub(super) const BLOCK: usize = 8;
/// Blocks in the longest datagram, 65,535 bytes.
const BLOCKS: usize = 8192;
const WORD: usize = u64::BITS as usize;

/// A set of blocks.
#[derive(Clone, Debug)]
pub(super) struct Blocks([u64; BLOCKS / WORD]);

impl Blocks {
    pub(super) const EMPTY: Self = Self([0; BLOCKS / WORD]);

    pub(super) fn insert(&mut self, block: usize) {
        self.0[block / WORD] |= 1 << (block % WORD);
    }

    pub(super) fn insert_all(&mut self, range: Range<usize>) {
        for (word, mask) in masks(range) {
            self.0[word] |= mask;
        }
    }

    /// How many blocks of `range` are in the set.
    pub(super) fn count(&self, range: Range<usize>) -> usize {
        masks(range)
            .map(|(word, mask)| (self.0[word] & mask).count_ones() as usize)
            .sum()
    }

    /// The first block of the set behind `block`.
    pub(super) fn after(&self, block: usize) -> Option<usize> {
        masks(block + 1..BLOCKS)
            .map(|(word, mask)| (word, self.0[word] & mask))
            .find(|&(_, bits)| bits != 0)
            .map(|(word, bits)| word * WORD + bits.trailing_zeros() as usize)
    }
}

/// The words that `range` touches, each with the bits that belong to it.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let (first, last) = (range.start / WORD, range.end.div_ceil(WORD));
    (first..last.max(first)).map(move |word| {
        let low = range.start.saturating_sub(word * WORD).min(WORD);
        let high = range.end.saturating_sub(word * WORD).min(WORD);
        (word, below(high) & !below(low))
    })
}

/// The `n` lowest bits, `n` at most 64.
fn below(n: usize) -> u64 {
    1u64.checked_shl(n as u32).map_or(u64::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            ranges in prop::collection::vec((0usize..8192, 1usize..300), 0..6),
            ask in (0usize..8192, 0usize..400),
        ) {
            let mut blocks = Blocks::EMPTY;
            let mut model = std::collections::BTreeSet::new();
            for (from, length) in ranges {
                let range = from..(from + length).min(8192);
                blocks.insert_all(range.clone());
                model.extend(range);
            }
            let range = ask.0..(ask.0 + ask.1).min(8192);
            prop_assert_eq!(blocks.count(range.clone()), model.range(range).count());
            prop_assert_eq!(blocks.after(ask.0), model.range(ask.0 + 1..).next().copied());
        }
    }
}
