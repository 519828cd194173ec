//! Memory that outlives its process: a file (in shared memory, or of huge pages) that is
//! mapped whole. What lies in it are atomics, so that any bytes are valid.
//!
//! A mapping stays for the rest of the process, so that what lies in it needs no owner.
//! One process at a time may use a file: the caller's lock sees to that. Whoever cuts the
//! file short ends the process (SIGBUS).

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};

#[cfg(not(loom))]
use crate::connection::table::{Recovered, RegionError, Survivor, Table};
use crate::counters::Traffic;

/// A part of a mapping that nothing else uses.
#[derive(Debug)]
pub struct SharedMemory {
    memory: NonNull<[u8]>,
}

// SAFETY: the mapping belongs to no thread, and this value is the only way to it.
unsafe impl Send for SharedMemory {}

/// MADV_COLLAPSE of linux/mman-common.h (Linux 6.1).
const MADV_COLLAPSE: libc::c_int = 25;

/// A large page of x86-64 and of arm64 with pages of 4 KiB, bytes.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// As [`map_shared`], where a large page begins: only there can one be mapped whole.
fn map_aligned(file: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    let all = bytes + LARGE_PAGE_BYTES;
    // SAFETY: a new mapping wherever the kernel likes, which nobody can use.
    let reserved = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            all,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )?
    };
    let start = reserved.map_addr(|address| address.next_multiple_of(LARGE_PAGE_BYTES));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: it replaces a part of what was just reserved. The rest is address space and no more.
    let start = unsafe { mmap(start, bytes, access, flags, file, 0)? };
    Ok(NonNull::new(start.cast()).expect("a mapping does not begin at 0"))
}

/// Maps the first `bytes` of a file, to read and to write, for all who map it.
pub(super) fn map_shared(file: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping wherever the kernel likes.
    let start = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            access,
            MapFlags::SHARED,
            file,
            0,
        )?
    };
    Ok(NonNull::new(start.cast()).expect("a mapping does not begin at 0"))
}

impl SharedMemory {
    /// Maps all of a file, and has its pages ready.
    pub fn map(file: &File) -> io::Result<Self> {
        let memory = Self::map_bare(file)?;
        memory.make_ready();
        Ok(memory)
    }

    /// As [`SharedMemory::map`], of a new file of `bytes`, all zero. In large pages where the
    /// kernel has them to give, whatever its settings for those who do not ask: what is looked
    /// into at random costs a walk through the page tables for each look otherwise.
    pub fn create(file: &File, bytes: u64) -> io::Result<Self> {
        let room = |from, bytes| fallocate(file, FallocateFlags::empty(), from, bytes);
        file.set_len(bytes)?;
        let memory = Self::map_bare(file)?;
        // What the kernel joins must have begun. Not by writing: without room that is a signal.
        for from in (0..bytes).step_by(LARGE_PAGE_BYTES) {
            room(from, (bytes - from).min(4096))?;
        }
        // SAFETY: the range is the mapping's own, and its contents stay. A wish as well: refused
        // before Linux 6.1, on a disk, without enough memory in one piece.
        unsafe { libc::madvise(memory.memory.cast().as_ptr(), memory.len(), MADV_COLLAPSE) };
        room(0, bytes)?;
        memory.make_ready();
        Ok(memory)
    }

    fn map_bare(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len() as usize;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = map_aligned(file.as_fd(), bytes)?;
        Ok(Self {
            memory: NonNull::slice_from_raw_parts(start, bytes),
        })
    }

    /// Wishes: without them all works, slower. The first before the second, which maps the
    /// pages that are there. (Reading maps sixteen at a time, writing one.)
    fn make_ready(&self) {
        for wish in [Advice::LinuxHugepage, Advice::LinuxPopulateRead] {
            // SAFETY: the range is the mapping's own, and neither changes its contents.
            let _ = unsafe { madvise(self.memory.cast().as_ptr(), self.len(), wish) };
        }
    }

    /// How much it is.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The first `bytes` of it, a multiple of 64, and the rest; none where it has fewer.
    pub fn split(self, bytes: usize) -> Option<(Self, Self)> {
        if bytes > self.len() || !bytes.is_multiple_of(64) {
            return None;
        }
        let start = self.memory.cast::<u8>();
        let part = |start, bytes| Self {
            memory: NonNull::slice_from_raw_parts(start, bytes),
        };
        // SAFETY: `bytes` is within the memory.
        let rest = unsafe { start.add(bytes) };
        Some((part(start, bytes), part(rest, self.len() - bytes)))
    }

    /// As many atomics as fit.
    pub fn cells<T: Plain>(self) -> Cells<T> {
        let count = self.len() / size_of::<T>();
        let start = self.memory.cast::<T>();
        assert!(
            start.is_aligned(),
            "memory is given out in lines of 64 bytes"
        );
        Cells {
            cells: NonNull::slice_from_raw_parts(start, count),
            own: false,
        }
    }
}

#[cfg(not(loom))]
impl SharedMemory {
    /// A new connection table, in memory that was never written. See [`Table::create_in`].
    pub fn new_table(
        self,
        capacity: usize,
        workers: usize,
        seed: u64,
    ) -> Result<Table, RegionError> {
        // SAFETY: mapped for good, this value was the only way to it, and the file's pages
        // are zero before they are written.
        unsafe { Table::create_in(self.memory, capacity, workers, seed) }
    }

    /// The table that an earlier process left. See [`Table::adopt`].
    pub fn adopt_table(
        self,
        workers: usize,
        keep: &mut dyn FnMut(Survivor) -> bool,
    ) -> Result<(Table, Recovered), RegionError> {
        // SAFETY: as in `new_table`, and the caller's lock says that process has ended.
        unsafe { Table::adopt(self.memory, workers, keep) }
    }

    /// The table that an earlier process left settled; else the memory again. See
    /// [`Table::adopt_settled`].
    pub fn adopt_settled_table(self, workers: usize) -> Result<Result<Table, Self>, RegionError> {
        // SAFETY: as in `adopt_table`; where there is no table, nothing uses the memory.
        let table = unsafe { Table::adopt_settled(self.memory, workers)? };
        Ok(table.ok_or(self))
    }
}

/// What may lie in shared memory: atomics and nothing else, so that any bytes are valid and
/// no access races.
///
/// # Safety
/// The type consists of atomics only, and no reference, pointer or padding matters.
pub unsafe trait Plain: Default {}

// SAFETY: an atomic.
unsafe impl Plain for AtomicU64 {}
// SAFETY: atomics, in a line of their own.
unsafe impl Plain for Traffic {}

/// A slice of atomics: its own, or in memory that the next process takes up.
pub struct Cells<T> {
    cells: NonNull<[T]>,
    /// To be freed.
    own: bool,
}

// SAFETY: `Plain` types are atomics; the memory is this value's own, or mapped for good.
unsafe impl<T: Sync> Send for Cells<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Cells<T> {}

impl<T: Plain> Cells<T> {
    /// Memory of its own, all zero.
    pub fn new(count: usize) -> Self {
        let cells: Box<[T]> = (0..count).map(|_| T::default()).collect();
        let cells = NonNull::from(Box::leak(cells));
        Self { cells, own: true }
    }
}

impl<T> Deref for Cells<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: good for as long as `self`; all access is by atomics.
        unsafe { self.cells.as_ref() }
    }
}

/// The counts: tests compare them.
impl<T: fmt::Debug> fmt::Debug for Cells<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T> Drop for Cells<T> {
    fn drop(&mut self) {
        if self.own {
            // SAFETY: it was leaked by `new`, and nothing refers to it any more.
            drop(unsafe { Box::from_raw(self.cells.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn the_next_mapping_finds_what_the_last_left() {
        let path = std::env::temp_dir().join(format!("lvx-shared-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(SharedMemory::map(&file).is_err(), "an empty file");
        file.set_len(8192).unwrap();
        for round in 0..3 {
            let memory = SharedMemory::map(&file).unwrap();
            assert_eq!(memory.len(), 8192);
            let (first, rest) = memory.split(128).unwrap();
            let (first, rest) = (first.cells::<AtomicU64>(), rest.cells::<Traffic>());
            assert_eq!((first.len(), rest.len()), (16, 126));
            assert_eq!(first[15].fetch_add(1, Relaxed), round);
            assert_eq!(rest[125].out_bytes.fetch_add(2, Relaxed), 2 * round);
        }
        let memory = SharedMemory::map(&file).unwrap();
        assert!(memory.split(8256).is_none());
        let own = Cells::<AtomicU64>::new(3);
        assert_eq!(own.iter().map(|cell| cell.load(Relaxed)).sum::<u64>(), 0);
    }

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let path = format!("/dev/shm/lvx-test-{}", std::process::id());
        let open = || {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(&path).unwrap()
        };
        // A whole large page and a part of one, a whole one, less than one.
        for bytes in [3 * LARGE_PAGE_BYTES / 2, LARGE_PAGE_BYTES, 64] {
            let ours = SharedMemory::create(&open(), bytes as u64).unwrap();
            assert_eq!(ours.len(), bytes);
            let begin = ours.memory.cast::<u8>().addr().get();
            assert!(begin.is_multiple_of(LARGE_PAGE_BYTES));
            let theirs = SharedMemory::map(&open()).unwrap();
            let [ours, theirs] = [ours, theirs].map(SharedMemory::cells::<AtomicU64>);
            assert!(theirs.iter().all(|cell| cell.load(Relaxed) == 0));
            let last = ours.len() - 1;
            ours[last].store(7, Relaxed);
            assert_eq!(theirs[last].load(Relaxed), 7);
            std::fs::remove_file(&path).unwrap();
        }
        let refused = SharedMemory::create(&open(), 1 << 50).is_err();
        std::fs::remove_file(&path).unwrap();
        assert!(refused, "no machine has that");
    }
}
