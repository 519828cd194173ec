//! When a frame was sent, written into its last bytes, where any encapsulation leaves them.
//! The time stands there twice, once with all bits turned over: the two cancel out in the
//! Internet checksum (RFC 1071), which is therefore the same for every time.

/// A stamp's length.
pub const BYTES: usize = 20;

/// What tells a stamp from other bytes.
const MAGIC: u32 = 0x6c76_7862;

/// A stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, ns of some clock.
    pub sent_ns: u64,
}

impl Stamp {
    /// The stamp's bytes.
    pub fn bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes[12..].copy_from_slice(&(!self.sent_ns).to_be_bytes());
        bytes
    }

    /// The stamp at the end of a frame, if there is one.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = frame.last_chunk()?;
        let time = |at: usize| {
            let part = bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(part)
        };
        let is_one = bytes[..4] == MAGIC.to_be_bytes() && time(12) == !time(4);
        is_one.then(|| Self { sent_ns: time(4) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::checksum;

    #[test]
    fn it_is_read_as_it_was_written() {
        let stamp = Stamp {
            sent_ns: 0x0123_4567_89ab_cdef,
        };
        let mut frame = vec![0xaa; 44];
        frame.extend(stamp.bytes());
        assert_eq!(Stamp::read(&frame), Some(stamp));
        for wrong in [44, 48, 63] {
            let mut frame = frame.clone();
            frame[wrong] ^= 1;
            assert_eq!(Stamp::read(&frame), None, "byte {wrong}");
        }
        assert_eq!(Stamp::read(&frame[..19]), None);
    }

    #[test]
    fn the_time_does_not_change_the_checksum() {
        let sum = |sent_ns| checksum(0, &Stamp { sent_ns }.bytes());
        for time in [1, 0xffff, 0x1_0000, 123_456_789_012, u64::MAX] {
            assert_eq!(sum(time), sum(0), "{time}");
        }
    }
}
