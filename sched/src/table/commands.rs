//! The commands, one function each. Each checks all it asks for before it changes anything.

use std::sync::Arc;

use super::{Applied, Drafts, ServiceSlot, ServiceTable, check};
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
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        let old = self.live(key)?;
        check::service(key, spec)?;
        // The same scheduler keeps its state: only another one starts anew.
        if spec.scheduler == old.spec.scheduler {
            drafts.open(&old).edit(spec.clone());
            return Ok(Applied::ServiceEdited(old.id));
        }
        self.settle_service(old.id, drafts);
        let old = self.live(key)?;
        self.put_service(Service {
            id: old.id,
            key: *key,
            spec: spec.clone(),
            servers: old.servers.clone(),
            limiter: old.limiter.clone(),
            scheduler: scheduler::by_name(&spec.scheduler, spec.flags, &old.servers)
                .ok_or(Refusal::NoSuchScheduler)?,
        });
        Ok(Applied::ServiceEdited(old.id))
    }

    pub(super) fn limit_service(
        &mut self,
        key: &ServiceKey,
        limits: &ServiceLimits,
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        let service = self.live(key)?;
        check::limits(limits)?;
        let limiter = (!limits.is_none()).then(|| Arc::new(Limiter::new(*limits)));
        drafts.open(&service).limit(limiter);
        Ok(Applied::ServiceEdited(service.id))
    }

    pub(super) fn delete_service(
        &mut self,
        key: &ServiceKey,
        now_s: u64,
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        let service = self.live(key)?;
        let servers = match drafts.take(service.id) {
            Some(draft) => draft.into_servers(),
            None => service.servers.clone(),
        };
        for server in &servers {
            self.throw_away(key, server, now_s);
        }
        Arc::make_mut(&mut self.numbers).remove(key);
        if let Some(slot) = Arc::make_mut(&mut self.services).get_mut(service.id.0) {
            slot.live = None;
        }
        self.release_service(service.id);
        Ok(Applied::ServiceDeleted(service.id))
    }

    pub(super) fn flush(&mut self, now_s: u64, drafts: &mut Drafts) -> Applied {
        let keys: Vec<_> = self.numbers.keys().copied().collect();
        for key in &keys {
            let deleted = self.delete_service(key, now_s, drafts);
            debug_assert!(deleted.is_ok(), "{key:?} is live");
        }
        Applied::Flushed
    }

    pub(super) fn add_server(
        &mut self,
        service_key: &ServiceKey,
        key: &ServerKey,
        spec: ServerSpec,
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        let service = self.live(service_key)?;
        check::server(service_key, key, &spec)?;
        let draft = drafts.open(&service);
        if draft.find(key).is_some() {
            return Err(Refusal::ServerExists);
        }
        let removed = self.trash.get(&(*service_key, *key)).copied();
        let (server, zero) = match removed {
            Some(removed) => self.revive(service.id, *service_key, removed.id, spec),
            None => (self.create(service.id, *key, spec)?, true),
        };
        let id = server.id;
        draft.add(server);
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
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        let service = self.live(service_key)?;
        check::server(service_key, key, &spec)?;
        let draft = drafts.open(&service);
        let at = draft.find(key).ok_or(Refusal::NoSuchServer)?;
        let old = draft.server(at).ok_or(Refusal::NoSuchServer)?;
        let server = Arc::new(old.edited(spec));
        self.put_server(&server);
        let id = server.id;
        draft.replace(at, server);
        Ok(Applied::ServerEdited(id))
    }

    pub(super) fn delete_server(
        &mut self,
        service_key: &ServiceKey,
        key: &ServerKey,
        now_s: u64,
        drafts: &mut Drafts,
    ) -> Result<Applied, Refusal> {
        let service = self.live(service_key)?;
        let draft = drafts.open(&service);
        let at = draft.find(key).ok_or(Refusal::NoSuchServer)?;
        let server = draft.server(at).ok_or(Refusal::NoSuchServer)?.clone();
        draft.remove(at);
        self.throw_away(service_key, &server, now_s);
        Ok(Applied::ServerDeleted(server.id))
    }
}
