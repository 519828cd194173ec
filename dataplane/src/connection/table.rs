//! The connection table. Both directions of a NAT flow carry the client's endpoint, so
//! hashing it alone finds one entry from either side and from any core.

use sched::server::ServerId;
use sched::service::Family;

use crate::address::Endpoint;
use crate::time::Ticks;

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

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The draft is in the table.
    New(Handle),
    /// Another core was first: its entry stands, the draft is gone.
    Found(Handle),
}

/// The table is full, or too many entries share the client's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What one worker keeps of the table for itself: free entries taken in advance, freed
/// ones that wait for the other workers' bursts to end, and its place in the sweep.
#[derive(Debug)]
pub struct Cache {}

/// The table, shared by all workers.
#[derive(Debug)]
pub struct Table {}

/// A found connection's fields.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'t> {
    #[allow(dead_code)]
    table: &'t Table,
    handle: Handle,
}

impl Table {
    /// A table for `capacity` connections of IPv4 and this many workers; an IPv6
    /// connection takes the room of two. `seed` keys the hash.
    pub fn new(capacity: usize, workers: usize, seed: u64) -> Self {
        let _ = (capacity, workers, seed);
        unimplemented!()
    }

    /// How many IPv4 connections fit.
    pub fn capacity(&self) -> usize {
        unimplemented!()
    }

    /// Worker `worker`'s own part; to be taken once per worker.
    pub fn cache(&self, worker: usize) -> Cache {
        let _ = worker;
        unimplemented!()
    }

    /// Tells that `worker` holds no handle any more: its burst has ended. Cheap.
    pub fn quiesce(&self, cache: &mut Cache) {
        let _ = cache;
        unimplemented!()
    }

    /// Tells that the worker holds no handle and will not look until `resume`: it is about
    /// to sleep, and must not hold up the others.
    pub fn pause(&self, cache: &mut Cache) {
        let _ = cache;
        unimplemented!()
    }

    /// Ends a `pause`.
    pub fn resume(&self, cache: &mut Cache) {
        let _ = cache;
        unimplemented!()
    }

    /// Asks for the cache line in which a look-up for `client` begins.
    pub fn prefetch(&self, family: Family, protocol: u8, client: Endpoint) {
        let _ = (family, protocol, client);
        unimplemented!()
    }

    /// The entry with this key.
    pub fn find(&self, key: &Key) -> Option<Handle> {
        let _ = key;
        unimplemented!()
    }

    /// The masqueraded connection whose reply comes from `real` to `client`.
    pub fn find_reply(
        &self,
        family: Family,
        protocol: u8,
        client: Endpoint,
        real: Endpoint,
    ) -> Option<Handle> {
        let _ = (family, protocol, client, real);
        unimplemented!()
    }

    /// Enters `draft`, unless an entry with its key is there already.
    pub fn insert(&self, cache: &mut Cache, draft: &Draft, now: Ticks) -> Result<Inserted, Full> {
        let _ = (cache, draft, now);
        unimplemented!()
    }

    /// Takes an entry out. True for exactly one of all callers: that one settles counts.
    /// The entry's template (if any) loses one controlled connection.
    pub fn remove(&self, cache: &mut Cache, handle: Handle) -> bool {
        let _ = (cache, handle);
        unimplemented!()
    }

    /// The fields of a found entry.
    pub fn view(&self, handle: Handle) -> Connection<'_> {
        Connection {
            table: self,
            handle,
        }
    }

    /// Looks at the next entries of this worker's share, at most `budget` of them, and
    /// calls `due` for each whose time has come. `due` decides (it may remove the entry,
    /// or set a new expiry). Over a second or so of calls the whole share is seen.
    pub fn sweep(
        &self,
        cache: &mut Cache,
        now: Ticks,
        budget: usize,
        due: impl FnMut(&Self, &mut Cache, Handle),
    ) {
        let _ = (cache, now, budget, due);
        unimplemented!()
    }

    /// A consistent copy of the entry at `index` below [`Table::high_water`], if one is
    /// there: for listings, from any thread.
    pub fn read(&self, index: u32) -> Option<Row> {
        let _ = index;
        unimplemented!()
    }

    /// One more than the highest index ever used.
    pub fn high_water(&self) -> u32 {
        unimplemented!()
    }

    /// Entries in use, connections and templates.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Whether no entry is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
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
    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// What it is found by.
    pub fn key(&self) -> Key {
        unimplemented!()
    }

    /// The real server's family.
    pub fn real_family(&self) -> Family {
        unimplemented!()
    }

    /// The real server's endpoint.
    pub fn real(&self) -> Endpoint {
        unimplemented!()
    }

    /// The virtual endpoint.
    pub fn virtual_(&self) -> Endpoint {
        unimplemented!()
    }

    /// The client's endpoint.
    pub fn client(&self) -> Endpoint {
        unimplemented!()
    }

    /// The real server.
    pub fn server(&self) -> ServerId {
        unimplemented!()
    }

    /// The firewall mark.
    pub fn mark(&self) -> u32 {
        unimplemented!()
    }

    /// State and flags in one word, whose meaning is the director's: 24 bits are free for
    /// it. The table itself keeps family, template and the like elsewhere.
    pub fn word(&self) -> u32 {
        unimplemented!()
    }

    /// Replaces the word if it is still `old`; the word it is otherwise.
    pub fn replace_word(&self, old: u32, new: u32) -> Result<(), u32> {
        let _ = (old, new);
        unimplemented!()
    }

    /// The timeout.
    pub fn timeout(&self) -> Ticks {
        unimplemented!()
    }

    /// When it expires.
    pub fn expires(&self) -> Ticks {
        unimplemented!()
    }

    /// Expires at `now` + its timeout. Writes only when that moved by a tick.
    pub fn touch(&self, now: Ticks) {
        let _ = now;
        unimplemented!()
    }

    /// Sets another timeout, counted from `now`. The sweep meets the new time even where
    /// it is earlier than the old one.
    pub fn set_timeout(&self, now: Ticks, timeout: Ticks) {
        let _ = (now, timeout);
        unimplemented!()
    }

    /// The template that it keeps alive.
    pub fn template(&self) -> Option<Handle> {
        unimplemented!()
    }

    /// For a template: how many connections keep it alive.
    pub fn controlled(&self) -> u32 {
        unimplemented!()
    }
}
