//! `lvx bench`: what the director costs on this machine, and what it does on a wire.

mod connections;
mod pipeline;
mod reflect;
mod suite;
mod wire;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Subcommand, ValueEnum};
use sched::service::{Family, Protocol};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Takes one of `all` by its name, and lists the names in help texts.
fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(all.iter().map(|one| name(*one)));
    names.map(move |typed| {
        let found = all.iter().find(|one| name(**one) == typed);
        *found.expect("only these names pass")
    })
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The director alone: frames in memory, one pinned core
    #[command(after_help = pipeline::EXAMPLES)]
    Pipeline(pipeline::Pipeline),
    /// Connections in memory: to begin, to keep, to find, to let expire; several threads
    #[command(after_help = connections::EXAMPLES)]
    Connections(connections::Connections),
    /// The director between an AF_XDP generator and its sink, beside other systems
    #[command(after_help = wire::EXAMPLES)]
    Wire(wire::Wire),
    /// Forward frames between two devices, or back, and do nothing else: the ceiling
    #[command(after_help = "Example:\n  lvx bench reflect --port eth0 --port eth1 --cores 2")]
    Reflect(reflect::Reflect),
    /// All of it, part by part; what `scripts/bench` runs
    #[command(after_help = suite::EXAMPLES)]
    All(suite::All),
    /// Write the page of figures taken before
    Report(suite::Report),
}

impl Bench {
    /// Measures and prints.
    pub fn run(&self) -> ExitCode {
        let ended = match self {
            Self::Pipeline(pipeline) => pipeline.run(),
            Self::Connections(connections) => connections.run(),
            Self::Wire(wire) => wire.run(),
            Self::Reflect(reflect) => reflect.run(),
            Self::All(all) => all.run(),
            Self::Report(report) => report.run(),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("lvx: {problem}");
                ExitCode::from(2)
            }
        }
    }
}

/// A flag that SIGINT, SIGTERM and SIGHUP set: what was set up must be taken down again.
fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, flag.clone()).map_err(|error| error.to_string())?;
    }
    Ok(flag)
}

/// Those that this process may use.
fn cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.iter().map(|core| core.id).collect()
}

/// Prints a result as JSON or for people.
fn print<T: Serialize>(
    result: &T,
    as_json: bool,
    table: impl Fn(&T) -> String,
) -> Result<(), String> {
    let text = match as_json {
        true => serde_json::to_string(result).map_err(|error| error.to_string())? + "\n",
        false => table(result),
    };
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("standard output: {error}"))
}

/// Where a measurement is, on standard error: on a terminal in one line; line by line for
/// the run that this one is a part of; else not at all.
struct Told {
    is_terminal: bool,
    is_part: bool,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            is_part: std::env::var_os("LVX_BENCH_PROGRESS").is_some(),
        }
    }
}

impl Told {
    fn tell(&mut self, share: f64, what: &str) {
        if self.is_part {
            eprintln!("progress {share:.3} {what}");
        } else if self.is_terminal {
            eprint!("\r\x1b[K{:3.0} %  {what}", share * 100.0);
            let _ = io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.is_terminal && !self.is_part {
            eprint!("\r\x1b[K");
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyName {
    V4,
    V6,
}

impl From<FamilyName> for Family {
    fn from(name: FamilyName) -> Self {
        match name {
            FamilyName::V4 => Self::V4,
            FamilyName::V6 => Self::V6,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolName {
    Tcp,
    Udp,
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Tcp => Self::Tcp,
            ProtocolName::Udp => Self::Udp,
        }
    }
}
