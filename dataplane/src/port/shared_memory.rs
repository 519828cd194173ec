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

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};

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
        let bytes = file.metadata()?.len() as usize;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = map_shared(file.as_fd(), bytes)?;
        // Wishes: without them all works, slower. The first before the second, which maps
        // the pages that are there. (Reading maps sixteen at a time, writing one.)
        for wish in [Advice::LinuxHugepage, Advice::LinuxPopulateRead] {
            // SAFETY: the range is the mapping's own, and neither changes its contents.
            let _ = unsafe { madvise(start.as_ptr().cast(), bytes, wish) };
        }
        Ok(Self {
            memory: NonNull::slice_from_raw_parts(start, bytes),
        })
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
}
