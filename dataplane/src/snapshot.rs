//! What workers read: services, servers, marks, ways and tunables. Immutable, replaced
//! whole; a worker holds one for the length of a burst.

use std::sync::Arc;

use ahash::HashMap;
use sched::server::{RealServer, ServerId};
use sched::service::{Family, Protocol, Service};

use crate::address::Endpoint;
use crate::hops::{Hops, Way};
use crate::tunables::Tunables;

/// A real server and the way to it.
#[derive(Clone, Debug)]
pub struct ServerSlot {
    /// The server.
    pub server: Arc<RealServer>,
    /// The service it belongs to; none once that was deleted.
    pub service: Option<Arc<Service>>,
    /// The way to it, looked up when the snapshot was built.
    pub way: Way,
}

/// One consistent view of all that decides about packets.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts snapshots from 1; workers acknowledge by it.
    pub generation: u64,
    services: HashMap<(Family, Protocol, Endpoint), Arc<Service>>,
    marked: HashMap<(Family, u32), Arc<Service>>,
    marks: HashMap<(Family, Protocol, Endpoint), u32>,
    masqueraded: HashMap<(Family, Protocol, Endpoint), ServerId>,
    servers: Vec<Option<ServerSlot>>,
    /// The host's routing.
    pub hops: Arc<Hops>,
    /// Behaviour that operators set.
    pub tunables: Tunables,
}

impl Snapshot {
    /// The service for packets to `destination`: by its exact port, else by port 0.
    pub fn service(
        &self,
        family: Family,
        protocol: Protocol,
        destination: Endpoint,
    ) -> Option<&Arc<Service>> {
        let any = Endpoint {
            port: 0,
            ..destination
        };
        let find = |end| self.services.get(&(family, protocol, end));
        find(destination).or_else(|| find(any))
    }

    /// The firewall mark of packets to `destination`; 0 where they have none.
    pub fn mark(&self, family: Family, protocol: Protocol, destination: Endpoint) -> u32 {
        if self.marks.is_empty() {
            return 0;
        }
        let any = Endpoint {
            port: 0,
            ..destination
        };
        let find = |end| self.marks.get(&(family, protocol, end)).copied();
        find(destination).or_else(|| find(any)).unwrap_or(0)
    }

    /// The service for packets that bear `mark`.
    pub fn marked(&self, family: Family, mark: u32) -> Option<&Arc<Service>> {
        self.marked.get(&(family, mark))
    }

    /// The server with this number, as long as a connection may refer to it.
    pub fn server(&self, id: ServerId) -> Option<&ServerSlot> {
        self.servers.get(id.0 as usize)?.as_ref()
    }

    /// The masquerading server at `source`, for packets that match no connection.
    pub fn masqueraded(
        &self,
        family: Family,
        protocol: Protocol,
        source: Endpoint,
    ) -> Option<ServerId> {
        let any = Endpoint { port: 0, ..source };
        let find = |end| self.masqueraded.get(&(family, protocol, end)).copied();
        find(source).or_else(|| find(any))
    }
}
