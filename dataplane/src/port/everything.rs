//! Takes every IP packet of a device, for benchmarks: a generator's sink and the raw
//! forwarder that the director is compared with. A director never uses this.

use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{MapError, XskMap};
use aya::programs::{Xdp, XdpMode};

use super::device::Device;
use super::steering::{QUEUES_MAX, SteeringError};

/// Built by build.rs from bpf/everything.bpf.c.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/everything.bpf.o"));

/// The program on one device. Dropping it detaches it.
#[derive(Debug)]
pub struct Everything {
    ebpf: Ebpf,
}

impl Everything {
    /// Attaches to a device that has no XDP program yet. All its IP packets are dropped
    /// until sockets are registered.
    ///
    /// # Errors
    /// As [`super::steering::Steering::attach`].
    pub fn attach(device: &Device) -> Result<Self, SteeringError> {
        super::steering::check_free(device)?;
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| SteeringError::from_load(&error))?;
        let program: &mut Xdp = ebpf
            .program_mut("everything")
            .expect("everything.bpf.c has this program")
            .try_into()
            .expect("it is of the XDP kind");
        program
            .load()
            .map_err(|error| SteeringError::from_load(&error))?;
        program
            .attach_to_if_index(device.index, XdpMode::Driver)
            .or_else(|_| program.attach_to_if_index(device.index, XdpMode::Skb))
            .map_err(|error| SteeringError::from_attach(device, &error))?;
        Ok(Self { ebpf })
    }

    /// Gives the packets of a queue to this AF_XDP socket, bound to that queue.
    ///
    /// # Errors
    /// Where there can be no such queue, or the kernel refuses.
    pub fn register(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        if queue >= QUEUES_MAX {
            return Err(SteeringError::NoSuchQueue { port: 0, queue });
        }
        let failed = |error: MapError| super::steering::map_failed("sockets", &error);
        let map = self
            .ebpf
            .map_mut("sockets")
            .expect("everything.bpf.c has this map");
        XskMap::try_from(map)
            .and_then(|mut sockets| sockets.set(queue, socket.as_raw_fd(), 0))
            .map_err(failed)
    }
}
