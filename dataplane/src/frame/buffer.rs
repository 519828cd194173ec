//! A frame where it lies: a window in a larger piece of memory, with room before it for
//! headers and behind it for growth. Growing moves an edge, never the bytes.

/// A link-layer frame within its memory.
#[derive(Debug)]
pub struct Frame<'a> {
    memory: &'a mut [u8],
    // In 32 bits, so that places near them cannot overflow `usize`, and nothing asks whether
    // they do.
    start: u32,
    end: u32,
}

impl<'a> Frame<'a> {
    /// The frame at `start..end` of `memory`; none where that does not fit, or lies beyond
    /// 4 GiB.
    #[inline]
    pub fn new(memory: &'a mut [u8], start: usize, end: usize) -> Option<Self> {
        let mut frame = Self {
            memory,
            start: 0,
            end: 0,
        };
        frame.put_at(start, end).then_some(frame)
    }

    /// Lets the frame be `start..end` of its memory; false, and nothing changed, where that
    /// does not fit.
    #[inline]
    #[must_use]
    pub fn put_at(&mut self, start: usize, end: usize) -> bool {
        let fits = start <= end && end <= self.memory.len();
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if fits => {
                (self.start, self.end) = (start, end);
                true
            }
            _ => false,
        }
    }

    /// Where the frame begins in its memory.
    #[inline]
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Where the frame ends in its memory.
    #[inline]
    pub fn end(&self) -> usize {
        self.end as usize
    }

    /// The frame's length, bytes.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the frame is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start()..self.end()]
    }

    /// The frame's bytes, to rewrite.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start as usize..self.end as usize]
    }

    /// `length` bytes of memory from the frame's start on; none where there are fewer. Where the
    /// frame is shorter, the last are not its own.
    #[inline(always)]
    pub(crate) fn window(&self, length: usize) -> Option<&[u8]> {
        let start = self.start();
        self.memory.get(start..start + length)
    }

    /// Free bytes before the frame.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start()
    }

    /// Free bytes behind the frame.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.memory.len() - self.end()
    }

    /// Lets the frame begin `length` bytes earlier; false where there is no room.
    /// The new bytes hold what lay there before.
    #[inline]
    #[must_use]
    pub fn grow_front(&mut self, length: usize) -> bool {
        let fits = length <= self.start();
        if fits {
            self.start -= length as u32;
        }
        fits
    }

    /// As [`Frame::window`], to rewrite, and the `before` bytes that lie before it; none where
    /// there are fewer.
    #[inline(always)]
    pub(crate) fn window_with_mut(&mut self, before: usize, length: usize) -> Option<&mut [u8]> {
        let start = self.start();
        self.memory
            .get_mut(start.checked_sub(before)?..start + length)
    }

    /// Lets the frame begin `length` bytes earlier, for which there is room.
    #[inline(always)]
    pub(crate) fn begin_before(&mut self, length: usize) {
        debug_assert!(length <= self.start(), "a frame begins in its memory");
        self.start = self.start.wrapping_sub(length as u32);
    }

    /// Lets the frame end `length` bytes later; false where there is no room.
    #[inline]
    #[must_use]
    pub fn grow_back(&mut self, length: usize) -> bool {
        let fits = length <= self.tailroom();
        if fits {
            self.end += length as u32;
        }
        fits
    }

    /// Cuts `length` bytes off the front (at most all).
    #[inline]
    pub fn shrink_front(&mut self, length: usize) {
        self.start += length.min(self.len()) as u32;
    }

    /// Cuts the frame down to `length` bytes, if it is longer.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.end = self.start + length.min(self.len()) as u32;
    }

    /// Cuts the frame down to `length` bytes, which it has.
    #[inline(always)]
    pub(crate) fn end_after(&mut self, length: usize) {
        debug_assert!(length <= self.len(), "a frame is cut, not made longer");
        self.end = self.start + length as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_with_the_memory_and_begin_with_it() {
        let mut memory: Vec<u8> = (0..10).collect();
        let mut frame = Frame::new(&mut memory, 4, 6).unwrap();
        assert_eq!(frame.window(2), Some(&[4, 5][..]));
        assert_eq!(
            frame.window(6),
            Some(&[4, 5, 6, 7, 8, 9][..]),
            "past the frame's end"
        );
        assert_eq!(frame.window(7), None);
        assert_eq!(
            frame.window_with_mut(5, 2),
            None,
            "begins before the memory"
        );
        assert_eq!(frame.window_with_mut(4, 7), None, "ends behind the memory");
        assert_eq!(frame.window_with_mut(3, 1), Some(&mut [1, 2, 3, 4][..]));
        frame.begin_before(3);
        assert_eq!((frame.start(), frame.end()), (1, 6));
    }
}
