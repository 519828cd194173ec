//! What a director did between two samples.

use sched::server::{ServerKey, ServerSpec};
use sched::service::{ServiceKey, ServiceSpec};
use serde::{Serialize, Serializer};

use crate::api::{Sample, ServerRow, ServiceRow, Stats, WorkerRow};

/// What was going on.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// The director's version.
    pub version: String,
    /// How long the director runs, s.
    #[serde(serialize_with = "rounded")]
    pub up_s: f64,
    /// The time between the samples, s; none after the first one: nothing has a rate then.
    pub over_s: Option<f64>,
    /// The most connections.
    pub connections_max: u64,
    /// All services together.
    pub total: Traffic,
    /// Each service, in the order of listings.
    pub services: Vec<ServiceReading>,
    /// Each counter, drop reasons first.
    pub counters: Vec<CounterReading>,
    /// Each worker.
    pub workers: Vec<WorkerReading>,
}

/// Live connections, and what passes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Live connections that count as active.
    pub active: u64,
    /// All other live connections.
    pub inactive: u64,
    /// Connections begun, per second.
    #[serde(serialize_with = "rounded")]
    pub connections_per_s: f64,
    /// Packets from clients, per second.
    #[serde(serialize_with = "rounded")]
    pub in_packets_per_s: f64,
    /// Packets to clients, per second.
    #[serde(serialize_with = "rounded")]
    pub out_packets_per_s: f64,
    /// Bytes from clients, per second.
    #[serde(serialize_with = "rounded")]
    pub in_bytes_per_s: f64,
    /// Bytes to clients, per second.
    #[serde(serialize_with = "rounded")]
    pub out_bytes_per_s: f64,
}

impl Traffic {
    /// The rates, in the order of their columns.
    pub fn rates(&self) -> [f64; 5] {
        [
            self.connections_per_s,
            self.in_packets_per_s,
            self.out_packets_per_s,
            self.in_bytes_per_s,
            self.out_bytes_per_s,
        ]
    }
}

/// One service.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceReading {
    /// Which.
    pub service: ServiceKey,
    /// What it is.
    pub spec: ServiceSpec,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Its servers.
    pub servers: Vec<ServerReading>,
}

/// One real server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerReading {
    /// Which.
    pub server: ServerKey,
    /// What it is.
    pub spec: ServerSpec,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CounterReading {
    /// Its name, as `lvx counters` has it.
    pub name: String,
    /// All since the director began.
    pub total: u64,
    /// Per second.
    #[serde(serialize_with = "rounded")]
    pub per_s: f64,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerReading {
    /// Its number.
    pub worker: usize,
    /// Its core.
    pub core: usize,
    /// The share of time in which it had frames in hand, 0 to 1.
    #[serde(serialize_with = "rounded")]
    pub busy_share: f64,
    /// Frames received, per second.
    #[serde(serialize_with = "rounded")]
    pub received_per_s: f64,
    /// Frames sent, per second.
    #[serde(serialize_with = "rounded")]
    pub sent_per_s: f64,
    /// Frames given to the host, per second.
    #[serde(serialize_with = "rounded")]
    pub to_host_per_s: f64,
    /// Frames dropped, per second.
    #[serde(serialize_with = "rounded")]
    pub dropped_per_s: f64,
}

/// More digits say no more.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1000.0).round() / 1000.0)
}

impl Traffic {
    /// All live connections.
    pub fn live(&self) -> u64 {
        self.active + self.inactive
    }

    /// Packets both ways, per second.
    pub fn packets_per_s(&self) -> f64 {
        self.in_packets_per_s + self.out_packets_per_s
    }

    fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.inactive += other.inactive;
        self.connections_per_s += other.connections_per_s;
        self.in_packets_per_s += other.in_packets_per_s;
        self.out_packets_per_s += other.out_packets_per_s;
        self.in_bytes_per_s += other.in_bytes_per_s;
        self.out_bytes_per_s += other.out_bytes_per_s;
    }
}

impl CounterReading {
    /// Whether it counts frames that were lost.
    pub fn is_drop(&self) -> bool {
        self.name.starts_with("drop_") || self.name == "steering_dropped"
    }
}

/// How counters move between two samples.
#[derive(Clone, Copy)]
struct Pace(Option<f64>);

impl Pace {
    /// What was set back to zero in between did nothing.
    fn of(self, before: Option<u64>, now: u64) -> f64 {
        match (self.0, before) {
            (Some(over_s), Some(before)) => now.saturating_sub(before) as f64 / over_s,
            _ => 0.0,
        }
    }

    fn traffic(self, before: Option<&Stats>, now: &Stats) -> Traffic {
        let of = |part: fn(&Stats) -> u64| self.of(before.map(part), part(now));
        Traffic {
            active: 0,
            inactive: 0,
            connections_per_s: of(|s| s.connections),
            in_packets_per_s: of(|s| s.in_packets),
            out_packets_per_s: of(|s| s.out_packets),
            in_bytes_per_s: of(|s| s.in_bytes),
            out_bytes_per_s: of(|s| s.out_bytes),
        }
    }
}

impl Reading {
    /// What went on between two samples. Where the earlier one is missing, or is another
    /// director's, there are no rates.
    pub fn between(before: Option<&Sample>, now: &Sample) -> Self {
        let before = before.filter(|before| before.at_ns < now.at_ns);
        let over_s = before.map(|before| (now.at_ns - before.at_ns) as f64 / 1e9);
        let pace = Pace(over_s);
        let mut known: std::collections::HashMap<ServiceKey, &ServiceRow> = Default::default();
        known.extend(
            before
                .iter()
                .flat_map(|b| &b.table.services)
                .map(|row| (row.service, row)),
        );
        let rows = now.table.services.iter();
        let mut services: Vec<_> = rows
            .map(|row| service(pace, known.get(&row.service).copied(), row))
            .collect();
        services.sort_by_key(|row| row.service);
        let mut total = Traffic::default();
        services.iter().for_each(|row| total.add(&row.traffic));
        let workers = now.workers.iter().map(|row| {
            let before = before.and_then(|b| b.workers.iter().find(|w| w.worker == row.worker));
            worker(pace, before, row)
        });
        Self {
            version: now.table.version.clone(),
            up_s: now.up_ns as f64 / 1e9,
            over_s,
            connections_max: now.table.size,
            total,
            services,
            counters: counters(pace, before, now),
            workers: workers.collect(),
        }
    }

    /// Frames lost, per second.
    pub fn drops_per_s(&self) -> f64 {
        let drops = self.counters.iter().filter(|counter| counter.is_drop());
        drops.map(|counter| counter.per_s).sum()
    }

    /// Frames lost since the director began.
    pub fn drops(&self) -> u64 {
        let drops = self.counters.iter().filter(|counter| counter.is_drop());
        drops.map(|counter| counter.total).sum()
    }
}

fn service(pace: Pace, before: Option<&ServiceRow>, now: &ServiceRow) -> ServiceReading {
    let mut known: std::collections::HashMap<ServerKey, &ServerRow> = Default::default();
    known.extend(
        before
            .iter()
            .flat_map(|b| &b.servers)
            .map(|row| (row.server, row)),
    );
    let mut traffic = pace.traffic(before.map(|row| &row.stats), &now.stats);
    let rows = now.servers.iter().map(|row| {
        let before = known.get(&row.server);
        ServerReading {
            server: row.server,
            spec: row.spec,
            traffic: Traffic {
                active: row.active.into(),
                inactive: row.inactive.into(),
                ..pace.traffic(before.map(|row| &row.stats), &row.stats)
            },
        }
    });
    let mut servers: Vec<_> = rows.collect();
    servers.sort_by_key(|row| row.server);
    traffic.active = servers.iter().map(|row| row.traffic.active).sum();
    traffic.inactive = servers.iter().map(|row| row.traffic.inactive).sum();
    ServiceReading {
        service: now.service,
        spec: now.spec.clone(),
        traffic,
        servers,
    }
}

fn worker(pace: Pace, before: Option<&WorkerRow>, now: &WorkerRow) -> WorkerReading {
    let of = |part: fn(&WorkerRow) -> u64| pace.of(before.map(part), part(now));
    WorkerReading {
        worker: now.worker,
        core: now.core,
        // The worker counts some sixteen times a second: a short sample may hold more.
        busy_share: (of(|w| w.busy_ns) / 1e9).min(1.0),
        received_per_s: of(|w| w.received),
        sent_per_s: of(|w| w.sent),
        to_host_per_s: of(|w| w.to_host),
        dropped_per_s: of(|w| w.dropped),
    }
}

fn counters(pace: Pace, before: Option<&Sample>, now: &Sample) -> Vec<CounterReading> {
    let rows = now.counters.iter().map(|(name, &total)| CounterReading {
        name: name.clone(),
        total,
        per_s: pace.of(
            before.map(|b| b.counters.get(name).copied().unwrap_or(0)),
            total,
        ),
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| !row.is_drop());
    rows
}
