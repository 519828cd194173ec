//! `dh`, destination hashing: the virtual address alone chooses the server, by a table of
//! 256 slots that the servers fill in list order, weights aside (Linux's `ip_vs_dh.c`).
//! Of use where a service has many addresses: firewall marks before web caches.

use std::sync::Arc;

use super::{Request, Scheduler, hash};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

/// `CONFIG_IP_VS_DH_TAB_BITS`, which no distribution changes.
const BITS: u32 = 8;

fn slot_of(request: &Request) -> usize {
    hash::slot(hash::fold(request.virtual_address), BITS)
}

#[derive(Debug)]
pub(super) struct DestinationHash;

impl Scheduler for DestinationHash {
    fn name(&self) -> &'static str {
        "dh"
    }

    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let slot = slot_of(request);
        // The table in a formula: slot n belongs to server n modulo their number.
        let index = slot.checked_rem(servers.len())?;
        servers[index].is_usable().then_some(index)
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }

    fn slot(&self, request: &Request) -> Option<usize> {
        Some(slot_of(request))
    }
}
