//! Path MTUs that routers told the director about its own tunnel packets (RFC 1191): the
//! host's route knows only the first link. Shared by all workers and forgotten with the
//! routes, as Linux forgets its next hops' exceptions. IPv4 only, as IPVS learns them.
//!
//! No locks: an entry is one word, replaced whole. Where two workers meet on one, the
//! later wins; a lost entry is learned again with the next packet that is too big.

use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::time::{TICKS_PER_S, Ticks};

/// Destinations remembered at once.
const SLOTS: usize = 256;

/// Slots that a destination may lie in.
const PROBES: usize = 4;

/// How long a path MTU is believed, s (Linux's `net.ipv4.route.mtu_expires`).
const LIFETIME_S: u16 = 600;

/// The smallest path MTU that is believed (Linux's `net.ipv4.route.min_pmtu`).
const LEAST: u16 = 552;

/// Path MTUs by IPv4 destination.
#[derive(Debug)]
pub struct PathMtus {
    slots: Box<[Slot]>,
    used: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    /// See [`Entry`]; 0 where the slot is free.
    word: AtomicU64,
    /// What the last packet to the destination was measured by; 0 for the route's own MTU.
    met: AtomicU16,
}

/// Address in the upper 32 bits, MTU in the next 16, the second it ends at in the last 16.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    destination: u32,
    mtu: u16,
    until_s: u16,
}

impl Entry {
    fn unpack(word: u64) -> Self {
        Self {
            destination: (word >> 32) as u32,
            mtu: (word >> 16) as u16,
            until_s: word as u16,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.destination) << 32 | u64::from(self.mtu) << 16 | u64::from(self.until_s)
    }

    /// Seconds wrap after 18 hours; [`PathMtus::tidy`] runs far more often.
    fn is_live(self, now_s: u16) -> bool {
        self.mtu != 0 && (1..=LIFETIME_S).contains(&self.until_s.wrapping_sub(now_s))
    }
}

impl Default for PathMtus {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            used: AtomicUsize::new(0),
        }
    }
}

impl PathMtus {
    /// Whether nothing is known of any destination.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.used.load(Relaxed) == 0
    }

    /// The path MTU for a packet about to be sent to `destination`, bytes at layer 3; none
    /// where nothing smaller than the route's is known.
    pub fn meet(&self, destination: u32, now: Ticks) -> Option<u16> {
        if self.is_empty() {
            return None;
        }
        let (slot, entry) = self.find(destination, seconds(now))?;
        slot.met.store(entry.mtu, Relaxed);
        Some(entry.mtu)
    }

    /// What the last packet to `destination` was measured by; none for the route's MTU.
    /// IPVS tells senders this one, which is a packet behind what was learned.
    pub fn met(&self, destination: u32, now: Ticks) -> Option<u16> {
        let (slot, _) = self.find(destination, seconds(now))?;
        Some(slot.met.load(Relaxed)).filter(|mtu| *mtu != 0)
    }

    /// The same, to be changed apart from these.
    #[must_use]
    pub fn forked(&self) -> Self {
        let copy = |slot: &Slot| Slot {
            word: AtomicU64::new(slot.word.load(Relaxed)),
            met: AtomicU16::new(slot.met.load(Relaxed)),
        };
        Self {
            slots: self.slots.iter().map(copy).collect(),
            used: AtomicUsize::new(self.used.load(Relaxed)),
        }
    }

    /// A router said that packets of `told` bytes fit to `destination`, whose route takes
    /// `route` bytes. Only ever lowers what is known (Linux's `__ip_rt_update_pmtu`).
    pub fn learn(&self, destination: u32, told: u16, route: u16, now: Ticks) {
        let now_s = seconds(now);
        let found = self.find(destination, now_s);
        let known = found.map_or(route, |(_, entry)| entry.mtu.min(route));
        if told > known {
            return;
        }
        let entry = Entry {
            destination,
            mtu: told.max(LEAST.min(known)),
            until_s: now_s.wrapping_add(LIFETIME_S),
        };
        let slot = match found {
            Some((slot, _)) => slot,
            None => {
                let slot = self.vacant(destination, now_s);
                slot.met.store(0, Relaxed);
                slot
            }
        };
        if slot.word.swap(entry.pack(), Relaxed) == 0 {
            self.used.fetch_add(1, Relaxed);
        }
    }

    /// Forgets what is too old.
    pub fn tidy(&self, now: Ticks) {
        if self.used.load(Relaxed) == 0 {
            return;
        }
        for slot in &self.slots {
            let word = slot.word.load(Relaxed);
            let old = word != 0 && !Entry::unpack(word).is_live(seconds(now));
            if old
                && slot
                    .word
                    .compare_exchange(word, 0, Relaxed, Relaxed)
                    .is_ok()
            {
                self.used.fetch_sub(1, Relaxed);
            }
        }
    }

    fn find(&self, destination: u32, now_s: u16) -> Option<(&Slot, Entry)> {
        self.places(destination)
            .map(|slot| (slot, Entry::unpack(slot.word.load(Relaxed))))
            .find(|(_, entry)| entry.destination == destination && entry.is_live(now_s))
    }

    /// A free slot for a destination, else the first of its slots.
    fn vacant(&self, destination: u32, now_s: u16) -> &Slot {
        let is_free = |slot: &&Slot| !Entry::unpack(slot.word.load(Relaxed)).is_live(now_s);
        let mut places = self.places(destination);
        places
            .find(is_free)
            .unwrap_or(&self.slots[start(destination)])
    }

    fn places(&self, destination: u32) -> impl Iterator<Item = &Slot> {
        (0..PROBES).map(move |i| &self.slots[(start(destination) + i) % SLOTS])
    }
}

fn start(destination: u32) -> usize {
    super::mix(destination.into()) as usize % SLOTS
}

fn seconds(now: Ticks) -> u16 {
    (now / TICKS_PER_S) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ticks;

    const SERVER: u32 = 0x0a02_000b;

    #[test]
    fn learns_only_less_and_never_too_little() {
        let rows = [
            ("less than the route", 1500, vec![1300], Some(1300)),
            ("as much as the route", 1500, vec![1500], Some(1500)),
            ("more than the route", 1400, vec![1450], None),
            ("more than is known", 1500, vec![1300, 1400], Some(1300)),
            ("less than is known", 1500, vec![1300, 1200], Some(1200)),
            ("less than the least", 1500, vec![80], Some(552)),
            ("nothing", 1500, vec![0], Some(552)),
            ("a route below the least", 500, vec![80], Some(500)),
        ];
        for (what, route, told, wanted) in rows {
            let known = PathMtus::default();
            told.iter().for_each(|t| known.learn(SERVER, *t, route, 16));
            assert_eq!(known.meet(SERVER, 17), wanted, "{what}");
            assert_eq!(known.meet(SERVER + 1, 17), None, "{what}: another");
        }
    }

    #[test]
    fn tells_what_the_last_packet_met() {
        let known = PathMtus::default();
        known.learn(SERVER, 1300, 1500, 0);
        assert_eq!(known.met(SERVER, 0), None);
        known.meet(SERVER, 0);
        known.learn(SERVER, 1200, 1500, 0);
        assert_eq!(known.met(SERVER, 0), Some(1300));
        known.meet(SERVER, 0);
        assert_eq!(known.met(SERVER, 0), Some(1200));
    }

    #[test]
    fn forgets_after_ten_minutes() {
        let (known, begun) = (PathMtus::default(), ticks(65_000));
        known.learn(SERVER, 1300, 1500, begun);
        known.tidy(begun + ticks(599));
        assert_eq!(known.meet(SERVER, begun + ticks(599)), Some(1300));
        assert_eq!(known.meet(SERVER, begun + ticks(600)), None);
        known.tidy(begun + ticks(600));
        assert_eq!(known.used.load(Relaxed), 0);
        known.learn(SERVER, 1400, 1500, begun + ticks(601));
        assert_eq!(known.met(SERVER, begun + ticks(601)), None, "begins anew");
    }

    #[test]
    fn holds_a_bounded_number() {
        let known = PathMtus::default();
        for destination in 0..4096 {
            known.learn(destination, 1300, 1500, 0);
            assert_eq!(known.meet(destination, 0), Some(1300));
        }
        assert!(known.used.load(Relaxed) <= SLOTS);
    }
}
