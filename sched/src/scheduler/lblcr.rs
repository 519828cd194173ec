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

    fn forked(&self) -> Option<Arc<dyn Scheduler>> {
        Some(Arc::new(Self {
            memory: Arc::new(self.memory.copy()),
            places: self.places.clone(),
        }))
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        Some(overhead(server))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::request;
    use crate::server::{Counted, Forwarding, ServerId, ServerKey, ServerSpec};
    use crate::service::ServiceId;

    fn server(n: u32) -> Arc<RealServer> {
        let key = ServerKey {
            address: std::net::Ipv4Addr::from_bits(n).into(),
            port: 80,
        };
        let spec = ServerSpec {
            forwarding: Forwarding::Route,
            weight: 2,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        Arc::new(RealServer::new(ServerId(n), ServiceId(0), key, spec))
    }

    #[test]
    fn a_set_unchanged_for_a_day_loses_its_most_loaded_server() {
        let servers = [server(0), server(1)];
        let scheduler = ReplicatedLocality::new(&servers);
        let ask = |now_s: u64| {
            let request = Request { now_s, ..request() };
            scheduler.schedule(&request, &servers).unwrap()
        };
        let members = |now_s: u64| -> Vec<_> {
            let entry = scheduler.memory.find(request().virtual_address, now_s);
            entry.unwrap().servers().map(|id| id.0).collect()
        };
        for expected in [0, 0, 0, 1] {
            let chosen = ask(10);
            assert_eq!(chosen, expected, "with the third connection it is crowded");
            servers[chosen].bind(Counted::Active);
        }
        assert_eq!(members(10), [1, 0]);
        // Asked for now and then, so that the address itself is not forgotten.
        let day_s = u64::from(EXPIRATION_S);
        assert_eq!((ask(day_s / 2), ask(10 + day_s)), (1, 1));
        assert_eq!(members(10 + day_s), [1, 0]);
        assert_eq!(ask(11 + day_s), 1);
        assert_eq!(members(11 + day_s), [1]);
        assert_eq!(ask(12 + 2 * day_s - 2), 1);
    }
}
