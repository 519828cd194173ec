//! Services under change: a batch of commands changes a service's list step by step, and the
//! list and its scheduler are made once, when the batch is done. So a step costs the same
//! however many servers there are; making the list anew for each of n servers would cost n
//! times n.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::limit::Limiter;
use crate::scheduler::{Revision, Scheduler};
use crate::server::{RealServer, ServerKey};
use crate::service::{SchedulerFlags, Service, ServiceId, ServiceSpec};

/// So many look-ups walk the list; the next one makes an index. What a single command looks
/// up is not worth one.
const WALKS_MAX: u32 = 2;

/// The services that a batch is changing. The table is behind until it is settled:
/// [`ServiceTable::settle`](super::ServiceTable::settle).
#[derive(Debug, Default)]
pub struct Drafts(BTreeMap<ServiceId, Draft>);

impl Drafts {
    /// The draft of a service, begun if it must be.
    pub(super) fn open(&mut self, service: &Arc<Service>) -> &mut Draft {
        let begin = || Draft::new(service.clone());
        self.0.entry(service.id).or_insert_with(begin)
    }

    /// Ends the draft of a service, where it has one.
    pub(super) fn take(&mut self, id: ServiceId) -> Option<Draft> {
        self.0.remove(&id)
    }

    /// Ends all drafts.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Draft> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}

/// A service under change.
#[derive(Debug)]
pub(super) struct Draft {
    /// As it is in the table.
    service: Arc<Service>,
    spec: ServiceSpec,
    limiter: Option<Arc<Limiter>>,
    is_changed: bool,
    walks: u32,
    /// Where each server is; see [`WALKS_MAX`].
    index: Option<HashMap<ServerKey, usize>>,
    /// The list, once it has changed.
    list: Option<List>,
}

/// A list under change.
#[derive(Debug)]
struct List {
    /// The oldest first, so that a new server is only pushed; none where one was removed.
    places: Vec<Option<Arc<RealServer>>>,
    left: usize,
    /// Of the list before the last change.
    scheduler: Arc<dyn Scheduler>,
    steps: Steps,
}

/// What is kept for the scheduler of the changed list.
#[derive(Debug)]
enum Steps {
    /// After one change: the scheduler is revised by the list.
    One,
    /// After more.
    More(Option<Box<dyn Revision>>),
}

impl Draft {
    fn new(service: Arc<Service>) -> Self {
        Self {
            spec: service.spec.clone(),
            limiter: service.limiter.clone(),
            service,
            is_changed: false,
            walks: 0,
            index: None,
            list: None,
        }
    }

    /// Where a server is, for the other functions.
    pub(super) fn find(&mut self, key: &ServerKey) -> Option<usize> {
        if self.walks < WALKS_MAX {
            self.walks += 1;
            return self
                .servers()
                .find(|(_, s)| s.key == *key)
                .map(|(at, _)| at);
        }
        if self.index.is_none() {
            self.index = Some(self.servers().map(|(at, s)| (s.key, at)).collect());
        }
        self.index.as_ref()?.get(key).copied()
    }

    /// The server at a place that [`Draft::find`] told.
    pub(super) fn server(&self, at: usize) -> Option<&Arc<RealServer>> {
        match &self.list {
            Some(list) => list.places.get(at)?.as_ref(),
            None => self.service.servers.iter().nth_back(at),
        }
    }

    /// The servers with their places, the oldest first.
    fn servers(&self) -> impl Iterator<Item = (usize, &Arc<RealServer>)> {
        let (changed, same) = match &self.list {
            Some(list) => (list.places.as_slice(), [].as_slice()),
            None => ([].as_slice(), self.service.servers.as_slice()),
        };
        let changed = changed.iter().enumerate();
        let changed = changed.filter_map(|(at, server)| Some((at, server.as_ref()?)));
        changed.chain(same.iter().rev().enumerate())
    }

    /// Puts a server at the list's head.
    pub(super) fn add(&mut self, server: Arc<RealServer>) {
        let list = self.changed();
        if let Steps::More(Some(revision)) = &mut list.steps {
            revision.added(&server);
        }
        let (key, at) = (server.key, list.places.len());
        list.places.push(Some(server));
        list.left += 1;
        if let Some(index) = &mut self.index {
            index.insert(key, at);
        }
    }

    /// Puts an edited server in the place of what it was.
    pub(super) fn replace(&mut self, at: usize, server: Arc<RealServer>) {
        let list = self.changed();
        if let Some(Some(place)) = list.places.get_mut(at) {
            if let Steps::More(Some(revision)) = &mut list.steps {
                revision.edited(place, &server);
            }
            *place = server;
        }
    }

    /// Takes a server out of the list.
    pub(super) fn remove(&mut self, at: usize) {
        let list = self.changed();
        let Some(server) = list.places.get_mut(at).and_then(Option::take) else {
            return;
        };
        list.left -= 1;
        if let Steps::More(Some(revision)) = &mut list.steps {
            let newer = &list.places[at..];
            let before = || newer.iter().flatten().next().map(|server| server.id);
            revision.removed(&server, &before);
        }
        if let Some(index) = &mut self.index {
            index.remove(&server.key);
        }
    }

    /// Gives the service another spec with the same scheduler.
    pub(super) fn edit(&mut self, spec: ServiceSpec) {
        self.spec = spec;
        self.is_changed = true;
    }

    /// Gives the service another limiter, or none.
    pub(super) fn limit(&mut self, limiter: Option<Arc<Limiter>>) {
        self.limiter = limiter;
        self.is_changed = true;
    }

    /// The list, about to be changed once more.
    fn changed(&mut self) -> &mut List {
        self.is_changed = true;
        let list = match self.list.take() {
            Some(mut list) => {
                list.step(self.spec.flags);
                list
            }
            None => List::of(&self.service),
        };
        self.list.insert(list)
    }

    /// The servers as they are now.
    pub(super) fn into_servers(self) -> Vec<Arc<RealServer>> {
        match self.list {
            Some(list) => list.into_parts().0,
            None => self.service.servers.clone(),
        }
    }

    /// The service as it is now; none where it did not change.
    pub(super) fn finish(self) -> Option<Service> {
        if !self.is_changed {
            return None;
        }
        let (old, flags) = (&self.service, self.spec.flags);
        let (servers, scheduler) = match self.list {
            Some(list) => {
                let (servers, scheduler, steps) = list.into_parts();
                let scheduler = match steps {
                    Steps::More(Some(revision)) => revision.finish(&servers),
                    Steps::One | Steps::More(None) => scheduler.revised(&servers, flags),
                };
                (servers, scheduler)
            }
            None => {
                let is_same = flags == old.spec.flags;
                let reflagged = || old.scheduler.reflagged(&old.servers, flags);
                let other = if is_same { None } else { reflagged() };
                let scheduler = other.unwrap_or_else(|| old.scheduler.clone());
                (old.servers.clone(), scheduler)
            }
        };
        Some(Service {
            id: old.id,
            key: old.key,
            spec: self.spec,
            servers,
            limiter: self.limiter,
            scheduler,
        })
    }
}

impl List {
    fn of(service: &Service) -> Self {
        let mut places = Vec::with_capacity(service.servers.len() + 1);
        places.extend(service.servers.iter().rev().cloned().map(Some));
        Self {
            left: places.len(),
            places,
            scheduler: service.scheduler.clone(),
            steps: Steps::One,
        }
    }

    /// Has the scheduler go step by step, from the second change on.
    fn step(&mut self, flags: SchedulerFlags) {
        if matches!(self.steps, Steps::One) {
            let servers: Vec<_> = self.places.iter().rev().flatten().cloned().collect();
            let scheduler = self.scheduler.revised(&servers, flags);
            self.steps = Steps::More(scheduler.revision(&servers));
            self.scheduler = scheduler;
        }
    }

    fn into_parts(self) -> (Vec<Arc<RealServer>>, Arc<dyn Scheduler>, Steps) {
        let mut servers = Vec::with_capacity(self.left);
        servers.extend(self.places.into_iter().rev().flatten());
        (servers, self.scheduler, self.steps)
    }
}
