//! The one branching function: a frame, a snapshot and the time in; a verdict out.
//!
//! The order of questions is IPVS's own: is it a reply of a masquerading server, is it an
//! ICMP error about a connection, does it belong to a connection, may it begin one. What
//! answers none of them is the host's.

mod budget;
mod errors;
mod exits;
mod expiry;
mod follow;
mod inbound;
mod ipsec;
pub mod known;
mod limits;
pub mod observer;
mod outbound;
mod room;
mod schedule;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[cfg_attr(fuzzing, allow(dead_code, unused_imports))]
mod tests;

use std::sync::Arc;

use sched::service::{Family, Protocol};

use crate::connection::table::{Cache, Table};
use crate::counters::{Counters, Event};
use crate::forward::fragments::{Geometry, Offered, Pieces, Reassembly};
use crate::forward::{checksum, link, options};
use crate::frame::ipsec::is_ipsec;
use crate::frame::{Frame, Packet};
use crate::hops::Way;
use crate::snapshot::Snapshot;
use crate::time::{Ticks, ticks};
use crate::verdict::{Reason, Verdict};

use budget::ErrorBudget;
use exits::Exits;
use expiry::{Purge, Thinning};
use observer::{Observer, Silent, Step, Trace};
use room::Room;

/// Incomplete datagrams that one worker keeps at once.
const DATAGRAMS_MAX: usize = 256;

/// How long an incomplete datagram is kept, s (Linux's `net.ipv4.ipfrag_time`).
const DATAGRAM_TIMEOUT_S: u32 = 30;

/// One worker's director: what it needs beside the snapshot.
#[derive(Debug)]
pub struct Director<O = Silent> {
    observer: O,
    table: Arc<Table>,
    cache: Cache,
    counters: Arc<Counters>,
    /// Lent out while a datagram is handled where it was put together.
    reassembly: Option<Reassembly>,
    /// How the datagram in hand had been split, if it came in fragments.
    geometry: Option<Geometry>,
    pieces: Pieces,
    errors: ErrorBudget,
    exits: Exits,
    identification: u16,
    /// Whether frames may come whose checksum is not complete.
    expects_partial: bool,
    in_hand: InHand,
    packets_until_drop: u32,
    tidied: Ticks,
    purge: Purge,
    thinning: Thinning,
    room: Room,
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

/// What a fuzzer's bytes do to two directors; see `tests/fuzz`. Panics where they differ.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    tests::fuzz::meet(data);
}

impl Director {
    /// The director of worker number `worker`, over the table that all workers share.
    pub fn new(table: Arc<Table>, worker: usize, counters: Arc<Counters>) -> Self {
        Self::observed(table, worker, counters, Silent)
    }

    /// Says whether frames may come whose checksum their sender left to its hardware
    /// ([`Port::may_be_partial`](crate::port::Port::may_be_partial)); until then they may. Where
    /// none come, usual frames are not asked: 12 of their instructions.
    pub fn expect_partial(&mut self, may_come: bool) {
        self.expects_partial = may_come;
    }

    /// What is to become of `frame`. The frame is rewritten in place. A drop is counted
    /// here; the caller need not.
    pub fn handle(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        self.decide(snapshot, now, frame)
    }

    /// Offers a frame again that waited for its next hop ([`Verdict::Unresolved`] with this
    /// `way`): complete but for its link addresses. Unresolved again, as long as the
    /// snapshot does not know the neighbour.
    pub fn finish(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>, way: Way) -> Verdict {
        let way = snapshot.hops.resolved(way);
        if matches!(way, Way::Unresolved(..)) {
            return Verdict::Unresolved(way);
        }
        self.in_hand = InHand::Frame;
        let verdict = match Packet::parse(frame) {
            Ok(mut packet) => self.leave(frame, &mut packet, way),
            Err(reason) => Verdict::Drop(reason),
        };
        self.counted(verdict)
    }

    /// Gives up on a frame whose next hop's link address nobody told ([`Verdict::Unresolved`]):
    /// the drop is counted, and its sender is told, if that is allowed.
    pub fn give_up(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        self.in_hand = InHand::Frame;
        let verdict = match Packet::parse(frame) {
            Ok(mut packet) => self.unreachable(Moment { snapshot, now }, frame, &mut packet),
            Err(_) => Verdict::Drop(Reason::NeighbourUnreachable),
        };
        self.counted(verdict)
    }

    /// Writes the next piece of the datagram behind the last [`Verdict::Split`] or
    /// [`Verdict::SplitHost`] into the empty frame `piece`; false when there are no more.
    pub fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool {
        self.pieces.next(piece)
    }

    /// What it kept of the table for itself, for [`Table::leave`].
    #[cfg(not(loom))]
    pub fn into_cache(self) -> Cache {
        self.cache
    }

    /// The counters that this director writes, for the worker's own events.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Director<Trace> {
    /// As [`Director::handle`], of a director that writes down its steps. `drop_packet`
    /// drops nothing here: which packet it would meet depends on those before.
    pub(crate) fn explain(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        frame: &mut Frame<'_>,
    ) -> (Verdict, Vec<Step>) {
        self.packets_until_drop = u32::MAX;
        let verdict = self.decide(snapshot, now, frame);
        (verdict, self.observer.take())
    }
}

impl<O: Observer> Director<O> {
    /// A director that tells `observer` what it does.
    pub(crate) fn observed(
        table: Arc<Table>,
        worker: usize,
        counters: Arc<Counters>,
        observer: O,
    ) -> Self {
        Self {
            observer,
            cache: table.cache(worker),
            table,
            counters,
            reassembly: Some(Reassembly::new(DATAGRAMS_MAX, ticks(DATAGRAM_TIMEOUT_S))),
            geometry: None,
            pieces: Pieces::default(),
            errors: ErrorBudget::default(),
            exits: Exits::new(),
            identification: 0,
            expects_partial: true,
            in_hand: InHand::Frame,
            packets_until_drop: 0,
            tidied: 0,
            purge: Purge::new(worker),
            thinning: Thinning::default(),
            room: Room::new(worker),
        }
    }

    #[inline(always)]
    fn decide(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        let moment = Moment { snapshot, now };
        self.in_hand = InHand::Frame;
        let verdict = match Packet::parse(frame) {
            Ok(packet) if !snapshot.serves(packet.family) => self.host(frame, &packet),
            Ok(packet) if packet.fragment.is_some() => self.fragment(moment, frame, packet),
            Ok(mut packet) => self.packet(moment, frame, &mut packet),
            Err(reason) => Verdict::Drop(reason),
        };
        self.counted(verdict)
    }

    fn counted(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Drop(reason) => self.counters.dropped(reason),
            Verdict::Ask(_) => self.counters.dropped(Reason::NeighbourUnreachable),
            _ => {}
        }
        verdict
    }

    fn fragment(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        mut packet: Packet,
    ) -> Verdict {
        if is_ipsec(packet.protocol)
            && let Some(verdict) = self.secured_fragment(moment, frame, &mut packet)
        {
            return verdict;
        }
        if packet.family == Family::V4 {
            // Under IPVS the host refuses what it cannot forward before fragments meet.
            let destination = packet.destination.address;
            let way = moment.snapshot.hops.lookup(Family::V4, destination);
            let routed = matches!(way, Way::Ready(_) | Way::Unresolved(..));
            self.in_hand = InHand::Frame;
            if routed && self.is_refused_by_host(&packet, way) {
                return Verdict::Host;
            }
        }
        let Some(mut reassembly) = self.reassembly.take() else {
            return Verdict::Drop(Reason::FragmentLimit);
        };
        let verdict = match reassembly.offer(moment.now, frame, &packet) {
            Offered::Held => Verdict::Held,
            Offered::Drop(reason) => Verdict::Drop(reason),
            Offered::Whole => self.datagram(moment, frame, &mut reassembly),
        };
        self.reassembly = Some(reassembly);
        verdict
    }

    /// A datagram put together is handled as if it had come so: in the last fragment's
    /// frame where it fits there, else where it lies.
    fn datagram(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        reassembly: &mut Reassembly,
    ) -> Verdict {
        let Some((mut whole, geometry)) = reassembly.whole() else {
            return Verdict::Drop(Reason::FragmentInvalid);
        };
        self.counters.event(Event::Reassembled, 1);
        self.geometry = Some(geometry.clone());
        if copy(&whole, frame) {
            self.in_hand = InHand::Datagram;
            self.parsed(moment, frame)
        } else {
            self.in_hand = InHand::Aside;
            self.parsed(moment, &mut whole)
        }
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
        self.observer.step(|| Step::Packet(*packet));
        if has_refused_options(frame, packet) {
            return self.host(frame, packet);
        }
        if packet.is_icmp() {
            return self.icmp(moment, frame, packet);
        }
        let Some(protocol) = Protocol::from_number(packet.protocol) else {
            return self.unbalanced(moment, frame, packet);
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
        self.observer.step(|| Step::Host);
        self.complete_checksum(frame, packet);
        if self.in_hand == InHand::Frame {
            return Verdict::Host;
        }
        self.load(frame, packet, u16::MAX);
        Verdict::SplitHost
    }

    /// Out by `way`: the link header, then the whole frame or its pieces.
    fn leave(&mut self, frame: &mut Frame<'_>, packet: &mut Packet, way: Way) -> Verdict {
        self.observer.step(|| Step::Leave {
            packet: *packet,
            way,
        });
        let (hop, verdict) = match way {
            Way::Ready(hop) => (hop, Verdict::Transmit(hop.port)),
            Way::Unresolved(..) if self.in_hand == InHand::Aside => return Verdict::Ask(way),
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
            Verdict::Transmit(port) if !whole => {
                self.load(frame, packet, hop.mtu);
                Verdict::Split(port)
            }
            verdict => verdict,
        }
    }

    /// Whether the packet is larger than `room` and must not be split. What came in
    /// fragments over IPv6 was split by its sender, and is judged by the longest of them.
    fn is_stuck(&self, packet: &Packet, room: usize) -> bool {
        let longest = match &self.geometry {
            Some(geometry) if packet.family == Family::V6 && self.in_hand != InHand::Frame => {
                geometry.largest
            }
            _ => packet.length,
        };
        packet.dont_fragment && longest > room
    }

    fn load(&mut self, frame: &Frame<'_>, packet: &Packet, mtu: u16) {
        let identification = u32::from(self.next_identification());
        let came = self.in_hand != InHand::Frame;
        let geometry = self.geometry.as_ref().filter(|_| came);
        self.pieces
            .load(frame, packet, mtu, geometry, identification);
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

/// Whether the host would not even look where the packet goes.
#[inline]
fn has_refused_options(frame: &Frame<'_>, packet: &Packet) -> bool {
    const FIXED: usize = 20;
    packet.family == Family::V4
        && packet.transport > packet.network + FIXED
        && options::are_refused(&frame.bytes()[packet.network + FIXED..packet.transport])
}

/// Replaces what is in `frame` by what is in `whole`, if it fits.
fn copy(whole: &Frame<'_>, frame: &mut Frame<'_>) -> bool {
    let length = whole.len();
    let fits = length <= frame.len() || frame.grow_back(length - frame.len());
    if fits {
        frame.truncate(length);
        frame.bytes_mut().copy_from_slice(whole.bytes());
    }
    fits
}
