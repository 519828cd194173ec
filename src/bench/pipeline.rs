//! `lvx bench pipeline`: the director alone, over frames in memory.

use ::bench::pipeline::{self, Method, Options};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{FamilyName, ProtocolName};

pub(super) const EXAMPLES: &str = "Examples:\n  lvx bench pipeline --method nat --connections 1000000\n  \
    lvx bench pipeline --method ipip --family v6 --new-per-mille 100 --json\n\n\
    Instructions a packet, where the processor's counters cannot be read:\n  \
    valgrind --tool=callgrind --toggle-collect='*handle_burst*' lvx bench pipeline --rounds 1";

/// See [`Options`].
#[derive(Debug, Args)]
pub struct Pipeline {
    /// How packets are forwarded
    #[arg(long, value_enum, default_value = "nat")]
    method: MethodName,
    /// The family of clients and servers
    #[arg(long, value_enum, default_value = "v4")]
    family: FamilyName,
    /// The transport protocol
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: ProtocolName,
    /// A frame's length, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    frame: usize,
    /// Connections that are there before
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: u64,
    /// Of 1,000 packets, how many begin a connection
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    new_per_mille: u32,
    /// Virtual services
    #[arg(long, value_name = "N", default_value_t = 1)]
    services: u32,
    /// Real servers of each
    #[arg(long, value_name = "N", default_value_t = 3)]
    servers: u32,
    /// The scheduler
    #[arg(long, value_name = "NAME", default_value = "rr")]
    scheduler: String,
    /// Packets in a round
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    packets: u64,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// The core to run on
    #[arg(long, value_name = "N", default_value_t = 0)]
    core: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodName {
    Nat,
    NatReply,
    Dr,
    Ipip,
    Gue,
}

impl Pipeline {
    pub(super) fn run(&self) -> Result<(), String> {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: self.core }) {
            return Err(format!(
                "core {} cannot be had: name another with --core",
                self.core
            ));
        }
        let options = self.options();
        let report = pipeline::run(&options)?;
        if self.json {
            let text = json!({
                "method": format!("{:?}", self.method).to_lowercase(),
                "family": format!("{:?}", self.family).to_lowercase(),
                "protocol": format!("{:?}", self.protocol).to_lowercase(),
                "frame_bytes": options.frame_bytes,
                "connections": options.connections,
                "new_per_mille": options.new_per_mille,
                "services": options.services,
                "servers": options.servers,
                "scheduler": options.scheduler,
                "median_ns": report.median_ns(),
                "rounds_ns": report.ns,
            });
            println!("{text}");
        } else {
            println!("{report}");
        }
        Ok(())
    }

    fn options(&self) -> Options {
        Options {
            method: match self.method {
                MethodName::Nat => Method::Nat,
                MethodName::NatReply => Method::NatReply,
                MethodName::Dr => Method::Dr,
                MethodName::Ipip => Method::Ipip,
                MethodName::Gue => Method::Gue,
            },
            family: self.family.into(),
            protocol: self.protocol.into(),
            frame_bytes: self.frame,
            connections: self.connections,
            new_per_mille: self.new_per_mille,
            services: self.services,
            servers: self.servers,
            scheduler: self.scheduler.clone(),
            packets: self.packets,
            rounds: self.rounds,
            // The same in every run, so that runs can be compared.
            seed: 0x5eed,
        }
    }
}
