//! What commands change. A clone costs little, so a batch of all or none runs on a clone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cli::api::Batch;
use cli::config::{self, Config};
use dataplane::snapshot::Snapshot;
use sched::command::{Command, FwmarkRule, Limited, Refusal};
use sched::prefix::{Guard, PREFIXES_MAX, Prefix, Prefixes};
use sched::server::{Forwarding, ServerId};
use sched::service::{Service, ServiceId, ServiceKey};
use sched::table::{Applied, Limits, ServiceTable};

use crate::director::marks::{Marks, Place};
use crate::director::neighbours::View;
use crate::director::settings::Settings;

/// All that commands change.
#[derive(Clone, Debug)]
pub struct State {
    /// Services and servers.
    pub table: ServiceTable,
    /// Firewall marks.
    pub marks: Marks,
    /// Tunables.
    pub settings: Settings,
    /// The keys of services, of removed ones too while servers name them: what was
    /// steered to them is steered on while connections live.
    pub keys: HashMap<ServiceId, ServiceKey>,
    /// Servers that forwarded in another way before, for connections that still do.
    pub forwarded: HashMap<ServerId, Vec<Forwarding>>,
    /// Destinations that bore a mark before, for connections that came by them.
    pub marked: HashSet<(Place, u32)>,
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
            marks: Marks::default(),
            settings: Settings::default(),
            keys: HashMap::new(),
            forwarded: HashMap::new(),
            marked: HashSet::new(),
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
        if !batch.atomic {
            let mut effects = Vec::new();
            let commands = batch.commands.iter();
            let refusals = commands.map(|command| {
                let carried_out =
                    permit(command).and_then(|()| self.apply(command, now_s, &mut effects));
                carried_out.err()
            });
            return (refusals.collect(), effects);
        }
        let mut trial = self.clone();
        let mut effects = Vec::new();
        for (place, command) in batch.commands.iter().enumerate() {
            let carried_out =
                permit(command).and_then(|()| trial.apply(command, now_s, &mut effects));
            if let Err(refusal) = carried_out {
                return (undone(batch, place, refusal), Vec::new());
            }
        }
        *self = trial;
        (vec![None; batch.commands.len()], effects)
    }

    /// Forgets removed servers that nothing refers to; whether there were any.
    pub fn reap(&mut self, now_s: u64) -> bool {
        let forgotten = self.table.reap(now_s);
        let table = &self.table;
        self.forwarded
            .retain(|id, _| table.server(*id).is_some_and(|s| !s.load.is_idle()));
        let named: HashSet<ServiceId> = table
            .services()
            .map(|service| service.id)
            .chain(table.servers().map(|(server, _)| server.service))
            .collect();
        self.keys.retain(|id, _| named.contains(id));
        let busy: HashSet<u32> = table
            .servers()
            .filter(|(server, _)| !server.load.is_idle())
            .filter_map(|(server, _)| mark_of(self.keys.get(&server.service)?))
            .collect();
        self.marked.retain(|(_, mark)| busy.contains(mark));
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

    fn apply(
        &mut self,
        command: &Command,
        now_s: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let before = self.forwarding_before(command);
        match self.table.apply(command, now_s)? {
            Applied::ServiceAdded(id) => {
                if let Some(service) = self.table.service_by_id(id) {
                    self.keys.insert(id, service.key);
                }
                effects.push(Effect::StartService(id));
            }
            Applied::ServerAdded { id, zero, fresh } => {
                self.remember_forwarding(id, before);
                match (fresh, zero) {
                    (true, _) => effects.push(Effect::StartServer(id)),
                    (false, true) => effects.push(Effect::ZeroServer(id)),
                    (false, false) => {}
                }
            }
            Applied::ServerEdited(id) => self.remember_forwarding(id, before),
            Applied::ServiceEdited(_)
            | Applied::ServiceDeleted(_)
            | Applied::Flushed
            | Applied::ServerDeleted(_) => {}
            Applied::NotOfTable => self.apply_other(command, effects)?,
        }
        Ok(())
    }

    fn remember_forwarding(&mut self, id: ServerId, before: Option<Forwarding>) {
        if let Some(before) = before {
            self.forwarded.entry(id).or_default().push(before);
        }
    }

    /// How the server that a command edits (or brings back) has forwarded so far.
    fn forwarding_before(&self, command: &Command) -> Option<Forwarding> {
        let (service, key) = match command {
            Command::EditServer {
                service, server, ..
            }
            | Command::AddServer {
                service, server, ..
            } => (service, server),
            _ => return None,
        };
        let server = self.table.remembered(service, key)?;
        (!server.load.is_idle()).then_some(server.spec.forwarding)
    }

    fn apply_other(&mut self, command: &Command, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        match command {
            Command::Zero { service } => self.zero(service.as_ref(), effects),
            Command::SetTimeouts {
                tcp_s,
                tcp_fin_s,
                udp_s,
            } => self.settings.set_timeouts(*tcp_s, *tcp_fin_s, *udp_s),
            Command::SetTunable { name, value } => self.settings.set(name, value),
            Command::AddFwmark(rule) => self.marks.add(rule),
            Command::DeleteFwmark(rule) => self.delete_marks(rule),
            Command::SetPrefixes { guard, prefixes } => self.set_prefixes(*guard, prefixes),
            _ => Ok(()),
        }
    }

    fn zero(&self, service: Option<&ServiceKey>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        if service.is_some_and(|key| self.table.service(key).is_none()) {
            return Err(Refusal::NoSuchService);
        }
        let meant = |key: &ServiceKey| service.is_none_or(|wanted| wanted == key);
        for service in self.table.services().filter(|s| meant(&s.key)) {
            effects.push(Effect::ZeroService(service.id));
            let servers = service.servers.iter();
            effects.extend(servers.map(|server| Effect::ZeroServer(server.id)));
        }
        Ok(())
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
        self.marks.delete(rule)?;
        let place = |&port| ((rule.address, rule.protocol, port), rule.mark.get());
        self.marked.extend(rule.ports.iter().map(place));
        Ok(())
    }
}

fn mark_of(key: &ServiceKey) -> Option<u32> {
    match key {
        ServiceKey::Fwmark { mark, .. } => Some(mark.get()),
        ServiceKey::Address { .. } => None,
    }
}

/// The outcome of a batch of all or none that was refused at `place`.
fn undone(batch: &Batch, place: usize, refusal: Refusal) -> Vec<Option<Refusal>> {
    let what = format!(
        "not carried out, as command {} of the batch was refused",
        place + 1
    );
    let mut refusals = vec![Some(Refusal::Invalid { what }); batch.commands.len()];
    refusals[place] = Some(refusal);
    refusals
}
