//! The one branching function: a frame, a snapshot and the time in; a verdict out.

use std::sync::Arc;

use crate::counters::Counters;
use crate::frame::Frame;
use crate::hops::PortId;
use crate::snapshot::Snapshot;
use crate::time::Ticks;
use crate::verdict::Verdict;

/// One worker's director: what it needs beside the shared table and the snapshot.
#[derive(Debug)]
pub struct Director {
    counters: Arc<Counters>,
}

impl Director {
    /// What is to become of `frame`, received on `port`. The frame is rewritten in place.
    pub fn handle(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        port: PortId,
        frame: &mut Frame<'_>,
    ) -> Verdict {
        let _ = (snapshot, now, port, frame, &self.counters);
        Verdict::Host
    }

    /// Offers a frame again that waited for its next hop (`Verdict::Unresolved`): complete
    /// but for its link addresses.
    pub fn finish(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>) -> Verdict {
        let _ = (snapshot, frame);
        Verdict::Host
    }

    /// Writes the next piece of the datagram behind the last `Verdict::Split` into the
    /// empty frame `piece`; false when there are no more.
    pub fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool {
        let _ = piece;
        false
    }

    /// Once per burst, also when idle: ends what has expired, a bounded amount at a time.
    pub fn tidy(&mut self, snapshot: &Snapshot, now: Ticks) {
        let _ = (snapshot, now);
    }
}
