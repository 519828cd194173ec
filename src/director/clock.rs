//! The one clock: Linux's monotonic clock, in the dataplane's ticks, as a time and in ns. It is
//! the same in all processes, so it goes on when another goes on with the state.

use std::time::Duration;

use dataplane::time::{TICKS_PER_S, Ticks};
use rustix::time::{ClockId, clock_gettime};

/// The clock, read once for all that asks for the time together. To read it takes some 30 ns (no
/// call into the kernel), as much as the director takes for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    ns: u64,
}

impl Reading {
    /// Reads the clock.
    #[inline]
    pub fn take() -> Self {
        Self { ns: monotonic_ns() }
    }

    /// What a clock shows at the beginning of a tick.
    #[cfg(test)]
    pub const fn of(ticks: Ticks) -> Self {
        Self {
            ns: (ticks as u64 * NS_PER_S).div_ceil(TICKS_PER_S as u64),
        }
    }

    /// In the dataplane's ticks.
    #[inline]
    pub fn ticks(self) -> Ticks {
        (self.ns * u64::from(TICKS_PER_S) / NS_PER_S) as Ticks
    }

    /// The time since an earlier reading.
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

/// This moment.
pub fn now() -> Ticks {
    Reading::take().ticks()
}

const NS_PER_S: u64 = 1_000_000_000;

/// The time since the system's start.
pub fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The same, ns.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * NS_PER_S + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_a_tick_shows_that_tick() {
        for ticks in [0, 1, 2, 3, 15, 16, 17, 1_000_003, Ticks::MAX] {
            let reading = Reading::of(ticks);
            assert_eq!(reading.ticks(), ticks);
            let before = Reading {
                ns: reading.ns.saturating_sub(1),
            };
            assert_eq!(
                before.ticks(),
                ticks.saturating_sub(1),
                "no later than that"
            );
        }
    }

    #[test]
    fn a_second_has_its_ticks() {
        let begin = now();
        std::thread::sleep(Duration::from_millis(500));
        let passed = now().wrapping_sub(begin);
        assert!((8..16).contains(&passed), "{passed} ticks in 0.5 s");
    }
}
