//! The one clock: Linux's monotonic clock, in the dataplane's ticks, as a time and in ns. It is
//! the same in all processes, so it goes on when another goes on with the state.

use std::time::Duration;

use dataplane::time::{TICKS_PER_S, Ticks};
use rustix::time::{ClockId, clock_gettime};

/// This moment. Costs some 20 ns (no call into the kernel), so ask once per burst.
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::Monotonic);
    let whole = (time.tv_sec as u64).wrapping_mul(u64::from(TICKS_PER_S));
    let part = time.tv_nsec as u64 * u64::from(TICKS_PER_S) / 1_000_000_000;
    whole.wrapping_add(part) as Ticks
}

/// The time since the system's start.
pub fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The same, ns.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_ticks() {
        let begin = now();
        std::thread::sleep(Duration::from_millis(500));
        let passed = now().wrapping_sub(begin);
        assert!((8..16).contains(&passed), "{passed} ticks in 0.5 s");
    }
}
