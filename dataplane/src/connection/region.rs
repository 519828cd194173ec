#![allow(
    unsafe_code,
    reason = "one block of zeroed memory is cut into slices of atomics; the only way to hold \
              a table that start-up does not touch and that the next process can take up"
)]
#![cfg_attr(loom, allow(dead_code, reason = "the models need no block of memory"))]
//! The table's memory: one block, places instead of pointers, and zeroed memory is an
//! empty table. So the block may be shared memory that outlives its process, and memory
//! that no connection used yet is never touched.
//!
//! Layout, from the front: header, a line per worker, the sweep's hints, buckets, entries.

#[cfg(loom)]
pub(super) use modelled::Memory;
#[cfg(not(loom))]
pub(super) use real::Memory;

use super::bucket::Bucket;
use super::entry::Entry;
use super::reclaim::SPARE_PER_WORKER;
use super::sync::{AtomicU32, AtomicU64, Relaxed};

/// "lvxtable", read as a little-endian number.
const MAGIC: u64 = u64::from_le_bytes(*b"lvxtable");

/// Counts changes to the meaning of any byte below.
const LAYOUT: u64 = 5;

/// Worker lines at least, so that the next process may run more workers than this one.
const WORKER_LINES_MIN: usize = 64;

/// The header: four lines, of which the workers write the last three.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Header {
    magic: AtomicU64,
    layout: AtomicU64,
    capacity: AtomicU64,
    worker_lines: AtomicU64,
    entries: AtomicU64,
    buckets: AtomicU64,
    pub(super) seed: AtomicU64,
    /// Not 0 where its workers ended in good order; see `recover`.
    pub(super) settled: AtomicU64,
    /// Entries below this place were handed out at least once.
    pub(super) fresh: Line<AtomicU32>,
    /// The stack of chains of free entries: a count of changes above the first's place.
    pub(super) free: Line<AtomicU64>,
    /// Grows when a worker has freed entries; see `reclaim`.
    pub(super) epoch: Line<AtomicU64>,
}

/// A value in a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Line<T>(pub(super) T);

/// What one worker writes and others read.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct WorkerLine {
    /// The epoch that its present burst began in; 0 while it is paused.
    pub(super) seen: AtomicU64,
    /// Entries it inserted less those it removed, wrapping.
    pub(super) in_use: AtomicU64,
    /// The same of those with an extension, which takes the room of another.
    pub(super) extended: AtomicU64,
    /// Not 0 while it changes the index. A table whose workers were all killed at 0 has a
    /// whole index.
    pub(super) changing: AtomicU64,
}

impl WorkerLine {
    /// Says that the index is being changed, until the answer is dropped.
    #[inline]
    pub(super) fn change(&self) -> Changing<'_> {
        if !cfg!(loom) {
            self.changing.store(1, Relaxed);
        }
        // A killed thread has done all that stands before: only the compiler's order counts.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        Changing(self)
    }
}

/// See [`WorkerLine::change`].
pub(super) struct Changing<'t>(&'t WorkerLine);

impl Drop for Changing<'_> {
    #[inline]
    fn drop(&mut self) {
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        if !cfg!(loom) {
            self.0.changing.store(0, Relaxed);
        }
    }
}

/// How many of each; all that the layout depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) capacity: usize,
    pub(super) worker_lines: usize,
    /// With the first, which is never used: place 0 means none.
    pub(super) entries: usize,
    pub(super) buckets: usize,
}

impl Shape {
    /// Two buckets for eleven entries: a bucket of ten is then full once in 40, and an
    /// entry with all that belongs to it takes 64 + 4 + 64 / 5.5 = 79.6 bytes.
    pub(super) fn new(capacity: usize, workers: usize) -> Self {
        assert!(workers > 0, "a table without workers");
        let entries = 1 + capacity + workers * SPARE_PER_WORKER;
        assert!(
            entries < 1 << 31,
            "a table for {capacity} connections: at most 2^31"
        );
        let buckets = if cfg!(loom) {
            2
        } else {
            prime_from((entries * 2).div_ceil(11).max(3))
        };
        Self {
            capacity,
            worker_lines: if cfg!(loom) {
                workers
            } else {
                workers.max(WORKER_LINES_MIN)
            },
            entries,
            buckets,
        }
    }

    /// Bytes from the start: of workers, hints, buckets, entries, end.
    fn offsets(self) -> [usize; 5] {
        let workers = size_of::<Header>();
        let hints = workers + self.worker_lines * size_of::<WorkerLine>();
        let buckets = hints + (self.entries * size_of::<u32>()).next_multiple_of(64);
        let entries = buckets + self.buckets * size_of::<Bucket>();
        [
            workers,
            hints,
            buckets,
            entries,
            entries + self.entries * size_of::<Entry>(),
        ]
    }

    pub(super) fn bytes(self) -> usize {
        self.offsets()[4]
    }
}

/// Why memory cannot be taken as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError {
    /// It does not begin at a multiple of 64 bytes.
    Unaligned,
    /// It is shorter than the table in it.
    TooSmall {
        /// The length that is needed.
        needed_bytes: usize,
    },
    /// It holds no connection table.
    NotATable,
    /// It holds a table of another version of lvx.
    OtherLayout {
        /// The version of its layout.
        found: u64,
    },
    /// Its header contradicts itself.
    Damaged,
}

impl std::fmt::Display for RegionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unaligned => write!(
                f,
                "the connection table's memory must begin at a multiple of 64 bytes"
            ),
            Self::TooSmall { needed_bytes } => {
                write!(
                    f,
                    "the connection table needs {needed_bytes} bytes of memory, which has fewer"
                )
            }
            Self::NotATable => write!(f, "the memory holds no connection table"),
            Self::OtherLayout { found } => write!(
                f,
                "the connection table in memory has layout {found}, this lvx knows {LAYOUT}: start with an empty one"
            ),
            Self::Damaged => write!(
                f,
                "the connection table's header contradicts itself: start with an empty one"
            ),
        }
    }
}

impl std::error::Error for RegionError {}

/// The first prime from `n`, which is at least 3; below 2^32, gaps are under 400.
fn prime_from(n: usize) -> usize {
    let is_prime = |n: usize| {
        (3..)
            .step_by(2)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
    };
    (n | 1..).step_by(2).find(|&n| is_prime(n)).unwrap_or(n)
}

#[cfg(not(loom))]
mod real {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    use super::super::sync::{Acquire, Release};
    use super::*;

    /// The size of a huge page, on which a block of several begins.
    const HUGE_BYTES: usize = 2 << 20;

    /// The block, cut up.
    #[derive(Debug)]
    pub(in super::super) struct Memory {
        shape: Shape,
        header: NonNull<Header>,
        workers: NonNull<WorkerLine>,
        hints: NonNull<AtomicU32>,
        buckets: NonNull<Bucket>,
        entries: NonNull<Entry>,
        /// What to give back at the end; none where the block is the caller's.
        owned: Option<(NonNull<u8>, Layout)>,
    }

    // SAFETY: all that the pointers reach are atomics, in memory that lives as long as
    // `self`: its own, or a caller's who promised so.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        /// Zeroed memory of its own. The allocator maps large blocks lazily.
        pub(in super::super) fn new(shape: Shape, seed: u64) -> Self {
            let bytes = shape.bytes();
            let align = if bytes >= 4 * HUGE_BYTES {
                HUGE_BYTES
            } else {
                64
            };
            // Asking the allocator for the alignment would make it write the zeros.
            let layout = Layout::from_size_align(bytes + align, 8).expect("a table's size");
            // SAFETY: the layout is not empty.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) });
            let Some(start) = start else {
                handle_alloc_error(layout)
            };
            let skip = start.as_ptr().align_offset(align);
            assert!(skip <= align, "memory that cannot be aligned");
            // SAFETY: `align` bytes more than needed were allocated.
            let base = unsafe { start.add(skip) };
            if align == HUGE_BYTES {
                ask_for_huge_pages(base, bytes);
            }
            // SAFETY: `base` begins `bytes` zeroed bytes, aligned to 64, which are given
            // back only when `self` ends.
            let mut memory = unsafe { Self::cut(base, shape) };
            memory.owned = Some((start, layout));
            memory.sign(seed);
            memory
        }

        /// A new table in the caller's zeroed memory.
        ///
        /// # Safety
        /// As for `Table::create_in`.
        pub(in super::super) unsafe fn create_in(
            block: NonNull<[u8]>,
            shape: Shape,
            seed: u64,
        ) -> Result<Self, RegionError> {
            let base = fitting(block, shape.bytes())?;
            // SAFETY: it is aligned and long enough; the caller promises the rest.
            let memory = unsafe { Self::cut(base, shape) };
            memory.sign(seed);
            Ok(memory)
        }

        /// The table that an earlier process left in the caller's memory.
        ///
        /// # Safety
        /// As for `Table::adopt`.
        pub(in super::super) unsafe fn adopt(block: NonNull<[u8]>) -> Result<Self, RegionError> {
            let base = fitting(block, size_of::<Header>())?;
            // SAFETY: aligned, long enough for a header, and all of a header are atomics.
            let header = unsafe { base.cast::<Header>().as_ref() };
            let shape = header.shape()?;
            let base = fitting(block, shape.bytes())?;
            // SAFETY: it is aligned and long enough; the caller promises the rest.
            Ok(unsafe { Self::cut(base, shape) })
        }

        /// # Safety
        /// `base` is aligned to 64 and begins `shape.bytes()` initialized bytes that
        /// nothing but atomics accesses as long as `self` lives.
        unsafe fn cut(base: NonNull<u8>, shape: Shape) -> Self {
            let [workers, hints, buckets, entries, _] = shape.offsets();
            // SAFETY: all offsets are below `shape.bytes()`.
            unsafe {
                Self {
                    shape,
                    header: base.cast(),
                    workers: base.add(workers).cast(),
                    hints: base.add(hints).cast(),
                    buckets: base.add(buckets).cast(),
                    entries: base.add(entries).cast(),
                    owned: None,
                }
            }
        }

        fn sign(&self, seed: u64) {
            let header = self.header();
            header.capacity.store(self.shape.capacity as u64, Relaxed);
            header
                .worker_lines
                .store(self.shape.worker_lines as u64, Relaxed);
            header.entries.store(self.shape.entries as u64, Relaxed);
            header.buckets.store(self.shape.buckets as u64, Relaxed);
            header.seed.store(seed, Relaxed);
            header.layout.store(LAYOUT, Relaxed);
            header.fresh.0.store(1, Relaxed);
            header.epoch.0.store(1, Relaxed);
            // Last: who is killed before this leaves no table.
            header.magic.store(MAGIC, Release);
        }

        pub(in super::super) fn shape(&self) -> Shape {
            self.shape
        }

        #[inline(always)]
        pub(in super::super) fn header(&self) -> &Header {
            // SAFETY: see `cut`.
            unsafe { self.header.as_ref() }
        }

        #[inline(always)]
        pub(in super::super) fn workers(&self) -> &[WorkerLine] {
            // SAFETY: see `cut`.
            unsafe { NonNull::slice_from_raw_parts(self.workers, self.shape.worker_lines).as_ref() }
        }

        #[inline(always)]
        pub(in super::super) fn hints(&self) -> &[AtomicU32] {
            // SAFETY: see `cut`.
            unsafe { NonNull::slice_from_raw_parts(self.hints, self.shape.entries).as_ref() }
        }

        #[inline(always)]
        pub(in super::super) fn buckets(&self) -> &[Bucket] {
            // SAFETY: see `cut`.
            unsafe { NonNull::slice_from_raw_parts(self.buckets, self.shape.buckets).as_ref() }
        }

        #[inline(always)]
        pub(in super::super) fn entries(&self) -> &[Entry] {
            // SAFETY: see `cut`.
            unsafe { NonNull::slice_from_raw_parts(self.entries, self.shape.entries).as_ref() }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            if let Some((start, layout)) = self.owned {
                // SAFETY: allocated so in `new`, and nothing refers to it any more.
                unsafe { dealloc(start.as_ptr(), layout) }
            }
        }
    }

    impl Header {
        /// What the header says, where that makes sense.
        fn shape(&self) -> Result<Shape, RegionError> {
            if self.magic.load(Acquire) != MAGIC {
                return Err(RegionError::NotATable);
            }
            let found = self.layout.load(Relaxed);
            if found != LAYOUT {
                return Err(RegionError::OtherLayout { found });
            }
            let shape = Shape {
                capacity: self.capacity.load(Relaxed) as usize,
                worker_lines: self.worker_lines.load(Relaxed) as usize,
                entries: self.entries.load(Relaxed) as usize,
                buckets: self.buckets.load(Relaxed) as usize,
            };
            let sane = shape.capacity < shape.entries
                && (2..1 << 31).contains(&shape.entries)
                && (3..1 << 31).contains(&shape.buckets)
                && (1..1 << 16).contains(&shape.worker_lines)
                && (1..=shape.entries as u32).contains(&self.fresh.0.load(Relaxed));
            if sane {
                Ok(shape)
            } else {
                Err(RegionError::Damaged)
            }
        }
    }

    fn fitting(block: NonNull<[u8]>, needed_bytes: usize) -> Result<NonNull<u8>, RegionError> {
        let base = block.cast::<u8>();
        if !base.as_ptr().addr().is_multiple_of(64) {
            return Err(RegionError::Unaligned);
        }
        if block.len() < needed_bytes {
            return Err(RegionError::TooSmall { needed_bytes });
        }
        Ok(base)
    }

    /// Look-ups hit anywhere in gigabytes: with pages of 4 KiB each would miss the TLB as
    /// well. Only a wish; without it, all works, slower.
    fn ask_for_huge_pages(base: NonNull<u8>, bytes: usize) {
        #[cfg(all(target_os = "linux", not(miri)))]
        // SAFETY: the range is this block's own, and the advice changes no contents.
        let _ = unsafe {
            rustix::mm::madvise(
                base.as_ptr().cast(),
                bytes,
                rustix::mm::Advice::LinuxHugepage,
            )
        };
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = (base, bytes);
    }
}

/// Loom's atomics are no plain words, so the models keep them in boxes.
#[cfg(loom)]
mod modelled {
    use super::*;

    #[derive(Debug)]
    pub(in super::super) struct Memory {
        shape: Shape,
        header: Header,
        workers: Box<[WorkerLine]>,
        hints: Box<[AtomicU32]>,
        buckets: Box<[Bucket]>,
        entries: Box<[Entry]>,
    }

    impl Memory {
        pub(in super::super) fn new(shape: Shape, seed: u64) -> Self {
            fn many<T: Default>(n: usize) -> Box<[T]> {
                (0..n).map(|_| T::default()).collect()
            }
            let header = Header::default();
            let _ = (MAGIC, LAYOUT);
            header.seed.store(seed, Relaxed);
            header.fresh.0.store(1, Relaxed);
            header.epoch.0.store(1, Relaxed);
            Self {
                shape,
                header,
                workers: many(shape.worker_lines),
                hints: many(shape.entries),
                buckets: many(shape.buckets),
                entries: many(shape.entries),
            }
        }

        pub(in super::super) fn shape(&self) -> Shape {
            self.shape
        }
        pub(in super::super) fn header(&self) -> &Header {
            &self.header
        }
        pub(in super::super) fn workers(&self) -> &[WorkerLine] {
            &self.workers
        }
        pub(in super::super) fn hints(&self) -> &[AtomicU32] {
            &self.hints
        }
        pub(in super::super) fn buckets(&self) -> &[Bucket] {
            &self.buckets
        }
        pub(in super::super) fn entries(&self) -> &[Entry] {
            &self.entries
        }
    }
}
