//! SCTP: one event per packet, the type of its first chunk (but see [`event_chunk`]).
//! Verification tags are not checked. Where replies are not seen (direct routing), the
//! client's chunks stand for both sides.

use super::Direction;

/// Nothing seen yet.
pub const NONE: u8 = 0;
/// The client sent its first INIT.
pub const INIT1: u8 = 1;
/// The client sent more than one.
pub const INIT: u8 = 2;
/// The real server sent an INIT ACK, with its cookie.
pub const COOKIE_SENT: u8 = 3;
/// The client echoed the cookie.
pub const COOKIE_REPLIED: u8 = 4;
/// The real server sent an INIT.
pub const COOKIE_WAIT: u8 = 5;
/// And the client an INIT ACK to it.
pub const COOKIE: u8 = 6;
/// The real server echoed the cookie.
pub const COOKIE_ECHOED: u8 = 7;
/// Data may flow.
pub const ESTABLISHED: u8 = 8;
/// The real server sent a SHUTDOWN.
pub const SHUTDOWN_SENT: u8 = 9;
/// The client sent a SHUTDOWN.
pub const SHUTDOWN_RECEIVED: u8 = 10;
/// The real server sent a SHUTDOWN ACK.
pub const SHUTDOWN_ACK_SENT: u8 = 11;
/// The first INIT was answered by ABORT.
pub const REJECTED: u8 = 12;
/// Aborted, or shut down.
pub const CLOSED: u8 = 13;

const STATES: usize = 14;

/// How long each state may idle, s.
pub(super) const TIMEOUTS_S: [u32; STATES] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

pub(super) const NAMES: [&str; STATES] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];

/// Chunk types (RFC 9260, section 3.2).
const INIT_CHUNK: u8 = 1;
const INIT_ACK_CHUNK: u8 = 2;
const ABORT_CHUNK: u8 = 6;
const SHUTDOWN_CHUNK: u8 = 7;
const SHUTDOWN_ACK_CHUNK: u8 = 8;
const ERROR_CHUNK: u8 = 9;
const COOKIE_ECHO_CHUNK: u8 = 10;
const COOKIE_ACK_CHUNK: u8 = 11;
const SHUTDOWN_COMPLETE_CHUNK: u8 = 14;

const COMMON_HEADER_BYTES: usize = 12;
const CHUNK_HEADER_BYTES: usize = 4;

/// The chunk type that counts in a packet (from its common header on): the first one's,
/// but ABORT where that is the second one after COOKIE ECHO or COOKIE ACK. Behind any
/// other chunk, or further back, an ABORT goes unseen. None where not even one chunk
/// header is there.
pub fn event_chunk(packet: &[u8]) -> Option<u8> {
    let (first, length) = chunk_at(packet, COMMON_HEADER_BYTES)?;
    if !matches!(first, COOKIE_ECHO_CHUNK | COOKIE_ACK_CHUNK) || length < CHUNK_HEADER_BYTES {
        return Some(first);
    }
    // The length leaves out the padding to four bytes (RFC 9260, section 3.2).
    let second = chunk_at(packet, COMMON_HEADER_BYTES + length.next_multiple_of(4));
    match second {
        Some((ABORT_CHUNK, _)) => Some(ABORT_CHUNK),
        _ => Some(first),
    }
}

/// Type and length of the chunk at `offset`.
fn chunk_at(packet: &[u8], offset: usize) -> Option<(u8, usize)> {
    let header = packet.get(offset..offset + CHUNK_HEADER_BYTES)?;
    let length = u16::from_be_bytes([header[2], header[3]]);
    Some((header[0], usize::from(length)))
}

/// The state after a packet whose event is chunk type `chunk`; see [`event_chunk`].
pub fn next(state: u8, direction: Direction, chunk: u8) -> u8 {
    let steps = match direction {
        Direction::Input => &INPUT,
        Direction::Output => &OUTPUT,
        Direction::InputOnly => &INPUT_ONLY,
    };
    steps[index(state)][column(chunk)]
}

/// Any number as a state's place in a table; numbers that are no state count as NONE.
pub(super) fn index(state: u8) -> usize {
    if usize::from(state) < STATES {
        usize::from(state)
    } else {
        0
    }
}

/// A chunk's column in the tables. All types that are not named (DATA, SACK, HEARTBEAT,
/// and what is unknown) count alike.
fn column(chunk: u8) -> usize {
    match chunk {
        INIT_CHUNK => 1,
        INIT_ACK_CHUNK => 2,
        ABORT_CHUNK => 3,
        SHUTDOWN_CHUNK => 4,
        SHUTDOWN_ACK_CHUNK => 5,
        ERROR_CHUNK => 6,
        COOKIE_ECHO_CHUNK => 7,
        COOKIE_ACK_CHUNK => 8,
        SHUTDOWN_COMPLETE_CHUNK => 9,
        _ => 0,
    }
}

/// Next states by state, then by [`column`].
type Steps = [[u8; 10]; STATES];

const I1: u8 = INIT1;
const IN: u8 = INIT;
const CS: u8 = COOKIE_SENT;
const CR: u8 = COOKIE_REPLIED;
const CW: u8 = COOKIE_WAIT;
const CO: u8 = COOKIE;
const CE: u8 = COOKIE_ECHOED;
const ES: u8 = ESTABLISHED;
const SS: u8 = SHUTDOWN_SENT;
const SR: u8 = SHUTDOWN_RECEIVED;
const SA: u8 = SHUTDOWN_ACK_SENT;
const RJ: u8 = REJECTED;
const CL: u8 = CLOSED;

#[rustfmt::skip]
const INPUT: Steps = [
    // other INIT INIT-ACK ABORT SHUTDOWN SHUTDOWN-ACK ERROR COOKIE-ECHO COOKIE-ACK SHUTDOWN-COMPLETE
    [ES, I1, CW, CL, SR, CL, CL, CR, ES, CL], // NONE
    [I1, IN, CW, CL, I1, IN, I1, IN, I1, CL], // INIT1
    [IN, IN, CW, CL, IN, IN, IN, IN, IN, CL], // INIT
    [CS, CS, CS, CL, CS, CS, CS, CR, CS, CS], // C-SENT
    [CR, CR, CR, CL, CR, CR, CR, CR, CR, CR], // C-REPLIED
    [CW, CW, CO, RJ, CW, CW, CW, CW, CW, CW], // C-WAIT
    [CO, CO, CO, CL, CO, CO, CO, CO, CO, CO], // COOKIE
    [CE, CE, CE, CL, CE, CE, CL, CE, ES, CE], // C-ECHOED
    [ES, ES, ES, CL, SR, ES, ES, ES, ES, ES], // ESTABLISHED
    [SS, SS, SS, CL, SS, CL, SS, SS, SS, SS], // S-SENT
    [SR, SR, SR, CL, SR, SR, SR, SR, SR, SR], // S-RECEIVED
    [SA, SA, SA, CL, SA, CL, SA, SA, SA, CL], // S-ACK-SENT
    [RJ, IN, RJ, CL, RJ, RJ, RJ, RJ, RJ, RJ], // REJECTED
    [CL, IN, CL, CL, CL, CL, CL, CL, CL, CL], // CLOSED
];

#[rustfmt::skip]
const OUTPUT: Steps = [
    // other INIT INIT-ACK ABORT SHUTDOWN SHUTDOWN-ACK ERROR COOKIE-ECHO COOKIE-ACK SHUTDOWN-COMPLETE
    [ES, CW, CS, CL, SS, SA, CL, CE, ES, CL], // NONE
    [I1, CW, CS, RJ, SS, SA, CL, CE, ES, I1], // INIT1
    [IN, CW, CS, CL, SS, SA, CL, CE, ES, IN], // INIT
    [CS, CW, CS, CL, SS, SA, CL, CE, ES, CS], // C-SENT
    [CR, CW, CR, CL, SS, SA, CL, CE, ES, CR], // C-REPLIED
    [CW, CW, CW, CL, SS, CW, CW, CE, ES, CW], // C-WAIT
    [CO, CW, CO, CL, SS, CO, CO, CE, ES, CO], // COOKIE
    [CE, CW, CE, CL, SS, CE, CE, CE, ES, CE], // C-ECHOED
    [ES, ES, ES, CL, SS, ES, ES, ES, ES, ES], // ESTABLISHED
    [SS, CW, SS, CL, SS, SA, SS, SS, SS, SS], // S-SENT
    [SR, CW, SR, CL, SR, SA, SR, SR, SR, SR], // S-RECEIVED
    [SA, CW, SA, CL, SA, SA, SA, SA, SA, SA], // S-ACK-SENT
    [RJ, CW, RJ, CL, RJ, RJ, RJ, RJ, RJ, RJ], // REJECTED
    [CL, CW, CL, CL, CL, CL, CL, CL, CL, CL], // CLOSED
];

#[rustfmt::skip]
const INPUT_ONLY: Steps = [
    // other INIT INIT-ACK ABORT SHUTDOWN SHUTDOWN-ACK ERROR COOKIE-ECHO COOKIE-ACK SHUTDOWN-COMPLETE
    [ES, I1, CE, CL, SR, CL, CL, ES, ES, CL], // NONE
    [I1, IN, CE, CL, I1, IN, I1, ES, I1, CL], // INIT1
    [IN, IN, CE, CL, IN, IN, IN, ES, IN, CL], // INIT
    [CS, IN, CE, CL, CS, CS, CS, ES, ES, CL], // C-SENT
    [CR, IN, CE, CL, CR, CR, CR, ES, ES, CL], // C-REPLIED
    [ES, IN, CE, RJ, CW, CW, CW, ES, CW, CW], // C-WAIT
    [CO, CO, CO, CL, CO, CO, CO, CO, ES, CO], // COOKIE
    [CE, CE, CE, CL, CE, CE, CE, CE, ES, CE], // C-ECHOED
    [ES, ES, ES, CL, SR, CL, ES, ES, ES, ES], // ESTABLISHED
    [SS, SS, SS, CL, SS, CL, SS, SS, SS, SS], // S-SENT
    [SR, SR, SR, CL, SR, SR, SR, SR, SR, CL], // S-RECEIVED
    [SA, SA, SA, CL, SA, CL, SA, SA, SA, CL], // S-ACK-SENT
    [RJ, IN, RJ, CL, RJ, RJ, RJ, RJ, RJ, RJ], // REJECTED
    [CL, IN, CL, CL, CL, CL, CL, CL, CL, CL], // CLOSED
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of chunks (type, length as told, bytes of body).
    fn packet(chunks: &[(u8, u16, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; COMMON_HEADER_BYTES];
        for &(kind, length, body) in chunks {
            bytes.extend([kind, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![0; body]);
        }
        bytes
    }

    #[test]
    fn only_an_abort_right_behind_a_cookie_overrules_the_first_chunk() {
        for (what, chunks, want) in [
            ("one chunk", &[(1, 20, 16)][..], 1),
            ("COOKIE ECHO, ABORT", &[(10, 8, 4), (6, 4, 0)], 6),
            ("COOKIE ACK, ABORT", &[(11, 4, 0), (6, 4, 0)], 6),
            ("padded COOKIE ECHO, ABORT", &[(10, 5, 4), (6, 4, 0)], 6),
            ("ABORT of length 0", &[(10, 8, 4), (6, 0, 0)], 6),
            ("COOKIE ECHO, DATA", &[(10, 8, 4), (0, 8, 4)], 10),
            ("ABORT third", &[(10, 8, 4), (0, 8, 4), (6, 4, 0)], 10),
            ("DATA, ABORT", &[(0, 8, 4), (6, 4, 0)], 0),
            ("INIT, ABORT", &[(1, 8, 4), (6, 4, 0)], 1),
            ("COOKIE ECHO of length 3", &[(10, 3, 0), (6, 4, 0)], 10),
            ("length past the end", &[(10, 65535, 4), (6, 4, 0)], 10),
        ] {
            assert_eq!(event_chunk(&packet(chunks)), Some(want), "{what}");
        }
    }

    #[test]
    fn a_packet_without_a_chunk_is_no_event() {
        for length in 0..COMMON_HEADER_BYTES + CHUNK_HEADER_BYTES {
            assert_eq!(event_chunk(&vec![10; length]), None, "{length} bytes");
        }
    }
}
