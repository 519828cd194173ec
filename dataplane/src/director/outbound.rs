//! Packets from masquerading servers: back to the client under the virtual address.

use sched::service::{Family, Protocol};

use super::observer::Observer;
use super::{Director, InHand, Moment};
use crate::address::Bits;
use crate::connection::state::Direction;
use crate::connection::table::{Connection, Handle};
use crate::connection::word::Word;
use crate::forward::icmp::ErrorKind;
use crate::forward::{hop_limit, nat};
use crate::frame::{Frame, Packet, sctp_chunk, tcp_flag};
use crate::hops::Way;
use crate::verdict::{Reason, Verdict};

impl<O: Observer> Director<O> {
    /// The verdict on a reply of a masqueraded connection; none for other packets.
    pub(super) fn outbound(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        protocol: Protocol,
    ) -> Option<Verdict> {
        let (client, real) = (packet.destination, packet.source);
        let handle = self.find_reply(packet.family, packet.protocol, client, real)?;
        let connection = self.table.view(handle);
        if Word(connection.word()).is_shared() {
            self.table.part(connection);
        }
        let event = packet.event();
        let note = |director: &Self, connection: Connection<'_>| {
            let what = (connection, Word(connection.word()));
            director.follow(moment, what, Direction::Output, event, protocol);
        };
        Some(self.send_back(moment, frame, packet, handle, note))
    }

    /// Back to the client of a masqueraded connection; `note` is called where the packet counts
    /// for the connection.
    #[inline(always)]
    pub(super) fn send_back(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        handle: Handle,
        note: impl FnOnce(&Self, Connection<'_>),
    ) -> Verdict {
        let client = packet.destination;
        let way = moment.snapshot.hops.lookup(packet.family, client.address);
        if self.is_refused_by_host(packet, way) {
            return match self.in_hand {
                InHand::Frame => self.host(frame, packet),
                InHand::Datagram | InHand::Aside => {
                    self.refuse_datagram(moment, frame, packet, way)
                }
            };
        }
        let connection = self.table.view(handle);
        self.count_outbound(moment, connection, packet.length);
        let _ = nat::rewrite_source(frame, packet, connection.virtual_());
        note(self, connection);
        // Cannot fail: the host refuses what has no hops left.
        let _ = hop_limit::decrement(frame, packet);
        self.leave(frame, packet, way)
    }

    pub(super) fn count_outbound(
        &self,
        moment: Moment<'_>,
        connection: Connection<'_>,
        bytes: usize,
    ) {
        let Some(slot) = moment.snapshot.server(connection.server()) else {
            return;
        };
        if slot.server.available {
            self.counters.server(slot.server.id).outbound(bytes);
            self.counters.service(slot.server.service).outbound(bytes);
        }
    }

    /// Under IPVS a reply is forwarded by the host, which answers what it cannot forward
    /// before IPVS meets it. So the host gets such a packet as it came.
    pub(super) fn is_refused_by_host(&self, packet: &Packet, way: Way) -> bool {
        if packet.hop_limit <= 1 {
            return true;
        }
        let (Way::Ready(hop) | Way::Unresolved(_, hop)) = way else {
            return false;
        };
        self.is_stuck(packet, usize::from(hop.mtu))
    }

    /// A reply that was put together and cannot be forwarded. The host must not have it: it
    /// would forward the fragments that fit, untranslated. IPv4 fragments were judged one
    /// by one, so only their sum is too big, and of that IPVS tells nobody outside.
    fn refuse_datagram(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        way: Way,
    ) -> Verdict {
        let (Family::V6, Way::Ready(hop) | Way::Unresolved(_, hop)) = (packet.family, way) else {
            return Verdict::Drop(Reason::TooBig);
        };
        let (kind, reason) = match packet.hop_limit {
            0 | 1 => (ErrorKind::TimeExceeded, Reason::HopLimit),
            _ => (ErrorKind::TooBig { mtu: hop.mtu }, Reason::TooBig),
        };
        let back = moment
            .snapshot
            .hops
            .lookup(packet.family, packet.source.address);
        let source = own_address(back, packet);
        self.refuse_as(moment, frame, packet, kind, reason, source)
    }

    /// A packet that belongs to no connection. With `nat_icmp_send` a masquerading server
    /// is told so; all others are the host's.
    pub(super) fn stray(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        protocol: Protocol,
    ) -> Verdict {
        let snapshot = moment.snapshot;
        let tells = snapshot.tunables.nat_icmp_send
            && snapshot.is_masquerading(packet.family, protocol, packet.source)
            && !is_reset(packet, protocol);
        if !tells {
            return self.host(frame, packet);
        }
        let hops = &snapshot.hops;
        let way = hops.lookup(packet.family, packet.destination.address);
        let source = match way {
            Way::Local => packet.destination.address,
            Way::NotAPort | Way::None => return self.host(frame, packet),
            _ if self.is_refused_by_host(packet, way) => return self.host(frame, packet),
            // The host forwards first, and then speaks for itself.
            Way::Ready(_) | Way::Unresolved(..) => {
                let _ = hop_limit::decrement(frame, packet);
                own_address(hops.lookup(packet.family, packet.source.address), packet)
            }
        };
        let kind = ErrorKind::PortUnreachable;
        self.refuse_as(moment, frame, packet, kind, Reason::NoConnection, source)
    }
}

/// The host's own address on the way back to a packet's sender.
pub(super) fn own_address(back: Way, packet: &Packet) -> Bits {
    match back {
        Way::Ready(hop) | Way::Unresolved(_, hop) => hop.local,
        _ => packet.destination.address,
    }
}

fn is_reset(packet: &Packet, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => packet.tcp_flags & tcp_flag::RST != 0,
        Protocol::Sctp => packet.sctp_chunk == sctp_chunk::ABORT,
        Protocol::Udp => false,
    }
}
