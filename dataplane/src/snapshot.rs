//! What workers read: services, servers, marks, ways and tunables. Immutable, replaced
//! whole; a worker holds one for the length of a burst.

mod servers;
mod sources;
mod timeouts;
mod track;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ahash::HashMap;
use sched::command::FwmarkRule;
use sched::scheduler::{Request, Scheduler};
use sched::server::{RealServer, ServerId};
use sched::service::{Family, Protocol, SchedulerFlags, Service, ServiceKey};

use crate::address::{Bits, Endpoint, bits};
use crate::forward::tunnel::Usual;
use crate::hops::{Hops, Way};
use crate::time::Ticks;
use crate::tunables::Tunables;
use servers::Servers;
use timeouts::Timeouts;
pub(crate) use track::{Exit, LINK_BYTES, Track};

/// A real server and the way to it.
#[derive(Clone, Debug)]
pub struct ServerSlot {
    /// The server.
    pub server: Arc<RealServer>,
    /// The way to it, looked up when the snapshot was built.
    pub way: Way,
}

/// FTP's control port (RFC 959): its service takes the data connections too.
const FTP: u16 = 21;

/// FTP's data port (RFC 959).
const FTP_DATA: u16 = 20;

/// The first port that needs no privilege to listen on (Linux's
/// `net.ipv4.ip_unprivileged_port_start`): passive FTP's data connections go there.
const UNPRIVILEGED: u16 = 1024;

/// A scheduler that is copied when it is first asked: most of a fork's never are.
#[derive(Debug)]
struct Fork {
    original: Arc<dyn Scheduler>,
    copy: OnceLock<Arc<dyn Scheduler>>,
}

impl Fork {
    fn of(original: Arc<dyn Scheduler>) -> Self {
        Self {
            original,
            copy: OnceLock::new(),
        }
    }

    fn copy(&self) -> &Arc<dyn Scheduler> {
        let original = &self.original;
        self.copy
            .get_or_init(|| original.forked().unwrap_or_else(|| original.clone()))
    }
}

impl Scheduler for Fork {
    fn name(&self) -> &'static str {
        self.original.name()
    }

    fn schedule(&self, request: &Request, servers: &[Arc<RealServer>]) -> Option<usize> {
        self.copy().schedule(request, servers)
    }

    fn revised(&self, servers: &[Arc<RealServer>], flags: SchedulerFlags) -> Arc<dyn Scheduler> {
        self.copy().revised(servers, flags)
    }

    fn slot(&self, request: &Request) -> Option<usize> {
        self.original.slot(request)
    }

    fn cost(&self, server: &RealServer) -> Option<u64> {
        self.original.cost(server)
    }
}

type Place = (Family, Protocol, Endpoint);

/// One consistent view of all that decides about packets.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts snapshots from 1; workers acknowledge by it.
    pub generation: u64,
    services: HashMap<Place, Arc<Service>>,
    marked: HashMap<(Family, u32), Arc<Service>>,
    marks: HashMap<Place, u32>,
    servers: Servers,
    removed: u32,
    serves_v4: bool,
    serves_v6: bool,
    timeouts: Timeouts,
    /// What is usual of packets into tunnels.
    pub(crate) usual_inside: Usual,
    /// The host's routing.
    pub hops: Hops,
    /// Behaviour that operators set.
    pub tunables: Tunables,
}

impl Snapshot {
    /// A view of these services, of these servers (also removed ones that connections
    /// still know) and of these marks.
    pub fn new<'a>(
        generation: u64,
        services: impl IntoIterator<Item = &'a Arc<Service>>,
        servers: impl IntoIterator<Item = &'a Arc<RealServer>>,
        marks: &[FwmarkRule],
        hops: Hops,
        tunables: Tunables,
    ) -> Self {
        Self::default().next(generation, services, servers, marks, hops, tunables)
    }

    /// As [`Snapshot::new`], made of this one as far as nothing changed: what an edit costs
    /// hangs on what it edits. Servers come in the order of their numbers.
    pub fn next<'a>(
        &self,
        generation: u64,
        services: impl IntoIterator<Item = &'a Arc<Service>>,
        servers: impl IntoIterator<Item = &'a Arc<RealServer>>,
        marks: &[FwmarkRule],
        hops: Hops,
        tunables: Tunables,
    ) -> Self {
        let same_hops = self.hops.is(&hops);
        let mut snapshot = Self {
            generation,
            timeouts: Timeouts::new(&tunables),
            usual_inside: Usual::new(tunables.pmtu_disc),
            hops,
            tunables,
            ..Self::default()
        };
        let mut protocols = HashMap::default();
        for service in services {
            snapshot.add_service(service);
            if let ServiceKey::Address { protocol, .. } = service.key {
                protocols.insert(service.id, protocol);
            }
        }
        let hops = &snapshot.hops;
        snapshot.servers = self.servers.next(servers, &protocols, hops, same_hops);
        snapshot.removed = snapshot.servers.removed();
        marks.iter().for_each(|rule| snapshot.add_mark(rule));
        snapshot
    }

    /// Whether servers are where they were in `other`: the same addresses, reached the same
    /// way and by the same methods.
    pub fn has_ends_of(&self, other: &Self) -> bool {
        self.hops.is(&other.hops) && self.servers.same_ends(&other.servers)
    }

    /// A view of the same services and servers whose loads and schedulers are its own:
    /// what is decided by it leaves no trace. Schedulers are copied when they are asked.
    pub fn forked(&self) -> Self {
        let servers = self.servers.map(|slot| ServerSlot {
            server: Arc::new(slot.server.forked()),
            way: slot.way,
        });
        let own = |server: &Arc<RealServer>| match servers.get(server.id) {
            Some(slot) => slot.server.clone(),
            None => Arc::new(server.forked()),
        };
        let service = |service: &Arc<Service>| {
            Arc::new(Service {
                id: service.id,
                key: service.key,
                spec: service.spec.clone(),
                servers: service.servers.iter().map(own).collect(),
                limiter: service.limiter.as_ref().map(|l| Arc::new(l.forked())),
                scheduler: Arc::new(Fork::of(service.scheduler.clone())),
            })
        };
        let services = self.services.iter();
        let marked = self.marked.iter();
        Self {
            generation: self.generation,
            services: services.map(|(k, s)| (*k, service(s))).collect(),
            marked: marked.map(|(k, s)| (*k, service(s))).collect(),
            marks: self.marks.clone(),
            removed: self.removed,
            serves_v4: self.serves_v4,
            serves_v6: self.serves_v6,
            timeouts: self.timeouts,
            usual_inside: self.usual_inside,
            hops: self.hops.forked(),
            tunables: self.tunables.clone(),
            servers,
        }
    }

    /// One more than the greatest server number.
    pub fn servers_end(&self) -> usize {
        let numbers = self.servers.iter().map(|slot| slot.server.id.0 as usize);
        numbers.last().map_or(0, |greatest| greatest + 1)
    }

    /// One more than the greatest service number that a service or a server names.
    pub fn services_end(&self) -> usize {
        let services = self.services.values().chain(self.marked.values());
        let servers = self.servers.iter();
        let named = servers.map(|slot| slot.server.service.0);
        let greatest = services.map(|service| service.id.0).chain(named).max();
        greatest.map_or(0, |id| id as usize + 1)
    }

    /// The service for packets to `destination` that bear `mark` (0 for none): by mark,
    /// by exact port, as data of the address's FTP service, by port 0 (Linux's
    /// `ip_vs_service_find`).
    pub fn service(
        &self,
        family: Family,
        protocol: Protocol,
        destination: Endpoint,
        mark: u32,
    ) -> Option<&Arc<Service>> {
        if mark != 0
            && let Some(service) = self.marked.get(&(family, mark))
        {
            return Some(service);
        }
        let find = |port| {
            let end = Endpoint {
                port,
                ..destination
            };
            self.services.get(&(family, protocol, end))
        };
        find(destination.port)
            .or_else(|| find(FTP).filter(|_| may_be_ftp_data(protocol, destination.port)))
            .or_else(|| find(0))
    }

    /// Whether there is any service for clients of this family. While there is none, not even
    /// connections are known: Linux's IPVS then takes its hooks out of the family's path.
    pub fn serves(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.serves_v4,
            Family::V6 => self.serves_v6,
        }
    }

    /// The firewall mark of packets to `destination`; 0 where they have none.
    pub fn mark(&self, family: Family, protocol: Protocol, destination: Endpoint) -> u32 {
        if self.marks.is_empty() {
            return 0;
        }
        exact_or_any(destination, |end| self.marks.get(&(family, protocol, end)))
            .copied()
            .unwrap_or(0)
    }

    /// The server with this number, as long as a connection may refer to it.
    pub fn server(&self, id: ServerId) -> Option<&ServerSlot> {
        self.servers.get(id)
    }

    /// The short way to the server with this number; none, or one by which nothing fits, where
    /// there is none.
    #[inline(always)]
    pub(crate) fn track(&self, id: ServerId) -> Option<&Track> {
        self.servers.track(id)
    }

    /// How long a connection in `state` may idle, in ticks.
    #[inline(always)]
    pub(crate) fn timeout(&self, protocol: Protocol, state: u8) -> Ticks {
        self.timeouts.of(protocol, state)
    }

    /// The address of every server that a connection may refer to, each once.
    pub fn server_addresses(&self) -> impl Iterator<Item = &(Family, Bits)> {
        self.servers.ends().addresses()
    }

    /// How many servers were removed that connections may still name.
    pub fn removed(&self) -> u32 {
        self.removed
    }

    /// Whether `source` is a masquerading server's endpoint (Linux's
    /// `ip_vs_has_real_service`).
    pub fn is_masquerading(&self, family: Family, protocol: Protocol, source: Endpoint) -> bool {
        let place = (family, protocol, source);
        self.servers.ends().is_masquerading(&place)
    }

    /// Whether replies may come from this address: a masquerading server lives or lived
    /// there. Tells which direction of a flow to look for first.
    #[inline(always)]
    pub fn is_reply_source(&self, family: Family, address: Bits) -> bool {
        self.servers.ends().replies.contains(family, address)
    }

    /// Whether packets are tunnelled to this address.
    pub fn is_tunnel_end(&self, family: Family, address: Bits) -> bool {
        self.servers.ends().is_tunnel(family, address)
    }

    /// Whether GUE is sent to this UDP port.
    pub fn is_gue_port(&self, port: u16) -> bool {
        self.servers.ends().is_gue_port(port)
    }

    fn add_service(&mut self, service: &Arc<Service>) {
        match service.key.family() {
            Family::V4 => self.serves_v4 = true,
            Family::V6 => self.serves_v6 = true,
        }
        match service.key {
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => {
                let place = (Family::of(address), protocol, endpoint(address, port));
                self.services.insert(place, service.clone());
            }
            ServiceKey::Fwmark { mark, family } => {
                self.marked.insert((family, mark.get()), service.clone());
            }
        }
    }

    fn add_mark(&mut self, rule: &FwmarkRule) {
        for &port in &rule.ports {
            let place = (
                Family::of(rule.address),
                rule.protocol,
                endpoint(rule.address, port),
            );
            self.marks.insert(place, rule.mark.get());
        }
    }
}

fn may_be_ftp_data(protocol: Protocol, port: u16) -> bool {
    protocol == Protocol::Tcp && (port == FTP_DATA || port >= UNPRIVILEGED)
}

fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    Endpoint {
        address: bits(address),
        port,
    }
}

fn exact_or_any<T>(end: Endpoint, find: impl Fn(Endpoint) -> Option<T>) -> Option<T> {
    find(end).or_else(|| find(Endpoint { port: 0, ..end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ftp_takes_its_data_ports() {
        for (protocol, port, expected) in [
            (Protocol::Tcp, 20, true),
            (Protocol::Tcp, 1023, false),
            (Protocol::Tcp, 1024, true),
            (Protocol::Tcp, 65535, true),
            (Protocol::Udp, 20, false),
            (Protocol::Sctp, 40000, false),
        ] {
            assert_eq!(
                may_be_ftp_data(protocol, port),
                expected,
                "{protocol:?} {port}"
            );
        }
    }
}
