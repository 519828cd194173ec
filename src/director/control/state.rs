//! What commands change. A clone costs little, so a batch of all or none runs on a clone.

use std::collections::{HashMap, HashSet};

use cli::api::Batch;
use sched::command::{Command, FwmarkRule, Refusal};
use sched::server::{Forwarding, ServerId};
use sched::service::{ServiceId, ServiceKey};
use sched::table::{Applied, Limits, ServiceTable};

use crate::director::marks::{Marks, Place};
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
        }
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
                self.forwarded.entry(id).or_default().extend(before);
                match (fresh, zero) {
                    (true, _) => effects.push(Effect::StartServer(id)),
                    (false, true) => effects.push(Effect::ZeroServer(id)),
                    (false, false) => {}
                }
            }
            Applied::ServerEdited(id) => self.forwarded.entry(id).or_default().extend(before),
            Applied::ServiceEdited(_)
            | Applied::ServiceDeleted(_)
            | Applied::Flushed
            | Applied::ServerDeleted(_) => {}
            Applied::NotOfTable => self.apply_other(command, effects)?,
        }
        Ok(())
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
