//! `wlc`, weighted least connections, ipvsadm's default: the server with the fewest
//! connections per weight, an active one counting as 257 others (Linux's `ip_vs_wlc.c`).

use std::sync::Arc;

use super::{Request, Scheduler, least_by_weight, numbered, overhead};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn name(&self) -> &'static str {
        "wlc"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        least_by_weight(numbered(servers), overhead)
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(overhead(server))
    }
}
