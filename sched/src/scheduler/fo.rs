//! `fo`, weighted fail-over: the usable server with the greatest weight (Linux's
//! `ip_vs_fo.c`).

use std::sync::Arc;

use super::{Request, Scheduler, greatest_weight, numbered};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug)]
pub(super) struct FailOver;

impl Scheduler for FailOver {
    fn name(&self) -> &'static str {
        "fo"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        greatest_weight(numbered(servers))
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self)
    }
}
