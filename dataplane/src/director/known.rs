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

use sched::service::{Family, Protocol};

use super::{Director, Moment};
use crate::address::Endpoint;
use crate::connection::state::Direction;
use crate::connection::table::Hash;
use crate::connection::word::{Method, Word};
use crate::forward::checksum::{self, Sum};
use crate::forward::nat::{self, Side};
use crate::forward::{hop_limit, tunnel};
use crate::frame::plain::{self, IPV4_LENGTH, IPV6_LENGTH, Plain};
use crate::frame::{ETHERNET_LENGTH, Frame, VLAN_TAG_LENGTH, field, protocol, tcp_flag};
use crate::hops::PortId;
use crate::snapshot::{Exit, Snapshot, Track};
use crate::time::Ticks;
use crate::verdict::Verdict;

/// What was seen of a frame before its turn. Holds for that frame, as it was, for the same
/// snapshot and within the same burst.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    hash: Hash,
    /// Where its connection's entry may lie; 0 where none does.
    place: u32,
    plain: Plain,
    course: Course,
}

/// Which short way a frame may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// None.
    General,
    /// From a client.
    Request,
    /// From a masquerading server.
    Reply,
}

impl Default for Glance {
    fn default() -> Self {
        Self {
            hash: Hash::default(),
            place: 0,
            plain: Plain {
                family: Family::V4,
                network: 0,
                protocol: 0,
                tcp_flags: 0,
                length: 0,
            },
            course: Course::General,
        }
    }
}

/// A plain shape: what is the same for all its packets, so that the code for each shape has
/// it as constants.
trait Shape {
    const FAMILY: Family;
    const PROTOCOL: Protocol;
    /// The transport header without options, bytes.
    const TRANSPORT_BYTES: usize;
    const IP_BYTES: usize = match Self::FAMILY {
        Family::V4 => IPV4_LENGTH,
        Family::V6 => IPV6_LENGTH,
    };
}

struct TcpV4;
struct UdpV4;
struct TcpV6;
struct UdpV6;

impl Shape for TcpV4 {
    const FAMILY: Family = Family::V4;
    const PROTOCOL: Protocol = Protocol::Tcp;
    const TRANSPORT_BYTES: usize = 20;
}

impl Shape for UdpV4 {
    const FAMILY: Family = Family::V4;
    const PROTOCOL: Protocol = Protocol::Udp;
    const TRANSPORT_BYTES: usize = 8;
}

impl Shape for TcpV6 {
    const FAMILY: Family = Family::V6;
    const PROTOCOL: Protocol = Protocol::Tcp;
    const TRANSPORT_BYTES: usize = 20;
}

impl Shape for UdpV6 {
    const FAMILY: Family = Family::V6;
    const PROTOCOL: Protocol = Protocol::Udp;
    const TRANSPORT_BYTES: usize = 8;
}

impl Director {
    /// The first stage: looks at a frame, and asks for the memory where the search for its
    /// connection begins.
    #[inline]
    pub fn glance(&self, snapshot: &Snapshot, frame: &Frame<'_>) -> Glance {
        let bytes = frame.bytes();
        let seen = match plain::link(bytes) {
            Some((Family::V4, ETHERNET_LENGTH)) => {
                self.glance_at(snapshot, bytes, Family::V4, ETHERNET_LENGTH)
            }
            Some((Family::V6, ETHERNET_LENGTH)) => {
                self.glance_at(snapshot, bytes, Family::V6, ETHERNET_LENGTH)
            }
            Some((family, network)) => self.glance_at(snapshot, bytes, family, network),
            None => None,
        };
        seen.unwrap_or_default()
    }

    #[inline(always)]
    fn glance_at(
        &self,
        snapshot: &Snapshot,
        bytes: &[u8],
        family: Family,
        network: usize,
    ) -> Option<Glance> {
        let ip = bytes.get(network..)?;
        let plain = Plain::of(ip, family, network)?;
        if !snapshot.serves(family) {
            return None;
        }
        let (source, destination) = plain::ends(ip, family);
        let (course, client) = match snapshot.is_reply_source(family, source.address) {
            true => (Course::Reply, destination),
            false => (Course::Request, source),
        };
        let hash = self.table.hash(family, plain.protocol, client);
        self.table.prefetch_bucket(hash);
        Some(Glance {
            hash,
            place: 0,
            plain,
            course,
        })
    }

    /// The second stage: asks for the connection's entry.
    #[inline]
    pub fn reach(&self, glance: &mut Glance) {
        if glance.course != Course::General {
            glance.place = self.table.prefetch_entry(glance.hash);
        }
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
        match (glance.plain.family, glance.plain.protocol) {
            (Family::V4, protocol::TCP) => self.known::<TcpV4>(moment, frame, glance),
            (Family::V4, _) => self.known::<UdpV4>(moment, frame, glance),
            (Family::V6, protocol::TCP) => self.known::<TcpV6>(moment, frame, glance),
            (Family::V6, _) => self.known::<UdpV6>(moment, frame, glance),
        }
    }

    #[inline(always)]
    fn known<S: Shape>(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Option<PortId> {
        match glance.course {
            Course::General => None,
            Course::Request => self.request::<S>(moment, frame, glance),
            Course::Reply => self.reply::<S>(moment, frame, glance),
        }
    }

    /// From a client: as `inbound`.
    #[inline(never)]
    fn request<S: Shape>(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Option<PortId> {
        let Plain { length, .. } = glance.plain;
        let headroom = frame.headroom();
        let ip = headers::<S>(frame, glance.plain)?;
        let (source, destination) = plain::ends(ip, S::FAMILY);
        let number = S::PROTOCOL.number();
        let connection =
            self.table
                .find_at(glance.place, S::FAMILY, number, source, destination)?;
        let track = moment.snapshot.track(connection.server());
        let method = Word(connection.word()).method();
        let begins = S::PROTOCOL == Protocol::Tcp && glance.plain.tcp_flags & tcp_flag::SYN != 0;
        let fits = usize::from(length) <= room(moment, track, method);
        let is_short = fits
            && !begins
            && track.is_v6 == (S::FAMILY == Family::V6)
            && has_headroom(headroom)
            && is_simple::<S>(ip, length, source, destination, method);
        if !is_short {
            return None;
        }
        let event = glance.plain.tcp_flags;
        self.follow(moment, connection, Direction::Input, event, S::PROTOCOL);
        self.counters
            .server(connection.server())
            .inbound(length.into());
        self.counters.service(track.service).inbound(length.into());
        if method == Method::Masquerade {
            let what = (S::FAMILY, number, Side::Destination);
            nat::translate_plain(ip, what, destination, connection.unmixed_real(S::FAMILY));
            return Some(leave(frame, glance.plain, &track.exit, 0));
        }
        hop_limit::take_one(ip, S::FAMILY);
        if method != Method::Tunnel {
            return Some(leave(frame, glance.plain, &track.exit, 0));
        }
        self.tunnel(moment, frame, glance.plain, track);
        Some(leave(frame, glance.plain, &track.exit, IPV4_LENGTH))
    }

    /// From a masquerading server: as `outbound`.
    #[inline(never)]
    fn reply<S: Shape>(
        &mut self,
        moment: Moment<'_>,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Option<PortId> {
        let Plain { length, .. } = glance.plain;
        let headroom = frame.headroom();
        let ip = headers::<S>(frame, glance.plain)?;
        let (real, client) = plain::ends(ip, S::FAMILY);
        let number = S::PROTOCOL.number();
        let connection = self
            .table
            .find_reply_at(glance.place, S::FAMILY, number, client, real)?;
        let track = moment.snapshot.track(connection.server());
        let method = Word(connection.word()).method();
        let exit = *self.exits.find(moment.snapshot, S::FAMILY, client.address);
        let is_short = method == Method::Masquerade
            && track.exit.mtu != 0
            && length <= exit.mtu
            && has_headroom(headroom)
            && is_simple::<S>(ip, length, real, client, method);
        if !is_short {
            return None;
        }
        let event = glance.plain.tcp_flags;
        self.follow(moment, connection, Direction::Output, event, S::PROTOCOL);
        self.counters
            .server(connection.server())
            .outbound(length.into());
        self.counters.service(track.service).outbound(length.into());
        let what = (S::FAMILY, number, Side::Source);
        nat::translate_plain(ip, what, real, connection.unmixed_virtual(S::FAMILY));
        Some(leave(frame, glance.plain, &exit, 0))
    }

    /// Wraps an IPv4 packet for an IP-in-IP tunnel.
    #[inline(always)]
    fn tunnel(&mut self, moment: Moment<'_>, frame: &mut Frame<'_>, plain: Plain, track: &Track) {
        let identification = self.next_identification();
        let keeps = moment.snapshot.tunables.pmtu_disc;
        // That there is room was asked before.
        let _ = frame.grow_front(IPV4_LENGTH);
        let ip = &mut frame.bytes_mut()[plain.network.into()..];
        let outer = &track.outer;
        outer.wrap(ip, plain.length, keeps, identification);
    }
}

/// The headers of a plain packet.
#[inline(always)]
fn headers<'f, S: Shape>(frame: &'f mut Frame<'_>, plain: Plain) -> Option<&'f mut [u8]> {
    let ip = frame.bytes_mut().get_mut(plain.network.into()..)?;
    ip.get_mut(..S::IP_BYTES + S::TRANSPORT_BYTES)
}

/// The largest packet that goes the short way, bytes; 0 for none.
#[inline(always)]
fn room(moment: Moment<'_>, track: &Track, method: Method) -> usize {
    let mut mtu = usize::from(track.exit.mtu);
    let path_mtus = moment.snapshot.hops.path_mtus();
    if !path_mtus.is_empty()
        && !track.is_v6
        && let Some(learned) = path_mtus.meet(track.address, moment.now)
    {
        mtu = mtu.min(learned.into());
    }
    if method == Method::Masquerade || method == Method::Route {
        return mtu;
    }
    let room = mtu.saturating_sub(IPV4_LENGTH);
    let is_simple = method == Method::Tunnel && track.is_ipip && !track.is_v6;
    // What is narrower than a packet inside may be is refused the general way.
    if is_simple && room >= tunnel::LEAST_INSIDE_V4 {
        room
    } else {
        0
    }
}

/// Whether all headers that may be added fit before the frame.
#[inline(always)]
fn has_headroom(headroom: usize) -> bool {
    headroom >= VLAN_TAG_LENGTH + IPV4_LENGTH
}

/// Whether the packet needs no more than a rewriting: it has a hop left, and its checksum is
/// complete (as far as one can tell without summing) and, where it is to be translated,
/// there at all.
#[inline(always)]
fn is_simple<S: Shape>(
    ip: &[u8],
    length: u16,
    source: Endpoint,
    destination: Endpoint,
    method: Method,
) -> bool {
    let number = S::PROTOCOL.number();
    let sum = checksum::transport_field(&ip[S::IP_BYTES..], number);
    let partial = Sum::default().pseudo_header(
        S::FAMILY,
        source.address,
        destination.address,
        number,
        usize::from(length) - S::IP_BYTES,
    );
    let is_absent = S::PROTOCOL == Protocol::Udp && sum == 0 && method == Method::Masquerade;
    hop_limit::of(ip, S::FAMILY) > 1 && sum != partial.fold() && !is_absent
}

/// Cuts off the link's padding and writes the link header, before a packet that had bytes
/// added to it.
#[inline(always)]
fn leave(frame: &mut Frame<'_>, plain: Plain, exit: &Exit, added: usize) -> PortId {
    frame.truncate(usize::from(plain.network) + added + usize::from(plain.length));
    if plain.network != exit.link_bytes {
        resize(frame, plain.network.into(), exit.link_bytes.into());
    }
    let bytes = frame.bytes_mut();
    if usize::from(exit.link_bytes) == ETHERNET_LENGTH {
        field::put::<ETHERNET_LENGTH>(bytes, 0, field::array(&exit.link, 0));
    } else {
        field::put(bytes, 0, exit.link);
    }
    exit.port
}

/// Moves the frame's start; that there is room was asked before.
#[cold]
fn resize(frame: &mut Frame<'_>, from: usize, to: usize) {
    let _ = frame.grow_front(to.saturating_sub(from));
    frame.shrink_front(from.saturating_sub(to));
}
