//! `nq`, never queue: the first server without active connections, else as `sed`
//! (Linux's `ip_vs_nq.c`).

use std::sync::Arc;

use super::{Request, Scheduler, active, expected_delay, least_by_weight, numbered};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct NeverQueue;

impl Scheduler for NeverQueue {
    fn name(&self) -> &'static str {
        "nq"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        numbered(servers)
            .find(|(_, server)| server.is_usable() && active(server) == 0)
            .map(|(index, _)| index)
            .or_else(|| least_by_weight(numbered(servers), expected_delay))
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(expected_delay(server))
    }
}
