//! The connection table. Both directions of a NAT flow carry the client's endpoint, so
//! hashing it alone finds one entry from either side and from any core.
//!
//! No locks: readers never wait and never write; two cores that enter the same connection
//! at once end with one entry (see `insert`); an entry is used anew only when nobody can
//! still look at it (see `reclaim`). All memory is taken at the start (see `region`).

use sched::server::ServerId;
use sched::service::Family;

use super::bucket::Probe;
use super::entry::{self, COMMITTED, DEAD, Entry, Wanted, WantedReply};
use super::hash::{Keys, Other};
use super::region::{Memory, Shape, WorkerLine};
use super::sync::{AcqRel, Acquire, AtomicU64, Relaxed};
use crate::address::Endpoint;
use crate::prefetch::prefetch_at;
use crate::time::Ticks;

pub use super::hash::Hash;
pub use super::reclaim::Cache;
#[cfg(not(loom))]
pub use super::recover::{Recovered, Survivor};
pub use super::region::RegionError;
pub use super::view::{Connection, Row};

/// What a connection (or a persistence template) is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The client's family.
    pub family: Family,
    /// A persistence template and not a connection; the two never match each other.
    pub template: bool,
    /// The IP protocol number; 0 for the templates of fwmark services.
    pub protocol: u8,
    /// The client; for a template its network, and port 0.
    pub client: Endpoint,
    /// What the client asked for; for a fwmark template the mark as an address.
    pub virtual_: Endpoint,
}

/// A connection about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    /// What it is found by.
    pub key: Key,
    /// The real server's family: another than the client's only through tunnels.
    pub real_family: Family,
    /// The real server's endpoint.
    pub real: Endpoint,
    /// The real server.
    pub server: ServerId,
    /// The first state and flags, as one word; see [`Connection::word`].
    pub word: u32,
    /// The firewall mark; 0 for none.
    pub mark: u32,
    /// The template that this connection keeps alive.
    pub template: Option<Handle>,
    /// The first timeout.
    pub timeout: Ticks,
}

/// A connection that was found. Valid until its worker's burst ends: no entry is used
/// anew before every worker has ended the burst in which it was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The entry's place.
    pub index: u32,
    /// The entry's version when it was found.
    pub version: u16,
}

/// Where a look-up begins: a bucket, and what that knows the entry by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    bucket: u32,
    tag: u16,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The draft is in the table.
    New(Handle),
    /// Another core was first: its entry stands, the draft is gone.
    Found(Handle),
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What a search along a way came to.
enum Searched<R> {
    Found(R),
    /// No entry lies further on.
    All,
    /// One may lie further on than the way goes.
    Passed,
}

/// The table, shared by all workers.
#[derive(Debug)]
pub struct Table {
    pub(super) memory: Memory,
    keys: Keys,
    workers: usize,
}

impl Table {
    /// A table for `capacity` connections of IPv4 and this many workers; an IPv6
    /// connection takes the room of two. `seed` keys the hash. Takes about 80 bytes of
    /// address space for each connection, and memory as connections come.
    ///
    /// # Panics
    /// Where there are no workers, 2^31 entries or more, or no address space for them.
    pub fn new(capacity: usize, workers: usize, seed: u64) -> Self {
        let shape = Shape::new(capacity, workers);
        Self::on(Memory::new(shape, seed), workers)
    }

    pub(super) fn on(memory: Memory, workers: usize) -> Self {
        let seed = memory.header().seed.load(Relaxed);
        Self {
            memory,
            keys: Keys::new(seed),
            workers,
        }
    }

    /// How many IPv4 connections fit.
    pub fn capacity(&self) -> usize {
        self.memory.shape().capacity
    }

    /// How many workers share it.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Where the connections of a client begin. The other calls compute it themselves; for
    /// a burst it pays to walk all frames in stages: [`Table::seek`] for all, then
    /// [`Table::near`] for all, then find.
    #[inline]
    pub fn hash(&self, family: Family, protocol: u8, client: Endpoint) -> Hash {
        self.keys.hash(family, protocol, client)
    }

    /// Asks for the bucket in which a look-up begins.
    #[inline]
    pub(super) fn prefetch_bucket(&self, hash: Hash) {
        let buckets = self.memory.buckets();
        prefetch_at(buckets, hash.home(buckets.len()));
    }

    /// The first stage: where the look-up for a client begins. Asks for that memory.
    #[inline(always)]
    pub fn seek(&self, family: Family, protocol: u8, client: Endpoint) -> Spot {
        let hash = self.hash(family, protocol, client);
        self.prefetch_bucket(hash);
        Spot {
            bucket: hash.home(self.memory.buckets().len()) as u32,
            tag: hash.tag(),
        }
    }

    /// The second stage, once the bucket is here: the place of the entry that the look-up
    /// will most likely end at, any where the bucket knows none. Asks for that memory.
    ///
    /// # Panics
    /// With a spot that another, larger table told.
    #[inline(always)]
    pub fn near(&self, spot: Spot) -> u32 {
        let bucket = &self.memory.buckets()[spot.bucket as usize];
        let place = bucket.place(bucket.tags().likely(spot.tag));
        prefetch_at(self.memory.entries(), place as usize);
        place
    }

    /// As [`Table::find`], but looks only at `place`, which [`Table::near`] told
    /// within this burst, and only for connections whose server is of the client's family.
    /// What it finds, `find` would find.
    #[inline(always)]
    pub fn find_at(
        &self,
        place: u32,
        family: Family,
        protocol: u8,
        client: Endpoint,
        virtual_: Endpoint,
    ) -> Option<Connection<'_>> {
        let pool = self.memory.entries();
        self.look_at(place, |entry, head| {
            entry::is_unmixed((entry, head, pool), (family, protocol), client, virtual_)
        })
    }

    /// As [`Table::find_reply`], but looks only at `place`; see [`Table::find_at`].
    #[inline(always)]
    pub fn find_reply_at(
        &self,
        place: u32,
        family: Family,
        protocol: u8,
        client: Endpoint,
        real: Endpoint,
    ) -> Option<Connection<'_>> {
        let pool = self.memory.entries();
        let wanted = WantedReply {
            family,
            protocol,
            client,
            real,
        };
        self.look_at(place, |entry, head| wanted.is_committed(entry, head, pool))
    }

    /// The entry with this key.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<Handle> {
        self.find_hashed(self.hash_of(key), key)
    }

    /// As [`Table::find`], with the hash of the key's client.
    #[inline]
    pub(super) fn find_hashed(&self, hash: Hash, key: &Key) -> Option<Handle> {
        let pool = self.memory.entries();
        let wanted = Wanted::new(key);
        self.search(hash, Other::Virtual(key.virtual_), |index, entry, head| {
            let is_it = wanted.is_committed(entry, head, pool);
            is_it.then(|| handle(index, head))
        })
    }

    /// The masqueraded connection whose reply comes from `real` to `client`; of several the one
    /// that is preferred (see `share`).
    #[inline]
    pub fn find_reply(
        &self,
        family: Family,
        protocol: u8,
        client: Endpoint,
        real: Endpoint,
    ) -> Option<Handle> {
        self.find_wanted_reply(&WantedReply {
            family,
            protocol,
            client,
            real,
        })
    }

    /// Takes an entry out. True for exactly one of all callers: that one settles counts.
    /// The entry's template (if any) loses one controlled connection.
    pub fn remove(&self, cache: &mut Cache, handle: Handle) -> bool {
        let entry = self.entry(handle.index);
        let head = entry.head.load(Acquire);
        let is_it = entry::version(head) == handle.version && entry::phase(head) == COMMITTED;
        let dead = entry::in_phase(head, DEAD);
        let _changing = self.memory.workers()[cache.worker].change();
        // In force, a head changes only to dead: losing means another caller removed it.
        if !is_it
            || entry
                .head
                .compare_exchange(head, dead, AcqRel, Relaxed)
                .is_err()
        {
            return false;
        }
        self.unlink(handle.index, entry, head);
        self.clear_hint(handle.index);
        if let Some(template) = entry.template() {
            self.let_go(template);
        }
        self.count(cache, head, u64::MAX);
        self.discard(cache, handle.index, head);
        true
    }

    /// The fields of a found entry.
    #[inline]
    pub fn view(&self, handle: Handle) -> Connection<'_> {
        Connection::new(self, self.entry(handle.index))
    }

    /// A consistent copy of the entry at `index` below [`Table::high_water`], if one is
    /// there: for listings, from any thread.
    pub fn read(&self, index: u32) -> Option<Row> {
        Row::read(self.memory.entries(), index)
    }

    /// One more than the highest index ever used (or taken by a worker to be used next).
    pub fn high_water(&self) -> u32 {
        self.memory.header().fresh.0.load(Relaxed)
    }

    /// Entries in use, connections and templates. Exact while no worker works.
    pub fn len(&self) -> usize {
        self.sum(|line| &line.in_use)
    }

    /// The room that they take, of [`Table::capacity`]: IPv6 takes the room of two.
    pub fn taken(&self) -> usize {
        self.len() + self.sum(|line| &line.extended)
    }

    /// Whether every entry is in use: none is left for another connection. It may be full
    /// a little earlier, while workers hold free entries that others cannot take.
    pub fn is_full(&self) -> bool {
        self.taken() + 1 >= self.memory.shape().entries
    }

    fn sum(&self, of: impl Fn(&WorkerLine) -> &AtomicU64) -> usize {
        let lines = self.memory.workers().iter();
        let sum = lines.fold(0_u64, |sum, line| sum.wrapping_add(of(line).load(Relaxed)));
        // A sum taken during work may miss an insertion and see its removal.
        (sum as i64).max(0) as usize
    }

    /// Counts an entry in (1) or out (-1, wrapped).
    pub(super) fn count(&self, cache: &Cache, head: u32, by: u64) {
        let line = self.line(cache);
        let add = |count: &AtomicU64| count.store(count.load(Relaxed).wrapping_add(by), Relaxed);
        add(&line.in_use);
        if entry::is_extended(head) {
            add(&line.extended);
        }
    }

    /// Whether no entry is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the table's other parts share.
impl Table {
    #[inline(always)]
    pub(super) fn entry(&self, index: u32) -> &Entry {
        &self.memory.entries()[index as usize]
    }

    pub(super) fn line(&self, cache: &Cache) -> &WorkerLine {
        &self.memory.workers()[cache.worker]
    }

    #[inline(always)]
    pub(super) fn hash_of(&self, key: &Key) -> Hash {
        self.hash(key.family, key.protocol, key.client)
    }

    /// Meets all entries that a connection of this client and `other` end may be, until `meet`
    /// has an answer.
    #[inline(always)]
    pub(super) fn search<R>(
        &self,
        client: Hash,
        other: Other,
        mut meet: impl FnMut(u32, &Entry, u32) -> Option<R>,
    ) -> Option<R> {
        match self.search_in(self.near_of(client), &mut meet) {
            Searched::Found(answer) => Some(answer),
            Searched::All => None,
            Searched::Passed => self.search_far(client, other, &mut meet),
        }
    }

    /// "Cold" as hardly any client has so many connections.
    #[cold]
    #[inline(never)]
    fn search_far<R>(
        &self,
        client: Hash,
        other: Other,
        meet: &mut impl FnMut(u32, &Entry, u32) -> Option<R>,
    ) -> Option<R> {
        match self.search_in(self.far_of(client, other), meet) {
            Searched::Found(answer) => Some(answer),
            Searched::All | Searched::Passed => None,
        }
    }

    #[inline(always)]
    fn search_in<R>(
        &self,
        way: Probe<'_>,
        meet: &mut impl FnMut(u32, &Entry, u32) -> Option<R>,
    ) -> Searched<R> {
        let tag = way.tag();
        for bucket in way {
            let tags = bucket.tags();
            for slot in tags.equal(tag) {
                let index = bucket.place(slot);
                let Some(entry) = self.memory.entries().get(index as usize) else {
                    continue;
                };
                if let Some(answer) = meet(index, entry, entry.head.load(Acquire)) {
                    return Searched::Found(answer);
                }
            }
            if !tags.passed() {
                return Searched::All;
            }
        }
        Searched::Passed
    }

    /// Where a client's connections lie together.
    #[inline(always)]
    pub(super) fn near_of(&self, client: Hash) -> Probe<'_> {
        Probe::near(self.memory.buckets(), client)
    }

    /// Where those lie for which no room is there.
    pub(super) fn far_of(&self, client: Hash, other: Other) -> Probe<'_> {
        Probe::far(self.memory.buckets(), self.keys.with(client, other))
    }

    #[inline(always)]
    fn look_at(&self, place: u32, is_it: impl Fn(&Entry, u32) -> bool) -> Option<Connection<'_>> {
        let entry = self.memory.entries().get(place as usize)?;
        let head = entry.head.load(Acquire);
        is_it(entry, head).then(|| Connection::new(self, entry))
    }

    /// Has an entry, and its extension, wait to be used anew.
    pub(super) fn discard(&self, cache: &mut Cache, index: u32, head: u32) {
        if entry::is_extended(head) {
            self.retire(cache, self.entry(index).extension_index());
        }
        self.retire(cache, index);
    }

    /// The template if it is still in force.
    pub(super) fn in_force(&self, template: Handle) -> Option<&Entry> {
        let entry = self.memory.entries().get(template.index as usize)?;
        let head = entry.head.load(Acquire);
        let is_it = entry::version(head) == template.version && entry::phase(head) == COMMITTED;
        is_it.then_some(entry)
    }

    /// Ends one connection's hold on its template. A template that has ended since, or
    /// whose entry is another's now, has nothing to lose.
    pub(super) fn let_go(&self, template: Handle) {
        if let Some(entry) = self.in_force(template) {
            let less_one = |held: u32| held.checked_sub(1);
            let _ = entry.controlled.fetch_update(Relaxed, Relaxed, less_one);
        }
    }
}

pub(super) fn handle(index: u32, head: u32) -> Handle {
    Handle {
        index,
        version: entry::version(head),
    }
}
