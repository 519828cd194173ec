//! Where frames come from and go to. A worker moves frames between ports and never asks
//! what kind they are: queues of network cards, memory, files.
//!
//! Every frame has one owner: a port's rings, whoever holds its [`Slot`], or the pool of
//! free frames ([`Frames`]). The three always sum to all frames.
#![allow(
    unsafe_code,
    reason = "rings and frames shared with the kernel, memory with the next process; ioctl, \
              getsockopt and setsockopt that rustix lacks"
)]

pub mod afxdp;
pub mod device;
pub mod everything;
pub mod frames;
pub mod link_socket;
pub mod memory;
pub mod namespace;
pub mod pcap;
mod ring;
pub mod shared_memory;
pub mod steering;
mod umem;

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use frames::{Burst, Frames, Slot};

/// The most frames received at once.
pub const BURST: usize = 64;

/// A frame's memory, all told.
pub const CHUNK_BYTES: usize = 4096;

/// Free room before a received frame. The kernel keeps as much in AF_XDP frames
/// (XDP_PACKET_HEADROOM of linux/bpf.h); it holds a VLAN tag and any tunnel's headers.
pub const HEADROOM_BYTES: usize = 256;

/// The largest frame in one chunk.
pub const LARGEST_FRAME_BYTES: usize = CHUNK_BYTES - HEADROOM_BYTES;

/// An Ethernet header and two VLAN tags.
pub const LINK_BYTES_MAX: usize = 14 + 2 * 4;

/// The largest packet whose frame lies in one chunk.
pub const ONE_CHUNK_MTU: u32 = (LARGEST_FRAME_BYTES - LINK_BYTES_MAX) as u32;

/// The largest packet that every driver takes XDP for without frames of several buffers: the
/// least of their limits is 3,046 (i40e, ice, igb; docs/platforms.md has the table).
pub const SURE_MTU: u32 = 3_000;

/// The largest packet of a port. Switches and cards carry 9,000 to 9,216.
pub const MTU_MAX: u32 = 9_216;

/// The largest frame in several chunks: the longest IP packet, as senders on this machine
/// leave them whole for their hardware to cut.
pub const LARGE_FRAME_BYTES: usize = LINK_BYTES_MAX + u16::MAX as usize;

/// Memory for such a frame with room before and behind it.
pub const LARGE_MEMORY_BYTES: usize = HEADROOM_BYTES + LARGE_FRAME_BYTES + 64;

/// How long a forwarder looks for frames in vain before it sleeps: the frames of a busy flow
/// come in bursts, and a sleep and wake between two of them would cost more than it spares.
pub const IDLE: Duration = Duration::from_micros(50);

/// A forwarder's longest sleep. Timeouts are in sixteenths of a second, so this is often enough.
pub const SLEEP: Duration = Duration::from_millis(10);

/// What a port has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received.
    pub received: u64,
    /// Frames handed to the way out.
    pub sent: u64,
    /// Frames refused, the way out being full.
    pub full: u64,
    /// Frames lost before they were received: there was no free frame for them.
    pub missed: u64,
    /// Frames lost before they were received: longer than can be taken.
    pub too_long: u64,
    /// Frames lost before they were received: they came faster than earlier ones were taken.
    pub overrun: u64,
}

/// A way in and out for frames. Not blocking, and never allocating per frame.
pub trait Port {
    /// Moves received frames into `burst`, as many as it has room for.
    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst);

    /// Takes a frame to be sent, at the latest with the next `flush`. Gives it back when
    /// the way out is full.
    fn send(&mut self, frames: &mut Frames, slot: Slot) -> Result<(), Slot>;

    /// Lets all that `send` took leave, as far as the way out takes it now.
    fn flush(&mut self, frames: &mut Frames);

    /// Gives frames that have left back to the pool.
    fn reclaim(&mut self, frames: &mut Frames);

    /// The largest packet that a wire brings, bytes: what is larger was joined on its way.
    fn mtu(&self) -> u32 {
        ONE_CHUNK_MTU
    }

    /// Whether a frame of several chunks comes next: `receive` gives no more until
    /// `receive_large` has taken it.
    fn has_large(&self) -> bool {
        false
    }

    /// Copies that frame to `memory` ([`LARGE_MEMORY_BYTES`]), behind [`HEADROOM_BYTES`]. Its
    /// length, bytes; none where there is none, or it is too long, which is counted.
    fn receive_large(&mut self, _: &mut Frames, _: &mut [u8]) -> Option<usize> {
        None
    }

    /// Sends a copy of a frame that does not fit one chunk. False, and counted, where the way
    /// out is full, no frames are free, or such frames cannot leave here.
    fn send_large(&mut self, _: &mut Frames, _: &[u8]) -> bool {
        false
    }

    /// Frames that this port owns now.
    fn held(&self) -> usize;

    /// Of those, the ones on their way out.
    fn unsent(&self) -> usize {
        0
    }

    /// Whether frames wait for a further `flush`.
    fn is_backlogged(&self) -> bool {
        false
    }

    /// Whether frames may come whose checksum their sender left to its hardware: from senders on
    /// this machine, whose frames no wire has carried.
    fn may_be_partial(&self) -> bool {
        true
    }

    /// What to poll for frames; none for a port that always has all that it will get.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What was counted.
    fn counters(&self) -> PortCounters;
}
