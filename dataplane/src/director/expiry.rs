//! Connections' ends by timeout, a bounded amount at a time.

use super::{Director, Moment};
use crate::connection::table::Handle;
use crate::counters::Event;
use crate::snapshot::Snapshot;
use crate::time::{Ticks, ticks};
use crate::verdict::Reason;

/// How long a template stays whose time has come while connections still name it, s
/// (Linux's `ip_vs_conn_expire`).
const TEMPLATE_RESPITE_S: u32 = 60;

impl Director {
    /// Once per burst, also when idle: ends what has expired, a bounded amount at a time.
    pub fn tidy(&mut self, snapshot: &Snapshot, now: Ticks) {
        self.table.quiesce(&mut self.cache);
        let elapsed = now.wrapping_sub(self.tidied);
        if elapsed == 0 {
            return;
        }
        self.tidied = now;
        let lost = self.reassembly.tidy(now);
        (0..lost).for_each(|_| self.counters.drop(Reason::FragmentTimeout));
        self.sweep(Moment { snapshot, now }, elapsed);
    }

    /// Tells the other workers not to wait for this one: it is about to sleep.
    pub fn pause(&mut self) {
        self.table.pause(&mut self.cache);
    }

    /// Ends a pause, before the next frame is handled.
    pub fn resume(&mut self) {
        self.table.resume(&mut self.cache);
    }

    fn sweep(&mut self, moment: Moment<'_>, elapsed: Ticks) {
        let table = self.table.clone();
        let budget = table.sweep_budget(elapsed);
        let mut cache = std::mem::take(&mut self.cache);
        table.sweep(&mut cache, moment.now, budget, |_, cache, handle| {
            std::mem::swap(&mut self.cache, cache);
            self.expire(moment, handle);
            std::mem::swap(&mut self.cache, cache);
        });
        self.cache = cache;
    }

    fn expire(&mut self, moment: Moment<'_>, handle: Handle) {
        let connection = self.table.view(handle);
        if connection.controlled() > 0 {
            connection.set_timeout(moment.now, ticks(TEMPLATE_RESPITE_S));
            return;
        }
        self.counters.event(Event::Expired, 1);
        self.end(moment, handle);
    }
}
