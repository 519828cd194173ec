//! `rr`, round robin: the next usable server after the one taken last.
//!
//! As in Linux's `ip_vs_rr.c`, a server added or edited leaves the place alone (so a new
//! one, at the list's head, waits for its turn), and where the server taken last is
//! removed, the one before it takes the place.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::{Before, Request, Revision, Scheduler};
use crate::server::{RealServer, ServerId};
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct RoundRobin {
    /// The servers taken so far in this round: the next one's index, if it is usable.
    next: AtomicU32,
    /// The list, to find the place again in a changed one.
    ids: Box<[ServerId]>,
}

impl RoundRobin {
    pub fn new(servers: &[Arc<RealServer>]) -> Self {
        Self::starting_at(0, servers)
    }

    fn starting_at(next: usize, servers: &[Arc<RealServer>]) -> Self {
        Self {
            next: AtomicU32::new(next as u32),
            ids: servers.iter().map(|server| server.id).collect(),
        }
    }
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let mut next = self.next.load(Relaxed);
        loop {
            let start = (next as usize).min(servers.len());
            let index = (start..servers.len())
                .chain(0..start)
                .find(|&index| servers[index].is_usable())?;
            let moved = self
                .next
                .compare_exchange_weak(next, index as u32 + 1, Relaxed, Relaxed);
            match moved {
                Ok(_) => return Some(index),
                Err(now) => next = now,
            }
        }
    }

    fn revised(&self, servers: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        let taken = (self.next.load(Relaxed) as usize).min(self.ids.len());
        // The last taken server that is still there, or the list's head.
        let place = |id: &ServerId| servers.iter().position(|server| server.id == *id);
        let last = self.ids[..taken].iter().rev().find_map(place);
        Arc::new(Self::starting_at(last.map_or(0, |p| p + 1), servers))
    }

    fn revision(&self, servers: &[Arc<RealServer>]) -> Option<Box<dyn Revision>> {
        let taken = (self.next.load(Relaxed) as usize).min(servers.len());
        let last = taken.checked_sub(1).map(|index| servers[index].id);
        Some(Box::new(Turn { last }))
    }

    fn forked(&self) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(Self {
            next: AtomicU32::new(self.next.load(Relaxed)),
            ids: self.ids.clone(),
        }))
    }
}

/// Whose turn it was last; none stands for the list's head.
#[derive(Debug)]
struct Turn {
    last: Option<ServerId>,
}

impl Revision for Turn {
    fn added(&mut self, _: &RealServer) {}

    fn edited(&mut self, _: &RealServer, _: &RealServer) {}

    fn removed(&mut self, server: &RealServer, before: Before<'_>) {
        if self.last == Some(server.id) {
            self.last = before();
        }
    }

    fn finish(self: Box<Self>, servers: &[Arc<RealServer>]) -> Arc<dyn Scheduler> {
        let is_last = |server: &Arc<RealServer>| Some(server.id) == self.last;
        let next = servers
            .iter()
            .position(is_last)
            .map_or(0, |place| place + 1);
        Arc::new(RoundRobin::starting_at(next, servers))
    }
}
