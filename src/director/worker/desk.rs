//! What a worker does with verdicts: every frame it holds leaves by a port, to the host, to
//! the waiting room or back to the pool, and whatever the director did not count is counted.

use dataplane::counters::{self, Counters, Event};
use dataplane::frame::Frame;
use dataplane::hops::{PortId, Way};
use dataplane::port::steering::PORTS_MAX;
use dataplane::port::{Burst, Frames, ONE_CHUNK_MTU, Port, PortCounters, Slot};
use dataplane::time::Ticks;
use dataplane::verdict::{Reason, Verdict};

use super::large::LargeMemory;
use super::waiting::{Refused, WaitingRoom};
use super::{Handle, HostPort};
use crate::director::link::{Report, WorkerLink};

/// A queue and whose it is.
#[derive(Debug)]
pub(super) struct Queue<P> {
    pub(super) port: P,
    id: PortId,
    /// Whether frames were taken since the last flush.
    is_due: bool,
    /// Whether it was flushed within this turn because it was full: once is enough.
    was_full: bool,
    /// What the port counted when this worker last looked.
    counted: PortCounters,
}

impl<P: Port> Queue<P> {
    /// What a port counted before is not this worker's: another process may have had it.
    fn new((id, port): (PortId, P)) -> Self {
        Self {
            counted: port.counters(),
            port,
            id,
            is_due: false,
            was_full: false,
        }
    }
}

/// A worker's queues, frames, and the way to the host.
#[derive(Debug)]
pub(super) struct Desk<P, H> {
    pub(super) frames: Frames,
    pub(super) queues: Vec<Queue<P>>,
    /// The queue by which each port's frames leave.
    outlets: [Option<u8>; PORTS_MAX],
    /// Frames of each port that has gone, until they are taken back.
    away: [Option<usize>; PORTS_MAX],
    pub(super) host: H,
    waiting: WaitingRoom,
    /// For pieces of a datagram, where they may not fit one chunk.
    piece: Option<LargeMemory>,
    sent: u64,
    to_host: u64,
    /// When the waiting room was last gone through.
    looked: Ticks,
}

impl<P: Port, H: HostPort> Desk<P, H> {
    pub(super) fn new(frames: Frames, queues: Vec<(PortId, P)>, host: H) -> Self {
        let mut desk = Self {
            frames,
            queues: queues.into_iter().map(Queue::new).collect(),
            outlets: [None; PORTS_MAX],
            away: [None; PORTS_MAX],
            host,
            waiting: WaitingRoom::default(),
            piece: None,
            sent: 0,
            to_host: 0,
            looked: 0,
        };
        desk.find_outlets();
        // Of a port that had gone when another process passed these frames.
        let held = desk.frames.held_by();
        for (port, held) in held.into_iter().enumerate() {
            if held > 0 && desk.outlets[port].is_none() {
                desk.away[port] = Some(held);
            }
        }
        desk
    }

    /// Takes out the queues of a port whose device has gone. Their frames stay where they
    /// are until the sockets have been closed: the kernel may have some in hand.
    pub(super) fn unplug<D: Handle>(&mut self, port: PortId, director: &D) -> Vec<P> {
        let own = self.queues.extract_if(.., |queue| queue.id == port);
        let mut gone: Vec<P> = own.map(|queue| queue.port).collect();
        for queue in &mut gone {
            queue.reclaim(&mut self.frames);
            for _ in 0..queue.unsent() {
                director.counters().dropped(Reason::PortGone);
            }
        }
        let held: usize = gone.iter().map(Port::held).sum();
        *self.away[usize::from(port.0)].get_or_insert(0) += held;
        self.find_outlets();
        gone
    }

    /// Takes in the queues of the device that took the place of one that has gone, whose
    /// sockets are closed.
    pub(super) fn plug(&mut self, port: PortId, queues: Vec<P>) {
        if let Some(held) = self.away[usize::from(port.0)].take() {
            let back = self.frames.take_back(port, self.waiting.slots());
            debug_assert!(back <= held, "{back} of {held} frames");
            // None but where an lvx passed the queues that did not know whose each was.
            let lost = held - back;
            self.away[usize::from(port.0)] = (lost > 0).then_some(lost);
        }
        let queues = queues.into_iter().map(|queue| Queue::new((port, queue)));
        self.queues.extend(queues);
        self.find_outlets();
    }

    fn find_outlets(&mut self) {
        self.outlets = [None; PORTS_MAX];
        for (place, queue) in self.queues.iter().enumerate() {
            self.outlets[usize::from(queue.id.0)].get_or_insert(place as u8);
        }
        let mut mtus = self.queues.iter().map(|queue| queue.port.mtu());
        if mtus.any(|mtu| mtu > ONE_CHUNK_MTU) {
            self.piece.get_or_insert_with(LargeMemory::new);
        }
    }

    /// Frames and queues, for another process. What waits for a link address is dropped.
    pub(super) fn into_parts(mut self) -> (Frames, Vec<(PortId, P)>) {
        while let Some(waiting) = self.waiting.next() {
            self.frames.give(waiting.slot);
        }
        for queue in &mut self.queues {
            let mut memory = LargeMemory::new();
            while queue.port.has_large() {
                // Half taken out of its ring: it cannot be passed.
                let _ = memory.receive(&mut queue.port, &mut self.frames);
            }
            queue.port.flush(&mut self.frames);
            queue.port.reclaim(&mut self.frames);
        }
        let queues = self.queues.into_iter();
        (self.frames, queues.map(|q| (q.id, q.port)).collect())
    }

    /// Fills `burst` from a queue.
    pub(super) fn receive(&mut self, queue: usize, burst: &mut Burst) {
        let port = &mut self.queues[queue].port;
        port.reclaim(&mut self.frames);
        port.receive(&mut self.frames, burst);
    }

    /// Copies the frame of several chunks that comes next on a queue to `memory`: its length,
    /// none where there is none after all, and the MTU of the queue's port.
    pub(super) fn receive_large(
        &mut self,
        queue: usize,
        memory: &mut LargeMemory,
    ) -> (Option<usize>, u32) {
        let port = &mut self.queues[queue].port;
        (memory.receive(port, &mut self.frames), port.mtu())
    }

    /// Does with a frame what the verdict says.
    #[inline(never)]
    pub(super) fn act<D: Handle>(
        &mut self,
        verdict: Verdict,
        slot: Slot,
        director: &mut D,
        link: &WorkerLink,
        now: Ticks,
    ) {
        match verdict {
            Verdict::Transmit(port) => self.transmit(port, slot, director),
            Verdict::Host => self.deliver_slot(slot, director),
            Verdict::Split(port) => {
                self.frames.give(slot);
                self.split(Some(port), director);
            }
            Verdict::SplitHost => {
                self.frames.give(slot);
                self.split(None, director);
            }
            Verdict::Unresolved(way) => self.wait(slot, way, director, link, now),
            Verdict::Ask(way) => {
                self.frames.give(slot);
                if let Way::Unresolved(key, _) = way {
                    link.report(Report::Resolve(key));
                }
            }
            Verdict::Held | Verdict::Drop(_) => self.frames.give(slot),
        }
    }

    /// Lets all leave that is to leave, and counts it.
    pub(super) fn flush<D: Handle>(&mut self, director: &D) {
        for queue in &mut self.queues {
            queue.was_full = false;
            if queue.is_due || queue.port.is_backlogged() {
                queue.port.flush(&mut self.frames);
                queue.is_due = false;
            }
        }
        let counters = director.counters();
        for (event, times) in [
            (Event::Sent, &mut self.sent),
            (Event::ToHost, &mut self.to_host),
        ] {
            if *times > 0 {
                counters.event(event, std::mem::take(times));
            }
        }
    }

    /// Offers all waiting frames again, after a new snapshot came.
    pub(super) fn retry<D: Handle>(&mut self, director: &mut D, link: &WorkerLink, now: Ticks) {
        for _ in 0..self.waiting.len() {
            let Some(mut waiting) = self.waiting.next() else {
                return;
            };
            let (snapshot, way) = (link.snapshot(), waiting.way);
            let verdict = self.frames.edit(&mut waiting.slot, |frame| {
                director.finish(snapshot, frame, way)
            });
            match verdict {
                Verdict::Unresolved(_) => self.waiting.re_enter(waiting),
                verdict => self.act(verdict, waiting.slot, director, link, now),
            }
        }
    }

    /// Gives up on frames that waited too long, and asks again for those that still wait.
    pub(super) fn expire<D: Handle>(&mut self, director: &mut D, link: &WorkerLink, now: Ticks) {
        if self.waiting.len() == 0 || std::mem::replace(&mut self.looked, now) == now {
            return;
        }
        while let Some(mut slot) = self.waiting.expired(now) {
            let snapshot = link.snapshot();
            let verdict = self
                .frames
                .edit(&mut slot, |frame| director.give_up(snapshot, now, frame));
            // An error that has to wait in turn is new: its time begins now.
            self.act(verdict, slot, director, link, now);
        }
        while let Some(key) = self.waiting.ask_again(now) {
            link.report(Report::Resolve(key));
        }
    }

    /// Counts the frames that were lost before they were received, as far as that is news.
    pub(super) fn count_lost(&mut self, counters: &Counters) {
        for queue in &mut self.queues {
            let now = queue.port.counters();
            let before = std::mem::replace(&mut queue.counted, now);
            let news = |now: u64, before: u64| now.saturating_sub(before);
            counters.event(Event::Missed, news(now.missed, before.missed));
            counters.event(Event::TooLong, news(now.too_long, before.too_long));
            counters.event(Event::Overrun, news(now.overrun, before.overrun));
        }
    }

    /// Where the frames are between two turns: the pool, a queue, or the waiting room.
    pub(super) fn whereabouts(&self) -> counters::Frames {
        let in_rings: usize = self.queues.iter().map(|queue| queue.port.held()).sum();
        // Those of ports that have gone lie in the rings of sockets that are being closed.
        let away: usize = self.away.iter().flatten().sum();
        counters::Frames {
            total: self.frames.total() as u64,
            free: self.frames.free() as u64,
            in_rings: (in_rings + away) as u64,
            waiting: self.waiting.len() as u64,
        }
    }

    /// Whether every frame has an owner.
    pub(super) fn is_balanced(&self) -> bool {
        let now = self.whereabouts();
        now.free + now.in_rings + now.waiting == now.total
    }

    /// The queue by which frames leave by a port.
    #[inline]
    pub(super) fn outlet(&self, port: PortId) -> Option<usize> {
        let outlet = self.outlets.get(usize::from(port.0)).copied().flatten();
        outlet.map(usize::from)
    }

    /// Lets a frame leave by a port. Inlined, as nearly every frame ends here.
    #[inline]
    pub(super) fn transmit<D: Handle>(&mut self, port: PortId, slot: Slot, director: &D) {
        let Some(outlet) = self.outlet(port) else {
            return self.discard(slot, self.no_way_out(port), director);
        };
        let queue = &mut self.queues[outlet];
        queue.is_due = true;
        match queue.port.send(&mut self.frames, slot) {
            Ok(()) => self.sent += 1,
            Err(slot) => self.transmit_again(outlet, slot, director),
        }
    }

    /// The queue was full.
    #[cold]
    #[inline(never)]
    fn transmit_again<D: Handle>(&mut self, outlet: usize, slot: Slot, director: &D) {
        self.flush_if_full(outlet);
        match self.queues[outlet].port.send(&mut self.frames, slot) {
            Ok(()) => self.sent += 1,
            Err(slot) => self.discard(slot, Reason::PortFull, director),
        }
    }

    /// Flushes a queue that was full: that helps once within a turn. Whether it did.
    pub(super) fn flush_if_full(&mut self, outlet: usize) -> bool {
        let queue = &mut self.queues[outlet];
        let is_first = !std::mem::replace(&mut queue.was_full, true);
        if is_first {
            queue.port.flush(&mut self.frames);
        }
        is_first
    }

    pub(super) fn send_large(&mut self, outlet: usize, bytes: &[u8]) -> bool {
        let queue = &mut self.queues[outlet];
        queue.is_due = true;
        queue.port.send_large(&mut self.frames, bytes)
    }

    pub(super) fn note_sent(&mut self) {
        self.sent += 1;
    }

    #[cold]
    #[inline(never)]
    pub(super) fn no_way_out(&self, port: PortId) -> Reason {
        let away = self.away.get(usize::from(port.0)).copied().flatten();
        away.map_or(Reason::NotAPort, |_| Reason::PortGone)
    }

    fn deliver_slot<D: Handle>(&mut self, mut slot: Slot, director: &D) {
        let host = &mut self.host;
        match self.frames.edit(&mut slot, |frame| host.deliver(frame)) {
            Ok(()) => self.to_host += 1,
            Err(reason) => director.counters().dropped(reason),
        }
        self.frames.give(slot);
    }

    pub(super) fn deliver<D: Handle>(&mut self, frame: &mut Frame<'_>, director: &D) {
        match self.host.deliver(frame) {
            Ok(()) => self.to_host += 1,
            Err(reason) => director.counters().dropped(reason),
        }
    }

    /// Pulls the pieces of a datagram and lets each go by a port, or to the host. The director
    /// has a last piece, so this ends.
    pub(super) fn split<D: Handle>(&mut self, port: Option<PortId>, director: &mut D) {
        if let Some(mut memory) = self.piece.take() {
            self.split_large(port, director, &mut memory);
            self.piece = Some(memory);
            return;
        }
        loop {
            let Some(mut piece) = self.frames.take() else {
                return director.counters().dropped(Reason::NoFrame);
            };
            let next = |frame: &mut Frame<'_>| director.next_piece(frame);
            if !self.frames.edit(&mut piece, next) {
                return self.frames.give(piece);
            }
            match port {
                Some(port) => self.transmit(port, piece, director),
                None => self.deliver_slot(piece, director),
            }
        }
    }

    /// The same, where pieces may not fit one chunk.
    fn split_large<D: Handle>(
        &mut self,
        port: Option<PortId>,
        director: &mut D,
        memory: &mut LargeMemory,
    ) {
        loop {
            let mut piece = memory.frame(0);
            if !director.next_piece(&mut piece) {
                return;
            }
            match port {
                Some(port) => self.transmit_copy(port, piece.bytes(), director),
                None => self.deliver(&mut piece, director),
            }
        }
    }

    fn wait<D: Handle>(
        &mut self,
        slot: Slot,
        way: Way,
        director: &D,
        link: &WorkerLink,
        now: Ticks,
    ) {
        match self.waiting.enter(slot, way, now) {
            Ok(Some(key)) => {
                link.report(Report::Resolve(key));
            }
            Ok(None) => {}
            Err(Refused::Full(slot)) => self.discard(slot, Reason::NeighbourLimit, director),
            Err(Refused::Pointless(slot)) => self.discard(slot, Reason::NoRoute, director),
        }
    }

    fn discard<D: Handle>(&mut self, slot: Slot, reason: Reason, director: &D) {
        director.counters().dropped(reason);
        self.frames.give(slot);
    }
}
