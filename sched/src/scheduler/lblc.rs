//! `lblc`, locality-based least connections: a virtual address keeps its server, so that
//! each cache sees the same addresses again, unless the server is gone, drained or crowded
//! while another is nearly idle; then `wlc` chooses anew (Linux's `ip_vs_lblc.c`).
//!
//! As in the kernel, an address keeps its server above the upper threshold too: the
//! threshold counts only where `wlc` chooses.

use std::sync::Arc;

use super::locality::{Memory, Places, is_crowded};
use super::{Request, Scheduler, least_by_weight, numbered, overhead};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

/// How many addresses are remembered; the kernel begins to forget above 16,384.
const ADDRESSES: usize = 4096;

#[derive(Debug)]
pub(super) struct Locality {
    /// Kept through all changes of the list: a server that returns is remembered.
    memory: Arc<Memory<1>>,
    places: Places,
}

impl Locality {
    pub fn new(servers: &[Arc<RealServer>]) -> Self {
        Self {
            memory: Arc::new(Memory::new(ADDRESSES)),
            places: Places::new(servers),
        }
    }
}

impl Scheduler for Locality {
    fn name(&self) -> &'static str {
        "lblc"
    }

    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let address = request.virtual_address;
        let entry = self.memory.find(address, request.now_s);
        let kept = entry.and_then(|entry| {
            let id = entry.servers().next()?;
            let index = self.places.find(id)?;
            let server = servers.get(index)?;
            let keeps = server.spec.weight > 0 && !is_crowded(server, servers);
            keeps.then_some(index)
        });
        if kept.is_some() {
            return kept;
        }
        let index = least_by_weight(numbered(servers), overhead)?;
        let id = servers[index].id;
        match entry {
            Some(entry) => entry.replace(id),
            None => self.memory.insert(address, id, request.now_s),
        }
        Some(index)
    }

    fn revised(&self, servers: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self {
            memory: self.memory.clone(),
            places: Places::new(servers),
        })
    }

    fn forked(&self) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(Self {
            memory: Arc::new(self.memory.copy()),
            places: self.places.clone(),
        }))
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(overhead(server))
    }
}
