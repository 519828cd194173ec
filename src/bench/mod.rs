//! `lvx bench`: what the director costs on this machine, and what it does on a wire.

mod pipeline;
mod reflect;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Subcommand, ValueEnum};
use sched::service::{Family, Protocol};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The director alone: frames in memory, one pinned core
    #[command(after_help = pipeline::EXAMPLES)]
    Pipeline(pipeline::Pipeline),
    /// The director between an AF_XDP generator and its sink, beside other systems
    #[command(after_help = wire::EXAMPLES)]
    Wire(wire::Wire),
    /// Forward frames between two devices, or back, and do nothing else: the ceiling
    #[command(after_help = "Example:\n  lvx bench reflect --port eth0 --port eth1 --cores 2")]
    Reflect(reflect::Reflect),
}

impl Bench {
    /// Measures and prints.
    pub fn run(&self) -> ExitCode {
        let ended = match self {
            Self::Pipeline(pipeline) => pipeline.run(),
            Self::Wire(wire) => wire.run(),
            Self::Reflect(reflect) => reflect.run(),
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
