//! A TCP packet that is larger than the MTU of the port it came by, cut into segments that
//! fit. No wire brings such packets: a sender on this machine left the cutting to its
//! hardware (TSO), or a device joined received ones (GRO, LRO). Each segment is then a packet
//! like any other.

use sched::service::Family;

use super::checksum;
use crate::frame::{Frame, Packet, field, protocol, tcp_flag};

/// Offset of TCP's sequence number (RFC 9293, section 3.1).
const SEQUENCE: usize = 4;
/// Offset of the byte whose upper half is TCP's header length in words of 4 bytes.
const DATA_OFFSET: usize = 12;
/// Offset of TCP's flags.
const FLAGS: usize = 13;
/// Offsets of IPv4's length and identification (RFC 791).
const TOTAL_LENGTH: usize = 2;
const IDENTIFICATION: usize = 4;
/// Offset of IPv6's payload length, and of what it counts (RFC 8200).
const PAYLOAD_LENGTH: usize = 4;
const IPV6_HEADER: usize = 40;

/// A packet's segments, to be pulled one by one.
#[derive(Debug)]
pub struct Segments<'a> {
    bytes: &'a [u8],
    packet: Packet,
    /// Where TCP's payload begins.
    payload: usize,
    /// The most payload in a segment, bytes.
    room: usize,
    /// Payload already pulled, bytes.
    done: usize,
}

impl<'a> Segments<'a> {
    /// Of a frame whose packet is longer than `mtu`. None where it is not TCP, is a fragment,
    /// has no room for payload, or has a wrong checksum: that must stay wrong.
    pub fn of(frame: &'a mut Frame<'_>, mtu: u32) -> Option<Self> {
        let packet = Packet::parse(frame).ok()?;
        if packet.protocol != protocol::TCP || packet.fragment.is_some() {
            return None;
        }
        checksum::complete_if_partial(frame, &packet);
        let bytes = &frame.bytes()[..packet.end()];
        let segment = &bytes[packet.transport..];
        if !checksum::is_complete(segment, &packet) {
            return None;
        }
        let payload = packet.transport + usize::from(segment[DATA_OFFSET] >> 4) * 4;
        let room = (mtu as usize).checked_sub(payload - packet.network)?;
        (room > 0).then_some(Self {
            bytes,
            packet,
            payload,
            room,
            done: 0,
        })
    }

    /// Writes the next segment into the empty frame `piece`. False where there are no more,
    /// or it has no room.
    #[must_use]
    pub fn next(&mut self, piece: &mut Frame<'_>) -> bool {
        let all = self.bytes.len() - self.payload;
        let length = self.room.min(all - self.done);
        if length == 0 || !piece.grow_back(self.payload + length) {
            return false;
        }
        let from = self.payload + self.done;
        let bytes = piece.bytes_mut();
        bytes[..self.payload].copy_from_slice(&self.bytes[..self.payload]);
        bytes[self.payload..].copy_from_slice(&self.bytes[from..from + length]);
        self.write_transport(&mut bytes[self.packet.transport..], length);
        self.write_network(&mut bytes[self.packet.network..]);
        self.done += length;
        true
    }

    fn write_transport(&self, segment: &mut [u8], length: usize) {
        let is_last = self.payload + self.done + length == self.bytes.len();
        let sequence = field::u32_at(segment, SEQUENCE).wrapping_add(self.done as u32);
        field::put(segment, SEQUENCE, sequence.to_be_bytes());
        if !is_last {
            segment[FLAGS] &= !(tcp_flag::FIN | tcp_flag::PSH);
        }
        if self.done > 0 {
            // Said once (RFC 3168, section 6.1.2).
            segment[FLAGS] &= !tcp_flag::CWR;
        }
        checksum::write_tcp(segment, &self.packet);
    }

    fn write_network(&self, packet: &mut [u8]) {
        let length = packet.len();
        match self.packet.family {
            Family::V4 => {
                let place = (self.done / self.room) as u16;
                let own = field::u16_at(packet, IDENTIFICATION).wrapping_add(place);
                field::put_u16(packet, IDENTIFICATION, own);
                field::put_u16(packet, TOTAL_LENGTH, length as u16);
                checksum::write_header(packet);
            }
            Family::V6 => field::put_u16(packet, PAYLOAD_LENGTH, (length - IPV6_HEADER) as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{HEADROOM_BYTES, LARGE_MEMORY_BYTES};

    /// An Ethernet frame with a TCP packet of this payload and these flags.
    fn frame(family: Family, payload: &[u8], flags: u8) -> Vec<u8> {
        let mut bytes = vec![2; 12];
        let (kind, header) = match family {
            Family::V4 => ([0x08, 0x00], 20),
            Family::V6 => ([0x86, 0xdd], IPV6_HEADER),
        };
        bytes.extend(kind);
        let length = header + 20 + payload.len();
        match family {
            Family::V4 => {
                bytes.extend([
                    0x45,
                    0,
                    (length >> 8) as u8,
                    length as u8,
                    0xff,
                    0xff,
                    0x40,
                    0,
                ]);
                bytes.extend([64, protocol::TCP, 0, 0, 10, 9, 0, 1, 10, 1, 0, 1]);
                checksum::write_header(&mut bytes[14..]);
            }
            Family::V6 => {
                let length = length - header;
                bytes.extend([
                    0x60,
                    0,
                    0,
                    0,
                    (length >> 8) as u8,
                    length as u8,
                    protocol::TCP,
                    64,
                ]);
                bytes.extend([0xfd; 32]);
            }
        }
        bytes.extend([0x30, 0x39, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 7]);
        bytes.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        let mut own = bytes.clone();
        let packet = Packet::parse(&mut Frame::new(&mut own, 0, bytes.len()).unwrap()).unwrap();
        checksum::write_tcp(&mut bytes[packet.transport..], &packet);
        bytes
    }

    fn cut(bytes: &[u8], mtu: u32) -> Option<Vec<Vec<u8>>> {
        let mut memory = bytes.to_vec();
        let mut frame = Frame::new(&mut memory, 0, bytes.len()).unwrap();
        let mut segments = Segments::of(&mut frame, mtu)?;
        let mut pieces = Vec::new();
        loop {
            let mut memory = vec![0; LARGE_MEMORY_BYTES];
            let mut piece = Frame::new(&mut memory, HEADROOM_BYTES, HEADROOM_BYTES).unwrap();
            if !segments.next(&mut piece) {
                return Some(pieces);
            }
            pieces.push(piece.bytes().to_vec());
        }
    }

    const FLAGS_ALL: u8 = tcp_flag::ACK | tcp_flag::FIN | tcp_flag::PSH | tcp_flag::CWR;

    #[test]
    fn segments_are_the_packet_in_order() {
        let payload: Vec<u8> = (0..30_000u32).map(|n| (n % 251) as u8).collect();
        for (family, mtu, count) in [
            (Family::V4, 1500, 21),
            (Family::V6, 1500, 21),
            (Family::V4, 9000, 4),
            (Family::V4, 41, 30_000),
            (Family::V4, 65_535, 1),
        ] {
            let pieces = cut(&frame(family, &payload, FLAGS_ALL), mtu).unwrap();
            assert_eq!(pieces.len(), count, "MTU {mtu}");
            let mut gathered: Vec<u8> = Vec::new();
            for (place, piece) in pieces.iter().enumerate() {
                let mut own = piece.clone();
                let mut frame = Frame::new(&mut own, 0, piece.len()).unwrap();
                let packet = Packet::parse(&mut frame).unwrap();
                assert!(packet.length <= mtu as usize);
                let segment = &piece[packet.transport..];
                assert!(checksum::is_complete(segment, &packet), "piece {place}");
                let sequence = field::u32_at(segment, SEQUENCE);
                assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(gathered.len() as u32));
                let is_last = place + 1 == count;
                let flags = tcp_flag::ACK
                    | if is_last {
                        tcp_flag::FIN | tcp_flag::PSH
                    } else {
                        0
                    }
                    | if place == 0 { tcp_flag::CWR } else { 0 };
                assert_eq!(segment[FLAGS], flags, "piece {place}");
                if family == Family::V4 {
                    let own = field::u16_at(&piece[packet.network..], IDENTIFICATION);
                    assert_eq!(own, 0xffffu16.wrapping_add(place as u16));
                }
                gathered.extend(&segment[20..]);
            }
            assert_eq!(gathered, payload);
        }
    }

    #[test]
    fn a_sum_left_to_hardware_is_completed() {
        let whole = frame(Family::V4, &[7; 5000], tcp_flag::ACK);
        let mut partial = whole.clone();
        let mut own = whole.clone();
        let packet = Packet::parse(&mut Frame::new(&mut own, 0, whole.len()).unwrap()).unwrap();
        let length = packet.payload_length();
        let (source, destination) = (packet.source.address, packet.destination.address);
        let sum = checksum::Sum::default();
        let sum = sum.pseudo_header(Family::V4, source, destination, protocol::TCP, length);
        field::put_u16(
            &mut partial[packet.transport..],
            checksum::TCP_CHECKSUM,
            sum.fold(),
        );
        assert_eq!(cut(&partial, 1500), cut(&whole, 1500));
    }

    #[test]
    fn what_cannot_be_cut() {
        let whole = frame(Family::V4, &[7; 5000], tcp_flag::ACK);
        let changed = |at: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[at] = value;
            checksum::write_header(&mut bytes[14..]);
            bytes
        };
        let rows = [
            ("UDP", changed(14 + 9, protocol::UDP), 1500),
            ("a fragment", changed(14 + 6, 0x20), 1500),
            ("a wrong checksum", changed(whole.len() - 1, 8), 1500),
            ("no IP", changed(12, 1), 1500),
            ("no room for payload", whole.clone(), 40),
        ];
        for (what, bytes, mtu) in rows {
            assert_eq!(cut(&bytes, mtu), None, "{what}");
        }
    }
}
