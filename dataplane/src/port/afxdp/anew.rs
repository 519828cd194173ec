//! Sockets for a device that came back, over frames that a worker goes on using.
//!
//! libxdp shares a UMEM only by the socket it registered it with, and that one may be the
//! one whose device has gone; and frames that another process passed have no UMEM of
//! libxdp's at all. So these sockets are made by hand: over the UMEM of any other queue of
//! the worker, or, where no other is left, over the same memory registered once more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use xsk_rs::Umem;

use super::{AfXdpError, AfXdpOptions, AfXdpPort, QueueSetup};
use super::{Transfer, socket_failed};
use crate::hops::PortId;
use crate::port::{CHUNK_BYTES, Frames};

/// One worker's memory and the sockets over it, held by whoever opens more of them: not the
/// worker, which must not wait for the kernel and may not open any.
#[derive(Debug)]
pub struct Anchor {
    start: NonNull<u8>,
    chunks: usize,
    /// Keeps the memory mapped; that of another process is mapped for good.
    _umem: Option<Umem>,
    transfer: SocketAddrXdpFlags,
    options: AfXdpOptions,
    sockets: Vec<(PortId, OwnedFd)>,
}

// SAFETY: the pointer is only told to the kernel, and leads to memory that stays mapped.
unsafe impl Send for Anchor {}

impl Anchor {
    /// Of a worker's frames and queues; none of frames that are in no UMEM.
    pub fn of(
        frames: &Frames,
        ports: &[(PortId, AfXdpPort)],
        transfer: &Transfer,
        options: AfXdpOptions,
    ) -> io::Result<Option<Self>> {
        let (start, _, chunks) = frames.parts();
        let (Some(start), Some(umem)) = (start, frames.keeper()) else {
            return Ok(None);
        };
        let sockets = ports
            .iter()
            .map(|(port, queue)| Ok((*port, queue.socket().try_clone_to_owned()?)));
        Ok(Some(Self {
            start,
            chunks,
            _umem: umem,
            transfer: match transfer {
                Transfer::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
                Transfer::Copy(_) => SocketAddrXdpFlags::XDP_COPY,
            },
            options,
            sockets: sockets.collect::<io::Result<_>>()?,
        }))
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Lets go of the sockets of a port whose device has gone.
    pub fn release(&mut self, gone: PortId) {
        self.sockets.retain(|(port, _)| *port != gone);
    }

    /// Lets go of all sockets, so that they close with the worker's own.
    pub fn release_all(&mut self) {
        self.sockets.clear();
    }

    /// Opens queues of one port. Their fill rings are empty: the first look at them fills
    /// those. All or none.
    ///
    /// The steering program must be attached to the device; register each queue's
    /// descriptor with it afterwards. A queue that is taken is told at once.
    pub fn open(&mut self, queues: &[QueueSetup<'_>]) -> Result<Vec<AfXdpPort>, AfXdpError> {
        let kept = self.sockets.len();
        let opened: Result<_, _> = queues.iter().map(|queue| self.open_one(*queue)).collect();
        if opened.is_err() {
            self.sockets.truncate(kept);
        }
        opened
    }

    fn open_one(&mut self, setup: QueueSetup<'_>) -> Result<AfXdpPort, AfXdpError> {
        let failed = |error: io::Error| match error.raw_os_error() {
            Some(libc::EBUSY) => AfXdpError::Busy {
                device: setup.device.name.clone(),
                queue: setup.queue,
            },
            Some(libc::EPERM) => AfXdpError::NotPermitted,
            _ => socket_failed(setup, error.to_string()),
        };
        let socket = self.socket(setup).map_err(failed)?;
        let own = socket.try_clone().map_err(failed)?;
        let (size, reserve) = (self.options.ring_entries, self.options.frames_per_queue / 8);
        let place = (setup.port, setup.queue);
        let port = AfXdpPort::over(place, socket, size, reserve as usize).map_err(failed)?;
        port.widen(size);
        self.sockets.push((setup.port, own));
        Ok(port)
    }

    fn socket(&self, setup: QueueSetup<'_>) -> io::Result<OwnedFd> {
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let size = self.options.ring_entries;
        let (index, queue) = (setup.device.index, setup.queue);
        let sibling = self.sockets.first();
        if sibling.is_none() {
            let memory = XdpUmemReg {
                addr: self.start.addr().get() as u64,
                len: (self.chunks * CHUNK_BYTES) as u64,
                chunk_size: CHUNK_BYTES as u32,
                headroom: 0,
                flags: XdpUmemRegFlags::empty(),
                tx_metadata_len: 0,
            };
            sockopt::set_xdp_umem_reg(&socket, memory)?;
        }
        sockopt::set_xdp_umem_fill_ring_size(&socket, size)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, size)?;
        sockopt::set_xdp_rx_ring_size(&socket, size)?;
        sockopt::set_xdp_tx_ring_size(&socket, size)?;
        match sibling {
            // The kernel takes the mode from the other socket, and refuses to be told.
            Some((_, sibling)) => {
                let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
                let address = SocketAddrXdp::new(flags, index, queue);
                bind(
                    &socket,
                    &SocketAddrXdpWithSharedUmem {
                        addr: address,
                        shared_umem_fd: sibling.as_fd(),
                    },
                )?;
            }
            None => {
                let flags = self.transfer | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
                bind(&socket, &SocketAddrXdp::new(flags, index, queue))?;
            }
        }
        Ok(socket)
    }
}
