//! How every AF_XDP socket is made: memory, rings, mappings, and only then the device it is
//! bound to. Before Linux 6.4 the rings of a bound socket cannot be mapped any more
//! (net/xdp/xsk.c, `xsk_mmap`), and some drivers never ask again for frames that the fill
//! ring did not have when it was bound.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::port::ring::{Consumer, Descriptor, Producer, Which};
use crate::port::umem::Umem;

/// A socket's four rings, mapped.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) receive: Consumer<Descriptor>,
    pub(super) transmit: Producer<Descriptor>,
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
}

impl Rings {
    /// Maps the rings of a socket, which have `entries` each.
    pub(super) fn map(socket: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        Ok(Self {
            receive: Consumer::map(socket, Which::Receive, entries)?,
            transmit: Producer::map(socket, Which::Transmit, entries)?,
            fill: Producer::map(socket, Which::Fill, entries)?,
            completion: Consumer::map(socket, Which::Completion, entries)?,
        })
    }
}

/// Where a socket's frames lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory<'a> {
    /// In memory that it is given itself.
    Own(&'a Umem),
    /// In that of a bound socket.
    Of(BorrowedFd<'a>),
}

/// A socket over its memory, not yet bound to a device.
pub(super) fn create(memory: Memory<'_>, entries: u32) -> io::Result<OwnedFd> {
    let socket = new()?;
    if let Memory::Own(umem) = memory {
        umem.register(socket.as_fd())?;
    }
    // Each (device, queue) has its fill and completion rings on its own socket, also where
    // sockets share memory.
    sockopt::set_xdp_umem_fill_ring_size(&socket, entries)?;
    sockopt::set_xdp_umem_completion_ring_size(&socket, entries)?;
    sockopt::set_xdp_rx_ring_size(&socket, entries)?;
    sockopt::set_xdp_tx_ring_size(&socket, entries)?;
    Ok(socket)
}

fn new() -> io::Result<OwnedFd> {
    // A program that this process starts would hold the queue.
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        flags,
        None,
    )?)
}

/// Binds a socket to a device's queue. `mode` is for memory of its own: a socket that shares
/// another's has that one's, and the kernel refuses to be told.
pub(super) fn bind_to(
    socket: BorrowedFd<'_>,
    memory: Memory<'_>,
    (device, queue): (u32, u32),
    mode: SocketAddrXdpFlags,
) -> io::Result<()> {
    let address = |flags| SocketAddrXdp::new(flags, device, queue);
    match memory {
        Memory::Own(_) => {
            let flags = mode | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
            bind(socket, &address(flags))?;
        }
        Memory::Of(sibling) => {
            let address = SocketAddrXdpWithSharedUmem {
                addr: address(SocketAddrXdpFlags::XDP_SHARED_UMEM),
                shared_umem_fd: sibling,
            };
            bind(socket, &address)?;
        }
    }
    Ok(())
}

/// Whether the kernel takes frames of more than one chunk (Linux 6.6).
pub fn takes_several_chunks() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // Flags are looked at before the device, and no device has the number 0.
        let nowhere = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_USE_SG, 0, 0);
        new().is_ok_and(|socket| bind(&socket, &nowhere) == Err(Errno::NODEV))
    })
}
