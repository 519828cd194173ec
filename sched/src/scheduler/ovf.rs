//! `ovf`, overflow: the usable server with the greatest weight whose active connections do
//! not exceed its weight. So a server takes one connection more than its weight, and
//! clients are refused once all are full (Linux's `ip_vs_ovf.c`). Not for UDP, whose
//! connections are never active.

use std::sync::Arc;

use super::{Request, Scheduler, active, greatest_weight, numbered};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct Overflow;

impl Scheduler for Overflow {
    fn name(&self) -> &'static str {
        "ovf"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        greatest_weight(numbered(servers).filter(|(_, s)| active(s) <= s.spec.weight))
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }
}
