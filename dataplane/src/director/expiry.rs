//! Connections' ends by timeout, a bounded amount at a time.

use super::follow::end;
use super::{Director, Moment};
use crate::connection::table::{Key, Table};
use crate::counters::Event;
use crate::snapshot::{ServerSlot, Snapshot};
use crate::time::{Ticks, ticks};
use crate::verdict::Reason;

/// How long a template stays whose time has come while connections still name it, s
/// (Linux's `ip_vs_conn_expire`).
const TEMPLATE_RESPITE_S: u32 = 60;

/// Entries looked at in one step of a purge.
const PURGE_STEP: u32 = 256;

/// A pass over the table that ends the connections of servers that are gone
/// (`expire_nodest_conn`; Linux's `ip_vs_expire_nodest_conn_flush`). Each worker takes
/// every so manieth step.
#[derive(Debug)]
pub(super) struct Purge {
    worker: u32,
    /// The snapshot that the pass belongs to.
    generation: u64,
    /// The next step; none where the pass is done.
    step: Option<u32>,
}

impl Purge {
    pub(super) fn new(worker: usize) -> Self {
        Self {
            worker: worker as u32,
            generation: 0,
            step: None,
        }
    }

    /// The entries to look at now.
    fn next(&mut self, snapshot: &Snapshot, table: &Table) -> Option<std::ops::Range<u32>> {
        if self.generation != snapshot.generation {
            self.generation = snapshot.generation;
            let is_due = snapshot.tunables.expire_nodest_conn && snapshot.has_removed();
            self.step = is_due.then_some(self.worker);
        }
        let step = self.step?;
        let first = step.checked_mul(PURGE_STEP)?;
        let end = table.high_water().min(first.saturating_add(PURGE_STEP));
        self.step = (first < end).then(|| step + table.workers() as u32);
        Some(first..end)
    }
}

impl Director {
    /// Once per burst, also when idle: ends what has expired, a bounded amount at a time.
    pub fn tidy(&mut self, snapshot: &Snapshot, now: Ticks) {
        self.table.quiesce(&mut self.cache);
        self.purge(Moment { snapshot, now });
        if now == self.tidied {
            return;
        }
        self.tidied = now;
        self.tidy_fragments(now);
        snapshot.hops.path_mtus().tidy(now);
        self.sweep(Moment { snapshot, now });
    }

    fn purge(&mut self, moment: Moment<'_>) {
        let Some(entries) = self.purge.next(moment.snapshot, &self.table) else {
            return;
        };
        let is_gone = |slot: &ServerSlot| !slot.server.available;
        for index in entries {
            let Some(row) = self.table.read(index) else {
                continue;
            };
            let server = moment.snapshot.server(row.server);
            if server.is_some_and(is_gone) && row.controlled == 0 {
                self.purge_entry(moment, &row.key);
            }
        }
    }

    /// Ends an entry, and its template if no other connection names that.
    fn purge_entry(&mut self, moment: Moment<'_>, key: &Key) {
        let Some(handle) = self.table.find(key) else {
            return;
        };
        let template = self.table.view(handle).template();
        self.end(moment, handle);
        if let Some(template) = template
            && self.table.view(template).controlled() == 0
        {
            self.end(moment, template);
        }
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
