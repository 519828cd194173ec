//! A table taken apart, to be written down, and put together again: by the next process,
//! whose connections name services and servers by the same numbers.
//!
//! What a scheduler remembers beside the load (whose turn it is, which server an address
//! was given) is not kept: it begins anew, as after an edit of its service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Limits, Removed, ServiceSlot, ServiceTable, check};
use crate::command::Refusal;
use crate::limit::{Limiter, ServiceLimits};
use crate::scheduler;
use crate::server::{RealServer, ServerId, ServerKey, ServerSpec};
use crate::service::{Service, ServiceId, ServiceKey, ServiceSpec};
use crate::slots::Slots;

/// A live service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedService {
    /// Its number.
    pub id: ServiceId,
    /// What it is found by.
    pub key: ServiceKey,
    /// What can be edited.
    pub spec: ServiceSpec,
    /// Its limits on new connections, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ServiceLimits>,
    /// Its servers in list order.
    pub servers: Vec<ServerId>,
}

/// A server that a connection may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedServer {
    /// Its number.
    pub id: ServerId,
    /// The service that it belongs or belonged to.
    pub service: ServiceId,
    /// What it is found by.
    pub key: ServerKey,
    /// What can be edited.
    pub spec: ServerSpec,
    /// See [`RealServer::last_weight`].
    pub last_weight: u32,
    /// Where it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<SavedRemoval>,
}

/// A server's removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRemoval {
    /// From which service.
    pub from: ServiceKey,
    /// When, s since the fixed point of [`ServiceTable::apply`].
    pub at_s: u64,
}

/// Why a table cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A number twice, or above the limits.
    #[error("{what} number {number} is there twice, or above the limit")]
    Number {
        /// Of what.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// Something that no command would have led to.
    #[error("{what} number {number}: {refusal}")]
    Refused {
        /// Of what.
        what: &'static str,
        /// The number.
        number: u32,
        /// Why not.
        refusal: Refusal,
    },
    /// Two services or removed servers of one key.
    #[error("{what} number {number} has another's key")]
    Twin {
        /// Of what.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// A server in the list of a service that is not its own, or in none.
    #[error("server number {0} is not in its service's list, or in another's")]
    List(u32),
}

impl ServiceTable {
    /// The table's live services, as they are to be written down.
    pub fn saved_service(service: &Service) -> SavedService {
        SavedService {
            id: service.id,
            key: service.key,
            spec: service.spec.clone(),
            limits: service.limiter.as_ref().map(|limiter| *limiter.limits()),
            servers: service.servers.iter().map(|server| server.id).collect(),
        }
    }

    /// The removals that are remembered, by server.
    pub fn removals(&self) -> BTreeMap<ServerId, SavedRemoval> {
        let removals = self.trash.iter().map(|(&(from, _), removed)| {
            let at_s = removed.at_s;
            (removed.id, SavedRemoval { from, at_s })
        });
        removals.collect()
    }

    /// A table of these services and servers. Nobody is connected to them yet: see
    /// [`RealServer::restore_load`].
    pub fn restore(
        limits: Limits,
        services: Vec<SavedService>,
        servers: Vec<SavedServer>,
    ) -> Result<Self, RestoreError> {
        let mut known = BTreeMap::new();
        let mut trash = BTreeMap::new();
        for saved in &servers {
            let number = saved.id.0;
            check_server(limits, saved)?;
            if known.insert(number, Arc::new(server(saved))).is_some() {
                return Err(RestoreError::Number {
                    what: "server",
                    number,
                });
            }
            if let Some(removal) = saved.removed {
                let (id, at_s) = (saved.id, removal.at_s);
                let entry = ((removal.from, saved.key), Removed { id, at_s });
                if trash.insert(entry.0, entry.1).is_some() {
                    return Err(RestoreError::Twin {
                        what: "server",
                        number,
                    });
                }
            }
        }
        let mut slots = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        let mut listed = 0;
        for saved in services {
            let number = saved.id.0;
            if numbers.insert(saved.key, saved.id).is_some() {
                return Err(RestoreError::Twin {
                    what: "service",
                    number,
                });
            }
            listed += saved.servers.len();
            let live = Some(Arc::new(service(limits, saved, &known)?));
            let slot = ServiceSlot { live, servers: 0 };
            if slots.insert(number, slot).is_some() {
                return Err(RestoreError::Number {
                    what: "service",
                    number,
                });
            }
        }
        // Each that is in a list is there once, and is the list's own: so all are.
        let available = known.values().filter(|server| server.available);
        if listed != available.clone().count() {
            let in_list = |server: &&Arc<RealServer>| {
                let slot: Option<&ServiceSlot> = slots.get(&server.service.0);
                let live = slot.and_then(|slot| slot.live.as_ref());
                !live.is_some_and(|service| service.servers.iter().any(|s| s.id == server.id))
            };
            let lost = available.clone().find(in_list);
            return Err(RestoreError::List(lost.map_or(0, |server| server.id.0)));
        }
        for server in known.values() {
            let none = ServiceSlot {
                live: None,
                servers: 0,
            };
            slots.entry(server.service.0).or_insert(none).servers += 1;
        }
        Ok(Self {
            limits,
            numbers: Arc::new(numbers),
            services: Arc::new(Slots::restore(slots)),
            servers: Arc::new(Slots::restore(known)),
            trash: Arc::new(trash),
        })
    }
}

impl RealServer {
    /// As it is to be written down.
    pub fn saved(&self, removed: Option<SavedRemoval>) -> SavedServer {
        SavedServer {
            id: self.id,
            service: self.service,
            key: self.key,
            spec: self.spec,
            last_weight: self.last_weight,
            removed,
        }
    }

    /// Sets the counts of connections that were taken up. Only before the server is used.
    pub fn restore_load(&self, active: u32, inactive: u32, persistent: u32) {
        self.load.active.store(active, Relaxed);
        self.load.inactive.store(inactive, Relaxed);
        self.load.persistent.store(persistent, Relaxed);
        self.update_mark();
    }
}

fn check_server(limits: Limits, saved: &SavedServer) -> Result<(), RestoreError> {
    let number = saved.id.0;
    let what = "server";
    if number >= limits.servers || saved.service.0 >= limits.services {
        return Err(RestoreError::Number { what, number });
    }
    check::address(saved.key.address).map_err(|refusal| RestoreError::Refused {
        what,
        number,
        refusal,
    })
}

fn server(saved: &SavedServer) -> RealServer {
    RealServer {
        available: saved.removed.is_none(),
        last_weight: saved.last_weight,
        ..RealServer::new(saved.id, saved.service, saved.key, saved.spec)
    }
}

fn service(
    limits: Limits,
    saved: SavedService,
    known: &BTreeMap<u32, Arc<RealServer>>,
) -> Result<Service, RestoreError> {
    let number = saved.id.0;
    let what = "service";
    let refused = |refusal| RestoreError::Refused {
        what,
        number,
        refusal,
    };
    if number >= limits.services {
        return Err(RestoreError::Number { what, number });
    }
    check::service(&saved.key, &saved.spec).map_err(refused)?;
    if let Some(limits) = &saved.limits {
        check::limits(limits).map_err(refused)?;
    }
    let mut servers: Vec<Arc<RealServer>> = Vec::with_capacity(saved.servers.len());
    let mut ids: Vec<ServerId> = saved.servers.clone();
    ids.sort_unstable();
    if let Some(twin) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(RestoreError::List(twin[0].0));
    }
    for id in &saved.servers {
        let server = known.get(&id.0).filter(|server| {
            let is_own = server.available && server.service == saved.id;
            is_own && check::server(&saved.key, &server.key, &server.spec).is_ok()
        });
        servers.push(server.ok_or(RestoreError::List(id.0))?.clone());
    }
    let mut keys: Vec<ServerKey> = servers.iter().map(|server| server.key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(RestoreError::Twin {
            what: "server",
            number,
        });
    }
    let scheduler = scheduler::by_name(&saved.spec.scheduler, saved.spec.flags, &servers)
        .ok_or_else(|| refused(Refusal::NoSuchScheduler))?;
    Ok(Service {
        id: saved.id,
        key: saved.key,
        spec: saved.spec,
        servers,
        limiter: saved.limits.map(|limits| Arc::new(Limiter::new(limits))),
        scheduler,
    })
}
