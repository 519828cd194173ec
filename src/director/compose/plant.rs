//! Control's hands in a live director.

use std::sync::Arc;

use cli::api::PlacesRow;
use crossbeam_channel::Sender;
use dataplane::connection::table::Table;
use dataplane::hops::{NeighbourKey, PortId};
use dataplane::port::steering::{Mode, Steering, SteeringRules};

use super::End;
use crate::director::control::Plant;
use crate::director::neighbours::Resolver;
use crate::director::neighbours::links::PortFacts;
use crate::director::ports::Ports;

/// What a connection takes of the table, all counted, bytes (see docs/decisions).
const ENTRY_BYTES: usize = 80;
/// What `amemthresh` counts in.
const PAGE_BYTES: usize = 4096;

/// What control does with its hands.
pub(super) struct LivePlant {
    // Before the program that feeds them.
    pub(super) ports: Ports,
    pub(super) steering: Steering,
    pub(super) resolver: Resolver,
    pub(super) table: Arc<Table>,
    pub(super) end: Sender<End>,
}

impl Plant for LivePlant {
    fn steer(&mut self, rules: &SteeringRules) -> Result<(), String> {
        self.ports.offer.lock().steered_times += 1;
        self.steering.set(rules).map_err(|error| error.to_string())
    }

    fn resolve(&mut self, key: NeighbourKey) {
        self.resolver.resolve(key);
    }

    fn watch(&mut self, keys: Vec<NeighbourKey>) {
        self.resolver.watch(keys);
    }

    fn counters(&mut self) -> Vec<(String, u64)> {
        match self.steering.counters() {
            Ok(counters) => vec![
                ("steering_passed".into(), counters.passed),
                ("steering_redirected".into(), counters.redirected),
                ("steering_dropped".into(), counters.dropped),
                ("steering_denied".into(), counters.denied),
            ],
            Err(error) => {
                tracing::warn!("{error}");
                Vec::new()
            }
        }
    }

    fn memory_pages(&self) -> (u64, u64) {
        let all = self.table.capacity();
        let left = all.saturating_sub(self.table.taken());
        let pages = |entries: usize| (entries * ENTRY_BYTES / PAGE_BYTES) as u64;
        (pages(left), pages(all))
    }

    fn port_gone(&mut self, port: PortId) {
        self.ports.gone(port, &mut self.steering);
    }

    fn port_back(&mut self, port: PortId, index: u32) -> Result<(), String> {
        self.ports.back(port, index, &mut self.steering)
    }

    fn follow_queues(
        &mut self,
        port: PortId,
        device: (u32, &PortFacts),
    ) -> Result<Option<(u32, u32)>, String> {
        self.ports.follow_queues(port, device, &mut self.steering)
    }

    fn set_feeders(&mut self, port: PortId, feeders: &[u32]) {
        self.steering.set_feeders(port, feeders);
    }

    fn generic_because(&self, port: PortId) -> Option<String> {
        match self.steering.modes().nth(usize::from(port.0)) {
            Some((_, Mode::Generic(why))) => Some(why.clone()),
            _ => None,
        }
    }

    fn largest_mtu(&self) -> u32 {
        self.ports.largest_mtu()
    }

    fn release_ports(&mut self) {
        self.ports.release();
    }

    fn places(&self) -> PlacesRow {
        PlacesRow {
            capacity: self.table.capacity() as u64,
            taken: self.table.taken() as u64,
            reached: u64::from(self.table.high_water()),
        }
    }

    fn worker_ended(&mut self, worker: usize, reason: &str) {
        let _ = self.end.send(End::Worker(worker, reason.to_owned()));
    }
}
