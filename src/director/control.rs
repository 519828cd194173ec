//! The one thread that owns all that operators change. It takes orders, reports from
//! workers, the host's routing and the time from channels, so nothing is locked.
//!
//! An edit goes: apply, build a snapshot, publish it, wait until every worker decides by
//! it, then steer. Only then is it answered: a command that has returned is in force.
//! Steering comes last both ways: frames of a new service are taken up only when workers
//! know it, and a removed one's as long as connections live on it.

mod state;
mod steering;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cli::api::{Batch, Commit, FwmarkRule, Outcome, ServerRow, ServiceRow, Table, Timeouts, Trial};
use crossbeam_channel::{Receiver, Sender, select};
use dataplane::address::bits;
use dataplane::counters::{Counters, Event};
use dataplane::hops::{NeighbourKey, Way};
use dataplane::port::steering::SteeringRules;
use dataplane::snapshot::Snapshot;
use dataplane::verdict::Reason;
use sched::command::{Command, Refusal};
use sched::server::RealServer;
use sched::service::{Family, Service, ServiceKey};
use sched::table::Limits;
use tokio::sync::oneshot;

use super::explain::World;
use super::link::{self, Report};
use super::neighbours::View;
use super::statistics::{ESTIMATE_S, Statistics};
use state::{Effect, State};
pub use trial::NotSettled;

/// How long workers have to adopt a snapshot. They do within a burst, or within their
/// longest sleep.
const ADOPTION: Duration = Duration::from_secs(1);
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
    /// The host's routing to begin with.
    pub view: View,
    /// Refuse services whose address is not the host's.
    pub require_local: bool,
}

/// An answer that may come late, or never when control has ended.
type Reply<T> = oneshot::Sender<T>;

/// What can be asked of control.
#[derive(Debug)]
pub enum Order {
    /// Carry out commands. The error names what is not in force.
    Run(Batch, Reply<Result<Outcome, String>>),
    /// Say what commands, all or none, would come to.
    Check(Batch, Reply<Outcome>),
    /// Carry out commands and take them back unless they are confirmed.
    Try(Trial, Reply<Result<Outcome, NotSettled>>),
    /// Say which commit waits for its confirmation.
    Waiting(Reply<Commit>),
    /// Confirm the commit that waits.
    Confirm(Reply<Result<Commit, NotSettled>>),
    /// Take back the commit that waits.
    TakeBack(Reply<Result<Commit, NotSettled>>),
    /// List services and servers.
    Table(Reply<Table>),
    /// List tunables.
    Tunables(Reply<BTreeMap<String, String>>),
    /// List firewall marks.
    Fwmarks(Reply<Vec<FwmarkRule>>),
    /// List counters.
    Counters(Reply<BTreeMap<String, u64>>),
    /// What an explanation is based on.
    World(Reply<World>),
    /// End.
    Stop,
}

/// Orders to control. Any thread may hold one.
#[derive(Clone, Debug)]
pub struct Orders(Sender<Order>);

impl Orders {
    /// A handle, and where its orders arrive.
    pub fn channel() -> (Self, Receiver<Order>) {
        let (sender, orders) = crossbeam_channel::unbounded();
        (Self(sender), orders)
    }

    /// Sends an order; false when control has ended.
    pub fn send(&self, order: Order) -> bool {
        self.0.send(order).is_ok()
    }
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

    /// Starts control over workers at [`ControlThread::first_snapshot`].
    pub fn spawn(
        setup: Setup,
        workers: link::Control,
        views: Views,
        plant: Box<dyn Plant>,
    ) -> io::Result<Self> {
        let (sender, orders) = Orders::channel();
        let mut control = Control::new(setup, workers, plant);
        let thread = std::thread::Builder::new()
            .name("lvx-control".into())
            .spawn(move || control.run(&orders, &views))?;
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
    size: u64,
    view: View,
    require_local: bool,
    workers: link::Control,
    plant: Box<dyn Plant>,
    generation: u64,
    snapshot: Arc<Snapshot>,
    steered: SteeringRules,
    watched: Vec<NeighbourKey>,
    begun: Instant,
    reaped_s: u64,
    stopping: bool,
    waiting: Option<trial::Waiting>,
}

impl Control {
    fn new(setup: Setup, workers: link::Control, plant: Box<dyn Plant>) -> Self {
        let snapshot = ControlThread::first_snapshot(&setup.view);
        Self {
            snapshot,
            state: State::new(setup.limits),
            statistics: Statistics::default(),
            counters: setup.counters,
            size: setup.size,
            view: setup.view,
            require_local: setup.require_local,
            workers,
            plant,
            generation: 1,
            steered: SteeringRules::default(),
            watched: Vec::new(),
            begun: Instant::now(),
            reaped_s: 0,
            stopping: false,
            waiting: None,
        }
    }

    fn run(&mut self, orders: &Receiver<Order>, views: &Views) {
        let reports = self.workers.reports();
        let ticks = crossbeam_channel::tick(Duration::from_secs(ESTIMATE_S));
        let _ = self.steer();
        while !self.stopping {
            let due = self.confirmation_due();
            select! {
                recv(due) -> _ => self.take_back_unconfirmed(),
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
                    self.view = views.try_iter().last().unwrap_or(view);
                    self.publish();
                    let _ = self.steer();
                },
                recv(ticks) -> _ => self.tick(),
            }
        }
    }

    fn obey(&mut self, order: Order, orders: &Receiver<Order>) {
        match order {
            Order::Run(batch, reply) => self.run_together(batch, reply, orders),
            Order::Check(batch, reply) => {
                let batch = Batch {
                    atomic: true,
                    ..batch
                };
                let now_s = self.now_s();
                let (refusals, _) =
                    self.state
                        .clone()
                        .run(&batch, now_s, &permit(&self.view, self.require_local));
                let _ = reply.send(Outcome { refusals });
            }
            Order::Try(trial, reply) => _ = reply.send(self.try_out(trial)),
            Order::Waiting(reply) => _ = reply.send(self.commit()),
            Order::Confirm(reply) => _ = reply.send(self.confirm()),
            Order::TakeBack(reply) => _ = reply.send(self.take_back()),
            Order::Table(reply) => _ = reply.send(self.table()),
            Order::Tunables(reply) => {
                let values = self.state.settings.values().iter();
                let owned = values.map(|(name, value)| ((*name).to_owned(), value.clone()));
                let _ = reply.send(owned.collect());
            }
            Order::Fwmarks(reply) => _ = reply.send(self.state.marks.rules()),
            Order::Counters(reply) => _ = reply.send(self.all_counters()),
            Order::World(reply) => {
                let _ = reply.send(World {
                    snapshot: self.snapshot.clone(),
                    steered: self.steered.clone(),
                });
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
        let mut answers = vec![(self.apply(&batch), reply)];
        let mut next = None;
        while answers.len() < TOGETHER_MAX {
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
        let in_force = if changed { self.enforce() } else { Ok(()) };
        for (outcome, reply) in answers {
            let _ = reply.send(in_force.clone().map(|()| outcome));
        }
        if let Some(order) = next {
            self.obey(order, orders);
        }
    }

    fn apply(&mut self, batch: &Batch) -> Outcome {
        let (permit, now_s) = (permit(&self.view, self.require_local), self.now_s());
        let (refusals, effects) = self.state.run(batch, now_s, &permit);
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
        added.for_each(|(command, _)| self.warn_of_foreign(command));
        Outcome { refusals }
    }

    fn now_s(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// IPVS takes any address, but packets to one that nobody answers for (ARP, neighbour
    /// discovery, a route) do not come.
    fn warn_of_foreign(&self, command: &Command) {
        if let Some(address) = foreign_address(&self.view, command) {
            tracing::warn!(
                "{address} is not an address of this host: unless clients' packets are routed \
                 here, add it (`ip addr add {address} dev DEV`)"
            );
        }
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
        self.generation += 1;
        let table = &self.state.table;
        let snapshot = Snapshot::new(
            self.generation,
            table.services(),
            table.servers().map(|(server, _)| server),
            &self.state.marks.rules(),
            self.view.hops.clone(),
            self.state.settings.tunables().clone(),
        );
        self.snapshot = Arc::new(snapshot);
        self.workers.publish(self.snapshot.clone());
        let keys = self.server_neighbours();
        if keys != self.watched {
            self.plant.watch(keys.clone());
            self.watched = keys;
        }
    }

    fn server_neighbours(&self) -> Vec<NeighbourKey> {
        let key = |server: &RealServer| {
            let address = server.key.address;
            self.view.hops.neighbour(Family::of(address), bits(address))
        };
        let servers = self.state.table.servers();
        let mut keys: Vec<_> = servers.filter_map(|(server, _)| key(server)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn steer(&mut self) -> Result<(), String> {
        let rules = steering::rules(&self.state, &self.view);
        if rules == self.steered {
            return Ok(());
        }
        match self.plant.steer(&rules) {
            Ok(()) => {
                self.steered = rules;
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
        let now_s = self.now_s();
        if now_s - self.reaped_s >= REAP_S {
            self.reaped_s = now_s;
            if self.state.reap(now_s) {
                self.publish();
            }
        }
        // What removed servers still needed may have ended.
        let _ = self.steer();
    }

    fn table(&self) -> Table {
        let tunables = self.state.settings.tunables();
        Table {
            version: env!("CARGO_PKG_VERSION").into(),
            size: self.size,
            timeouts: Timeouts {
                tcp_s: tunables.timeout_tcp_s,
                tcp_fin_s: tunables.timeout_tcp_fin_s,
                udp_s: tunables.timeout_udp_s,
            },
            daemons: Vec::new(),
            services: self
                .state
                .table
                .services()
                .map(|s| self.service_row(s))
                .collect(),
        }
    }

    fn service_row(&self, service: &Service) -> ServiceRow {
        let (stats, rates) = self.statistics.service(service.id);
        ServiceRow {
            service: service.key,
            spec: service.spec.clone(),
            stats,
            rates,
            servers: service.servers.iter().map(|s| self.server_row(s)).collect(),
        }
    }

    fn server_row(&self, server: &RealServer) -> ServerRow {
        use std::sync::atomic::Ordering::Relaxed;
        let (stats, rates) = self.statistics.server(server.id);
        let address = server.key.address;
        let way = self.view.hops.lookup(Family::of(address), bits(address));
        ServerRow {
            server: server.key,
            spec: server.spec,
            local: way == Way::Local,
            active: server.load.active.load(Relaxed),
            inactive: server.load.inactive.load(Relaxed),
            persistent: server.load.persistent.load(Relaxed),
            stats,
            rates,
        }
    }

    fn all_counters(&mut self) -> BTreeMap<String, u64> {
        let sum = |count: &dyn Fn(&Counters) -> u64| self.counters.iter().map(|c| count(c)).sum();
        let mut all = BTreeMap::new();
        for &reason in Reason::ALL {
            all.insert(format!("drop_{}", reason.name()), sum(&|c| c.drops(reason)));
        }
        for &event in Event::ALL {
            all.insert(event.name().to_owned(), sum(&|c| c.events(event)));
        }
        all.extend(self.plant.counters());
        all
    }
}

/// The address of a service to add, if it is not the host's.
/// Which commands are carried out: all, or with `require_local` none that adds a service
/// on an address that is not the host's.
fn permit(view: &View, require_local: bool) -> impl Fn(&Command) -> Result<(), Refusal> {
    move |command| match foreign_address(view, command) {
        Some(address) if require_local => Err(Refusal::NotLocal { address }),
        _ => Ok(()),
    }
}

fn foreign_address(view: &View, command: &Command) -> Option<IpAddr> {
    let Command::AddService { service, .. } = command else {
        return None;
    };
    let ServiceKey::Address { address, .. } = *service else {
        return None;
    };
    let way = view.hops.lookup(Family::of(address), bits(address));
    (way != Way::Local).then_some(address)
}

fn has_effect(outcome: &Outcome) -> bool {
    outcome.refusals.iter().any(Option::is_none)
}
