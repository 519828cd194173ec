//! What a worker counts. Each worker writes its own set with plain stores; the control
//! side reads all sets and adds them, so no cache line is written by two cores.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sched::server::ServerId;
use sched::service::ServiceId;

use crate::port::shared_memory::{Cells, SharedMemory};
use crate::verdict::Reason;

/// Counts of one service or one server. Bytes are those of the IP packet, as IPVS counts.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Traffic {
    /// Connections begun.
    pub connections: AtomicU64,
    /// Packets from clients.
    pub in_packets: AtomicU64,
    /// Packets to clients.
    pub out_packets: AtomicU64,
    /// Bytes from clients.
    pub in_bytes: AtomicU64,
    /// Bytes to clients.
    pub out_bytes: AtomicU64,
}

impl Traffic {
    fn counts(&self) -> [&AtomicU64; 5] {
        let Self {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = self;
        [connections, in_packets, out_packets, in_bytes, out_bytes]
    }

    /// Counts a packet from a client.
    pub fn inbound(&self, bytes: usize) {
        add(&self.in_packets, 1);
        add(&self.in_bytes, bytes as u64);
    }

    /// Counts a packet to a client.
    pub fn outbound(&self, bytes: usize) {
        add(&self.out_packets, 1);
        add(&self.out_bytes, bytes as u64);
    }

    /// Counts a new connection.
    pub fn connection(&self) {
        add(&self.connections, 1);
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct Counters {
    services: Cells<Traffic>,
    servers: Cells<Traffic>,
    drops: Cells<AtomicU64>,
    events: Cells<AtomicU64>,
    busy_ns: AtomicU64,
    frames: [AtomicU64; 4],
}

/// Where a worker's frames are, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// All that it was given.
    pub total: u64,
    /// In its pool.
    pub free: u64,
    /// In the rings of its queues, those of ports that have gone among them.
    pub in_rings: u64,
    /// Waiting for a link address.
    pub waiting: u64,
}

/// What else a worker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Frames received.
    Received,
    /// Frames lost before they were received: there was no free frame for them.
    Missed,
    /// Frames lost before they were received: longer than can be taken.
    TooLong,
    /// Frames lost before they were received: they came faster than earlier ones were taken.
    Overrun,
    /// Frames sent.
    Sent,
    /// Frames given to the host.
    ToHost,
    /// ICMP errors written.
    IcmpWritten,
    /// Connections ended by their timeout.
    Expired,
    /// Handshakes that nobody had completed, ended for the room that they took.
    HalfOpenEnded,
    /// Checksums completed that held only the pseudo-header sum.
    ChecksumCompleted,
    /// Datagrams put together from fragments.
    Reassembled,
}

impl Event {
    /// Every event, in order.
    pub const ALL: &'static [Self] = &[
        Self::Received,
        Self::Missed,
        Self::TooLong,
        Self::Overrun,
        Self::Sent,
        Self::ToHost,
        Self::IcmpWritten,
        Self::Expired,
        Self::HalfOpenEnded,
        Self::ChecksumCompleted,
        Self::Reassembled,
    ];

    /// The name that listings show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "frames_received",
            Self::Missed => "frames_missed",
            Self::TooLong => "frames_too_long",
            Self::Overrun => "frames_overrun",
            Self::Sent => "frames_sent",
            Self::ToHost => "frames_to_host",
            Self::IcmpWritten => "icmp_written",
            Self::Expired => "connections_expired",
            Self::HalfOpenEnded => "half_open_ended",
            Self::ChecksumCompleted => "checksums_completed",
            Self::Reassembled => "datagrams_reassembled",
        }
    }
}

impl Counters {
    /// Counters for this many services and servers, all zero.
    pub fn new(services: usize, servers: usize) -> Self {
        Self {
            services: Cells::new(services),
            servers: Cells::new(servers),
            drops: Cells::new(Reason::ALL.len()),
            events: Cells::new(Event::ALL.len()),
            busy_ns: AtomicU64::new(0),
            frames: Default::default(),
        }
    }

    /// The memory that [`Counters::in_memory`] needs.
    pub fn needed_bytes(services: usize, servers: usize) -> usize {
        Self::parts(services, servers).iter().sum()
    }

    /// Counters that go on from what the memory holds: 0 where it was never written. None
    /// where it is not enough.
    pub fn in_memory(memory: SharedMemory, services: usize, servers: usize) -> Option<Self> {
        let parts = Self::parts(services, servers);
        let (first, rest) = memory.split(parts[0])?;
        let (second, rest) = rest.split(parts[1])?;
        let (third, rest) = rest.split(parts[2])?;
        let (fourth, _) = rest.split(parts[3])?;
        Some(Self {
            services: first.cells(),
            servers: second.cells(),
            drops: third.cells(),
            events: fourth.cells(),
            busy_ns: AtomicU64::new(0),
            frames: Default::default(),
        })
    }

    /// A number for how the counts lie in memory: the same where they mean the same.
    pub fn layout(services: usize, servers: usize) -> u64 {
        let reasons = Reason::ALL.iter().map(|reason| reason.name());
        let names = reasons.chain(Event::ALL.iter().map(|event| event.name()));
        let sizes = [services, servers].map(|size| size.to_string());
        let words = names.chain(sizes.iter().map(String::as_str));
        // FNV-1a.
        words
            .flat_map(|word| word.bytes().chain([0]))
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }

    /// Takes all counts of `other` to these, and sets those to 0. Only while neither counts.
    pub fn absorb(&self, other: &Self) {
        let traffic = |ours: &[Traffic], theirs: &[Traffic]| {
            for (our, their) in ours.iter().zip(theirs) {
                let pairs = our.counts().into_iter().zip(their.counts());
                pairs.for_each(|(our, their)| add(our, their.swap(0, Relaxed)));
            }
        };
        traffic(&self.services, &other.services);
        traffic(&self.servers, &other.servers);
        let plain = |ours: &[AtomicU64], theirs: &[AtomicU64]| {
            let pairs = ours.iter().zip(theirs);
            pairs.for_each(|(our, their)| add(our, their.swap(0, Relaxed)));
        };
        plain(&self.drops, &other.drops);
        plain(&self.events, &other.events);
    }

    /// Bytes of each part, in whole lines.
    fn parts(services: usize, servers: usize) -> [usize; 4] {
        let [traffic, plain] = [size_of::<Traffic>(), size_of::<AtomicU64>()];
        [
            services * traffic,
            servers * traffic,
            (Reason::ALL.len() * plain).next_multiple_of(64),
            (Event::ALL.len() * plain).next_multiple_of(64),
        ]
    }

    /// The counts of a service.
    pub fn service(&self, id: ServiceId) -> &Traffic {
        &self.services[id.0 as usize]
    }

    /// The counts of a server.
    pub fn server(&self, id: ServerId) -> &Traffic {
        &self.servers[id.0 as usize]
    }

    /// Counts a drop.
    pub fn dropped(&self, reason: Reason) {
        add(&self.drops[reason as usize], 1);
    }

    /// Counts an event.
    pub fn event(&self, event: Event, times: u64) {
        add(&self.events[event as usize], times);
    }

    /// How often a reason dropped a frame.
    pub fn drops(&self, reason: Reason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// Counts time with frames in hand, ns.
    pub fn busy(&self, ns: u64) {
        add(&self.busy_ns, ns);
    }

    /// The time with frames in hand until now, ns.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Relaxed)
    }

    /// Tells where the worker's frames are now.
    pub fn tell_frames(&self, frames: Frames) {
        let Frames {
            total,
            free,
            in_rings,
            waiting,
        } = frames;
        let values = [total, free, in_rings, waiting];
        let pairs = self.frames.iter().zip(values);
        pairs.for_each(|(place, value)| place.store(value, Relaxed));
    }

    /// Where the worker's frames were when it last told. Read while it tells, the parts may
    /// be of two moments.
    pub fn frames(&self) -> Frames {
        let [total, free, in_rings, waiting] =
            std::array::from_fn(|part| self.frames[part].load(Relaxed));
        Frames {
            total,
            free,
            in_rings,
            waiting,
        }
    }

    /// All drops.
    pub fn dropped_in_all(&self) -> u64 {
        self.drops.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// How often an event happened.
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].load(Relaxed)
    }
}

/// Only the owning worker writes, so no read-modify-write is needed.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}
