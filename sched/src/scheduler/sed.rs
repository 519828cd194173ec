//! `sed`, shortest expected delay: the server with the fewest active connections per
//! weight, the new one counted in (Linux's `ip_vs_sed.c`).

use std::sync::Arc;

use super::{Request, Scheduler, expected_delay, least_by_weight, numbered};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct ShortestExpectedDelay;

impl Scheduler for ShortestExpectedDelay {
    fn name(&self) -> &'static str {
        "sed"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        least_by_weight(numbered(servers), expected_delay)
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(expected_delay(server))
    }
}
