//! SCTP
use super::Direction;
/// x
pub const NONE: u8 = 0;
/// x
pub const ESTABLISHED: u8 = 8;
const STATES: usize = 14;
/// to be measured
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
/// x
pub fn next(state: u8, direction: Direction, chunk: u8) -> u8 {
    let _ = (direction, chunk);
    state
}
pub(super) fn index(state: u8) -> usize {
    if usize::from(state) < STATES {
        usize::from(state)
    } else {
        0
    }
}
