//! Which connections have run out. Looking at every entry each second would cost a cache
//! miss for each; so every entry has a hint beside, "do not look before", and the sweep
//! reads the hints, 16 to a cache line. A packet moves its connection's expiry on without
//! touching the hint: the sweep then looks once too early, and sets the hint anew.
//!
//! A hint is never later than its entry's expiry for long: who makes the expiry earlier
//! lowers the hint, and the sweep looks again after having raised one.

use super::entry::{COMMITTED, phase, version};
use super::reclaim::Cache;
use super::sync::{Acquire, AtomicU32, Relaxed, SeqCst, fence};
use super::table::{Handle, Table};
use crate::time::{TICKS_PER_S, Ticks, is_due};

/// Workers take turns at runs of this many entries.
const RUN: usize = if cfg!(loom) { 64 } else { 1_024 };

/// Looking at an entry costs as much of the budget as this many hints.
const LOOK: usize = 16;

/// The most that one burst's share of the work is: under 2 us where nothing is due.
const BUDGET_MAX: usize = 2_048;

/// The hint of an entry that is not in use.
const NONE: u32 = 0;

impl Table {
    /// What [`Table::sweep`] should do now, so that this worker's share is seen once a
    /// second: what time has made due since the last call, and what is left from before.
    /// 0 when all is done; an idle worker may sweep until then.
    pub fn sweep_budget(&self, cache: &mut Cache, now: Ticks) -> usize {
        let passed = now.wrapping_sub(cache.reckoned.unwrap_or(now));
        if passed as i32 > 0 || cache.reckoned.is_none() {
            cache.reckoned = Some(now);
            let share = (self.high_water() as usize)
                .div_ceil(self.workers())
                .max(RUN) as u64;
            let whole = share * u64::from(TICKS_PER_S);
            let more = share * u64::from(passed.min(TICKS_PER_S));
            cache.owed = whole.min(cache.owed + more);
        }
        BUDGET_MAX.min((cache.owed / u64::from(TICKS_PER_S)) as usize)
    }

    /// Looks at the next entries of this worker's share, at most `budget` of them, and
    /// calls `due` for each whose time has come. `due` decides: it may remove the entry,
    /// or set a new expiry; an entry it leaves is offered again a second later. A look at
    /// an entry counts for more than one that its hint spares, so that a call's time
    /// stays bounded when all connections end at once.
    pub fn sweep(
        &self,
        cache: &mut Cache,
        now: Ticks,
        budget: usize,
        mut due: impl FnMut(&Self, &mut Cache, Handle),
    ) {
        let end = self.high_water() as usize;
        let mut left = budget;
        let (mut seen, mut wrapped) = (0, false);
        let begin = self.in_share(cache.worker, cache.cursor);
        while left > 0 {
            cache.cursor = self.in_share(cache.worker, cache.cursor);
            if wrapped && cache.cursor >= begin.min(end) {
                break; // All of the share was seen in this one call.
            }
            if cache.cursor >= end {
                cache.cursor = 0;
                wrapped = true;
                continue;
            }
            let last = if wrapped { begin.min(end) } else { end };
            let run_end = (cache.cursor / RUN + 1) * RUN;
            let stop = last.min(run_end).min(cache.cursor + left);
            let from = cache.cursor;
            let found = self.next_due(from, stop, now);
            cache.cursor = found.map_or(stop, |index| index + 1);
            seen += cache.cursor - from;
            left -= cache.cursor - from;
            if let Some(index) = found {
                left = left.saturating_sub(LOOK);
                if let Some(handle) = self.look(index, now) {
                    due(self, cache, handle);
                }
            }
        }
        // What one call did not reach for all its looks stays owed.
        let done = if wrapped { budget } else { seen };
        cache.owed = cache
            .owed
            .saturating_sub(done as u64 * u64::from(TICKS_PER_S));
    }

    /// The first place from `cursor` on in one of the worker's runs.
    fn in_share(&self, worker: usize, cursor: usize) -> usize {
        let (run, workers) = (cursor / RUN, self.workers());
        let ahead = (worker + workers - run % workers) % workers;
        if ahead == 0 {
            cursor
        } else {
            (run + ahead) * RUN
        }
    }

    fn next_due(&self, from: usize, stop: usize, now: Ticks) -> Option<usize> {
        let hints = &self.memory.hints()[from..stop];
        let is_due = |hint: &AtomicU32| {
            let at = hint.load(Relaxed);
            at != NONE && is_due(at, now)
        };
        hints.iter().position(is_due).map(|i| from + i)
    }

    /// Looks at an entry whose hint is due: its handle if it is due too, a new hint else.
    fn look(&self, index: usize, now: Ticks) -> Option<Handle> {
        let (entry, hint) = (&self.memory.entries()[index], &self.memory.hints()[index]);
        let old = hint.load(Relaxed);
        let head = entry.head.load(Acquire);
        if old == NONE || phase(head) != COMMITTED {
            return None;
        }
        let expires = entry.expires.load(Relaxed);
        if is_due(expires, now) {
            return Some(Handle {
                index: index as u32,
                version: version(head),
            });
        }
        // Fails where the entry was removed, or its expiry made earlier, just now.
        if hint
            .compare_exchange(old, as_hint(expires), Relaxed, Relaxed)
            .is_ok()
        {
            // Either this sees an earlier expiry set meanwhile, or its setter the new hint.
            fence(SeqCst);
            lower(hint, entry.expires.load(Relaxed));
        }
        None
    }

    /// Sets the hint of a new entry.
    pub(super) fn set_hint(&self, index: u32, expires: Ticks) {
        self.memory.hints()[index as usize].store(as_hint(expires), Relaxed);
    }

    /// Ends the hint of an entry that is no more.
    pub(super) fn clear_hint(&self, index: u32) {
        self.memory.hints()[index as usize].store(NONE, Relaxed);
    }

    /// To be called after an entry's expiry was made earlier.
    pub(super) fn lower_hint(&self, index: u32, expires: Ticks) {
        fence(SeqCst);
        lower(&self.memory.hints()[index as usize], expires);
    }
}

/// Makes a hint no later than `expires`, unless the entry is gone.
fn lower(hint: &AtomicU32, expires: Ticks) {
    let at = as_hint(expires);
    let mut old = hint.load(Relaxed);
    while old != NONE && !is_due(old, at) {
        match hint.compare_exchange(old, at, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

/// The moment, or the one before where the moment's number stands for none.
fn as_hint(expires: Ticks) -> u32 {
    if expires == NONE { u32::MAX } else { expires }
}
