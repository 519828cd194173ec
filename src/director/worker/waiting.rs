//! Frames whose next hop's link address is being asked for. Bounded in all: by number, for
//! each neighbour, and in time, so that an address nobody has cannot take a worker's frames.

use std::collections::VecDeque;

use dataplane::hops::{NeighbourKey, Way};
use dataplane::port::Slot;
use dataplane::time::{Ticks, is_due, ticks};

/// Frames that wait in one worker. A burst of new connections may meet several unknown
/// neighbours at once; what is refused here, clients send again a second later.
pub const FRAMES_MAX: usize = 256;

/// Frames that wait for one neighbour: below Linux's 101 (`unres_qlen`), so that three
/// silent neighbours leave room for others.
pub const FRAMES_PER_NEIGHBOUR_MAX: usize = 64;

/// How long a frame waits, s: Linux's own three tries of a second each (`mcast_solicit`,
/// `retrans_time_ms`).
pub const TIMEOUT_S: u32 = 3;

/// Ask again for a neighbour after this long, s: the first asking may have found no room.
const ASK_AGAIN_S: u32 = 1;

/// A frame that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The frame, complete but for its link addresses.
    pub slot: Slot,
    /// The way that lacks them.
    pub way: Way,
    key: NeighbourKey,
    since: Ticks,
    asked: Ticks,
}

/// Why a frame may not wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already.
    Full(Slot),
    /// It waits for nothing.
    Pointless(Slot),
}

/// The frames of one worker that wait, oldest first.
#[derive(Debug)]
pub struct WaitingRoom {
    frames: VecDeque<Waiting>,
}

impl Default for WaitingRoom {
    fn default() -> Self {
        Self {
            frames: VecDeque::with_capacity(FRAMES_MAX),
        }
    }
}

impl WaitingRoom {
    /// Lets a frame wait; the neighbour to be asked for, if it is the first to wait for it.
    pub fn enter(
        &mut self,
        slot: Slot,
        way: Way,
        now: Ticks,
    ) -> Result<Option<NeighbourKey>, Refused> {
        let Way::Unresolved(key, _) = way else {
            return Err(Refused::Pointless(slot));
        };
        let fellows = self.frames.iter().filter(|frame| frame.key == key).count();
        if self.frames.len() >= FRAMES_MAX || fellows >= FRAMES_PER_NEIGHBOUR_MAX {
            return Err(Refused::Full(slot));
        }
        self.frames.push_back(Waiting {
            slot,
            way,
            key,
            since: now,
            asked: now,
        });
        Ok((fellows == 0).then_some(key))
    }

    /// Takes a frame back that was taken out and still waits, its time running on. Only
    /// while taking out, so there is room.
    pub fn re_enter(&mut self, frame: Waiting) {
        self.frames.push_back(frame);
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The frames that wait, where they lie.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.frames.iter().map(|frame| &frame.slot)
    }

    /// Takes the oldest frame out. Ask `len` beforehand: those that come back in go last.
    pub fn next(&mut self) -> Option<Waiting> {
        self.frames.pop_front()
    }

    /// Takes out a frame whose time is up.
    pub fn expired(&mut self, now: Ticks) -> Option<Slot> {
        let limit = ticks(TIMEOUT_S);
        let is_over = |frame: &Waiting| is_due(frame.since.wrapping_add(limit), now);
        let place = self.frames.iter().position(is_over)?;
        Some(self.frames.remove(place)?.slot)
    }

    /// A neighbour to be asked for again.
    pub fn ask_again(&mut self, now: Ticks) -> Option<NeighbourKey> {
        let is_due = |frame: &Waiting| is_due(frame.asked.wrapping_add(ticks(ASK_AGAIN_S)), now);
        let key = self.frames.iter().find(|frame| is_due(frame))?.key;
        for frame in self.frames.iter_mut().filter(|frame| frame.key == key) {
            frame.asked = now;
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use dataplane::hops::{Hop, PortId};
    use dataplane::port::Frames;

    use super::*;

    fn way(last: u8) -> (NeighbourKey, Way) {
        let key = NeighbourKey {
            device: 1,
            address: [10, 0, 0, last].into(),
        };
        let hop = Hop {
            port: PortId(0),
            vlan: None,
            source: [0; 6],
            destination: [0; 6],
            mtu: 1500,
            local: 0,
        };
        (key, Way::Unresolved(key, hop))
    }

    #[test]
    fn the_first_frame_asks_and_the_limits_hold() {
        let mut frames = Frames::in_memory(300);
        let mut room = WaitingRoom::default();
        for neighbour in 0..4 {
            let (key, way) = way(neighbour);
            for i in 0..FRAMES_PER_NEIGHBOUR_MAX {
                let entered = room.enter(frames.take().unwrap(), way, 0).unwrap();
                assert_eq!(entered, (i == 0).then_some(key));
            }
            let refused = room.enter(frames.take().unwrap(), way, 0);
            assert!(matches!(refused, Err(Refused::Full(_))));
        }
        assert_eq!(room.len(), FRAMES_MAX);
        let refused = room.enter(frames.take().unwrap(), way(9).1, 0);
        assert!(matches!(refused, Err(Refused::Full(_))));
        let refused = room.enter(frames.take().unwrap(), Way::Local, 0);
        assert!(matches!(refused, Err(Refused::Pointless(_))));
    }

    #[test]
    fn frames_leave_in_order_and_in_time() {
        let mut frames = Frames::in_memory(4);
        let mut room = WaitingRoom::default();
        let start = Ticks::MAX - 10;
        for (i, name) in [b"a", b"b", b"c"].into_iter().enumerate() {
            let slot = frames.take_with(name).unwrap();
            room.enter(slot, way(i as u8).1, start.wrapping_add(i as u32))
                .unwrap();
        }
        let again = room.next().unwrap();
        assert_eq!(frames.bytes(&again.slot), b"a");
        room.re_enter(again);
        let end = start.wrapping_add(ticks(TIMEOUT_S));
        assert!(room.expired(end.wrapping_sub(1)).is_none());
        let slot = room.expired(end).unwrap();
        assert_eq!(
            frames.bytes(&slot),
            b"a",
            "its time ran on while it was out"
        );
        assert!(room.expired(end).is_none());
        assert_eq!(room.len(), 2);
        frames.give(slot);
    }

    #[test]
    fn neighbours_are_asked_for_again_each_second() {
        let mut frames = Frames::in_memory(4);
        let mut room = WaitingRoom::default();
        let (key, way) = way(1);
        for _ in 0..2 {
            let _ = room.enter(frames.take().unwrap(), way, 0).unwrap();
        }
        assert_eq!(room.ask_again(ticks(1) - 1), None);
        assert_eq!(room.ask_again(ticks(1)), Some(key));
        assert_eq!(room.ask_again(ticks(1)), None, "once for all who wait");
        assert_eq!(room.ask_again(ticks(2)), Some(key));
    }
}
