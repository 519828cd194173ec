//! A port that is one queue of a network card, by an AF_XDP socket
//! (Linux's Documentation/networking/af_xdp.rst).
//!
//! xsk-rs creates UMEM and sockets, owns them and takes them down. All sockets of a worker
//! share one UMEM, so a frame received on one port leaves by another without a copy. The
//! rings are worked through our own mapping (see `ring`): a frame may leave from another
//! place within its memory than it came to, when headers were added or taken off.

mod anew;
mod passed;

use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::xdp::XdpOptionsFlags;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

use super::device::Device;
use super::ring::{Consumer, Descriptor, Producer, Which};
use super::{Burst, CHUNK_BYTES, Frames, Port, PortCounters, Slot};
use crate::hops::PortId;

pub use anew::Anchor;
pub use passed::{PassedQueue, PassedQueues, pass, resume};

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
    /// Whether to ask for zero-copy mode at all. Asking in vain costs the frames' memory
    /// twice over.
    pub may_zero_copy: bool,
    /// Whether to take the frames' memory from the system's huge pages.
    pub use_huge_pages: bool,
}

impl Default for AfXdpOptions {
    fn default() -> Self {
        Self {
            ring_entries: 2048,
            frames_per_queue: 6144,
            may_zero_copy: true,
            use_huge_pages: false,
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

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// The kernel has no AF_XDP.
    #[error("this kernel has no AF_XDP: lvx needs Linux 5.15 or later with CONFIG_XDP_SOCKETS")]
    Unsupported,
    /// The process may not.
    #[error("AF_XDP sockets are not permitted: run as root (they need CAP_NET_RAW)")]
    NotPermitted,
    /// Another socket has the queue.
    #[error(
        "queue {queue} of {device} is taken by another AF_XDP socket: end the process that has it (`ss --xdp -p` lists them)"
    )]
    Busy {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// The device has no such queue.
    #[error("{device} has no queue {queue}: `ethtool -l {device}` lists them")]
    NoSuchQueue {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// No memory for the frames.
    #[error(
        "no memory for {0} MiB of frames: give fewer frames for each queue, or (with huge pages) raise vm.nr_hugepages"
    )]
    Memory(u64),
    /// Anything else.
    #[error("AF_XDP socket on queue {queue} of {device}: {cause}")]
    Socket {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        cause: String,
    },
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
    let reason = match options.may_zero_copy {
        false => "not asked for".to_owned(),
        true => match open_as(queues, options, BindFlags::XDP_ZEROCOPY) {
            Ok((frames, ports)) => {
                return Ok(Queues {
                    frames,
                    ports,
                    transfer: Transfer::ZeroCopy,
                });
            }
            Err(AfXdpError::Socket { cause, .. }) => cause,
            Err(error) => return Err(error),
        },
    };
    let (frames, ports) = open_as(queues, options, BindFlags::XDP_COPY)?;
    Ok(Queues {
        frames,
        ports,
        transfer: Transfer::Copy(reason),
    })
}

fn open_as(
    queues: &[QueueSetup<'_>],
    options: AfXdpOptions,
    mode: BindFlags,
) -> Result<(Frames, Vec<AfXdpPort>), AfXdpError> {
    let (umem, mut frames) = memory(queues.len() as u32 * options.frames_per_queue, options)?;
    let config = SocketConfig::builder()
        .rx_queue_size(entries(options))
        .tx_queue_size(entries(options))
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let mut ports = Vec::with_capacity(queues.len());
    for queue in queues.iter().filter(|queue| queue.device.is_there()) {
        let mut port = AfXdpPort::open(*queue, config, &umem, options)?;
        port.refill(&mut frames);
        ports.push(port);
    }
    Ok((frames, ports))
}

fn memory(count: u32, options: AfXdpOptions) -> Result<(Umem, Frames), AfXdpError> {
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(CHUNK_BYTES as u32).expect("more than the least"))
        .fill_queue_size(entries(options))
        .comp_queue_size(entries(options))
        .build()
        .expect("a power of two with room for the headroom");
    let nonzero = NonZeroU32::new(count).expect("at least one queue with frames");
    let (umem, descriptors) =
        Umem::new(config, nonzero, options.use_huge_pages).map_err(|error| {
            match errno(&error) {
                Some(libc::EAFNOSUPPORT) => AfXdpError::Unsupported,
                Some(libc::EPERM) => AfXdpError::NotPermitted,
                _ => AfXdpError::Memory((u64::from(count) * CHUNK_BYTES as u64) >> 20),
            }
        })?;
    // SAFETY: the first frame is in no ring, so nobody writes it.
    let first = unsafe { umem.data(&descriptors[0]) };
    let start = first.contents().as_ptr().expose_provenance() - descriptors[0].addr();
    // xsk-rs tells only where frames are. The memory is a mapping made by the kernel, so
    // all of it can be reached from its address.
    let start = NonNull::new(std::ptr::with_exposed_provenance_mut(start))
        .expect("a mapping does not begin at 0");
    // SAFETY: a frame's address counts from the start of the UMEM, whose memory is `count`
    // chunks; xsk-rs touches frames only through descriptors, and those are dropped here.
    let frames = unsafe { Frames::in_umem(umem.clone(), start, count) };
    Ok((umem, frames))
}

fn entries(options: AfXdpOptions) -> QueueSize {
    QueueSize::new(options.ring_entries).expect("ring_entries is a power of two")
}

/// One queue of a network card.
#[derive(Debug)]
pub struct AfXdpPort {
    port: PortId,
    queue: u32,
    ring_entries: u32,
    // Our mappings of the rings, closed before the socket.
    receive: Consumer<Descriptor>,
    transmit: Producer<Descriptor>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// Frames in the fill ring, the driver's hands and the receive ring.
    incoming: usize,
    /// Frames in the transmit ring, the driver's hands and the completion ring.
    outgoing: usize,
    /// Frames that `refill` leaves for the way out.
    reserve: usize,
    /// Frames received since the fill ring was full; the ring's size where that never was.
    owed: usize,
    is_zero_copy: bool,
    counters: PortCounters,
    held: Held,
}

/// Whose the socket is.
#[derive(Debug)]
enum Held {
    /// xsk-rs's; the others are kept for their hold on it.
    Own(RxQueue, #[allow(dead_code)] (TxQueue, FillQueue, CompQueue)),
    /// Another process made it, or [`Anchor`].
    Descriptor(OwnedFd),
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
    /// Over a bound socket that xsk-rs does not know, with nothing in its rings; they have
    /// `size` places each.
    fn over(
        (port, queue): (PortId, u32),
        socket: OwnedFd,
        size: u32,
        reserve: usize,
    ) -> io::Result<Self> {
        let fd = socket.as_fd();
        Ok(Self {
            port,
            queue,
            ring_entries: size,
            receive: Consumer::map(fd, Which::Receive, size)?,
            transmit: Producer::map(fd, Which::Transmit, size)?,
            fill: Producer::map(fd, Which::Fill, size)?,
            completion: Consumer::map(fd, Which::Completion, size)?,
            incoming: 0,
            outgoing: 0,
            reserve,
            owed: size as usize,
            is_zero_copy: is_zero_copy(fd),
            counters: PortCounters::default(),
            held: Held::Descriptor(socket),
        })
    }

    fn open(
        setup: QueueSetup<'_>,
        config: SocketConfig,
        umem: &Umem,
        options: AfXdpOptions,
    ) -> Result<Self, AfXdpError> {
        let (transmit, receive, rings) = bind(setup, config, umem)?;
        let failed = |error: io::Error| socket_failed(setup, error.to_string());
        let (fill, completion) =
            rings.ok_or_else(|| socket_failed(setup, "queue given twice".to_owned()))?;
        // SAFETY: the descriptor is open for as long as `receive`, which outlives this use.
        let socket = unsafe { BorrowedFd::borrow_raw(receive.fd().as_raw_fd()) };
        // libxdp does not: a program that this process starts would hold the queue.
        fcntl_setfd(socket, FdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let size = options.ring_entries;
        // Each (device, queue) has its fill and completion rings on its own socket, also
        // where sockets share a UMEM (libxdp's xsk.c, xsk_create_ctx).
        let port = Self {
            port: setup.port,
            queue: setup.queue,
            ring_entries: size,
            receive: Consumer::map(socket, Which::Receive, size).map_err(failed)?,
            transmit: Producer::map(socket, Which::Transmit, size).map_err(failed)?,
            fill: Producer::map(socket, Which::Fill, size).map_err(failed)?,
            completion: Consumer::map(socket, Which::Completion, size).map_err(failed)?,
            incoming: 0,
            outgoing: 0,
            reserve: (options.frames_per_queue / 8) as usize,
            owed: size as usize,
            is_zero_copy: is_zero_copy(socket),
            counters: PortCounters::default(),
            held: Held::Own(receive, (transmit, fill, completion)),
        };
        port.widen(size);
        Ok(port)
    }

    /// Which of the director's ports this is a queue of.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Which queue of the device.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The socket, to be registered with the steering program.
    pub fn socket(&self) -> BorrowedFd<'_> {
        match &self.held {
            // SAFETY: the descriptor is open for as long as `self.held`.
            Held::Own(socket, _) => unsafe { BorrowedFd::borrow_raw(socket.fd().as_raw_fd()) },
            Held::Descriptor(socket) => socket.as_fd(),
        }
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
        let room = self.fill.room() as usize;
        self.owed = room;
        let count = room.min(frames.free().saturating_sub(self.reserve));
        for _ in 0..count {
            let slot = frames.take().expect("as many are free");
            frames.hold(&slot, self.port);
            let pushed = self.fill.push(slot.address());
            debug_assert!(pushed, "there is room for as many");
        }
        if count > 0 {
            self.incoming += count;
            self.owed -= count;
            self.fill.publish();
        }
        self.wake();
    }

    /// Wakes the driver, where it waits for frames to fill.
    fn wake(&self) {
        if self.fill.needs_wakeup() {
            let nothing: &mut [u8] = &mut [];
            let _ = rustix::net::recv(self.socket(), nothing, RecvFlags::DONTWAIT);
        }
    }

    /// One call to the kernel; false when there is no use in another one now.
    fn kick(&mut self) -> bool {
        let before = self.transmit.pending();
        if before == 0 {
            return false;
        }
        let answer = rustix::net::send(self.socket(), &[], SendFlags::DONTWAIT);
        // AGAIN: there is more to send, or the send buffer is full. The ring tells which.
        let may_go_on = matches!(
            answer,
            Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::INTR)
        );
        may_go_on && self.transmit.pending() < before
    }
}

impl Port for AfXdpPort {
    #[inline]
    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst) {
        let mut received = 0;
        for _ in 0..burst.room() {
            let Some(descriptor) = self.receive.pop() else {
                break;
            };
            received += 1;
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
            self.receive.release();
            self.incoming -= received;
            self.owed += received;
            self.counters.received += received as u64;
        }
        if self.owed >= REFILL {
            self.refill(frames);
        } else if received == 0 && self.is_zero_copy {
            // The driver may have begun to wait just after it was asked. In copy mode none does.
            self.wake();
        }
    }

    #[inline]
    fn send(&mut self, frames: &mut Frames, slot: Slot) -> Result<(), Slot> {
        let descriptor = Descriptor {
            address: slot.address(),
            length: slot.len() as u32,
            options: 0,
        };
        if !self.transmit.push(descriptor) {
            self.counters.full += 1;
            return Err(slot);
        }
        frames.hold(&slot, self.port);
        self.outgoing += 1;
        self.counters.sent += 1;
        Ok(())
    }

    fn flush(&mut self, frames: &mut Frames) {
        if self.outgoing == 0 {
            return;
        }
        self.transmit.publish();
        // Each call that goes on has sent at least one frame, so the ring's size bounds it.
        while self.transmit.needs_wakeup() && self.kick() {}
        self.reclaim(frames);
    }

    fn reclaim(&mut self, frames: &mut Frames) {
        let mut completed = 0;
        while let Some(address) = self.completion.pop() {
            frames.give_address(address);
            completed += 1;
        }
        if completed > 0 {
            self.completion.release();
            self.outgoing -= completed;
        }
    }

    fn held(&self) -> usize {
        self.incoming + self.outgoing
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
            // Where no frame is free, copy mode counts both, zero-copy mode the second
            // (net/xdp/xsk.c, xsk_buff_pool.c).
            let starved = kernel.rx_fill_ring_empty_descs.unwrap_or(0);
            counters.missed += kernel.rx_dropped.max(starved);
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

type Bound = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

fn bind(setup: QueueSetup<'_>, config: SocketConfig, umem: &Umem) -> Result<Bound, AfXdpError> {
    let device = &setup.device.name;
    let interface = Interface::from_str(device)
        .map_err(|_| socket_failed(setup, "its name holds a zero".to_owned()))?;
    let begin = Instant::now();
    loop {
        // SAFETY: the configuration inhibits libxdp's own program, as is asked for.
        let error = match unsafe { Socket::new(config, umem, &interface, setup.queue) } {
            Ok(bound) => return Ok(bound),
            Err(error) => error,
        };
        let named = (device.clone(), setup.queue);
        match errno(&error) {
            Some(libc::EBUSY) if begin.elapsed() < BUSY_FOR => sleep(Duration::from_millis(2)),
            Some(libc::EBUSY) => {
                let (device, queue) = named;
                return Err(AfXdpError::Busy { device, queue });
            }
            Some(libc::EPERM) => return Err(AfXdpError::NotPermitted),
            Some(libc::EINVAL) if setup.queue >= setup.device.queues => {
                let (device, queue) = named;
                return Err(AfXdpError::NoSuchQueue { device, queue });
            }
            Some(number) => {
                let cause = io::Error::from_raw_os_error(number).to_string();
                return Err(socket_failed(setup, cause));
            }
            None => return Err(socket_failed(setup, error.to_string())),
        }
    }
}

fn socket_failed(setup: QueueSetup<'_>, cause: String) -> AfXdpError {
    AfXdpError::Socket {
        device: setup.device.name.clone(),
        queue: setup.queue,
        cause,
    }
}

/// The kernel's error number behind one of xsk-rs's errors.
fn errno(error: &dyn Error) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}
