//! The frames that benchmarks feed: written whole, with right checksums, into the memory
//! they are then handled in.

use std::net::IpAddr;

use dataplane::director::known::Glance;
use dataplane::frame::Frame;
use sched::service::{Family, Protocol};

/// Room before each frame, as a real port gives.
pub const HEADROOM: usize = 256;

/// Room for a frame with its headroom.
const CHUNK: usize = 4096;

/// Memory of a frame, placed within its cache lines as a UMEM's is: that begins with a page.
#[derive(Clone)]
#[repr(align(4096))]
struct Chunk([u8; CHUNK]);

/// TCP's flags (RFC 9293).
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

/// An address and a port.
pub type End = (IpAddr, u16);

/// What a frame is to hold.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// The transport protocol.
    pub protocol: Protocol,
    /// From where.
    pub source: End,
    /// To where.
    pub destination: End,
    /// TCP's flags.
    pub flags: u8,
    /// The frame's length without the link's checksum, bytes; at least all headers'.
    pub length: usize,
}

/// A burst's frames, each in memory of its own that stays for the rest of the process: so
/// they are put together once and not for each burst, which would be counted with it.
#[derive(Debug)]
pub struct Burst {
    seats: Vec<Seat>,
}

/// A frame of a burst, and what the director saw at its first look.
#[derive(Debug)]
pub struct Seat {
    /// The frame.
    pub frame: Frame<'static>,
    /// See [`dataplane::director::known`].
    pub glance: Glance,
}

impl Burst {
    /// Room for this many frames.
    pub fn new(frames: usize) -> Self {
        let chunks = vec![Chunk([0; CHUNK]); frames].leak();
        let seat = |chunk: &'static mut Chunk| Seat {
            frame: Frame::new(&mut chunk.0, HEADROOM, HEADROOM).expect("room within a chunk"),
            glance: Glance::default(),
        };
        Self {
            seats: chunks.iter_mut().map(seat).collect(),
        }
    }

    /// Writes frame `index`.
    pub fn write(&mut self, index: usize, content: &Content) {
        let frame = &mut self.seats[index].frame;
        assert!(frame.put_at(HEADROOM, CHUNK), "a chunk has headroom");
        let length = write(frame.bytes_mut(), content);
        frame.truncate(length);
    }

    /// All in order, to be handled.
    pub fn seats(&mut self) -> &mut [Seat] {
        &mut self.seats
    }
}

/// Writes a frame and returns its length.
pub fn write(out: &mut [u8], content: &Content) -> usize {
    write_with(out, content, &[])
}

/// Writes a frame whose last bytes are `tail` and returns its length. There must be room
/// for the tail behind the headers.
pub fn write_with(out: &mut [u8], content: &Content, tail: &[u8]) -> usize {
    let ip_length = match content.source.0 {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    let transport = 14 + ip_length;
    let header = match content.protocol {
        Protocol::Tcp => 20,
        Protocol::Udp => 8,
        Protocol::Sctp => 16,
    };
    let length = content.length.max(transport + header);
    let frame = &mut out[..length];
    frame.fill(0);
    // To the director's client side, or its server side: it does not look.
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
    frame[length - tail.len()..].copy_from_slice(tail);
    write_ip(frame, content, length);
    write_transport(frame, content, transport);
    length
}

fn write_ip(frame: &mut [u8], content: &Content, length: usize) {
    match (content.source.0, content.destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            let header = &mut frame[14..34];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((length - 14) as u16).to_be_bytes());
            header[6] = 0x40;
            header[8] = 64;
            header[9] = content.protocol.number();
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(0, header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            let header = &mut frame[14..54];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&((length - 54) as u16).to_be_bytes());
            header[6] = content.protocol.number();
            header[7] = 64;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
        }
        _ => panic!("a packet of two families"),
    }
}

fn write_transport(frame: &mut [u8], content: &Content, at: usize) {
    let addresses = if at == 34 { 26..34 } else { 22..54 };
    let pseudo = frame[addresses].to_vec();
    let segment = &mut frame[at..];
    let length = segment.len() as u16;
    segment[0..2].copy_from_slice(&content.source.1.to_be_bytes());
    segment[2..4].copy_from_slice(&content.destination.1.to_be_bytes());
    let field = match content.protocol {
        Protocol::Tcp => {
            segment[12] = 5 << 4;
            segment[13] = content.flags;
            16
        }
        Protocol::Udp => {
            segment[4..6].copy_from_slice(&length.to_be_bytes());
            6
        }
        // The CRC is not judged on the way; the chunk is INIT.
        Protocol::Sctp => {
            segment[12..16].copy_from_slice(&[1, 0, 0, 4]);
            return;
        }
    };
    let start = u32::from(content.protocol.number()) + u32::from(length);
    let start = start + u32::from(!checksum(0, &pseudo));
    let sum = checksum(start, segment);
    segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071) of some bytes, on top of a sum so far.
pub fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// The client of connection `number`: 16,384 addresses of one network for each of its
/// ports.
pub fn client(family: Family, number: u64) -> End {
    let (host, port) = (number & 0x3fff, 1024 + (number >> 14));
    let address = match family {
        Family::V4 => IpAddr::from((0x0a09_0000 + host as u32).to_be_bytes()),
        Family::V6 => IpAddr::from(((0xfd09u128 << 112) + u128::from(host)).to_be_bytes()),
    };
    (address, port as u16)
}
