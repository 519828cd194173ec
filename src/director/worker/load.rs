//! How busy a worker is: the share of time in which it has frames in hand.
//!
//! The clock is read when frames come after none, when none come after frames, and
//! [`TICKS_PER_S`](dataplane::time::TICKS_PER_S) times a second in between. So the more
//! frames there are, the less one of them pays for it: at full load nothing.

use dataplane::counters::Counters;
use dataplane::time::Ticks;

use crate::director::clock;

/// Watches one worker.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Since when there are frames that were not counted, ns; none without frames.
    since_ns: Option<u64>,
    /// When it was last counted.
    counted: Ticks,
}

impl Load {
    /// There are frames.
    #[inline]
    pub(super) fn begin(&mut self) {
        if self.since_ns.is_none() {
            self.since_ns = Some(clock::monotonic_ns());
        }
    }

    /// A turn is over, with frames or without.
    #[inline]
    pub(super) fn end_turn(&mut self, has_frames: bool, now: Ticks, counters: &Counters) {
        let Some(since_ns) = self.since_ns else {
            return;
        };
        if has_frames && self.counted == now {
            return;
        }
        let now_ns = clock::monotonic_ns();
        counters.busy(now_ns.saturating_sub(since_ns));
        self.since_ns = has_frames.then_some(now_ns);
        self.counted = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_time_with_frames_counts() {
        let counters = Counters::new(0, 0);
        let mut load = Load::default();
        let sleep = || std::thread::sleep(Duration::from_millis(20));
        load.end_turn(false, 1, &counters);
        sleep();
        load.begin();
        assert_eq!(counters.busy_ns(), 0, "idle time");
        sleep();
        load.end_turn(true, 0, &counters);
        load.begin();
        assert_eq!(counters.busy_ns(), 0, "counted with the next tick");
        load.end_turn(true, 1, &counters);
        let first = counters.busy_ns();
        assert!(first >= 20_000_000, "{first}");
        sleep();
        load.end_turn(false, 1, &counters);
        let second = counters.busy_ns();
        assert!(second >= first + 20_000_000, "{second}");
        sleep();
        load.end_turn(false, 2, &counters);
        assert_eq!(counters.busy_ns(), second, "idle again");
    }
}
