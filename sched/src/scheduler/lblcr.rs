//! `lblcr`, locality-based least connections with replication: a virtual address keeps a
//! set of servers and takes the least loaded of them. Where that one is crowded while
//! another is nearly idle, `wlc` chooses any server and adds it to the set; a set that has
//! not changed for a day loses its most loaded one (Linux's `ip_vs_lblcr.c`).

use std::sync::Arc;

use super::locality::{EXPIRATION_S, Entry, Memory, Places, is_crowded};
use super::{Request, Scheduler, least_by_weight, numbered, overhead};
use crate::server::RealServer;
use crate::service::SchedulerFlags;

/// How many addresses are remembered; the kernel begins to forget above 16,384.
const ADDRESSES: usize = 1024;
/// The most servers of one address; the kernel has no limit. One more is chosen, but not
/// added.
const SERVERS_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct ReplicatedLocality {
    /// Kept through all changes of the list: a server that returns is remembered.
    memory: Arc<Memory<SERVERS_MAX>>,
    places: Places,
}

impl ReplicatedLocality {
    pub fn new(servers: &[Arc<RealServer>]) -> Self {
        Self {
            memory: Arc::new(Memory::new(ADDRESSES)),
            places: Places::new(servers),
        }
    }

    /// The servers of an address that are in the list, the one added last first.
    fn members<'a>(
        &self,
        entry: &Entry<SERVERS_MAX>,
        servers: &'a [Arc<RealServer>],
    ) -> impl Iterator<Item = (usize, &'a RealServer)> {
        let find = |id| self.places.find(id);
        let indexes = entry.servers().filter_map(find);
        indexes.filter_map(|index| Some((index, &**servers.get(index)?)))
    }

    /// Takes the most loaded server from a set that has not changed for long.
    fn shrink(&self, entry: &Entry<SERVERS_MAX>, servers: &[Arc<RealServer>], now_s: u64) {
        if entry.unchanged_s(now_s) <= EXPIRATION_S || entry.servers().count() < 2 {
            return;
        }
        let most = self
            .members(entry, servers)
            .map(|(_, server)| server)
            .filter(|server| server.spec.weight > 0)
            .reduce(heavier);
        if let Some(server) = most {
            entry.remove(server.id, now_s);
        }
    }
}

impl Scheduler for ReplicatedLocality {
    fn name(&self) -> &'static str {
        "lblcr"
    }

    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        let (address, now_s) = (request.virtual_address, request.now_s);
        let entry = self.memory.find(address, now_s);
        let kept = entry.and_then(|entry| {
            let least = least_by_weight(self.members(entry, servers), overhead);
            self.shrink(entry, servers, now_s);
            least.filter(|&index| !is_crowded(&servers[index], servers))
        });
        if kept.is_some() {
            return kept;
        }
        let index = least_by_weight(numbered(servers), overhead)?;
        let id = servers[index].id;
        match entry {
            Some(entry) => entry.add(id, now_s),
            None => self.memory.insert(address, id, now_s),
        }
        Some(index)
    }

    fn revised(&self, servers: &[Arc<RealServer>], _: SchedulerFlags) -> Arc<dyn Scheduler> {
        Arc::new(Self {
            memory: self.memory.clone(),
            places: Places::new(servers),
        })
    }
}

/// The one of two with more cost per weight; the first of equals.
fn heavier<'a>(a: &'a RealServer, b: &'a RealServer) -> &'a RealServer {
    let [cost_a, cost_b] = [a, b].map(|server| u128::from(overhead(server)));
    let [weight_a, weight_b] = [a, b].map(|server| u128::from(server.spec.weight));
    if cost_b * weight_a > cost_a * weight_b {
        b
    } else {
        a
    }
}
