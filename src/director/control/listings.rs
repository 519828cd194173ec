//! What control tells of its state: services and servers, counters, and all that moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cli::api::{FramesRow, Part, Sample, ServerRow, ServiceRow, Table, WorkerRow};
use dataplane::address::bits;
use dataplane::counters::{Counters, Event};
use dataplane::hops::Way;
use dataplane::verdict::Reason;
use sched::command::Limited;
use sched::server::RealServer;
use sched::service::{Family, Service};

use super::Control;
use crate::director::clock;

impl Control {
    pub(super) fn table(&self) -> Table {
        self.table_part(&Part::All)
    }

    pub(super) fn table_part(&self, part: &Part) -> Table {
        let table = &self.state.table;
        let services: Vec<_> = match part {
            Part::All => table.services().collect(),
            Part::NoServices => Vec::new(),
            Part::Service(key) => table.service(key).into_iter().collect(),
        };
        Table {
            version: env!("CARGO_PKG_VERSION").into(),
            size: self.size,
            timeouts: self.state.settings.timeouts(),
            daemons: Vec::new(),
            services: services.into_iter().map(|s| self.service_row(s)).collect(),
        }
    }

    fn service_row(&self, service: &Service) -> ServiceRow {
        let (stats, rates) = self.statistics.service(service.id);
        ServiceRow {
            service: service.key,
            spec: service.spec.clone(),
            limits: service.limiter.as_ref().map(|limiter| *limiter.limits()),
            stats,
            rates,
            servers: service.servers.iter().map(|s| self.server_row(s)).collect(),
        }
    }

    fn server_row(&self, server: &RealServer) -> ServerRow {
        let (stats, rates) = self.statistics.server(server.id);
        let address = server.key.address;
        let way = self.view.hops.lookup(Family::of(address), bits(address));
        ServerRow {
            server: server.key,
            spec: server.spec,
            local: way == Way::Local,
            active: server.load.active.load(Relaxed),
            inactive: server.load.inactive.load(Relaxed),
            persistent: server.load.persistent.load(Relaxed),
            stats,
            rates,
        }
    }

    pub(super) fn sample(&mut self) -> Sample {
        let mut table = self.table();
        let rows = table.services.iter_mut().zip(self.state.table.services());
        for (row, service) in rows {
            row.stats = self.statistics.live_service(service.id, &self.counters);
            for (row, server) in row.servers.iter_mut().zip(&service.servers) {
                row.stats = self.statistics.live_server(server.id, &self.counters);
            }
        }
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
        Sample {
            at_ns: clock::monotonic_ns(),
            table,
            counters,
            workers: workers.map(worker).collect(),
            places: self.plant.places(),
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
