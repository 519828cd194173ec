//! The one owner of all services and servers. Commands change it; what workers read is
//! made of the `Arc`s that it hands out, which never change.
//!
//! A clone costs little and shares nothing that a command changes, not even the load's
//! overload mark: to carry out several commands or none, apply them to a clone and keep
//! it only if all succeed.
//!
//! A removed server stays known by its number while connections refer to it, and for
//! [`TRASH_S`] at least. Added again to a service of the same key meanwhile, it gets its
//! number, its load and so its connections back. Linux calls this the trash.

mod check;
mod commands;
mod draft;
mod saved;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Command, Limited, Refusal};
use crate::server::{RealServer, ServerId, ServerKey, ServerSpec};
use crate::service::{Service, ServiceId, ServiceKey};
use crate::slots::Slots;

pub use draft::Drafts;
pub use saved::{RestoreError, SavedRemoval, SavedServer, SavedService};

/// How long a removed server is remembered at least, s (`IP_VS_DEST_TRASH_PERIOD`).
pub const TRASH_S: u64 = 120;

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services, with removed ones whose servers are still remembered.
    pub services: u32,
    /// Servers of all services together, with removed ones that are still remembered.
    pub servers: u32,
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A service was added; its counters start at 0.
    ServiceAdded(ServiceId),
    /// A service was edited.
    ServiceEdited(ServiceId),
    /// A service was removed, and its servers with it.
    ServiceDeleted(ServiceId),
    /// All services were removed.
    Flushed,
    /// A server was added.
    ServerAdded {
        /// Its number.
        id: ServerId,
        /// Whether its counters show 0. They do not where a removed server came back to the
        /// very service it was removed from.
        zero: bool,
        /// Whether its number is new. One that came back keeps what was counted after the
        /// last estimate, even where it shows 0.
        fresh: bool,
    },
    /// A server was edited.
    ServerEdited(ServerId),
    /// A server was removed.
    ServerDeleted(ServerId),
    /// Not the table's to do (`Zero`, `SetTimeouts`, `SetTunable`, fwmark rules); nothing
    /// was checked.
    NotOfTable,
}

/// All services and servers.
#[derive(Clone, Debug)]
pub struct ServiceTable {
    limits: Limits,
    numbers: Arc<BTreeMap<ServiceKey, ServiceId>>,
    services: Arc<Slots<ServiceSlot>>,
    servers: Arc<Slots<Arc<RealServer>>>,
    trash: Arc<BTreeMap<(ServiceKey, ServerKey), Removed>>,
}

#[derive(Clone, Debug)]
struct ServiceSlot {
    /// None once it was removed.
    live: Option<Arc<Service>>,
    /// The servers that name it, removed ones too. The number is free at 0.
    servers: u32,
}

#[derive(Clone, Copy, Debug)]
struct Removed {
    id: ServerId,
    at_s: u64,
}

impl ServiceTable {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            numbers: Arc::default(),
            services: Arc::new(Slots::new()),
            servers: Arc::new(Slots::new()),
            trash: Arc::default(),
        }
    }

    /// Carries out `command`, or refuses and changes nothing. `now_s` is the time since
    /// some fixed point, s, the same as for [`ServiceTable::reap`].
    pub fn apply(&mut self, command: &Command, now_s: u64) -> Result<Applied, Refusal> {
        let mut drafts = Drafts::default();
        let applied = self.draft(command, now_s, &mut drafts);
        self.settle(&mut drafts);
        applied
    }

    /// As [`ServiceTable::apply`], for one command of many: what changes a service waits in
    /// `drafts` until [`ServiceTable::settle`], and the next command must be given the same
    /// drafts. Until then services are as they were, except that they come and go.
    pub fn draft(
        &mut self,
        command: &Command,
        now_s: u64,
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        match command {
            Command::AddService { service, spec } => self.add_service(service, spec),
            Command::EditService { service, spec } => self.edit_service(service, spec, drafts),
            Command::LimitService { service, limits } => {
                self.limit_service(service, limits, drafts)
            }
            Command::DeleteService { service } => self.delete_service(service, now_s, drafts),
            Command::Flush => Ok(self.flush(now_s, drafts)),
            Command::AddServer {
                service,
                server,
                spec,
            } => self.add_server(service, server, *spec, drafts),
            Command::EditServer {
                service,
                server,
                spec,
            } => self.edit_server(service, server, *spec, drafts),
            Command::DeleteServer { service, server } => {
                self.delete_server(service, server, now_s, drafts)
            }
            Command::Zero { .. }
            | Command::SetTimeouts { .. }
            | Command::SetTunable { .. }
            | Command::AddFwmark(_)
            | Command::DeleteFwmark(_)
            | Command::SetPrefixes { .. } => Ok(Applied::NotOfTable),
        }
    }

    /// Puts in place what waits in `drafts`.
    pub fn settle(&mut self, drafts: &mut Drafts) {
        let finished = drafts.take_all().filter_map(draft::Draft::finish);
        finished.for_each(|service| self.put_service(service));
    }

    /// Puts in place what waits for one service.
    pub fn settle_service(&mut self, id: ServiceId, drafts: &mut Drafts) {
        if let Some(service) = drafts.take(id).and_then(draft::Draft::finish) {
            self.put_service(service);
        }
    }

    /// The live services, by number.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|slot| slot.live.as_ref())
    }

    /// The live service with this key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.numbers.get(key).and_then(|&id| self.service_by_id(id))
    }

    /// The live service with this number.
    pub fn service_by_id(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id.0)?.live.as_ref()
    }

    /// Every server that a connection may refer to, by number: the live ones and the
    /// removed ones that are still remembered. Each with its service, if that is live.
    pub fn servers(&self) -> impl Iterator<Item = (&Arc<RealServer>, Option<&Arc<Service>>)> {
        self.servers
            .values()
            .map(|server| (server, self.service_by_id(server.service)))
    }

    /// The servers that may be others, or other versions, than those of `other`: all that
    /// are, and some that are not. Cheap for tables of which one is a late copy of the other.
    pub fn servers_unlike<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = &'a Arc<RealServer>> {
        self.servers.unshared_with(&other.servers)
    }

    /// The server with this number, live or remembered.
    pub fn server(&self, id: ServerId) -> Option<&Arc<RealServer>> {
        self.servers.get(id.0)
    }

    /// The server with this key of the service with that key, in a batch with these drafts:
    /// a live one, or a removed one that is still remembered.
    pub fn remembered<'a>(
        &'a self,
        service: &ServiceKey,
        server: &ServerKey,
        drafts: &'a mut Drafts,
    ) -> Option<&'a Arc<RealServer>> {
        if let Some(live) = self.service(service) {
            let draft = drafts.open(live);
            if let Some(at) = draft.find(server) {
                return draft.server(at);
            }
        }
        let removed = self.trash.get(&(*service, *server))?;
        self.server(removed.id)
    }

    /// Forgets the servers that were removed [`TRASH_S`] ago or longer and to which no
    /// connection refers. Call it every minute or so. Answers whom it forgot: their
    /// numbers may be reused from now on.
    pub fn reap(&mut self, now_s: u64) -> Vec<ServerId> {
        let due = |removed: &Removed| {
            let load_idle = self.server(removed.id).is_none_or(|s| s.load.is_idle());
            now_s.saturating_sub(removed.at_s) >= TRASH_S && load_idle
        };
        let forgotten: Vec<_> = self
            .trash
            .iter()
            .filter(|(_, removed)| due(removed))
            .map(|(key, removed)| (*key, removed.id))
            .collect();
        for (key, id) in &forgotten {
            Arc::make_mut(&mut self.trash).remove(key);
            self.forget(*id);
        }
        forgotten.into_iter().map(|(_, id)| id).collect()
    }
}

/// The steps that commands are made of.
impl ServiceTable {
    fn live(&self, key: &ServiceKey) -> Result<Arc<Service>, Refusal> {
        self.service(key).cloned().ok_or(Refusal::NoSuchService)
    }

    fn put_service(&mut self, service: Service) {
        if let Some(slot) = Arc::make_mut(&mut self.services).get_mut(service.id.0) {
            slot.live = Some(Arc::new(service));
        }
    }

    fn put_server(&mut self, server: &Arc<RealServer>) {
        if let Some(slot) = Arc::make_mut(&mut self.servers).get_mut(server.id.0) {
            *slot = server.clone();
        }
    }

    fn create(
        &mut self,
        service: ServiceId,
        key: ServerKey,
        spec: ServerSpec,
    ) -> Result<Arc<RealServer>, Refusal> {
        check::address(key.address)?;
        check::room(self.limits.servers, self.servers.len(), Limited::Servers)?;
        let id = ServerId(self.servers.next());
        let server = Arc::new(RealServer::new(id, service, key, spec));
        Arc::make_mut(&mut self.servers).insert(server.clone());
        self.count_servers(service, |n| n + 1);
        Ok(server)
    }

    /// Takes a removed server out of the trash. Also answers whether its counters start
    /// at 0: they do where it returns to another service of the same key.
    fn revive(
        &mut self,
        service: ServiceId,
        service_key: ServiceKey,
        id: ServerId,
        spec: ServerSpec,
    ) -> (Arc<RealServer>, bool) {
        let old = self.server(id).expect("the trash names known servers");
        let old = old.clone();
        let server = Arc::new(RealServer {
            service,
            available: true,
            last_weight: spec.weight,
            ..old.edited(spec)
        });
        Arc::make_mut(&mut self.trash).remove(&(service_key, server.key));
        self.put_server(&server);
        self.count_servers(service, |n| n + 1);
        self.leave(old.service);
        (server, old.service != service)
    }

    /// Makes a server unavailable and remembers it in the trash.
    fn throw_away(&mut self, service: &ServiceKey, server: &RealServer, now_s: u64) {
        let removed = Removed {
            id: server.id,
            at_s: now_s,
        };
        Arc::make_mut(&mut self.trash).insert((*service, server.key), removed);
        self.put_server(&Arc::new(RealServer {
            available: false,
            ..server.clone()
        }));
    }

    fn forget(&mut self, id: ServerId) {
        let service = self.server(id).map(|server| server.service);
        Arc::make_mut(&mut self.servers).remove(id.0);
        if let Some(service) = service {
            self.leave(service);
        }
    }

    fn leave(&mut self, service: ServiceId) {
        self.count_servers(service, |n| n - 1);
        self.release_service(service);
    }

    fn count_servers(&mut self, service: ServiceId, change: impl Fn(u32) -> u32) {
        if let Some(slot) = Arc::make_mut(&mut self.services).get_mut(service.0) {
            slot.servers = change(slot.servers);
        }
    }

    /// Frees a removed service's number once no server names it.
    fn release_service(&mut self, id: ServiceId) {
        let unused = |slot: &ServiceSlot| slot.live.is_none() && slot.servers == 0;
        if self.services.get(id.0).is_some_and(unused) {
            Arc::make_mut(&mut self.services).remove(id.0);
        }
    }
}
