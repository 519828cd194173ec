//! One datagram in the making: its bytes where they will lie when it is whole, and which of
//! them are there.

use sched::service::Family;

use super::Geometry;
use super::blocks::{BLOCK, Blocks};
use crate::address::Bits;
use crate::forward::checksum;
use crate::frame::{
    FRAGMENT_HEADER_LENGTH, FragmentInfo, Frame, IPV4_DONT_FRAGMENT, Packet, field,
};
use crate::time::Ticks;
use crate::verdict::Reason;

/// Free bytes before a datagram's frame: for tunnels, tags and ICMP errors.
const HEADROOM: usize = 256;
/// Room for the link header, the IP header and IPv6's extension headers before the
/// fragment header.
const HEADER_ROOM: usize = 384;
const PAYLOAD: usize = HEADROOM + HEADER_ROOM;
const LONGEST: usize = u16::MAX as usize;

/// What the fragments of a datagram share (RFC 791, RFC 8200): IPv6's has no protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) source: Bits,
    destination: Bits,
    identification: u32,
    family: Family,
    protocol: u8,
    vlan: Option<u16>,
}

impl Key {
    pub(super) fn of(packet: &Packet, info: &FragmentInfo) -> Self {
        let protocol = match packet.family {
            Family::V4 => packet.protocol,
            Family::V6 => 0,
        };
        Self {
            source: packet.source.address,
            destination: packet.destination.address,
            identification: info.identification,
            family: packet.family,
            protocol,
            vlan: packet.vlan,
        }
    }

    /// Never 0. Collisions cost a comparison, no more.
    pub(super) fn tag(&self) -> u32 {
        let fold = |a: Bits| (a ^ (a >> 32) ^ (a >> 64) ^ (a >> 96)) as u32;
        let addresses = fold(self.source) ^ fold(self.destination).rotate_left(16);
        addresses ^ self.identification.rotate_left(8) | 1
    }
}

/// A datagram in the making.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) begun: Ticks,
    /// The datagram's bytes: payload from `PAYLOAD` on, headers right before it.
    memory: Box<[u8]>,
    /// The headers' length, link header included; 0 until the first fragment is there.
    header: usize,
    /// Where in them the IP header begins.
    network: usize,
    received: Blocks,
    received_count: usize,
    /// The farthest end of any fragment.
    end: usize,
    /// Whether the last fragment is there, so that `end` is the datagram's.
    has_last: bool,
    /// The longest fragment that must not be fragmented further.
    largest_unfragmentable: usize,
    /// Bit n: a fragment bore ECN codepoint n.
    ecn: u8,
    geometry: Geometry,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            key: Key {
                source: 0,
                destination: 0,
                identification: 0,
                family: Family::V4,
                protocol: 0,
                vlan: None,
            },
            begun: 0,
            memory: vec![0; PAYLOAD + LONGEST].into(),
            header: 0,
            network: 0,
            received: Blocks::EMPTY,
            received_count: 0,
            end: 0,
            has_last: false,
            largest_unfragmentable: 0,
            ecn: 0,
            geometry: Geometry {
                largest: 0,
                identification: 0,
                total: 0,
                starts: Blocks::EMPTY,
            },
        }
    }

    pub(super) fn begin(&mut self, now: Ticks, key: Key) {
        self.key = key;
        self.begun = now;
        self.header = 0;
        self.received = Blocks::EMPTY;
        self.received_count = 0;
        self.end = 0;
        self.has_last = false;
        self.largest_unfragmentable = 0;
        self.ecn = 0;
        self.geometry.largest = 0;
        self.geometry.identification = key.identification;
        self.geometry.starts = Blocks::EMPTY;
    }

    /// The datagram put together, once [`Self::add`] said that it is whole.
    pub(super) fn whole(&mut self) -> Option<(Frame<'_>, &Geometry)> {
        let start = PAYLOAD - self.header;
        let end = PAYLOAD + self.geometry.total;
        let frame = Frame::new(&mut self.memory, start, end)?;
        Some((frame, &self.geometry))
    }

    /// Adds a fragment; tells whether the datagram is whole now.
    pub(super) fn add(
        &mut self,
        bytes: &[u8],
        packet: &Packet,
        info: &FragmentInfo,
    ) -> Result<bool, Reason> {
        let at = match packet.family {
            Family::V4 => packet.transport,
            Family::V6 => usize::from(info.header) + FRAGMENT_HEADER_LENGTH,
        };
        let payload = &bytes[at..packet.end()];
        let start = usize::from(info.offset_bytes);
        let end = start + payload.len();
        if end > LONGEST {
            return Err(Reason::FragmentInvalid);
        }
        self.check_end(end, info.more)?;
        let blocks = start / BLOCK..end.div_ceil(BLOCK);
        match self.received.count(blocks.clone()) {
            0 => {}
            n if n == blocks.len() => return Ok(false),
            _ => return Err(Reason::FragmentInvalid),
        }
        if start == 0 {
            self.take_header(bytes, packet, info, at)?;
        }
        self.memory[PAYLOAD + start..PAYLOAD + end].copy_from_slice(payload);
        self.received_count += blocks.len();
        self.geometry.starts.insert(blocks.start);
        self.received.insert_all(blocks);
        self.note(packet);
        if !self.has_last || self.received_count < self.end.div_ceil(BLOCK) {
            return Ok(false);
        }
        self.finish().map(|()| true)
    }

    /// No fragment reaches behind the last, and there is one last.
    fn check_end(&mut self, end: usize, more: bool) -> Result<(), Reason> {
        let contradicts = match (more, self.has_last) {
            (true, true) => end > self.end,
            (true, false) => false,
            (false, true) => end != self.end,
            (false, false) => end < self.end,
        };
        if contradicts {
            return Err(Reason::FragmentInvalid);
        }
        self.end = self.end.max(end);
        self.has_last |= !more;
        Ok(())
    }

    /// Keeps the first fragment's headers, without IPv6's fragment header.
    fn take_header(
        &mut self,
        bytes: &[u8],
        packet: &Packet,
        info: &FragmentInfo,
        payload: usize,
    ) -> Result<(), Reason> {
        let length = match packet.family {
            Family::V4 => payload,
            Family::V6 => info.header.into(),
        };
        if length > HEADER_ROOM {
            return Err(Reason::ExtensionLimit);
        }
        let header = &mut self.memory[PAYLOAD - length..PAYLOAD];
        header.copy_from_slice(&bytes[..length]);
        if packet.family == Family::V6 {
            header[usize::from(info.named_at)] = bytes[usize::from(info.header)];
        }
        self.header = length;
        self.network = packet.network;
        Ok(())
    }

    fn note(&mut self, packet: &Packet) {
        self.geometry.largest = self.geometry.largest.max(packet.length);
        if packet.dont_fragment {
            self.largest_unfragmentable = self.largest_unfragmentable.max(packet.length);
        }
        self.ecn |= 1 << (packet.traffic_class & 3);
    }

    /// Makes the header the whole datagram's.
    fn finish(&mut self) -> Result<(), Reason> {
        const NOT_ECT: u8 = 1 << 0;
        const CE: u8 = 1 << 3;
        let mixed = self.ecn & NOT_ECT != 0 && self.ecn != NOT_ECT;
        let length = self.header - self.network + self.end;
        let longest = match self.key.family {
            Family::V4 => LONGEST,
            Family::V6 => LONGEST + 40,
        };
        if mixed || length > longest {
            return Err(Reason::FragmentInvalid);
        }
        self.geometry.total = self.end;
        let congested = self.ecn & CE != 0;
        let keeps_df = self.largest_unfragmentable == self.geometry.largest;
        let ip = &mut self.memory[PAYLOAD - self.header + self.network..PAYLOAD];
        match self.key.family {
            Family::V4 => finish_v4(ip, length, congested, keeps_df),
            Family::V6 => finish_v6(ip, length, congested),
        }
        Ok(())
    }
}

/// "Don't fragment" stays where the longest fragment bore it, as in Linux.
fn finish_v4(ip: &mut [u8], length: usize, congested: bool, keeps_df: bool) {
    if congested {
        ip[1] |= 3;
    }
    field::put_u16(ip, 2, length as u16);
    field::put_u16(ip, 6, if keeps_df { IPV4_DONT_FRAGMENT } else { 0 });
    checksum::write_header(ip);
}

fn finish_v6(ip: &mut [u8], length: usize, congested: bool) {
    if congested {
        // The traffic class's last two bits are the upper half's of the second byte.
        ip[1] |= 0x30;
    }
    field::put_u16(ip, 4, (length - 40) as u16);
}
