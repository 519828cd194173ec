//! ICMP errors: those about connections are passed on in both directions with what they
//! quote translated; those that the director owes a sender are written.

use sched::service::{Family, Protocol};

use super::inbound::{Course, key};
use super::observer::{Observer, Step};
use super::outbound::own_address;
use super::schedule::Admission;
use super::{Director, InHand, Moment};
use crate::address::{Bits, Endpoint};
use crate::connection::table::{Handle, Key};
use crate::connection::word::{Method, Word};
use crate::counters::Event;
use crate::forward::hop_limit;
use crate::forward::icmp::{self, ErrorKind, Quoted, TunnelQuote};
use crate::forward::nat;
use crate::frame::{Frame, Packet, ipsec};
use crate::hops::Way;
use crate::verdict::{Reason, Verdict};

impl<O: Observer> Director<O> {
    /// An ICMP packet: errors about connections go where those go, all else to the host.
    pub(super) fn icmp(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Verdict {
        let quoted = icmp::quoted(frame, packet);
        self.observer.step(|| Step::Icmp(quoted));
        let Some(quoted) = quoted else {
            return self.host(frame, packet);
        };
        if let Some(handle) = self.about_sent_to_server(&quoted) {
            return self.error_to_client(moment, frame, packet, &quoted, handle);
        }
        if let Some(handle) = self.about_sent_to_client(&quoted) {
            return self.error_to_server(moment, frame, packet, &quoted, handle);
        }
        if let Some(inner) = self.about_tunnel(moment, frame, &quoted) {
            return self.error_of_tunnel(moment, frame, packet, &inner);
        }
        self.error_of_no_connection(moment, frame, packet, &quoted)
    }

    fn about_sent_to_server(&self, quoted: &Quoted) -> Option<Handle> {
        let (number, client, real) =
            ipsec::looked_for(quoted.protocol, quoted.source, quoted.destination);
        self.find_reply(quoted.family, number, client, real)
    }

    fn about_sent_to_client(&self, quoted: &Quoted) -> Option<Handle> {
        self.find(reversed(quoted))
    }

    /// The packet inside a tunnel packet of our own, of a connection that is known.
    fn about_tunnel(
        &self,
        moment: Moment<'_>,
        frame: &Frame<'_>,
        quoted: &Quoted,
    ) -> Option<Quoted> {
        let snapshot = moment.snapshot;
        if !snapshot.is_tunnel_end(quoted.family, quoted.destination.address) {
            return None;
        }
        let inner = quoted.inside(frame, |port| snapshot.is_gue_port(port))?;
        self.find(forward_key(&inner)).map(|_| inner)
    }

    /// The connection with this key.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<Handle> {
        let entry = self.table.find(&key);
        self.observer.step(|| Step::Lookup {
            key,
            entry: entry.and_then(|handle| self.table.read(handle.index)),
        });
        entry
    }

    /// The connection whose reply this is.
    #[inline]
    pub(super) fn find_reply(
        &self,
        family: Family,
        protocol: u8,
        client: Endpoint,
        real: Endpoint,
    ) -> Option<Handle> {
        let entry = self.table.find_reply(family, protocol, client, real);
        self.observer.step(|| Step::LookupReply {
            family,
            protocol,
            client,
            real,
            entry: entry.and_then(|handle| self.table.read(handle.index)),
        });
        entry
    }

    /// Linux's `ip_vs_in_icmp` on tunnels: the client is told what became of its packet.
    fn error_of_tunnel(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        inner: &Quoted,
    ) -> Verdict {
        let identification = self.next_identification();
        let source = inner.destination.address;
        let mut inner = *inner;
        if let (Some(told), Some(tunnel)) = (inner.path_mtu, inner.tunnel) {
            inner.path_mtu = Some(learn_path_mtu(moment, &tunnel, told));
        }
        match icmp::relay_tunnel_error(frame, packet, &inner, source, identification) {
            Ok(error) => {
                self.count_own(moment, &forward_key(&inner), error.length);
                self.answer(moment, frame, error)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Linux's `ip_vs_out_icmp`: what a server (or a router on the way to it) says of the
    /// client's packet.
    fn error_to_client(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        quoted: &Quoted,
        handle: Handle,
    ) -> Verdict {
        let connection = self.table.view(handle);
        let client = packet.destination.address;
        let way = moment.snapshot.hops.lookup(packet.family, client);
        if self.is_refused_by_host(packet, way) {
            return self.host(frame, packet);
        }
        self.count_outbound(moment, connection, packet.length);
        icmp::translate_to_client(frame, packet, quoted, connection.virtual_());
        // Cannot fail: the host refuses what has no hops left.
        let _ = hop_limit::decrement(frame, packet);
        self.leave(frame, packet, way)
    }

    /// Linux's `ip_vs_in_icmp`: what the client's side says of a server's packet.
    fn error_to_server(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        quoted: &Quoted,
        handle: Handle,
    ) -> Verdict {
        let course = Course::of(self.table.view(handle));
        if course.method == Method::Masquerade {
            icmp::translate_to_server(frame, packet, quoted, course.real);
        }
        self.forward(moment, frame, packet, course)
    }

    /// With `schedule_icmp` an error may begin the connection that it speaks of.
    fn error_of_no_connection(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        quoted: &Quoted,
    ) -> Verdict {
        let Some(protocol) = Protocol::from_number(quoted.protocol) else {
            return self.host(frame, packet);
        };
        if !moment.snapshot.tunables.schedule_icmp {
            return self.host(frame, packet);
        }
        match self.admit(moment, packet, protocol, reversed(quoted), true) {
            Admission::Begun(handle) => self.error_to_server(moment, frame, packet, quoted, handle),
            Admission::NotOurs | Admission::Once(_) => self.host(frame, packet),
            Admission::NoServer => Verdict::Drop(Reason::NoServer),
            Admission::Refused(reason) => Verdict::Drop(reason),
        }
    }

    /// Linux's `ip_vs_leave`: the client is told that nobody serves it.
    pub(super) fn no_server(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Verdict {
        let kind = ErrorKind::PortUnreachable;
        self.refuse(moment, frame, packet, kind, Reason::NoServer)
    }

    /// A packet that was to leave, but whose next hop does not answer. Linux tells its sender
    /// when it stops asking (`ipv4_link_failure`, `ip6_link_failure`), and IPVS translates
    /// that as any error about a connection: so the client reads of its own packet.
    pub(super) fn unreachable(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Verdict {
        let reason = Reason::NeighbourUnreachable;
        let kind = ErrorKind::HostUnreachable;
        let family = packet.family;
        let (number, client, real) =
            ipsec::looked_for(packet.protocol, packet.source, packet.destination);
        let masqueraded = self.table.find_reply(family, number, client, real);
        if let Some(handle) = masqueraded {
            let virtual_ = self.table.view(handle).virtual_();
            nat::rewrite_destination(frame, packet, virtual_);
            return self.refuse(moment, frame, packet, kind, reason);
        }
        // A tunnel's own packet is of no connection: IPVS tells nobody either.
        if self.table.find(&key(packet)).is_none() {
            return Verdict::Drop(reason);
        }
        let source = match family {
            // The packet leaves, so its address is not the host's: it speaks for itself.
            Family::V4 => {
                let back = moment.snapshot.hops.lookup(family, packet.source.address);
                own_address(back, packet)
            }
            Family::V6 => packet.destination.address,
        };
        self.refuse_as(moment, frame, packet, kind, reason, source)
    }

    /// Drops the packet for `reason` and tells its sender, if that is allowed.
    pub(super) fn refuse(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        kind: ErrorKind,
        reason: Reason,
    ) -> Verdict {
        let source = packet.destination.address;
        self.refuse_as(moment, frame, packet, kind, reason, source)
    }

    /// As [`Self::refuse`], in the name of `source`.
    pub(super) fn refuse_as(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        kind: ErrorKind,
        reason: Reason,
        source: Bits,
    ) -> Verdict {
        self.observer.step(|| Step::Refuse { kind, reason });
        if !self.errors.take(moment.now) {
            return Verdict::Drop(reason);
        }
        let identification = self.next_identification();
        let about = key(packet);
        match icmp::write_error(frame, packet, kind, source, identification) {
            Ok(error) => {
                self.counters.dropped(reason);
                self.count_own(moment, &about, error.length);
                self.answer(moment, frame, error)
            }
            Err(_) => Verdict::Drop(reason),
        }
    }

    /// IPVS also sees the errors that its host writes, and takes them for replies of the
    /// connection they are about, unless that is masqueraded (`ip_vs_out_icmp`).
    fn count_own(&self, moment: Moment<'_>, about: &Key, bytes: usize) {
        let Some(handle) = self.table.find(about) else {
            return;
        };
        let connection = self.table.view(handle);
        if Word(connection.word()).method() != Method::Masquerade {
            self.count_outbound(moment, connection, bytes);
        }
    }

    fn answer(&mut self, moment: Moment<'_>, frame: &mut Frame<'_>, mut error: Packet) -> Verdict {
        self.counters.event(Event::IcmpWritten, 1);
        // An error is short: whatever it answers, it leaves in one piece.
        self.in_hand = match self.in_hand {
            InHand::Aside => InHand::Aside,
            _ => InHand::Frame,
        };
        self.geometry = None;
        let client = error.destination.address;
        let way = moment.snapshot.hops.lookup(error.family, client);
        self.leave(frame, &mut error, way)
    }
}

/// Remembers what fits on the path of a tunnel, and returns what its client is told: as
/// IPVS, what its last packet was measured by. Its next one meets what was learned.
fn learn_path_mtu(moment: Moment<'_>, tunnel: &TunnelQuote, told: u16) -> u16 {
    let hops = &moment.snapshot.hops;
    let remote = tunnel.remote.address;
    let (Family::V4, Way::Ready(hop) | Way::Unresolved(_, hop)) =
        (tunnel.family, hops.lookup(tunnel.family, remote))
    else {
        return told;
    };
    let (path_mtus, destination) = (hops.path_mtus(), remote as u32);
    let met = path_mtus.met(destination, moment.now);
    path_mtus.learn(destination, told, hop.mtu, moment.now);
    met.unwrap_or(hop.mtu)
}

/// The key of the connection whose packet from the client is quoted.
fn forward_key(quoted: &Quoted) -> Key {
    let (protocol, client, virtual_) =
        ipsec::looked_for(quoted.protocol, quoted.source, quoted.destination);
    Key {
        family: quoted.family,
        template: false,
        protocol,
        client,
        virtual_,
    }
}

/// The key of the connection whose packet to the client is quoted.
fn reversed(quoted: &Quoted) -> Key {
    let key = forward_key(quoted);
    Key {
        client: key.virtual_,
        virtual_: key.client,
        ..key
    }
}
