//! A worker over memory, verdict by verdict; and over real devices, native and generic:
//! what comes in by one port leaves by the other, nothing lost.

mod large;
mod wire;

use std::sync::Arc;

use dataplane::hops::{Hop, NeighbourKey};
use dataplane::port::memory::MemoryPort;
use dataplane::time::ticks;

use super::*;
use crate::director::link::{Control, link};
use crate::director::worker::waiting::FRAMES_PER_NEIGHBOUR_MAX;

/// Decides by a frame's first byte, as the tests name it.
struct Script {
    counters: Counters,
    pieces: usize,
    resolved: bool,
    expects_partial: Option<bool>,
}

fn key() -> NeighbourKey {
    NeighbourKey {
        device: 1,
        address: [10, 0, 0, 1].into(),
    }
}

fn unresolved() -> Way {
    let hop = Hop {
        port: PortId(1),
        vlan: None,
        source: [0; 6],
        destination: [0; 6],
        mtu: 1500,
        local: 0,
    };
    Way::Unresolved(key(), hop)
}

impl Handle for Script {
    fn expect_partial(&mut self, may_come: bool) {
        self.expects_partial = Some(may_come);
    }

    fn handle(&mut self, _: &Snapshot, _: Ticks, frame: &mut Frame<'_>) -> Verdict {
        match frame.bytes()[0] {
            b't' => {
                assert!(frame.grow_front(2));
                frame.bytes_mut()[..2].copy_from_slice(b"->");
                Verdict::Transmit(PortId(1))
            }
            b'9' => Verdict::Transmit(PortId(9)),
            b'h' => Verdict::Host,
            b's' | b'S' => {
                let whole = frame.bytes()[0] == b's';
                self.pieces = 3;
                if whole {
                    Verdict::Split(PortId(0))
                } else {
                    Verdict::SplitHost
                }
            }
            b'u' => Verdict::Unresolved(unresolved()),
            b'a' => Verdict::Ask(unresolved()),
            b'f' => Verdict::Held,
            b'!' => panic!("a test's own fault"),
            _ => Verdict::Drop(Reason::NotIp),
        }
    }

    fn finish(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>, way: Way) -> Verdict {
        assert!(snapshot.generation > 1 && way == unresolved());
        if !self.resolved {
            return Verdict::Unresolved(way);
        }
        frame.bytes_mut()[0] = b'U';
        Verdict::Transmit(PortId(1))
    }

    fn give_up(&mut self, _: &Snapshot, _: Ticks, frame: &mut Frame<'_>) -> Verdict {
        let reason = Reason::NeighbourUnreachable;
        self.counters.dropped(reason);
        // One of them is told of.
        match frame.bytes() == b"u!" {
            true => Verdict::Transmit(PortId(0)),
            false => Verdict::Drop(reason),
        }
    }

    fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool {
        let Some(left) = self.pieces.checked_sub(1) else {
            return false;
        };
        self.pieces = left;
        assert!(piece.is_empty() && piece.grow_back(1));
        piece.bytes_mut()[0] = b'0' + left as u8;
        true
    }

    fn tidy(&mut self, _: &Snapshot, _: Ticks) {}

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[derive(Default)]
struct Host {
    got: Vec<Vec<u8>>,
    room: usize,
}

impl HostPort for Host {
    fn deliver(&mut self, frame: &mut Frame<'_>) -> Result<(), Reason> {
        if self.got.len() == self.room {
            return Err(Reason::HostFull);
        }
        self.got.push(frame.bytes().to_vec());
        Ok(())
    }
}

fn snapshot(generation: u64) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::default();
    snapshot.generation = generation;
    Arc::new(snapshot)
}

fn script() -> Script {
    Script {
        counters: Counters::new(0, 0),
        pieces: 0,
        resolved: false,
        expects_partial: None,
    }
}

type TestWorker = Worker<MemoryPort, Script, Host>;

/// A worker of two ports with this many frames; its second port takes `room` at once.
fn worker(frames: u32, room: usize) -> (Control, TestWorker) {
    let (control, mut links) = link(1, snapshot(1)).unwrap();
    let host = Host {
        room: 100,
        ..Host::default()
    };
    let queues = vec![
        (PortId(0), MemoryPort::new()),
        (PortId(1), MemoryPort::with_capacity(room)),
    ];
    let frames = Frames::in_memory(frames);
    let link = links.remove(0);
    let worker = Worker::new(
        WorkerOptions::default(),
        link,
        script(),
        host,
        frames,
        queues,
    );
    (control, worker)
}

fn offer(worker: &mut TestWorker, frames: &[&[u8]]) {
    for frame in frames {
        worker.desk.queues[0].port.offer(frame);
    }
}

fn sent(worker: &mut TestWorker, port: usize) -> Vec<Vec<u8>> {
    std::mem::take(&mut worker.desk.queues[port].port.sent)
}

const NOW: Ticks = 1_000;

#[test]
fn every_verdict_is_carried_out() {
    type Row<'a> = (
        &'a str,
        &'a [u8],
        [&'a [&'a [u8]]; 2],
        &'a [&'a [u8]],
        Option<Reason>,
    );
    let pieces: [&[u8]; 3] = [b"2", b"1", b"0"];
    let rows: [Row<'_>; 9] = [
        ("transmit", b"t1", [&[], &[b"->t1"]], &[], None),
        (
            "by a port that is none",
            b"9",
            [&[], &[]],
            &[],
            Some(Reason::NotAPort),
        ),
        ("host", b"h1", [&[], &[]], &[b"h1"], None),
        ("split", b"s", [&pieces, &[]], &[], None),
        ("split for the host", b"S", [&[], &[]], &pieces, None),
        ("unresolved", b"u", [&[], &[]], &[], None),
        ("ask", b"a", [&[], &[]], &[], None),
        ("held", b"f", [&[], &[]], &[], None),
        ("drop", b"d", [&[], &[]], &[], None),
    ];
    for (what, frame, out, host, reason) in rows {
        let (mut control, mut worker) = worker(16, 16);
        offer(&mut worker, &[frame]);
        assert!(worker.turn(Reading::of(NOW)), "{what}");
        assert_eq!(
            [sent(&mut worker, 0), sent(&mut worker, 1)],
            out.map(|o| o.to_vec()),
            "{what}"
        );
        assert_eq!(worker.desk.host.got, host, "{what}");
        let asked = control.receive(Duration::ZERO);
        let asks = frame == b"u" || frame == b"a";
        assert_eq!(asked, asks.then(|| Report::Resolve(key())), "{what}");
        let counters = &worker.director.counters;
        for &known in Reason::ALL {
            assert_eq!(
                counters.drops(known),
                u64::from(reason == Some(known)),
                "{what}"
            );
        }
        assert_eq!(counters.events(Event::Received), 1, "{what}");
        assert_eq!(
            counters.events(Event::Sent),
            (out[0].len() + out[1].len()) as u64
        );
        assert_eq!(counters.events(Event::ToHost), host.len() as u64, "{what}");
        assert!(!worker.turn(Reading::of(NOW)), "{what}: idle now");
    }
}

#[test]
fn what_finds_no_room_is_dropped_by_name() {
    let (_control, mut worker) = worker(32, 2);
    worker.desk.host.room = 1;
    // The second port is full at two, flushed once, and full again at four.
    offer(&mut worker, &[b"t", b"t", b"t", b"t", b"t", b"h", b"h"]);
    worker.turn(Reading::of(NOW));
    assert_eq!(sent(&mut worker, 1).len(), 4);
    let counters = &worker.director.counters;
    assert_eq!(counters.drops(Reason::PortFull), 1);
    assert_eq!(counters.drops(Reason::HostFull), 1);
}

#[test]
fn pieces_need_free_frames() {
    let (_control, mut worker) = worker(2, 2);
    offer(&mut worker, &[b"s"]);
    worker.turn(Reading::of(NOW));
    assert_eq!(sent(&mut worker, 0), [b"2", b"1"]);
    assert_eq!(worker.director.counters.drops(Reason::NoFrame), 1);
}

#[test]
fn frames_wait_for_their_neighbour_and_leave_in_order() {
    let (mut control, mut worker) = worker(128, 128);
    offer(&mut worker, &[b"u1", b"u2", b"u3"]);
    worker.turn(Reading::of(NOW));
    let frames = worker.director.counters.frames();
    let parts = (frames.total, frames.free, frames.in_rings, frames.waiting);
    assert_eq!(parts, (128, 125, 0, 3));
    control.publish(snapshot(2));
    assert!(
        worker.turn(Reading::of(NOW + 1)),
        "offered again, still unknown"
    );
    assert!(sent(&mut worker, 1).is_empty());
    worker.director.resolved = true;
    worker.turn(Reading::of(NOW + 2));
    assert!(sent(&mut worker, 1).is_empty(), "nothing new was published");
    control.publish(snapshot(3));
    worker.turn(Reading::of(NOW + 3));
    assert_eq!(sent(&mut worker, 1), [b"U1", b"U2", b"U3"]);
    assert!(control.await_adoption(3, Duration::ZERO, |_| ()));
}

#[test]
fn frames_do_not_wait_for_ever_nor_all() {
    let (mut control, mut worker) = worker(128, 128);
    let mut many = vec![&b"u"[..]; FRAMES_PER_NEIGHBOUR_MAX + 2];
    many[1] = b"u!";
    offer(&mut worker, &many);
    worker.turn(Reading::of(NOW));
    worker.turn(Reading::of(NOW));
    let drops = |worker: &TestWorker, reason| worker.director.counters.drops(reason);
    assert_eq!(drops(&worker, Reason::NeighbourLimit), 2);
    for now in NOW..NOW + ticks(waiting::TIMEOUT_S) {
        worker.turn(Reading::of(now));
    }
    assert_eq!(drops(&worker, Reason::NeighbourUnreachable), 0);
    let asked = std::iter::from_fn(|| control.receive(Duration::ZERO)).count();
    assert_eq!(asked, 3, "at once and each second");
    worker.turn(Reading::of(NOW + ticks(waiting::TIMEOUT_S)));
    let most = FRAMES_PER_NEIGHBOUR_MAX as u64;
    assert_eq!(drops(&worker, Reason::NeighbourUnreachable), most);
    worker.turn(Reading::of(NOW + ticks(waiting::TIMEOUT_S)));
    assert_eq!(sent(&mut worker, 0), [b"u!"], "its sender is told");
    assert_eq!(worker.desk.frames.free(), 128);
}

#[test]
fn a_worker_sleeps_wakes_for_control_and_stops() {
    let (mut control, worker) = worker(16, 16);
    let thread = worker.spawn().unwrap();
    for generation in 2..6 {
        std::thread::sleep(Duration::from_millis(20));
        control.publish(snapshot(generation));
        assert!(control.await_adoption(generation, Duration::from_secs(5), |_| ()));
    }
    control.stop();
    let reason = "asked to".to_owned();
    let last = control.receive(Duration::from_secs(5));
    assert_eq!(last, Some(Report::Stopped { worker: 0, reason }));
    thread.join().unwrap();
}

#[test]
fn a_port_goes_and_another_takes_its_place() {
    let (mut control, worker) = worker(16, 16);
    let (mut board, mut plugs) = plugs::plug_board(1);
    let mut worker = worker.with_plugs(plugs.remove(0));
    let port = PortId(1);
    board.unplug(port);
    offer(&mut worker, &[b"t1"]);
    worker.turn(Reading::of(NOW));
    assert_eq!(sent(&mut worker, 1), [b"->t1"], "nothing was published");
    control.publish(snapshot(2));
    offer(&mut worker, &[b"t2", b"9"]);
    worker.turn(Reading::of(NOW));
    let drops = |worker: &TestWorker, reason| worker.director.counters.drops(reason);
    assert_eq!(drops(&worker, Reason::PortGone), 1, "away, but a port");
    assert_eq!(drops(&worker, Reason::NotAPort), 1);
    assert_eq!(board.close(port, Duration::ZERO), [0usize; 0]);
    board.plug(0, port, vec![MemoryPort::new(), MemoryPort::new()]);
    control.publish(snapshot(3));
    worker.turn(Reading::of(NOW));
    offer(&mut worker, &[b"t3"]);
    worker.turn(Reading::of(NOW));
    assert_eq!(sent(&mut worker, 1), [b"->t3"], "by its first queue");
    assert_eq!(worker.desk.queues.len(), 3);
    assert_eq!(drops(&worker, Reason::PortGone), 1);
    assert_eq!(worker.desk.frames.free(), 16);
}

#[test]
fn the_director_is_told_whether_checksums_may_be_open() {
    let wired = |is_wired| {
        let mut port = MemoryPort::new();
        port.is_wired = is_wired;
        port
    };
    // The second port stays, the first is exchanged for another.
    for (first, second, expected) in [
        (true, true, false),
        (true, false, true),
        (false, true, true),
    ] {
        let (mut control, mut links) = link(1, snapshot(1)).unwrap();
        let queues = [(PortId(0), wired(first)), (PortId(1), wired(second))].into();
        let (options, host) = (WorkerOptions::default(), Host::default());
        let frames = Frames::in_memory(16);
        let worker = Worker::new(options, links.remove(0), script(), host, frames, queues);
        assert_eq!(worker.director.expects_partial, Some(expected));
        let (mut board, mut plugs) = plugs::plug_board(1);
        let mut worker = worker.with_plugs(plugs.remove(0));
        for (generation, other) in [(2, false), (3, true)] {
            board.unplug(PortId(0));
            board.plug(0, PortId(0), vec![wired(other)]);
            control.publish(snapshot(generation));
            worker.turn(Reading::of(NOW));
            assert_eq!(worker.director.expects_partial, Some(!(other && second)));
        }
    }
}

/// The environment of a process that is to fail.
const FAILS: &str = "LVX_TEST_WORKER_FAILS";

/// A worker's panic ends the process, not the worker alone: run by the next test.
#[test]
#[ignore = "ends the process that it runs in"]
fn a_process_whose_worker_fails() {
    if std::env::var_os(FAILS).is_none() {
        return;
    }
    crate::director::fault::end_on_panic();
    let (_control, mut worker) = worker(16, 16);
    offer(&mut worker, &[b"!"]);
    let _ = worker.spawn().unwrap().join();
    unreachable!("the process goes on without its worker");
}

#[test]
fn a_worker_that_fails_ends_the_process_in_words() {
    use std::os::unix::process::ExitStatusExt;
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("director::worker::tests::a_process_whose_worker_fails")
        .env(FAILS, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "SIGABRT: {said}");
    for words in [
        "a test's own fault",
        "a fault in thread lvx-worker-0",
        "goes on with its connections",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
