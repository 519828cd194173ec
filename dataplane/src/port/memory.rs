//! A port that is two lists in memory, for tests and benchmarks.

use std::collections::VecDeque;

use super::{Burst, Frames, HEADROOM_BYTES, LARGEST_FRAME_BYTES, ONE_CHUNK_MTU};
use super::{Port, PortCounters, Slot};

/// Frames to be received are put in beforehand; frames sent are collected.
#[derive(Debug, Default)]
pub struct MemoryPort {
    incoming: VecDeque<Vec<u8>>,
    pending: VecDeque<Slot>,
    /// What was sent, in order.
    pub sent: Vec<Vec<u8>>,
    /// Whether its frames are as a wire brings them, with whole checksums.
    pub is_wired: bool,
    /// The largest packet that its wire brings; none: what fits one chunk.
    pub mtu: Option<u32>,
    capacity: Option<usize>,
    counters: PortCounters,
}

impl MemoryPort {
    /// A port that sends any number of frames between two flushes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A port that is full at `capacity` frames between two flushes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity: Some(capacity),
            ..Self::default()
        }
    }

    /// Adds a frame to be received.
    pub fn offer(&mut self, frame: &[u8]) {
        self.incoming.push_back(frame.to_vec());
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst) {
        while burst.room() > 0 && frames.free() > 0 && !self.has_large() {
            let Some(bytes) = self.incoming.pop_front() else {
                return;
            };
            match frames.take_with(&bytes) {
                Some(slot) => {
                    burst.push(slot).expect("room was asked for");
                    self.counters.received += 1;
                }
                None => self.counters.missed += 1,
            }
        }
    }

    fn send(&mut self, _: &mut Frames, slot: Slot) -> Result<(), Slot> {
        if self.capacity.is_some_and(|most| self.pending.len() >= most) {
            self.counters.full += 1;
            return Err(slot);
        }
        self.counters.sent += 1;
        self.pending.push_back(slot);
        Ok(())
    }

    fn flush(&mut self, frames: &mut Frames) {
        for slot in self.pending.drain(..) {
            self.sent.push(frames.bytes(&slot).to_vec());
            frames.give(slot);
        }
    }

    fn reclaim(&mut self, _: &mut Frames) {}

    fn mtu(&self) -> u32 {
        self.mtu.unwrap_or(ONE_CHUNK_MTU)
    }

    fn has_large(&self) -> bool {
        let next = self.incoming.front();
        next.is_some_and(|frame| frame.len() > LARGEST_FRAME_BYTES)
    }

    fn receive_large(&mut self, _: &mut Frames, memory: &mut [u8]) -> Option<usize> {
        let bytes = self.incoming.pop_front()?;
        let place = memory.get_mut(HEADROOM_BYTES..HEADROOM_BYTES + bytes.len());
        match place {
            Some(place) => {
                place.copy_from_slice(&bytes);
                self.counters.received += 1;
                Some(bytes.len())
            }
            None => {
                self.counters.missed += 1;
                None
            }
        }
    }

    fn send_large(&mut self, _: &mut Frames, bytes: &[u8]) -> bool {
        let is_full = self.capacity.is_some_and(|most| self.pending.len() >= most);
        match is_full {
            true => self.counters.full += 1,
            false => {
                self.counters.sent += 1;
                self.sent.push(bytes.to_vec());
            }
        }
        !is_full
    }

    fn held(&self) -> usize {
        self.pending.len()
    }

    fn may_be_partial(&self) -> bool {
        !self.is_wired
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::BURST;

    #[test]
    fn frames_come_in_bursts_and_go_out_in_order() {
        let mut frames = Frames::in_memory(100);
        let mut port = MemoryPort::with_capacity(70);
        for i in 0..80 {
            port.offer(&[i; 60]);
        }
        let mut burst = Burst::default();
        let mut refused = 0;
        for expected in [BURST, 16, 0] {
            port.receive(&mut frames, &mut burst);
            assert_eq!(burst.len(), expected);
            for slot in burst.drain() {
                if let Err(slot) = port.send(&mut frames, slot) {
                    refused += 1;
                    frames.give(slot);
                }
            }
            assert_eq!(frames.free() + port.held(), frames.total());
        }
        port.flush(&mut frames);
        assert_eq!((port.sent.len(), refused), (70, 10));
        assert_eq!(port.sent[69], [69; 60]);
        assert_eq!(frames.free(), frames.total());
        let PortCounters {
            received,
            sent,
            full,
            ..
        } = port.counters();
        assert_eq!((received, sent, full), (80, 70, 10));
    }
}
