#![allow(
    unsafe_code,
    reason = "a table in memory that the caller shares with the next process"
)]
//! A table in shared memory, and taking it up after its process ended: also one that was
//! killed between any two instructions. What is in force stays; all else, index, hints,
//! free entries and counts, is made anew from it, so no half-done step has to be known.

use std::ptr::NonNull;

use super::bucket::Bucket;
use super::entry::{self, COMMITTED, EXTENSION, Entry, in_phase, phase};
use super::reclaim::{Pile, push_chain};
use super::region::{Memory, RegionError, Shape};
use super::sync::Relaxed;
use super::table::Table;

/// What was in a table that was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Connections and templates in force.
    pub kept: usize,
    /// Insertions that had not ended, and entries that had no room in the new index.
    pub dropped: usize,
}

impl Table {
    /// The memory that a table of this size needs, for [`Table::create_in`].
    pub fn needed_bytes(capacity: usize, workers: usize) -> usize {
        Shape::new(capacity, workers).bytes()
    }

    /// A new table in the caller's memory.
    ///
    /// # Safety
    /// The memory is readable, writable and all zero; it stays mapped as long as the table
    /// lives; and nothing but tables over it accesses it in that time.
    pub unsafe fn create_in(
        memory: NonNull<[u8]>,
        capacity: usize,
        workers: usize,
        seed: u64,
    ) -> Result<Self, RegionError> {
        let shape = Shape::new(capacity, workers);
        // SAFETY: as the caller promises.
        let memory = unsafe { Memory::create_in(memory, shape, seed)? };
        Ok(Self::on(memory, workers))
    }

    /// The table that an earlier process left in the caller's memory, for `workers` workers
    /// now. Its connections are as they were.
    ///
    /// # Safety
    /// As for [`Table::create_in`], but the memory holds what it held when that process
    /// ended; that process has ended, or at least left the table alone for good.
    pub unsafe fn adopt(
        memory: NonNull<[u8]>,
        workers: usize,
    ) -> Result<(Self, Recovered), RegionError> {
        // SAFETY: as the caller promises.
        let memory = unsafe { Memory::adopt(memory)? };
        if workers == 0 || workers > memory.shape().worker_lines {
            return Err(RegionError::Damaged);
        }
        let table = Self::on(memory, workers);
        let recovered = table.recover();
        Ok((table, recovered))
    }

    /// Makes all anew from the entries in force.
    pub(super) fn recover(&self) -> Recovered {
        self.memory.buckets().iter().for_each(Bucket::clear);
        for line in self.memory.workers() {
            line.seen.store(0, Relaxed);
            line.in_use.store(0, Relaxed);
            line.extended.store(0, Relaxed);
        }
        let header = self.memory.header();
        header.free.0.store(0, Relaxed);
        let used = 1..self.high_water();
        let mut recovered = Recovered::default();
        for index in used.clone() {
            self.restore(index, &mut recovered);
        }
        for index in used.clone() {
            self.restore_hold(index);
        }
        let mut pile = Pile::default();
        // From the end, so that low places are handed out first.
        used.rev()
            .for_each(|index| self.restore_free(index, &mut pile));
        while let Some(chain) = pile.pop_chain(&self.memory) {
            push_chain(&self.memory, chain);
        }
        self.memory.workers()[0]
            .in_use
            .store(recovered.kept as u64, Relaxed);
        recovered
    }

    /// Enters an entry in force into the index anew.
    fn restore(&self, index: u32, recovered: &mut Recovered) {
        let entry = self.entry(index);
        let head = entry.head.load(Relaxed);
        self.clear_hint(index);
        if phase(head) == COMMITTED {
            let key = || entry.key(head, self.memory.entries());
            let is_whole = !entry::is_extended(head) || self.has_extension(index, entry);
            if is_whole && self.link(self.hash_of(&key()), index) {
                entry.controlled.store(0, Relaxed);
                self.set_hint(index, entry.expires.load(Relaxed));
                recovered.kept += 1;
                if entry::is_extended(head) {
                    self.memory.workers()[0].extended.fetch_add(1, Relaxed);
                }
                return;
            }
        }
        if matches!(phase(head), COMMITTED | entry::TENTATIVE | entry::ABORTED) {
            entry.head.store(in_phase(head, entry::DEAD), Relaxed);
            recovered.dropped += 1;
        }
    }

    fn restore_hold(&self, index: u32) {
        let entry = self.entry(index);
        if phase(entry.head.load(Relaxed)) == COMMITTED
            && let Some(template) = entry.template()
            && let Some(template) = self.in_force(template)
        {
            template.controlled.fetch_add(1, Relaxed);
        }
    }

    fn restore_free(&self, index: u32, pile: &mut Pile) {
        let entry = self.entry(index);
        let head = entry.head.load(Relaxed);
        let is_used = match phase(head) {
            COMMITTED => true,
            EXTENSION => self.extends_its_owner(index, entry),
            _ => false,
        };
        if !is_used {
            entry.head.store(in_phase(head, entry::FREE), Relaxed);
            pile.push(&self.memory, index);
        }
    }

    fn has_extension(&self, index: u32, entry: &Entry) -> bool {
        let place = entry.extension_index();
        (1..self.high_water()).contains(&place) && {
            let extension = self.entry(place);
            phase(extension.head.load(Relaxed)) == EXTENSION && extension.owner() == index
        }
    }

    fn extends_its_owner(&self, index: u32, extension: &Entry) -> bool {
        let Some(owner) = self.memory.entries().get(extension.owner() as usize) else {
            return false;
        };
        let head = owner.head.load(Relaxed);
        phase(head) == COMMITTED && entry::is_extended(head) && owner.extension_index() == index
    }
}
