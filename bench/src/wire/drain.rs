//! What a frame costs the system's core, where the generator is slower than the system.
//! The system is stopped, its receive ring is filled, and it is let go: how fast the ring
//! empties is its own speed. For systems that are one process and take frames by AF_XDP.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Stop;
use super::load::Flows;
use super::station::{Side, Station};

/// Frames a queue: what a director's ring holds, less some room.
const FRAMES: usize = 1920;

/// Frames of a queue that are let pass before the clock starts: the system wakes up.
const AHEAD: usize = 256;

/// How long a drain may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// A look that came so late is no look: the generator was away, and what the system did
/// meanwhile is not known.
const AWAY: Duration = Duration::from_micros(100);

/// Frames put before the kernel is called.
const BATCH: usize = 64;

/// How the generator waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It looks all the time: exact, and takes a core of its own.
    Looking,
    /// It sleeps between looks, so that a worker may have its core. The system's waking up
    /// is then part of the time.
    Asleep,
}

/// Nanoseconds a frame in each of `rounds`, sorted; rounds in which frames were lost or the
/// generator was away are not there.
///
/// # Errors
/// Where the process is gone, or it was told to stop.
pub fn run(
    station: &mut Station,
    flows: &mut Flows,
    process: Pid,
    wait: Wait,
    rounds: usize,
    stop: Stop<'_>,
) -> Result<Vec<f64>, String> {
    let mut spans = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        stop.check()?;
        station.empty();
        signal(process, Signal::STOP)?;
        let filled = fill(station, flows);
        let start = Instant::now();
        signal(process, Signal::CONT)?;
        spans.extend(time(station, filled, wait, start));
    }
    spans.sort_by(f64::total_cmp);
    Ok(spans)
}

fn signal(process: Pid, signal: Signal) -> Result<(), String> {
    kill_process(process, signal)
        .map_err(|error| format!("the system's process {}: {error}", process.as_raw_nonzero()))
}

fn fill(station: &mut Station, flows: &mut Flows) -> usize {
    // A stopped process may still be on its way out of a call.
    sleep(Duration::from_millis(1));
    let mut filled = 0;
    for queue in 0..station.queues() {
        for _ in 0..FRAMES / BATCH {
            filled += flows.put(station, queue, BATCH, 1);
            station.flush(Side::Clients);
        }
    }
    filled
}

/// A frame's share of the time, ns; `start` is when the system was let go.
fn time(station: &mut Station, frames: usize, wait: Wait, start: Instant) -> Option<f64> {
    let ahead = AHEAD * station.queues();
    let (mut received, mut begun) = (0, None);
    let mut looked = start;
    while start.elapsed() < PATIENCE {
        let new = station.receive(Side::Servers, |_| ());
        let now = Instant::now();
        if wait == Wait::Looking && now - looked > AWAY {
            return None;
        }
        looked = now;
        received += new;
        if received >= frames && wait == Wait::Asleep {
            // Seen late, all may have come at once: only the whole time is known.
            return Some((now - start).as_nanos() as f64 / frames as f64);
        }
        if received >= frames {
            let (since, already): (Instant, usize) = begun?;
            return Some((now - since).as_nanos() as f64 / (frames - already) as f64);
        }
        if received >= ahead {
            begun.get_or_insert((now, received));
        }
        if new == 0 && wait == Wait::Asleep {
            sleep(Duration::from_micros(20));
        }
    }
    None
}
