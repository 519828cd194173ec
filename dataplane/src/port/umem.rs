//! The memory of a worker's frames: a file in memory, so that it can be given to another
//! process, mapped for as long as anything of this process uses it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::munmap;
use rustix::net::sockopt;
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};

use super::CHUNK_BYTES;
use super::shared_memory::map_shared;

/// Memory for a number of chunks, which AF_XDP sockets can be given.
#[derive(Debug)]
pub(super) struct Umem {
    file: OwnedFd,
    start: NonNull<u8>,
    chunks: u32,
}

// SAFETY: the mapping belongs to no thread. Who may touch which chunk is up to `Frames`.
unsafe impl Send for Umem {}
// SAFETY: as above; this type itself reads and writes nothing there.
unsafe impl Sync for Umem {}

impl Umem {
    /// New memory, all zero. Pages come when they are first used.
    pub(super) fn create(chunks: u32) -> io::Result<Self> {
        let file = File::from(memfd_create("lvx-frames", MemfdFlags::CLOEXEC)?);
        file.set_len(Self::bytes_of(chunks) as u64)?;
        Self::map(file.into(), chunks)
    }

    /// The memory that another process made.
    ///
    /// # Errors
    /// Where the file is too short, or cannot be mapped.
    pub(super) fn adopt(file: OwnedFd, chunks: u32) -> io::Result<Self> {
        let length_bytes = rustix::fs::fstat(&file)?.st_size as u64;
        if length_bytes < Self::bytes_of(chunks) as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(file, chunks)
    }

    fn map(file: OwnedFd, chunks: u32) -> io::Result<Self> {
        if chunks == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = map_shared(file.as_fd(), Self::bytes_of(chunks))?;
        Ok(Self {
            file,
            start,
            chunks,
        })
    }

    fn bytes_of(chunks: u32) -> usize {
        chunks as usize * CHUNK_BYTES
    }

    /// How many chunks there are.
    pub(super) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Where the first chunk begins.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The file, to be given to another process.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives the memory to a socket, which pins it.
    pub(super) fn register(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let memory = XdpUmemReg {
            addr: self.start.addr().get() as u64,
            len: Self::bytes_of(self.chunks) as u64,
            chunk_size: CHUNK_BYTES as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        Ok(sockopt::set_xdp_umem_reg(socket, memory)?)
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody has frames in it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), Self::bytes_of(self.chunks)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_same_in_another_mapping() {
        let own = Umem::create(2).unwrap();
        let file = own.file().try_clone_to_owned().unwrap();
        let other = Umem::adopt(file, 2).unwrap();
        // SAFETY: both mappings are two chunks long, and only this thread uses them.
        unsafe {
            own.start().add(CHUNK_BYTES + 7).write(9);
            assert_eq!(other.start().add(CHUNK_BYTES + 7).read(), 9);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let own = Umem::create(2).unwrap();
        for (what, chunks) in [("none", 0), ("more than the file has", 3)] {
            let file = own.file().try_clone_to_owned().unwrap();
            assert!(Umem::adopt(file, chunks).is_err(), "{what}");
        }
    }
}
