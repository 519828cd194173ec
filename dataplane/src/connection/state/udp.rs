//! UDP has one state: there are packets. Replies re-arm the timeout as requests do.

/// The only state.
pub const NORMAL: u8 = 0;

pub(super) const NAME: &str = "UDP";

/// The state after a packet of either direction.
pub fn next(state: u8) -> u8 {
    let _ = state;
    NORMAL
}
