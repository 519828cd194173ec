//! The one branching function: a frame, a snapshot and the time in; a verdict out.
//!
//! The order of questions is IPVS's own: is it a reply of a masquerading server, is it an
//! ICMP error about a connection, does it belong to a connection, may it begin one. What
//! answers none of them is the host's.

mod budget;
mod errors;
mod expiry;
mod follow;
mod inbound;
mod outbound;
mod schedule;

use std::sync::Arc;

use sched::service::{Family, Protocol};

use crate::connection::table::{Cache, Table};
use crate::counters::{Counters, Event};
use crate::forward::fragments::{Offered, Pieces, Reassembly};
use crate::forward::{checksum, link};
use crate::frame::{Frame, Packet};
use crate::hops::{PortId, Way};
use crate::snapshot::Snapshot;
use crate::time::{Ticks, ticks};
use crate::verdict::{Reason, Verdict};

use budget::ErrorBudget;

/// Incomplete datagrams that one worker keeps at once.
const DATAGRAMS_MAX: usize = 256;

/// How long an incomplete datagram is kept, s (Linux's `net.ipv4.ipfrag_time`).
const DATAGRAM_TIMEOUT_S: u32 = 30;

/// ICMP's protocol number in IPv4 and in IPv6.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// One worker's director: what it needs beside the snapshot.
#[derive(Debug)]
pub struct Director {
    table: Arc<Table>,
    cache: Cache,
    counters: Arc<Counters>,
    reassembly: Reassembly,
    pieces: Pieces,
    errors: ErrorBudget,
    identification: u16,
    in_hand: InHand,
    packets_until_drop: u32,
    tidied: Ticks,
}

/// What the packet in hand is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InHand {
    /// The frame that was received.
    Frame,
    /// A datagram put together from fragments, copied into the last fragment's frame.
    Datagram,
    /// A datagram too large for a frame, where the reassembly keeps it.
    Aside,
}

/// What a decision is based on.
#[derive(Clone, Copy)]
struct Moment<'s> {
    snapshot: &'s Snapshot,
    now: Ticks,
}

impl Director {
    /// The director of worker number `worker`, over the table that all workers share.
    pub fn new(table: Arc<Table>, worker: usize, counters: Arc<Counters>) -> Self {
        Self {
            cache: table.cache(worker),
            table,
            counters,
            reassembly: Reassembly::new(DATAGRAMS_MAX, ticks(DATAGRAM_TIMEOUT_S)),
            pieces: Pieces::default(),
            errors: ErrorBudget::default(),
            identification: 0,
            in_hand: InHand::Frame,
            packets_until_drop: 0,
            tidied: 0,
        }
    }

    /// What is to become of `frame`. The frame is rewritten in place. A drop is counted
    /// here; the caller need not.
    pub fn handle(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        let moment = Moment { snapshot, now };
        self.in_hand = InHand::Frame;
        let verdict = match Packet::parse(frame) {
            Ok(packet) if packet.fragment.is_some() => self.fragment(moment, frame, packet),
            Ok(mut packet) => self.packet(moment, frame, &mut packet),
            Err(reason) => Verdict::Drop(reason),
        };
        self.counted(verdict)
    }

    /// Offers a frame again that waited for its next hop ([`Verdict::Unresolved`] with the
    /// same `way`, looked up anew): complete but for its link addresses.
    pub fn finish(&mut self, frame: &mut Frame<'_>, way: Way) -> Verdict {
        self.in_hand = InHand::Frame;
        let verdict = match Packet::parse(frame) {
            Ok(mut packet) => self.leave(frame, &mut packet, way),
            Err(reason) => Verdict::Drop(reason),
        };
        self.counted(verdict)
    }

    /// Writes the next piece of the datagram behind the last [`Verdict::Split`] or
    /// [`Verdict::SplitHost`] into the empty frame `piece`; false when there are no more.
    pub fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool {
        self.pieces.next(piece)
    }

    /// The counters that this director writes, for the worker's own events.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn counted(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Drop(reason) => self.counters.drop(reason),
            Verdict::Ask(_) => self.counters.drop(Reason::NeighbourUnreachable),
            _ => {}
        }
        verdict
    }

    fn fragment(&mut self, moment: Moment<'_>, frame: &mut Frame<'_>, packet: Packet) -> Verdict {
        match self.reassembly.offer(moment.now, frame, &packet) {
            Offered::Held => return Verdict::Held,
            Offered::Drop(reason) => return Verdict::Drop(reason),
            Offered::Whole => {}
        }
        self.counters.event(Event::Reassembled, 1);
        if self.reassembly.whole().copy_to(frame) {
            self.in_hand = InHand::Datagram;
            return self.parsed(moment, frame);
        }
        // The datagram stays where it was put together. It is lent out for the length of
        // the call, so that the director can be used beside it.
        self.in_hand = InHand::Aside;
        let mut store = std::mem::take(&mut self.reassembly);
        let verdict = self.parsed(moment, &mut store.whole());
        self.reassembly = store;
        verdict
    }

    fn parsed(&mut self, moment: Moment<'_>, frame: &mut Frame<'_>) -> Verdict {
        match Packet::parse(frame) {
            Ok(mut packet) => self.packet(moment, frame, &mut packet),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn packet(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Verdict {
        if is_icmp(packet) {
            return self.icmp(moment, frame, packet);
        }
        let Some(protocol) = Protocol::from_number(packet.protocol) else {
            return self.host(frame, packet);
        };
        // IPVS always looks for a reply first. Where the sender is no masquerading server
        // that would be a look-up for nothing, so the order follows the sender.
        let snapshot = moment.snapshot;
        let replies_first = snapshot.is_reply_source(packet.family, packet.source.address);
        let verdict = if replies_first {
            self.outbound(moment, frame, packet, protocol)
                .or_else(|| self.inbound(moment, frame, packet, protocol))
        } else {
            self.inbound(moment, frame, packet, protocol)
                .or_else(|| self.outbound(moment, frame, packet, protocol))
        };
        verdict.unwrap_or_else(|| self.stray(moment, frame, packet, protocol))
    }

    /// To the host's own stack, as it came.
    fn host(&mut self, frame: &mut Frame<'_>, packet: &Packet) -> Verdict {
        self.complete_checksum(frame, packet);
        if self.in_hand == InHand::Frame {
            return Verdict::Host;
        }
        self.pieces
            .load(frame, u16::MAX, Some(self.reassembly.boundaries()));
        Verdict::SplitHost
    }

    /// Out by `way`: the link header, then the whole frame or its pieces.
    fn leave(&mut self, frame: &mut Frame<'_>, packet: &mut Packet, way: Way) -> Verdict {
        let (hop, verdict) = match way {
            Way::Ready(hop) => (hop, Verdict::Transmit(hop.port)),
            Way::Unresolved(_, hop) => (hop, Verdict::Unresolved(way)),
            Way::Local => return self.host(frame, packet),
            Way::NotAPort => return Verdict::Drop(Reason::NotAPort),
            Way::None => return Verdict::Drop(Reason::NoRoute),
        };
        if let Err(reason) = link::address(frame, packet, &hop) {
            return Verdict::Drop(reason);
        }
        let whole = self.in_hand == InHand::Frame && packet.length <= usize::from(hop.mtu);
        match verdict {
            Verdict::Transmit(port) if !whole => self.split(frame, port, hop.mtu),
            Verdict::Unresolved(way) if self.in_hand == InHand::Aside => Verdict::Ask(way),
            verdict => verdict,
        }
    }

    fn split(&mut self, frame: &Frame<'_>, port: PortId, mtu: u16) -> Verdict {
        let came_in_pieces = self.in_hand != InHand::Frame;
        let boundaries = came_in_pieces.then(|| self.reassembly.boundaries());
        self.pieces.load(frame, mtu, boundaries);
        Verdict::Split(port)
    }

    /// The sum of a packet whose sender left it to hardware that it never met.
    fn complete_checksum(&self, frame: &mut Frame<'_>, packet: &Packet) {
        if checksum::complete_if_partial(frame, packet) {
            self.counters.event(Event::ChecksumCompleted, 1);
        }
    }

    fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }
}

fn is_icmp(packet: &Packet) -> bool {
    match packet.family {
        Family::V4 => packet.protocol == ICMP,
        Family::V6 => packet.protocol == ICMPV6,
    }
}
