#![allow(
    unsafe_code,
    reason = "a table in memory that the caller shares with the next process"
)]
//! A table in shared memory, and taking it up after its process ended: also one that was
//! killed between any two instructions. What is in force stays. Where a worker was killed
//! while it changed the index, all else, index, hints, free entries and counts, is made anew
//! from it, so no half-done step has to be known. Mostly none was: then the index stands,
//! and one pass in order finds the free entries.
//!
//! A table whose workers all ended in good order can be settled instead. Then nothing has
//! to be made anew, and the next process is at work at once.

use std::ptr::NonNull;

use sched::server::ServerId;

use super::bucket::{Bucket, SLOTS};
use super::entry::{self, COMMITTED, EXTENSION, Entry, in_phase, phase};
use super::hash::Hash;
use super::reclaim::{Cache, Pile, push_chain};
use super::region::{Memory, RegionError, Shape};
use super::sync::{AcqRel, Relaxed, Release};
use super::table::Table;

/// What was in a table that was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Connections and templates in force.
    pub kept: usize,
    /// Insertions that had not ended, entries that had no room in the new index, and those
    /// that the caller did not want.
    pub dropped: usize,
}

/// An entry that was in force when its process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its server.
    pub server: ServerId,
    /// A persistence template and not a connection.
    pub template: bool,
    /// State and flags.
    pub word: u32,
}

fn survivor(entry: &Entry, head: u32) -> Survivor {
    Survivor {
        server: entry.server(),
        template: entry::is_template(head),
        word: entry.word.load(Relaxed),
    }
}

/// Entries whose buckets are asked for before the first of them is entered.
const AHEAD: u32 = 32;

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
    /// now. Those of its connections that `keep` wants are as they were.
    ///
    /// # Safety
    /// As for [`Table::create_in`], but the memory holds what it held when that process
    /// ended; that process has ended, or at least left the table alone for good.
    pub unsafe fn adopt(
        memory: NonNull<[u8]>,
        workers: usize,
        keep: &mut dyn FnMut(Survivor) -> bool,
    ) -> Result<(Self, Recovered), RegionError> {
        // SAFETY: as the caller promises.
        let table = unsafe { Self::over(memory, workers)? };
        let lines = table.memory.workers();
        let is_whole = lines.iter().all(|line| line.changing.load(Relaxed) == 0);
        let recovered = match is_whole && table.is_sound() {
            true => table.resume_index(keep),
            false => table.recover(keep),
        };
        Ok((table, recovered))
    }

    /// As [`Table::adopt`], where that process had settled the table ([`Table::leave`]):
    /// takes no time. None where it had not.
    ///
    /// # Safety
    /// As for [`Table::adopt`].
    pub unsafe fn adopt_settled(
        memory: NonNull<[u8]>,
        workers: usize,
    ) -> Result<Option<Self>, RegionError> {
        // SAFETY: as the caller promises.
        let table = unsafe { Self::over(memory, workers)? };
        // Settled once: from here on it is only as good as what this process does to it.
        if table.memory.header().settled.swap(0, AcqRel) == 0 {
            return Ok(None);
        }
        let lines = table.memory.workers();
        let in_use = table.len() as u64;
        lines.iter().for_each(|line| {
            line.seen.store(0, Relaxed);
            line.in_use.store(0, Relaxed);
        });
        lines[0].in_use.store(in_use, Relaxed);
        Ok(Some(table))
    }

    /// # Safety
    /// As for [`Table::adopt`].
    unsafe fn over(memory: NonNull<[u8]>, workers: usize) -> Result<Self, RegionError> {
        // SAFETY: as the caller promises.
        let memory = unsafe { Memory::adopt(memory)? };
        if workers == 0 || workers > memory.shape().worker_lines {
            return Err(RegionError::Damaged);
        }
        Ok(Self::on(memory, workers))
    }

    /// What this table's hash is keyed with; as good as a name for it.
    pub fn seed(&self) -> u64 {
        self.memory.header().seed.load(Relaxed)
    }

    /// Leaves the table for [`Table::adopt_settled`]. All workers have ended, and these are
    /// their caches; nobody uses the table from here on.
    pub fn leave(&self, caches: impl IntoIterator<Item = Cache>) {
        caches.into_iter().for_each(|cache| self.give_back(cache));
        self.memory.header().settled.store(1, Release);
    }

    /// Goes on with the index as it is.
    fn resume_index(&self, keep: &mut dyn FnMut(Survivor) -> bool) -> Recovered {
        self.reset_workers();
        let mut recovered = Recovered::default();
        let mut pile = Pile::default();
        // From the end, so that low places are handed out first.
        for index in (1..self.high_water()).rev() {
            let entry = self.entry(index);
            let head = entry.head.load(Relaxed);
            if phase(head) == COMMITTED {
                if keep(survivor(entry, head)) {
                    self.count_kept(head, &mut recovered);
                    continue;
                }
                self.unlink(index, entry, head);
                self.clear_hint(index);
                if let Some(template) = entry.template() {
                    self.let_go(template);
                }
                entry.head.store(in_phase(head, entry::DEAD), Relaxed);
                recovered.dropped += 1;
                if entry::is_extended(head) {
                    // The pass may be beyond it already.
                    let extension = entry.extension_index();
                    let freed = self.entry(extension);
                    if phase(freed.head.load(Relaxed)) == EXTENSION && extension > index {
                        self.restore_free(extension, &mut pile);
                    }
                }
            }
            self.restore_free(index, &mut pile);
        }
        self.stack_up(pile, recovered.kept);
        recovered
    }

    /// Whether the index and the entries in force name only entries that there are: memory that
    /// another process may have damaged is not believed.
    fn is_sound(&self) -> bool {
        let used = self.high_water();
        let is_entry = |bucket: &Bucket| (0..SLOTS).all(|slot| bucket.place(slot) < used);
        let is_whole = |index: u32| {
            let entry = self.entry(index);
            let head = entry.head.load(Relaxed);
            let is_extended = phase(head) == COMMITTED && entry::is_extended(head);
            !is_extended || self.has_extension(index, entry)
        };
        self.memory.buckets().iter().all(is_entry) && (1..used).all(is_whole)
    }

    fn count_kept(&self, head: u32, recovered: &mut Recovered) {
        recovered.kept += 1;
        if entry::is_extended(head) {
            self.memory.workers()[0].extended.fetch_add(1, Relaxed);
        }
    }

    fn reset_workers(&self) {
        for line in self.memory.workers() {
            line.seen.store(0, Relaxed);
            line.in_use.store(0, Relaxed);
            line.extended.store(0, Relaxed);
            line.changing.store(0, Relaxed);
        }
        let header = self.memory.header();
        header.free.0.store(0, Relaxed);
        header.settled.store(0, Relaxed);
    }

    fn stack_up(&self, mut pile: Pile, kept: usize) {
        while let Some(chain) = pile.pop_chain(&self.memory) {
            push_chain(&self.memory, chain);
        }
        self.memory.workers()[0].in_use.store(kept as u64, Relaxed);
    }

    /// Makes all anew from the entries in force that `keep` wants.
    pub(super) fn recover(&self, keep: &mut dyn FnMut(Survivor) -> bool) -> Recovered {
        self.memory.buckets().iter().for_each(Bucket::clear);
        self.reset_workers();
        let used = 1..self.high_water();
        let mut recovered = Recovered::default();
        for first in used.clone().step_by(AHEAD as usize) {
            let some = first..used.end.min(first.saturating_add(AHEAD));
            let mut hashes = [Hash(0); AHEAD as usize];
            for (index, hash) in some.clone().zip(&mut hashes) {
                *hash = self.hash_of_survivor(index);
                self.prefetch_bucket(*hash);
            }
            for (index, hash) in some.zip(hashes) {
                self.restore(index, hash, keep, &mut recovered);
            }
        }
        for index in used.clone() {
            self.restore_hold(index);
        }
        let mut pile = Pile::default();
        // From the end, so that low places are handed out first.
        used.rev()
            .for_each(|index| self.restore_free(index, &mut pile));
        self.stack_up(pile, recovered.kept);
        recovered
    }

    fn hash_of_survivor(&self, index: u32) -> Hash {
        let entry = self.entry(index);
        let head = entry.head.load(Relaxed);
        if phase(head) != COMMITTED {
            return Hash(0);
        }
        self.hash_of(&entry.key(head, self.memory.entries()))
    }

    /// Enters an entry in force into the index anew.
    fn restore(
        &self,
        index: u32,
        hash: Hash,
        keep: &mut dyn FnMut(Survivor) -> bool,
        recovered: &mut Recovered,
    ) {
        let entry = self.entry(index);
        let head = entry.head.load(Relaxed);
        self.clear_hint(index);
        if phase(head) == COMMITTED {
            let is_whole = !entry::is_extended(head) || self.has_extension(index, entry);
            if is_whole && keep(survivor(entry, head)) && self.link(hash, index) {
                if entry::is_template(head) {
                    entry.controlled.store(0, Relaxed);
                }
                self.set_hint(index, entry.expires.load(Relaxed));
                self.count_kept(head, recovered);
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

    /// Gives the free entries of an ended worker to all.
    fn give_back(&self, mut cache: Cache) {
        let mut pile = Pile::default();
        let mut free = std::mem::take(&mut cache.free);
        while free != 0 {
            let next = self.entry(free).link.load(Relaxed) as u32;
            pile.push(&self.memory, free);
            free = next;
        }
        (cache.fresh..cache.fresh_end).for_each(|index| pile.push(&self.memory, index));
        for mut pile in [pile, cache.freed, cache.waiting] {
            while let Some(chain) = pile.pop_chain(&self.memory) {
                push_chain(&self.memory, chain);
            }
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
