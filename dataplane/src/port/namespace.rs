//! Which network namespace a thread is in. Device numbers, programs on devices and sockets
//! mean something only there, while files (state, pins) may be seen from several: what is
//! kept in files is marked with the namespace it belongs to.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SO_NETNS_COOKIE` of asm-generic/socket.h (Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(u64);

impl Namespace {
    /// The calling thread's. Where the kernel has no cookies, by its inode: that may be
    /// another namespace's once this one has gone.
    pub fn current() -> io::Result<Self> {
        let inode = || std::fs::metadata("/proc/thread-self/ns/net").map(|meta| meta.ino());
        cookie().or_else(|_| inode()).map(Self)
    }

    /// The one of this number.
    pub fn of(number: u64) -> Self {
        Self(number)
    }

    /// Its number: no other namespace has it, or had it, since the machine's boot.
    pub fn number(self) -> u64 {
        self.0
    }

    /// What marks the names of its files.
    pub fn mark(self) -> String {
        format!("-net{:x}", self.0)
    }
}

fn cookie() -> io::Result<u64> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the call writes at most `length` bytes, those of `cookie`, and only for its time.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match answer {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_while_in_it_and_another_elsewhere() {
        let own = Namespace::current().unwrap();
        assert_eq!(Namespace::current().unwrap(), own);
        assert_eq!(Namespace::of(own.number()), own);
        assert_eq!(Namespace::of(0x1f).mark(), "-net1f");
        let other = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            Namespace::current().ok()
        });
        match other.join().unwrap() {
            Some(other) => assert_ne!(other, own),
            None => eprintln!("skipped: needs root for network namespaces"),
        }
    }
}
