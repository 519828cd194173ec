//! The commands, one function each. Each checks all it asks for before it changes anything.

use std::sync::Arc;

use super::{Applied, ServiceSlot, ServiceTable, check};
use crate::command::{Limited, Refusal};
use crate::limit::{Limiter, ServiceLimits};
use crate::scheduler;
use crate::server::{ServerKey, ServerSpec};
use crate::service::{Service, ServiceId, ServiceKey, ServiceSpec};

impl ServiceTable {
    pub(super) fn add_service(
        &mut self,
        key: &ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<Applied, Refusal> {
        if self.numbers.contains_key(key) {
            return Err(Refusal::ServiceExists);
        }
        check::service(key, spec)?;
        check::room(self.limits.services, self.services.len(), Limited::Services)?;
        let id = ServiceId(self.services.next());
        let service = Service {
            id,
            key: *key,
            spec: spec.clone(),
            servers: Vec::new(),
            limiter: None,
            scheduler: scheduler::by_name(&spec.scheduler, spec.flags, &[])
                .ok_or(Refusal::NoSuchScheduler)?,
        };
        Arc::make_mut(&mut self.services).insert(ServiceSlot {
            live: Some(Arc::new(service)),
            servers: 0,
        });
        Arc::make_mut(&mut self.numbers).insert(*key, id);
        Ok(Applied::ServiceAdded(id))
    }

    pub(super) fn edit_service(
        &mut self,
        key: &ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<Applied, Refusal> {
        let old = self.live(key)?;
        check::service(key, spec)?;
        // The same scheduler keeps its state: only another one starts anew.
        let scheduler = if spec.scheduler != old.spec.scheduler {
            scheduler::by_name(&spec.scheduler, spec.flags, &old.servers)
                .ok_or(Refusal::NoSuchScheduler)?
        } else if spec.flags != old.spec.flags {
            let reflagged = old.scheduler.reflagged(&old.servers, spec.flags);
            reflagged.unwrap_or_else(|| old.scheduler.clone())
        } else {
            old.scheduler.clone()
        };
        self.put_service(Service {
            id: old.id,
            key: *key,
            spec: spec.clone(),
            servers: old.servers.clone(),
            limiter: old.limiter.clone(),
            scheduler,
        });
        Ok(Applied::ServiceEdited(old.id))
    }

    pub(super) fn limit_service(
        &mut self,
        key: &ServiceKey,
        limits: &ServiceLimits,
    ) -> Result<Applied, Refusal> {
        let old = self.live(key)?;
        check::limits(limits)?;
        let limiter = (!limits.is_none()).then(|| Arc::new(Limiter::new(*limits)));
        self.put_service(Service {
            id: old.id,
            key: *key,
            spec: old.spec.clone(),
            servers: old.servers.clone(),
            limiter,
            scheduler: old.scheduler.clone(),
        });
        Ok(Applied::ServiceEdited(old.id))
    }

    pub(super) fn delete_service(
        &mut self,
        key: &ServiceKey,
        now_s: u64,
    ) -> Result<Applied, Refusal> {
        let service = self.live(key)?;
        for server in &service.servers {
            self.throw_away(key, server, now_s);
        }
        Arc::make_mut(&mut self.numbers).remove(key);
        if let Some(slot) = Arc::make_mut(&mut self.services).get_mut(service.id.0) {
            slot.live = None;
        }
        self.release_service(service.id);
        Ok(Applied::ServiceDeleted(service.id))
    }

    pub(super) fn flush(&mut self, now_s: u64) -> Applied {
        let keys: Vec<_> = self.numbers.keys().copied().collect();
        for key in &keys {
            let deleted = self.delete_service(key, now_s);
            debug_assert!(deleted.is_ok(), "{key:?} is live");
        }
        Applied::Flushed
    }

    pub(super) fn add_server(
        &mut self,
        service_key: &ServiceKey,
        key: &ServerKey,
        spec: ServerSpec,
    ) -> Result<Applied, Refusal> {
        let service = self.live(service_key)?;
        check::server(service_key, key, &spec)?;
        if service.servers.iter().any(|s| s.key == *key) {
            return Err(Refusal::ServerExists);
        }
        let removed = self.trash.get(&(*service_key, *key)).copied();
        let (server, zero) = match removed {
            Some(removed) => self.revive(service.id, *service_key, removed.id, spec),
            None => (self.create(service.id, *key, spec)?, true),
        };
        let id = server.id;
        let mut servers = Vec::with_capacity(service.servers.len() + 1);
        servers.push(server);
        servers.extend_from_slice(&service.servers);
        self.put_servers(&service, servers);
        Ok(Applied::ServerAdded {
            id,
            zero,
            fresh: removed.is_none(),
        })
    }

    pub(super) fn edit_server(
        &mut self,
        service_key: &ServiceKey,
        key: &ServerKey,
        spec: ServerSpec,
    ) -> Result<Applied, Refusal> {
        let service = self.live(service_key)?;
        check::server(service_key, key, &spec)?;
        let place = place_of(&service, key)?;
        let mut servers = service.servers.clone();
        servers[place] = Arc::new(servers[place].edited(spec));
        let server = servers[place].clone();
        self.put_server(&server);
        self.put_servers(&service, servers);
        Ok(Applied::ServerEdited(server.id))
    }

    pub(super) fn delete_server(
        &mut self,
        service_key: &ServiceKey,
        key: &ServerKey,
        now_s: u64,
    ) -> Result<Applied, Refusal> {
        let service = self.live(service_key)?;
        let place = place_of(&service, key)?;
        let mut servers = service.servers.clone();
        let server = servers.remove(place);
        self.throw_away(service_key, &server, now_s);
        self.put_servers(&service, servers);
        Ok(Applied::ServerDeleted(server.id))
    }
}

fn place_of(service: &Service, key: &ServerKey) -> Result<usize, Refusal> {
    let place = service.servers.iter().position(|s| s.key == *key);
    place.ok_or(Refusal::NoSuchServer)
}
