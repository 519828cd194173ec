//! `sh`, source hashing: the client's address (with `sh-port` its port too) chooses the
//! server, by a table of 256 slots (Linux's `ip_vs_sh.c`).
//!
//! Servers fill the table in list order, each with as many slots in a row as its weight,
//! round and round. A server of weight 0 fills one slot, and its clients are refused; with
//! `sh-fallback` clients of an unusable server go to the slots that follow.

use std::sync::Arc;

use super::{Request, Scheduler, hash};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

/// `CONFIG_IP_VS_SH_TAB_BITS`, which no distribution changes.
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;

#[derive(Debug)]
pub(super) struct SourceHash {
    /// Indexes of servers; empty where there are none.
    slots: Box<[u32]>,
    flags: SchedulerFlags,
}

impl SourceHash {
    pub fn new(servers: &[Arc<RealServer>], flags: SchedulerFlags) -> Self {
        let weights = || servers.iter().map(|server| server.spec.weight);
        let slots = (0u32..)
            .zip(weights())
            .cycle()
            .flat_map(|(index, weight)| std::iter::repeat_n(index, weight.max(1) as usize))
            .take(SLOTS);
        Self {
            slots: slots.collect(),
            flags,
        }
    }

    fn slot_of(&self, request: &Request) -> usize {
        let port = match self.flags.has(SchedulerFlags::PORT) {
            true => u32::from(request.client_port),
            false => 0,
        };
        hash::slot(hash::fold(request.client).wrapping_add(port), BITS)
    }
}

impl Scheduler for SourceHash {
    fn name(&self) -> &'static str {
        "sh"
    }

    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let slot = self.slot_of(request);
        let usable = |slot: usize| {
            let index = *self.slots.get(slot % SLOTS)? as usize;
            servers.get(index)?.is_usable().then_some(index)
        };
        if !self.flags.has(SchedulerFlags::FALLBACK) {
            return usable(slot);
        }
        // The search for another server begins at twice the slot, as the kernel's does.
        usable(slot).or_else(|| (0..SLOTS).find_map(|offset| usable(2 * slot + offset)))
    }

    fn revised(&self, servers: &[Arc<RealServer>], flags: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self::new(servers, flags))
    }

    fn slot(&self, request: &Request) -> Option<usize> {
        Some(self.slot_of(request))
    }

    fn reflagged(
        &self,
        servers: &[Arc<RealServer>],
        flags: SchedulerFlags,
    ) -> Option<Arc<dyn Scheduler>> {
        Some(self.revised(servers, flags))
    }
}
