//! What control tells of itself: a look at its state, counters, and all that moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use cli::api::{FramesRow, WorkerRow};
use dataplane::counters::{Counters, Event};
use dataplane::verdict::Reason;
use sched::command::Limited;

use super::Control;
use super::look::{Look, Moment};
use crate::director::clock;

impl Control {
    /// All that can be looked at, now.
    pub(super) fn look(&self) -> Look {
        Look {
            state: self.state.clone(),
            hops: self.view.hops.clone(),
            statistics: self.statistics.clone(),
            counters: self.counters.clone(),
            size: self.size,
            require_local: self.require_local,
            waiting: self.waiting.as_ref().map(super::trial::Waiting::shared),
        }
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> cli::api::Table {
        self.look().table(&cli::api::Part::All)
    }

    pub(super) fn sample(&mut self) -> Moment {
        let counters = self.all_counters();
        let workers = self.counters.iter().zip(&self.cores).enumerate();
        let worker = |(worker, (counters, &core)): (usize, (&Arc<Counters>, &usize))| WorkerRow {
            worker,
            core,
            busy_ns: counters.busy_ns(),
            received: counters.events(Event::Received),
            sent: counters.events(Event::Sent),
            to_host: counters.events(Event::ToHost),
            dropped: counters.dropped_in_all(),
            frames: frames_row(counters),
        };
        let at_ns = clock::monotonic_ns();
        Moment {
            at_ns,
            up_ns: at_ns.saturating_sub(self.begun_ns),
            counters,
            workers: workers.map(worker).collect(),
            places: self.plant.places(),
            look: self.look(),
        }
    }

    pub(super) fn all_counters(&mut self) -> BTreeMap<String, u64> {
        let sum = |count: &dyn Fn(&Counters) -> u64| self.counters.iter().map(|c| count(c)).sum();
        let mut all = BTreeMap::new();
        for &reason in Reason::ALL {
            all.insert(format!("drop_{}", reason.name()), sum(&|c| c.drops(reason)));
        }
        for &event in Event::ALL {
            all.insert(event.name().to_owned(), sum(&|c| c.events(event)));
        }
        for limited in Limited::ALL {
            let times = self.limited.get(&limited).copied().unwrap_or(0);
            all.insert(counter_of(limited).to_owned(), times);
        }
        all.insert("ports_away".to_owned(), self.ports_away());
        all.extend(self.plant.counters());
        all
    }
}

fn counter_of(limited: Limited) -> &'static str {
    match limited {
        Limited::Services => "limit_services",
        Limited::Servers => "limit_servers",
        Limited::Prefixes => "limit_prefixes",
        Limited::Marks => "limit_marks",
    }
}

fn frames_row(counters: &Counters) -> FramesRow {
    let frames = counters.frames();
    FramesRow {
        total: frames.total,
        free: frames.free,
        in_rings: frames.in_rings,
        waiting: frames.waiting,
    }
}
