//! What the view knows, and what a sample does to it. What keys do is in `keys`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sched::command::Command;
use sched::server::ServerKey;
use sched::service::ServiceKey;

use super::reading::{CounterReading, Reading, ServerReading, ServiceReading, Traffic};
use crate::api::Sample;
use crate::shell::words;

/// How many samples a history has.
pub const HISTORY: usize = 60;

/// What the main part of the screen shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Services and servers.
    #[default]
    Services,
    /// Drop reasons and events.
    Counters,
    /// Workers.
    Workers,
}

/// What services and servers are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Address and port.
    #[default]
    Name,
    /// Weight; services stay in the order of their names.
    Weight,
    /// Active connections.
    Active,
    /// Other connections.
    Inactive,
    /// Connections begun.
    Connections,
    /// Packets from clients.
    InPackets,
    /// Packets to clients.
    OutPackets,
    /// Bytes from clients.
    InBytes,
    /// Bytes to clients.
    OutBytes,
}

impl Sort {
    /// Every order, as the columns stand.
    pub const ALL: [Self; 9] = [
        Self::Name,
        Self::Weight,
        Self::Active,
        Self::Inactive,
        Self::Connections,
        Self::InPackets,
        Self::OutPackets,
        Self::InBytes,
        Self::OutBytes,
    ];

    fn of(self, traffic: &Traffic) -> f64 {
        match self {
            Self::Name | Self::Weight => 0.0,
            Self::Active => traffic.active as f64,
            Self::Inactive => traffic.inactive as f64,
            Self::Connections => traffic.connections_per_s,
            Self::InPackets => traffic.in_packets_per_s,
            Self::OutPackets => traffic.out_packets_per_s,
            Self::InBytes => traffic.in_bytes_per_s,
            Self::OutBytes => traffic.out_bytes_per_s,
        }
    }
}

/// A service, or one of its servers.
pub type RowKey = (ServiceKey, Option<ServerKey>);

/// A line of the services' view.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// A service.
    Service(&'a ServiceReading),
    /// One of its servers.
    Server(&'a ServiceReading, &'a ServerReading),
}

impl Row<'_> {
    /// What it is about.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Service(row) => (row.service, None),
            Self::Server(of, row) => (of.service, Some(row.server)),
        }
    }

    /// Its traffic.
    pub fn traffic(&self) -> &Traffic {
        match self {
            Self::Service(row) => &row.traffic,
            Self::Server(_, row) => &row.traffic,
        }
    }
}

/// What keys mean just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each is a command.
    #[default]
    Normal,
    /// They are the filter's text; the one before comes back with Esc.
    Filter(String),
    /// They are the selected server's new weight.
    Weight(Change, String),
    /// Yes or no to a change.
    Confirm(Change, u32),
    /// Any leaves the help.
    Help,
}

/// A server whose weight is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of which service.
    pub service: ServiceKey,
    /// The server as it was last seen.
    pub server: ServerKey,
    /// What it is.
    pub spec: sched::server::ServerSpec,
    /// Its live connections.
    pub live: u64,
}

impl Change {
    /// The server's name and its service's.
    pub fn name(&self) -> String {
        let (server, service) = (words::server(&self.server), words::service(&self.service));
        format!("{server} of {service}")
    }

    /// The command that gives it a weight, and all else as it is.
    pub fn to(&self, weight: u32) -> Command {
        Command::EditServer {
            service: self.service,
            server: self.server,
            spec: sched::server::ServerSpec {
                weight,
                ..self.spec
            },
        }
    }
}

/// What the view wants of the rest of the process.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Leave.
    Quit,
    /// Have this carried out; the text says what it is.
    Run(Command, String),
    /// Look this often.
    Every(Duration),
}

/// What was done, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What there is to say.
    pub text: String,
    /// It went wrong.
    pub is_bad: bool,
}

/// All of it.
#[derive(Debug)]
pub struct State {
    /// What is shown.
    pub reading: Option<Reading>,
    /// Why there is nothing newer.
    pub lost: Option<String>,
    /// What the main part shows.
    pub view: View,
    /// In which order.
    pub sort: Sort,
    /// The other way round.
    pub is_reversed: bool,
    /// Services without their servers.
    pub is_folded: bool,
    /// What lines must have.
    pub filter: String,
    /// What keys mean.
    pub mode: Mode,
    /// The line that the next command is about.
    pub selected: Option<RowKey>,
    /// Where the other views begin.
    pub scroll: usize,
    /// New samples are not shown.
    pub is_paused: bool,
    /// Time between samples.
    pub interval: Duration,
    /// The last command's end.
    pub note: Option<Note>,
    /// Whether colours are used.
    pub has_colour: bool,
    /// Weights before they were drained here.
    pub weights: HashMap<RowKey, u32>,
    last: Option<Sample>,
    histories: HashMap<Track, History>,
}

/// Of what a history is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// Connections begun, of all.
    Connections,
    /// Packets from clients, of all.
    In,
    /// Packets to clients, of all.
    Out,
    /// A worker's load.
    Worker(usize),
    /// Packets of a service or a server.
    Row(RowKey),
    /// A counter.
    Counter(String),
}

#[derive(Clone, Debug, Default)]
struct History {
    values: VecDeque<f32>,
    /// Whether the last sample had it.
    is_fresh: bool,
}

impl State {
    /// A view that has seen nothing yet.
    pub fn new(interval: Duration, has_colour: bool) -> Self {
        Self {
            reading: None,
            lost: None,
            view: View::default(),
            sort: Sort::default(),
            is_reversed: false,
            is_folded: false,
            filter: String::new(),
            mode: Mode::default(),
            selected: None,
            scroll: 0,
            is_paused: false,
            interval,
            note: None,
            has_colour,
            weights: HashMap::new(),
            last: None,
            histories: HashMap::new(),
        }
    }

    /// A sample came, or why none did.
    pub fn take(&mut self, sample: Result<Sample, String>) {
        let sample = match sample {
            Ok(sample) => sample,
            Err(why) => {
                self.lost = Some(why);
                return;
            }
        };
        self.lost = None;
        let reading = Reading::between(self.last.as_ref(), &sample);
        self.last = Some(sample);
        if self.is_paused && self.reading.is_some() {
            return;
        }
        if reading.over_s.is_some() {
            self.remember(&reading);
        }
        self.reading = Some(reading);
    }

    /// A command has ended.
    pub fn done(&mut self, ended: Result<String, String>) {
        self.note = Some(match ended {
            Ok(text) => Note {
                text,
                is_bad: false,
            },
            Err(text) => Note { text, is_bad: true },
        });
    }

    /// A history, oldest first.
    pub fn history(&self, track: &Track) -> Vec<f32> {
        let history = self.histories.get(track);
        history.map_or_else(Vec::new, |history| history.values.iter().copied().collect())
    }

    fn remember(&mut self, reading: &Reading) {
        self.push(Track::Connections, reading.total.connections_per_s);
        self.push(Track::In, reading.total.in_packets_per_s);
        self.push(Track::Out, reading.total.out_packets_per_s);
        for worker in &reading.workers {
            self.push(Track::Worker(worker.worker), worker.busy_share);
        }
        for service in &reading.services {
            let key = service.service;
            self.push(Track::Row((key, None)), service.traffic.packets_per_s());
            for row in &service.servers {
                let track = Track::Row((key, Some(row.server)));
                self.push(track, row.traffic.packets_per_s());
            }
        }
        for counter in reading.counters.iter().filter(|c| c.total > 0) {
            self.push(Track::Counter(counter.name.clone()), counter.per_s);
        }
        // What is gone leaves no history.
        let fresh = |_: &Track, history: &mut History| std::mem::take(&mut history.is_fresh);
        self.histories.retain(fresh);
    }

    fn push(&mut self, track: Track, value: f64) {
        let history = self.histories.entry(track).or_default();
        history.is_fresh = true;
        if history.values.len() == HISTORY {
            history.values.pop_front();
        }
        history.values.push_back(value as f32);
    }

    /// The lines of the services' view, sorted and filtered.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let Some(reading) = &self.reading else {
            return Vec::new();
        };
        let wanted = self.wanted();
        let mut services: Vec<_> = reading.services.iter().collect();
        services.sort_by(|a, b| self.order(self.sort.of(&a.traffic), self.sort.of(&b.traffic)));
        let mut rows = Vec::new();
        for service in services {
            let is_whole = has(&words::service(&service.service), &wanted);
            let mut servers: Vec<_> = service.servers.iter().collect();
            servers.retain(|row| is_whole || matches_server(row, &wanted));
            if !is_whole && servers.is_empty() {
                continue;
            }
            let by = |row: &ServerReading| match self.sort {
                Sort::Weight => f64::from(row.spec.weight),
                sort => sort.of(&row.traffic),
            };
            servers.sort_by(|a, b| self.order(by(a), by(b)));
            rows.push(Row::Service(service));
            if !self.is_folded {
                rows.extend(servers.into_iter().map(|row| Row::Server(service, row)));
            }
        }
        if self.sort == Sort::Name && self.is_reversed {
            rows = reversed(rows);
        }
        rows
    }

    /// The counters to show: those that have counted something, drops first, what moves
    /// most before the rest.
    pub fn counters(&self) -> Vec<&CounterReading> {
        let counters = self.reading.iter().flat_map(|reading| &reading.counters);
        let wanted = self.wanted();
        let mut rows: Vec<_> = counters
            .filter(|row| row.total > 0 && has(&row.name, &wanted))
            .collect();
        rows.sort_by(|a, b| {
            let drops = b.is_drop().cmp(&a.is_drop());
            drops.then(b.per_s.total_cmp(&a.per_s))
        });
        rows
    }

    /// The selected line's place.
    pub fn place(&self, rows: &[Row<'_>]) -> usize {
        let selected = rows.iter().position(|row| Some(row.key()) == self.selected);
        selected.unwrap_or(0)
    }

    fn wanted(&self) -> String {
        match &self.mode {
            Mode::Filter(text) => text.to_lowercase(),
            _ => self.filter.to_lowercase(),
        }
    }

    fn order(&self, a: f64, b: f64) -> std::cmp::Ordering {
        // Most first. Equal ones stay in the order of listings, both ways.
        match self.is_reversed {
            false => b.total_cmp(&a),
            true => a.total_cmp(&b),
        }
    }
}

fn matches_server(row: &ServerReading, wanted: &str) -> bool {
    let is_drained = row.spec.weight == 0 && has("drained", wanted);
    is_drained || has(&words::server(&row.server), wanted)
}

fn has(text: &str, wanted: &str) -> bool {
    wanted.is_empty() || text.to_lowercase().contains(wanted)
}

/// Services from the last to the first, and so their servers.
fn reversed(rows: Vec<Row<'_>>) -> Vec<Row<'_>> {
    let groups = rows.chunk_by(|_, next| matches!(next, Row::Server(..)));
    let mut turned = Vec::with_capacity(rows.len());
    for group in groups.collect::<Vec<_>>().into_iter().rev() {
        turned.push(group[0]);
        turned.extend(group[1..].iter().rev());
    }
    turned
}
