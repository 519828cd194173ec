//! A port over capture files: frames come from one, go to another. Classic pcap, as
//! tcpdump writes it (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>),
//! both byte orders, micro- and nanoseconds. The clock is that of the file: a frame sent
//! bears the time of the frame received last.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use super::{Burst, Frames, LARGEST_FRAME_BYTES, Port, PortCounters, Slot};

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The file is something else, or pcapng.
    #[error("not a classic pcap file: `tcpdump -r IN -w OUT` or `editcap -F pcap IN OUT` converts")]
    NotPcap,
    /// Its frames are not Ethernet.
    #[error("the capture's link type is {0}, not Ethernet (1)")]
    NotEthernet(u32),
    /// A record is longer than any capture holds.
    #[error("the capture is damaged: a record of {0} bytes")]
    Damaged(u32),
    /// Reading or writing failed.
    #[error("capture file: {0}")]
    Io(#[from] io::Error),
}

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
/// MAXIMUM_SNAPLEN of libpcap.
const RECORD_BYTES_MAX: u32 = 262_144;

/// Reads a capture frame by frame.
#[derive(Debug)]
pub struct PcapReader<R> {
    input: R,
    swapped: bool,
    nanoseconds: bool,
    record: Vec<u8>,
}

/// When a frame was captured: seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Whole seconds.
    pub s: u32,
    /// Nanoseconds within the second.
    pub ns: u32,
}

impl<R: Read> PcapReader<R> {
    /// Reads the file's header.
    pub fn new(mut input: R) -> Result<Self, PcapError> {
        let mut header = [0; 24];
        input
            .read_exact(&mut header)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => PcapError::NotPcap,
                _ => error.into(),
            })?;
        let magic = word(&header, 0, false);
        let (swapped, nanoseconds) = match (magic, magic.swap_bytes()) {
            (MAGIC_MICROSECONDS, _) => (false, false),
            (MAGIC_NANOSECONDS, _) => (false, true),
            (_, MAGIC_MICROSECONDS) => (true, false),
            (_, MAGIC_NANOSECONDS) => (true, true),
            _ => return Err(PcapError::NotPcap),
        };
        // The upper bits tell of a frame check sequence.
        let link = word(&header, 20, swapped) & 0xffff;
        if link != ETHERNET {
            return Err(PcapError::NotEthernet(link));
        }
        Ok(Self {
            input,
            swapped,
            nanoseconds,
            record: Vec::new(),
        })
    }

    /// The next frame and its time; none at the end, where a record cut short counts as
    /// the end.
    pub fn next_frame(&mut self) -> Result<Option<(Stamp, &[u8])>, PcapError> {
        let mut header = [0; 16];
        if !read_whole(&mut self.input, &mut header)? {
            return Ok(None);
        }
        let captured = word(&header, 8, self.swapped);
        if captured > RECORD_BYTES_MAX {
            return Err(PcapError::Damaged(captured));
        }
        self.record.resize(captured as usize, 0);
        if !read_whole(&mut self.input, &mut self.record)? {
            return Ok(None);
        }
        let fraction = word(&header, 4, self.swapped);
        let stamp = Stamp {
            s: word(&header, 0, self.swapped),
            ns: match self.nanoseconds {
                true => fraction,
                false => fraction.saturating_mul(1000),
            },
        };
        Ok(Some((stamp, &self.record)))
    }
}

/// Writes a capture frame by frame.
#[derive(Debug)]
pub struct PcapWriter<W> {
    output: W,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file's header.
    pub fn new(mut output: W) -> Result<Self, PcapError> {
        let mut header = [0; 24];
        header[..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
        header[4] = 2; // version 2.4
        header[6] = 4;
        header[16..20].copy_from_slice(&RECORD_BYTES_MAX.to_le_bytes());
        header[20..].copy_from_slice(&ETHERNET.to_le_bytes());
        output.write_all(&header)?;
        Ok(Self { output })
    }

    /// Adds a frame.
    pub fn write(&mut self, stamp: Stamp, frame: &[u8]) -> Result<(), PcapError> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&stamp.s.to_le_bytes());
        header[4..8].copy_from_slice(&stamp.ns.to_le_bytes());
        header[8..12].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        header[12..].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        self.output.write_all(&header)?;
        Ok(self.output.write_all(frame)?)
    }
}

/// A port that receives from one capture and sends to another.
#[derive(Debug)]
pub struct PcapPort<R, W> {
    reader: PcapReader<R>,
    writer: PcapWriter<W>,
    pending: VecDeque<Slot>,
    stamp: Stamp,
    ended: bool,
    error: Option<PcapError>,
    counters: PortCounters,
}

impl<R: Read, W: Write> PcapPort<R, W> {
    /// A port over these two captures.
    pub fn new(reader: PcapReader<R>, writer: PcapWriter<W>) -> Self {
        Self {
            reader,
            writer,
            pending: VecDeque::new(),
            stamp: Stamp::default(),
            ended: false,
            error: None,
            counters: PortCounters::default(),
        }
    }

    /// The time of the frame received last.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether all frames were received, or an error ended it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What went wrong with a file; the port then neither receives nor writes.
    pub fn error(&self) -> Option<&PcapError> {
        self.error.as_ref()
    }

    fn fail(&mut self, error: PcapError) {
        self.ended = true;
        self.error.get_or_insert(error);
    }
}

impl<R: Read, W: Write> Port for PcapPort<R, W> {
    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst) {
        while !self.ended && burst.room() > 0 && frames.free() > 0 {
            match self.reader.next_frame() {
                Ok(Some((stamp, bytes))) => {
                    self.stamp = stamp;
                    // A capture may hold what no port could have received.
                    if bytes.len() > LARGEST_FRAME_BYTES {
                        self.counters.missed += 1;
                        continue;
                    }
                    let slot = frames.take_with(bytes).expect("a frame is free and fits");
                    burst.push(slot).expect("room was asked for");
                    self.counters.received += 1;
                }
                Ok(None) => self.ended = true,
                Err(error) => self.fail(error),
            }
        }
    }

    fn send(&mut self, _: &mut Frames, slot: Slot) -> Result<(), Slot> {
        if self.pending.len() == super::BURST * 16 {
            self.counters.full += 1;
            return Err(slot);
        }
        self.counters.sent += 1;
        self.pending.push_back(slot);
        Ok(())
    }

    fn flush(&mut self, frames: &mut Frames) {
        while let Some(slot) = self.pending.pop_front() {
            if self.error.is_none()
                && let Err(error) = self.writer.write(self.stamp, frames.bytes(&slot))
            {
                self.fail(error);
            }
            frames.give(slot);
        }
    }

    fn reclaim(&mut self, _: &mut Frames) {}

    fn held(&self) -> usize {
        self.pending.len()
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

fn word(bytes: &[u8], at: usize, swapped: bool) -> u32 {
    let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    match swapped {
        true => u32::from_be_bytes(bytes),
        false => u32::from_le_bytes(bytes),
    }
}

/// False at the end of the file.
fn read_whole(input: &mut impl Read, bytes: &mut [u8]) -> Result<bool, PcapError> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = PcapWriter::new(&mut file).unwrap();
        for (i, frame) in frames.iter().enumerate() {
            let stamp = Stamp { s: i as u32, ns: 7 };
            writer.write(stamp, frame).unwrap();
        }
        file
    }

    #[test]
    fn what_was_received_is_sent_again() {
        let file = capture(&[&[1; 60], &[2; 4000], &[3; 1514]]);
        let mut out = Vec::new();
        let mut frames = Frames::in_memory(4);
        let reader = PcapReader::new(&file[..]).unwrap();
        let mut port = PcapPort::new(reader, PcapWriter::new(&mut out).unwrap());
        let mut burst = Burst::default();
        port.receive(&mut frames, &mut burst);
        for slot in burst.drain() {
            port.send(&mut frames, slot).unwrap();
        }
        port.flush(&mut frames);
        assert!(port.has_ended() && port.error().is_none());
        assert_eq!((port.counters().missed, port.stamp().s), (1, 2));
        assert_eq!(frames.free(), 4);
        let mut again = PcapReader::new(&out[..]).unwrap();
        assert_eq!(again.next_frame().unwrap().unwrap().1, [1; 60]);
        assert_eq!(again.next_frame().unwrap().unwrap().1, [3; 1514]);
        assert!(again.next_frame().unwrap().is_none());
    }

    #[test]
    fn both_byte_orders_and_units_are_read() {
        let rows: [(&str, u32, bool, u32); 4] = [
            ("little, µs", MAGIC_MICROSECONDS, false, 5_000),
            ("little, ns", MAGIC_NANOSECONDS, false, 5),
            ("big, µs", MAGIC_MICROSECONDS, true, 5_000),
            ("big, ns", MAGIC_NANOSECONDS, true, 5),
        ];
        for (what, magic, big, ns) in rows {
            let words = [magic, 0, 0, 0, 65_535, 1, 9, 5, 4, 4];
            let order = |w: u32| {
                if big {
                    w.to_be_bytes()
                } else {
                    w.to_le_bytes()
                }
            };
            let mut file: Vec<u8> = words.into_iter().flat_map(order).collect();
            file.extend(b"abcd");
            let mut reader = PcapReader::new(&file[..]).unwrap();
            let frame = reader.next_frame().unwrap().unwrap();
            assert_eq!(frame, (Stamp { s: 9, ns }, &b"abcd"[..]), "{what}");
        }
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let mut file = capture(&[]);
        assert!(matches!(
            PcapReader::new(&file[..23]),
            Err(PcapError::NotPcap)
        ));
        assert!(matches!(
            PcapReader::new(&[0; 24][..]),
            Err(PcapError::NotPcap)
        ));
        file[20] = 113;
        assert!(matches!(
            PcapReader::new(&file[..]),
            Err(PcapError::NotEthernet(113))
        ));
    }

    #[test]
    fn a_damaged_capture_ends() {
        let mut file = capture(&[&[1; 60], &[2; 60]]);
        file.truncate(file.len() - 1);
        let mut reader = PcapReader::new(&file[..]).unwrap();
        assert!(reader.next_frame().unwrap().is_some());
        assert!(reader.next_frame().unwrap().is_none(), "cut short");
        file[24 + 8 + 3] = 0xff;
        let mut reader = PcapReader::new(&file[..]).unwrap();
        assert!(matches!(reader.next_frame(), Err(PcapError::Damaged(_))));
    }
}
