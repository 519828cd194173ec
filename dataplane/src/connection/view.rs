//! A found connection's fields, and copies of entries for listings.

use sched::server::ServerId;
use sched::service::Family;

use super::entry::{self, COMMITTED, Entry, phase, version};
use super::sync::{AcqRel, Acquire, Relaxed, fence};
use super::table::{Handle, Key, Table};
use crate::address::Endpoint;
use crate::forward::nat::Correction;
use crate::time::Ticks;

/// A found connection's fields.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'t> {
    table: &'t Table,
    entry: &'t Entry,
}

/// A copy of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is found by.
    pub key: Key,
    /// The real server's family.
    pub real_family: Family,
    /// The real server's endpoint.
    pub real: Endpoint,
    /// The real server.
    pub server: ServerId,
    /// State and flags.
    pub word: u32,
    /// The firewall mark.
    pub mark: u32,
    /// When it expires.
    pub expires: Ticks,
    /// Its timeout.
    pub timeout: Ticks,
    /// Connections that keep this template alive.
    pub controlled: u32,
}

impl<'t> Connection<'t> {
    #[inline(always)]
    pub(super) fn new(table: &'t Table, entry: &'t Entry) -> Self {
        Self { table, entry }
    }

    /// Its place. Reckoned where it is asked for, which is rare: kept, it would take a register
    /// from all that is not.
    #[inline(always)]
    fn index(&self) -> u32 {
        let begin = self.pool().as_ptr().addr();
        ((std::ptr::from_ref(self.entry).addr() - begin) / size_of::<Entry>()) as u32
    }

    /// Its handle. No other connection takes the entry while this one is looked at.
    #[inline(always)]
    pub fn handle(&self) -> Handle {
        Handle {
            index: self.index(),
            version: version(self.head()),
        }
    }

    /// What it is found by.
    pub fn key(&self) -> Key {
        self.entry.key(self.head(), self.pool())
    }

    /// The real server's family.
    #[inline]
    pub fn real_family(&self) -> Family {
        entry::real_family(self.head())
    }

    /// The real server's endpoint.
    #[inline]
    pub fn real(&self) -> Endpoint {
        self.entry.real_end(self.head(), self.pool())
    }

    /// The virtual endpoint.
    #[inline]
    pub fn virtual_(&self) -> Endpoint {
        self.entry.virtual_end(self.head(), self.pool())
    }

    /// The real server's endpoint, of a connection whose client and server are of `family`.
    #[inline(always)]
    pub(crate) fn unmixed_real(&self, family: Family) -> Endpoint {
        self.entry.unmixed_real(family, self.pool())
    }

    /// The virtual endpoint, likewise.
    #[inline(always)]
    pub(crate) fn unmixed_virtual(&self, family: Family) -> Endpoint {
        self.entry.unmixed_virtual(family, self.pool())
    }

    /// What its translation changes in checksums, of a connection likewise.
    #[inline(always)]
    pub(crate) fn correction(&self) -> Correction {
        self.entry.correction()
    }

    /// The client's endpoint.
    #[inline]
    pub fn client(&self) -> Endpoint {
        self.entry.client_end(self.head(), self.pool())
    }

    /// The real server.
    #[inline]
    pub fn server(&self) -> ServerId {
        self.entry.server()
    }

    /// The firewall mark.
    #[inline]
    pub fn mark(&self) -> u32 {
        self.entry.mark()
    }

    /// State and flags in one word, whose meaning is the director's: 24 bits are free for
    /// it. The table itself keeps family, template and the like elsewhere.
    #[inline]
    pub fn word(&self) -> u32 {
        self.entry.word.load(Relaxed)
    }

    /// Replaces the word if it is still `old`; the word it is otherwise.
    #[inline]
    pub fn replace_word(&self, old: u32, new: u32) -> Result<(), u32> {
        let word = &self.entry.word;
        word.compare_exchange(old, new, AcqRel, Relaxed).map(drop)
    }

    /// The timeout.
    #[inline]
    pub fn timeout(&self) -> Ticks {
        self.entry.timeout.load(Relaxed)
    }

    /// When it expires.
    #[inline]
    pub fn expires(&self) -> Ticks {
        self.entry.expires.load(Relaxed)
    }

    /// Expires at `at`, its timeout from now. Writes only when that moved by a tick; never
    /// makes the expiry earlier.
    #[inline(always)]
    pub fn touch(&self, at: Ticks) {
        if is_later(at, self.expires()) {
            self.entry.expires.store(at, Relaxed);
        }
    }

    /// Sets another timeout, counted from `now`. The sweep meets the new time even where
    /// it is earlier than the old one.
    pub fn set_timeout(&self, now: Ticks, timeout: Ticks) {
        let at = now.wrapping_add(timeout);
        self.entry.timeout.store(timeout, Relaxed);
        // A swap, so that of two cores that set it each knows what it replaced.
        let before = self.entry.expires.swap(at, AcqRel);
        if is_later(before, at) {
            self.table.lower_hint(self.index(), at);
        }
    }

    /// Whether it began under a template.
    #[inline(always)]
    pub fn has_template(&self) -> bool {
        self.entry.names_template()
    }

    /// The template that it keeps alive; none where that has ended.
    #[inline]
    pub fn template(&self) -> Option<Handle> {
        let named = self.entry.template();
        named.filter(|handle| self.table.in_force(*handle).is_some())
    }

    /// For a template: how many connections keep it alive.
    pub fn controlled(&self) -> u32 {
        self.entry.controls(self.head())
    }

    #[inline(always)]
    fn head(&self) -> u32 {
        self.entry.head.load(Relaxed)
    }

    #[inline(always)]
    fn pool(&self) -> &'t [Entry] {
        self.table.memory.entries()
    }
}

impl Row {
    /// For threads that nobody waits for: the entry may be used anew while it is read, and
    /// then its head has changed.
    pub(super) fn read(pool: &[Entry], index: u32) -> Option<Self> {
        let entry = pool.get(index as usize)?;
        let before = entry.head.load(Acquire);
        if phase(before) != COMMITTED {
            return None;
        }
        let row = Self {
            key: entry.key(before, pool),
            real_family: entry::real_family(before),
            real: entry.real_end(before, pool),
            server: entry.server(),
            word: entry.word.load(Relaxed),
            mark: entry.mark(),
            expires: entry.expires.load(Relaxed),
            timeout: entry.timeout.load(Relaxed),
            controlled: entry.controls(before),
        };
        fence(Acquire);
        let after = entry.head.load(Relaxed);
        let is_one = version(after) == version(before) && phase(after) == COMMITTED;
        is_one.then_some(row)
    }
}

/// Asked by the sign of the difference, which takes no comparison of its own.
#[inline(always)]
fn is_later(a: Ticks, b: Ticks) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}
