//! All benchmarks in one run, and the page that shows them. Each part is a command of its
//! own, so that a run can be repeated in part and figures have their command beside them.

pub mod machine;
mod plan;
mod plot;
mod report;
mod run;
mod targets;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pipeline::Counted;
use crate::spread::Spread;
use crate::{connections, wire};
use machine::Machine;

pub use plan::Part;
pub use report::write;
pub use run::{Options, load, run};

/// All figures, as they are kept in JSON between runs of parts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Where they were taken.
    pub machine: Machine,
    /// Whether this was the short run, whose figures are rough.
    pub quick: bool,
    /// The commands, by part, each once.
    pub commands: BTreeMap<String, Vec<String>>,
    /// When each part was taken.
    pub taken: BTreeMap<String, String>,
    /// Packets in memory.
    #[serde(default)]
    pub pipeline: Vec<PipelineRow>,
    /// Connections in memory.
    #[serde(default)]
    pub connections: Option<connections::Report>,
    /// Frames over links.
    #[serde(default)]
    pub wire: Option<wire::Results>,
    /// The shortest frames, in many short rounds.
    #[serde(default)]
    pub beside: Option<wire::Results>,
    /// TCP connections over links.
    #[serde(default)]
    pub exchange: Option<wire::Results>,
    /// More than one worker.
    #[serde(default)]
    pub scaling: Option<wire::Results>,
    /// Changes to a large table.
    #[serde(default)]
    pub change: Option<wire::Results>,
}

/// One set of options of `lvx bench pipeline`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PipelineRow {
    /// What is particular about it.
    pub name: String,
    /// The forwarding method.
    pub method: String,
    /// Connections.
    pub connections: u64,
    /// A packet, ns: the medians of all processes' rounds.
    pub ns: Spread,
    /// Events for a packet.
    pub counted: Option<Counted>,
}

impl Figures {
    /// A pipeline row by its name.
    fn row(&self, name: &str) -> Option<&PipelineRow> {
        self.pipeline.iter().find(|row| row.name == name)
    }
}
