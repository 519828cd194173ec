//! Connections' ends by timeout, a bounded amount at a time.

use sched::service::Protocol;

use super::follow::end;
use super::{Director, Moment};
use crate::connection::state::{sctp, tcp, template};
use crate::connection::table::{Key, Row, Table};
use crate::connection::word::Word;
use crate::counters::Event;
use crate::snapshot::{ServerSlot, Snapshot};
use crate::time::{TICKS_PER_S, Ticks, ticks};
use crate::verdict::Reason;

/// How long a template stays whose time has come while connections still name it, s
/// (Linux's `ip_vs_conn_expire`).
const TEMPLATE_RESPITE_S: u32 = 60;

/// Entries looked at in one step of a purge.
const PURGE_STEP: u32 = 256;

/// While `drop_entry` is in force, one of so many entries is looked at each second (Linux's
/// `ip_vs_random_dropentry`).
const THINNED_SHARE: u32 = 32;

/// Entries looked at for `drop_entry` in one tick.
const THINNED_MAX: u32 = 1024;

/// The value of `drop_entry` that means always.
const ALWAYS: u32 = 3;

/// A worker's place in its share of the table while `drop_entry` is in force. Linux looks
/// at random places; this goes round, so that each entry has its turn in 32 s.
#[derive(Debug, Default)]
pub(super) struct Thinning {
    round: u32,
    /// Looks that are due, times the ticks of a second.
    owed: u64,
}

impl Thinning {
    /// How many entries to look at, `passed` ticks after the last time.
    fn due(&mut self, share: u32, passed: Ticks) -> u32 {
        let a_second = u64::from(TICKS_PER_S);
        self.owed += u64::from(share) * u64::from(passed.min(TICKS_PER_S));
        let looks = (self.owed / a_second).min(THINNED_MAX.into());
        self.owed = (self.owed - looks * a_second).min(u64::from(share) * a_second);
        looks as u32
    }
}

/// A pass over the table that ends the connections of servers that are gone
/// (`expire_nodest_conn`; Linux's `ip_vs_expire_nodest_conn_flush`). Each worker takes
/// every so manieth step.
#[derive(Debug)]
pub(super) struct Purge {
    worker: u32,
    /// The snapshot that the pass belongs to.
    generation: u64,
    /// How many servers were removed then. Only a removal starts a pass: setting
    /// `expire_nodest_conn` leaves what is there to its next packet.
    removed: u32,
    /// The next step; none where the pass is done.
    step: Option<u32>,
}

impl Purge {
    pub(super) fn new(worker: usize) -> Self {
        Self {
            worker: worker as u32,
            generation: 0,
            removed: 0,
            step: None,
        }
    }

    /// The entries to look at now.
    fn next(&mut self, snapshot: &Snapshot, table: &Table) -> Option<std::ops::Range<u32>> {
        if self.generation != snapshot.generation {
            self.generation = snapshot.generation;
            let more = snapshot.removed() > self.removed;
            self.removed = snapshot.removed();
            if more && snapshot.tunables.expire_nodest_conn {
                self.step = Some(self.worker);
            }
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
        self.make_room(Moment { snapshot, now }, now != self.tidied);
        if now == self.tidied {
            return;
        }
        let passed = now.wrapping_sub(self.tidied);
        self.tidied = now;
        self.tidy_fragments(now);
        snapshot.hops.path_mtus().tidy(now);
        self.sweep(Moment { snapshot, now });
        self.thin(Moment { snapshot, now }, passed);
    }

    fn thin(&mut self, moment: Moment<'_>, passed: Ticks) {
        if moment.snapshot.tunables.drop_entry != ALWAYS {
            return;
        }
        let (workers, end) = (self.table.workers() as u32, self.table.high_water());
        let looks = self
            .thinning
            .due(end.div_ceil(THINNED_SHARE * workers), passed);
        for _ in 0..looks {
            let index = self.thinning.round * workers + self.purge.worker;
            self.thinning.round = if index < end {
                self.thinning.round + 1
            } else {
                0
            };
            if let Some(row) = self.table.read(index).filter(is_half_open) {
                self.purge_entry(moment, &row.key);
            }
        }
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
    pub(super) fn purge_entry(&mut self, moment: Moment<'_>, key: &Key) {
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

/// Whether `drop_entry` may end an entry: a handshake that is not complete, or a template
/// whose client was never seen to be real. Linux also ends some established and UDP entries
/// that had at most 8 packets and are idle for a minute; entries do not count packets here.
pub(super) fn is_half_open(row: &Row) -> bool {
    let state = Word(row.word).state();
    row.controlled == 0
        && match Protocol::from_number(row.key.protocol) {
            _ if row.key.template => state != template::ASSURED,
            Some(Protocol::Tcp) => matches!(state, tcp::SYN_RECV | tcp::SYNACK),
            Some(Protocol::Sctp) => matches!(state, sctp::INIT1 | sctp::INIT),
            Some(Protocol::Udp) | None => false,
        }
}
