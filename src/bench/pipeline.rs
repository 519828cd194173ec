//! `lvx bench pipeline`: the director alone, over frames in memory.

use ::bench::callgrind;
use ::bench::pipeline::{self, Method, Options};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{FamilyName, ProtocolName};

pub(super) const EXAMPLES: &str = "Examples:\n  lvx bench pipeline --method nat --connections 1000000\n  \
    lvx bench pipeline --method ipip --family v6 --new-per-mille 100 --json\n\n\
    Instructions a packet are counted by the processor where it lets us, else by callgrind:\n  \
    lvx bench pipeline --instructions";

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
    /// Count instructions and cache misses with callgrind (needs valgrind; slow, so with few
    /// connections)
    #[arg(long)]
    instructions: bool,
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
        let mut report = pipeline::run(&options)?;
        if self.instructions {
            let lvx = std::env::current_exe().map_err(|error| error.to_string())?;
            report.counted = Some(callgrind::count(&lvx, &self.words())?);
        }
        let text = json!({
            "method": name(self.method),
            "family": name(self.family),
            "protocol": name(self.protocol),
            "frame_bytes": options.frame_bytes,
            "connections": options.connections,
            "new_per_mille": options.new_per_mille,
            "services": options.services,
            "servers": options.servers,
            "scheduler": options.scheduler,
            "median_ns": report.ns.median(),
            "rounds_ns": report.ns,
            "counted": report.counted,
        });
        super::print(&text, self.json, |_| format!("{report}\n"))
    }

    /// The command line again, but for what callgrind's run has of its own.
    fn words(&self) -> Vec<String> {
        let options = [
            ("--method", name(self.method)),
            ("--family", name(self.family)),
            ("--protocol", name(self.protocol)),
            ("--frame", self.frame.to_string()),
            ("--connections", self.connections.to_string()),
            ("--new-per-mille", self.new_per_mille.to_string()),
            ("--services", self.services.to_string()),
            ("--servers", self.servers.to_string()),
            ("--scheduler", self.scheduler.clone()),
            ("--core", self.core.to_string()),
        ];
        let words = options.into_iter();
        words
            .flat_map(|(option, value)| [option.to_owned(), value])
            .collect()
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

/// A value as it is typed.
fn name(value: impl ValueEnum) -> String {
    let known = value.to_possible_value().expect("no value is hidden");
    known.get_name().to_owned()
}
