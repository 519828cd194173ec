//! `lvx bench connections`: what connections cost in memory.

use ::bench::connections::{self, Plan, Report};
use clap::Args;

use crate::{CoreList, parse_cores};

pub(super) const EXAMPLES: &str = "Examples:\n  lvx bench connections\n  \
    lvx bench connections --sizes 1000000 --threads 1,2,4 --cores 2-5 --json";

/// See [`Plan`].
#[derive(Debug, Args)]
pub struct Connections {
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', value_name = "N")]
    #[arg(default_values = ["1000000", "10000000", "20000000"])]
    sizes: Vec<u64>,
    /// Numbers of threads over one table
    #[arg(long, value_delimiter = ',', value_name = "N", default_values = ["1", "2"])]
    threads: Vec<usize>,
    /// Connections of all those threads together
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    shared: u64,
    /// Rounds of look-ups; medians count
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// The threads' cores [default: the last ones]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<CoreList>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Connections {
    pub(super) fn run(&self) -> Result<(), String> {
        let cores = match &self.cores {
            Some(list) => list.0.clone(),
            None => super::cores().into_iter().rev().collect(),
        };
        let plan = Plan {
            sizes: self.sizes.clone(),
            threads: self.threads.clone(),
            shared: self.shared,
            rounds: self.rounds,
            cores,
        };
        let mut told = super::Told::default();
        let steps = (plan.sizes.len() + plan.threads.len()) as f64;
        let mut step = 0.0;
        let report = connections::run(&plan, |what| {
            told.tell(step / steps, what);
            step += 1.0;
        });
        told.end();
        super::print(&report?, self.json, table)
    }
}

/// For people.
fn table(report: &Report) -> String {
    let mut text = String::new();
    for size in &report.sizes {
        text += &format!(
            "{:>9} connections: {:.2} M/s new ({:.0} ns), {:.2} M/s again; {:.1} B each; \
             packet {:.0} ns, look-up alone {:.0} ns; expiry {:.0} ns each, at most {:.0} us in a burst\n",
            size.connections,
            1e3 / size.begin_ns,
            size.begin_ns,
            1e3 / size.again_ns,
            size.bytes,
            size.packet_ns.median(),
            size.find_ns.median(),
            size.expire_ns,
            size.expire_most_us,
        );
    }
    for row in &report.contention {
        text += &format!(
            "{:>9} threads: {:.2} M/s new, {:.2} Mpps, together\n",
            row.threads,
            row.begun_per_s / 1e6,
            row.packets_per_s / 1e6,
        );
    }
    text
}
