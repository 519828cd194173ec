//! `mh`, Maglev hashing: the client's address (with `mh-port` its port too) chooses the
//! server, by a table that changes little when a server comes or goes (Eisenbud and
//! others, "Maglev", NSDI 2016, section 3.4; Linux's `ip_vs_mh.c`).
//!
//! Slots are shared by each server's last weight other than 0. So a drained server keeps
//! its slots: its clients are refused or, with `mh-fallback`, go elsewhere, and all others
//! stay where they are.

use std::sync::Arc;

use super::{Request, Scheduler, gcd, hash};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

/// The default size, a prime: `CONFIG_IP_VS_MH_TAB_INDEX` 12.
const SLOTS: usize = 4093;
/// Weights are cut to this many bits: half of that index.
const TURN_BITS: u32 = 6;
/// The hash of clients, and of servers' first slots.
const KEY: u64 = 2_654_435_761;
/// The hash of servers' steps.
const STEP_KEY: u64 = 2_654_446_892;

#[derive(Debug)]
pub(super) struct Maglev {
    /// Indexes of servers; empty where there are none, or all were added with weight 0.
    slots: Box<[u16]>,
    flags: SchedulerFlags,
}

impl Maglev {
    pub fn new(servers: &[Arc<RealServer>], flags: SchedulerFlags) -> Self {
        Self {
            slots: populate(servers),
            flags,
        }
    }

    /// What is hashed of a request.
    fn value_of(&self, request: &Request) -> u32 {
        let port = match self.flags.has(SchedulerFlags::PORT) {
            true => request.client_port,
            false => 0,
        };
        hash::fold(request.client).wrapping_add(port.into())
    }

    fn usable(&self, slot: usize, servers: &[Arc<RealServer>]) -> Option<usize> {
        let index = usize::from(*self.slots.get(slot)?);
        servers.get(index)?.is_usable().then_some(index)
    }
}

impl Scheduler for Maglev {
    fn name(&self) -> &'static str {
        "mh"
    }

    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let value = self.value_of(request);
        let slot = slot_of(value, KEY);
        let chosen = self.usable(slot, servers);
        if chosen.is_some() || !self.flags.has(SchedulerFlags::FALLBACK) {
            return chosen;
        }
        // Without this, a service with no usable server would hash 4093 times for nothing.
        if !servers.iter().any(|server| server.is_usable()) {
            return None;
        }
        // Each try is hashed anew, from an offset that begins at the slot itself.
        (0..SLOTS).find_map(|offset| {
            let offset = ((slot + offset) % SLOTS) as u32;
            self.usable(slot_of(value.wrapping_add(offset), KEY), servers)
        })
    }

    fn revised(&self, servers: &[Arc<RealServer>], flags: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self::new(servers, flags))
    }

    fn slot(&self, request: &Request) -> Option<usize> {
        Some(slot_of(self.value_of(request), KEY))
    }

    fn reflagged(
        &self,
        _: &[Arc<RealServer>],
        flags: SchedulerFlags,
    ) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(Self {
            slots: self.slots.clone(),
            flags,
        }))
    }
}

/// How one server walks the table while it is filled.
struct Walk {
    index: u16,
    /// The slot that it wants next.
    wanted: usize,
    /// Added to get the slot it wants after that.
    step: usize,
    /// The slots that it takes each time it is asked.
    turns: u32,
}

/// Lets the servers take slots in turns until the table is full. Servers beyond as many as
/// there are slots get none; the kernel does not change its table at all then.
fn populate(servers: &[Arc<RealServer>]) -> Box<[u16]> {
    let mut walks = walks(servers);
    if walks.is_empty() {
        return Box::default();
    }
    let mut slots = vec![u16::MAX; SLOTS];
    let mut free = SLOTS;
    loop {
        for walk in &mut walks {
            for _ in 0..walk.turns {
                while slots[walk.wanted] != u16::MAX {
                    walk.wanted = (walk.wanted + walk.step) % SLOTS;
                }
                slots[walk.wanted] = walk.index;
                free -= 1;
                if free == 0 {
                    return slots.into();
                }
            }
        }
    }
}

fn walks(servers: &[Arc<RealServer>]) -> Vec<Walk> {
    let servers = || {
        servers
            .iter()
            .take(SLOTS)
            .zip(0u16..)
            .filter(|(s, _)| s.last_weight > 0)
    };
    let weights = || servers().map(|(server, _)| server.last_weight);
    let divisor = weights().reduce(gcd).unwrap_or(1);
    let greatest = weights().max().unwrap_or(0) / divisor;
    let shift = (u32::BITS - greatest.leading_zeros()).saturating_sub(TURN_BITS);
    servers()
        .map(|(server, index)| {
            let port = u32::from(server.key.port);
            let value = hash::fold(server.key.address).wrapping_add(port);
            Walk {
                index,
                wanted: slot_of(value, KEY),
                step: hash::hsiphash(value, STEP_KEY) as usize % (SLOTS - 1) + 1,
                turns: ((server.last_weight / divisor) >> shift).max(1),
            }
        })
        .collect()
}

fn slot_of(value: u32, key: u64) -> usize {
    hash::hsiphash(value, key) as usize % SLOTS
}
