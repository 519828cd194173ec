//! A frame where it lies: a window in a larger piece of memory, with room before it for
//! headers and behind it for growth. Growing moves an edge, never the bytes.

/// A link-layer frame within its memory.
#[derive(Debug)]
pub struct Frame<'a> {
    memory: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    /// The frame at `start..end` of `memory`; none where that does not fit.
    #[inline]
    pub fn new(memory: &'a mut [u8], start: usize, end: usize) -> Option<Self> {
        (start <= end && end <= memory.len()).then_some(Self { memory, start, end })
    }

    /// Where the frame begins in its memory.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Where the frame ends in its memory.
    #[inline]
    pub fn end(&self) -> usize {
        self.end
    }

    /// The frame's length, bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the frame is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The frame's bytes, to rewrite.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// Free bytes before the frame.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Free bytes behind the frame.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.memory.len() - self.end
    }

    /// Lets the frame begin `length` bytes earlier; false where there is no room.
    /// The new bytes hold what lay there before.
    #[inline]
    #[must_use]
    pub fn grow_front(&mut self, length: usize) -> bool {
        let fits = length <= self.start;
        if fits {
            self.start -= length;
        }
        fits
    }

    /// Lets the frame end `length` bytes later; false where there is no room.
    #[inline]
    #[must_use]
    pub fn grow_back(&mut self, length: usize) -> bool {
        let fits = length <= self.tailroom();
        if fits {
            self.end += length;
        }
        fits
    }

    /// Cuts `length` bytes off the front (at most all).
    #[inline]
    pub fn shrink_front(&mut self, length: usize) {
        self.start += length.min(self.len());
    }

    /// Cuts the frame down to `length` bytes, if it is longer.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
    }
}
