//! Which servers were chosen for a virtual address: the memory of `lblc` and `lblcr`.
//!
//! The kernel's tables grow as addresses come and shrink by a timer. Here the table has a
//! fixed size, is shared by all workers without a lock, and ages as it is used: an address
//! unused for a day is forgotten, and where a new one finds no room, the address that was
//! used longest ago makes it. A lost race costs no more than an address not remembered.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{active, hash};
use crate::server::{RealServer, ServerId};

/// How long an unused address is remembered, s (`lblc_expiration`, `lblcr_expiration`).
pub(super) const EXPIRATION_S: u32 = 24 * 60 * 60;
/// The entries that an address may be in.
const WAYS: usize = 8;

/// No address.
const EMPTY: u64 = 0;
/// A worker is about to write an address.
const BUSY: u64 = 1;

/// A memory of addresses, up to `N` servers each.
#[derive(Debug)]
pub(super) struct Memory<const N: usize> {
    entries: Box<[Entry<N>]>,
}

/// What is known of one address.
#[derive(Debug)]
pub(super) struct Entry<const N: usize> {
    /// Stands for the address, see [`tag`].
    tag: AtomicU64,
    /// When it was last asked for, s.
    used_s: AtomicU32,
    /// When its servers last changed, s.
    changed_s: AtomicU32,
    /// Server numbers plus 1, oldest first; 0 where there is none.
    servers: [AtomicU32; N],
}

impl<const N: usize> Memory<N> {
    /// Room for `size` addresses, a multiple of 8.
    pub fn new(size: usize) -> Self {
        let entry = |_| Entry {
            tag: AtomicU64::new(EMPTY),
            used_s: AtomicU32::new(0),
            changed_s: AtomicU32::new(0),
            servers: [const { AtomicU32::new(0) }; N],
        };
        Self {
            entries: (0..size).map(entry).collect(),
        }
    }

    /// Another memory of the same, as far as workers leave it alone meanwhile.
    pub fn copy(&self) -> Self {
        let second = |n: &AtomicU32| AtomicU32::new(n.load(Relaxed));
        let entry = |e: &Entry<N>| {
            // An entry that is just being written is left out.
            let tag = match e.tag.load(Acquire) {
                BUSY => EMPTY,
                tag => tag,
            };
            Entry {
                tag: AtomicU64::new(tag),
                used_s: second(&e.used_s),
                changed_s: second(&e.changed_s),
                servers: std::array::from_fn(|place| second(&e.servers[place])),
            }
        };
        Self {
            entries: self.entries.iter().map(entry).collect(),
        }
    }

    /// What is known of `address`, which counts as a use of it.
    pub fn find(&self, address: IpAddr, now_s: u64) -> Option<&Entry<N>> {
        let (tag, now_s) = (tag(address), now_s as u32);
        let entry = self
            .ways(tag)
            .iter()
            .find(|e| e.tag.load(Acquire) == tag)
            .filter(|e| now_s.wrapping_sub(e.used_s.load(Relaxed)) < EXPIRATION_S)?;
        entry.used_s.store(now_s, Relaxed);
        Some(entry)
    }

    /// Remembers that `server` was chosen for `address`, and nothing else of it.
    pub fn insert(&self, address: IpAddr, server: ServerId, now_s: u64) {
        let (tag, now_s) = (tag(address), now_s as u32);
        let unused_s = |e: &&Entry<N>| match e.tag.load(Relaxed) {
            known if known == tag => u64::MAX,
            EMPTY => u64::MAX - 1,
            _ => now_s.wrapping_sub(e.used_s.load(Relaxed)).into(),
        };
        let Some(entry) = self.ways(tag).iter().max_by_key(unused_s) else {
            return;
        };
        let before = entry.tag.load(Relaxed);
        let claim = |before| entry.tag.compare_exchange(before, BUSY, Acquire, Relaxed);
        if before == BUSY || claim(before).is_err() {
            return;
        }
        entry.used_s.store(now_s, Relaxed);
        entry.changed_s.store(now_s, Relaxed);
        for place in &entry.servers {
            place.store(0, Relaxed);
        }
        entry.servers[0].store(server.0 + 1, Relaxed);
        entry.tag.store(tag, Release);
    }

    fn ways(&self, tag: u64) -> &[Entry<N>] {
        let sets = self.entries.len() / WAYS;
        let set = hash::mix(tag) as usize % sets;
        &self.entries[set * WAYS..][..WAYS]
    }
}

impl<const N: usize> Entry<N> {
    /// Its servers, the one chosen last first.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> {
        let ids = self.servers.iter().rev().map(|place| place.load(Relaxed));
        ids.filter_map(|id| id.checked_sub(1)).map(ServerId)
    }

    /// How long its servers have not changed, s.
    pub fn unchanged_s(&self, now_s: u64) -> u32 {
        (now_s as u32).wrapping_sub(self.changed_s.load(Relaxed))
    }

    /// Makes `server` its only one, where `N` is 1.
    pub fn replace(&self, server: ServerId) {
        self.servers[0].store(server.0 + 1, Relaxed);
    }

    /// Adds a server, unless it is there or there is no room.
    pub fn add(&self, server: ServerId, now_s: u64) {
        if self.servers().any(|id| id == server) {
            return;
        }
        let taken = |place: &AtomicU32| place.load(Relaxed) != 0;
        let end = self.servers.iter().rposition(taken).map_or(0, |p| p + 1);
        let places = self.servers[end..].iter().chain(&self.servers[..end]);
        for place in places {
            let added = place.compare_exchange(0, server.0 + 1, Relaxed, Relaxed);
            if added.is_ok() {
                self.changed_s.store(now_s as u32, Relaxed);
                return;
            }
        }
    }

    /// Removes a server.
    pub fn remove(&self, server: ServerId, now_s: u64) {
        for place in &self.servers {
            let removed = place.compare_exchange(server.0 + 1, 0, Relaxed, Relaxed);
            if removed.is_ok() {
                self.changed_s.store(now_s as u32, Relaxed);
            }
        }
    }
}

/// Where the servers of a list are, by number.
#[derive(Clone, Debug)]
pub(super) struct Places(Box<[(ServerId, usize)]>);

impl Places {
    pub fn new(servers: &[Arc<RealServer>]) -> Self {
        let mut places: Vec<_> = servers.iter().map(|s| s.id).zip(0..).collect();
        places.sort_unstable();
        Self(places.into())
    }

    /// The index of the server with this number, if the list has it.
    pub fn find(&self, id: ServerId) -> Option<usize> {
        let found = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.0[found].1)
    }
}

/// Whether `server` has more active connections than its weight while another has fewer
/// than half its weight (`is_overloaded` of Linux's `ip_vs_lblc.c`; no matter to the upper
/// threshold).
pub(super) fn is_crowded(server: &RealServer, all: &[Arc<RealServer>]) -> bool {
    let nearly_idle = |s: &Arc<RealServer>| u64::from(active(s)) * 2 < s.spec.weight.into();
    active(server) > server.spec.weight && all.iter().any(nearly_idle)
}

/// 64 bits that stand for an address, never [`EMPTY`] or [`BUSY`]. Two IPv6 addresses may
/// share them: they then share servers, which is allowed, only not wanted.
fn tag(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()) + 2,
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            hash::mix(hash::mix((bits >> 64) as u64) ^ bits as u64) | 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn servers<const N: usize>(memory: &Memory<N>, n: u32, now_s: u64) -> Vec<u32> {
        let entry = memory.find(address(n), now_s);
        entry.map_or_else(Vec::new, |e| e.servers().map(|id| id.0).collect())
    }

    #[test]
    fn an_address_unused_for_a_day_is_forgotten() {
        let memory = Memory::<1>::new(64);
        memory.insert(address(7), ServerId(3), 0);
        let day_s = u64::from(EXPIRATION_S);
        assert_eq!(servers(&memory, 7, day_s - 1), [3]);
        assert_eq!(servers(&memory, 7, 2 * day_s - 2), [3]);
        assert_eq!(servers(&memory, 7, 3 * day_s - 2), [0u32; 0]);
        memory.insert(address(7), ServerId(4), 3 * day_s);
        assert_eq!(servers(&memory, 7, 3 * day_s), [4]);
    }

    #[test]
    fn the_address_used_longest_ago_makes_room() {
        let memory = Memory::<1>::new(WAYS);
        for n in 0..WAYS as u32 {
            memory.insert(address(n), ServerId(n), n.into());
        }
        assert_eq!(servers(&memory, 0, 10), [0]);
        memory.insert(address(99), ServerId(99), 11);
        assert_eq!(servers(&memory, 1, 12), [0u32; 0]);
        assert_eq!(servers(&memory, 0, 12), [0]);
        assert_eq!(servers(&memory, 99, 12), [99]);
    }

    #[test]
    fn servers_are_listed_newest_first_and_once() {
        let memory = Memory::<3>::new(WAYS);
        memory.insert(address(1), ServerId(5), 0);
        let entry = memory.find(address(1), 0).unwrap();
        for (id, now_s) in [(6, 1), (5, 2), (7, 3), (8, 4)] {
            entry.add(ServerId(id), now_s);
        }
        assert_eq!(servers(&memory, 1, 5), [7, 6, 5]);
        assert_eq!(entry.unchanged_s(5), 2);
        entry.remove(ServerId(7), 6);
        entry.add(ServerId(8), 7);
        assert_eq!(servers(&memory, 1, 8), [8, 6, 5]);
    }
}
