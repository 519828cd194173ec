//! Changes to a large table while frames are forwarded: how long a command takes until it
//! is in force (it returns only then), and whether a frame is lost meanwhile.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::bed::{self, Bed, GENERATOR_PORTS};
use super::load::{self, Flows, Outcome, Phase};
use super::results::Change;
use super::session::{on_generator, service, setup};
use super::station::Station;
use super::system::{Kind, System};
use super::{Options, Stop};
use crate::spread::Spread;

/// The table.
const SERVICES: u32 = 1000;
const SERVERS: u32 = 100;

/// Edits for each scheduler.
const EDITS: usize = 12;

/// Frames a second meanwhile: well below the rate, so that a loss is the change's.
const RATE_PPS: f64 = 200_000.0;

/// Schedulers, in turn over the services: one that keeps little, one that builds a table of
/// 4,093 places for each service.
const SCHEDULERS: [&str; 2] = ["wlc", "mh"];

/// Measures with a director of its own.
///
/// # Errors
/// What failed.
pub fn run(options: &Options, stop: Stop<'_>) -> Result<Change, String> {
    let setup = setup(options, &options.system_cores[..1]);
    let system = System::start(Kind::Lvx, Bed::new(1)?, &setup)?;
    let begin = Instant::now();
    restore(options, &system)?;
    let mut change = Change {
        services: SERVICES,
        servers: SERVERS,
        restore_s: begin.elapsed().as_secs_f64(),
        ..Change::default()
    };
    let edited = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let load =
            scope.spawn(|| on_generator(options, || traffic(options, &system, stop, &edited)));
        let ended = edit(options, &system, stop, &mut change);
        edited.store(true, Ordering::Relaxed);
        let outcome = load.join().map_err(|_| "the generator died".to_owned())?;
        ended.and(outcome)
    })?;
    (change.sent, change.lost, change.missed) = outcome;
    Ok(change)
}

/// The whole table in one go, as `ipvsadm -R` takes it.
fn restore(options: &Options, system: &System) -> Result<(), String> {
    let mut lines = String::new();
    for number in 0..SERVICES {
        let scheduler = SCHEDULERS[number as usize % SCHEDULERS.len()];
        let service = name(number);
        lines += &format!("-A -u {service} -s {scheduler}\n");
        for server in 0..SERVERS {
            lines += &format!("-a -u {service} -r 10.2.1.{}:8080 -m -w 1\n", server + 1);
        }
    }
    let mut child = Command::new(&options.lvx)
        .args(["adm", "-R"])
        .env("LVX_API", system.api())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut input = child.stdin.take().expect("it is piped");
    let written = input.write_all(lines.as_bytes());
    drop(input);
    bed::succeeded("lvx adm -R", child.wait_with_output())?;
    written.map_err(|error| error.to_string())
}

/// Services beside the one that frames go to.
fn name(number: u32) -> String {
    format!("10.3.{}.{}:80", number / 250, number % 250 + 1)
}

fn edit(
    options: &Options,
    system: &System,
    stop: Stop<'_>,
    change: &mut Change,
) -> Result<(), String> {
    // The traffic's first frames go out.
    thread::sleep(Duration::from_millis(200));
    for (place, scheduler) in SCHEDULERS.iter().enumerate() {
        let mut spread = Spread::default();
        for round in 0..EDITS {
            stop.check()?;
            let number = (round * 37 * SCHEDULERS.len() + place) as u32 % SERVICES;
            let words = format!(
                "-e -u {} -r 10.2.1.7:8080 -m -w {}",
                name(number),
                round + 2
            );
            let begin = Instant::now();
            system.administer(&options.lvx, &words)?;
            spread.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        change.edit_ms.push(((*scheduler).to_owned(), spread));
    }
    for _ in 0..EDITS {
        let begin = Instant::now();
        system.administer(&options.lvx, "-L --timeout")?;
        change.command_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Frames until the edits are done: how many were sent, how many the system lost, and how
/// many arrived at a full ring of the sink, which shares its core with the commands.
fn traffic(
    options: &Options,
    system: &System,
    stop: Stop<'_>,
    edited: &AtomicBool,
) -> Result<(u64, u64, u64), String> {
    system.bed().enter()?;
    let [clients, servers] = GENERATOR_PORTS;
    let mut station = Station::open(clients, servers, 1)?;
    let (to, gateway) = service(options.family);
    let bytes = options.frame_bytes[0];
    let mut flows = Flows::new(options.family, to, gateway, options.flows, bytes);
    let phase = Phase {
        rate_pps: Some(RATE_PPS),
        duration: Duration::from_millis(100),
    };
    let (mut sent, mut lost, mut missed) = (0, 0, 0);
    while !edited.load(Ordering::Relaxed) {
        let Outcome {
            sent: more,
            received,
            missed: unseen,
            ..
        } = load::run(&mut station, &mut flows, &[phase], stop)?;
        sent += more;
        missed += unseen;
        lost += more.saturating_sub(received + unseen);
    }
    Ok((sent, lost, missed))
}
