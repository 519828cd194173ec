//! The index: a hash table of one cache line per bucket. A bucket holds ten entries' tags
//! and places, and how many entries passed over it because it was full: a look-up ends at
//! the first bucket that nobody passed.
//!
//! A place of 0 is free. To enter: take the place by CAS, then set the tag. To leave:
//! clear the tag, then the place. So a tag of 0 never hides a settled entry, and a reader
//! that meets a tag with another entry's place only compares one key in vain.

use super::hash::Hash;
use super::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release};

/// Entries that a bucket holds.
pub(super) const SLOTS: usize = 10;

/// Buckets in which a client's connections lie together. What finds no room there lies far, by
/// both of its ends. So one endpoint with thousands of connections makes its look-ups, which
/// compare every entry on their way, slower by these 30 entries at most. Three are full at once
/// for one client of 64,000, in a full table.
pub(super) const NEAR_BUCKETS: usize = if cfg!(loom) { 2 } else { 3 };

/// Buckets in which one that lies far may be. Where one endpoint's connections fill the whole
/// table (masqueraded, so twice in the index), five of six entries find a place.
pub(super) const FAR_BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };

/// One in `passed`, the upper half of the last tag word.
const PASSED: u64 = 1 << 32;

#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Tags of 16 bits: four, four, two; above these two, the count of those who passed.
    tags: [AtomicU64; 3],
    places: [AtomicU32; SLOTS],
}

/// One moment's tags of a bucket.
#[derive(Clone, Copy)]
pub(super) struct Tags([u64; 3]);

/// Slots, one bit each.
#[derive(Clone, Copy)]
pub(super) struct Slots(u32);

/// Every slot's bit.
const ALL_SLOTS: u32 = (1 << SLOTS) - 1;

impl Bucket {
    #[inline(always)]
    pub(super) fn tags(&self) -> Tags {
        Tags([
            self.tags[0].load(Acquire),
            self.tags[1].load(Acquire),
            self.tags[2].load(Acquire),
        ])
    }

    /// The entry in `slot`; 0 for none.
    #[inline(always)]
    pub(super) fn place(&self, slot: usize) -> u32 {
        self.places[slot].load(Acquire)
    }

    /// Enters an entry; the slot, or none where the bucket is full.
    pub(super) fn enter(&self, tag: u16, index: u32) -> Option<usize> {
        let slot = self.tags().equal(0).find(|&slot| {
            self.places[slot]
                .compare_exchange(0, index, AcqRel, Relaxed)
                .is_ok()
        })?;
        self.tags[slot / 4].fetch_or(u64::from(tag) << lane(slot), AcqRel);
        Some(slot)
    }

    /// Frees a slot. Only for whoever ended the entry in it.
    pub(super) fn leave(&self, slot: usize) {
        self.tags[slot / 4].fetch_and(!(0xffff << lane(slot)), AcqRel);
        self.places[slot].store(0, Release);
    }

    /// The slot of this entry.
    pub(super) fn slot_of(&self, tag: u16, index: u32) -> Option<usize> {
        self.tags()
            .equal(tag)
            .find(|&slot| self.place(slot) == index)
    }

    /// Counts an entry that goes on to the next bucket.
    pub(super) fn pass(&self) {
        self.tags[2].fetch_add(PASSED, AcqRel);
    }

    /// Counts one who had passed, and ends.
    pub(super) fn unpass(&self) {
        self.tags[2].fetch_sub(PASSED, AcqRel);
    }

    #[cfg(not(loom))]
    /// Empties it; only while nobody else uses the table.
    pub(super) fn clear(&self) {
        self.tags.iter().for_each(|t| t.store(0, Relaxed));
        self.places.iter().for_each(|p| p.store(0, Relaxed));
    }
}

impl Tags {
    /// Whether an entry that belongs here or before may lie further on.
    #[inline(always)]
    pub(super) fn passed(self) -> bool {
        self.0[2] >= PASSED
    }

    /// The slots with this tag.
    #[inline(always)]
    pub(super) fn equal(self, tag: u16) -> Slots {
        Slots(self.compare(tag) & ALL_SLOTS)
    }

    /// The first slot with this tag; where none has it, the last slot: for who looks at what is
    /// in it anyway, and need not ask.
    #[inline(always)]
    pub(super) fn likely(self, tag: u16) -> usize {
        (self.compare(tag) | 1 << (SLOTS - 1)).trailing_zeros() as usize
    }

    /// A bit for each slot with this tag; the bits above these mean nothing. Compares eight tags
    /// at once where the processor can.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    #[allow(unsafe_code, reason = "vector instructions have no safe form here")]
    fn compare(self, tag: u16) -> u32 {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_cvtsi64_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x,
            _mm_set1_epi16,
        };
        let [a, b, c] = self.0.map(|word| word as i64);
        // SAFETY: every x86-64 processor has SSE2.
        unsafe {
            let wanted = _mm_set1_epi16(tag as i16);
            let first = _mm_cmpeq_epi16(_mm_set_epi64x(b, a), wanted);
            let last = _mm_cmpeq_epi16(_mm_cvtsi64_si128(c), wanted);
            _mm_movemask_epi8(_mm_packs_epi16(first, last)) as u32
        }
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn compare(self, tag: u16) -> u32 {
        let is_equal = |slot: &usize| (self.0[slot / 4] >> lane(*slot)) as u16 == tag;
        let slots = (0..SLOTS).filter(is_equal);
        slots.fold(0, |mask, slot| mask | 1 << slot)
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

/// How far left a slot's tag stands in its word.
fn lane(slot: usize) -> usize {
    slot % 4 * 16
}

/// Buckets that entries of one hash may lie in, in order. The number of buckets is prime, so
/// that any stride meets all of them.
#[derive(Clone, Copy)]
pub(super) struct Probe<'b> {
    buckets: &'b [Bucket],
    hash: Hash,
    tag: u16,
    at: usize,
    stride: usize,
    left: usize,
    is_begun: bool,
}

impl<'b> Probe<'b> {
    /// Where a client's connections lie together.
    #[inline(always)]
    pub(super) fn near(buckets: &'b [Bucket], client: Hash) -> Self {
        Self::new(buckets, client, client.tag(), NEAR_BUCKETS)
    }

    /// Where a connection lies for which no room is there.
    pub(super) fn far(buckets: &'b [Bucket], ends: Hash) -> Self {
        // Never the same bucket twice: in it, it could not be told how many were passed.
        let limit = FAR_BUCKETS.min(buckets.len());
        Self::new(buckets, ends, ends.far_tag(), limit)
    }

    #[inline(always)]
    fn new(buckets: &'b [Bucket], hash: Hash, tag: u16, left: usize) -> Self {
        Self {
            buckets,
            hash,
            tag,
            at: hash.home(buckets.len()),
            stride: 0,
            left,
            is_begun: false,
        }
    }

    /// What buckets know its entries by.
    #[inline(always)]
    pub(super) fn tag(&self) -> u16 {
        self.tag
    }

    /// Puts an entry into the first bucket with room. False, and nothing changed, where none
    /// has.
    pub(super) fn enter(self, index: u32) -> bool {
        // Look first: a client that keeps knocking at a full way must not write all along.
        let mut way = self;
        let Some(room) = way.position(|b| b.tags().equal(0).next().is_some()) else {
            return false;
        };
        for (passed, bucket) in self.enumerate() {
            if passed >= room && bucket.enter(self.tag, index).is_some() {
                return true;
            }
            bucket.pass();
        }
        self.for_each(|bucket| bucket.unpass());
        false
    }

    /// Takes an entry out; false where it is not here.
    pub(super) fn leave(self, index: u32) -> bool {
        for (passed, bucket) in self.enumerate() {
            if let Some(slot) = bucket.slot_of(self.tag, index) {
                bucket.leave(slot);
                self.take(passed).for_each(|bucket| bucket.unpass());
                return true;
            }
        }
        false
    }
}

impl<'b> Iterator for Probe<'b> {
    type Item = &'b Bucket;

    #[inline(always)]
    fn next(&mut self) -> Option<&'b Bucket> {
        if self.is_begun {
            self.step();
        }
        self.is_begun = true;
        self.left = self.left.checked_sub(1)?;
        self.buckets.get(self.at)
    }
}

impl Probe<'_> {
    #[inline(always)]
    fn step(&mut self) {
        if self.stride == 0 {
            self.stride = self.hash.stride(self.buckets.len());
        }
        self.at += self.stride;
        if self.at >= self.buckets.len() {
            self.at -= self.buckets.len();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_ten_and_finds_each() {
        let bucket = Bucket::default();
        for i in 0..SLOTS as u32 {
            assert!(
                bucket
                    .enter(if i % 2 == 0 { 7 } else { 0x8000 }, i + 1)
                    .is_some()
            );
        }
        assert_eq!(bucket.enter(7, 99), None);
        let places = |tag| {
            let mut found: Vec<_> = bucket.tags().equal(tag).map(|s| bucket.place(s)).collect();
            found.sort();
            found
        };
        assert_eq!(places(7), [1, 3, 5, 7, 9]);
        assert_eq!(places(0x8000), [2, 4, 6, 8, 10]);
        assert_eq!(places(1), []);
        bucket.leave(bucket.slot_of(7, 5).unwrap());
        assert_eq!(places(7), [1, 3, 7, 9]);
        assert_eq!(bucket.slot_of(7, 5), None);
        assert!(bucket.enter(0xffff, 5).is_some());
        assert_eq!(places(0xffff), [5]);
    }

    #[test]
    fn passing_is_counted_beside_the_tags() {
        let bucket = Bucket::default();
        (1..=10).for_each(|i| assert!(bucket.enter(0xffff, i).is_some()));
        assert!(!bucket.tags().passed());
        bucket.pass();
        bucket.pass();
        bucket.unpass();
        assert!(bucket.tags().passed());
        assert_eq!(bucket.tags().equal(0xffff).count(), SLOTS);
        bucket.unpass();
        assert!(!bucket.tags().passed());
        bucket.pass();
        (0..SLOTS).for_each(|slot| bucket.leave(slot));
        assert!(bucket.tags().passed());
        assert_eq!(bucket.tags().equal(0).count(), SLOTS);
    }

    #[test]
    fn a_probe_meets_each_bucket_once() {
        let buckets: Vec<_> = (0..13).map(|_| Bucket::default()).collect();
        for hash in [0, 1, u64::MAX, 0x8000_0000_7fff_ffff, 0x1234_5678_9abc_def0] {
            let mut met: Vec<_> = Probe::far(&buckets, Hash(hash))
                .take(13)
                .map(|b| b as *const Bucket)
                .collect();
            met.sort();
            met.dedup();
            assert_eq!(met.len(), 13);
        }
    }
}
