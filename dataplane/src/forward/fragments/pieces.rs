//! Splitting a finished frame for the way out.
//!
//! As Linux does: a datagram that came in fragments leaves in the same ones where these fit,
//! else in as few as fit both the way out and the longest fragment that came.

use sched::service::Family;

use super::Geometry;
use super::blocks::BLOCK;
use crate::forward::checksum;
use crate::frame::{
    FRAGMENT_HEADER_LENGTH, Frame, IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS, Packet, field,
    protocol,
};

/// Link header, IP header and payload of the longest packet.
const LONGEST: usize = 18 + 40 + u16::MAX as usize;

/// A datagram on its way out in pieces. Its memory is taken once.
#[derive(Debug)]
pub struct Pieces {
    memory: Box<[u8]>,
    /// How the datagram in hand is split; none where nothing is left.
    plan: Option<Plan>,
    geometry: Option<Geometry>,
}

impl Default for Pieces {
    fn default() -> Self {
        Self::new()
    }
}

impl Pieces {
    /// Nothing to split yet.
    pub fn new() -> Self {
        Self {
            memory: vec![0; LONGEST].into(),
            plan: None,
            geometry: None,
        }
    }

    /// Takes a copy of a frame whose link header is final, to be pulled with [`Self::next`].
    /// `packet` is what the frame now holds; `geometry` how it came, if in fragments.
    /// IPv4 pieces keep the packet's own identification; IPv6's bear `identification`.
    ///
    /// An IPv6 packet that fits and did not come in fragments is one piece without fragment
    /// header. Nothing is to be pulled where `mtu` has no room for 8 bytes of payload, and
    /// for an IPv6 packet that still is a fragment.
    pub fn load(
        &mut self,
        frame: &Frame<'_>,
        packet: &Packet,
        mtu: u16,
        geometry: Option<&Geometry>,
        identification: u32,
    ) {
        let bytes = &frame.bytes()[..packet.end().min(frame.len())];
        self.plan = None;
        let Some(memory) = self.memory.get_mut(..bytes.len()) else {
            return;
        };
        memory.copy_from_slice(bytes);
        self.plan = Plan::new(memory, packet, mtu, geometry, identification);
        let keeps = self
            .plan
            .as_ref()
            .is_some_and(|plan| plan.follows.is_some());
        self.geometry = geometry.filter(|_| keeps).cloned();
    }

    /// Writes the next piece into the empty frame `piece`, which must have room behind it
    /// for a packet of the way out's MTU and its link header. False where there are no more;
    /// a frame without room ends the datagram.
    #[must_use]
    pub fn next(&mut self, piece: &mut Frame<'_>) -> bool {
        let Some(plan) = &mut self.plan else {
            return false;
        };
        let length = plan.next_length(self.geometry.as_ref());
        let written = plan.write(&self.memory, length, piece);
        plan.done += length;
        if !written || plan.done == plan.payload() {
            self.plan = None;
        }
        written
    }
}

/// Where to cut.
#[derive(Debug)]
struct Plan {
    family: Family,
    /// Where the IP header begins.
    network: usize,
    /// Where what is split begins: behind the IP header and, in IPv6, the extension headers
    /// that every piece bears.
    split: usize,
    /// Where the packet ends.
    end: usize,
    /// IPv6: the byte that names what follows the headers in every piece.
    named_at: usize,
    /// IPv6: the pieces' identification; none where the packet is one piece.
    identification: Option<u32>,
    /// The most payload in a piece.
    room: usize,
    /// The bytes put before the first fragment since it came (a tunnel's inner headers),
    /// where the pieces follow the fragments that came.
    follows: Option<usize>,
    /// Payload already sent, bytes.
    done: usize,
}

impl Plan {
    fn new(
        bytes: &[u8],
        packet: &Packet,
        mtu: u16,
        geometry: Option<&Geometry>,
        identification: u32,
    ) -> Option<Self> {
        let network = packet.network;
        let (split, named_at) = match packet.family {
            Family::V4 => (network + usize::from(bytes[network] & 0x0f) * 4, 0),
            Family::V6 if packet.fragment.is_some() => return None,
            Family::V6 => unfragmentable(bytes, network)?,
        };
        let fits = packet.length <= usize::from(mtu) && geometry.is_none();
        let (extra, identification) = match packet.family {
            Family::V6 if !fits => (FRAGMENT_HEADER_LENGTH, Some(identification)),
            _ => (0, None),
        };
        let limit = limit(packet.family, mtu, geometry);
        let mut plan = Self {
            family: packet.family,
            network,
            split,
            end: bytes.len(),
            named_at,
            identification,
            room: limit.checked_sub(split - network + extra)?,
            follows: None,
            done: 0,
        };
        plan.follows = geometry.and_then(|g| plan.following(g));
        (plan.room >= BLOCK || plan.payload() <= plan.room).then_some(plan)
    }

    fn payload(&self) -> usize {
        self.end - self.split
    }

    /// Whether the fragments that came fit; if so, how much longer the first has become.
    fn following(&self, geometry: &Geometry) -> Option<usize> {
        let grown = self.payload().checked_sub(geometry.total)?;
        let mut at = 0;
        while at < self.payload() {
            let length = geometry.piece(at, grown, self.payload());
            let last = at + length == self.payload();
            if length > self.room || !(last || length.is_multiple_of(BLOCK)) {
                return None;
            }
            at += length;
        }
        Some(grown)
    }

    fn next_length(&self, geometry: Option<&Geometry>) -> usize {
        let left = self.payload() - self.done;
        match (self.follows, geometry) {
            (Some(grown), Some(geometry)) => geometry.piece(self.done, grown, self.payload()),
            _ if left <= self.room => left,
            _ => self.room - self.room % BLOCK,
        }
    }

    fn write(&self, datagram: &[u8], length: usize, piece: &mut Frame<'_>) -> bool {
        let extra = self.identification.map_or(0, |_| FRAGMENT_HEADER_LENGTH);
        let at = self.split + self.done;
        piece.truncate(0);
        if !piece.grow_back(self.split + extra + length) {
            return false;
        }
        let bytes = piece.bytes_mut();
        bytes[..self.split].copy_from_slice(&datagram[..self.split]);
        bytes[self.split + extra..].copy_from_slice(&datagram[at..at + length]);
        let more = self.done + length < self.payload();
        match self.family {
            Family::V4 => self.write_v4(bytes, more),
            Family::V6 => self.write_v6(bytes, more),
        }
        true
    }

    /// The packet may itself be a fragment: its own offset and "more" count on.
    fn write_v4(&self, bytes: &mut [u8], more: bool) {
        let length = bytes.len() - self.network;
        let ip = &mut bytes[self.network..];
        let place = field::u16_at(ip, 6);
        let offset = (place & IPV4_FRAGMENT_OFFSET) + (self.done / BLOCK) as u16;
        let flags = place & !IPV4_FRAGMENT_OFFSET | if more { IPV4_MORE_FRAGMENTS } else { 0 };
        field::put_u16(ip, 2, length as u16);
        field::put_u16(ip, 6, flags | offset);
        if self.done > 0 {
            blank_uncopied_options(&mut ip[20..self.split - self.network]);
        }
        checksum::write_header(ip);
    }

    fn write_v6(&self, bytes: &mut [u8], more: bool) {
        let length = bytes.len() - self.network - 40;
        field::put_u16(bytes, self.network + 4, length as u16);
        let Some(identification) = self.identification else {
            return;
        };
        let next = std::mem::replace(&mut bytes[self.named_at], protocol::FRAGMENT);
        let header = &mut bytes[self.split..];
        field::put(header, 0, [next, 0]);
        field::put_u16(header, 2, self.done as u16 | u16::from(more));
        field::put(header, 4, identification.to_be_bytes());
    }
}

impl Geometry {
    /// The length of the piece at `at` of a payload of `payload` bytes, the first of whose
    /// fragments has grown by `grown`.
    fn piece(&self, at: usize, grown: usize, payload: usize) -> usize {
        let block = at.saturating_sub(grown) / BLOCK;
        let next = self
            .starts
            .after(block)
            .map_or(payload, |b| b * BLOCK + grown);
        next.min(payload) - at
    }
}

/// The longest packet a piece may be. Pieces are no longer than what came, so that a path's
/// MTU that the sender respected is respected behind the director too.
fn limit(family: Family, mtu: u16, geometry: Option<&Geometry>) -> usize {
    let came = geometry.map_or(usize::MAX, |g| g.largest);
    let least = match family {
        Family::V4 => 0,
        Family::V6 => 1280,
    };
    usize::from(mtu).min(came.max(least))
}

/// Where the part of an IPv6 packet ends that every fragment bears (RFC 8200, 4.5), and
/// where the last header in it names the next.
fn unfragmentable(bytes: &[u8], network: usize) -> Option<(usize, usize)> {
    let mut named_at = network + 6;
    let mut at = network + 40;
    let mut routed = false;
    for _ in 0..crate::frame::MAX_EXTENSION_HEADERS {
        match *bytes.get(named_at)? {
            protocol::HOP_BY_HOP => {}
            protocol::ROUTING => routed = true,
            protocol::DESTINATION_OPTIONS if !routed => {}
            _ => break,
        }
        named_at = at;
        at += (usize::from(*bytes.get(at + 1)?) + 1) * 8;
    }
    (at <= bytes.len()).then_some((at, named_at))
}

/// Options without the "copied" flag are only in the first fragment (RFC 791); in others
/// Linux puts "no operation" in their place, so that the header keeps its length.
fn blank_uncopied_options(options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while at < options.len() && options[at] != END {
        if options[at] == NO_OPERATION {
            at += 1;
            continue;
        }
        let length = usize::from(options.get(at + 1).copied().unwrap_or(0));
        let Some(option) = options.get_mut(at..at + length).filter(|o| o.len() >= 2) else {
            return;
        };
        if option[0] & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        at += length;
    }
}
