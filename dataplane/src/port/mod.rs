//! Where frames come from and go to. A worker moves frames between ports and never asks
//! what kind they are: queues of network cards, memory, files.
//!
//! Every frame has one owner: a port's rings, whoever holds its [`Slot`], or the pool of
//! free frames ([`Frames`]). The three always sum to all frames.
#![allow(
    unsafe_code,
    reason = "rings and frames shared with the kernel, memory with the next process; ioctl and \
              setsockopt that rustix lacks"
)]

pub mod afxdp;
pub mod device;
pub mod everything;
pub mod frames;
pub mod link_socket;
pub mod memory;
pub mod pcap;
mod ring;
pub mod shared_memory;
pub mod steering;

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

/// The largest frame that can be received.
pub const LARGEST_FRAME_BYTES: usize = CHUNK_BYTES - HEADROOM_BYTES;

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
    /// Frames lost before they were received: no free frame, or too long.
    pub missed: u64,
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
