//! What a line asks for. Valid by construction: the parser makes no other.

use std::net::IpAddr;

use sched::command::{Command, FwmarkRule};
use sched::server::{Forwarding, ServerKey, ServerSpec};
use sched::service::{Persistence, SchedulerFlags, ServiceKey, ServiceSpec};

use super::values::Network;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing: an empty line.
    Nothing,
    /// Change something.
    Change(Change),
    /// Print something.
    Show(Show),
    /// Print it again and again.
    Watch {
        /// How often, s.
        every_s: u32,
        /// How many times; none stands for until a key ends it.
        count: Option<u32>,
        /// What.
        show: Show,
    },
    /// A line of ipvsadm's, as words.
    Adm(Vec<String>),
    /// Begin a candidate.
    Edit,
    /// Print what the candidate would change.
    Diff {
        /// As JSON.
        json: bool,
    },
    /// Put the candidate in force.
    Commit {
        /// Take it back unless it is confirmed within this time, s.
        confirm_within_s: Option<u32>,
    },
    /// Keep what the commit that waits changed.
    Confirm,
    /// Take the commit that waits back.
    Return,
    /// Forget the candidate.
    Discard,
    /// Print what can be done.
    Help,
    /// Leave.
    Quit,
}

/// A change. Edits are of what is there when they are carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A command as it is.
    Command(Command),
    /// Some parts of a service.
    EditService(ServiceKey, ServiceEdit),
    /// Some parts of a server.
    EditServer(ServiceKey, Which, ServerEdit),
    /// Remove a server.
    DeleteServer(ServiceKey, Which),
    /// Mark packets, or no longer.
    Mark(bool, FwmarkRule),
}

/// A server as typed: perhaps without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// Its address.
    pub address: IpAddr,
    /// Its port, where it was typed.
    pub port: Option<u16>,
}

impl Which {
    /// Whether it stands for `key`.
    pub fn is(&self, key: &ServerKey) -> bool {
        self.address == key.address && self.port.is_none_or(|port| port == key.port)
    }
}

/// New parts of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEdit {
    /// The scheduler.
    pub scheduler: Option<String>,
    /// Its flags.
    pub flags: Option<SchedulerFlags>,
    /// Persistence, or its end.
    pub persistence: Option<Option<Persistence>>,
    /// The persistence netmask.
    pub netmask: Option<u32>,
    /// One-packet scheduling.
    pub one_packet: Option<bool>,
    /// The persistence engine, or its end.
    pub engine: Option<Option<String>>,
}

impl ServiceEdit {
    /// `spec` with the new parts. Flags belong to a scheduler: another one begins without.
    pub fn apply(&self, spec: &ServiceSpec) -> ServiceSpec {
        let same = self.scheduler.as_ref().is_none_or(|s| *s == spec.scheduler);
        let flags = if same { spec.flags } else { SchedulerFlags(0) };
        ServiceSpec {
            scheduler: self
                .scheduler
                .clone()
                .unwrap_or_else(|| spec.scheduler.clone()),
            flags: self.flags.unwrap_or(flags),
            persistence: self.persistence.unwrap_or(spec.persistence),
            netmask: self.netmask.unwrap_or(spec.netmask),
            one_packet: self.one_packet.unwrap_or(spec.one_packet),
            engine: self.engine.clone().unwrap_or_else(|| spec.engine.clone()),
        }
    }
}

/// New parts of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerEdit {
    /// How packets reach it.
    pub forwarding: Option<Forwarding>,
    /// Its share.
    pub weight: Option<u32>,
    /// No new connections from here.
    pub upper_threshold: Option<u32>,
    /// New connections again below.
    pub lower_threshold: Option<u32>,
}

impl ServerEdit {
    /// `spec` with the new parts.
    pub fn apply(&self, spec: ServerSpec) -> ServerSpec {
        ServerSpec {
            forwarding: self.forwarding.unwrap_or(spec.forwarding),
            weight: self.weight.unwrap_or(spec.weight),
            upper_threshold: self.upper_threshold.unwrap_or(spec.upper_threshold),
            lower_threshold: self.lower_threshold.unwrap_or(spec.lower_threshold),
        }
    }
}

/// What to print, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    /// What.
    pub what: What,
    /// Which of it.
    pub filter: Filter,
    /// As JSON.
    pub json: bool,
}

/// What to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Services with their servers.
    Services(Columns),
    /// Servers, one a line.
    Servers(Columns),
    /// Connections.
    Connections {
        /// So many at most.
        limit: Option<u32>,
        /// Only how many.
        count: bool,
    },
    /// Drops and events.
    Counters {
        /// Also those at 0.
        all: bool,
    },
    /// Tunables, or one.
    Tunables(Option<String>),
    /// Firewall marks.
    Fwmarks,
    /// Timeouts.
    Timeouts,
    /// The director itself.
    Status,
}

/// What services and servers are shown with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// State, weight and live connections.
    #[default]
    Plain,
    /// Counters.
    Stats,
    /// Rates per second.
    Rates,
    /// Thresholds.
    Thresholds,
}

/// What must hold for a row to be printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Of this service.
    pub service: Option<ServiceKey>,
    /// Of this server.
    pub server: Option<Which>,
    /// Of these clients.
    pub client: Option<Network>,
    /// In this state.
    pub state: Option<String>,
}

impl Show {
    /// All of `what`, as text.
    pub fn all(what: What) -> Self {
        Self {
            what,
            filter: Filter::default(),
            json: false,
        }
    }
}
