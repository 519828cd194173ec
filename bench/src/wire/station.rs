//! The generator's ports: AF_XDP sockets on both of its devices over one memory. All that
//! comes in on those devices comes to it.

use std::time::{Duration, Instant};

use dataplane::hops::PortId;
use dataplane::port::afxdp::{self, AfXdpOptions, AfXdpPort, QueueSetup, Transfer};
use dataplane::port::device::Device;
use dataplane::port::everything::Everything;
use dataplane::port::{Burst, Frames, Port};

/// Where frames leave and arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards the clients.
    Clients,
    /// Towards the servers.
    Servers,
}

/// So long must nothing come before the ports count as empty.
const QUIET: Duration = Duration::from_millis(2);

/// Entries of a ring: more than a director's, so that the generator is not what loses.
const RING: u32 = 4096;

/// Both ports. Used by the thread that opened it.
#[derive(Debug)]
pub struct Station {
    frames: Frames,
    /// By side, then by queue.
    ports: [Vec<AfXdpPort>; 2],
    burst: Burst,
    /// How frames get between driver and memory.
    pub transfer: Transfer,
    // After the sockets: what still comes is dropped, not handed to the host.
    _programs: [Everything; 2],
}

impl Station {
    /// Opens the first queues of two devices of the calling thread's namespace.
    ///
    /// # Errors
    /// What could not be had, in words.
    pub fn open(clients: &str, servers: &str, queues: u32) -> Result<Self, String> {
        let words = |error: &dyn std::error::Error| error.to_string();
        let devices = [
            Device::find(clients).map_err(|e| words(&e))?,
            Device::find(servers).map_err(|e| words(&e))?,
        ];
        let mut programs = [
            Everything::attach(&devices[0]).map_err(|e| words(&e))?,
            Everything::attach(&devices[1]).map_err(|e| words(&e))?,
        ];
        let setups: Vec<QueueSetup<'_>> = (0..2u8)
            .flat_map(|side| {
                let device = &devices[usize::from(side)];
                (0..queues).map(move |queue| QueueSetup {
                    port: PortId(side),
                    device,
                    queue,
                })
            })
            .collect();
        let options = AfXdpOptions {
            ring_entries: RING,
            frames_per_queue: 3 * RING,
            ..AfXdpOptions::default()
        };
        let opened = afxdp::open(&setups, options).map_err(|e| words(&e))?;
        let mut ports = [Vec::new(), Vec::new()];
        for port in opened.ports {
            let side = usize::from(port.port().0);
            programs[side]
                .register(port.queue(), port.socket())
                .map_err(|e| words(&e))?;
            ports[side].push(port);
        }
        Ok(Self {
            frames: opened.frames,
            ports,
            burst: Burst::default(),
            transfer: opened.transfer,
            _programs: programs,
        })
    }

    /// The queues of each side.
    pub fn queues(&self) -> usize {
        self.ports[0].len()
    }

    /// Puts a frame into a queue; `change` may write into it. False when there is no room.
    #[inline]
    pub fn put(
        &mut self,
        side: Side,
        queue: usize,
        template: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(mut slot) = self.frames.take_with(template) else {
            return false;
        };
        self.frames
            .edit(&mut slot, |frame| change(frame.bytes_mut()));
        match self.ports[side as usize][queue].send(&mut self.frames, slot) {
            Ok(()) => true,
            Err(slot) => {
                self.frames.give(slot);
                false
            }
        }
    }

    /// Lets leave what was put.
    pub fn flush(&mut self, side: Side) {
        for port in &mut self.ports[side as usize] {
            port.flush(&mut self.frames);
            port.reclaim(&mut self.frames);
        }
    }

    /// Shows each frame that has arrived, at most a burst from each queue; how many.
    pub fn receive(&mut self, side: Side, mut see: impl FnMut(&[u8])) -> usize {
        let mut received = 0;
        for port in &mut self.ports[side as usize] {
            port.receive(&mut self.frames, &mut self.burst);
            received += self.burst.len();
            for slot in self.burst.drain() {
                see(self.frames.bytes(&slot));
                self.frames.give(slot);
            }
        }
        received
    }

    /// Throws away what has arrived, until nothing has for a while.
    pub fn empty(&mut self) {
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            let both = [Side::Clients, Side::Servers];
            if both.map(|side| self.receive(side, |_| ())) != [0, 0] {
                last = Instant::now();
            }
        }
    }

    /// Frames that were lost on this end of a side: not the system's fault.
    pub fn missed(&self, side: Side) -> u64 {
        let ports = &self.ports[side as usize];
        let lost = |port: &AfXdpPort| port.counters().missed + port.counters().overrun;
        ports.iter().map(lost).sum()
    }
}
