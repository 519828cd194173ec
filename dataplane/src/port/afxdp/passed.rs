//! A worker's queues, passed to another process while they live: sockets stay bound, rings
//! and frames stay where they are, and what comes in meanwhile waits in the ring.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use super::AfXdpPort;
use crate::hops::PortId;
use crate::port::shared_memory::map_shared;
use crate::port::{CHUNK_BYTES, Frames, Port};

/// A worker's queues on their way to another process: this, and the descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// Describes a worker's queues, and gives the descriptors to pass with that: the frames'
/// memory, then each queue's socket. Nothing may use the queues in this process any more.
pub fn pass(
    frames: &Frames,
    ports: &[(PortId, AfXdpPort)],
) -> io::Result<(PassedQueues, Vec<OwnedFd>)> {
    let (start, free, total) = frames.parts();
    let start = start.ok_or(io::ErrorKind::Unsupported)?;
    let memory = memory_file(start, total * CHUNK_BYTES)?;
    let mut descriptors = vec![memory.into()];
    let mut queues = Vec::new();
    for (port, queue) in ports {
        descriptors.push(queue.socket().try_clone_to_owned()?);
        queues.push(PassedQueue {
            port: port.0,
            queue: queue.queue,
            ring_entries: queue.ring_entries,
            incoming: queue.incoming as u32,
            outgoing: queue.outgoing as u32,
            reserve: queue.reserve as u32,
        });
    }
    let passed = PassedQueues {
        frames: total as u32,
        free: free.to_vec(),
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
    let frames = map_frames(&memory, passed)?;
    let mut ports = Vec::new();
    for queue in &passed.queues {
        let socket = descriptors.next().ok_or_else(missing)?;
        ports.push((PortId(queue.port), AfXdpPort::resume(queue, socket)?));
    }
    Ok((frames, ports))
}

fn map_frames(memory: &OwnedFd, passed: &PassedQueues) -> io::Result<Frames> {
    let bytes = passed.frames as usize * CHUNK_BYTES;
    let length = rustix::fs::fstat(memory)?.st_size as u64;
    let in_range = passed.free.iter().all(|&free| free < passed.frames);
    if NonZeroU64::new(bytes as u64).is_none() || length < bytes as u64 || !in_range {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Pages come as they are used: the other process has stopped, and this one is in haste.
    let start = map_shared(memory.as_fd(), bytes)?;
    // SAFETY: the mapping stays for the rest of the process, and only these frames use it.
    Ok(unsafe { Frames::in_mapping(start, passed.frames, passed.free.clone(), &passed.holders) })
}

/// The file behind a shared mapping of this process that begins at `start`.
fn memory_file(start: NonNull<u8>, bytes: usize) -> io::Result<File> {
    let from = start.addr().get();
    let maps = fs::read_to_string("/proc/self/maps")?;
    let range = maps.lines().filter_map(|line| line.split(' ').next());
    let range = range
        .filter_map(|range| {
            let (begin, end) = range.split_once('-')?;
            let begin = usize::from_str_radix(begin, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            (begin == from && end - begin >= bytes).then(|| format!("{begin:x}-{end:x}"))
        })
        .next()
        .ok_or(io::ErrorKind::NotFound)?;
    let path = format!("/proc/self/map_files/{range}");
    File::options().read(true).write(true).open(path)
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
            ..Self::over(place, socket, size, queue.reserve as usize)?
        })
    }

    /// Has everything leave that can, before the queue is passed.
    pub fn finish(&mut self, frames: &mut Frames) {
        self.flush(frames);
        self.reclaim(frames);
    }
}
