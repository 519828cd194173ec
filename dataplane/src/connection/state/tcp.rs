//! TCP: one event per packet, the first of RST, SYN, FIN and ACK that it bears, picks the
//! next state. Loose by design: a director sees packets, not the endpoints' minds, and
//! under direct routing only half of them. A packet with none of the four flags closes.

use super::Direction;

/// Nothing seen yet; only sloppy connections pass through it.
pub const NONE: u8 = 0;
/// Data may flow.
pub const ESTABLISHED: u8 = 1;
/// The real server sent the SYN.
pub const SYN_SENT: u8 = 2;
/// The client sent a SYN.
pub const SYN_RECV: u8 = 3;
/// The real server sent a FIN (or, where replies are not seen, the client).
pub const FIN_WAIT: u8 = 4;
/// Both sides sent a FIN.
pub const TIME_WAIT: u8 = 5;
/// Reset, or closed.
pub const CLOSE: u8 = 6;
/// The client sent a FIN.
pub const CLOSE_WAIT: u8 = 7;
/// Waiting for the last ACK; entered by no packet, only by synchronisation.
pub const LAST_ACK: u8 = 8;
/// Listening; entered by no packet, only by synchronisation.
pub const LISTEN: u8 = 9;
/// Under `secure_tcp`: a SYN that was answered, or one whose answer cannot be seen.
pub const SYNACK: u8 = 10;

const STATES: usize = 11;

/// How long each state may idle, s; ESTABLISHED and FIN_WAIT are the defaults of `--set`.
pub(super) const TIMEOUTS_S: [u32; STATES] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

pub(super) const NAMES: [&str; STATES] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];

/// The flags' bits in the header (RFC 9293, section 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The state after a packet with `flags` (the header's flag byte). `secure` is the table
/// that `secure_tcp` switches on, under which fewer packets make a connection established.
#[inline]
pub fn next(state: u8, direction: Direction, flags: u8, secure: bool) -> u8 {
    let event = match flags {
        f if f & RST != 0 => 3,
        f if f & SYN != 0 => 0,
        f if f & FIN != 0 => 1,
        f if f & ACK != 0 => 2,
        _ => return CLOSE,
    };
    let steps = match (direction, secure) {
        (Direction::Input, false) => &INPUT,
        (Direction::Output, false) => &OUTPUT,
        (Direction::InputOnly, false) => &INPUT_ONLY,
        (Direction::Input, true) => &SECURE_INPUT,
        (Direction::Output, true) => &SECURE_OUTPUT,
        (Direction::InputOnly, true) => &SECURE_INPUT_ONLY,
    };
    steps[index(state)][event]
}

/// Any number as a state's place in a table; numbers that are no state count as NONE.
pub(super) fn index(state: u8) -> usize {
    if usize::from(state) < STATES {
        usize::from(state)
    } else {
        0
    }
}

/// Next states by state, then by SYN, FIN, ACK, RST.
type Steps = [[u8; 4]; STATES];

const ES: u8 = ESTABLISHED;
const SS: u8 = SYN_SENT;
const SR: u8 = SYN_RECV;
const FW: u8 = FIN_WAIT;
const TW: u8 = TIME_WAIT;
const CL: u8 = CLOSE;
const CW: u8 = CLOSE_WAIT;
const LA: u8 = LAST_ACK;
const LI: u8 = LISTEN;
const SA: u8 = SYNACK;

#[rustfmt::skip]
const INPUT: Steps = [
    // SYN FIN ACK RST
    [SR, CL, ES, CL], // NONE
    [ES, CW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, ES, SR], // SYN_RECV
    [SR, TW, FW, CL], // FIN_WAIT
    [SR, TW, TW, CL], // TIME_WAIT
    [SR, CL, CL, CL], // CLOSE
    [SR, CW, CW, CL], // CLOSE_WAIT
    [SR, LA, CL, LA], // LAST_ACK
    [SR, LI, LI, LI], // LISTEN
    [SR, TW, ES, SR], // SYNACK
];

#[rustfmt::skip]
const OUTPUT: Steps = [
    // SYN FIN ACK RST
    [SS, TW, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [SS, SS, SS, SS], // SYN_SENT
    [SR, TW, ES, CL], // SYN_RECV
    [SS, FW, FW, CL], // FIN_WAIT
    [SS, TW, TW, TW], // TIME_WAIT
    [SS, CL, CL, CL], // CLOSE
    [SS, TW, CW, CL], // CLOSE_WAIT
    [SS, LA, LA, CL], // LAST_ACK
    [LI, LI, ES, CL], // LISTEN
    [SR, TW, ES, CL], // SYNACK
];

#[rustfmt::skip]
const INPUT_ONLY: Steps = [
    // SYN FIN ACK RST
    [SR, CL, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, ES, SR], // SYN_RECV
    [SR, FW, FW, CL], // FIN_WAIT
    [SR, TW, TW, CL], // TIME_WAIT
    [SR, CL, CL, CL], // CLOSE
    [SR, CW, CW, CL], // CLOSE_WAIT
    [SR, LA, CL, LA], // LAST_ACK
    [SR, LI, LI, LI], // LISTEN
    [SR, TW, ES, CL], // SYNACK
];

#[rustfmt::skip]
const SECURE_INPUT: Steps = [
    // SYN FIN ACK RST
    [SR, CL, ES, CL], // NONE
    [ES, CW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, SR, SR], // SYN_RECV
    [SR, TW, FW, CL], // FIN_WAIT
    [SR, TW, TW, CL], // TIME_WAIT
    [SR, CL, CL, CL], // CLOSE
    [SR, CW, CW, CL], // CLOSE_WAIT
    [SR, LA, CL, LA], // LAST_ACK
    [SR, LI, LI, LI], // LISTEN
    [SA, SA, SA, CL], // SYNACK
];

#[rustfmt::skip]
const SECURE_OUTPUT: Steps = [
    // SYN FIN ACK RST
    [SS, TW, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [SS, SS, SS, SS], // SYN_SENT
    [SA, TW, ES, CL], // SYN_RECV
    [SS, FW, FW, CL], // FIN_WAIT
    [SS, TW, TW, TW], // TIME_WAIT
    [SS, CL, CL, CL], // CLOSE
    [SS, TW, CW, CL], // CLOSE_WAIT
    [SS, LA, LA, CL], // LAST_ACK
    [LI, LI, ES, CL], // LISTEN
    [SA, TW, ES, CL], // SYNACK
];

#[rustfmt::skip]
const SECURE_INPUT_ONLY: Steps = [
    // SYN FIN ACK RST
    [SA, CL, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, ES, SR], // SYN_RECV
    [SA, FW, FW, CL], // FIN_WAIT
    [SA, TW, TW, CL], // TIME_WAIT
    [SA, CL, CL, CL], // CLOSE
    [SA, CW, CW, CL], // CLOSE_WAIT
    [SA, LA, CL, LA], // LAST_ACK
    [SA, LI, LI, LI], // LISTEN
    [SA, TW, ES, CL], // SYNACK
];
