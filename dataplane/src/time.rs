//! Time as the packet path counts it.

/// Moments are counted in ticks of 1/16 s of the system's monotonic clock: fine enough
/// for timeouts of whole seconds, and 32 bits last eight years.
pub const TICKS_PER_S: u32 = 16;

/// A moment, or a length of time, in ticks. Compare moments with [`is_due`]: they wrap.
pub type Ticks = u32;

/// Whether the moment `at` has come at `now`.
pub const fn is_due(at: Ticks, now: Ticks) -> bool {
    now.wrapping_sub(at) as i32 >= 0
}

/// A length of time in ticks; saturates at 2^31 - 1 (over four years).
#[inline]
pub const fn ticks(seconds: u32) -> Ticks {
    let t = seconds as u64 * TICKS_PER_S as u64;
    if t > i32::MAX as u64 {
        i32::MAX as u32
    } else {
        t as u32
    }
}
