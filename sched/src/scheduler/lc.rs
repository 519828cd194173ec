//! `lc`, least connections: the server with the fewest, an active one counting as 257
//! others. Weights do not matter, except that 0 excludes (Linux's `ip_vs_lc.c`).

use std::sync::Arc;

use super::{Request, Scheduler, numbered, overhead};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct LeastConnection;

impl Scheduler for LeastConnection {
    fn name(&self) -> &'static str {
        "lc"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        numbered(servers)
            .filter(|(_, server)| server.is_usable())
            .min_by_key(|(_, server)| overhead(server))
            .map(|(index, _)| index)
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(overhead(server))
    }
}
