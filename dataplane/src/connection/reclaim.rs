//! Where entries come from and go to. A freed entry waits until every worker has ended the
//! burst it was in: nobody holds a handle to it then, or has its place from the index.
//!
//! Each worker says in its own line which epoch its burst began in. Who has freed some
//! entries moves the epoch on; they are free once all workers have seen the new one. A
//! worker that sleeps says so and is not waited for.
//!
//! Free entries travel in chains, through a stack shared by all. Memory never used before
//! comes last, so that a table's memory grows only as far as its connections did.

use super::entry::Entry;
use super::region::Memory;
use super::sync::{AcqRel, Acquire, Relaxed, Release, SeqCst, fence};
use super::table::Table;
use crate::time::Ticks;

/// Free entries that travel together.
const CHAIN: u32 = if cfg!(loom) { 1 } else { 32 };

/// Unused entries that a worker takes at once.
const FRESH: u32 = if cfg!(loom) { 1 } else { 32 };

/// Entries that may lie idle in one worker's cache: those freshly taken, and a chain. The
/// table has as many more than its capacity, so that they are nobody's loss.
pub(super) const SPARE_PER_WORKER: usize = (FRESH + CHAIN) as usize;

/// Bursts after which a worker has few freed entries looked after as well.
const PATIENCE: u32 = if cfg!(loom) { 0 } else { 64 };

/// Chains that one burst's end gives back at most: above what a burst can free.
const CHAINS_PER_BURST: usize = 16;

/// What one worker keeps of the table for itself: free entries taken in advance, freed
/// ones that wait for the other workers' bursts to end, and its place in the sweep.
#[derive(Debug)]
pub struct Cache {
    pub(super) worker: usize,
    /// The first of a chain of free entries.
    pub(super) free: u32,
    /// Unused entries: from this place, up to that.
    pub(super) fresh: u32,
    pub(super) fresh_end: u32,
    /// Freed since the last time the epoch was moved on.
    pub(super) freed: Pile,
    /// Freed before; theirs is the epoch `stamp`.
    pub(super) waiting: Pile,
    stamp: u64,
    /// All workers have seen the stamp.
    ripe: bool,
    patience: u32,
    /// The epoch in the worker's line.
    seen: u64,
    /// The next entry that the sweep looks at.
    pub(super) cursor: usize,
    /// When the sweep's work was last reckoned, and what is left of it, in 1/16 hints.
    pub(super) reckoned: Option<Ticks>,
    pub(super) owed: u64,
}

/// Chains of entries; the last is still being made.
#[derive(Debug, Default)]
pub(super) struct Pile {
    chains: u32,
    begun: u32,
    begun_len: u32,
}

impl Table {
    /// Worker `worker`'s own part; to be taken once per worker. It begins as if resumed:
    /// from here on freed entries wait for this worker's `quiesce`, or its `pause`.
    pub fn cache(&self, worker: usize) -> Cache {
        assert!(
            worker < self.workers(),
            "worker {worker} of {}",
            self.workers()
        );
        let mut cache = Cache {
            worker,
            free: 0,
            fresh: 0,
            fresh_end: 0,
            freed: Pile::default(),
            waiting: Pile::default(),
            stamp: 0,
            ripe: false,
            patience: 0,
            seen: 0,
            cursor: 0,
            reckoned: None,
            owed: 0,
        };
        self.resume(&mut cache);
        cache
    }

    /// Tells that `worker` holds no handle any more: its burst has ended. Cheap.
    #[inline]
    pub fn quiesce(&self, cache: &mut Cache) {
        let epoch = self.memory.header().epoch.0.load(Acquire);
        if epoch != cache.seen {
            cache.seen = epoch;
            self.line(cache).seen.store(epoch, Release);
        }
        if !(cache.freed.is_empty() && cache.waiting.is_empty()) {
            self.reclaim(cache, PATIENCE);
        }
    }

    /// Tells that the worker holds no handle and will not look until `resume`: it is about
    /// to sleep, and must not hold up the others.
    pub fn pause(&self, cache: &mut Cache) {
        self.line(cache).seen.store(0, Release);
        cache.seen = 0;
        self.reclaim(cache, 0);
    }

    /// Ends a `pause`.
    pub fn resume(&self, cache: &mut Cache) {
        cache.seen = self.memory.header().epoch.0.load(Acquire);
        self.line(cache).seen.store(cache.seen, Relaxed);
        // Whoever judged this worker asleep has taken its entries out of the index before:
        // either it sees the line above, or the worker sees the index without them.
        fence(SeqCst);
    }

    /// A free entry.
    pub(super) fn take(&self, cache: &mut Cache) -> Option<u32> {
        loop {
            if cache.free != 0 {
                let index = cache.free;
                cache.free = next(self.entry(index));
                return Some(index);
            }
            if cache.fresh < cache.fresh_end {
                cache.fresh += 1;
                return Some(cache.fresh - 1);
            }
            if !self.restock(cache) {
                return None;
            }
        }
    }

    /// Gives back an entry that nobody else has seen.
    pub(super) fn untake(&self, cache: &mut Cache, index: u32) {
        set_next(self.entry(index), cache.free);
        cache.free = index;
    }

    /// Puts an entry aside that was taken out of the index.
    pub(super) fn retire(&self, cache: &mut Cache, index: u32) {
        cache.freed.push(&self.memory, index);
    }

    fn restock(&self, cache: &mut Cache) -> bool {
        self.take_chain(cache) || self.take_fresh(cache) || {
            self.reclaim(cache, 0);
            // What was let go of may have come here at once.
            cache.free != 0 || self.take_chain(cache)
        }
    }

    fn take_chain(&self, cache: &mut Cache) -> bool {
        cache.free = pop_chain(&self.memory).unwrap_or(0);
        cache.free != 0
    }

    fn take_fresh(&self, cache: &mut Cache) -> bool {
        let fresh = &self.memory.header().fresh.0;
        let end = self.memory.shape().entries as u32;
        let step = |from: u32| (from < end).then(|| end.min(from + FRESH));
        let Ok(from) = fresh.fetch_update(Relaxed, Relaxed, step) else {
            return false;
        };
        cache.fresh = from;
        cache.fresh_end = end.min(from + FRESH);
        true
    }

    /// Lets go of what has waited long enough, and has what was freed since wait.
    #[cold]
    #[inline(never)]
    fn reclaim(&self, cache: &mut Cache, patience: u32) {
        if !cache.waiting.is_empty() {
            cache.ripe = cache.ripe || self.all_have_seen(cache.stamp);
            if cache.ripe {
                self.release(cache);
            }
        }
        cache.patience += 1;
        let is_time = !cache.freed.is_small() || cache.patience > patience;
        if cache.waiting.is_empty() && !cache.freed.is_empty() && is_time {
            cache.patience = 0;
            cache.waiting = std::mem::take(&mut cache.freed);
            // Whoever reads this or a later epoch sees the index without these entries.
            cache.stamp = self.memory.header().epoch.0.fetch_add(1, AcqRel) + 1;
            cache.ripe = false;
        }
    }

    fn release(&self, cache: &mut Cache) {
        for _ in 0..CHAINS_PER_BURST {
            match cache.waiting.pop_chain(&self.memory) {
                None => return,
                Some(chain) if cache.free == 0 => cache.free = chain,
                Some(chain) => push_chain(&self.memory, chain),
            }
        }
    }

    fn all_have_seen(&self, stamp: u64) -> bool {
        fence(SeqCst);
        self.memory.workers()[..self.workers()].iter().all(|line| {
            let seen = line.seen.load(Acquire);
            seen == 0 || seen >= stamp
        })
    }
}

impl Pile {
    fn is_empty(&self) -> bool {
        self.chains == 0 && self.begun == 0
    }

    /// Less than a whole chain.
    fn is_small(&self) -> bool {
        self.chains == 0
    }

    pub(super) fn push(&mut self, memory: &Memory, index: u32) {
        let entry = &memory.entries()[index as usize];
        self.begun_len += 1;
        if self.begun_len < CHAIN {
            entry.link.store(u64::from(self.begun), Relaxed);
            self.begun = index;
        } else {
            let link = u64::from(self.chains) << 32 | u64::from(self.begun);
            entry.link.store(link, Relaxed);
            *self = Self {
                chains: index,
                begun: 0,
                begun_len: 0,
            };
        }
    }

    pub(super) fn pop_chain(&mut self, memory: &Memory) -> Option<u32> {
        if self.chains != 0 {
            let first = self.chains;
            self.chains = next_chain(&memory.entries()[first as usize]);
            return Some(first);
        }
        let first = std::mem::take(&mut self.begun);
        self.begun_len = 0;
        (first != 0).then_some(first)
    }
}

fn next(entry: &Entry) -> u32 {
    entry.link.load(Relaxed) as u32
}

fn set_next(entry: &Entry, next: u32) {
    entry.link.store(u64::from(next), Relaxed);
}

fn next_chain(entry: &Entry) -> u32 {
    (entry.link.load(Relaxed) >> 32) as u32
}

/// Adds a chain to the shared stack.
pub(super) fn push_chain(memory: &Memory, first: u32) {
    let head = &memory.header().free.0;
    let entry = &memory.entries()[first as usize];
    let below = u64::from(next(entry));
    let mut old = head.load(Relaxed);
    loop {
        entry.link.store(below | old << 32, Relaxed);
        match head.compare_exchange(old, changed(old, first), Release, Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

/// Takes a chain from the shared stack.
fn pop_chain(memory: &Memory) -> Option<u32> {
    let head = &memory.header().free.0;
    let mut old = head.load(Acquire);
    loop {
        let first = old as u32;
        if first == 0 {
            return None;
        }
        // Another may take the chain just now: then this is nonsense, and so says the
        // count of changes in the head.
        let below = next_chain(memory.entries().get(first as usize)?);
        match head.compare_exchange(old, changed(old, below), AcqRel, Acquire) {
            Ok(_) => return Some(first),
            Err(now) => old = now,
        }
    }
}

/// The stack's head with another first chain, one change later.
fn changed(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}
