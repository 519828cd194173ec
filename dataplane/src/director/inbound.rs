//! Packets from clients: the connection they belong to or begin, and on to its server.

use std::net::IpAddr;

use sched::server::{Forwarding, ServerId, Tunnel};
use sched::service::{Family, Protocol};

use super::observer::{Observer, Step};
use super::schedule::Admission;
use super::{Director, Moment};
use crate::address::Endpoint;
use crate::connection::state::{self, Direction};
use crate::connection::table::{Connection, Draft, Handle, Key};
use crate::connection::word::{Method, Word};
use crate::forward::icmp::ErrorKind;
use crate::forward::tunnel::{self, Wrap};
use crate::forward::{hop_limit, nat};
use crate::frame::{Frame, Packet, ipsec, sctp_chunk, tcp_flag};
use crate::hops::{Hop, Way};
use crate::snapshot::ServerSlot;
use crate::verdict::{Reason, Verdict};

/// Where a packet goes and how it gets there.
#[derive(Clone, Copy)]
pub(super) struct Course {
    pub(super) server: ServerId,
    pub(super) method: Method,
    pub(super) real: Endpoint,
}

impl Course {
    pub(super) fn of(connection: Connection<'_>) -> Self {
        Self {
            server: connection.server(),
            method: Word(connection.word()).method(),
            real: connection.real(),
        }
    }

    fn drafted(draft: &Draft) -> Self {
        Self {
            server: draft.server,
            method: Word(draft.word).method(),
            real: draft.real,
        }
    }
}

/// Whether a found connection serves for a packet.
pub(super) enum Found {
    Use(Handle),
    Anew,
    Drop(Reason),
}

impl<O: Observer> Director<O> {
    /// The verdict on a packet that belongs to a connection or begins one; none for
    /// others.
    pub(super) fn inbound(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        protocol: Protocol,
    ) -> Option<Verdict> {
        let key = key(packet);
        let found = match self.find(key) {
            Some(handle) => self.judge(moment, handle, packet, protocol),
            None => Found::Anew,
        };
        let handle = match found {
            Found::Use(handle) => handle,
            Found::Drop(reason) => return Some(Verdict::Drop(reason)),
            Found::Anew => match self.admit(moment, packet, protocol, key, false) {
                Admission::Begun(handle) => handle,
                Admission::Once(draft) => {
                    return Some(self.forward(moment, frame, packet, Course::drafted(&draft)));
                }
                Admission::NotOurs => return None,
                Admission::NoServer => return Some(self.no_server(moment, frame, packet)),
                Admission::Refused(reason) => return Some(Verdict::Drop(reason)),
            },
        };
        let connection = self.table.view(handle);
        let course = Course::of(connection);
        // By turns. A new one is preferred already; TCP's peers know no turns.
        let word = Word(connection.word());
        if protocol == Protocol::Udp && word.is_shared() && !word.is_preferred() {
            self.table.prefer(connection);
        }
        self.follow(
            moment,
            (connection, Word(connection.word())),
            Direction::Input,
            packet.event(),
            protocol,
        );
        Some(self.forward(moment, frame, packet, course))
    }

    /// Whether a connection still stands (Linux's `ip_vs_in`: `conn_reuse_mode`, then
    /// whether its server is there).
    pub(super) fn judge(
        &mut self,
        moment: Moment<'_>,
        handle: Handle,
        packet: &Packet,
        protocol: Protocol,
    ) -> Found {
        let tunables = &moment.snapshot.tunables;
        let connection = self.table.view(handle);
        let slot = moment.snapshot.server(connection.server());
        let gone = !slot.is_some_and(|slot| slot.server.available);
        if begins(packet, protocol) {
            let drained = slot.is_some_and(|slot| slot.server.spec.weight == 0);
            let anew = tunables.expire_nodest_conn && drained
                || may_begin_anew(connection, protocol, tunables.conn_reuse_mode);
            if anew {
                self.observer.step(|| Step::Replaced {
                    gone: false,
                    drained,
                });
                self.end(moment, handle);
                return Found::Anew;
            }
        }
        if !gone {
            Found::Use(handle)
        } else if tunables.expire_nodest_conn {
            self.observer.step(|| Step::Replaced {
                gone,
                drained: false,
            });
            self.end(moment, handle);
            Found::Anew
        } else {
            Found::Drop(Reason::ServerGone)
        }
    }

    /// On to the server: counted, rewritten, addressed.
    pub(super) fn forward(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        course: Course,
    ) -> Verdict {
        let Some(slot) = moment.snapshot.server(course.server) else {
            return Verdict::Drop(Reason::ServerGone);
        };
        self.observer.step(|| Step::Forward {
            server: slot.clone(),
            method: course.method,
            real: course.real,
        });
        self.count_inbound(slot, packet.length);
        let way = measured(moment, slot);
        let hop = match way {
            Way::Ready(hop) | Way::Unresolved(_, hop) => hop,
            // Linux's `__ip_vs_get_out_rt` and `__ip_vs_get_out_rt_v6`, at their ends.
            Way::None => {
                let kind = ErrorKind::HostUnreachable;
                return self.refuse(moment, frame, packet, kind, Reason::NoRoute);
            }
            Way::Local | Way::NotAPort => return self.leave(frame, packet, way),
        };
        if course.method == Method::Local {
            return self.host(frame, packet);
        }
        if !hop_limit::decrement(frame, packet) {
            let kind = ErrorKind::TimeExceeded;
            return self.refuse(moment, frame, packet, kind, Reason::HopLimit);
        }
        let room = usize::from(hop.mtu).saturating_sub(overhead(slot, course.method));
        self.observer.step(|| Step::Room {
            room,
            length: packet.length,
        });
        if course.method == Method::Tunnel && room < least_inside(slot) {
            return Verdict::Drop(Reason::TunnelMtu);
        }
        if self.is_too_big(moment, packet, course.method, room) {
            let mtu = u16::try_from(room).unwrap_or(u16::MAX);
            let kind = ErrorKind::TooBig { mtu };
            return self.refuse(moment, frame, packet, kind, Reason::TooBig);
        }
        match course.method {
            Method::Masquerade => _ = nat::rewrite_destination(frame, packet, course.real),
            Method::Tunnel => {
                if let Err(reason) = self.wrap(moment, frame, packet, slot, &hop) {
                    return Verdict::Drop(reason);
                }
            }
            Method::Route | Method::Local => self.complete_checksum(frame, packet),
        }
        self.leave(frame, packet, way)
    }

    fn count_inbound(&self, slot: &ServerSlot, bytes: usize) {
        if slot.server.available {
            self.counters.server(slot.server.id).inbound(bytes);
            self.counters.service(slot.server.service).inbound(bytes);
        }
    }

    /// Linux's `ensure_mtu_is_adequate`: IPv4 without DF is fragmented instead, and so is
    /// what is tunnelled while `pmtu_disc` is off.
    fn is_too_big(&self, moment: Moment<'_>, packet: &Packet, method: Method, room: usize) -> bool {
        let is_split = method == Method::Tunnel
            && packet.family == Family::V4
            && !moment.snapshot.tunables.pmtu_disc;
        if is_split || packet.is_icmp() {
            return false;
        }
        self.is_stuck(packet, room)
    }

    fn wrap(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
        slot: &ServerSlot,
        hop: &Hop,
    ) -> Result<(), Reason> {
        let server = &slot.server;
        // The outer header takes it over from here.
        packet.dont_fragment &= moment.snapshot.tunables.pmtu_disc;
        let wrap = Wrap {
            kind: kind(slot),
            family: Family::of(server.key.address),
            local: hop.local,
            remote: crate::address::bits(server.key.address),
            // None needed where the outer header says "don't fragment".
            identification: match packet.family == Family::V4 && packet.dont_fragment {
                true => 0,
                false => self.next_identification(),
            },
        };
        *packet = tunnel::encapsulate(frame, packet, &wrap)?;
        Ok(())
    }
}

/// The way to a server, which may take less than its first link.
fn measured(moment: Moment<'_>, slot: &ServerSlot) -> Way {
    let IpAddr::V4(address) = slot.server.key.address else {
        return slot.way;
    };
    let path_mtus = moment.snapshot.hops.path_mtus();
    let Some(mtu) = path_mtus.meet(address.to_bits(), moment.now) else {
        return slot.way;
    };
    let narrowed = |hop: Hop| Hop {
        mtu: hop.mtu.min(mtu),
        ..hop
    };
    match slot.way {
        Way::Ready(hop) => Way::Ready(narrowed(hop)),
        Way::Unresolved(key, hop) => Way::Unresolved(key, narrowed(hop)),
        other => other,
    }
}

/// What an inbound packet's connection is found by.
pub(super) fn key(packet: &Packet) -> Key {
    let (protocol, client, virtual_) =
        ipsec::looked_for(packet.protocol, packet.source, packet.destination);
    Key {
        family: packet.family,
        template: false,
        protocol,
        client,
        virtual_,
    }
}

/// Whether a packet is one that begins a connection (Linux's `is_new_conn`).
fn begins(packet: &Packet, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => packet.tcp_flags & tcp_flag::SYN != 0,
        Protocol::Sctp => packet.sctp_chunk == sctp_chunk::INIT,
        Protocol::Udp => false,
    }
}

/// Linux's `is_new_conn_expected`: a connection under a template never begins anew.
fn may_begin_anew(connection: Connection<'_>, protocol: Protocol, mode: u32) -> bool {
    let word = Word(connection.word());
    let direction = match word.is_one_sided() {
        true => Direction::InputOnly,
        false => Direction::Input,
    };
    connection.template().is_none() && state::may_restart(protocol, direction, word.state(), mode)
}

fn kind(slot: &ServerSlot) -> Tunnel {
    match slot.server.spec.forwarding {
        Forwarding::Tunnel(kind) => kind,
        // The server's method was edited since; its connections keep theirs.
        Forwarding::Masquerade | Forwarding::Route => Tunnel::Ipip,
    }
}

/// What must fit inside a tunnel, bytes; Linux's IPVS drops everything where it does not
/// (`__ip_vs_get_out_rt` and `__ip_vs_get_out_rt_v6`).
fn least_inside(slot: &ServerSlot) -> usize {
    match Family::of(slot.server.key.address) {
        Family::V4 => tunnel::LEAST_INSIDE_V4,
        Family::V6 => 1280,
    }
}

fn overhead(slot: &ServerSlot, method: Method) -> usize {
    if method != Method::Tunnel {
        return 0;
    }
    tunnel::overhead(kind(slot), Family::of(slot.server.key.address))
}
