//! The short way of the packet that nearly every packet is: of plain shape, of a connection
//! that is known, to a server or client that can be reached at once.
//!
//! Such a packet needs none of the questions that [`Director::handle`] asks, and its time is
//! spent waiting for memory: the connection's bucket, then its entry. So a burst is walked
//! in stages, each of which asks for the memory that the next will need:
//!
//! 1. [`Director::glance`] at every frame: read it, hash its client, ask for the bucket;
//! 2. [`Director::reach`] for every frame: look into the bucket, ask for the entry;
//! 3. [`Director::handle_glanced`], frame by frame: decide and rewrite.
//!
//! The first two change nothing. The third decides on the table as it is when the frame's
//! turn has come, so a burst is handled exactly as its frames would be one by one. Before it
//! changes anything it knows that the packet leaves by the short way; if not, the frame goes
//! the general way from the start, untouched. The result is the same either way, to the
//! byte and the counter: `director/tests/known.rs` holds one against the other.

mod shape;

use std::ops::Range;

use sched::server::ServerId;
use sched::service::{Family, Protocol};

use super::{Director, Moment};
use crate::connection::state::Direction;
use crate::connection::table::{Connection, Spot};
use crate::connection::word::Word;
use crate::forward::checksum;
use crate::forward::hop_limit;
use crate::forward::nat::{self, Side};
use crate::frame::plain::{self, IPV4_LENGTH, OverV4};
use crate::frame::{Frame, VLAN_TAG_LENGTH, protocol, tcp_flag};
use crate::hops::PortId;
use crate::snapshot::{Exit, LINK_BYTES, Snapshot, Track};
use crate::time::Ticks;
use crate::verdict::Verdict;
use shape::{Course, Plainly, Shape, TcpOverV4, UdpOverV4};

/// What was seen of a frame before its turn. Holds for that frame, as it was, for the same
/// snapshot and within the same burst.
#[derive(Clone, Copy, Debug, Default)]
pub struct Glance {
    /// Where the search for its connection begins.
    spot: Spot,
    /// Where its connection's entry may lie; 0 where none does.
    place: u32,
    /// The IP packet's length with its header, bytes.
    length: u16,
    /// What of the packet counts for the connection's state.
    event: u8,
    course: Course,
}

impl Director {
    /// The first stage: looks at a frame, and asks for the memory where the search for its
    /// connection begins.
    #[inline]
    pub fn glance(&self, snapshot: &Snapshot, frame: &Frame<'_>, glance: &mut Glance) {
        // Filled in place and by parts: a result that is put together would be moved twice.
        if let Some(head) = frame.window(plain::USUAL_HEAD)
            && let Some(seen) = plain::over_v4(head, frame.len(), self.expects_partial)
        {
            let ip = &head[plain::UNTAGGED..];
            match seen {
                OverV4::Tcp(length) => {
                    glance.length = length;
                    self.seek::<TcpOverV4>(snapshot, ip, glance);
                }
                OverV4::Udp(length) => {
                    glance.length = length;
                    self.seek::<UdpOverV4>(snapshot, ip, glance);
                }
            }
        } else {
            self.look_otherwise(snapshot, frame, glance);
        }
    }

    /// By frame, not by its bytes: these would be kept at hand also where no call is made.
    /// "Cold" so that what such a call needs is brought out of the way only for it.
    #[cold]
    #[inline(never)]
    fn look_otherwise(&self, snapshot: &Snapshot, frame: &Frame<'_>, glance: &mut Glance) {
        let bytes = frame.bytes();
        glance.course = Course::GENERAL;
        match plain::link(bytes) {
            Some((Family::V4, false)) => self.look::<false, false>(snapshot, bytes, glance),
            Some((Family::V6, false)) => self.look::<false, true>(snapshot, bytes, glance),
            Some((Family::V4, true)) => self.look::<true, false>(snapshot, bytes, glance),
            Some((Family::V6, true)) => self.look::<true, true>(snapshot, bytes, glance),
            None => {}
        }
    }

    #[inline(always)]
    fn look<const TAGGED: bool, const V6: bool>(
        &self,
        snapshot: &Snapshot,
        bytes: &[u8],
        glance: &mut Glance,
    ) {
        let begin = if TAGGED {
            plain::TAGGED
        } else {
            plain::UNTAGGED
        };
        let family = if V6 { Family::V6 } else { Family::V4 };
        if let Some(ip) = bytes.get(begin..)
            && let Some((length, number)) = plain::network(ip, family)
        {
            glance.length = length;
            match number {
                protocol::TCP => {
                    if let Some(flags) = plain::tcp(ip, family, length) {
                        glance.event = flags;
                        self.seek::<Plainly<TAGGED, V6, false>>(snapshot, ip, glance);
                        if flags & tcp_flag::DECISIVE != tcp_flag::ACK {
                            glance.course = glance.course.decisive();
                        }
                    }
                }
                protocol::UDP if plain::is_udp(ip, family, length) => {
                    self.seek::<Plainly<TAGGED, V6, true>>(snapshot, ip, glance);
                }
                _ => {}
            }
        }
    }

    /// Does not ask whether there is any service for the family: where there is none, no server
    /// is left to have a track.
    #[inline(always)]
    fn seek<S: Shape>(&self, snapshot: &Snapshot, ip: &[u8], glance: &mut Glance) {
        let number = S::PROTOCOL.number();
        let source = plain::source(ip, S::FAMILY);
        if snapshot.is_reply_source(S::FAMILY, source.address) {
            let client = plain::destination(ip, S::FAMILY);
            glance.course = S::REPLY;
            glance.spot = self.table.seek(S::FAMILY, number, client);
        } else {
            glance.course = S::REQUEST;
            glance.spot = self.table.seek(S::FAMILY, number, source);
        }
    }

    /// The second stage: asks for the connection's entry.
    #[inline]
    pub fn reach(&self, glance: &mut Glance) {
        // Also for one that saw nothing: to ask whether it did costs every frame more.
        glance.place = self.table.near(glance.spot);
    }

    /// The third stage: [`Director::handle`], with what was seen before.
    #[inline]
    pub fn handle_glanced(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Verdict {
        match self.shortly(snapshot, now, frame, glance) {
            Some(port) => Verdict::Transmit(port),
            None => self.handle(snapshot, now, frame),
        }
    }

    /// The port that a packet leaves by; where it does not go the short way none, and
    /// nothing was changed.
    #[inline(always)]
    pub(super) fn shortly(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Option<PortId> {
        let moment = Moment { snapshot, now };
        // The most usual are inlined, so that a burst of such frames makes no call. They
        // return on their own, not joined with what else there is: or that they did would be
        // asked once more.
        if glance.course.is_most_usual()
            && let Some(port) = self.request::<TcpOverV4>(moment, frame, glance, tcp_flag::ACK)
        {
            return Some(port);
        }
        if glance.course == UdpOverV4::REQUEST
            && let Some(port) = self.request::<UdpOverV4>(moment, frame, glance, 0)
        {
            return Some(port);
        }
        if glance.course == TcpOverV4::REPLY
            && let Some(port) = self.reply::<TcpOverV4>(moment, frame, glance, tcp_flag::ACK)
        {
            return Some(port);
        }
        if glance.course == UdpOverV4::REPLY
            && let Some(port) = self.reply::<UdpOverV4>(moment, frame, glance, 0)
        {
            return Some(port);
        }
        self.otherwise(moment, frame, glance)
    }

    #[inline(never)]
    fn otherwise(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Option<PortId> {
        let course = glance.course;
        match (course.is_tagged(), course.is_v6(), course.is_udp()) {
            _ if course == Course::GENERAL => None,
            (false, false, false) => self.of::<Plainly<false, false, false>>(moment, frame, glance),
            (false, false, true) => self.of::<Plainly<false, false, true>>(moment, frame, glance),
            (false, true, false) => self.of::<Plainly<false, true, false>>(moment, frame, glance),
            (false, true, true) => self.of::<Plainly<false, true, true>>(moment, frame, glance),
            (true, false, false) => self.of::<Plainly<true, false, false>>(moment, frame, glance),
            (true, false, true) => self.of::<Plainly<true, false, true>>(moment, frame, glance),
            (true, true, false) => self.of::<Plainly<true, true, false>>(moment, frame, glance),
            (true, true, true) => self.of::<Plainly<true, true, true>>(moment, frame, glance),
        }
    }

    #[inline(always)]
    fn of<S: Shape>(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Option<PortId> {
        let event = match glance.course.is_decisive() {
            true => glance.event,
            false => tcp_flag::ACK,
        };
        if glance.course.is_reply() {
            self.reply::<S>(moment, frame, glance, event)
        } else {
            self.request::<S>(moment, frame, glance, event)
        }
    }

    /// From a client: as `inbound`. `event` is the glance's, given apart where the caller knows
    /// it as a constant.
    #[inline(always)]
    fn request<S: Shape>(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
        event: u8,
    ) -> Option<PortId> {
        if S::PROTOCOL == Protocol::Tcp && event & tcp_flag::SYN != 0 {
            return None;
        }
        // Room for all headers that may be added.
        let all = frame.window_with_mut(HEADERS_BYTES, S::HEAD_BYTES)?;
        let (before, ip) = all.split_at_mut(HEADERS_BYTES + S::NETWORK);
        let (source, destination) = plain::ends(ip, S::FAMILY);
        let number = S::PROTOCOL.number();
        let length = usize::from(glance.length);
        let connection =
            self.table
                .find_at(glance.place, S::FAMILY, number, source, destination)?;
        let server = connection.server();
        let track = moment.snapshot.track(server)?;
        let word = Word(connection.word());
        let (whole, inside) = room::<S>(moment, track);
        let what = (connection, word, server, event);
        // The most usual first; not a match, which would become a jump through a table.
        if word.is_masqueraded_alone() {
            if length > whole || is_unsummed::<S>(ip) {
                return None;
            }
            self.note::<S>(moment, what, track, length);
            let what = (S::FAMILY, number, Side::Destination);
            let to = connection.unmixed_real(S::FAMILY);
            nat::translate_plain(ip, what, to, connection.correction());
        } else if !word.is_tunnelled() {
            if !word.is_answered_directly() || length > whole {
                return None;
            }
            self.note::<S>(moment, what, track, length);
            hop_limit::take_one(ip, S::FAMILY);
        } else {
            if S::FAMILY == Family::V6 || length > inside {
                return None;
            }
            self.note::<S>(moment, what, track, length);
            hop_limit::take_one(ip, S::FAMILY);
            let (before, ip) = all.split_at_mut(HEADERS_BYTES - IPV4_LENGTH + S::NETWORK);
            let usual = &moment.snapshot.usual_inside;
            track.outer.wrap(ip, usual, || self.next_identification());
            let is_linked = relink::<S>(before, &track.exit, S::ALL_OF_LINK);
            frame.begin_before(IPV4_LENGTH);
            let length = length + IPV4_LENGTH;
            return Some(leave::<S>(frame, length, &track.exit, is_linked));
        }
        let is_linked = relink::<S>(before, &track.exit, S::OTHER_IN_LINK);
        Some(leave::<S>(frame, length, &track.exit, is_linked))
    }

    /// State, timer and counters of a packet from a client.
    #[inline(always)]
    fn note<S: Shape>(
        &self,
        moment: Moment<'_>,
        (connection, word, server, event): (Connection<'_>, Word, ServerId, u8),
        track: &Track,
        length: usize,
    ) {
        let what = (connection, word);
        self.follow(moment, what, Direction::Input, event, S::PROTOCOL);
        let counters = &*self.counters;
        counters.server(server).inbound(length);
        counters.service(track.service).inbound(length);
    }

    /// From a masquerading server: as `outbound`.
    #[inline(always)]
    fn reply<S: Shape>(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
        event: u8,
    ) -> Option<PortId> {
        let all = frame.window_with_mut(HEADERS_BYTES, S::HEAD_BYTES)?;
        let (before, ip) = all.split_at_mut(HEADERS_BYTES + S::NETWORK);
        let (real, client) = plain::ends(ip, S::FAMILY);
        let number = S::PROTOCOL.number();
        let length = usize::from(glance.length);
        let connection = self
            .table
            .find_reply_at(glance.place, S::FAMILY, number, client, real)?;
        let track = moment.snapshot.track(connection.server())?;
        let word = Word(connection.word());
        let exit = *self.exits.find(moment.snapshot, S::FAMILY, client.address);
        let is_short = word.is_masqueraded_alone()
            && track.exit.mtu != 0
            && length <= usize::from(exit.mtu)
            && !is_unsummed::<S>(ip);
        if !is_short {
            return None;
        }
        self.follow(
            moment,
            (connection, word),
            Direction::Output,
            event,
            S::PROTOCOL,
        );
        let counters = &*self.counters;
        counters.server(connection.server()).outbound(length);
        counters.service(track.service).outbound(length);
        let what = (S::FAMILY, number, Side::Source);
        let to = connection.unmixed_virtual(S::FAMILY);
        nat::translate_plain(ip, what, to, connection.correction());
        let is_linked = relink::<S>(before, &exit, S::OTHER_IN_LINK);
        Some(leave::<S>(frame, length, &exit, is_linked))
    }
}

/// All headers that may be added: a VLAN tag, and a tunnel's. There is room for more before every
/// frame ([`HEADROOM_BYTES`](crate::port::HEADROOM_BYTES)).
const HEADERS_BYTES: usize = VLAN_TAG_LENGTH + IPV4_LENGTH;

/// The longest packets that fit the way to a server, whole and in an IP-in-IP tunnel.
#[inline(always)]
fn room<S: Shape>(moment: Moment<'_>, track: &Track) -> (usize, usize) {
    if S::FAMILY == Family::V4 && !moment.snapshot.hops.path_mtus().is_empty() {
        return narrowed(moment, track);
    }
    (track.exit.mtu.into(), track.tunnel_room.into())
}

/// What fits where routers may have told of narrower paths.
#[cold]
#[inline(never)]
fn narrowed(moment: Moment<'_>, track: &Track) -> (usize, usize) {
    let learned = moment
        .snapshot
        .hops
        .path_mtus()
        .meet(track.address, moment.now);
    let (whole, inside) = track.narrowed(learned.unwrap_or(u16::MAX));
    (whole.into(), inside.into())
}

/// Whether the packet has no checksum that could be kept right while it is translated.
#[inline(always)]
fn is_unsummed<S: Shape>(ip: &[u8]) -> bool {
    S::PROTOCOL == Protocol::Udp
        && checksum::transport_field(&ip[S::IP_BYTES..], protocol::UDP) == 0
}

/// Writes a `part` of the link header to the end of `before`, what lies before the packet; false
/// and nothing written where it is of another length.
#[inline(always)]
fn relink<S: Shape>(before: &mut [u8], exit: &Exit, part: Range<usize>) -> bool {
    let is_as_long = usize::from(exit.link_bytes) == S::NETWORK;
    if is_as_long {
        let end = before.len();
        let to = &mut before[end - LINK_BYTES..];
        to[part.clone()].copy_from_slice(&exit.link[part]);
    }
    is_as_long
}

/// Cuts off the link's padding, and writes the link header where it is not yet.
#[inline(always)]
fn leave<S: Shape>(frame: &mut Frame<'_>, length: usize, exit: &Exit, is_linked: bool) -> PortId {
    // It has these bytes: the glance saw to that.
    frame.end_after(S::NETWORK + length);
    if !is_linked {
        link::<S>(frame, exit);
    }
    exit.port
}

/// Puts the link header before a packet, by moving the frame's start where it must; that
/// there is room was asked before.
#[inline(never)]
fn link<S: Shape>(frame: &mut Frame<'_>, exit: &Exit) {
    let length = usize::from(exit.link_bytes);
    let _ = frame.grow_front(length.saturating_sub(S::NETWORK));
    frame.shrink_front(S::NETWORK.saturating_sub(length));
    frame.bytes_mut()[..length].copy_from_slice(exit.link());
}
