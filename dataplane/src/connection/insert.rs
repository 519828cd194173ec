//! Entering a connection, so that two cores with the same one end with one entry. No
//! locks, and nobody waits for a core that may be asleep.
//!
//! Each enters its entry as tentative, then looks for others with the same key. Another
//! in force stands: the own entry is withdrawn. Another tentative one is aborted. Then the
//! own entry comes into force, unless somebody aborted it: then the core tries again.
//! Between entering (or trying again) and looking lies a full fence. So of any two, the
//! one whose fence came later saw the other: it withdrew, or it aborted the other before
//! that came into force. Two in force at once cannot be. Who sees a tentative entry of a
//! lower place gives it a moment first, so that both do not abort each other for long.

use super::entry::{
    ABORTED, COMMITTED, DEAD, Entry, TENTATIVE, Wanted, in_phase, needs_extension, phase,
};
use super::hash::{Hash, Other};
use super::reclaim::Cache;
use super::sync::{AcqRel, Acquire, Relaxed, Release, SeqCst, fence};
use super::table::{Draft, Full, Handle, Inserted, Table, handle};
use crate::time::Ticks;

/// How often an insertion may be aborted. Each time another core has made a step in the
/// few nanoseconds between a look and a CAS; that this happens so often is not expected.
const ATTEMPTS: usize = if cfg!(loom) { 3 } else { 64 };

/// How long to give a tentative entry that goes first, in pauses of the processor.
const PATIENCE: usize = if cfg!(loom) { 0 } else { 200 };

impl Table {
    /// Enters `draft`, unless an entry with its key is there already.
    ///
    /// A draft's template must be a handle of this burst. It holds one `controlled` on the
    /// template; where that ended meanwhile, the connection has none.
    pub fn insert(&self, cache: &mut Cache, draft: &Draft, now: Ticks) -> Result<Inserted, Full> {
        self.insert_hashed(cache, self.hash_of(&draft.key), draft, now)
    }

    /// As [`Table::insert`], with the hash of the key's client.
    pub fn insert_hashed(
        &self,
        cache: &mut Cache,
        hash: Hash,
        draft: &Draft,
        now: Ticks,
    ) -> Result<Inserted, Full> {
        match self.find_hashed(hash, &draft.key) {
            Some(found) => Ok(Inserted::Found(found)),
            None => self.enter(cache, hash, draft, now),
        }
    }

    /// As [`Table::insert`], for a key that was looked for just now, and not found. Where
    /// another core has entered it since, that stands.
    pub fn insert_missed(
        &self,
        cache: &mut Cache,
        draft: &Draft,
        now: Ticks,
    ) -> Result<Inserted, Full> {
        self.enter(cache, self.hash_of(&draft.key), draft, now)
    }

    fn enter(
        &self,
        cache: &mut Cache,
        hash: Hash,
        draft: &Draft,
        now: Ticks,
    ) -> Result<Inserted, Full> {
        let _changing = self.memory.workers()[cache.worker].change();
        let (index, extension) = self.take_entries(cache, draft)?;
        let expires = now.wrapping_add(draft.timeout);
        let template = draft.template.filter(|template| self.hold(*template));
        if extension != 0 {
            self.entry(extension).write_extension(index, draft);
        }
        let head = self.entry(index).write(draft, template, extension, expires);
        self.set_hint(index, expires);
        if !self.link(hash, index) {
            self.withdraw(cache, index, head);
            return Err(Full);
        }
        let settled = self.settle(hash, draft, index, head);
        if settled == Ok(Inserted::New(handle(index, head))) {
            self.count(cache, head, 1);
        } else {
            self.unlink(index, self.entry(index), head);
            self.withdraw(cache, index, head);
        }
        settled
    }

    /// The draft's entry and, where it needs one, its extension.
    fn take_entries(&self, cache: &mut Cache, draft: &Draft) -> Result<(u32, u32), Full> {
        let index = self.take(cache).ok_or(Full)?;
        if !needs_extension(draft) {
            return Ok((index, 0));
        }
        match self.take(cache) {
            Some(extension) => Ok((index, extension)),
            None => {
                self.untake(cache, index);
                Err(Full)
            }
        }
    }

    fn hold(&self, template: Handle) -> bool {
        let Some(template) = self.in_force(template) else {
            return false;
        };
        template.controlled.fetch_add(1, Relaxed);
        true
    }

    /// Decides between this tentative entry and others with the same key.
    fn settle(&self, hash: Hash, draft: &Draft, index: u32, head: u32) -> Result<Inserted, Full> {
        let own = &self.entry(index).head;
        let committed = in_phase(head, COMMITTED);
        for attempt in 0..ATTEMPTS {
            fence(SeqCst);
            if attempt == 0 {
                self.share(hash, draft, index);
            }
            if let Some(standing) = self.abort_rivals(hash, draft, index) {
                return Ok(Inserted::Found(standing));
            }
            if own
                .compare_exchange(head, committed, AcqRel, Relaxed)
                .is_ok()
            {
                return Ok(Inserted::New(handle(index, head)));
            }
            own.store(head, Release);
        }
        Err(Full)
    }

    /// Aborts tentative entries of the same key; one in force, if there is one.
    fn abort_rivals(&self, hash: Hash, draft: &Draft, own: u32) -> Option<Handle> {
        let pool = self.memory.entries();
        let wanted = Wanted::new(&draft.key);
        let other = Other::Virtual(draft.key.virtual_);
        self.search(hash, other, |index, rival, head| {
            if index == own || index == 0 || !wanted.is(rival, head, pool) {
                return None;
            }
            let patience = if index < own { PATIENCE } else { 0 };
            let head = abort(rival, head, patience);
            (phase(head) == COMMITTED).then(|| handle(index, head))
        })
    }

    /// Ends an entry that never came into force and is not in the index any more.
    fn withdraw(&self, cache: &mut Cache, index: u32, head: u32) {
        let entry = self.entry(index);
        entry.head.store(in_phase(head, DEAD), Release);
        self.clear_hint(index);
        if let Some(template) = entry.template() {
            self.let_go(template);
        }
        self.discard(cache, index, head);
    }
}

/// Aborts an entry that is still tentative after `patience`; its head by then.
fn abort(rival: &Entry, mut head: u32, patience: usize) -> u32 {
    for _ in 0..patience {
        if phase(head) != TENTATIVE {
            return head;
        }
        std::hint::spin_loop();
        head = rival.head.load(Acquire);
    }
    if phase(head) != TENTATIVE {
        return head;
    }
    let aborted = in_phase(head, ABORTED);
    match rival.head.compare_exchange(head, aborted, AcqRel, Acquire) {
        Ok(_) => aborted,
        Err(now) => now,
    }
}
