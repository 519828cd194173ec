//! How busy a worker is: the share of time in which it has frames in hand.
//!
//! Told by the readings that turns begin with: from the first with frames to the first without,
//! and counted [`TICKS_PER_S`](dataplane::time::TICKS_PER_S) times a second in between.

use dataplane::counters::Counters;
use dataplane::time::Ticks;

use crate::director::clock::Reading;

/// Watches one worker.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Since when there are frames that were not counted; none without frames.
    since: Option<Reading>,
    /// When it was last counted.
    counted: Ticks,
}

impl Load {
    /// A turn that began at `now` is over, with frames or without.
    #[inline]
    pub(super) fn end_turn(&mut self, has_frames: bool, now: Reading, counters: &Counters) {
        let Some(since) = self.since else {
            self.since = has_frames.then_some(now);
            return;
        };
        if has_frames && self.counted == now.ticks() {
            return;
        }
        counters.busy(now.since(since).as_nanos() as u64);
        self.since = has_frames.then_some(now);
        self.counted = now.ticks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_with_frames_counts() {
        const TICK_NS: u64 = 62_500_000;
        let rows = [
            ("idle", false, 1, 0),
            ("idle time", true, 3, 0),
            ("counted with the next tick", true, 3, 0),
            ("a tick with frames", true, 4, 1),
            ("the last frames' time", false, 6, 3),
            ("idle again", false, 7, 3),
            ("and busy again", true, 8, 3),
            ("within a tick", false, 9, 4),
        ];
        let counters = Counters::new(0, 0);
        let mut load = Load::default();
        for (what, has_frames, ticks, busy) in rows {
            load.end_turn(has_frames, Reading::of(ticks), &counters);
            assert_eq!(counters.busy_ns(), busy * TICK_NS, "{what}");
        }
    }
}
