//! `lvx bench wire`: systems between a generator and its sink.

use std::net::SocketAddr;
use std::time::Duration;

use ::bench::wire::bed::parse_mac;
use ::bench::wire::results::{Results, SystemResults};
use ::bench::wire::{self, Devices, Kind, Options, Part, Stop};
use clap::Args;

use super::FamilyName;
use crate::{CoreList, parse_cores};

use super::named;

pub(super) const EXAMPLES: &str = "Examples:\n  lvx bench wire\n  \
    lvx bench wire --system lvx,reflector,nftables --part throughput --frame 64,1514\n  \
    lvx bench wire --part exchange --system lvx,haproxy --json\n\n\
    With real cards, two ports of this machine wired to two of another that runs a\n\
    director (service 10.1.0.1:80 by UDP and TCP, its clients 10.9.0.0/18 behind the first,\n\
    its servers behind the second). The devices are the benchmark's alone: it takes all IP\n\
    packets that come in on them.\n  \
    lvx bench wire --devices eth2,eth3 --gateway 02:00:00:00:b1:01 --service 10.1.0.1:80";

/// See [`Options`].
#[derive(Debug, Args)]
pub struct Wire {
    /// Systems to measure in turn
    #[arg(long = "system", value_delimiter = ',', value_name = "NAME")]
    #[arg(value_parser = named(&Kind::ALL, Kind::name))]
    #[arg(default_values = ["lvx", "reflector", "nftables"])]
    systems: Vec<Kind>,
    /// What to measure of them
    #[arg(long = "part", value_delimiter = ',', value_name = "PART")]
    #[arg(value_parser = named(&Part::ALL, Part::name))]
    #[arg(default_values = ["throughput", "latency", "overload", "drain", "exchange"])]
    parts: Vec<Part>,
    /// The family of clients and servers
    #[arg(long, value_enum, default_value = "v4")]
    family: FamilyName,
    /// Frame lengths, bytes; the first is that of all parts but throughput
    #[arg(long, value_delimiter = ',', value_name = "BYTES", default_values = ["64", "512", "1514"])]
    #[arg(value_parser = clap::value_parser!(u16).range(60..=1514))]
    frame: Vec<u16>,
    /// Flows
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    flows: u64,
    /// How long each measurement takes, seconds
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Rounds; medians count
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// The generator's core, then the systems' [default: the first, then the others]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<CoreList>,
    /// lvx's workers never sleep
    #[arg(long)]
    busy_poll: bool,
    /// Real devices towards the clients' and the servers' side of a system started elsewhere
    #[arg(long, value_name = "DEV,DEV", requires_all = ["gateway", "service"])]
    devices: Option<String>,
    /// That system's link address at the clients' side
    #[arg(long, value_name = "MAC")]
    gateway: Option<String>,
    /// Its service
    #[arg(long, value_name = "ADDRESS:PORT")]
    service: Option<SocketAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Wire {
    pub(super) fn run(&self) -> Result<(), String> {
        let options = self.options()?;
        let stop = super::stop_flag()?;
        let mut told = super::Told::default();
        let results = wire::run(&options, Stop(&stop), &mut |share, what| {
            told.tell(share, what);
        });
        told.end();
        super::print(&results?, self.json, table)
    }

    fn options(&self) -> Result<Options, String> {
        if !(0.01..=600.0).contains(&self.seconds) {
            return Err("--seconds takes 0.01 to 600".to_owned());
        }
        let cores = match &self.cores {
            Some(list) => list.0.clone(),
            None => super::cores(),
        };
        let [generator_core, system_cores @ ..] = cores.as_slice() else {
            return Err("--cores names the generator's core first".to_owned());
        };
        if system_cores.is_empty() {
            return Err("at least two cores: one for the generator, one for the system".to_owned());
        }
        Ok(Options {
            systems: self.systems.clone(),
            parts: self.parts.clone(),
            family: self.family.into(),
            frame_bytes: self.frame.iter().map(|n| usize::from(*n)).collect(),
            flows: self.flows,
            duration: Duration::from_secs_f64(self.seconds),
            rounds: self.rounds.into(),
            generator_core: *generator_core,
            system_cores: system_cores.to_vec(),
            lvx: std::env::current_exe().map_err(|error| error.to_string())?,
            busy_poll: self.busy_poll,
            devices: self.real_devices()?,
        })
    }

    fn real_devices(&self) -> Result<Option<Devices>, String> {
        let (Some(names), Some(gateway), Some(to)) = (&self.devices, &self.gateway, self.service)
        else {
            return Ok(None);
        };
        let (clients, servers) = names
            .split_once(',')
            .ok_or("--devices takes two names with a comma between")?;
        let gateway = parse_mac(gateway).ok_or("--gateway takes aa:bb:cc:dd:ee:ff")?;
        let family: sched::service::Family = self.family.into();
        if to.is_ipv4() != (family == sched::service::Family::V4) {
            return Err("--service is not of the --family".to_owned());
        }
        Ok(Some(Devices {
            clients: clients.to_owned(),
            servers: servers.to_owned(),
            gateway,
            to: (to.ip(), to.port()),
        }))
    }
}

/// For people.
fn table(results: &Results) -> String {
    let mut text = String::new();
    for system in &results.systems {
        text += &format!("{}\n", system.system);
        text += &lines(system);
    }
    for row in &results.scaling {
        let (workers, ns) = (row.workers, row.drain_ns.median());
        let system = &row.system;
        text += &format!("{system} with {workers} workers: {ns:.0} ns a frame from full rings\n");
    }
    if let Some(change) = &results.change {
        text += &format!(
            "{} services with {} servers each, restored in {:.1} s\n",
            change.services, change.servers, change.restore_s
        );
        for (scheduler, ms) in &change.edit_ms {
            let (median, most) = (ms.median(), ms.most());
            text +=
                &format!("  an edit of a {scheduler} service: {median:.1} ms, at most {most:.1}\n");
        }
        let (lost, sent, missed) = (change.lost, change.sent, change.missed);
        text += &format!(
            "  {lost} of {sent} frames lost meanwhile; the sink had no room for {missed}\n"
        );
    }
    for skipped in &results.skipped {
        text += &format!("left out: {}\n", skipped.why);
    }
    text
}

fn lines(system: &SystemResults) -> String {
    let mut text = String::new();
    let us = |spread: &::bench::spread::Spread| spread.median() / 1e3;
    for row in &system.throughput {
        text += &format!(
            "  {:4} B  {:.3} Mpps of {:.3} offered, {:.2} % lost; from {:.3} to {:.3}; its core {:.0} % busy\n",
            row.frame_bytes,
            row.rate_pps.median() / 1e6,
            row.offered_pps.median() / 1e6,
            row.loss.median() * 100.0,
            row.rate_pps.least() / 1e6,
            row.rate_pps.most() / 1e6,
            row.busy.median() * 100.0,
        );
    }
    for row in &system.latency {
        text += &format!(
            "  delay at {:2} % ({:.3} Mpps): p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us; {:.3} % lost\n",
            row.percent,
            row.offered_pps.median() / 1e6,
            us(&row.p50_ns),
            us(&row.p99_ns),
            us(&row.p999_ns),
            row.loss.median() * 100.0,
        );
    }
    for row in &system.overload {
        let recovery = match row.recovery_ms {
            Some(ms) => format!("loss ended {ms:.0} ms after it"),
            None => "loss did not end after it".to_owned(),
        };
        text += &format!(
            "  overload: {:.3} Mpps of {:.3} asked for, {:.2} % lost; {recovery}\n",
            row.offered_pps / 1e6,
            row.asked_pps / 1e6,
            row.loss * 100.0,
        );
    }
    if !system.drain_ns.is_empty() {
        text += &format!(
            "  core time: {:.0} ns a frame, from {:.0} to {:.0}\n",
            system.drain_ns.median(),
            system.drain_ns.least(),
            system.drain_ns.most()
        );
    }
    if let Some(exchange) = &system.exchange {
        text += &format!(
            "  connections: {:.0} a second, {:.2} % failed; each took p50 {:.0} us, p99 {:.0} us\n",
            exchange.rate.median(),
            exchange.failed.median() * 100.0,
            us(&exchange.p50_ns),
            us(&exchange.p99_ns),
        );
    }
    text
}
