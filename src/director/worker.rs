//! The pinned loop: one thread per core receives bursts from its queues, lets the director
//! decide, and acts on the verdicts. It never waits for control and shares nothing with
//! other workers but the connection table; nothing is allocated or locked for a frame.

mod desk;
mod large;
mod load;
pub mod plugs;
#[cfg(test)]
mod tests;
pub mod waiting;

use std::io;
use std::os::fd::AsFd;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use dataplane::counters::{Counters, Event};
use dataplane::director::known::Glance;
use dataplane::frame::Frame;
use dataplane::hops::{PortId, Way};
use dataplane::port::{BURST, Burst, Frames, IDLE, Port, SLEEP};
use dataplane::snapshot::Snapshot;
use dataplane::time::Ticks;
use dataplane::verdict::{Reason, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::Reading;
use super::link::{Report, WorkerLink};
use super::privilege;
use desk::Desk;
use large::Large;
use load::Load;
use plugs::{Plugs, PortChange};

/// What decides about frames: a [`dataplane::director::Director`], or a stand-in for tests.
pub trait Handle {
    /// What is to become of `frame`, which is rewritten in place. Counts its own drops.
    fn handle(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict;

    /// A look at a frame before its turn: asks for memory, and changes nothing.
    fn glance(&self, _: &Snapshot, _: &Frame<'_>, _: &mut Glance) {}

    /// Told whether frames may come whose checksum is not complete
    /// ([`Port::may_be_partial`]); until then they may.
    fn expect_partial(&mut self, _: bool) {}

    /// A further step of the look, once every frame of the burst had the first.
    fn reach(&self, _: &mut Glance) {}

    /// [`Handle::handle`], with what was seen of this very frame in this burst.
    fn handle_glanced(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        frame: &mut Frame<'_>,
        _: &Glance,
    ) -> Verdict {
        self.handle(snapshot, now, frame)
    }

    /// What is to become of a frame that waited for the link address that `way` lacks:
    /// `Unresolved` again as long as the snapshot has none.
    fn finish(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>, way: Way) -> Verdict;

    /// Gives up on a frame that waited too long; counts the drop, and may turn the frame
    /// into an error for its sender.
    fn give_up(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict;

    /// Writes the next piece of the datagram behind the last `Split` or `SplitHost` into an
    /// empty frame; false when there are no more.
    fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool;

    /// Once per turn: ends what has expired, a bounded amount at a time.
    fn tidy(&mut self, snapshot: &Snapshot, now: Ticks);

    /// The worker's counters.
    fn counters(&self) -> &Counters;
}

/// The way to the host's own stack.
pub trait HostPort {
    /// Hands a frame to the host. Never blocks; may rewrite the frame.
    fn deliver(&mut self, frame: &mut Frame<'_>) -> Result<(), Reason>;
}

/// How a worker runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerOptions {
    /// The core it is tied to; none leaves that to the kernel.
    pub core: Option<usize>,
    /// Never sleep: the least delay, for a whole core.
    pub busy_poll: bool,
}

/// The most queues of one worker.
pub const QUEUES_MAX: usize = 64;

/// The longest sleep while frames have not left yet: nobody says when the way out is free.
const SLEEP_BACKLOGGED: Duration = Duration::from_millis(1);

/// What is left of a worker that ended so that another process can go on.
#[derive(Debug)]
pub struct Remains<P, D> {
    /// Its director.
    pub director: D,
    /// Its frames.
    pub frames: Frames,
    /// Its queues.
    pub queues: Vec<(PortId, P)>,
}

/// One worker.
#[derive(Debug)]
pub struct Worker<P, D, H> {
    options: WorkerOptions,
    link: WorkerLink,
    plugs: Option<Plugs<P>>,
    director: D,
    desk: Desk<P, H>,
    burst: Burst,
    load: Load,
    /// When it last told where its frames are.
    told: Ticks,
    /// What was seen of the burst's frames.
    glances: [Glance; BURST],
    /// Memory for frames of several chunks, once there was one.
    large: Option<Box<Large>>,
}

impl<P: Port, D: Handle, H: HostPort> Worker<P, D, H> {
    /// A worker over queues that share the memory `frames`. Several queues may be of one
    /// port; what leaves by that port then leaves by the first of them. At most
    /// [`QUEUES_MAX`] queues.
    pub fn new(
        options: WorkerOptions,
        link: WorkerLink,
        director: D,
        host: H,
        frames: Frames,
        queues: Vec<(PortId, P)>,
    ) -> Self {
        assert!(
            queues.len() <= QUEUES_MAX,
            "{} queues in one worker",
            queues.len()
        );
        let mut worker = Self {
            options,
            link,
            plugs: None,
            director,
            desk: Desk::new(frames, queues, host),
            burst: Burst::default(),
            load: Load::default(),
            told: 0,
            glances: [Glance::default(); BURST],
            large: None,
        };
        worker.tell_director();
        worker
    }

    /// Lets the director know what its ports can bring.
    fn tell_director(&mut self) {
        let mut queues = self.desk.queues.iter();
        let may_be_partial = queues.any(|queue| queue.port.may_be_partial());
        self.director.expect_partial(may_be_partial);
    }

    /// The same, whose ports may go and come back.
    pub fn with_plugs(mut self, plugs: Plugs<P>) -> Self {
        self.plugs = Some(plugs);
        self
    }

    /// Runs until control says stop, on the calling thread. What another process is to go
    /// on with, where control asked to keep that.
    pub fn run(mut self) -> Option<Remains<P, D>> {
        self.pin();
        let mut idle_since = None;
        while !self.link.is_stopping() {
            self.link.turn();
            let now = Reading::take();
            if self.turn(now) {
                idle_since = None;
                continue;
            }
            if self.options.busy_poll {
                continue;
            }
            // What wakes it and is no frame lets it sleep on at once.
            if now.since(*idle_since.get_or_insert(now)) >= IDLE {
                self.sleep();
            }
        }
        let Self {
            link,
            desk,
            director,
            ..
        } = self;
        if link.is_to_keep() {
            let (frames, queues) = desk.into_parts();
            link.report_stopped("handed over");
            return Some(Remains {
                director,
                frames,
                queues,
            });
        }
        // Sockets and memory go before control hears that they have gone.
        drop(desk);
        link.report_stopped("asked to");
        None
    }

    /// Adopts what control published, then one burst from each queue; whether there was
    /// anything to do.
    pub fn turn(&mut self, reading: Reading) -> bool {
        let now = reading.ticks();
        let has_adopted = self.link.adopt();
        if has_adopted {
            self.change_ports();
            self.desk.retry(&mut self.director, &self.link, now);
        }
        let mut received = 0;
        for queue in 0..self.desk.queues.len() {
            received += self.serve(queue, now);
        }
        self.desk.flush(&self.director);
        self.desk.expire(&mut self.director, &self.link, now);
        self.director.tidy(self.link.snapshot(), now);
        let counters = self.director.counters();
        if received > 0 {
            counters.event(Event::Received, received as u64);
        }
        self.load.end_turn(received > 0, reading, counters);
        if std::mem::replace(&mut self.told, now) != now {
            counters.tell_frames(self.desk.whereabouts());
            self.desk.count_lost(counters);
        }
        debug_assert!(
            self.desk.is_balanced(),
            "a frame was lost or is in two hands"
        );
        received > 0 || has_adopted
    }

    /// A burst from one queue; how many frames. Frames of several chunks end a burst, so that
    /// all stay in order; with them, a queue has as many of its turn as without.
    fn serve(&mut self, queue: usize, now: Ticks) -> usize {
        let mut received = 0;
        loop {
            self.desk.receive(queue, &mut self.burst);
            if !self.burst.is_empty() {
                received += self.burst.len();
                self.handle_burst(now);
            }
            if !self.desk.queues[queue].port.has_large() {
                return received;
            }
            self.handle_large(queue, now);
            received += 1;
            if received >= BURST {
                return received;
            }
        }
    }

    /// Gives and takes ports as control wants. Not per packet: when a device went or came.
    fn change_ports(&mut self) {
        let Some(plugs) = &self.plugs else {
            return;
        };
        let mut has_changed = false;
        while let Some(change) = plugs.next() {
            has_changed = true;
            match change {
                PortChange::Unplug(port) => {
                    plugs.give_back(port, self.desk.unplug(port, &self.director));
                }
                PortChange::Plug(port, queues) => self.desk.plug(port, queues),
            }
        }
        if has_changed {
            self.tell_director();
        }
    }

    /// Three stages, so that the memory that one needs was asked for by the one before:
    /// see [`dataplane::director::known`].
    fn handle_burst(&mut self, now: Ticks) {
        let (director, desk) = (&mut self.director, &mut self.desk);
        let snapshot = self.link.snapshot();
        for (slot, glance) in self.burst.iter_mut().zip(&mut self.glances) {
            desk.frames
                .edit(slot, |frame| director.glance(snapshot, frame, glance));
        }
        let glances = &mut self.glances[..self.burst.len()];
        glances.iter_mut().for_each(|glance| director.reach(glance));
        for (mut slot, glance) in self.burst.drain().zip(glances) {
            let verdict = desk.frames.edit(&mut slot, |frame| {
                director.handle_glanced(snapshot, now, frame, glance)
            });
            match verdict {
                Verdict::Transmit(port) => desk.transmit(port, slot, director),
                other => desk.act(other, slot, director, &self.link, now),
            }
        }
    }

    /// Runs on a thread of its own.
    pub fn spawn(self) -> io::Result<JoinHandle<Option<Remains<P, D>>>>
    where
        Self: Send + 'static,
        P: Send + 'static,
        D: Send + 'static,
    {
        let name = format!("lvx-worker-{}", self.link.worker());
        Builder::new().name(name).spawn(move || {
            privilege::keep(privilege::NOTHING);
            self.run()
        })
    }

    fn pin(&self) {
        let Some(core) = self.options.core else {
            return;
        };
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            let worker = self.link.worker();
            self.link.report(Report::NotPinned { worker, core });
        }
    }

    /// Sleeps until a frame comes or control has something new; not long, as what expires
    /// must be seen to. The poll also lets the drivers of the queues work.
    fn sleep(&self) {
        let waker = self.link.waker();
        let queues = &self.desk.queues;
        // Places without a queue to poll hold the waker once more.
        let mut list: [PollFd<'_>; QUEUES_MAX + 1] = std::array::from_fn(|i| {
            let queue = queues.get(i).and_then(|queue| queue.port.descriptor());
            PollFd::from_borrowed_fd(queue.unwrap_or(waker.as_fd()), PollFlags::IN)
        });
        let timeout = match queues.iter().any(|queue| queue.port.is_backlogged()) {
            true => SLEEP_BACKLOGGED,
            false => SLEEP,
        };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Whatever ends the sleep, the next turn looks at everything.
        let _ = poll(&mut list[..=queues.len()], Some(&timeout));
        self.link.rest();
    }
}
