//! Sockets for a device that came back, over frames that a worker goes on using.
//!
//! The kernel shares memory with a bound socket. Any other queue of the worker has one; where
//! none is left, the same memory is given to the kernel once more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::xdp::SocketAddrXdpFlags;

use super::{AfXdpError, AfXdpOptions, AfXdpPort, Memory, QueueSetup, Transfer};
use crate::hops::PortId;
use crate::port::Frames;
use crate::port::umem::Umem;

/// One worker's memory and the sockets over it, held by whoever opens more of them: not the
/// worker, which must not wait for the kernel and may not open any.
#[derive(Debug)]
pub struct Anchor {
    umem: Arc<Umem>,
    transfer: SocketAddrXdpFlags,
    options: AfXdpOptions,
    sockets: Vec<(PortId, OwnedFd)>,
}

impl Anchor {
    /// Of a worker's frames and queues; none of frames that are in no UMEM.
    pub fn of(
        frames: &Frames,
        ports: &[(PortId, AfXdpPort)],
        transfer: &Transfer,
        options: AfXdpOptions,
    ) -> io::Result<Option<Self>> {
        let Some(umem) = frames.umem() else {
            return Ok(None);
        };
        let sockets = ports
            .iter()
            .map(|(port, queue)| Ok((*port, queue.socket().try_clone_to_owned()?)));
        Ok(Some(Self {
            umem: umem.clone(),
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

    /// Lets go of those opened last, so that no more than so many are left.
    pub fn keep(&mut self, sockets: usize) {
        self.sockets.truncate(sockets);
    }

    /// Whether frames of several chunks may come.
    pub fn takes_several_chunks(&self) -> bool {
        self.options.several_chunks
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
        let is_first = self.sockets.is_empty();
        match self.open_all(queues) {
            // Nobody has answered for this memory yet.
            Err(error) if is_first && self.transfer == SocketAddrXdpFlags::XDP_ZEROCOPY => {
                error.no_zero_copy()?;
                self.transfer = SocketAddrXdpFlags::XDP_COPY;
                self.open_all(queues)
            }
            opened => opened,
        }
    }

    /// What the steering program is like on the device whose queues are opened next: in generic
    /// mode there is no zero-copy ([`AfXdpOptions::may_zero_copy`]).
    ///
    /// # Errors
    /// The other queues have zero-copy, and all that share memory must be alike.
    pub fn expect(&mut self, device: &str, is_native: bool) -> Result<(), AfXdpError> {
        let may_zero_copy = self.options.may_zero_copy && is_native;
        if self.sockets.is_empty() {
            self.transfer = match may_zero_copy {
                true => SocketAddrXdpFlags::XDP_ZEROCOPY,
                false => SocketAddrXdpFlags::XDP_COPY,
            };
        }
        match is_native || self.transfer == SocketAddrXdpFlags::XDP_COPY {
            true => Ok(()),
            false => Err(AfXdpError::GenericOnly(device.to_owned())),
        }
    }

    fn open_all(&mut self, queues: &[QueueSetup<'_>]) -> Result<Vec<AfXdpPort>, AfXdpError> {
        let kept = self.sockets.len();
        let opened: Result<_, _> = queues.iter().map(|queue| self.open_one(*queue)).collect();
        if opened.is_err() {
            self.sockets.truncate(kept);
        }
        opened
    }

    fn open_one(&mut self, setup: QueueSetup<'_>) -> Result<AfXdpPort, AfXdpError> {
        let memory = match self.sockets.first() {
            Some((_, sibling)) => Memory::Of(sibling.as_fd()),
            None => Memory::Own(&self.umem),
        };
        let mut port = AfXdpPort::unbound(setup, memory, self.options)?;
        port.bind(
            setup,
            memory,
            self.options.mode(self.transfer),
            Duration::ZERO,
        )?;
        let own = port.socket().try_clone_to_owned();
        let own = own.map_err(|error| AfXdpError::from_socket(setup, error))?;
        self.sockets.push((setup.port, own));
        Ok(port)
    }
}
