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
}

impl Reflect {
    pub(super) fn run(&self) -> Result<(), String> {
        let stop = super::stop_flag()?;
        ::bench::reflect::run(&self.ports, &self.cores.0, &stop, || {
            println!("forwarding on {}", self.ports.join(", "));
        })
    }
}
