//! What those who look get: control's state as it is at one moment. It shares with control
//! all that neither changes, so that taking it costs control next to nothing; listings and
//! trials of commands are worked out from it on other threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use cli::api::{Commit, Part, PlacesRow, ServerRow, ServiceRow, Table, Waiting, WorkerRow};
use dataplane::address::bits;
use dataplane::counters::Counters;
use dataplane::hops::{Hops, Way};
use sched::command::{Command, Refusal};
use sched::server::RealServer;
use sched::service::{Family, Service};

use super::permit;
use super::state::State;
use crate::director::clock;
use crate::director::state_dir::document::SavedWaiting;
use crate::director::statistics::Statistics;

/// All that can be looked at.
#[derive(Clone, Debug)]
pub struct Look {
    /// Services, servers, marks, prefixes, tunables.
    pub state: State,
    /// The host's routing.
    pub hops: Hops,
    /// Counters and rates.
    pub statistics: Statistics,
    /// Each worker's counters, which go on counting.
    pub counters: Vec<Arc<Counters>>,
    /// The connection table's size, as listings show it.
    pub size: u64,
    /// Whether services whose address is not the host's are refused.
    pub require_local: bool,
    /// The commit that waits, and until when.
    pub waiting: Option<(Instant, Arc<SavedWaiting>)>,
}

/// All that moves, at one moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When, ns since the system's start.
    pub at_ns: u64,
    /// How long the director had run, ns.
    pub up_ns: u64,
    /// Services and servers.
    pub look: Look,
    /// Every counter.
    pub counters: BTreeMap<String, u64>,
    /// The workers, in order.
    pub workers: Vec<WorkerRow>,
    /// The connection table's places.
    pub places: PlacesRow,
}

/// Which counts a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// As of the last estimate, as IPVS does.
    Estimated,
    /// Of this moment.
    Live,
}

impl Look {
    /// The table without its services.
    pub fn head(&self) -> Table {
        Table {
            version: env!("CARGO_PKG_VERSION").into(),
            size: self.size,
            timeouts: self.state.settings.timeouts(),
            daemons: Vec::new(),
            services: Vec::new(),
        }
    }

    /// The services of a part of the table.
    pub fn services(&self, part: &Part) -> Vec<Arc<Service>> {
        let table = &self.state.table;
        match part {
            Part::All => table.services().cloned().collect(),
            Part::NoServices => Vec::new(),
            Part::Service(key) => table.service(key).cloned().into_iter().collect(),
        }
    }

    /// The whole of a part of the table.
    pub fn table(&self, part: &Part) -> Table {
        let counts = Counts::Estimated;
        let services = self.services(part).into_iter().map(|service| ServiceRow {
            servers: service
                .servers
                .iter()
                .map(|server| self.server_row(server, counts))
                .collect(),
            ..self.service_row(&service, counts)
        });
        Table {
            services: services.collect(),
            ..self.head()
        }
    }

    /// A service without its servers.
    pub fn service_row(&self, service: &Service, counts: Counts) -> ServiceRow {
        let (estimated, rates) = self.statistics.service(service.id);
        let stats = match counts {
            Counts::Estimated => estimated,
            Counts::Live => self.statistics.live_service(service.id, &self.counters),
        };
        ServiceRow {
            service: service.key,
            spec: service.spec.clone(),
            limits: service.limiter.as_ref().map(|limiter| *limiter.limits()),
            stats,
            rates,
            servers: Vec::new(),
        }
    }

    /// A server.
    pub fn server_row(&self, server: &RealServer, counts: Counts) -> ServerRow {
        let (estimated, rates) = self.statistics.server(server.id);
        let stats = match counts {
            Counts::Estimated => estimated,
            Counts::Live => self.statistics.live_server(server.id, &self.counters),
        };
        let address = server.key.address;
        let way = self.hops.lookup(Family::of(address), bits(address));
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

    /// The tunables.
    pub fn tunables(&self) -> BTreeMap<String, String> {
        let values = self.state.settings.values().iter();
        values
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    /// The commit that waits.
    pub fn commit(&self) -> Commit {
        let waiting = self.waiting.as_ref().map(|(until, saved)| Waiting {
            left_s: left_s(*until),
            undo: saved.undo.clone(),
        });
        Commit { waiting }
    }

    /// What commands, all or none, would come to: done, or the place of the one that is
    /// refused and why.
    pub fn check(&self, commands: &[Command]) -> Result<(), (usize, Refusal)> {
        let permit = permit(&self.hops, self.require_local);
        let trial = self
            .state
            .trial(commands, clock::monotonic().as_secs(), &permit);
        trial.map(|_| ())
    }
}

/// The time until a moment, rounded up, s.
pub(super) fn left_s(until: Instant) -> u32 {
    let left = until.saturating_duration_since(Instant::now());
    left.as_millis().div_ceil(1000) as u32
}
