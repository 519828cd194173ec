//! The servers of a snapshot, in chunks that snapshots share: an edit of one server among
//! 100,000 makes one chunk anew and leaves the rest as it is.
//!
//! What is looked for by address (who may reply, where tunnels end) is counted, so that it
//! is brought up to date by what changed and need not be gathered from all servers.

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use ahash::HashMap;
use sched::server::{Forwarding, RealServer, ServerId, Tunnel};
use sched::service::{Family, Protocol, ServiceId};

use super::sources::Sources;
use super::{Place, ServerSlot, Track, endpoint};
use crate::address::{Bits, bits};
use crate::hops::Hops;

/// Servers of a chunk.
const SEATS: usize = 128;

/// The servers by number, and what they are looked for by.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    chunks: Vec<Arc<Chunk>>,
    ends: Arc<Ends>,
}

#[derive(Clone, Debug)]
struct Chunk {
    tracks: [Track; SEATS],
    seats: Box<[Option<Seat>]>,
    /// Servers that were removed and are only remembered.
    removed: u32,
}

#[derive(Clone, Debug)]
struct Seat {
    slot: ServerSlot,
    /// Where it answers as a masquerading server of a service.
    masquerading: Option<Place>,
}

/// How many servers stand behind each.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    addresses: Counts<(Family, Bits)>,
    masquerading: Counts<Place>,
    pub(super) replies: Sources,
    tunnels: Counts<(Family, Bits)>,
    gue_ports: Counts<u16>,
}

/// What one server adds to the ends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Part {
    address: (Family, Bits),
    masquerading: Option<Place>,
    reply: Option<(Family, Bits)>,
    tunnel: Option<(Family, Bits)>,
    gue_port: Option<u16>,
}

/// A set that knows how often each member was put in.
#[derive(Clone, Debug)]
pub(super) struct Counts<T>(HashMap<T, u32>);

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T: Copy + Eq + Hash> Counts<T> {
    /// Whether it is the first of its kind.
    pub(super) fn add(&mut self, member: T) -> bool {
        let count = self.0.entry(member).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Whether it was the last of its kind.
    pub(super) fn take(&mut self, member: T) -> bool {
        let Entry::Occupied(mut entry) = self.0.entry(member) else {
            return false;
        };
        *entry.get_mut() -= 1;
        let is_last = *entry.get() == 0;
        if is_last {
            entry.remove();
        }
        is_last
    }

    pub(super) fn contains(&self, member: &T) -> bool {
        self.0.contains_key(member)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }
}

impl Servers {
    /// These servers, in the order of their numbers; what did not change is taken from
    /// `self`. `hops` are as they were for `self` where `same_hops`. `protocols` are those
    /// of the services that have an address.
    pub(super) fn next<'a>(
        &self,
        servers: impl IntoIterator<Item = &'a Arc<RealServer>>,
        protocols: &HashMap<ServiceId, Protocol>,
        hops: &Hops,
        same_hops: bool,
    ) -> Self {
        let mut next = Self {
            chunks: Vec::with_capacity(self.chunks.len()),
            ends: self.ends.clone(),
        };
        let empty = Arc::new(Chunk::empty());
        let mut servers = servers.into_iter().peekable();
        let mut here = Vec::with_capacity(SEATS);
        while let Some(first) = servers.peek() {
            let number = first.id.0 as usize / SEATS;
            here.clear();
            while let Some(server) = servers.next_if(|s| s.id.0 as usize / SEATS == number) {
                here.push(server);
            }
            assert!(number >= next.chunks.len(), "servers in order");
            next.chunks.resize(number, empty.clone());
            let before = self.chunks.get(number);
            next.chunks.push(match before {
                Some(before) if same_hops && before.holds(&here) => before.clone(),
                _ => {
                    let way = |server: &RealServer| {
                        let known = before.and_then(|chunk| chunk.slot(server.id));
                        match known.filter(|slot| same_hops && same_address(slot, server)) {
                            Some(slot) => slot.way,
                            None => way(hops, server),
                        }
                    };
                    Arc::new(Chunk::new(&here, protocols, way))
                }
            });
        }
        next.settle(self, &empty);
        next
    }

    /// Brings the ends up to date with what changed since `before`.
    fn settle(&mut self, before: &Self, empty: &Arc<Chunk>) {
        for number in 0..self.chunks.len().max(before.chunks.len()) {
            let [old, new] =
                [before, &*self].map(|servers| servers.chunks.get(number).unwrap_or(empty).clone());
            if Arc::ptr_eq(&old, &new) {
                continue;
            }
            for (old, new) in old.seats.iter().zip(&new.seats) {
                let [old, new] = [old, new].map(|seat| seat.as_ref().map(Part::of));
                if old == new {
                    continue;
                }
                let ends = Arc::make_mut(&mut self.ends);
                old.inspect(|part| ends.take(part));
                new.inspect(|part| ends.add(part));
            }
        }
    }

    /// The same servers, each as `change` makes it.
    pub(super) fn map(&self, change: impl Fn(&ServerSlot) -> ServerSlot) -> Self {
        let seat = |seat: &Seat| Seat {
            slot: change(&seat.slot),
            masquerading: seat.masquerading,
        };
        let chunk = |chunk: &Arc<Chunk>| {
            Arc::new(Chunk {
                tracks: chunk.tracks,
                removed: chunk.removed,
                seats: chunk.seats.iter().map(|s| s.as_ref().map(seat)).collect(),
            })
        };
        Self {
            chunks: self.chunks.iter().map(chunk).collect(),
            ends: self.ends.clone(),
        }
    }

    pub(super) fn get(&self, id: ServerId) -> Option<&ServerSlot> {
        self.chunks.get(id.0 as usize / SEATS)?.slot(id)
    }

    #[inline(always)]
    pub(super) fn track(&self, id: ServerId) -> Option<&Track> {
        let chunk = self.chunks.get(id.0 as usize / SEATS)?;
        Some(&chunk.tracks[id.0 as usize % SEATS])
    }

    /// How many were removed and are only remembered.
    pub(super) fn removed(&self) -> u32 {
        self.chunks.iter().map(|chunk| chunk.removed).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ServerSlot> {
        let seats = self.chunks.iter().flat_map(|chunk| &chunk.seats);
        seats.flatten().map(|seat| &seat.slot)
    }

    /// Whether the servers are found by the same as `other`'s.
    pub(super) fn same_ends(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ends, &other.ends)
    }

    #[inline(always)]
    pub(super) fn ends(&self) -> &Ends {
        &self.ends
    }
}

impl Chunk {
    fn empty() -> Self {
        Self {
            tracks: [Track::NONE; SEATS],
            seats: vec![None; SEATS].into_boxed_slice(),
            removed: 0,
        }
    }

    fn new(
        servers: &[&Arc<RealServer>],
        protocols: &HashMap<ServiceId, Protocol>,
        way: impl Fn(&RealServer) -> crate::hops::Way,
    ) -> Self {
        let mut chunk = Self::empty();
        for server in servers {
            let slot = ServerSlot {
                server: (*server).clone(),
                way: way(server),
            };
            let place = server.id.0 as usize % SEATS;
            chunk.tracks[place] = Track::new(&slot);
            chunk.removed += u32::from(!server.available);
            chunk.seats[place] = Some(Seat {
                masquerading: masquerading(server, protocols),
                slot,
            });
        }
        chunk
    }

    fn slot(&self, id: ServerId) -> Option<&ServerSlot> {
        let seat = self.seats[id.0 as usize % SEATS].as_ref()?;
        Some(&seat.slot)
    }

    /// Whether these servers, and no others, are in it.
    fn holds(&self, servers: &[&Arc<RealServer>]) -> bool {
        let mut seats = self.seats.iter().flatten();
        let is_next = |server: &&Arc<RealServer>| {
            let seat = seats.next();
            seat.is_some_and(|seat| Arc::ptr_eq(&seat.slot.server, server))
        };
        servers.iter().all(is_next) && seats.next().is_none()
    }
}

impl Ends {
    pub(super) fn is_masquerading(&self, place: &Place) -> bool {
        self.masquerading.contains(place)
    }

    pub(super) fn is_tunnel(&self, family: Family, address: Bits) -> bool {
        self.tunnels.contains(&(family, address))
    }

    pub(super) fn is_gue_port(&self, port: u16) -> bool {
        self.gue_ports.contains(&port)
    }

    /// Every server's address, once.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &(Family, Bits)> {
        self.addresses.members()
    }

    fn add(&mut self, part: &Part) {
        self.addresses.add(part.address);
        part.masquerading.inspect(|p| _ = self.masquerading.add(*p));
        part.reply.inspect(|(f, a)| self.replies.add(*f, *a));
        part.tunnel.inspect(|end| _ = self.tunnels.add(*end));
        part.gue_port.inspect(|port| _ = self.gue_ports.add(*port));
    }

    fn take(&mut self, part: &Part) {
        self.addresses.take(part.address);
        part.masquerading
            .inspect(|p| _ = self.masquerading.take(*p));
        part.reply.inspect(|(f, a)| self.replies.take(*f, *a));
        part.tunnel.inspect(|end| _ = self.tunnels.take(*end));
        part.gue_port.inspect(|port| _ = self.gue_ports.take(*port));
    }
}

impl Part {
    fn of(seat: &Seat) -> Self {
        let server = &seat.slot.server;
        let end = (Family::of(server.key.address), bits(server.key.address));
        let mut part = Self {
            address: end,
            masquerading: seat.masquerading,
            reply: None,
            tunnel: None,
            gue_port: None,
        };
        match server.spec.forwarding {
            Forwarding::Masquerade => part.reply = Some(end),
            Forwarding::Tunnel(kind) => {
                part.tunnel = Some(end);
                if let Tunnel::Gue { port, .. } = kind {
                    part.gue_port = Some(port);
                }
            }
            Forwarding::Route => {}
        }
        part
    }
}

fn masquerading(server: &RealServer, protocols: &HashMap<ServiceId, Protocol>) -> Option<Place> {
    if !server.available || server.spec.forwarding != Forwarding::Masquerade {
        return None;
    }
    let protocol = *protocols.get(&server.service)?;
    let address = server.key.address;
    Some((
        Family::of(address),
        protocol,
        endpoint(address, server.key.port),
    ))
}

fn same_address(slot: &ServerSlot, server: &RealServer) -> bool {
    slot.server.key.address == server.key.address
}

fn way(hops: &Hops, server: &RealServer) -> crate::hops::Way {
    let address = server.key.address;
    hops.lookup(Family::of(address), bits(address))
}
