//! A frame that takes several chunks (Linux 6.6, "multi-buffer"): the kernel gives one
//! descriptor for each chunk and marks all but the last. It is gathered into one piece of
//! memory, as all that looks at packets wants them in one piece; the two copies are small
//! beside what such a frame carries.

use crate::port::ring::Descriptor;
use crate::port::{Frames, HEADROOM_BYTES, LARGE_FRAME_BYTES};

/// XDP_PKT_CONTD of linux/if_xdp.h: more descriptors of the same frame follow.
pub(super) const CONTINUED: u32 = 1;

/// A frame on its way in. The chunks are the port's until it is taken.
#[derive(Debug, Default)]
pub(super) struct Chain {
    parts: Vec<Descriptor>,
    is_whole: bool,
}

impl Chain {
    /// Takes a descriptor up if it is part of such a frame, or of one longer than any that a
    /// wire brings: an offload joined that, be it in one chunk, and it is to be cut too.
    pub(super) fn takes(&mut self, descriptor: Descriptor, longest: u32) -> bool {
        let goes_on = descriptor.options & CONTINUED != 0;
        if !goes_on && self.parts.is_empty() && descriptor.length <= longest {
            return false;
        }
        self.parts.push(descriptor);
        self.is_whole = !goes_on;
        true
    }

    /// Whether all of the frame is there.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Chunks held.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Copies the frame to `memory`, behind the headroom, and gives its chunks back. Its
    /// length in bytes; none where it is longer than any frame that is forwarded.
    pub(super) fn take(&mut self, frames: &mut Frames, memory: &mut [u8]) -> Option<usize> {
        self.is_whole = false;
        let mut length = Some(0);
        for part in self.parts.drain(..) {
            let Some(slot) = frames.adopt(part.address, part.length) else {
                frames.give_address(part.address);
                length = None;
                continue;
            };
            length = length.and_then(|before| {
                let bytes = frames.bytes(&slot);
                let at = HEADROOM_BYTES + before;
                memory.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
                Some(before + bytes.len())
            });
            frames.give(slot);
        }
        length.filter(|&length| length <= LARGE_FRAME_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{CHUNK_BYTES, LARGE_MEMORY_BYTES};

    fn part(chunk: u64, length: u32, options: u32) -> Descriptor {
        Descriptor {
            address: chunk * CHUNK_BYTES as u64 + HEADROOM_BYTES as u64,
            length,
            options,
        }
    }

    /// What becomes of descriptors: whether each was taken, then the frame's length, if any.
    #[test]
    fn parts_become_a_frame_and_chunks_come_back() {
        type Row = (
            &'static str,
            Vec<Descriptor>,
            &'static [bool],
            Option<Option<usize>>,
        );
        let rows: [Row; 6] = [
            ("a frame of one chunk", vec![part(0, 60, 0)], &[false], None),
            (
                "the longest of a wire",
                vec![part(0, 3000, 0)],
                &[false],
                None,
            ),
            (
                "a joined one in one chunk",
                vec![part(0, 3001, 0)],
                &[true],
                Some(Some(3001)),
            ),
            (
                "a frame of three",
                vec![part(0, 3840, 1), part(1, 3840, 1), part(2, 20, 0)],
                &[true; 3],
                Some(Some(7700)),
            ),
            (
                "one that is not all there",
                vec![part(0, 3840, 1)],
                &[true],
                None,
            ),
            (
                "a place beyond the memory",
                vec![part(0, 3840, 1), part(99, 20, 0)],
                &[true; 2],
                Some(None),
            ),
        ];
        for (what, parts, taken, length) in rows {
            let mut frames = Frames::in_memory(4);
            let slots: Vec<_> = (0..parts.len()).filter_map(|_| frames.take()).collect();
            slots.into_iter().for_each(drop);
            let mut chain = Chain::default();
            let answers: Vec<bool> = parts.iter().map(|part| chain.takes(*part, 3000)).collect();
            assert_eq!(answers, taken, "{what}");
            assert_eq!(chain.is_whole(), length.is_some(), "{what}");
            let mut memory = vec![0; LARGE_MEMORY_BYTES];
            if let Some(length) = length {
                assert_eq!(chain.take(&mut frames, &mut memory), length, "{what}");
                assert_eq!(chain.len(), 0, "{what}");
            }
        }
    }

    #[test]
    fn bytes_stay_in_order() {
        let mut frames = Frames::in_memory(4);
        let bytes: Vec<u8> = (0..9000u32).map(|n| (n % 251) as u8).collect();
        let mut chain = Chain::default();
        let mut parts = bytes.chunks(3840).peekable();
        while let Some(some) = parts.next() {
            let slot = frames.take_with(some).unwrap();
            let part = Descriptor {
                address: slot.address(),
                length: some.len() as u32,
                options: u32::from(parts.peek().is_some()),
            };
            chain.takes(part, 3000);
        }
        let mut memory = vec![0; LARGE_MEMORY_BYTES];
        assert_eq!(chain.take(&mut frames, &mut memory), Some(9000));
        assert_eq!(memory[HEADROOM_BYTES..][..9000], bytes);
        assert_eq!(frames.free(), 4);
    }
}
