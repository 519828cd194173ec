//! One side of a ring shared with the kernel: a power of two of entries between a producer
//! and a consumer that each only ever add to their own counter (Linux's
//! Documentation/networking/af_xdp.rst and include/uapi/linux/if_xdp.h).

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::{XdpMmapOffsets, XdpRingOffset};

/// `struct xdp_desc` of linux/if_xdp.h: a frame's place and length.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// From the start of the UMEM, bytes.
    pub(super) address: u64,
    /// Bytes.
    pub(super) length: u32,
    pub(super) options: u32,
}

/// Which of a socket's rings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Receive,
    Transmit,
    Fill,
    Completion,
}

impl Which {
    /// Where the ring is mapped from (linux/if_xdp.h), and how it is laid out there.
    fn place(self, offsets: &XdpMmapOffsets) -> (u64, XdpRingOffset) {
        match self {
            Self::Receive => (0, offsets.rx),
            Self::Transmit => (0x8000_0000, offsets.tx),
            Self::Fill => (0x1_0000_0000, offsets.fr),
            Self::Completion => (0x1_8000_0000, offsets.cr),
        }
    }
}

/// XDP_RING_NEED_WAKEUP of linux/if_xdp.h.
const NEED_WAKEUP: u32 = 1;

/// What both sides see.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Kept so that the pointers stay good.
    _mapping: Option<Mapping>,
}

// SAFETY: the pointers lead to memory that `_mapping` (in tests: the caller) keeps, whichever
// thread asks; counters are atomic, and an entry belongs to one side at a time.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn map(socket: BorrowedFd<'_>, which: Which, size: u32) -> io::Result<Self> {
        assert!(size.is_power_of_two());
        let offsets = rustix::net::sockopt::xdp_mmap_offsets(socket)?;
        let (page_offset, ring) = which.place(&offsets);
        let flags = ring.flags.ok_or(io::ErrorKind::Unsupported)?;
        let length = ring.desc as usize + size as usize * size_of::<T>();
        let mapping = Mapping::new(socket, page_offset, length)?;
        let at = |offset: u64| {
            // SAFETY: the kernel's offsets lie within the ring that it maps.
            unsafe { mapping.start.byte_add(offset as usize) }
        };
        Ok(Self {
            producer: at(ring.producer).cast(),
            consumer: at(ring.consumer).cast(),
            flags: at(flags).cast(),
            entries: at(ring.desc).cast(),
            size,
            _mapping: Some(mapping),
        })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: see the type's `Send`: good for as long as `self`, and atomic.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// The entry that a counter's value stands for.
    #[inline]
    fn entry(&self, counter: u32) -> NonNull<T> {
        // SAFETY: the mask keeps the entry within the ring's `size` entries.
        unsafe { self.entries.add((counter & (self.size - 1)) as usize) }
    }
}

/// The producing side: the fill and transmit rings.
#[derive(Debug)]
pub(super) struct Producer<T> {
    shared: Shared<T>,
    /// The next entry to write; ahead of the shared counter until `publish`.
    next: u32,
    /// What the other side had consumed when last asked.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// Maps a socket's ring.
    pub(super) fn map(socket: BorrowedFd<'_>, which: Which, size: u32) -> io::Result<Self> {
        Shared::map(socket, which, size).map(Self::over)
    }

    fn over(shared: Shared<T>) -> Self {
        Self {
            next: shared.producer().load(Ordering::Relaxed),
            consumed: shared.consumer().load(Ordering::Acquire),
            shared,
        }
    }

    /// Entries that can be pushed now.
    #[inline]
    pub(super) fn room(&mut self) -> u32 {
        self.consumed = self.shared.consumer().load(Ordering::Acquire);
        self.shared.size - self.next.wrapping_sub(self.consumed)
    }

    /// Writes an entry, not yet seen by the other side; false when the ring is full.
    #[inline]
    #[must_use]
    pub(super) fn push(&mut self, value: T) -> bool {
        let taken = self.next.wrapping_sub(self.consumed);
        if taken >= self.shared.size && self.room() == 0 {
            return false;
        }
        // SAFETY: between `consumed + size` and `next` entries are ours alone.
        unsafe { self.shared.entry(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Lets the other side see all that was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.shared.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the other side has not yet consumed.
    #[inline]
    pub(super) fn pending(&mut self) -> u32 {
        self.shared.size - self.room()
    }

    /// Whether the other side sleeps until it is called.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }
}

/// The consuming side: the receive and completion rings.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    shared: Shared<T>,
    /// The next entry to read; ahead of the shared counter until `release`.
    next: u32,
    /// What the other side had produced when last asked.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    /// Maps a socket's ring.
    pub(super) fn map(socket: BorrowedFd<'_>, which: Which, size: u32) -> io::Result<Self> {
        Shared::map(socket, which, size).map(Self::over)
    }

    fn over(shared: Shared<T>) -> Self {
        Self {
            next: shared.consumer().load(Ordering::Relaxed),
            produced: shared.producer().load(Ordering::Acquire),
            shared,
        }
    }

    /// Reads an entry, which stays ours until `release`; none when the ring is empty.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.shared.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the producer wrote the entry before it published its counter, and leaves
        // it alone until `release`.
        let value = unsafe { self.shared.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Gives what was popped back to the other side.
    #[inline]
    pub(super) fn release(&mut self) {
        self.shared.consumer().store(self.next, Ordering::Release);
    }
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(socket: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                protection,
                flags,
                socket,
                offset,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the ring that used it is going.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides over plain memory, which the caller keeps.
    struct Plain {
        counters: [AtomicU32; 3],
        entries: Vec<u64>,
    }

    impl Plain {
        fn new(size: usize, start: u32) -> Box<Self> {
            Box::new(Self {
                counters: [start.into(), start.into(), 0.into()],
                entries: vec![0; size],
            })
        }

        fn sides(&mut self) -> (Producer<u64>, Consumer<u64>) {
            let mut side = || Shared {
                producer: NonNull::from(&self.counters[0]),
                consumer: NonNull::from(&self.counters[1]),
                flags: NonNull::from(&self.counters[2]),
                entries: NonNull::new(self.entries.as_mut_ptr()).unwrap(),
                size: self.entries.len() as u32,
                _mapping: None,
            };
            (Producer::over(side()), Consumer::over(side()))
        }
    }

    #[test]
    fn entries_arrive_once_published_and_in_order() {
        let mut memory = Plain::new(4, 0);
        let (mut producer, mut consumer) = memory.sides();
        assert!(producer.push(1) && producer.push(2));
        assert_eq!(consumer.pop(), None, "not yet published");
        producer.publish();
        assert_eq!(producer.pending(), 2);
        assert_eq!(
            (consumer.pop(), consumer.pop(), consumer.pop()),
            (Some(1), Some(2), None)
        );
        assert_eq!(producer.room(), 2, "not yet released");
        consumer.release();
        assert_eq!((producer.room(), producer.pending()), (4, 0));
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let mut memory = Plain::new(2, 0);
        let (mut producer, mut consumer) = memory.sides();
        assert!(producer.push(1) && producer.push(2) && !producer.push(3));
        producer.publish();
        assert_eq!(consumer.pop(), Some(1));
        assert!(!producer.push(3));
        consumer.release();
        assert!(producer.push(3) && !producer.push(4));
    }

    #[test]
    fn counters_wrap() {
        let mut memory = Plain::new(8, u32::MAX - 10);
        let (mut producer, mut consumer) = memory.sides();
        let mut expected = 0;
        for value in 0..100 {
            assert!(producer.push(value));
            producer.publish();
            if value % 3 == 2 {
                while let Some(read) = consumer.pop() {
                    assert_eq!(read, expected);
                    expected += 1;
                }
                consumer.release();
            }
        }
        assert_eq!(expected, 99);
    }

    #[test]
    fn wakeups_are_asked_for_by_the_flag() {
        let mut memory = Plain::new(2, 0);
        let (producer, _) = memory.sides();
        assert!(!producer.needs_wakeup());
        memory.counters[2].store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    #[test]
    fn two_threads_lose_nothing() {
        let mut memory = Plain::new(16, u32::MAX - 1000);
        let (mut producer, mut consumer) = memory.sides();
        const COUNT: u64 = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut value = 0;
                while value < COUNT {
                    if producer.push(value) {
                        value += 1;
                        producer.publish();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < COUNT {
                match consumer.pop() {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
                consumer.release();
            }
        });
    }
}
