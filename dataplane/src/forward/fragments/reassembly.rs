//! Putting datagrams together.
//!
//! All memory is taken once. A sender may fill a quarter of it; who needs more loses their
//! own oldest datagram, and when all is full the oldest of all goes, so that incomplete
//! datagrams can neither starve others nor block for the length of the timeout.

use super::Geometry;
use super::datagram::{Key, Slot};
use crate::frame::{Frame, Packet};
use crate::time::{Ticks, is_due};
use crate::verdict::Reason;

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Copied (or a repetition): more must come.
    Held,
    /// The datagram is whole: take it with [`Reassembly::whole`].
    Whole,
    /// Refused, and its datagram with it.
    Drop(Reason),
}

/// Incomplete datagrams. One worker's; fragments of a datagram must meet at one worker.
#[derive(Debug)]
pub struct Reassembly {
    /// A short hash of each slot's key; 0 where the slot is free.
    tags: Box<[u32]>,
    slots: Box<[Slot]>,
    used: usize,
    timeout: Ticks,
    whole: Option<usize>,
    timed_out: usize,
    evicted: usize,
}

impl Reassembly {
    /// Room for this many incomplete datagrams (at least one), of some 68 KiB each, which
    /// wait for `timeout` from their first fragment on (Linux: 30 s for IPv4, 60 s for IPv6).
    pub fn new(datagrams: usize, timeout: Ticks) -> Self {
        let datagrams = datagrams.max(1);
        Self {
            tags: vec![0; datagrams].into(),
            slots: (0..datagrams).map(|_| Slot::new()).collect(),
            used: 0,
            timeout,
            whole: None,
            timed_out: 0,
            evicted: 0,
        }
    }

    /// Takes a copy of a fragment. The datagram taken with [`Self::whole`] before is gone.
    ///
    /// A fragment that repeats only what is there is ignored; one that overlaps ends its
    /// datagram (RFC 5722, and Linux for IPv4 too), as does one that contradicts the
    /// datagram's end or mixes ECN codepoints (RFC 3168, 5.3).
    pub fn offer(&mut self, now: Ticks, frame: &Frame<'_>, packet: &Packet) -> Offered {
        self.release();
        let Some(info) = packet.fragment else {
            return Offered::Drop(Reason::FragmentInvalid);
        };
        let key = Key::of(packet, &info);
        let index = self.find(now, &key).unwrap_or_else(|| self.begin(now, key));
        match self.slots[index].add(frame.bytes(), packet, &info) {
            Ok(false) => Offered::Held,
            Ok(true) => {
                self.whole = Some(index);
                Offered::Whole
            }
            Err(reason) => {
                self.free(index);
                Offered::Drop(reason)
            }
        }
    }

    /// The datagram that the last [`Self::offer`] completed, and how it had been split: a
    /// frame with the first fragment's link header and 256 bytes before it, the fragment
    /// fields cleared, ready for [`Packet::parse`]. None where none was completed.
    pub fn whole(&mut self) -> Option<(Frame<'_>, &Geometry)> {
        self.slots[self.whole?].whole()
    }

    /// Ends datagrams whose time ran out; tells how many have been lost to that since the
    /// last call.
    pub fn tidy(&mut self, now: Ticks) -> usize {
        if self.used > 0 {
            for index in 0..self.slots.len() {
                if self.is_late(index, now) {
                    self.free(index);
                    self.timed_out += 1;
                }
            }
        }
        std::mem::take(&mut self.timed_out)
    }

    /// How many incomplete datagrams have had to go for newer ones since the last call.
    pub fn evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    fn is_late(&self, index: usize, now: Ticks) -> bool {
        let due = self.slots[index].begun.wrapping_add(self.timeout);
        self.tags[index] != 0 && self.whole != Some(index) && is_due(due, now)
    }

    fn release(&mut self) {
        if let Some(index) = self.whole.take() {
            self.free(index);
        }
    }

    fn free(&mut self, index: usize) {
        self.tags[index] = 0;
        self.used -= 1;
    }

    fn find(&mut self, now: Ticks, key: &Key) -> Option<usize> {
        let tag = key.tag();
        let index =
            (0..self.tags.len()).find(|&i| self.tags[i] == tag && self.slots[i].key == *key)?;
        if self.is_late(index, now) {
            self.free(index);
            self.timed_out += 1;
            return None;
        }
        Some(index)
    }

    /// A slot for a new datagram.
    fn begin(&mut self, now: Ticks, key: Key) -> usize {
        let index = self.place(now, &key);
        self.tags[index] = key.tag();
        self.used += 1;
        self.slots[index].begin(now, key);
        index
    }

    fn place(&mut self, now: Ticks, key: &Key) -> usize {
        let share = self.slots.len().div_ceil(4);
        let of_sender = |s: &Self, i: usize| s.tags[i] != 0 && s.slots[i].key.source == key.source;
        let own = (0..self.slots.len())
            .filter(|&i| of_sender(self, i))
            .count();
        let free = self.tags.iter().position(|&tag| tag == 0);
        let goes = match free {
            _ if own >= share => self.oldest(now, |i| of_sender(self, i)),
            Some(index) => return index,
            None => self.oldest(now, |_| true),
        };
        self.free(goes);
        self.evicted += 1;
        goes
    }

    /// The slot begun longest ago among those that `choose` names (at least one).
    fn oldest(&self, now: Ticks, choose: impl Fn(usize) -> bool) -> usize {
        (0..self.slots.len())
            .filter(|&i| choose(i))
            .max_by_key(|&i| now.wrapping_sub(self.slots[i].begun))
            .unwrap_or(0)
    }
}
