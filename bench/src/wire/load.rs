//! A stream of UDP frames at a rate, and what arrived of it, when.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sched::service::{Family, Protocol};

use super::Stop;
use super::stamp::{self, Stamp};
use super::station::{Side, Station};
use crate::traffic::{Content, End, client, write_with};

/// Frames put before the kernel is called, where the rate allows as many.
const BURST: usize = 64;

/// What the generator was away from its schedule, it leaves out, but for as many frames.
const DEBT_MAX: u64 = 2 * BURST as u64;

/// How long to wait for frames under way.
const AFTERWARDS: Duration = Duration::from_millis(20);

/// The first part of a run that its rate leaves out: caches and queues fill.
const WARM_UP: f64 = 0.1;

/// The frames to send, one for each flow, in turn.
#[derive(Debug)]
pub struct Flows {
    frames: Vec<Vec<u8>>,
    next: usize,
}

impl Flows {
    /// `count` clients that talk to a service, through the port with this link address.
    pub fn new(family: Family, to: End, gateway: [u8; 6], count: u64, frame_bytes: usize) -> Self {
        let headers = match family {
            Family::V4 => 14 + 20 + 8,
            Family::V6 => 14 + 40 + 8,
        };
        let length = frame_bytes.max(headers + stamp::BYTES);
        let tail = Stamp { sent_ns: 0 }.bytes();
        let frame = |number| {
            let mut frame = vec![0; length];
            let content = Content {
                protocol: Protocol::Udp,
                source: client(family, number),
                destination: to,
                flags: 0,
                length,
            };
            write_with(&mut frame, &content, &tail);
            frame[..6].copy_from_slice(&gateway);
            frame
        };
        Self {
            frames: (0..count).map(frame).collect(),
            next: 0,
        }
    }

    /// The frames' length, bytes: more than asked for where a stamp needs it.
    #[cfg(test)]
    pub fn frame_bytes(&self) -> usize {
        self.frames[0].len()
    }

    /// Puts the next `count` frames with the time `now_ns` in them; how many had room.
    pub fn put(&mut self, station: &mut Station, queue: usize, count: usize, now_ns: u64) -> usize {
        let stamp = Stamp { sent_ns: now_ns }.bytes();
        for put in 0..count {
            let template = &self.frames[self.next];
            let at = template.len() - stamp::BYTES;
            let write = |frame: &mut [u8]| frame[at..].copy_from_slice(&stamp);
            if !station.put(Side::Clients, queue, template, write) {
                return put;
            }
            self.next = (self.next + 1) % self.frames.len();
        }
        count
    }
}

/// A part of a run.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Frames a second; none for as many as can be.
    pub rate_pps: Option<f64>,
    /// For how long.
    pub duration: Duration,
}

/// Frames are also counted by when they were sent, in slices of this length, ns.
pub const SLICE_NS: u64 = 10_000_000;

/// Frames sent within a slice of time, and those of them that arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Sent.
    pub sent: u64,
    /// Arrived, whenever.
    pub received: u64,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Frames sent.
    pub sent: u64,
    /// Of those, frames that arrived.
    pub received: u64,
    /// Frames that the sink's own ring had no room for: not the system's fault.
    pub missed: u64,
    /// Frames sent a second, while the rate was taken.
    pub offered_pps: f64,
    /// Frames that arrived a second, while the rate was taken.
    pub rate_pps: f64,
    /// How long each was under way, ns.
    pub latency: Histogram<u64>,
    /// From the start on.
    pub slices: Vec<Slice>,
}

impl Outcome {
    /// The share of frames that were lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => 1.0 - self.received.min(sent) as f64 / sent as f64,
        }
    }
}

/// Frames so far, at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at_ns: u64,
    sent: u64,
    received: u64,
}

/// Sends all phases, one behind the other, and waits for what is under way.
///
/// # Errors
/// Where it was told to stop.
pub fn run(
    station: &mut Station,
    flows: &mut Flows,
    phases: &[Phase],
    stop: Stop<'_>,
) -> Result<Outcome, String> {
    station.empty();
    let missed = station.missed(Side::Servers);
    let clock = Clock(Instant::now());
    let whole_ns: u64 = phases.iter().map(|p| p.duration.as_nanos() as u64).sum();
    let mut run = Run::new(whole_ns);
    let warm_ns = (whole_ns as f64 * WARM_UP) as u64;
    let (mut warm, mut end_ns, mut queue) = (None, 0, 0);
    for phase in phases {
        let mut pace = Pace::new(phase.rate_pps, end_ns);
        end_ns += phase.duration.as_nanos() as u64;
        loop {
            let now = clock.now_ns();
            if now >= end_ns {
                break;
            }
            if now >= warm_ns {
                warm.get_or_insert(run.mark(now));
            }
            let due = pace.due(now);
            if due > 0 {
                let put = flows.put(station, queue, due, now) as u64;
                station.flush(Side::Clients);
                pace.sent += put;
                run.sent(put, now);
                queue = (queue + 1) % station.queues();
            }
            run.receive(station, &clock);
            stop.check()?;
        }
    }
    let last = run.mark(clock.now_ns());
    let silent = Instant::now();
    while silent.elapsed() < AFTERWARDS && run.received < run.sent {
        run.receive(station, &clock);
    }
    let mut outcome = run.outcome(warm.unwrap_or_default(), last);
    outcome.missed = station.missed(Side::Servers) - missed;
    Ok(outcome)
}

/// How many frames are due. What the generator was away for is left out: a burst of all
/// that it missed would measure the generator.
struct Pace {
    rate_pps: Option<f64>,
    origin_ns: u64,
    /// Since the origin.
    sent: u64,
}

impl Pace {
    fn new(rate_pps: Option<f64>, origin_ns: u64) -> Self {
        Self {
            rate_pps,
            origin_ns,
            sent: 0,
        }
    }

    fn due(&mut self, now_ns: u64) -> usize {
        let Some(rate) = self.rate_pps else {
            return BURST;
        };
        let scheduled = (now_ns.saturating_sub(self.origin_ns) as f64 * rate / 1e9) as u64;
        let due = scheduled.saturating_sub(self.sent);
        if due > DEBT_MAX {
            (self.origin_ns, self.sent) = (now_ns, 0);
        }
        due.min(BURST as u64) as usize
    }
}

/// The time since a run's start.
struct Clock(Instant);

impl Clock {
    fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

struct Run {
    sent: u64,
    received: u64,
    latency: Histogram<u64>,
    slices: Vec<Slice>,
}

impl Run {
    fn new(whole_ns: u64) -> Self {
        Self {
            sent: 0,
            received: 0,
            latency: Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("bounds in order"),
            slices: vec![Slice::default(); whole_ns.div_ceil(SLICE_NS) as usize],
        }
    }

    fn sent(&mut self, count: u64, at_ns: u64) {
        self.sent += count;
        if let Some(slice) = self.slices.get_mut((at_ns / SLICE_NS) as usize) {
            slice.sent += count;
        }
    }

    fn mark(&self, at_ns: u64) -> Mark {
        Mark {
            at_ns,
            sent: self.sent,
            received: self.received,
        }
    }

    fn receive(&mut self, station: &mut Station, clock: &Clock) {
        loop {
            let mut now = 0;
            let taken = station.receive(Side::Servers, |frame| {
                if now == 0 {
                    now = clock.now_ns();
                }
                if let Some(stamp) = Stamp::read(frame) {
                    self.received += 1;
                    self.latency
                        .saturating_record(now.saturating_sub(stamp.sent_ns));
                    if let Some(slice) = self.slices.get_mut((stamp.sent_ns / SLICE_NS) as usize) {
                        slice.received += 1;
                    }
                }
            });
            if taken < BURST {
                return;
            }
        }
    }

    fn outcome(self, from: Mark, to: Mark) -> Outcome {
        let seconds = (to.at_ns - from.at_ns).max(1) as f64 / 1e9;
        Outcome {
            sent: self.sent,
            received: self.received,
            missed: 0,
            offered_pps: (to.sent - from.sent) as f64 / seconds,
            rate_pps: (to.received - from.received) as f64 / seconds,
            latency: self.latency,
            slices: self.slices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::checksum;

    #[test]
    fn frames_have_the_length_asked_for_and_a_right_checksum_at_any_time() {
        let to = ("10.1.0.1".parse().unwrap(), 80);
        let flows = Flows::new(Family::V4, to, [2, 0, 0, 0, 0, 5], 3, 64);
        assert_eq!(flows.frame_bytes(), 64);
        for frame in &flows.frames {
            let mut frame = frame.clone();
            let at = frame.len() - stamp::BYTES;
            frame[at..].copy_from_slice(
                &Stamp {
                    sent_ns: 987_654_321,
                }
                .bytes(),
            );
            // RFC 768: the sum over pseudo-header, header and data is all ones.
            let pseudo = u32::from(!checksum(0, &frame[26..34])) + 17 + (64 - 34);
            assert_eq!(checksum(pseudo, &frame[34..]), 0);
            assert_eq!(Stamp::read(&frame).unwrap().sent_ns, 987_654_321);
        }
        let six = Flows::new(Family::V6, ("fd01::1".parse().unwrap(), 80), [0; 6], 1, 64);
        assert_eq!(six.frame_bytes(), 82);
    }

    #[test]
    fn frames_are_due_by_the_rate_and_absence_is_left_out() {
        let mut pace = Pace::new(Some(1e6), 5_000);
        let mut due_at = |now| {
            let due = pace.due(now);
            pace.sent += due as u64;
            due
        };
        assert_eq!(due_at(5_000), 0);
        assert_eq!(due_at(15_000), 10);
        assert_eq!(due_at(15_000), 0);
        assert_eq!(due_at(100_000), 64, "a burst at most");
        assert_eq!(due_at(100_000), 21);
        assert_eq!(due_at(10_000_000), 64, "after an absence");
        assert_eq!(
            due_at(10_064_000),
            0,
            "the burst counts against the new schedule"
        );
        assert_eq!(Pace::new(None, 0).due(1), 64);
    }

    #[test]
    fn loss_is_a_share() {
        let mut outcome = Run::new(0).outcome(Mark::default(), Mark::default());
        assert_eq!(outcome.loss(), 0.0);
        (outcome.sent, outcome.received) = (200, 150);
        assert_eq!(outcome.loss(), 0.25);
        outcome.received = 201;
        assert_eq!(outcome.loss(), 0.0);
    }
}
