//! A worker's queues, passed to another process while they live: sockets stay bound, rings
//! and frames stay where they are, and what comes in meanwhile waits in the ring.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AfXdpPort, Chain, Rings};
use crate::hops::PortId;
use crate::port::umem::Umem;
use crate::port::{Frames, Port};

/// A worker's queues on their way to another process: this, and the descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedQueues {
    /// Frames in all.
    pub frames: u32,
    /// The free ones.
    pub free: Vec<u32>,
    /// The port whose rings each was in last (see [`Frames::take_back`]).
    pub holders: Vec<u8>,
    /// Each queue, in order.
    pub queues: Vec<PassedQueue>,
}

/// One queue on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedQueue {
    /// The port's place in the director's list.
    pub port: u8,
    /// The queue's number on the device.
    pub queue: u32,
    /// Entries of each ring.
    pub ring_entries: u32,
    /// Frames in the fill ring, the driver's hands and the receive ring.
    pub incoming: u32,
    /// Frames in the transmit ring, the driver's hands and the completion ring.
    pub outgoing: u32,
    /// Frames that are kept for the way out.
    pub reserve: u32,
    /// Whether frames may take several chunks.
    pub several_chunks: bool,
    /// The device's MTU, bytes.
    pub mtu: u32,
}

/// Describes a worker's queues, and gives the descriptors to pass with that: the frames'
/// memory, then each queue's socket. Nothing may use the queues in this process any more.
pub fn pass(
    frames: &Frames,
    ports: &[(PortId, AfXdpPort)],
) -> io::Result<(PassedQueues, Vec<OwnedFd>)> {
    let umem = frames.umem().ok_or(io::ErrorKind::Unsupported)?;
    let mut descriptors = vec![umem.file().try_clone_to_owned()?];
    let mut queues = Vec::new();
    for (port, queue) in ports {
        descriptors.push(queue.socket().try_clone_to_owned()?);
        queues.push(PassedQueue {
            port: port.0,
            queue: queue.queue,
            ring_entries: queue.ring_entries,
            // With those of a frame that has not come whole: they are in no other's hands.
            incoming: (queue.held() - queue.outgoing) as u32,
            outgoing: queue.outgoing as u32,
            reserve: queue.reserve as u32,
            several_chunks: queue.chain.is_some(),
            mtu: queue.mtu,
        });
    }
    let passed = PassedQueues {
        frames: umem.chunks(),
        free: frames.free_chunks().to_vec(),
        holders: frames.holders().to_vec(),
        queues,
    };
    Ok((passed, descriptors))
}

/// The queues that another process passed.
pub fn resume(
    passed: &PassedQueues,
    descriptors: Vec<OwnedFd>,
) -> io::Result<(Frames, Vec<(PortId, AfXdpPort)>)> {
    let mut descriptors = descriptors.into_iter();
    let missing = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let memory = descriptors.next().ok_or_else(missing)?;
    let frames = resume_frames(memory, passed)?;
    let mut ports = Vec::new();
    for queue in &passed.queues {
        let socket = descriptors.next().ok_or_else(missing)?;
        ports.push((PortId(queue.port), AfXdpPort::resume(queue, socket)?));
    }
    Ok((frames, ports))
}

fn resume_frames(memory: OwnedFd, passed: &PassedQueues) -> io::Result<Frames> {
    if passed.free.iter().any(|&free| free >= passed.frames) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let umem = Arc::new(Umem::adopt(memory, passed.frames)?);
    Ok(Frames::resume(umem, passed.free.clone(), &passed.holders))
}

impl AfXdpPort {
    fn resume(queue: &PassedQueue, socket: OwnedFd) -> io::Result<Self> {
        let size = queue.ring_entries;
        if !size.is_power_of_two() || size > 1 << 16 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let place = (PortId(queue.port), queue.queue);
        Ok(Self {
            incoming: queue.incoming as usize,
            outgoing: queue.outgoing as usize,
            mtu: queue.mtu,
            chain: queue.several_chunks.then(Chain::default),
            ..Self::over(place, socket, size, queue.reserve as usize)?
        })
    }

    /// Whether another process can go on with the queue: it must map the rings of a bound
    /// socket, which Linux allows since 6.4.
    pub fn can_be_passed(&self) -> bool {
        Rings::map(self.socket(), self.ring_entries).is_ok()
    }

    /// Has everything leave that can, before the queue is passed.
    pub fn finish(&mut self, frames: &mut Frames) {
        self.flush(frames);
        self.reclaim(frames);
    }
}
