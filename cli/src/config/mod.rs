//! The configuration file: what a director is to be, as TOML. It is the whole truth about
//! services, tunables and marks: what it does not name is not wanted. Files that
//! `ipvsadm-save` wrote are read too.
//!
//! A file goes `document` (TOML to parts with places), `meaning` (parts to a [`Config`],
//! every problem with its place), `transaction` (what must change for it to be in force).
//! `write` is the way back.

mod difference;
mod document;
mod meaning;
mod problem;
mod saved;
#[cfg(test)]
mod tests;
mod transaction;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sched::command::{FwmarkRule, Refusal};
use sched::limit::ServiceLimits;
use sched::prefix::Prefixes;
use sched::server::{ServerKey, ServerSpec};
use sched::service::{ServiceKey, ServiceSpec};

use crate::api::{ServiceRow, Table, Timeouts};

pub use difference::difference;
pub use problem::{Problem, Problems};
pub use transaction::transaction;
pub use write::write;

/// IPVS's timeouts where nothing sets others, s (Linux's `ip_vs_proto_tcp.c`, `_udp.c`).
pub const TIMEOUTS: Timeouts = Timeouts {
    tcp_s: 900,
    tcp_fin_s: 120,
    udp_s: 300,
};

/// The longest timeout that `--set` takes, s: Linux's limit at its 250 ticks a second.
pub const TIMEOUT_MAX_S: u32 = (i32::MAX / 250) as u32;

/// What `--connections` takes.
pub const CONNECTIONS: std::ops::RangeInclusive<u64> = 1024..=1 << 28;

/// What `--queues` takes.
pub const QUEUES: std::ops::RangeInclusive<u32> = 1..=256;

/// The highest core number that is taken for one: Linux's limit (`NR_CPUS`).
pub const CORE_MAX: usize = 8191;

/// The most ports of a director (dataplane/bpf/steer.bpf.c).
pub const PORTS_MAX: usize = 16;

/// Tunables by name.
pub type Tunables = BTreeMap<String, String>;

/// What a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How the process runs. Only a start reads it.
    pub director: Director,
    /// The timeouts.
    pub timeouts: Timeouts,
    /// The tunables that are not to have their defaults.
    pub tunables: Tunables,
    /// The firewall marks, sorted.
    pub marks: Vec<FwmarkRule>,
    /// The client prefixes that are let in or kept out; none where the file leaves them to
    /// `lvx prefix`.
    pub prefixes: Option<Arc<Prefixes>>,
    /// The services, in the file's order.
    pub services: Vec<Service>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            director: Director::default(),
            timeouts: TIMEOUTS,
            tunables: Tunables::new(),
            marks: Vec::new(),
            prefixes: None,
            services: Vec::new(),
        }
    }
}

/// How the process runs, where the file says so. The same words as the options of
/// `lvx director`, which come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Director {
    /// `--port`.
    pub ports: Vec<String>,
    /// `--api`.
    pub api: Option<PathBuf>,
    /// `--api-group`.
    pub api_group: Option<String>,
    /// `--api-read-group`.
    pub api_read_group: Option<String>,
    /// `--cores`.
    pub cores: Vec<usize>,
    /// `--queues`.
    pub queues: Option<u32>,
    /// `--connections`.
    pub connections: Option<u64>,
    /// `--busy-poll`.
    pub busy_poll: bool,
    /// `--copy`.
    pub copy: bool,
    /// `--require-local`.
    pub require_local: bool,
}

/// A service and its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which service.
    pub key: ServiceKey,
    /// What it is.
    pub spec: ServiceSpec,
    /// What it takes of new connections.
    pub limits: ServiceLimits,
    /// Its servers, in the order in which they are added: listings show the last first.
    pub servers: Vec<(ServerKey, ServerSpec)>,
}

/// What a director has now, to compare with.
#[derive(Clone, Debug)]
pub struct Running {
    /// Services and timeouts.
    pub table: Table,
    /// Firewall marks.
    pub marks: Vec<FwmarkRule>,
    /// Client prefixes.
    pub prefixes: Arc<Prefixes>,
    /// Every tunable.
    pub tunables: Tunables,
}

impl Running {
    /// The same, as a file would ask for it.
    pub fn config(&self) -> Config {
        let service = |row: &ServiceRow| Service {
            key: row.service,
            spec: row.spec.clone(),
            limits: row.limits.unwrap_or_default(),
            // The listing has the newest first.
            servers: row
                .servers
                .iter()
                .rev()
                .map(|s| (s.server, s.spec))
                .collect(),
        };
        Config {
            director: Director::default(),
            timeouts: self.table.timeouts,
            tunables: self.tunables.clone(),
            marks: self.marks.clone(),
            prefixes: Some(self.prefixes.clone()),
            services: self.table.services.iter().map(service).collect(),
        }
    }
}

/// Judges a tunable's name and value.
pub type Judge<'a> = &'a dyn Fn(&str, &str) -> Result<(), Refusal>;

/// Reads a file's text. `name` is what problems call it by. All problems come at once, but
/// where the text is no TOML, or a word of it unknown: that is told first and alone.
pub fn read(name: &str, text: &str, judge: Judge<'_>) -> Result<Config, Problems> {
    let read = match saved::is_saved(text) {
        true => saved::read(text),
        false => document::parse(text).and_then(|document| meaning::config(document, judge)),
    };
    read.map_err(|problems| Problems::new(name, text, problems))
}
