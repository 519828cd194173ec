//! Systems under test between an AF_XDP generator and its sink, over veth links between
//! network namespaces or over real devices. The generator has one core, each system the
//! others; systems are measured in turn, round by round, and rest while others are measured.

pub mod bed;
mod change;
mod drain;
mod exchange;
mod load;
pub mod results;
mod segment;
mod session;
mod stamp;
mod station;
pub mod system;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sched::service::Family;

use crate::traffic::End;
pub use results::Results;
pub use session::run;
pub use system::Kind;

/// Whether to go on.
#[derive(Clone, Copy, Debug)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Stop<'_> {
    /// # Errors
    /// "interrupted", when it was asked for.
    pub fn check(self) -> Result<(), String> {
        match self.0.load(Ordering::Relaxed) {
            true => Err("interrupted".to_owned()),
            false => Ok(()),
        }
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Frames a second, by frame length.
    Throughput,
    /// Delays at parts of the rate.
    Latency,
    /// More than the rate, and after that.
    Overload,
    /// What a frame costs the system's core.
    Drain,
    /// TCP connections a second.
    Exchange,
    /// One worker and two.
    Scaling,
    /// Changes to a large table under load.
    Change,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Throughput,
        Self::Latency,
        Self::Overload,
        Self::Drain,
        Self::Exchange,
        Self::Scaling,
        Self::Change,
    ];

    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Overload => "overload",
            Self::Drain => "drain",
            Self::Exchange => "exchange",
            Self::Scaling => "scaling",
            Self::Change => "change",
        }
    }
}

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The systems, in the order in which they take turns.
    pub systems: Vec<Kind>,
    /// What of them.
    pub parts: Vec<Part>,
    /// The family of clients and servers, but for exchanges, which are IPv4.
    pub family: Family,
    /// Frame lengths, bytes; the first one is that of all but throughput.
    pub frame_bytes: Vec<usize>,
    /// Flows.
    pub flows: u64,
    /// How long each measurement takes.
    pub duration: Duration,
    /// Rounds.
    pub rounds: usize,
    /// The generator's core.
    pub generator_core: usize,
    /// The systems' cores, one worker each.
    pub system_cores: Vec<usize>,
    /// lvx's own binary.
    pub lvx: PathBuf,
    /// lvx's workers never sleep.
    pub busy_poll: bool,
    /// Real devices with a system between them that someone else started.
    pub devices: Option<Devices>,
}

/// A generator's devices, and what is behind them.
#[derive(Clone, Debug)]
pub struct Devices {
    /// Towards the system's client side.
    pub clients: String,
    /// Towards its server side.
    pub servers: String,
    /// The system's link address at the client side.
    pub gateway: [u8; 6],
    /// The service.
    pub to: End,
}
