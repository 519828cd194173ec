//! The dataplane's director and the host's queue as a worker sees them.

use dataplane::counters::Counters;
use dataplane::director::Director;
use dataplane::director::known::Glance;
use dataplane::frame::Frame;
use dataplane::hops::Way;
use dataplane::snapshot::Snapshot;
use dataplane::time::Ticks;
use dataplane::verdict::{Reason, Verdict};

use crate::director::host::HostQueue;
use crate::director::worker::{Handle, HostPort};

impl HostPort for HostQueue {
    fn deliver(&mut self, frame: &mut Frame<'_>) -> Result<(), Reason> {
        HostQueue::deliver(self, frame)
    }
}

impl Handle for Director {
    fn handle(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        Director::handle(self, snapshot, now, frame)
    }

    fn glance(&self, snapshot: &Snapshot, frame: &Frame<'_>, glance: &mut Glance) {
        Director::glance(self, snapshot, frame, glance);
    }

    fn expect_partial(&mut self, may_come: bool) {
        Director::expect_partial(self, may_come);
    }

    fn reach(&self, glance: &mut Glance) {
        Director::reach(self, glance);
    }

    fn handle_glanced(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Verdict {
        Director::handle_glanced(self, snapshot, now, frame, glance)
    }

    fn finish(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>, way: Way) -> Verdict {
        Director::finish(self, snapshot, frame, way)
    }

    fn give_up(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        Director::give_up(self, snapshot, now, frame)
    }

    fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool {
        Director::next_piece(self, piece)
    }

    fn tidy(&mut self, snapshot: &Snapshot, now: Ticks) {
        Director::tidy(self, snapshot, now);
    }

    fn counters(&self) -> &Counters {
        Director::counters(self)
    }
}
