//! The order of measurements: part by part, round by round, system by system (A B A B), so
//! that what the machine does beside falls on all systems alike.

use std::fs;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use sched::service::Family;

use super::bed::{self, Bed, GENERATOR_PORTS};
use super::drain::Wait;
use super::load::{self, Flows, Outcome, Phase, SLICE_NS};
use super::results::{
    Exchange, Latency, Overload, Results, Scaling, Skipped, SystemResults, Throughput,
};
use super::station::Station;
use super::system::{Setup, System};
use super::{Kind, Options, Part, Stop, change, drain, exchange};
use crate::spread::Spread;
use crate::traffic::End;
use crate::world::VIRTUAL_PORT;

/// Parts of the rate for delays, percent.
const LOADS: [u32; 3] = [10, 50, 90];
/// Of the rate, percent.
const OVERLOAD: f64 = 110.0;
/// Connections open at a time.
const OPEN: u64 = 256;
/// Drains in a round.
const DRAINS: usize = 25;
/// Room for connections in a director: those of exchanges stay for two minutes.
const CONNECTIONS: u64 = 1 << 23;
/// Quantiles of a distribution that is drawn.
const QUANTILES: [f64; 14] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999,
];

/// Called before each measurement with the share that is done, 0 to 1, and what comes.
pub type Progress<'p> = dyn FnMut(f64, &str) + Send + 'p;

/// Measures. Systems that cannot be started are left out, with the reason in the results.
///
/// # Errors
/// Where nothing can be measured at all, or on being told to stop.
pub fn run(
    options: &Options,
    stop: Stop<'_>,
    progress: &mut Progress<'_>,
) -> Result<Results, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the wire benchmark needs root: namespaces, AF_XDP, XDP programs".to_owned());
    }
    let mut results = Results {
        family: format!("{:?}", options.family).to_lowercase(),
        flows: options.flows,
        generator_core: options.generator_core,
        system_cores: options.system_cores.clone(),
        ..Results::default()
    };
    let parts = &options.parts;
    let own_systems = [Part::Scaling, Part::Change];
    if parts.iter().any(|part| !own_systems.contains(part)) {
        let systems = start_all(options, stop, &mut results, progress)?;
        on_generator(options, || {
            Session::new(options, &systems, stop, progress)?.measure(&mut results)
        })?;
    }
    if parts.contains(&Part::Scaling) {
        progress(0.9, "scaling over workers");
        results.scaling = scaling(options, stop)?;
    }
    if parts.contains(&Part::Change) {
        progress(0.95, "changes to 1,000 services");
        results.change = Some(change::run(options, stop)?);
    }
    progress(1.0, "done");
    Ok(results)
}

/// Runs `work` on a thread of its own, tied to the generator's core. Processes and beds
/// are made by other threads: they would be tied to that core as well.
pub(super) fn on_generator<T: Send>(
    options: &Options,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let core = options.generator_core;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                return Err(format!(
                    "core {core} cannot be had: name others with --cores"
                ));
            }
            work()
        });
        let died = |_| Err("the generator's thread died".to_owned());
        thread.join().unwrap_or_else(died)
    })
}

pub(super) fn setup(options: &Options, cores: &[usize]) -> Setup {
    Setup {
        lvx: options.lvx.clone(),
        cores: cores.to_vec(),
        connections: CONNECTIONS,
        busy_poll: options.busy_poll,
    }
}

fn start_all(
    options: &Options,
    stop: Stop<'_>,
    results: &mut Results,
    progress: &mut Progress<'_>,
) -> Result<Vec<System>, String> {
    if options.devices.is_some() {
        return Ok(Vec::new());
    }
    // One worker each: on two cores a second one would have to share with the generator.
    let setup = setup(options, &options.system_cores[..1]);
    let mut systems = Vec::new();
    for &kind in &options.systems {
        stop.check()?;
        progress(0.0, &format!("starting {}", kind.name()));
        let system = kind
            .check()
            .and_then(|()| System::start(kind, Bed::new(1)?, &setup));
        match system {
            Ok(system) => {
                system.rest(true);
                systems.push(system);
            }
            Err(why) => results.skipped.push(Skipped {
                system: kind.name().to_owned(),
                why,
            }),
        }
    }
    match systems.is_empty() {
        false => Ok(systems),
        true => Err(results
            .skipped
            .iter()
            .map(|skipped| skipped.why.clone())
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

/// A system, or none for devices that someone else's is between.
struct Place<'s> {
    system: Option<&'s System>,
    station: Station,
    results: SystemResults,
    /// All latencies of all rounds, by load.
    delays: Vec<Histogram<u64>>,
    /// The next free connection number.
    connection: u64,
}

impl Place<'_> {
    fn kind(&self) -> Option<Kind> {
        self.system.map(System::kind)
    }

    fn rest(&self, resting: bool) {
        if let Some(system) = self.system {
            system.rest(resting);
        }
    }

    fn forwards_frames(&self) -> bool {
        self.kind().is_none_or(Kind::forwards_frames)
    }

    fn fits(&self, frame_bytes: usize) -> bool {
        let kind = self.kind();
        kind.is_none_or(|kind| frame_bytes <= kind.longest_frame_bytes())
    }

    /// The median rate of the shortest frames.
    fn rate(&self) -> f64 {
        let shortest = self.results.throughput.first();
        shortest.map_or(f64::NAN, |throughput| throughput.rate_pps.median())
    }
}

struct Session<'s, 'p> {
    options: &'s Options,
    places: Vec<Place<'s>>,
    stop: Stop<'s>,
    progress: &'s mut Progress<'p>,
    steps: usize,
    step: usize,
}

impl<'s, 'p> Session<'s, 'p> {
    fn new(
        options: &'s Options,
        systems: &'s [System],
        stop: Stop<'s>,
        progress: &'s mut Progress<'p>,
    ) -> Result<Self, String> {
        let mut places = Vec::new();
        for system in systems {
            system.bed().enter()?;
            let [clients, servers] = GENERATOR_PORTS;
            let station = Station::open(clients, servers, 1)?;
            places.push(Place::new(system.kind().name(), Some(system), station));
        }
        if let Some(devices) = &options.devices {
            let station = Station::open(&devices.clients, &devices.servers, 1)?;
            places.push(Place::new("external", None, station));
        }
        let lengths = options.frame_bytes.len();
        let measured = |part: &Part| match part {
            Part::Throughput => lengths,
            Part::Latency => LOADS.len(),
            Part::Overload | Part::Drain | Part::Exchange => 1,
            Part::Scaling | Part::Change => 0,
        };
        let steps: usize = options.parts.iter().map(measured).sum();
        Ok(Self {
            steps: steps * options.rounds * places.len(),
            options,
            places,
            stop,
            progress,
            step: 0,
        })
    }

    fn measure(mut self, results: &mut Results) -> Result<(), String> {
        results.transfer = format!("{:?}", self.places[0].station.transfer);
        let has = |part| self.options.parts.contains(&part);
        let lengths = match has(Part::Throughput) {
            true => self.options.frame_bytes.as_slice(),
            // The other parts are relative to the rate.
            false if has(Part::Latency) || has(Part::Overload) => &self.options.frame_bytes[..1],
            false => &[],
        };
        for &bytes in lengths {
            let takes = |place: &Place<'_>| place.forwards_frames() && place.fits(bytes);
            self.each(&format!("{bytes} B"), takes, |s, place| {
                s.throughput(place, bytes)
            })?;
        }
        let base = self.base();
        if has(Part::Latency) {
            for (at, percent) in LOADS.into_iter().enumerate() {
                self.each(
                    &format!("delay at {percent} %"),
                    Place::forwards_frames,
                    |s, place| s.latency(place, at, base_of(place, base)),
                )?;
            }
        }
        if has(Part::Overload) {
            self.each("overload", Place::forwards_frames, |s, place| {
                s.overload(place, base_of(place, base))
            })?;
        }
        if has(Part::Drain) {
            let drains = |place: &Place<'_>| place.kind().is_some_and(Kind::drains);
            self.each("core time", drains, Self::drain)?;
        }
        if has(Part::Exchange) && self.options.family == Family::V4 {
            let exchanges = |place: &Place<'_>| place.kind().is_none_or(Kind::exchanges);
            self.each("connections", exchanges, Self::exchange)?;
        }
        for mut place in self.places {
            for (latency, delays) in place.results.latency.iter_mut().zip(&place.delays) {
                let quantile = |q: f64| (q, delays.value_at_quantile(q));
                if !delays.is_empty() {
                    latency.distribution = QUANTILES.map(quantile).to_vec();
                }
            }
            results.systems.push(place.results);
        }
        Ok(())
    }

    /// All rounds of a measurement, over all systems that it is for.
    fn each(
        &mut self,
        what: &str,
        is_for: impl Fn(&Place<'s>) -> bool,
        measure: impl Fn(&Self, &mut Place<'s>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut places = std::mem::take(&mut self.places);
        let mut run = || {
            for round in 1..=self.options.rounds {
                for place in &mut places {
                    self.step += 1;
                    if !is_for(place) {
                        continue;
                    }
                    self.stop.check()?;
                    let share = self.step as f64 / self.steps.max(1) as f64 * 0.9;
                    let name = &place.results.system;
                    let text = format!("{name}, {what}, round {round}");
                    (self.progress)(share.min(0.9), &text);
                    place.rest(false);
                    let measured = measure(self, place);
                    place.rest(true);
                    measured?;
                }
            }
            Ok(())
        };
        let ended = run();
        self.places = places;
        ended
    }

    /// The rate that all AF_XDP systems reach: their delays are compared at the same loads.
    fn base(&self) -> f64 {
        let alike = |place: &&Place<'_>| place.kind().is_some_and(Kind::drains);
        let rates = self.places.iter().filter(alike).map(Place::rate);
        rates.fold(f64::NAN, f64::min)
    }

    fn to(&self) -> (End, [u8; 6]) {
        match &self.options.devices {
            Some(devices) => (devices.to, devices.gateway),
            None => service(self.options.family),
        }
    }

    fn flows(&self, frame_bytes: usize) -> Flows {
        let (to, gateway) = self.to();
        Flows::new(
            self.options.family,
            to,
            gateway,
            self.options.flows,
            frame_bytes,
        )
    }

    fn load(
        &self,
        place: &mut Place<'s>,
        frame_bytes: usize,
        rate_pps: Option<f64>,
    ) -> Result<Outcome, String> {
        let mut flows = self.flows(frame_bytes);
        let warm_up = Phase {
            rate_pps: Some(200_000.0),
            // All flows are known before it counts.
            duration: Duration::from_millis(30 + self.options.flows / 200),
        };
        load::run(&mut place.station, &mut flows, &[warm_up], self.stop)?;
        let phase = Phase {
            rate_pps,
            duration: self.options.duration,
        };
        load::run(&mut place.station, &mut flows, &[phase], self.stop)
    }

    fn throughput(&self, place: &mut Place<'s>, bytes: usize) -> Result<(), String> {
        let before = busy_ticks(&self.options.system_cores[..1]);
        let outcome = self.load(place, bytes, None)?;
        let busy = busy_ticks(&self.options.system_cores[..1]);
        let rows = &mut place.results.throughput;
        let at = rows.iter().position(|row| row.frame_bytes == bytes);
        let at = at.unwrap_or_else(|| {
            rows.push(Throughput {
                frame_bytes: bytes,
                ..Throughput::default()
            });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.offered_pps.push(outcome.offered_pps);
        row.rate_pps.push(outcome.rate_pps);
        row.loss.push(outcome.loss());
        row.sink_missed += outcome.missed;
        if let (Some(before), Some(after)) = (before, busy) {
            let all = (after.1 - before.1).max(1);
            row.busy.push((after.0 - before.0) as f64 / all as f64);
        }
        Ok(())
    }

    fn latency(&self, place: &mut Place<'s>, at: usize, base: f64) -> Result<(), String> {
        let asked_pps = base * f64::from(LOADS[at]) / 100.0;
        let outcome = self.load(place, self.options.frame_bytes[0], Some(asked_pps))?;
        if place.results.latency.len() == at {
            place.results.latency.push(Latency {
                percent: LOADS[at],
                asked_pps,
                ..Latency::default()
            });
            place.delays.push(outcome.latency.clone());
        } else {
            let _ = place.delays[at].add(&outcome.latency);
        }
        let row = &mut place.results.latency[at];
        row.offered_pps.push(outcome.offered_pps);
        row.loss.push(outcome.loss());
        // Where nothing arrived there is no delay, not one of 0.
        if !outcome.latency.is_empty() {
            let quantile = |q: f64| outcome.latency.value_at_quantile(q) as f64;
            row.p50_ns.push(quantile(0.5));
            row.p99_ns.push(quantile(0.99));
            row.p999_ns.push(quantile(0.999));
        }
        Ok(())
    }

    fn overload(&self, place: &mut Place<'s>, base: f64) -> Result<(), String> {
        let asked_pps = base * OVERLOAD / 100.0;
        let duration = self.options.duration;
        let phases = [asked_pps, base / 2.0].map(|rate| Phase {
            rate_pps: Some(rate),
            duration,
        });
        let mut flows = self.flows(self.options.frame_bytes[0]);
        let outcome = load::run(&mut place.station, &mut flows, &phases, self.stop)?;
        place.results.overload.push(overload(&outcome, asked_pps));
        Ok(())
    }

    fn drain(&self, place: &mut Place<'s>) -> Result<(), String> {
        let process = place.system.and_then(System::process);
        let process = process.expect("only processes are drained");
        let mut flows = self.flows(self.options.frame_bytes[0]);
        let station = &mut place.station;
        let spans = drain::run(
            station,
            &mut flows,
            process,
            Wait::Looking,
            DRAINS,
            self.stop,
        )?;
        for span in spans {
            place.results.drain_ns.push(span);
        }
        Ok(())
    }

    fn exchange(&self, place: &mut Place<'s>) -> Result<(), String> {
        let (to, gateway) = self.to();
        let std::net::IpAddr::V4(address) = to.0 else {
            return Err("exchanges are IPv4's".to_owned());
        };
        let plan = exchange::Exchanges {
            to: (address, to.1),
            gateway,
            open: OPEN,
            first: place.connection,
            duration: self.options.duration,
        };
        let outcome = exchange::run(&mut place.station, plan, self.stop)?;
        place.connection = outcome.next;
        let results = place.results.exchange.get_or_insert_with(|| Exchange {
            open: OPEN,
            ..Exchange::default()
        });
        let all = (outcome.complete + outcome.failed).max(1) as f64;
        results.rate.push(outcome.rate);
        results.failed.push(outcome.failed as f64 / all);
        if !outcome.time.is_empty() {
            let quantile = |q: f64| outcome.time.value_at_quantile(q) as f64;
            results.p50_ns.push(quantile(0.5));
            results.p99_ns.push(quantile(0.99));
        }
        Ok(())
    }
}

impl<'s> Place<'s> {
    fn new(name: &str, system: Option<&'s System>, station: Station) -> Self {
        Self {
            system,
            station,
            results: SystemResults {
                system: name.to_owned(),
                ..SystemResults::default()
            },
            delays: Vec::new(),
            connection: 0,
        }
    }
}

fn base_of(place: &Place<'_>, base: f64) -> f64 {
    // min ignores NaN: systems without an AF_XDP one beside them have their own rate.
    place.rate().min(base)
}

/// The service on a bed.
pub(super) fn service(family: Family) -> (End, [u8; 6]) {
    let to = (bed::virtual_address(family), VIRTUAL_PORT);
    (to, Bed::gateway())
}

fn overload(outcome: &Outcome, asked_pps: f64) -> Overload {
    let (during, after) = outcome.slices.split_at(outcome.slices.len() / 2);
    let sum = |of: fn(&load::Slice) -> u64| during.iter().map(of).sum::<u64>();
    let (sent, received) = (sum(|s| s.sent), sum(|s| s.received));
    let seconds = during.len() as f64 * SLICE_NS as f64 / 1e9;
    // A frame in ten thousand is lost to interrupts on any machine.
    let is_lossy = |slice: &load::Slice| slice.received + 1 + slice.sent / 10_000 < slice.sent;
    let last = after.iter().rposition(is_lossy);
    let recovery = match last {
        None => Some(0.0),
        Some(last) if last + 1 == after.len() => None,
        Some(last) => Some((last + 1) as f64 * SLICE_NS as f64 / 1e6),
    };
    Overload {
        asked_pps,
        offered_pps: sent as f64 / seconds,
        loss: 1.0 - received as f64 / sent.max(1) as f64,
        recovery_ms: recovery,
    }
}

/// Ticks that cores were not idle, and all ticks.
fn busy_ticks(cores: &[usize]) -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let (mut busy, mut all) = (0, 0);
    for core in cores {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
        let ticks: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        // proc(5): user nice system idle iowait irq softirq steal; guests are in user.
        let whole: u64 = ticks.iter().take(8).sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        busy += whole - idle;
        all += whole;
    }
    Some((busy, all))
}

/// Rings of one worker, then of as many as there are cores, the generator's at last.
fn scaling(options: &Options, stop: Stop<'_>) -> Result<Vec<Scaling>, String> {
    let mut cores = options.system_cores.clone();
    cores.push(options.generator_core);
    let mut results = Vec::new();
    let counts = (1..).map(|n| 1usize << n).take_while(|n| *n <= cores.len());
    let counts: Vec<usize> = std::iter::once(1).chain(counts).collect();
    for kind in [Kind::Lvx, Kind::Reflector] {
        for &workers in &counts {
            let setup = setup(options, &cores[..workers]);
            let system = System::start(kind, Bed::new(workers as u32)?, &setup)?;
            let drain_ns = on_generator(options, || {
                drained(options, &system, workers as u32, stop).map(Spread::from)
            })?;
            results.push(Scaling {
                system: kind.name().to_owned(),
                workers,
                drain_ns,
            });
        }
    }
    Ok(results)
}

fn drained(
    options: &Options,
    system: &System,
    queues: u32,
    stop: Stop<'_>,
) -> Result<Vec<f64>, String> {
    system.bed().enter()?;
    let [clients, servers] = GENERATOR_PORTS;
    let mut station = Station::open(clients, servers, queues)?;
    let (to, gateway) = service(options.family);
    let bytes = options.frame_bytes[0];
    let mut flows = Flows::new(options.family, to, gateway, options.flows, bytes);
    let process = system.process().expect("it is a process");
    let rounds = DRAINS * options.rounds;
    drain::run(
        &mut station,
        &mut flows,
        process,
        Wait::Asleep,
        rounds,
        stop,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::load::Slice;

    #[test]
    fn recovery_is_when_the_last_slice_lost_frames() {
        let full = Slice {
            sent: 100,
            received: 100,
        };
        let lossy = Slice {
            sent: 100,
            received: 50,
        };
        let rows: [(&str, &[Slice], Option<f64>, f64); 4] = [
            ("none lost", &[full, full, full, full], Some(0.0), 0.0),
            ("lost during", &[lossy, full, full, full], Some(0.0), 0.25),
            (
                "and a while after",
                &[lossy, lossy, lossy, full],
                Some(10.0),
                0.5,
            ),
            ("without end", &[full, full, full, lossy], None, 0.0),
        ];
        for (what, slices, recovery_ms, loss) in rows {
            let outcome = Outcome {
                sent: 0,
                received: 0,
                missed: 0,
                offered_pps: 0.0,
                rate_pps: 0.0,
                latency: Histogram::new(3).unwrap(),
                slices: slices.to_vec(),
            };
            let overload = overload(&outcome, 1e4);
            assert_eq!(overload.recovery_ms, recovery_ms, "{what}");
            assert!((overload.loss - loss).abs() < 1e-9, "{what}");
            assert_eq!(overload.offered_pps, 1e4, "{what}");
        }
    }

    #[test]
    fn cores_have_ticks() {
        let (busy, all) = busy_ticks(&[0]).expect("/proc/stat has core 0");
        assert!(busy <= all && all > 0);
        assert_eq!(busy_ticks(&[99_999]), None);
    }
}
