//! Where an entry lies in the index. A client's connections lie together, in the first of a few
//! buckets with room, so that its packets and the replies to it find them by its endpoint alone.
//! One for which there is no room lies far: by the hash of client and virtual endpoint, for
//! packets, and once more by that of client and real endpoint, for replies. So no endpoint is
//! the dearer the more connections it has, and none has a limit of its own.

use super::bucket::Probe;
use super::entry::{Entry, is_template};
use super::hash::{Hash, Other};
use super::sync::Relaxed;
use super::table::Table;
use super::word::Word;

impl Table {
    /// Puts a tentative entry into the index. False, and nothing changed, where there is no
    /// room: nearly all of the index is taken.
    pub(super) fn link(&self, hash: Hash, index: u32) -> bool {
        self.near_of(hash).enter(index) || self.link_far(hash, index)
    }

    #[cold]
    #[inline(never)]
    fn link_far(&self, hash: Hash, index: u32) -> bool {
        let entry = self.entry(index);
        let head = entry.head.load(Relaxed);
        let near = self.near_of(hash);
        // Who looks for it must be sent on before it is there.
        near.for_each(|bucket| bucket.pass());
        let [by_virtual, by_real] = self.far_ways(hash, entry, head);
        let is_answered = !is_template(head) && Word(entry.word.load(Relaxed)).is_masqueraded();
        if by_virtual.enter(index) {
            if !is_answered || by_real.enter(index) {
                return true;
            }
            by_virtual.leave(index);
        }
        near.for_each(|bucket| bucket.unpass());
        false
    }

    /// Takes an entry out of the index.
    pub(super) fn unlink(&self, index: u32, entry: &Entry, head: u32) {
        let hash = self.hash_of(&entry.key(head, self.memory.entries()));
        let near = self.near_of(hash);
        if near.leave(index) {
            return;
        }
        let [by_virtual, by_real] = self.far_ways(hash, entry, head);
        // Also where it is not answered by now: of that, the word could have changed.
        let was_far = by_virtual.leave(index) | by_real.leave(index);
        // One whose addresses were damaged in memory that outlived its process lies nowhere.
        if was_far {
            near.for_each(|bucket| bucket.unpass());
        }
    }

    fn far_ways(&self, hash: Hash, entry: &Entry, head: u32) -> [Probe<'_>; 2] {
        let pool = self.memory.entries();
        let virtual_ = Other::Virtual(entry.virtual_end(head, pool));
        let real = Other::Real(entry.real_end(head, pool));
        [virtual_, real].map(|other| self.far_of(hash, other))
    }
}
