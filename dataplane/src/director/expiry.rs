//! Connections' ends by timeout, a bounded amount at a time.

use super::follow::end;
use super::{Director, Moment};
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
        if now == self.tidied {
            return;
        }
        self.tidied = now;
        self.tidy_fragments(now);
        self.sweep(Moment { snapshot, now });
    }

    fn tidy_fragments(&mut self, now: Ticks) {
        let Some(reassembly) = &mut self.reassembly else {
            return;
        };
        let (late, evicted) = (reassembly.tidy(now), reassembly.evicted());
        (0..late).for_each(|_| self.counters.dropped(Reason::FragmentTimeout));
        (0..evicted).for_each(|_| self.counters.dropped(Reason::FragmentLimit));
    }

    fn sweep(&mut self, moment: Moment<'_>) {
        let (table, cache) = (&self.table, &mut self.cache);
        let counters = &self.counters;
        let budget = table.sweep_budget(cache, moment.now);
        table.sweep(cache, moment.now, budget, |table, cache, handle| {
            let connection = table.view(handle);
            if connection.controlled() > 0 {
                connection.set_timeout(moment.now, ticks(TEMPLATE_RESPITE_S));
            } else {
                counters.event(Event::Expired, 1);
                end(table, cache, moment, handle);
            }
        });
    }
}
