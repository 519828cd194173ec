//! TCP segments over IPv4, as far as exchanges need them: no options, no fragments.

use std::net::Ipv4Addr;

use crate::traffic::checksum;

/// Ethernet, IPv4 and TCP headers without options.
const HEADERS: usize = 14 + 20 + 20;
/// The shortest Ethernet frame, without its own checksum.
const FRAME_MIN: usize = 60;

/// TCP's flags (RFC 9293).
pub mod flag {
    /// The sender has sent all.
    pub const FIN: u8 = 0x01;
    /// The connection begins.
    pub const SYN: u8 = 0x02;
    /// The connection is refused or broken.
    pub const RST: u8 = 0x04;
    /// Data should be passed on at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement counts.
    pub const ACK: u8 = 0x10;
}

/// An endpoint.
pub type End = (Ipv4Addr, u16);

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Link addresses: to, from.
    pub macs: [[u8; 6]; 2],
    /// From where.
    pub source: End,
    /// To where.
    pub destination: End,
    /// The number of its first byte.
    pub sequence: u32,
    /// The next byte that its sender waits for.
    pub acknowledged: u32,
    /// See [`flag`].
    pub flags: u8,
    /// Bytes of data.
    pub data_bytes: u32,
}

impl Segment {
    /// Reads a frame; none where it is no such segment.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let is_tcp = frame.len() >= HEADERS
            && frame[12..14] == [0x08, 0x00]
            && frame[14] == 0x45
            && frame[23] == 6;
        if !is_tcp {
            return None;
        }
        let two = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let four = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
        let mac = |at: usize| frame[at..at + 6].try_into().expect("six");
        let headers = 20 + u32::from(frame[46] >> 4) * 4;
        Some(Self {
            macs: [mac(0), mac(6)],
            source: (four(26).into(), two(34)),
            destination: (four(30).into(), two(36)),
            sequence: four(38),
            acknowledged: four(42),
            flags: frame[47],
            data_bytes: u32::from(two(16)).checked_sub(headers)?,
        })
    }

    /// Whether all of these flags are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The number after the segment's last: SYN and FIN count as one byte each.
    pub fn end(&self) -> u32 {
        let counted = (self.flags & (flag::SYN | flag::FIN)).count_ones();
        self.sequence.wrapping_add(self.data_bytes + counted)
    }

    /// An answer that acknowledges all of this segment.
    pub fn answer(&self, flags: u8, data_bytes: u32) -> Self {
        Self {
            macs: [self.macs[1], self.macs[0]],
            source: self.destination,
            destination: self.source,
            sequence: self.acknowledged,
            acknowledged: self.end(),
            flags,
            data_bytes,
        }
    }

    /// Writes the segment, its data all `x`, and returns the frame's length.
    pub fn write(&self, out: &mut [u8; 256]) -> usize {
        let data = self.data_bytes as usize;
        let end = HEADERS + data;
        out[..end.max(FRAME_MIN)].fill(0);
        out[..6].copy_from_slice(&self.macs[0]);
        out[6..12].copy_from_slice(&self.macs[1]);
        out[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        out[16..18].copy_from_slice(&((end - 14) as u16).to_be_bytes());
        out[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        out[26..30].copy_from_slice(&self.source.0.octets());
        out[30..34].copy_from_slice(&self.destination.0.octets());
        let sum = checksum(0, &out[14..34]);
        out[24..26].copy_from_slice(&sum.to_be_bytes());
        out[34..36].copy_from_slice(&self.source.1.to_be_bytes());
        out[36..38].copy_from_slice(&self.destination.1.to_be_bytes());
        out[38..42].copy_from_slice(&self.sequence.to_be_bytes());
        out[42..46].copy_from_slice(&self.acknowledged.to_be_bytes());
        out[46..50].copy_from_slice(&[5 << 4, self.flags, 0xff, 0xff]);
        out[HEADERS..end].fill(b'x');
        let pseudo = u32::from(!checksum(0, &out[26..34])) + 6 + (end - 34) as u32;
        let sum = checksum(pseudo, &out[34..end]);
        out[50..52].copy_from_slice(&sum.to_be_bytes());
        end.max(FRAME_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        Segment {
            macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
            source: (Ipv4Addr::new(10, 9, 0, 1), 1024),
            destination: (Ipv4Addr::new(10, 1, 0, 1), 80),
            sequence: u32::MAX - 1,
            acknowledged: 77,
            flags: flag::ACK | flag::FIN,
            data_bytes: 33,
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_with_right_checksums() {
        for data_bytes in [0, 1, 33, 100] {
            let segment = Segment {
                data_bytes,
                ..segment()
            };
            let mut out = [0; 256];
            let length = segment.write(&mut out);
            assert_eq!(Segment::read(&out[..length]), Some(segment));
            assert_eq!(checksum(0, &out[14..34]), 0);
            let end = HEADERS + data_bytes as usize;
            let pseudo = u32::from(!checksum(0, &out[26..34])) + 6 + (end - 34) as u32;
            assert_eq!(checksum(pseudo, &out[34..end]), 0);
        }
    }

    #[test]
    fn an_answer_acknowledges_data_and_fin() {
        let answer = segment().answer(flag::ACK, 0);
        assert_eq!(answer.acknowledged, (u32::MAX - 1).wrapping_add(34));
        assert_eq!(answer.sequence, 77);
        assert_eq!(answer.destination, segment().source);
    }

    #[test]
    fn what_is_no_tcp_is_left_out() {
        let mut out = [0; 256];
        let length = segment().write(&mut out);
        for (what, at, value) in [("ARP", 13, 6), ("options", 14, 0x46), ("UDP", 23, 17)] {
            let mut frame = out[..length].to_vec();
            frame[at] = value;
            assert_eq!(Segment::read(&frame), None, "{what}");
        }
        assert_eq!(Segment::read(&out[..40]), None);
    }
}
