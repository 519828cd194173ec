//! What a session measured, as it is written to and read from JSON.

use serde::{Deserialize, Serialize};

use crate::spread::Spread;

/// All of a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// `v4` or `v6`.
    pub family: String,
    /// Flows.
    pub flows: u64,
    /// The generator's core.
    pub generator_core: usize,
    /// The systems' cores.
    pub system_cores: Vec<usize>,
    /// How frames got between driver and memory on the generator's side.
    pub transfer: String,
    /// Systems that were measured.
    pub systems: Vec<SystemResults>,
    /// Systems that were not, and why.
    pub skipped: Vec<Skipped>,
    /// One worker and more.
    #[serde(default)]
    pub scaling: Vec<Scaling>,
    /// Changes to a large table.
    #[serde(default)]
    pub change: Option<Change>,
}

impl Results {
    /// A system by its name.
    pub fn system(&self, name: &str) -> Option<&SystemResults> {
        self.systems.iter().find(|system| system.system == name)
    }
}

/// A system that was left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub system: String,
    /// Why.
    pub why: String,
}

/// One system's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SystemResults {
    /// Its name.
    pub system: String,
    /// By frame length.
    pub throughput: Vec<Throughput>,
    /// By share of the rate.
    pub latency: Vec<Latency>,
    /// More than the rate.
    pub overload: Vec<Overload>,
    /// What a frame costs the system's core, ns.
    pub drain_ns: Spread,
    /// TCP connections.
    pub exchange: Option<Exchange>,
}

/// As many frames as the generator can send.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Throughput {
    /// A frame's length.
    pub frame_bytes: usize,
    /// Frames sent a second.
    pub offered_pps: Spread,
    /// Frames that arrived a second.
    pub rate_pps: Spread,
    /// The share that was lost, 0 to 1.
    pub loss: Spread,
    /// Frames of these that the sink's own ring had no room for.
    pub sink_missed: u64,
    /// The share of time in which the system's cores were not idle, 0 to 1: by the kernel's
    /// ticks, so a worker that polls is always busy.
    pub busy: Spread,
}

/// At a given rate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Of the rate, percent.
    pub percent: u32,
    /// Frames a second that were to be sent.
    pub asked_pps: f64,
    /// Frames sent a second.
    pub offered_pps: Spread,
    /// The share that was lost, 0 to 1.
    pub loss: Spread,
    /// Quantiles, ns.
    pub p50_ns: Spread,
    /// See `p50_ns`.
    pub p99_ns: Spread,
    /// See `p50_ns`.
    pub p999_ns: Spread,
    /// Quantiles (0 to 1) and their ns, over all rounds.
    pub distribution: Vec<(f64, u64)>,
}

/// More than the rate for a while, then half of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overload {
    /// Frames a second that were to be sent.
    pub asked_pps: f64,
    /// Frames sent a second: less than asked for, where the generator is the limit.
    pub offered_pps: f64,
    /// The share that was lost meanwhile, 0 to 1.
    pub loss: f64,
    /// After its end the last frame was lost so late; none where loss did not end.
    pub recovery_ms: Option<f64>,
}

/// TCP connections from SYN to the last ACK.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exchange {
    /// Open at a time.
    pub open: u64,
    /// Complete ones a second.
    pub rate: Spread,
    /// The share that failed, 0 to 1.
    pub failed: Spread,
    /// From SYN to the last ACK, ns.
    pub p50_ns: Spread,
    /// See `p50_ns`.
    pub p99_ns: Spread,
}

/// How fast full rings empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scaling {
    /// The system's name.
    pub system: String,
    /// Its workers, a queue each.
    pub workers: usize,
    /// A frame, all workers together, ns.
    pub drain_ns: Spread,
}

/// Changes to a table under load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Change {
    /// Services.
    pub services: u32,
    /// Servers of each.
    pub servers: u32,
    /// The time to restore all of it, s.
    pub restore_s: f64,
    /// An edit of a server's weight, from the start of `lvx adm` to its end, ms, by scheduler.
    pub edit_ms: Vec<(String, Spread)>,
    /// The same command where it changes nothing (`-L` of the version), ms: what starting a
    /// process costs.
    pub command_ms: Spread,
    /// Frames sent meanwhile.
    pub sent: u64,
    /// Of those, lost.
    pub lost: u64,
    /// Of those, frames that the sink's own ring had no room for.
    #[serde(default)]
    pub missed: u64,
}
