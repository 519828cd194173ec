//! The memory of frames, and who owns each. A [`Slot`] is the right to one frame: it can
//! be moved but not copied, so no frame is in two hands. It names the frame's memory and
//! the place of the frame in it, which moves when headers are added or taken off.

use std::sync::Arc;

use super::umem::Umem;
use super::{BURST, CHUNK_BYTES, HEADROOM_BYTES};
use crate::frame::Frame;
use crate::hops::PortId;
use crate::port::steering::PORTS_MAX;
use crate::prefetch::prefetch;

/// One frame, owned. Give it back to the pool or to a port: one that is dropped is lost
/// to both.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a slot that is dropped loses its frame"]
pub struct Slot {
    chunk: u32,
    start: u16,
    end: u16,
}

impl Slot {
    /// The frame's length, bytes.
    pub fn len(&self) -> usize {
        usize::from(self.end - self.start)
    }

    /// Whether the frame is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where the frame begins, counted from the start of all frames' memory.
    pub(super) fn address(&self) -> u64 {
        u64::from(self.chunk) * CHUNK_BYTES as u64 + u64::from(self.start)
    }
}

/// The memory of a worker's frames and the list of the free ones.
#[derive(Debug)]
pub struct Frames {
    memory: Memory,
    /// The last to come back is the first to go out: its lines may still be in the cache.
    free: Vec<u32>,
    total: usize,
    /// The port whose rings each frame was put into last: whose it is, unless it is free or
    /// in hand. Only so can the frames of a device that vanished be told from the others':
    /// its driver may have them, in no ring that could be read.
    holders: Box<[u8]>,
    #[cfg(debug_assertions)]
    is_free: Box<[bool]>,
}

/// The holder of a frame that was in no rings yet.
const NOBODY: u8 = u8::MAX;

#[derive(Debug)]
enum Memory {
    Own(Box<[u8]>),
    /// Memory that sockets have too. `Frames` is its only user in this process.
    Shared(Arc<Umem>),
}

impl Frames {
    /// This many frames in memory of their own.
    pub fn in_memory(count: u32) -> Self {
        let bytes = vec![0; count as usize * CHUNK_BYTES].into_boxed_slice();
        Self::new(Memory::Own(bytes), count)
    }

    /// Frames in memory that sockets can be given, all free. Nothing else of this process may
    /// use that memory.
    pub(super) fn over(umem: Arc<Umem>) -> Self {
        let count = umem.chunks();
        Self::new(Memory::Shared(umem), count)
    }

    /// As [`Frames::over`], of memory that another process used, with those that are free.
    pub(super) fn resume(umem: Arc<Umem>, free: Vec<u32>, holders: &[u8]) -> Self {
        let mut frames = Self::over(umem);
        if holders.len() == frames.holders.len() {
            frames.holders.copy_from_slice(holders);
        }
        #[cfg(debug_assertions)]
        {
            frames.is_free.fill(false);
            free.iter()
                .for_each(|&chunk| frames.is_free[chunk as usize] = true);
        }
        frames.free = free;
        frames
    }

    /// The memory, where sockets can be given it.
    pub(super) fn umem(&self) -> Option<&Arc<Umem>> {
        match &self.memory {
            Memory::Own(_) => None,
            Memory::Shared(umem) => Some(umem),
        }
    }

    /// The free frames' chunks.
    pub(super) fn free_chunks(&self) -> &[u32] {
        &self.free
    }

    fn new(memory: Memory, count: u32) -> Self {
        Self {
            memory,
            free: (0..count).rev().collect(),
            total: count as usize,
            holders: vec![NOBODY; count as usize].into_boxed_slice(),
            #[cfg(debug_assertions)]
            is_free: vec![true; count as usize].into_boxed_slice(),
        }
    }

    /// The ports whose rings frames were put into last.
    pub(super) fn holders(&self) -> &[u8] {
        &self.holders
    }

    /// Notes that a frame goes into the rings of `port`.
    #[inline]
    pub(super) fn hold(&mut self, slot: &Slot, port: PortId) {
        self.holders[slot.chunk as usize] = port.0;
    }

    /// Takes back all frames that a port had whose sockets have been closed: neither its
    /// device nor the kernel will touch them. `in_hand` are those that came by it and were
    /// not given back yet. How many there were.
    pub fn take_back<'a>(
        &mut self,
        port: PortId,
        in_hand: impl IntoIterator<Item = &'a Slot>,
    ) -> usize {
        let mut is_held: Vec<bool> = self.holders.iter().map(|&own| own == port.0).collect();
        let elsewhere = in_hand.into_iter().map(|slot| slot.chunk);
        for chunk in elsewhere.chain(self.free.iter().copied()) {
            is_held[chunk as usize] = false;
        }
        let before = self.free.len();
        let chunks = (0..self.total as u32).filter(|&chunk| is_held[chunk as usize]);
        chunks.for_each(|chunk| self.give_chunk(chunk));
        self.free.len() - before
    }

    /// How many frames a port has that were put into its rings and have not come back, each
    /// port by its number; those in hand of the caller count too.
    pub fn held_by(&self) -> [usize; PORTS_MAX] {
        let mut holders = self.holders.clone();
        for &chunk in &self.free {
            holders[chunk as usize] = NOBODY;
        }
        let mut held = [0; PORTS_MAX];
        for holder in holders {
            if let Some(count) = held.get_mut(usize::from(holder)) {
                *count += 1;
            }
        }
        held
    }

    /// Takes an empty frame from the pool, its room before it.
    #[inline]
    pub fn take(&mut self) -> Option<Slot> {
        let chunk = self.free.pop()?;
        #[cfg(debug_assertions)]
        {
            self.is_free[chunk as usize] = false;
        }
        let start = HEADROOM_BYTES as u16;
        Some(Slot {
            chunk,
            start,
            end: start,
        })
    }

    /// Takes a frame and copies `bytes` into it; none when the pool is empty or the bytes
    /// do not fit.
    pub fn take_with(&mut self, bytes: &[u8]) -> Option<Slot> {
        if bytes.len() > CHUNK_BYTES - HEADROOM_BYTES {
            return None;
        }
        let mut slot = self.take()?;
        slot.end += bytes.len() as u16;
        self.chunk_mut(slot.chunk)[HEADROOM_BYTES..][..bytes.len()].copy_from_slice(bytes);
        Some(slot)
    }

    /// Gives a frame back to the pool.
    #[inline]
    pub fn give(&mut self, slot: Slot) {
        self.give_chunk(slot.chunk);
    }

    /// Works on a frame within its whole memory; where it then begins and ends is kept.
    #[inline]
    pub fn edit<R>(&mut self, slot: &mut Slot, work: impl FnOnce(&mut Frame<'_>) -> R) -> R {
        let (start, end) = (usize::from(slot.start), usize::from(slot.end));
        let memory = self.chunk_mut(slot.chunk);
        let mut frame = Frame::new(memory, start, end).expect("a slot lies within its chunk");
        let result = work(&mut frame);
        slot.start = frame.start() as u16;
        slot.end = frame.end() as u16;
        result
    }

    /// The bytes of a frame.
    #[inline]
    pub fn bytes(&self, slot: &Slot) -> &[u8] {
        &self.chunk(slot.chunk)[usize::from(slot.start)..usize::from(slot.end)]
    }

    /// Free frames.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All frames.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The slot for a frame that the kernel gives up; none for one that is not within a
    /// chunk, which the kernel never sends.
    #[inline]
    pub(super) fn adopt(&self, address: u64, length: u32) -> Option<Slot> {
        let chunk = address / CHUNK_BYTES as u64;
        let start = address % CHUNK_BYTES as u64;
        let end = start + u64::from(length);
        (chunk < self.total as u64 && end <= CHUNK_BYTES as u64).then_some(Slot {
            chunk: chunk as u32,
            start: start as u16,
            end: end as u16,
        })
    }

    /// Asks for a frame's first bytes: who filled it did so on another core, or by the device.
    #[inline]
    pub(super) fn ask_for(&self, slot: &Slot) {
        if let Some(first) = self.bytes(slot).first() {
            prefetch(first);
        }
    }

    /// Takes back the frame around an address that the kernel gives up.
    #[inline]
    pub(super) fn give_address(&mut self, address: u64) {
        let chunk = address / CHUNK_BYTES as u64;
        if chunk < self.total as u64 {
            self.give_chunk(chunk as u32);
        }
    }

    #[inline]
    fn give_chunk(&mut self, chunk: u32) {
        #[cfg(debug_assertions)]
        {
            let was_free = std::mem::replace(&mut self.is_free[chunk as usize], true);
            assert!(!was_free, "frame {chunk} was given back twice");
        }
        self.free.push(chunk);
    }

    #[inline]
    fn chunk(&self, chunk: u32) -> &[u8] {
        let offset = chunk as usize * CHUNK_BYTES;
        match &self.memory {
            Memory::Own(bytes) => &bytes[offset..offset + CHUNK_BYTES],
            // SAFETY: only slots name chunks, and a slot's chunk is within the memory
            // (`new`, `adopt`) and in no ring, so the kernel does not write it.
            Memory::Shared(umem) => unsafe {
                std::slice::from_raw_parts(umem.start().as_ptr().add(offset), CHUNK_BYTES)
            },
        }
    }

    #[inline]
    fn chunk_mut(&mut self, chunk: u32) -> &mut [u8] {
        let offset = chunk as usize * CHUNK_BYTES;
        match &mut self.memory {
            Memory::Own(bytes) => &mut bytes[offset..offset + CHUNK_BYTES],
            // SAFETY: as in `chunk`; and `self` is borrowed for as long as the slice.
            Memory::Shared(umem) => unsafe {
                std::slice::from_raw_parts_mut(umem.start().as_ptr().add(offset), CHUNK_BYTES)
            },
        }
    }
}

/// Frames received together, at most [`BURST`], in order.
#[derive(Debug)]
pub struct Burst {
    slots: Vec<Slot>,
}

impl Default for Burst {
    fn default() -> Self {
        Self {
            slots: Vec::with_capacity(BURST),
        }
    }
}

impl Burst {
    /// Frames there is room for.
    pub fn room(&self) -> usize {
        BURST - self.slots.len()
    }

    /// Frames held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds a frame; gives it back where there is no room.
    #[inline]
    pub fn push(&mut self, slot: Slot) -> Result<(), Slot> {
        if self.room() == 0 {
            return Err(slot);
        }
        self.slots.push(slot);
        Ok(())
    }

    /// The frames, in order, to look at where they lie.
    #[inline]
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Slot> {
        self.slots.iter_mut()
    }

    /// Takes all frames out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Slot> + '_ {
        self.slots.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_both_ways_and_keeps_its_place() {
        let mut frames = Frames::in_memory(2);
        let mut slot = frames.take_with(b"packet").unwrap();
        frames.edit(&mut slot, |frame| {
            assert!(frame.grow_front(3) && frame.grow_back(1));
            frame.bytes_mut()[..3].copy_from_slice(b"ip/");
            frame.bytes_mut()[9] = b's';
            assert_eq!(frame.headroom(), HEADROOM_BYTES - 3);
            assert!(!frame.grow_front(HEADROOM_BYTES));
        });
        assert_eq!(frames.bytes(&slot), b"ip/packets");
        assert_eq!(
            slot.address() % CHUNK_BYTES as u64,
            HEADROOM_BYTES as u64 - 3
        );
        frames.give(slot);
        assert_eq!(frames.free(), 2);
    }

    #[test]
    fn the_pool_ends() {
        let mut frames = Frames::in_memory(1);
        let slot = frames.take().unwrap();
        assert!(frames.take().is_none());
        assert_eq!(slot.len(), 0);
        frames.give(slot);
        assert!(frames.take_with(&[0; CHUNK_BYTES]).is_none());
        assert_eq!(frames.free(), 1);
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    #[cfg(debug_assertions)]
    fn a_frame_comes_back_once() {
        let mut frames = Frames::in_memory(1);
        let slot = frames.take().unwrap();
        let twin = frames.adopt(slot.address(), 0).unwrap();
        frames.give(slot);
        frames.give(twin);
    }

    #[test]
    fn a_port_that_is_gone_leaves_its_frames_and_no_others() {
        let mut frames = Frames::in_memory(6);
        let (gone, other) = (PortId(1), PortId(0));
        let [in_ring, waits, free, sent_on, never] = [(); 5].map(|()| frames.take().unwrap());
        [&in_ring, &waits, &free, &sent_on]
            .iter()
            .for_each(|slot| frames.hold(slot, gone));
        frames.hold(&sent_on, other);
        frames.give(free);
        let held = frames.held_by();
        assert_eq!(held[..3], [1, 2, 0], "sent on; in the ring, and in hand");
        assert_eq!(frames.take_back(gone, [&waits]), 1);
        assert_eq!(frames.free(), 3, "never used, given back, taken back");
        for slot in [waits, sent_on, never] {
            frames.give(slot);
        }
        assert_eq!(frames.free(), 6);
        drop(in_ring);
    }

    #[test]
    fn the_kernel_cannot_name_memory_beyond_the_frames() {
        let frames = Frames::in_memory(2);
        let chunk = CHUNK_BYTES as u64;
        let rows = [
            ("within the first", 256, 64, true),
            ("to its very end", chunk - 64, 64, true),
            ("over its end", chunk - 64, 65, false),
            ("behind the last", 2 * chunk, 0, false),
            ("far out", u64::MAX, 1, false),
        ];
        for (what, address, length, fits) in rows {
            assert_eq!(frames.adopt(address, length).is_some(), fits, "{what}");
        }
    }
}
