//! A port that is one queue of a network card, by an AF_XDP socket
//! (Linux's Documentation/networking/af_xdp.rst).
//!
//! All sockets of a worker share one memory, so a frame received on one port leaves by
//! another without a copy. A frame may leave from another place within its chunk than it came
//! to, when headers were added or taken off. Why sockets are not made by a library:
//! docs/decisions/rings.md.

mod anew;
mod chain;
mod error;
mod passed;
mod socket;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdpFlags, XdpOptionsFlags};
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::device::Device;
use super::ring::Descriptor;
use super::umem::Umem;
use super::{
    Burst, CHUNK_BYTES, Frames, LARGEST_FRAME_BYTES, LINK_BYTES_MAX, ONE_CHUNK_MTU, Port,
    PortCounters, Slot,
};
use crate::hops::PortId;

pub use anew::Anchor;
use chain::{CONTINUED, Chain};
pub use error::AfXdpError;
pub use passed::{PassedQueue, PassedQueues, pass, resume};
pub use socket::takes_several_chunks;
use socket::{Memory, Rings};

/// A queue of a port that a worker is to serve.
#[derive(Clone, Copy, Debug)]
pub struct QueueSetup<'a> {
    /// The port's place in the director's list.
    pub port: PortId,
    /// Its device.
    pub device: &'a Device,
    /// The queue's number on the device.
    pub queue: u32,
}

/// How sockets are made.
#[derive(Clone, Copy, Debug)]
pub struct AfXdpOptions {
    /// Entries of each ring, a power of two.
    pub ring_entries: u32,
    /// Frames for each queue, of 4 KiB: at least two rings' worth, so that one ring may be
    /// full of frames received while the other still offers some.
    pub frames_per_queue: u32,
    /// Whether to ask for zero-copy mode at all. It must not be asked for where the steering
    /// program runs in generic mode: a driver grants it, and then no frame comes.
    pub may_zero_copy: bool,
    /// Whether frames may take several chunks ([`takes_several_chunks`]).
    pub several_chunks: bool,
}

impl Default for AfXdpOptions {
    fn default() -> Self {
        Self {
            ring_entries: 2048,
            frames_per_queue: 6144,
            may_zero_copy: true,
            several_chunks: false,
        }
    }
}

impl AfXdpOptions {
    fn mode(&self, transfer: SocketAddrXdpFlags) -> SocketAddrXdpFlags {
        match self.several_chunks {
            true => transfer | SocketAddrXdpFlags::XDP_USE_SG,
            false => transfer,
        }
    }
}

/// How frames get between the driver and a worker's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The driver works on that memory.
    ZeroCopy,
    /// The kernel copies, and why it is not zero-copy.
    Copy(String),
}

/// What a worker moves frames with: its memory and its queues, in the order asked for.
#[derive(Debug)]
pub struct Queues {
    /// The memory of all frames.
    pub frames: Frames,
    /// A port for each queue.
    pub ports: Vec<AfXdpPort>,
    /// How frames get there.
    pub transfer: Transfer,
}

/// Opens one worker's queues over one memory. Zero-copy is for all of them or for none:
/// the kernel wants sockets that share memory to be alike. Those of a device that is absent
/// are not opened, but have their frames: [`Anchor`] opens them when it comes.
///
/// The steering program must be attached first (drivers set their queues up for XDP then);
/// register each port's descriptor with it afterwards.
pub fn open(queues: &[QueueSetup<'_>], options: AfXdpOptions) -> Result<Queues, AfXdpError> {
    let chunks = queues.len() as u32 * options.frames_per_queue;
    let umem = Umem::create(chunks).map_err(|error| AfXdpError::memory(chunks, &error))?;
    let umem = Arc::new(umem);
    let reason = match options.may_zero_copy {
        false => "not asked for".to_owned(),
        true => match open_as(queues, &umem, options, SocketAddrXdpFlags::XDP_ZEROCOPY) {
            Ok((frames, ports)) => {
                return Ok(Queues {
                    frames,
                    ports,
                    transfer: Transfer::ZeroCopy,
                });
            }
            Err(error) => error.no_zero_copy()?,
        },
    };
    let (frames, ports) = open_as(queues, &umem, options, SocketAddrXdpFlags::XDP_COPY)?;
    Ok(Queues {
        frames,
        ports,
        transfer: Transfer::Copy(reason),
    })
}

fn open_as(
    queues: &[QueueSetup<'_>],
    umem: &Arc<Umem>,
    options: AfXdpOptions,
    mode: SocketAddrXdpFlags,
) -> Result<(Frames, Vec<AfXdpPort>), AfXdpError> {
    let mut frames = Frames::over(umem.clone());
    let mut ports: Vec<AfXdpPort> = Vec::with_capacity(queues.len());
    for queue in queues.iter().filter(|queue| queue.device.is_there()) {
        let memory = match ports.first() {
            Some(sibling) => Memory::Of(sibling.socket()),
            None => Memory::Own(umem),
        };
        let mut port = AfXdpPort::unbound(*queue, memory, options)?;
        port.refill(&mut frames);
        port.bind(*queue, memory, options.mode(mode), BUSY_FOR)?;
        ports.push(port);
    }
    Ok((frames, ports))
}

/// One queue of a network card.
#[derive(Debug)]
pub struct AfXdpPort {
    port: PortId,
    queue: u32,
    ring_entries: u32,
    // Unmapped before the socket is closed.
    rings: Rings,
    /// Frames in the fill ring, the driver's hands and the receive ring.
    incoming: usize,
    /// Frames in the transmit ring, the driver's hands and the completion ring.
    outgoing: usize,
    /// Frames that `refill` leaves for the way out.
    reserve: usize,
    /// Frames received since the fill ring was full; the ring's size where that never was.
    owed: usize,
    is_zero_copy: bool,
    /// The device's MTU when the queue was opened.
    mtu: u32,
    /// A frame of several chunks that comes in; none where there can be no such frames.
    chain: Option<Chain>,
    counters: PortCounters,
    socket: OwnedFd,
}

/// How long a queue that says "busy" is asked again: a socket just closed, or a killed
/// process's, is released some tens of milliseconds later; on a machine at full load it took
/// more than a second (`scripts/soak` beside builds, load 29).
const BUSY_FOR: Duration = Duration::from_secs(5);

/// So many frames the fill ring may lack: its counters lie in a cache line that the kernel writes
/// as it takes frames, on another core where the sender is one, and which a look for each frame
/// would move each time.
const REFILL: usize = 64;

/// XDP_MAX_TX_SKB_BUDGET of linux/if_xdp.h (Linux 6.16): frames that one call sends in
/// copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

impl AfXdpPort {
    /// Over a socket with nothing in its rings, which have `entries` places each.
    fn over(
        (port, queue): (PortId, u32),
        socket: OwnedFd,
        entries: u32,
        reserve: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            port,
            queue,
            ring_entries: entries,
            rings: Rings::map(socket.as_fd(), entries)?,
            incoming: 0,
            outgoing: 0,
            reserve,
            owed: entries as usize,
            is_zero_copy: is_zero_copy(socket.as_fd()),
            mtu: ONE_CHUNK_MTU,
            chain: None,
            counters: PortCounters::default(),
            socket,
        })
    }

    /// A queue whose socket has its rings, and no device yet.
    fn unbound(
        setup: QueueSetup<'_>,
        memory: Memory<'_>,
        options: AfXdpOptions,
    ) -> Result<Self, AfXdpError> {
        let failed = |error| AfXdpError::from_socket(setup, error);
        let entries = options.ring_entries;
        let socket = socket::create(memory, entries).map_err(failed)?;
        let reserve = (options.frames_per_queue / 8) as usize;
        let place = (setup.port, setup.queue);
        let mut port = Self::over(place, socket, entries, reserve).map_err(failed)?;
        port.chain = options.several_chunks.then(Chain::default);
        port.mtu = setup.device.mtu;
        port.widen(entries);
        Ok(port)
    }

    /// Binds the socket, asking a queue that is taken again for so long.
    fn bind(
        &mut self,
        setup: QueueSetup<'_>,
        memory: Memory<'_>,
        mode: SocketAddrXdpFlags,
        patience: Duration,
    ) -> Result<(), AfXdpError> {
        let begin = Instant::now();
        let place = (setup.device.index, setup.queue);
        loop {
            let Err(error) = socket::bind_to(self.socket(), memory, place, mode) else {
                self.is_zero_copy = is_zero_copy(self.socket());
                self.wake();
                return Ok(());
            };
            let is_busy = error.raw_os_error() == Some(libc::EBUSY);
            if !is_busy || begin.elapsed() >= patience {
                return Err(AfXdpError::from_socket(setup, error));
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Which of the director's ports this is a queue of.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Which queue of the device.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether its driver works on the frames' memory.
    pub fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// The socket, to be registered with the steering program.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Lets one call send many frames in copy mode: the default send buffer holds about
    /// 256 small frames, and a call takes 32. Refusal only costs speed.
    fn widen(&self, entries: u32) {
        let bytes = entries as usize * 2 * CHUNK_BYTES;
        if sockopt::set_socket_send_buffer_size_force(self.socket(), bytes).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(self.socket(), bytes);
        }
        // SAFETY: the option is one u32, read during the call.
        unsafe {
            libc::setsockopt(
                self.socket().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const entries).cast(),
                size_of::<u32>() as libc::socklen_t,
            );
        }
    }

    /// Fills the fill ring.
    fn refill(&mut self, frames: &mut Frames) {
        let room = self.rings.fill.room() as usize;
        self.owed = room;
        let count = room.min(frames.free().saturating_sub(self.reserve));
        for _ in 0..count {
            let slot = frames.take().expect("as many are free");
            frames.hold(&slot, self.port);
            let pushed = self.rings.fill.push(slot.address());
            debug_assert!(pushed, "there is room for as many");
        }
        if count > 0 {
            self.incoming += count;
            self.owed -= count;
            self.rings.fill.publish();
        }
        self.wake();
    }

    /// [`Port::receive`], for queues where frames may take several chunks and for those where
    /// none does.
    #[inline(always)]
    fn receive_as<const SEVERAL_CHUNKS: bool>(&mut self, frames: &mut Frames, burst: &mut Burst) {
        let (mut received, mut chained) = (0, 0);
        let longest = self.mtu + LINK_BYTES_MAX as u32;
        for _ in 0..burst.room() {
            if SEVERAL_CHUNKS && self.has_large() {
                break;
            }
            let Some(descriptor) = self.rings.receive.pop() else {
                break;
            };
            received += 1;
            if SEVERAL_CHUNKS
                && self
                    .chain
                    .as_mut()
                    .is_some_and(|c| c.takes(descriptor, longest))
            {
                chained += 1;
                continue;
            }
            match frames.adopt(descriptor.address, descriptor.length) {
                Some(slot) => {
                    frames.ask_for(&slot);
                    burst.push(slot).expect("room was asked for");
                }
                None => {
                    frames.give_address(descriptor.address);
                    self.counters.missed += 1;
                }
            }
        }
        if received > 0 {
            self.rings.receive.release();
            self.incoming -= received;
            self.owed += received;
            self.counters.received += (received - chained) as u64;
        }
        if self.owed >= REFILL {
            self.refill(frames);
        } else if received == 0 && self.is_zero_copy {
            // The driver may have begun to wait just after it was asked. In copy mode none does.
            self.wake();
        }
    }

    /// Wakes the driver, where it waits for frames to fill.
    fn wake(&self) {
        if self.rings.fill.needs_wakeup() {
            let nothing: &mut [u8] = &mut [];
            let _ = rustix::net::recv(self.socket(), nothing, RecvFlags::DONTWAIT);
        }
    }

    /// One call to the kernel; false when there is no use in another one now.
    fn kick(&mut self) -> bool {
        let before = self.rings.transmit.pending();
        if before == 0 {
            return false;
        }
        let answer = rustix::net::send(self.socket(), &[], SendFlags::DONTWAIT);
        // AGAIN: there is more to send, or the send buffer is full. The ring tells which.
        let may_go_on = matches!(
            answer,
            Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::INTR)
        );
        may_go_on && self.rings.transmit.pending() < before
    }
}

impl Port for AfXdpPort {
    #[inline]
    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst) {
        // Asked once a burst, so that frames of one chunk pay nothing for the others.
        match self.chain {
            None => self.receive_as::<false>(frames, burst),
            Some(_) => self.receive_as::<true>(frames, burst),
        }
    }

    #[inline]
    fn send(&mut self, frames: &mut Frames, slot: Slot) -> Result<(), Slot> {
        let descriptor = Descriptor {
            address: slot.address(),
            length: slot.len() as u32,
            options: 0,
        };
        if !self.rings.transmit.push(descriptor) {
            self.counters.full += 1;
            return Err(slot);
        }
        frames.hold(&slot, self.port);
        self.outgoing += 1;
        self.counters.sent += 1;
        Ok(())
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    #[inline]
    fn has_large(&self) -> bool {
        self.chain.as_ref().is_some_and(Chain::is_whole)
    }

    fn receive_large(&mut self, frames: &mut Frames, memory: &mut [u8]) -> Option<usize> {
        let chain = self.chain.as_mut().filter(|chain| chain.is_whole())?;
        let length = chain.take(frames, memory);
        match length {
            Some(_) => self.counters.received += 1,
            None => self.counters.too_long += 1,
        }
        length
    }

    fn send_large(&mut self, frames: &mut Frames, bytes: &[u8]) -> bool {
        let count = bytes.len().div_ceil(LARGEST_FRAME_BYTES);
        let fits = self.rings.transmit.room() as usize >= count && frames.free() >= count;
        if self.chain.is_none() || !fits {
            self.counters.full += 1;
            return false;
        }
        for (place, part) in bytes.chunks(LARGEST_FRAME_BYTES).enumerate() {
            let slot = frames
                .take_with(part)
                .expect("as many are free, and large enough");
            let is_last = place + 1 == count;
            let pushed = self.rings.transmit.push(Descriptor {
                address: slot.address(),
                length: part.len() as u32,
                options: if is_last { 0 } else { CONTINUED },
            });
            debug_assert!(pushed, "there is room for as many");
            frames.hold(&slot, self.port);
        }
        self.outgoing += count;
        self.counters.sent += 1;
        true
    }

    fn flush(&mut self, frames: &mut Frames) {
        if self.outgoing == 0 {
            return;
        }
        self.rings.transmit.publish();
        // Each call that goes on has sent at least one frame, so the ring's size bounds it.
        while self.rings.transmit.needs_wakeup() && self.kick() {}
        self.reclaim(frames);
    }

    fn reclaim(&mut self, frames: &mut Frames) {
        let mut completed = 0;
        while let Some(address) = self.rings.completion.pop() {
            frames.give_address(address);
            completed += 1;
        }
        if completed > 0 {
            self.rings.completion.release();
            self.outgoing -= completed;
        }
    }

    fn held(&self) -> usize {
        self.incoming + self.outgoing + self.chain.as_ref().map_or(0, Chain::len)
    }

    fn unsent(&self) -> usize {
        self.outgoing
    }

    fn is_backlogged(&self) -> bool {
        self.outgoing > 0
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket())
    }

    /// Not where the driver works on the frames' memory: a card put them there as they came
    /// from the wire. (Of virtual ones, virtio-net has XDP only without `VIRTIO_NET_F_GUEST_CSUM`.)
    fn may_be_partial(&self) -> bool {
        !self.is_zero_copy
    }

    fn counters(&self) -> PortCounters {
        let mut counters = self.counters;
        if let Ok(kernel) = sockopt::xdp_statistics(self.socket()) {
            // Where no frame is free, copy mode counts both, zero-copy mode the second; what is
            // too long counts as dropped only (net/xdp/xsk.c, xsk_buff_pool.c).
            let starved = kernel.rx_fill_ring_empty_descs.unwrap_or(0);
            counters.missed += starved;
            counters.too_long += kernel.rx_dropped.saturating_sub(starved);
            counters.overrun += kernel.rx_ring_full.unwrap_or(0);
        }
        counters
    }
}

/// Whether the driver of a bound socket works on its frames' memory.
fn is_zero_copy(socket: BorrowedFd<'_>) -> bool {
    let options = sockopt::xdp_options(socket);
    options.is_ok_and(|options| options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
}
