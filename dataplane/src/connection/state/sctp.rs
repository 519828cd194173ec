//! SCTP: one event per packet, the type of its first chunk. Verification tags are not
//! checked; without replies in sight (direct routing) the client's chunks stand for both.

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

/// Chunk types that matter, in the tables' order (RFC 9260, section 3.2); all others
/// (DATA, SACK, HEARTBEAT, and what is unknown) count alike.
fn column(chunk: u8) -> usize {
    match chunk {
        1 => 1,
        2 => 2,
        6 => 3,
        7 => 4,
        8 => 5,
        9 => 6,
        10 => 7,
        11 => 8,
        14 => 9,
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
