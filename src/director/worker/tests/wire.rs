//! A generator and a sink around a worker, each over AF_XDP on the far ends of the worker's
//! veth links, all in one network namespace without a name. Needs root.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::port::afxdp::{self, AfXdpOptions, AfXdpPort, QueueSetup};
use dataplane::port::device::Device;
use dataplane::port::steering::{SteeredEndpoint, Steering, SteeringOptions, SteeringRules};
use sched::service::Protocol;

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Sends on by the other port, to a given link address, behind a longer header: VLAN tags
/// that the next port takes off again make the frame start elsewhere in its memory.
struct Across {
    counters: Arc<Counters>,
    next_mac: [u8; 6],
}

impl Handle for Across {
    fn handle(&mut self, _: &Snapshot, _: Ticks, frame: &mut Frame<'_>) -> Verdict {
        assert!(frame.grow_front(4));
        let bytes = frame.bytes_mut();
        bytes.copy_within(4..16, 0);
        bytes[..6].copy_from_slice(&self.next_mac);
        bytes[12..16].copy_from_slice(&[0x81, 0, 0, 0]);
        Verdict::Transmit(PortId(1))
    }

    fn finish(&mut self, _: &Snapshot, _: &mut Frame<'_>, _: Way) -> Verdict {
        Verdict::Held
    }

    fn give_up(&mut self, _: &Snapshot, _: Ticks, _: &mut Frame<'_>) -> Verdict {
        Verdict::Held
    }

    fn next_piece(&mut self, _: &mut Frame<'_>) -> bool {
        false
    }

    fn tidy(&mut self, _: &Snapshot, _: Ticks) {}

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// One end that only sends or receives.
struct End {
    frames: Frames,
    port: AfXdpPort,
    burst: Burst,
}

impl End {
    fn open(device: &Device) -> Self {
        let setup = QueueSetup {
            port: PortId(0),
            device,
            queue: 0,
        };
        let mut queues = afxdp::open(&[setup], AfXdpOptions::default()).unwrap();
        Self {
            frames: queues.frames,
            port: queues.ports.remove(0),
            burst: Burst::default(),
        }
    }

    /// Sends as many of `count` copies of `frame` as there is room for, numbered on.
    fn send(&mut self, frame: &[u8], count: u64, next: &mut u64) {
        self.port.reclaim(&mut self.frames);
        for _ in 0..count {
            let Some(mut slot) = self.frames.take_with(frame) else {
                break;
            };
            self.frames.edit(&mut slot, |frame| {
                frame.bytes_mut()[44..52].copy_from_slice(&next.to_be_bytes());
            });
            match self.port.send(&mut self.frames, slot) {
                Ok(()) => *next += 1,
                Err(slot) => {
                    self.frames.give(slot);
                    break;
                }
            }
        }
        self.port.flush(&mut self.frames);
    }

    /// Takes what has come; each frame's bytes go to `each`.
    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        self.port.receive(&mut self.frames, &mut self.burst);
        let count = self.burst.len();
        for slot in self.burst.drain() {
            each(self.frames.bytes(&slot));
            self.frames.give(slot);
        }
        count
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}

fn device(name: &str) -> Device {
    Device::find(name).unwrap()
}

/// A UDP packet to the service, 64 bytes with its link header and room for a number.
fn udp_frame(to: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..6].copy_from_slice(&to);
    frame[6] = 2;
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..18].copy_from_slice(&50u16.to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
    frame[30..34].copy_from_slice(&VIP.octets());
    frame[34..38].copy_from_slice(&[0x13, 0x88, 0, 80]);
    frame
}

fn rules() -> SteeringRules {
    SteeringRules {
        virtuals: vec![SteeredEndpoint {
            address: VIP.into(),
            protocol: Protocol::Udp,
            port: 80,
        }],
        ..SteeringRules::default()
    }
}

struct Lane {
    generator: End,
    sink: End,
    worker: Worker<AfXdpPort, Across, Host>,
    control: Control,
    counters: Arc<Counters>,
    frame: Vec<u8>,
    /// The director's and the sink's; first the director's goes.
    _steering: [Steering; 2],
}

/// Two veth links: in, from `far0` to the director's `near0`; out, from `near1` to `far1`.
fn lane(may_be_native: bool, options: WorkerOptions) -> Lane {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    for i in 0..2 {
        ip(&format!("link add near{i} type veth peer name far{i}"));
        ip(&format!("link set near{i} up"));
        ip(&format!("link set far{i} up"));
    }
    let [near0, near1, far0, far1] = ["near0", "near1", "far0", "far1"].map(device);
    let steer = SteeringOptions {
        may_be_native,
        ..SteeringOptions::default()
    };
    let mut ours = Steering::attach(&[near0.clone(), near1.clone()], steer).unwrap();
    let mut sinks = Steering::attach(std::slice::from_ref(&far1), steer).unwrap();
    let setup = |port, device| QueueSetup {
        port: PortId(port),
        device,
        queue: 0,
    };
    let queues = afxdp::open(
        &[setup(0, &near0), setup(1, &near1)],
        AfXdpOptions::default(),
    );
    let queues = queues.unwrap();
    for port in &queues.ports {
        assert!(port.may_be_partial(), "veth links have no zero-copy");
        ours.register(port.port(), 0, port.socket()).unwrap();
    }
    let (generator, sink) = (End::open(&far0), End::open(&far1));
    sinks.register(PortId(0), 0, sink.port.socket()).unwrap();
    ours.set(&rules()).unwrap();
    sinks.set(&rules()).unwrap();
    let (control, mut links) = link(1, snapshot(1)).unwrap();
    let counters = Arc::new(Counters::new(0, 0));
    let director = Across {
        counters: Arc::clone(&counters),
        next_mac: far1.mac,
    };
    let ports = queues
        .ports
        .into_iter()
        .map(|port| (port.port(), port))
        .collect();
    let worker = Worker::new(
        options,
        links.remove(0),
        director,
        Host::default(),
        queues.frames,
        ports,
    );
    Lane {
        generator,
        sink,
        worker,
        control,
        counters,
        frame: udp_frame(near0.mac),
        _steering: [ours, sinks],
    }
}

fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(work).join() {
        std::panic::resume_unwind(panic);
    }
}

/// In step, so that no ring overflows: then every frame must come out, once and in order.
fn nothing_is_lost(may_be_native: bool) {
    const COUNT: u64 = 20_000;
    let Lane {
        mut generator,
        mut sink,
        worker,
        control,
        counters,
        frame,
        _steering,
    } = lane(may_be_native, WorkerOptions::default());
    let thread = worker.spawn().unwrap();
    let (mut next, mut expected) = (0, 0);
    let mut last = Instant::now();
    while expected < COUNT {
        let room = 512 - (next - expected);
        generator.send(&frame, room.min(COUNT - next), &mut next);
        let received = sink.receive(|bytes| {
            assert_eq!(bytes.len(), 68);
            assert_eq!(bytes[12..18], [0x81, 0, 0, 0, 8, 0]);
            assert_eq!(bytes[48..56], expected.to_be_bytes(), "in order, none lost");
            expected += 1;
        });
        if received > 0 {
            last = Instant::now();
        }
        assert!(
            last.elapsed() < Duration::from_secs(5),
            "{expected} of {next} came out"
        );
        std::thread::yield_now();
    }
    control.stop();
    thread.join().unwrap();
    assert_eq!(counters.events(Event::Received), COUNT);
    assert_eq!(counters.events(Event::Sent), COUNT);
    assert!(
        Reason::ALL
            .iter()
            .all(|&reason| counters.drops(reason) == 0)
    );
}

#[test]
fn nothing_is_lost_in_native_mode() {
    on_a_thread(|| nothing_is_lost(true));
}

#[test]
fn nothing_is_lost_in_generic_mode() {
    on_a_thread(|| nothing_is_lost(false));
}

/// A worker that does nothing for a while: what had no room is counted too, and once.
fn what_is_lost_is_counted(may_be_native: bool) {
    const COUNT: u64 = 6_000;
    let mut lane = lane(may_be_native, WorkerOptions::default());
    let mut next = 0;
    while next < COUNT {
        lane.generator.send(&lane.frame, COUNT - next, &mut next);
    }
    let count = || {
        let events = [Event::Received, Event::Missed, Event::Overrun];
        events.map(|event| lane.counters.events(event))
    };
    // At the first turn it counts what was lost, then no more of it.
    for now in 1..200 {
        lane.worker.turn(Reading::of(now));
        while lane.sink.receive(|_| ()) > 0 {}
    }
    let [received, missed, overrun] = count();
    assert!(received >= 64, "{received} received");
    assert!(missed + overrun > 0, "{received} received, none lost");
    assert_eq!(received + missed + overrun, COUNT, "{:?}", count());
}

#[test]
fn what_is_lost_is_counted_in_native_mode() {
    on_a_thread(|| what_is_lost_is_counted(true));
}

#[test]
fn what_is_lost_is_counted_in_generic_mode() {
    on_a_thread(|| what_is_lost_is_counted(false));
}

/// The CPU time of this process's worker so far: the first figure of
/// /proc/self/task/TID/schedstat.
fn worker_cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let read = |task: &std::path::Path, name| std::fs::read_to_string(task.join(name));
    for task in tasks.map(|task| task.path()) {
        if read(&task, "comm").is_ok_and(|name| name.starts_with("lvx-worker")) {
            let line = read(&task, "schedstat").unwrap();
            return line.split(' ').next().unwrap().parse().unwrap();
        }
    }
    panic!("no worker runs");
}

/// How fast a worker is between two veth links: `cargo test --release -p lvx -- --ignored
/// --nocapture rate`. The generator has core 0, the worker (and with it the sink's side of
/// its link) core 1; the sink only counts what its interface drops or takes.
#[test]
#[ignore = "a measurement: wants two idle cores"]
fn rate() {
    for may_be_native in [true, false] {
        on_a_thread(move || {
            let options = WorkerOptions {
                core: Some(1),
                busy_poll: false,
            };
            let Lane {
                mut generator,
                worker,
                control,
                counters,
                frame,
                mut sink,
                _steering,
            } = lane(may_be_native, options);
            let thread = worker.spawn().unwrap();
            let (has_ended, offered) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
                    let mut next = 0;
                    while !has_ended.load(Ordering::Relaxed) {
                        generator.send(&frame, 64, &mut next);
                        offered.store(next, Ordering::Relaxed);
                        sink.receive(|_| ());
                    }
                });
                std::thread::sleep(Duration::from_millis(500));
                let count = || {
                    let events = [Event::Received, Event::Sent].map(|event| counters.events(event));
                    [
                        offered.load(Ordering::Relaxed),
                        events[0],
                        events[1],
                        worker_cpu_ns(),
                    ]
                };
                let (begin, before) = (Instant::now(), count());
                std::thread::sleep(Duration::from_secs(3));
                let (after, s) = (count(), begin.elapsed().as_secs_f64());
                let per_s = |before: u64, after: u64| (after - before) as f64 / s / 1e6;
                let mode = if may_be_native { "native" } else { "generic" };
                println!(
                    "{mode}: {:.2} Mpps offered, {:.2} received, {:.2} sent; {} ns of CPU a frame",
                    per_s(before[0], after[0]),
                    per_s(before[1], after[1]),
                    per_s(before[2], after[2]),
                    (after[3] - before[3]) / (after[2] - before[2]).max(1),
                );
                has_ended.store(true, Ordering::Relaxed);
            });
            control.stop();
            thread.join().unwrap();
        });
    }
}
