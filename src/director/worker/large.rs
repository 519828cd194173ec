//! Frames that take several chunks: jumbo frames, and TCP packets that a sender's or a
//! device's offload left larger than the port's MTU. They are gathered into one piece of
//! memory, decided about like any other, and sent from a copy. Frames of one chunk never come
//! here.

use dataplane::forward::segments::Segments;
use dataplane::frame::Frame;
use dataplane::hops::{PortId, Way};
use dataplane::port::{
    Frames, HEADROOM_BYTES, LARGE_MEMORY_BYTES, LARGEST_FRAME_BYTES, LINK_BYTES_MAX, Port,
};
use dataplane::time::Ticks;
use dataplane::verdict::{Reason, Verdict};

use super::desk::Desk;
use super::{Handle, HostPort, Worker};
use crate::director::link::{Report, WorkerLink};

/// Room that cut segments leave for a tunnel's headers: at most IPv6, UDP and GUE with an option.
/// What the sender's segments were nobody tells, and cut to the full MTU they would be too large for a
/// tunnel, each time again.
const TUNNEL_BYTES: u32 = 80;

/// Memory for one such frame.
#[derive(Debug)]
pub(super) struct LargeMemory(Box<[u8]>);

impl LargeMemory {
    pub(super) fn new() -> Self {
        Self(vec![0; LARGE_MEMORY_BYTES].into())
    }

    /// Takes the frame that comes next on a queue; its length.
    pub(super) fn receive<P: Port>(&mut self, port: &mut P, frames: &mut Frames) -> Option<usize> {
        port.receive_large(frames, &mut self.0)
    }

    /// The frame of this length that lies there.
    pub(super) fn frame(&mut self, length: usize) -> Frame<'_> {
        let end = HEADROOM_BYTES + length;
        Frame::new(&mut self.0, HEADROOM_BYTES, end).expect("no frame is longer than the memory")
    }
}

/// What a worker of ports with such frames needs for them.
#[derive(Debug)]
pub(super) struct Large {
    gathered: LargeMemory,
    segment: LargeMemory,
}

impl Large {
    pub(super) fn new() -> Self {
        Self {
            gathered: LargeMemory::new(),
            segment: LargeMemory::new(),
        }
    }
}

impl<P: Port, D: Handle, H: HostPort> Worker<P, D, H> {
    /// Handles the frame of several chunks that comes next on a queue.
    pub(super) fn handle_large(&mut self, queue: usize, now: Ticks) {
        // Out of the worker while it is used, so that the rest can be too.
        let mut large = self.large.take().unwrap_or_else(|| Box::new(Large::new()));
        let (length, mtu) = self.desk.receive_large(queue, &mut large.gathered);
        if let Some(length) = length {
            let mut frame = large.gathered.frame(length);
            match length > mtu as usize + LINK_BYTES_MAX {
                true => self.handle_joined(&mut frame, mtu, &mut large.segment, now),
                false => self.handle_whole(&mut frame, now),
            }
        }
        self.large = Some(large);
    }

    fn handle_joined(
        &mut self,
        frame: &mut Frame<'_>,
        mtu: u32,
        memory: &mut LargeMemory,
        now: Ticks,
    ) {
        let Some(mut segments) = Segments::of(frame, mtu.saturating_sub(TUNNEL_BYTES)) else {
            return self.director.counters().dropped(Reason::OffloadJoined);
        };
        loop {
            let mut segment = memory.frame(0);
            if !segments.next(&mut segment) {
                return;
            }
            self.handle_whole(&mut segment, now);
        }
    }

    fn handle_whole(&mut self, frame: &mut Frame<'_>, now: Ticks) {
        let (director, desk) = (&mut self.director, &mut self.desk);
        let verdict = director.handle(self.link.snapshot(), now, frame);
        desk.act_on_copy(verdict, frame, director, &self.link, now);
    }
}

impl<P: Port, H: HostPort> Desk<P, H> {
    /// Does with a frame that lies in no chunk what the verdict says.
    fn act_on_copy<D: Handle>(
        &mut self,
        verdict: Verdict,
        frame: &mut Frame<'_>,
        director: &mut D,
        link: &WorkerLink,
        now: Ticks,
    ) {
        match verdict {
            Verdict::Transmit(port) => self.transmit_copy(port, frame.bytes(), director),
            Verdict::Host => self.deliver(frame, director),
            Verdict::Split(port) => self.split(Some(port), director),
            Verdict::SplitHost => self.split(None, director),
            Verdict::Unresolved(way) => match self.frames.take_with(frame.bytes()) {
                Some(slot) => self.act(Verdict::Unresolved(way), slot, director, link, now),
                // Connections begin with small packets, so the neighbour is mostly known.
                None => {
                    director.counters().dropped(Reason::NeighbourLimit);
                    ask(way, link);
                }
            },
            Verdict::Ask(way) => ask(way, link),
            Verdict::Held | Verdict::Drop(_) => {}
        }
    }

    /// Sends a copy of a frame.
    pub(super) fn transmit_copy<D: Handle>(&mut self, port: PortId, bytes: &[u8], director: &D) {
        if bytes.len() <= LARGEST_FRAME_BYTES {
            return match self.frames.take_with(bytes) {
                Some(slot) => self.transmit(port, slot, director),
                None => director.counters().dropped(Reason::NoFrame),
            };
        }
        let Some(outlet) = self.outlet(port) else {
            return director.counters().dropped(self.no_way_out(port));
        };
        let has_left = self.send_large(outlet, bytes)
            || (self.flush_if_full(outlet) && self.send_large(outlet, bytes));
        match has_left {
            true => self.note_sent(),
            false => director.counters().dropped(Reason::PortFull),
        }
    }
}

fn ask(way: Way, link: &WorkerLink) {
    if let Way::Unresolved(key, _) = way {
        link.report(Report::Resolve(key));
    }
}
