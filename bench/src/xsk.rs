//! The raw forwarder once more, made with xsk-rs as that crate's documentation has it: an
//! independent opinion of what AF_XDP gives on the same devices. It shares nothing with the
//! director's rings and sockets but the steering of all frames to it.
#![allow(
    unsafe_code,
    reason = "xsk-rs leaves it to its caller that a frame is in one ring at a time"
)]

use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use dataplane::port::device::Device;
use dataplane::port::everything::Everything;
use dataplane::port::{BURST, IDLE, SLEEP};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xsk_rs::config::{LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use crate::reflect::swap;

/// Rings and frames of a director's size.
const RING: u32 = 2048;
const FRAMES_PER_QUEUE: u32 = 6144;

/// As [`crate::reflect::run`].
///
/// # Errors
/// What could not be had, in words.
pub fn run(
    ports: &[String],
    cores: &[usize],
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<(), String> {
    if ports.is_empty() || ports.len() > 2 || cores.is_empty() {
        return Err("one or two ports, and at least one core".to_owned());
    }
    let devices: Result<Vec<_>, _> = ports.iter().map(|name| Device::find(name)).collect();
    let devices = devices.map_err(|error| error.to_string())?;
    let programs: Result<Vec<_>, _> = devices.iter().map(Everything::attach).collect();
    let mut programs = programs.map_err(|error| error.to_string())?;
    let mut workers = Vec::new();
    for (queue, &core) in cores.iter().enumerate() {
        workers.push(Worker::open(&devices, queue as u32, core, &mut programs)?);
    }
    ready();
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| worker.run(stop));
        }
    });
    Ok(())
}

struct Port {
    transmit: TxQueue,
    receive: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// Received frames that the fill ring lacks.
    owed: usize,
}

impl Port {
    fn open(umem: &Umem, device: &Device, queue: u32) -> Result<Self, String> {
        let failed = |what: String| format!("{}: {what}", device.name);
        let ring = QueueSize::new(RING).map_err(|error| failed(error.to_string()))?;
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .build();
        let name = device
            .name
            .parse()
            .map_err(|_| failed("its name holds a zero".to_owned()))?;
        // SAFETY: the configuration inhibits libxdp's own program, and no other socket of this
        // memory is bound to this queue.
        let opened = unsafe { Socket::new(config, umem, &name, queue) };
        let (transmit, receive, rings) = opened.map_err(|error| failed(error.to_string()))?;
        let (fill, completion) = rings.ok_or_else(|| failed("queue given twice".to_owned()))?;
        Ok(Self {
            transmit,
            receive,
            fill,
            completion,
            owed: RING as usize,
        })
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open for as long as `receive`.
        unsafe { BorrowedFd::borrow_raw(self.receive.fd().as_raw_fd()) }
    }
}

struct Worker {
    core: usize,
    umem: Umem,
    free: Vec<FrameDesc>,
    ports: Vec<Port>,
    burst: Vec<FrameDesc>,
}

impl Worker {
    fn open(
        devices: &[Device],
        queue: u32,
        core: usize,
        programs: &mut [Everything],
    ) -> Result<Self, String> {
        let count = FRAMES_PER_QUEUE * devices.len() as u32;
        let count = NonZeroU32::new(count).expect("at least one device");
        let made = Umem::new(UmemConfig::default(), count, false);
        let (umem, free) = made.map_err(|error| error.to_string())?;
        let burst = free[..BURST].to_vec();
        let mut ports = Vec::new();
        for (device, program) in devices.iter().zip(programs) {
            let port = Port::open(&umem, device, queue)?;
            let registered = program.register(queue, port.descriptor());
            registered.map_err(|error| error.to_string())?;
            ports.push(port);
        }
        Ok(Self {
            core,
            umem,
            free,
            ports,
            burst,
        })
    }

    fn run(mut self, stop: &AtomicBool) {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: self.core }) {
            eprintln!(
                "lvx: core {} cannot be had; the worker is not pinned",
                self.core
            );
        }
        (0..self.ports.len()).for_each(|place| self.refill(place));
        let mut idle_since = None;
        while !stop.load(Ordering::Relaxed) {
            if self.turn() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= IDLE {
                self.sleep();
            }
        }
    }

    fn turn(&mut self) -> bool {
        let mut received = 0;
        for place in 0..self.ports.len() {
            self.reclaim(place);
            let count = self.receive(place);
            received += count;
            self.send(self.ports.len() - 1 - place, count);
            self.refill(place);
        }
        for port in &self.ports {
            if port.transmit.needs_wakeup() {
                let _ = port.transmit.wakeup();
            }
        }
        received > 0
    }

    /// Frames that have left are free again.
    fn reclaim(&mut self, place: usize) {
        // What it holds is overwritten.
        let mut left = [self.burst[0]; BURST];
        // SAFETY: the ring is of this memory, and the kernel gives these frames up.
        let count = unsafe { self.ports[place].completion.consume(&mut left) };
        self.free.extend(&left[..count]);
    }

    fn receive(&mut self, place: usize) -> usize {
        let port = &mut self.ports[place];
        // SAFETY: the ring is of this memory, and what `burst` held before was sent or freed.
        let count = unsafe { port.receive.consume(&mut self.burst) };
        port.owed += count;
        for frame in &mut self.burst[..count] {
            // SAFETY: the frame was just received, and is in no ring.
            let mut data = unsafe { self.umem.data_mut(frame) };
            swap(data.contents_mut());
        }
        count
    }

    /// All or none, as xsk-rs has it; what finds no room is dropped.
    fn send(&mut self, place: usize, count: usize) {
        let frames = &self.burst[..count];
        let transmit = &mut self.ports[place].transmit;
        // SAFETY: these frames were received, are of this memory, and in no ring.
        let mut sent = unsafe { transmit.produce(frames) };
        if sent < count {
            let _ = transmit.wakeup();
            // SAFETY: as above: none of them was taken.
            sent = unsafe { transmit.produce(frames) };
        }
        if sent < count {
            self.free.extend(frames);
        }
    }

    fn refill(&mut self, place: usize) {
        let port = &mut self.ports[place];
        let count = port.owed.min(self.free.len());
        if count < BURST {
            return;
        }
        let rest = self.free.len() - count;
        // SAFETY: free frames are in no ring.
        let filled = unsafe { port.fill.produce(&self.free[rest..]) };
        self.free.truncate(self.free.len() - filled);
        port.owed -= filled;
    }

    fn sleep(&self) {
        let descriptors = self.ports.iter().map(Port::descriptor);
        let mut list: Vec<_> = descriptors
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: SLEEP.as_nanos() as i64,
        };
        let _ = poll(&mut list, Some(&timeout));
    }
}
