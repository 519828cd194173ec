//! From what was written down to the state that control works on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dataplane::connection::table::Survivor;
use dataplane::connection::word::Word;
use sched::server::ServerId;
use sched::table::{Limits, ServiceTable};

use super::document::{Document, Refused};
use crate::director::control::state::State;

/// Each server's connections in the table, counted as the table is taken up.
#[derive(Debug)]
pub struct Loads {
    /// Active, inactive, persistent; none where there is no such server.
    servers: Vec<Option<[u32; 3]>>,
}

impl Loads {
    /// For the servers of a document, up to the limit.
    pub fn of(document: &Document, limits: Limits) -> Self {
        let ids = document.servers.keys().map(|id| id.0);
        let ids = ids.filter(|&id| id < limits.servers);
        let end = ids.clone().next_back().map_or(0, |id| id as usize + 1);
        let mut servers = vec![None; end];
        ids.for_each(|id| servers[id as usize] = Some([0; 3]));
        Self { servers }
    }

    /// Counts an entry; false where its server is not known.
    pub fn count(&mut self, survivor: Survivor) -> bool {
        let slot = self.servers.get_mut(survivor.server.0 as usize);
        let Some(Some(counts)) = slot else {
            return false;
        };
        let place = match (survivor.template, Word(survivor.word).is_inactive()) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        };
        counts[place] += 1;
        true
    }

    /// Takes counts that were told.
    pub fn set(&mut self, told: &[(u32, [u32; 3])]) {
        for &(number, counts) in told {
            if let Some(slot) = self.servers.get_mut(number as usize) {
                *slot = Some(counts);
            }
        }
    }

    /// A server's counts.
    pub fn server(&self, id: ServerId) -> [u32; 3] {
        let slot = self.servers.get(id.0 as usize).copied();
        slot.flatten().unwrap_or_default()
    }
}

/// The state that a document describes, before anyone is connected.
pub fn restore(document: &Document, limits: Limits) -> Result<State, Refused> {
    let contradiction = |what: String| Refused::Contradiction(what);
    let services = document.services.values().cloned().collect();
    let servers = document.servers.values();
    let table = servers.clone().map(|(server, _)| server.clone()).collect();
    let table = ServiceTable::restore(limits, services, table)
        .map_err(|error| contradiction(error.to_string()))?;
    let mut state = State::new(limits);
    let mut keys: HashMap<_, _> = table.services().map(|s| (s.id, s.key)).collect();
    for (server, _) in servers.clone() {
        if let Some(removal) = server.removed {
            keys.entry(server.service).or_insert(removal.from);
        }
    }
    state.table = table;
    state.keys = Arc::new(keys);
    let forwarded = servers
        .filter(|(_, forwarded)| !forwarded.is_empty())
        .map(|(server, forwarded)| (server.id, forwarded.clone()));
    state.forwarded = Arc::new(forwarded.collect());
    for rule in &document.marks {
        let added = Arc::make_mut(&mut state.marks).add(rule);
        added.map_err(|refusal| contradiction(format!("a firewall mark: {refusal}")))?;
    }
    state.marked = Arc::new(document.marked.iter().copied().collect::<HashSet<_>>());
    state.prefixes = Arc::new(document.prefixes.clone());
    for (name, value) in &document.values {
        if state.settings.values().get(name.as_str()) == Some(value) {
            continue;
        }
        // Of another version, perhaps: no reason to lose connections.
        if let Err(refusal) = state.settings.set(name, value) {
            tracing::warn!("{name} = {value} of the state before is not taken up: {refusal}");
        }
    }
    if let Some([tcp_s, fin_s, udp_s]) = document.timeouts_s {
        let set = state.settings.set_timeouts(tcp_s, fin_s, udp_s);
        set.map_err(|refusal| contradiction(format!("timeouts: {refusal}")))?;
    }
    Ok(state)
}
