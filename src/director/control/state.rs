//! What commands change. A clone costs little and shares what neither side changes: so a
//! batch of all or none runs on a clone, and whoever only looks gets one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cli::api::Batch;
use cli::config::{self, Config};
use dataplane::snapshot::Snapshot;
use sched::command::{Command, FwmarkRule, Limited, Refusal};
use sched::prefix::{Guard, PREFIXES_MAX, Prefix, Prefixes};
use sched::server::{Forwarding, RealServer, ServerId};
use sched::service::{Service, ServiceId, ServiceKey};
use sched::table::{Applied, Drafts, Limits, ServiceTable};

use crate::director::marks::{Marks, Place};
use crate::director::neighbours::View;
use crate::director::settings::Settings;

/// All that commands change.
#[derive(Clone, Debug)]
pub struct State {
    /// Services and servers.
    pub table: ServiceTable,
    /// Firewall marks.
    pub marks: Arc<Marks>,
    /// Tunables.
    pub settings: Settings,
    /// The keys of services, of removed ones too while servers name them: what was
    /// steered to them is steered on while connections live.
    pub keys: Arc<HashMap<ServiceId, ServiceKey>>,
    /// Servers that forwarded in another way before, for connections that still do.
    pub forwarded: Arc<HashMap<ServerId, Vec<Forwarding>>>,
    /// Destinations that bore a mark before, for connections that came by them.
    pub marked: Arc<HashSet<(Place, u32)>>,
    /// Clients that are let in or kept out.
    pub prefixes: Arc<Prefixes>,
}

/// What a command means for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The service's counters start at 0.
    StartService(ServiceId),
    /// The server's counters start at 0.
    StartServer(ServerId),
    /// The service's counters go back to 0.
    ZeroService(ServiceId),
    /// The server's counters go back to 0.
    ZeroServer(ServerId),
}

impl State {
    /// No services.
    pub fn new(limits: Limits) -> Self {
        Self {
            table: ServiceTable::new(limits),
            marks: Arc::default(),
            settings: Settings::default(),
            keys: Arc::default(),
            forwarded: Arc::default(),
            marked: Arc::default(),
            prefixes: Arc::default(),
        }
    }

    /// What workers are to decide by.
    pub fn snapshot(&self, generation: u64, view: &View) -> Snapshot {
        let table = &self.table;
        Snapshot::new(
            generation,
            table.services(),
            table.servers().map(|(server, _)| server),
            &self.marks.rules(),
            view.hops.clone(),
            self.settings.tunables().clone(),
        )
    }

    /// Carries out those commands of a batch that `permit` lets pass: for each why it was
    /// refused, and what the carried-out ones mean for the counters.
    pub fn run(
        &mut self,
        batch: &Batch,
        now_s: u64,
        permit: &dyn Fn(&Command) -> Result<(), Refusal>,
    ) -> (Vec<Option<Refusal>>, Vec<Effect>) {
        let commands = &batch.commands;
        if batch.atomic {
            return match self.trial(commands, now_s, permit) {
                Ok((state, effects)) => {
                    *self = state;
                    (vec![None; commands.len()], effects)
                }
                Err((place, refusal)) => (undone(commands.len(), place, refusal), Vec::new()),
            };
        }
        let mut work = Work::default();
        let refusals = commands.iter().map(|command| {
            let carried_out = permit(command).and_then(|()| self.apply(command, now_s, &mut work));
            carried_out.err()
        });
        let refusals = refusals.collect();
        self.table.settle(&mut work.drafts);
        (refusals, work.effects)
    }

    /// What commands would lead to, with what they mean for the counters; or the place of the
    /// one that is refused, and why.
    pub fn trial(
        &self,
        commands: &[Command],
        now_s: u64,
        permit: &dyn Fn(&Command) -> Result<(), Refusal>,
    ) -> Result<(Self, Vec<Effect>), (usize, Refusal)> {
        let (mut trial, mut work) = (self.clone(), Work::default());
        for (place, command) in commands.iter().enumerate() {
            permit(command)
                .and_then(|()| trial.apply(command, now_s, &mut work))
                .map_err(|refusal| (place, refusal))?;
        }
        trial.table.settle(&mut work.drafts);
        Ok((trial, work.effects))
    }

    /// Forgets removed servers that nothing refers to; whether there were any.
    pub fn reap(&mut self, now_s: u64) -> bool {
        let forgotten = self.table.reap(now_s);
        let table = &self.table;
        let is_over = |id: &ServerId| table.server(*id).is_none_or(|s| s.load.is_idle());
        // What is shared with someone who looks is copied only where something goes.
        if self.forwarded.keys().any(is_over) {
            Arc::make_mut(&mut self.forwarded).retain(|id, _| !is_over(id));
        }
        let named: HashSet<ServiceId> = table
            .services()
            .map(|service| service.id)
            .chain(table.servers().map(|(server, _)| server.service))
            .collect();
        if self.keys.keys().any(|id| !named.contains(id)) {
            Arc::make_mut(&mut self.keys).retain(|id, _| named.contains(id));
        }
        let busy: HashSet<u32> = table
            .servers()
            .filter(|(server, _)| !server.load.is_idle())
            .filter_map(|(server, _)| mark_of(self.keys.get(&server.service)?))
            .collect();
        if self.marked.iter().any(|(_, mark)| !busy.contains(mark)) {
            Arc::make_mut(&mut self.marked).retain(|(_, mark)| busy.contains(mark));
        }
        !forgotten.is_empty()
    }

    /// All of it that a file can say.
    pub fn config(&self) -> Config {
        let service = |service: &Arc<Service>| config::Service {
            key: service.key,
            spec: service.spec.clone(),
            limits: service
                .limiter
                .as_ref()
                .map(|l| *l.limits())
                .unwrap_or_default(),
            // The list has the newest first.
            servers: service
                .servers
                .iter()
                .rev()
                .map(|s| (s.key, s.spec))
                .collect(),
        };
        let tunables = self.settings.values().iter();
        Config {
            director: config::Director::default(),
            timeouts: self.settings.timeouts(),
            tunables: tunables
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            marks: self.marks.rules(),
            prefixes: Some(self.prefixes.clone()),
            services: self.table.services().map(service).collect(),
        }
    }

    fn apply(&mut self, command: &Command, now_s: u64, work: &mut Work) -> Result<(), Refusal> {
        let before = self.forwarding_before(command, &mut work.drafts);
        match self.table.draft(command, now_s, &mut work.drafts)? {
            Applied::ServiceAdded(id) => {
                if let Some(service) = self.table.service_by_id(id) {
                    Arc::make_mut(&mut self.keys).insert(id, service.key);
                }
                work.effects.push(Effect::StartService(id));
            }
            Applied::ServerAdded { id, zero, fresh } => {
                self.remember_forwarding(id, before);
                match (fresh, zero) {
                    (true, _) => work.effects.push(Effect::StartServer(id)),
                    (false, true) => work.effects.push(Effect::ZeroServer(id)),
                    (false, false) => work.zeroed.came_back(self.table.server(id)),
                }
            }
            Applied::ServerEdited(id) => self.remember_forwarding(id, before),
            Applied::ServiceEdited(_)
            | Applied::ServiceDeleted(_)
            | Applied::Flushed
            | Applied::ServerDeleted(_) => {}
            Applied::NotOfTable => self.apply_other(command, work)?,
        }
        Ok(())
    }

    fn remember_forwarding(&mut self, id: ServerId, before: Option<Forwarding>) {
        if let Some(before) = before {
            let forwarded = Arc::make_mut(&mut self.forwarded).entry(id).or_default();
            // Once each: a batch may edit a server to and fro any number of times.
            if !forwarded.contains(&before) {
                forwarded.push(before);
            }
        }
    }

    /// How the server that a command edits (or brings back) has forwarded so far.
    fn forwarding_before(&self, command: &Command, drafts: &mut Drafts) -> Option<Forwarding> {
        let (service, key) = match command {
            Command::EditServer {
                service, server, ..
            }
            | Command::AddServer {
                service, server, ..
            } => (service, server),
            _ => return None,
        };
        let server = self.table.remembered(service, key, drafts)?;
        (!server.load.is_idle()).then_some(server.spec.forwarding)
    }

    fn apply_other(&mut self, command: &Command, work: &mut Work) -> Result<(), Refusal> {
        match command {
            Command::Zero { service: None } => {
                self.zero_all(work);
                Ok(())
            }
            Command::Zero { service: Some(key) } => self.zero(key, work),
            Command::SetTimeouts {
                tcp_s,
                tcp_fin_s,
                udp_s,
            } => self.settings.set_timeouts(*tcp_s, *tcp_fin_s, *udp_s),
            Command::SetTunable { name, value } => self.settings.set(name, value),
            Command::AddFwmark(rule) => Arc::make_mut(&mut self.marks).add(rule),
            Command::DeleteFwmark(rule) => self.delete_marks(rule),
            Command::SetPrefixes { guard, prefixes } => self.set_prefixes(*guard, prefixes),
            _ => Ok(()),
        }
    }

    fn zero(&mut self, key: &ServiceKey, work: &mut Work) -> Result<(), Refusal> {
        let service = self.table.service(key).ok_or(Refusal::NoSuchService)?;
        let id = service.id;
        if work.zeroed.has(id) {
            let back = work.zeroed.back.remove(&id).unwrap_or_default();
            work.effects
                .extend(back.into_iter().map(Effect::ZeroServer));
            return Ok(());
        }
        work.zeroed.services.insert(id);
        self.table.settle_service(id, &mut work.drafts);
        if let Some(service) = self.table.service_by_id(id) {
            zero_service(service, &mut work.effects);
        }
        Ok(())
    }

    fn zero_all(&mut self, work: &mut Work) {
        let back = std::mem::take(&mut work.zeroed.back);
        if std::mem::replace(&mut work.zeroed.all, true) {
            let back = back.into_values().flatten();
            work.effects.extend(back.map(Effect::ZeroServer));
            return;
        }
        self.table.settle(&mut work.drafts);
        let services = self.table.services();
        services.for_each(|service| zero_service(service, &mut work.effects));
    }

    fn set_prefixes(&mut self, guard: Option<Guard>, list: &[Prefix]) -> Result<(), Refusal> {
        let known = Arc::make_mut(&mut self.prefixes);
        let Some(guard) = guard else {
            list.iter().for_each(|prefix| _ = known.remove(prefix));
            return Ok(());
        };
        let new = list.iter().filter(|prefix| !known.contains_key(prefix));
        if known.len() + new.count() > PREFIXES_MAX as usize {
            return Err(Refusal::Limit {
                what: Limited::Prefixes,
                limit: PREFIXES_MAX.into(),
            });
        }
        known.extend(list.iter().map(|prefix| (*prefix, guard)));
        Ok(())
    }

    fn delete_marks(&mut self, rule: &FwmarkRule) -> Result<(), Refusal> {
        Arc::make_mut(&mut self.marks).delete(rule)?;
        let place = |&port| ((rule.address, rule.protocol, port), rule.mark.get());
        Arc::make_mut(&mut self.marked).extend(rule.ports.iter().map(place));
        Ok(())
    }
}

fn mark_of(key: &ServiceKey) -> Option<u32> {
    match key {
        ServiceKey::Fwmark { mark, .. } => Some(mark.get()),
        ServiceKey::Address { .. } => None,
    }
}

/// A batch under way.
#[derive(Debug, Default)]
struct Work {
    drafts: Drafts,
    effects: Vec<Effect>,
    zeroed: Zeroed,
}

/// Whose counters a batch has set back to 0 already. A second time means nothing but for
/// servers that came back in between, and so costs nothing: a batch of a hundred thousand
/// times "all" is no more than one.
#[derive(Debug, Default)]
struct Zeroed {
    all: bool,
    services: HashSet<ServiceId>,
    /// Servers that came back with their counts since.
    back: HashMap<ServiceId, Vec<ServerId>>,
}

impl Zeroed {
    fn has(&self, service: ServiceId) -> bool {
        self.all || self.services.contains(&service)
    }

    fn came_back(&mut self, server: Option<&Arc<RealServer>>) {
        if let Some(server) = server.filter(|server| self.has(server.service)) {
            self.back.entry(server.service).or_default().push(server.id);
        }
    }
}

fn zero_service(service: &Service, effects: &mut Vec<Effect>) {
    effects.push(Effect::ZeroService(service.id));
    let servers = service.servers.iter();
    effects.extend(servers.map(|server| Effect::ZeroServer(server.id)));
}

/// The outcome of so many commands, all or none, of which the one at `place` was refused.
pub fn undone(commands: usize, place: usize, refusal: Refusal) -> Vec<Option<Refusal>> {
    let mut refusals = vec![Some(not_carried_out(place)); commands];
    refusals[place] = Some(refusal);
    refusals
}

/// What is said of the others.
pub fn not_carried_out(place: usize) -> Refusal {
    let what = format!(
        "not carried out, as command {} of the batch was refused",
        place + 1
    );
    Refusal::Invalid { what }
}

#[cfg(test)]
mod tests;
