//! What a worker counts. Each worker writes its own set with plain stores; the control
//! side reads all sets and adds them, so no cache line is written by two cores.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sched::server::ServerId;
use sched::service::ServiceId;

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
    services: Box<[Traffic]>,
    servers: Box<[Traffic]>,
    drops: Box<[AtomicU64]>,
    events: Box<[AtomicU64]>,
    busy_ns: AtomicU64,
}

/// What else a worker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Frames received.
    Received,
    /// Frames sent.
    Sent,
    /// Frames given to the host.
    ToHost,
    /// ICMP errors written.
    IcmpWritten,
    /// Connections ended by their timeout.
    Expired,
    /// Checksums completed that held only the pseudo-header sum.
    ChecksumCompleted,
    /// Datagrams put together from fragments.
    Reassembled,
}

impl Event {
    /// Every event, in order.
    pub const ALL: &'static [Self] = &[
        Self::Received,
        Self::Sent,
        Self::ToHost,
        Self::IcmpWritten,
        Self::Expired,
        Self::ChecksumCompleted,
        Self::Reassembled,
    ];

    /// The name that listings show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "frames_received",
            Self::Sent => "frames_sent",
            Self::ToHost => "frames_to_host",
            Self::IcmpWritten => "icmp_written",
            Self::Expired => "connections_expired",
            Self::ChecksumCompleted => "checksums_completed",
            Self::Reassembled => "datagrams_reassembled",
        }
    }
}

impl Counters {
    /// Counters for this many services and servers, all zero.
    pub fn new(services: usize, servers: usize) -> Self {
        let traffic = |n| (0..n).map(|_| Traffic::default()).collect();
        let plain = |n| (0..n).map(|_| AtomicU64::new(0)).collect();
        Self {
            services: traffic(services),
            servers: traffic(servers),
            drops: plain(Reason::ALL.len()),
            events: plain(Event::ALL.len()),
            busy_ns: AtomicU64::new(0),
        }
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
