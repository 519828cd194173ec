//! Replies that could be of several connections: one client's endpoint may have connections by
//! two services, or two ports of one, to one endpoint of a server. Their packets differ, the
//! replies do not. IPVS takes a reply for the newest; so does lvx, and where it is told that an
//! older one speaks again (UDP by turns), for that.
//!
//! Each of them is marked as shared, and one as preferred. The mark leaves the packets of all
//! others as quick as they were: who is not alone is no plain connection.
//!
//! Of two that are entered at once, each looks after it has entered, with a full fence between:
//! one of them meets the other and marks both.

use super::entry::{Entry, WantedReply};
use super::hash::{Hash, Other};
use super::sync::{AcqRel, Relaxed, SeqCst, fence};
use super::table::{Draft, Handle, Table, handle};
use super::view::Connection;
use super::word::Word;
use crate::time::Ticks;

impl Table {
    /// Marks a connection that was entered just now and is not in force yet, and those it shares
    /// its replies with. Behind a full fence.
    pub(super) fn share(&self, hash: Hash, draft: &Draft, own: u32) {
        let Some(wanted) = WantedReply::of(draft) else {
            return;
        };
        if self.yield_all(hash, &wanted, own) {
            change(self.entry(own), |word| word.shared(true));
        }
    }

    /// Prefers a connection that is shared: its client spoke last.
    #[cold]
    pub fn prefer(&self, connection: Connection<'_>) {
        let (own, wanted) = (connection.handle().index, wanted(connection));
        if self.yield_all(self.hash_of_reply(&wanted), &wanted, own) {
            change(self.entry(own), |word| word.shared(true));
        }
    }

    /// Marks a connection as alone again, if the others that shared its replies have ended.
    #[cold]
    pub fn part(&self, connection: Connection<'_>) {
        let (own, wanted) = (connection.handle().index, wanted(connection));
        let hash = self.hash_of_reply(&wanted);
        if self.has_rival(hash, &wanted, own) {
            return;
        }
        change(self.entry(own), Word::alone);
        // Who enters one now sees this mark gone, or is seen here.
        fence(SeqCst);
        if self.has_rival(hash, &wanted, own) {
            change(self.entry(own), |word| word.shared(word.is_preferred()));
        }
    }

    /// See [`Table::find_reply`]. Where the preferred one has ended, the one that was used last.
    #[inline]
    pub(super) fn find_wanted_reply(&self, wanted: &WantedReply) -> Option<Handle> {
        let pool = self.memory.entries();
        let mut best: Option<(Handle, &Entry)> = None;
        let hash = self.hash_of_reply(wanted);
        self.search(hash, Other::Real(wanted.real), |index, entry, head| {
            let word = Word(entry.word.load(Relaxed));
            if !wanted.is_committed(entry, head, pool) || !word.is_masqueraded() {
                return None;
            }
            if !word.is_shared() {
                return Some(handle(index, head));
            }
            let entry = self.entry(index);
            if best.is_none_or(|(_, before)| is_before(entry, before)) {
                best = Some((handle(index, head), entry));
            }
            None
        })
        .or(best.map(|(handle, _)| handle))
    }

    /// Makes the others yield their replies; whether there are any. One with the same key is no
    /// other: one of the two will not come into force.
    fn yield_all(&self, hash: Hash, wanted: &WantedReply, own: u32) -> bool {
        let pool = self.memory.entries();
        let head = self.entry(own).head.load(Relaxed);
        let virtual_ = self.entry(own).virtual_end(head, pool);
        let mut met = false;
        let _: Option<()> = self.search(hash, Other::Real(wanted.real), |index, entry, head| {
            if index != own
                && wanted.is_rival(entry, head, pool)
                && entry.virtual_end(head, pool) != virtual_
            {
                change(entry, |word| word.shared(false));
                met = true;
            }
            None
        });
        met
    }

    fn has_rival(&self, hash: Hash, wanted: &WantedReply, own: u32) -> bool {
        let pool = self.memory.entries();
        let other = Other::Real(wanted.real);
        self.search(hash, other, |index, entry, head| {
            (index != own && wanted.is_rival(entry, head, pool)).then_some(())
        })
        .is_some()
    }

    fn hash_of_reply(&self, wanted: &WantedReply) -> Hash {
        self.hash(wanted.family, wanted.protocol, wanted.client)
    }
}

fn wanted(connection: Connection<'_>) -> WantedReply {
    let key = connection.key();
    WantedReply {
        family: key.family,
        protocol: key.protocol,
        client: key.client,
        real: connection.real(),
    }
}

/// Changes an entry's word, which others change too.
fn change(entry: &Entry, to: impl Fn(Word) -> Word) {
    let step = |word: u32| Some(to(Word(word)).0);
    let _ = entry.word.fetch_update(AcqRel, Relaxed, step);
}

/// Which of two replies are taken for.
fn is_before(a: &Entry, b: &Entry) -> bool {
    let rank = |entry: &Entry| Word(entry.word.load(Relaxed)).is_preferred();
    match (rank(a), rank(b)) {
        (true, false) => true,
        (false, true) => false,
        _ => (last_used(a).wrapping_sub(last_used(b)) as i32) > 0,
    }
}

fn last_used(entry: &Entry) -> Ticks {
    let (expires, timeout) = (&entry.expires, &entry.timeout);
    expires.load(Relaxed).wrapping_sub(timeout.load(Relaxed))
}
