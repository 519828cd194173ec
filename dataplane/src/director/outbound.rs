//! Packets from masquerading servers: back to the client under the virtual address.

use sched::service::Protocol;

use super::observer::{Observer, Step};
use super::{Director, Moment};
use crate::connection::state::Direction;
use crate::connection::table::Connection;
use crate::connection::word::{Method, Word};
use crate::forward::icmp::ErrorKind;
use crate::forward::{hop_limit, nat};
use crate::frame::{Frame, Packet};
use crate::hops::Way;
use crate::verdict::{Reason, Verdict};

/// TCP's RST flag (RFC 9293, section 3.1).
const RST: u8 = 0x04;

/// SCTP's ABORT chunk (RFC 9260, section 3.2).
const SCTP_ABORT: u8 = 6;

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
        let handle = self
            .table
            .find_reply(packet.family, packet.protocol, client, real);
        self.observer.step(|| Step::LookupReply {
            family: packet.family,
            protocol: packet.protocol,
            client,
            real,
            entry: handle.and_then(|handle| self.table.read(handle.index)),
        });
        let handle = handle?;
        let connection = self.table.view(handle);
        if Word(connection.word()).method() != Method::Masquerade {
            return None;
        }
        let way = moment.snapshot.hops.lookup(packet.family, client.address);
        if self.is_refused_by_host(packet, way) {
            return Some(self.host(frame, packet));
        }
        self.count_outbound(moment, connection, packet.length);
        let _ = nat::rewrite_source(frame, packet, connection.virtual_());
        self.follow(moment, handle, Direction::Output, packet, protocol);
        // Cannot fail: the host refuses what has no hops left.
        let _ = hop_limit::decrement(frame, packet);
        Some(self.leave(frame, packet, way))
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
        let kind = ErrorKind::PortUnreachable;
        self.refuse(moment, frame, packet, kind, Reason::NoConnection)
    }
}

fn is_reset(packet: &Packet, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => packet.tcp_flags & RST != 0,
        Protocol::Sctp => packet.sctp_chunk == SCTP_ABORT,
        Protocol::Udp => false,
    }
}
