//! `lvx bench reflect`: the raw forwarder.

use clap::Args;

use crate::{CoreList, parse_cores};

/// See [`bench::reflect`].
#[derive(Debug, Args)]
pub struct Reflect {
    /// A device; of two, what comes in on one leaves by the other
    #[arg(long = "port", value_name = "DEV", required = true)]
    ports: Vec<String>,
    /// The workers' cores, one worker and queue each
    #[arg(long, value_name = "LIST", value_parser = parse_cores, default_value = "0")]
    cores: CoreList,
    /// Use the crate xsk-rs instead of the director's own sockets and rings
    #[arg(long)]
    with_xsk_rs: bool,
}

impl Reflect {
    pub(super) fn run(&self) -> Result<(), String> {
        let stop = super::stop_flag()?;
        let ready = || println!("forwarding on {}", self.ports.join(", "));
        match self.with_xsk_rs {
            true => ::bench::xsk::run(&self.ports, &self.cores.0, &stop, ready),
            false => ::bench::reflect::run(&self.ports, &self.cores.0, &stop, ready),
        }
    }
}
