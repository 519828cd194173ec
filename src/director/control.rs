//! The one thread that owns all that operators change. It takes orders, reports from
//! workers, the host's routing and the time from channels, so nothing is locked.
//!
//! An edit goes: apply, build a snapshot, publish it, wait until every worker decides by
//! it, then steer. Only then is it answered: a command that has returned is in force.
//! Steering comes last both ways: frames of a new service are taken up only when workers
//! know it, and a removed one's as long as connections live on it.

mod listings;
pub mod look;
mod orders;
mod ports;
pub mod state;
mod steering;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cli::api::{Batch, Outcome, PlacesRow};
use crossbeam_channel::{Receiver, select};
use dataplane::address::bits;
use dataplane::counters::Counters;
use dataplane::hops::{Hops, NeighbourKey, PortId, Way};
use dataplane::port::ONE_CHUNK_MTU;
use dataplane::port::steering::SteeringRules;
use dataplane::snapshot::Snapshot;
use sched::command::{Command, Limited, Refusal};
use sched::service::{Family, ServiceKey};
use sched::table::Limits;

use super::clock;
use super::explain::World;
use super::link::{self, Report};
use super::neighbours::View;
use super::neighbours::links::PortFacts;
use super::privilege;
use super::state_dir::document::SavedWaiting;
use super::state_dir::journal::{Journal, Now};
use super::statistics::{ESTIMATE_S, Statistics};
pub use orders::{Inbox, Order, Orders};
use orders::{Pulse, Reply};
use ports::TooLong;
use state::{Effect, State};
pub use trial::NotSettled;

/// How long workers have to adopt a snapshot. They do within a burst, or within their
/// longest sleep.
const ADOPTION: Duration = Duration::from_secs(1);
/// How often the room in the connection table is looked at, s (Linux's `DEFENSE_TIMER_PERIOD`).
const DEFEND_S: u64 = 1;
/// How often removed servers are looked at, s.
const REAP_S: u64 = 10;
/// Batches that wait are carried out together, so many at most.
const TOGETHER_MAX: usize = 64;

/// What control orders from the rest of the process.
pub trait Plant: Send {
    /// Lets the steering program look for these frames.
    fn steer(&mut self, rules: &SteeringRules) -> Result<(), String>;
    /// Has the host ask for a neighbour.
    fn resolve(&mut self, key: NeighbourKey);
    /// Has the host keep these neighbours known.
    fn watch(&mut self, keys: Vec<NeighbourKey>);
    /// Counters beside the workers' own, name and count.
    fn counters(&mut self) -> Vec<(String, u64)>;
    /// Pages of 4096 bytes of the connection table that are free, and all of them.
    fn memory_pages(&self) -> (u64, u64);
    /// Lets go of a port whose device has gone. A snapshot is published afterwards.
    fn port_gone(&mut self, port: PortId);
    /// Makes a port of the device with this index, in the place of one that has gone. A
    /// snapshot is published afterwards.
    fn port_back(&mut self, port: PortId, index: u32) -> Result<(), String>;
    /// Takes up the queues that a port's device has now. How many it had and has, where that is
    /// news: a snapshot is published afterwards.
    fn follow_queues(
        &mut self,
        _: PortId,
        _: (u32, &PortFacts),
    ) -> Result<Option<(u32, u32)>, String> {
        Ok(None)
    }
    /// Says by which other devices a port's frames come now.
    fn set_feeders(&mut self, _: PortId, _: &[u32]) {}
    /// Why a port's program does not run in its driver; none where it does.
    fn generic_because(&self, _: PortId) -> Option<String> {
        None
    }
    /// The largest packets that the open queues take.
    fn largest_mtu(&self) -> u32 {
        ONE_CHUNK_MTU
    }
    /// Lets go of the workers' sockets: another process goes on with them, or none.
    fn release_ports(&mut self);
    /// The connection table's places.
    fn places(&self) -> PlacesRow;
    /// A worker has ended without being asked to: the process had better end.
    fn worker_ended(&mut self, worker: usize, reason: &str);
}

/// What control is made with.
#[derive(Debug)]
pub struct Setup {
    /// How many services and servers there may be; the counters have this many.
    pub limits: Limits,
    /// The connection table's size, as listings show it.
    pub size: u64,
    /// Each worker's counters.
    pub counters: Vec<Arc<Counters>>,
    /// Each worker's core.
    pub cores: Vec<usize>,
    /// The ports' devices, by port number.
    pub ports: Vec<String>,
    /// Those of them that were absent when the queues were opened.
    pub absent: Vec<PortId>,
    /// The host's routing to begin with.
    pub view: View,
    /// Refuse services whose address is not the host's.
    pub require_local: bool,
    /// What an earlier process left.
    pub resume: Resume,
}

/// What control goes on from, and where it writes down what changes.
#[derive(Debug, Default)]
pub struct Resume {
    /// Services and so on; none where there is nothing yet.
    pub state: Option<State>,
    /// The counters' bases.
    pub statistics: Statistics,
    /// The commit that waits for its confirmation.
    pub waiting: Option<SavedWaiting>,
    /// The document's writer; none where the state is not kept.
    pub journal: Option<Journal>,
}

/// Control's thread. Ends when dropped.
#[derive(Debug)]
pub struct ControlThread {
    orders: Orders,
    thread: Option<JoinHandle<()>>,
}

/// A channel for views, which may be sent before control runs.
pub type Views = Receiver<View>;

impl ControlThread {
    /// The first snapshot, which workers begin with: no services.
    pub fn first_snapshot(view: &View) -> Arc<Snapshot> {
        let none = Default::default();
        Arc::new(Snapshot::new(1, [], [], &[], view.hops.clone(), none))
    }

    /// As [`ControlThread::first_snapshot`], for control that goes on from this state.
    pub fn resumed_snapshot(view: &View, state: &State) -> Arc<Snapshot> {
        Arc::new(state.snapshot(1, view))
    }

    /// What the steering program is to look for in this state.
    pub fn rules(view: &View, state: &State) -> SteeringRules {
        steering::rules(state, view)
    }

    /// Starts control over workers at [`ControlThread::first_snapshot`].
    pub fn spawn(
        setup: Setup,
        workers: link::Control,
        views: Views,
        plant: Box<dyn Plant>,
    ) -> io::Result<Self> {
        let (sender, inbox) = Orders::channel();
        let Inbox { orders, pulses } = inbox;
        let mut control = Control::new(setup, workers, plant);
        control.pulses = pulses;
        let thread = std::thread::Builder::new()
            .name("lvx-control".into())
            .spawn(move || {
                privilege::keep(privilege::CONTROL);
                control.run(&orders, &views)
            })?;
        Ok(Self {
            orders: sender,
            thread: Some(thread),
        })
    }

    /// A handle to order with.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Control {
    state: State,
    statistics: Statistics,
    counters: Vec<Arc<Counters>>,
    cores: Vec<usize>,
    ports: Vec<String>,
    port_states: Vec<ports::Port>,
    size: u64,
    view: View,
    require_local: bool,
    workers: link::Control,
    plant: Box<dyn Plant>,
    generation: u64,
    snapshot: Arc<Snapshot>,
    steered: Arc<SteeringRules>,
    watched: Vec<NeighbourKey>,
    reaped_s: u64,
    stopping: bool,
    waiting: Option<trial::Waiting>,
    journal: Option<Journal>,
    /// Something is to be written down.
    unsaved: bool,
    /// Frames that were too long, when that was last looked at.
    too_long: TooLong,
    /// Commands that were refused because so many there were already.
    limited: BTreeMap<Limited, u64>,
    pulses: Receiver<Pulse>,
    /// When this process's control began, ns since the system's start.
    begun_ns: u64,
}

impl Control {
    fn new(setup: Setup, workers: link::Control, plant: Box<dyn Plant>) -> Self {
        let Resume {
            state,
            statistics,
            waiting,
            journal,
        } = setup.resume;
        let state = state.unwrap_or_else(|| State::new(setup.limits));
        let ports = (0..).map(PortId).zip(&setup.view.ports);
        let first = |(id, now)| ports::Port::first(now, !setup.absent.contains(&id));
        let port_states = ports.map(first).collect();
        Self {
            snapshot: ControlThread::resumed_snapshot(&setup.view, &state),
            state,
            statistics,
            counters: setup.counters,
            cores: setup.cores,
            ports: setup.ports,
            port_states,
            size: setup.size,
            view: setup.view,
            require_local: setup.require_local,
            workers,
            plant,
            generation: 1,
            steered: Arc::default(),
            watched: Vec::new(),
            reaped_s: clock::monotonic().as_secs(),
            stopping: false,
            waiting: waiting.map(trial::Waiting::resumed),
            // What the start itself noted.
            unsaved: journal.as_ref().is_some_and(Journal::wants_all),
            limited: BTreeMap::new(),
            too_long: TooLong::default(),
            pulses: crossbeam_channel::never(),
            begun_ns: clock::monotonic_ns(),
            journal,
        }
    }

    fn run(&mut self, orders: &Receiver<Order>, views: &Views) {
        let reports = self.workers.reports();
        let pulses = self.pulses.clone();
        let ticks = crossbeam_channel::tick(Duration::from_secs(ESTIMATE_S));
        let looks = crossbeam_channel::tick(Duration::from_secs(DEFEND_S));
        let _ = self.steer();
        self.watch();
        // A device may have gone while the director started.
        if self.note_gone() {
            self.publish();
        }
        // Or have come.
        self.open_returned();
        self.say_modes();
        self.look_at_ports();
        while !self.stopping {
            let due = self.confirmation_due();
            select! {
                recv(due) -> _ => self.take_back_unconfirmed(),
                recv(pulses) -> pulse => match pulse {
                    Ok(pulse) => _ = pulse.send(self.workers.silent()),
                    Err(_) => return,
                },
                recv(orders) -> order => match order {
                    Ok(order) => self.obey(order, orders),
                    Err(_) => return,
                },
                recv(reports) -> report => if let Ok(report) = report {
                    self.workers.note(&report);
                    self.hear(report);
                },
                recv(views) -> view => if let Ok(view) = view {
                    // Only the newest counts.
                    self.look_around(views.try_iter().last().unwrap_or(view));
                },
                recv(ticks) -> _ => self.tick(),
                recv(looks) -> _ => {
                    self.defend();
                    self.open_returned();
                    self.follow_queues();
                    self.look_for_long_frames();
                }
            }
        }
    }

    fn obey(&mut self, order: Order, orders: &Receiver<Order>) {
        match order {
            Order::Run(batch, reply) => self.run_together(batch, reply, orders),
            Order::Try(trial, reply) => _ = reply.send(self.try_out(trial)),
            Order::Confirm(reply) => _ = reply.send(self.confirm()),
            Order::TakeBack(reply) => _ = reply.send(self.take_back()),
            Order::Look(reply) => _ = reply.send(self.look()),
            Order::Counters(reply) => _ = reply.send(self.all_counters()),
            Order::Sample(reply) => _ = reply.send(self.sample()),
            Order::World(reply) => {
                let _ = reply.send(World {
                    snapshot: self.snapshot.clone(),
                    steered: self.steered.clone(),
                    ports: self.ports.clone(),
                });
            }
            Order::HandOver(reply) => {
                let _ = self.save();
                let servers = self.state.table.servers();
                let _ = reply.send(servers.map(|(server, _)| server.clone()).collect());
                self.plant.release_ports();
                self.workers.keep();
                self.workers.stop();
                self.stopping = true;
            }
            Order::Stop => self.stopping = true,
        }
    }

    /// Carries out a batch and those that wait behind it with one snapshot.
    fn run_together(
        &mut self,
        batch: Batch,
        reply: Reply<Result<Outcome, String>>,
        orders: &Receiver<Order>,
    ) {
        let before = self.state.clone();
        let mut answers = vec![(self.apply(&batch), reply)];
        let mut next = None;
        while answers.len() < TOGETHER_MAX {
            self.answer_pulses();
            match orders.try_recv() {
                Ok(Order::Run(batch, reply)) => answers.push((self.apply(&batch), reply)),
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let changed = answers.iter().any(|(outcome, _)| has_effect(outcome));
        let in_force = match changed {
            true => self.save_or_undo(before).and_then(|()| self.enforce()),
            false => Ok(()),
        };
        for (outcome, reply) in answers {
            let _ = reply.send(in_force.clone().map(|()| outcome));
        }
        if let Some(order) = next {
            self.obey(order, orders);
        }
    }

    fn answer_pulses(&mut self) {
        while let Ok(pulse) = self.pulses.try_recv() {
            let _ = pulse.send(self.workers.silent());
        }
    }

    fn apply(&mut self, batch: &Batch) -> Outcome {
        let permit = permit(&self.view.hops, self.require_local);
        let (refusals, effects) = self.state.run(batch, clock::monotonic().as_secs(), &permit);
        self.unsaved = true;
        for refusal in refusals.iter().flatten() {
            if let Refusal::Limit { what, .. } = refusal {
                *self.limited.entry(*what).or_default() += 1;
            }
        }
        for effect in effects {
            match effect {
                Effect::StartService(id) => self.statistics.start_service(id, &self.counters),
                Effect::StartServer(id) => self.statistics.start_server(id, &self.counters),
                Effect::ZeroService(id) => self.statistics.zero_service(id),
                Effect::ZeroServer(id) => self.statistics.zero_server(id),
            }
        }
        let in_force = batch.commands.iter().zip(&refusals);
        let added = in_force.filter(|(_, refusal)| refusal.is_none());
        let hops = &self.view.hops;
        warn_of_foreign(
            &added
                .filter_map(|(c, _)| foreign_address(hops, c))
                .collect(),
        );
        Outcome { refusals }
    }

    /// Puts the state in force: workers first, then the steering program.
    fn enforce(&mut self) -> Result<(), String> {
        self.publish();
        let mut heard = Vec::new();
        let generation = self.generation;
        let adopted = self
            .workers
            .await_adoption(generation, ADOPTION, |report| heard.push(report));
        heard.into_iter().for_each(|report| self.hear(report));
        let steered = self.steer();
        if adopted {
            return steered;
        }
        let laggards = self.workers.laggards(generation);
        let error = format!(
            "the change is applied, but worker {laggards:?} has not taken it up within {} s: it \
             hangs or its core is starved",
            ADOPTION.as_secs()
        );
        tracing::error!("{error}");
        Err(error)
    }

    fn publish(&mut self) {
        // First: connections must not name servers that a next process would not know. What
        // operators did not ask for is in force all the same.
        let _ = self.save();
        self.generation += 1;
        let table = &self.state.table;
        let snapshot = self.snapshot.next(
            self.generation,
            table.services(),
            table.servers().map(|(server, _)| server),
            &self.state.marks.rules(),
            self.view.hops.clone(),
            self.state.settings.tunables(),
        );
        let is_same = snapshot.has_ends_of(&self.snapshot);
        self.snapshot = Arc::new(snapshot);
        self.workers.publish(self.snapshot.clone());
        if !is_same {
            self.watch();
        }
    }

    /// Writes down what operators changed; where that fails, they did not: what is acknowledged
    /// outlives the process.
    fn save_or_undo(&mut self, before: State) -> Result<(), String> {
        self.save().map_err(|error| {
            self.state = before;
            format!("nothing is changed, since the state cannot be saved ({error}): make room")
        })
    }

    /// Writes down what changed.
    fn save(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.unsaved) {
            return Ok(());
        }
        let mut bases = self.statistics.take_changed();
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if journal.wants_all() {
            let table = &self.state.table;
            let services = table.services().map(|service| service.id);
            let servers = table.servers().map(|(server, _)| server.id);
            bases = self.statistics.bases(services, servers);
        }
        let saved = journal.save(Now {
            state: &self.state,
            bases: &bases,
            waiting: self.waiting.as_ref().map(trial::Waiting::saved),
        });
        // Again with the next tick: there may be room then.
        self.unsaved = journal.is_behind();
        saved
    }

    fn watch(&mut self) {
        let keys = self.server_neighbours();
        if keys != self.watched {
            self.plant.watch(keys.clone());
            self.watched = keys;
        }
    }

    fn server_neighbours(&self) -> Vec<NeighbourKey> {
        let addresses = self.snapshot.server_addresses();
        let hops = &self.snapshot.hops;
        let mut keys: Vec<_> = addresses
            .filter_map(|(family, address)| hops.neighbour(*family, *address))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn steer(&mut self) -> Result<(), String> {
        let rules = steering::rules(&self.state, &self.view);
        if rules == *self.steered {
            return Ok(());
        }
        match self.plant.steer(&rules) {
            Ok(()) => {
                self.steered = Arc::new(rules);
                Ok(())
            }
            Err(error) => {
                tracing::error!("{error}");
                Err(error)
            }
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Adopted { .. } => {}
            Report::Resolve(key) => self.plant.resolve(key),
            Report::NotPinned { worker, core } => tracing::warn!(
                "worker {worker} could not be tied to core {core} and runs where Linux puts it"
            ),
            Report::Stopped { worker, reason } => {
                tracing::error!("worker {worker} has ended: {reason}");
                self.plant.worker_ended(worker, &reason);
            }
        }
    }

    fn tick(&mut self) {
        let table = &self.state.table;
        if self.state.settings.estimates() {
            let services = table.services().map(|service| service.id);
            // Removed ones rest: what they counted last shows once they are added again.
            let servers = table.servers().map(|(server, _)| server);
            let servers = servers.filter(|s| s.available).map(|s| s.id);
            self.statistics.estimate(services, servers, &self.counters);
        }
        let now_s = clock::monotonic().as_secs();
        if now_s - self.reaped_s >= REAP_S {
            self.reaped_s = now_s;
            if self.state.reap(now_s) {
                self.unsaved = true;
                self.publish();
            }
        }
        let _ = self.save();
        // What removed servers still needed may have ended.
        let _ = self.steer();
    }

    fn defend(&mut self) {
        let (left, all) = self.plant.memory_pages();
        if self.state.settings.defend(left, all) {
            self.publish();
        }
    }
}

/// Which commands are carried out: all, or with `require_local` none that adds a service
/// on an address that is not the host's.
fn permit(hops: &Hops, require_local: bool) -> impl Fn(&Command) -> Result<(), Refusal> {
    move |command| match foreign_address(hops, command) {
        Some(address) if require_local => Err(Refusal::NotLocal { address }),
        _ => Ok(()),
    }
}

/// IPVS takes any address, but packets to one that nobody answers for (ARP, neighbour
/// discovery, a route) do not come. One line for a batch, however many they are.
fn warn_of_foreign(addresses: &BTreeSet<IpAddr>) {
    let Some(address) = addresses.first() else {
        return;
    };
    match addresses.len() - 1 {
        0 => tracing::warn!(
            "{address} is not an address of this host: unless clients' packets are routed \
             here, add it (`ip addr add {address} dev DEV`)"
        ),
        more => tracing::warn!(
            "{address} and {more} more are not addresses of this host: unless clients' packets \
             are routed here, add them (`ip addr add {address} dev DEV`)"
        ),
    }
}

/// The address of a service to add, if it is not the host's.
fn foreign_address(hops: &Hops, command: &Command) -> Option<IpAddr> {
    let Command::AddService { service, .. } = command else {
        return None;
    };
    let ServiceKey::Address { address, .. } = *service else {
        return None;
    };
    let way = hops.lookup(Family::of(address), bits(address));
    (way != Way::Local).then_some(address)
}

fn has_effect(outcome: &Outcome) -> bool {
    outcome.refusals.iter().any(Option::is_none)
}
