//! `twos`, the power of two choices: picks two servers, each likelier the greater its
//! weight, and takes the one with fewer connections per weight (Linux's `ip_vs_twos.c`,
//! since 5.14; Mitzenmacher, "The power of two random choices").
//!
//! A known difference: the kernel picks at random; here a mixed counter picks, since this
//! crate knows no randomness. The shares are the same, the very servers are not.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::{Request, Scheduler, hash, least_by_weight, numbered, overhead};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

#[derive(Debug, Default)]
pub(super) struct PowerOfTwo {
    /// How often it was asked.
    asked: AtomicU64,
}

impl Scheduler for PowerOfTwo {
    fn name(&self) -> &'static str {
        "twos"
    }

    fn schedule(&self, _: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let usable = || numbered(servers).filter(|(_, server)| server.is_usable());
        let total: u64 = usable().map(|(_, s)| u64::from(s.spec.weight)).sum();
        if total == 0 {
            return None;
        }
        let asked = self.asked.fetch_add(1, Relaxed).wrapping_mul(2);
        // A point in 0..=total, the last one included as in the kernel, chooses the server
        // whose share it falls in.
        let pick = |count: u64| {
            let mut point = hash::mix(count) % (total + 1);
            usable().find(|(_, server)| {
                let share = u64::from(server.spec.weight);
                let hit = point <= share;
                point = point.saturating_sub(share);
                hit
            })
        };
        let picks = [pick(asked), pick(asked.wrapping_add(1))];
        least_by_weight(picks.into_iter().flatten(), overhead)
    }

    fn revised(&self, _: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self {
            asked: AtomicU64::new(self.asked.load(Relaxed)),
        })
    }

    fn forked(&self) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(Self {
            asked: AtomicU64::new(self.asked.load(Relaxed)),
        }))
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(overhead(server))
    }
}
