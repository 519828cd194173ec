//! The bodies of the director's API, shared by its server and its clients.
//!
//! | Method and path | Body | Answer |
//! |-|-|-|
//! | `GET /v1/table` | | [`Table`]; a query asks for a [`Part`] of it |
//! | `POST /v1/commands` | [`Batch`] | [`Outcome`] |
//! | `POST /v1/check` | [`Batch`] | [`Outcome`]: what `/v1/commands` would say; nothing is done |
//! | `POST /v1/commit` | [`Trial`] | [`Outcome`]; 409 where a commit waits already |
//! | `GET /v1/commit` | | [`Commit`] |
//! | `POST /v1/commit/confirm` | | [`Commit`]; 409 where none waits |
//! | `POST /v1/commit/return` | | [`Commit`]; 409 where none waits |
//! | `GET /v1/connections` | | [`ConnectionRow`]s, one JSON object a line, streamed |
//! | `GET /v1/tunables` | | a JSON object, name to value |
//! | `GET /v1/fwmarks` | | a list of [`FwmarkRule`]s |
//! | `GET /v1/prefixes` | | a JSON object, client prefix to `allow` or `deny` |
//! | `GET /v1/counters` | | a JSON object: every drop reason and event, name to count |
//! | `GET /v1/sample` | | [`Sample`]: all of this moment, for a live view |
//! | `POST /v1/explain` | [`ExplainRequest`] | [`Explanation`] |
//! | `GET /v1/openapi.json` | | this table, as OpenAPI |

mod part;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use sched::command::{Command, Refusal};
use sched::limit::ServiceLimits;
use sched::server::{ServerKey, ServerSpec};
use sched::service::{Protocol, ServiceKey, ServiceSpec};
use serde::{Deserialize, Serialize};

pub use crate::adm::DaemonRole;
pub use part::{Part, PartError};
pub use sched::command::FwmarkRule;

/// Everything that a listing shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// The director's version.
    pub version: String,
    /// The connection table's size (ipvsadm's `size=`).
    pub size: u64,
    /// The timeouts of `--set`.
    pub timeouts: Timeouts,
    /// The services, in no order.
    pub services: Vec<ServiceRow>,
    /// The connection synchronization daemons that run.
    #[serde(default)]
    pub daemons: Vec<DaemonRow>,
}

/// One connection synchronization daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRow {
    /// Which half.
    pub role: DaemonRole,
    /// The device that it multicasts on.
    pub interface: String,
    /// Its sync id.
    pub sync_id: u8,
    /// The longest message, bytes.
    pub max_length_bytes: u16,
    /// The multicast group.
    pub group: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// The time to live.
    pub ttl: u8,
}

/// ipvsadm's three timeouts, s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp_s: u32,
    /// TCP connections after a FIN.
    pub tcp_fin_s: u32,
    /// UDP.
    pub udp_s: u32,
}

impl Timeouts {
    /// Sets them as `--set` does: 0 keeps a value.
    pub fn set(&mut self, tcp_s: u32, tcp_fin_s: u32, udp_s: u32) {
        let keep = |old: &mut u32, new| *old = if new == 0 { *old } else { new };
        keep(&mut self.tcp_s, tcp_s);
        keep(&mut self.tcp_fin_s, tcp_fin_s);
        keep(&mut self.udp_s, udp_s);
    }
}

/// One service and its servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Which service.
    pub service: ServiceKey,
    /// What it is.
    pub spec: ServiceSpec,
    /// What it takes of new connections, where that is limited.
    #[serde(default)]
    pub limits: Option<ServiceLimits>,
    /// Its counters.
    pub stats: Stats,
    /// Its rates.
    pub rates: Rates,
    /// Its servers in list order (newest first).
    pub servers: Vec<ServerRow>,
}

/// One real server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerRow {
    /// Which server.
    pub server: ServerKey,
    /// What it is.
    pub spec: ServerSpec,
    /// Its address is the director's own.
    pub local: bool,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
    /// Its rates.
    pub rates: Rates,
}

/// Counts since the last `-Z`. Bytes are counted at layer 3, as IPVS does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Connections begun.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// Exponentially weighted rates per second, over steps of 2 s, as IPVS estimates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Connections begun, per second.
    pub connections: u64,
    /// Packets from clients, per second.
    pub in_packets: u64,
    /// Packets to clients, per second.
    pub out_packets: u64,
    /// Bytes from clients, per second.
    pub in_bytes: u64,
    /// Bytes to clients, per second.
    pub out_bytes: u64,
}

/// All that moves in a director, at one moment. Rates are what two of them differ by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, ns since the machine's start.
    pub at_ns: u64,
    /// How long the director's process had run, ns; 0 from one that does not tell.
    #[serde(default)]
    pub up_ns: u64,
    /// Services and servers. Unlike those of [`Table`] alone, their counters are live and
    /// not as of the last estimate of rates.
    pub table: Table,
    /// Every drop reason and event with its count, as `GET /v1/counters` has them.
    pub counters: BTreeMap<String, u64>,
    /// The workers, in order.
    pub workers: Vec<WorkerRow>,
    /// The connection table's places; zeros from a director that does not tell.
    #[serde(default)]
    pub places: PlacesRow,
}

/// How full the connection table is. A connection of IPv4 takes one place, of IPv6 two; a
/// persistence template as many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesRow {
    /// How many there are.
    pub capacity: u64,
    /// How many are taken.
    pub taken: u64,
    /// How many of its entries were ever used: so far the table's memory has grown. A little
    /// more than the capacity at most, as each worker takes some in advance.
    pub reached: u64,
}

/// Where a worker's frames are. What is in none of these parts is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramesRow {
    /// All frames.
    pub total: u64,
    /// In the worker's pool.
    pub free: u64,
    /// In the rings of its queues, those of ports that have gone among them.
    pub in_rings: u64,
    /// Waiting for a link address.
    pub waiting: u64,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: usize,
    /// The core that it is tied to.
    pub core: usize,
    /// How long it has had frames in hand, ns. Against the time between two samples: its
    /// load. At full load its frames wait for it, not it for frames.
    pub busy_ns: u64,
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames given to the host.
    pub to_host: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Where its frames were at its last tick.
    #[serde(default)]
    pub frames: FramesRow,
}

/// One connection or persistence template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// The IP protocol number; 0 for a fwmark service's template.
    pub protocol: u8,
    /// Seconds until it expires.
    pub expires_s: u32,
    /// The state's name as IPVS prints it (`ESTABLISHED`, `NONE` ...).
    pub state: String,
    /// The client's address (or, for a template, its network).
    pub client: IpAddr,
    /// The client's port; 0 for a template.
    pub client_port: u16,
    /// The virtual address; for a fwmark template the mark as an address.
    pub virtual_address: IpAddr,
    /// The virtual port.
    pub virtual_port: u16,
    /// The real server's address.
    pub server: IpAddr,
    /// The real server's port.
    pub server_port: u16,
}

/// A packet to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainRequest {
    /// A packet of this flow, made up.
    Flow {
        /// The protocol.
        protocol: Protocol,
        /// The client.
        client: SocketAddr,
        /// What it asks for.
        destination: SocketAddr,
        /// TCP's flags, of the letters FSRPAU; for SCTP any `S` stands for INIT.
        flags: String,
        /// The server's reply on this flow's connection instead.
        from_server: bool,
    },
    /// This frame, in hexadecimal digits.
    Frame {
        /// The frame from its link header on.
        hex: String,
        /// As if it were addressed to a port of the director, whatever it says.
        any_link: bool,
    },
}

/// What the director would do with a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// In order.
    pub steps: Vec<ExplainedStep>,
    /// `transmit`, `split`, `host`, `split_host`, `wait`, `held`, `drop` or `passed` (never
    /// seen by the director).
    pub verdict: String,
    /// For a drop its reason, as `lvx counters` names it.
    pub reason: Option<String>,
    /// The frame as it leaves, in hexadecimal digits.
    pub frame: String,
}

/// A step of an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// What part of the way: `steer`, `parse`, `connection`, `template`, `service`,
    /// `schedule`, `state`, `forward`, `hop`, `rewrite`, `refuse` or `verdict`.
    pub stage: String,
    /// What happens there and why, for people.
    pub text: String,
    /// The scheduler's view of each server, at the step `schedule`.
    pub servers: Vec<CandidateRow>,
}

/// A server as a scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateRow {
    /// Which server.
    pub server: ServerKey,
    /// Its weight.
    pub weight: u32,
    /// Its active connections.
    pub active: u32,
    /// Its other connections.
    pub inactive: u32,
    /// Above its threshold.
    pub overloaded: bool,
    /// What it costs the scheduler, before the division by the weight.
    pub cost: Option<u64>,
    /// Whether it was taken.
    pub chosen: bool,
}

/// Commands to carry out in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The commands.
    pub commands: Vec<Command>,
    /// All or none: the first refusal undoes what came before. Otherwise every command
    /// stands alone, as with `ipvsadm -R`.
    #[serde(default)]
    pub atomic: bool,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// For each command in order: none where it is in force, else why not.
    pub refusals: Vec<Option<Refusal>>,
}

/// Commands to carry out, all or none, and to take back unless they are confirmed in time.
/// The director itself waits: the client may be gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// The commands.
    pub commands: Vec<Command>,
    /// How long to wait for the confirmation, 1 to [`CONFIRM_MAX_S`], s.
    pub confirm_within_s: u32,
}

/// The longest wait for a confirmation, s: a day.
pub const CONFIRM_MAX_S: u32 = 24 * 3600;

/// The commit that waits for its confirmation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// It, if there is one.
    pub waiting: Option<Waiting>,
}

/// A commit that is in force, but taken back unless it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The time left, s.
    pub left_s: u32,
    /// The commands that would take it back, each on its own: what others have changed
    /// meanwhile stays as it is.
    pub undo: Vec<Command>,
}
