//! Starts a director from its options, runs it until it is asked to end, and takes all of
//! it down again: sockets before the program that feeds them, the tap device with its
//! last queue, the API's socket with its thread. What fails to start leaves nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use dataplane::connection::table::Table;
use dataplane::counters::Counters;
use dataplane::director::Director;
use dataplane::director::known::Glance;
use dataplane::frame::Frame;
use dataplane::hops::{NeighbourKey, PortId, Way};
use dataplane::port::afxdp::{self, AfXdpError, AfXdpOptions, AfXdpPort, QueueSetup, Transfer};
use dataplane::port::device::{Device, DeviceError};
use dataplane::port::steering::{Mode, Steering, SteeringError, SteeringOptions, SteeringRules};
use dataplane::port::{Frames, Port};
use dataplane::snapshot::Snapshot;
use dataplane::time::Ticks;
use dataplane::verdict::{Reason, Verdict};
use sched::table::Limits;

use super::api::{Api, ApiError, Socket, TableSource};
use super::control::{ControlThread, Orders, Plant, Setup};
use super::host::{Host, HostError, HostQueue};
use super::link;
use super::neighbours::{Mirror, Resolver};
use super::worker::{Handle, HostPort, Worker, WorkerOptions};

/// How many services and servers there may be. A worker's counters take 64 bytes each.
const LIMITS: Limits = Limits {
    services: 4096,
    servers: 131_072,
};

/// What a director is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ports' devices, by name.
    pub ports: Vec<String>,
    /// The API's socket.
    pub api: PathBuf,
    /// The workers' cores; the first ones there are where none are named.
    pub cores: Vec<usize>,
    /// Workers; as many as the port with the fewest queues has where none is named.
    pub queues: Option<u32>,
    /// The most IPv4 connections (an IPv6 one takes the room of two).
    pub connections: usize,
    /// Never sleep.
    pub busy_poll: bool,
    /// Do not ask for zero-copy mode.
    pub copy: bool,
    /// Refuse services whose address is not the host's.
    pub require_local: bool,
}

/// Why a director does not start, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not root.
    #[error("a director needs root (CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF): run it with sudo")]
    NotRoot,
    /// A port named twice.
    #[error("port {0} is named twice: name each once")]
    Twice(String),
    /// More workers than a port has queues.
    #[error(
        "{port} has {has} queues, fewer than the {wanted} workers: `ethtool -L {port} combined \
         {wanted}`, or --queues {has}"
    )]
    TooFewQueues {
        /// The port.
        port: String,
        /// Its queues.
        has: u32,
        /// The workers.
        wanted: u32,
    },
    /// Cores that do not suffice or do not exist.
    #[error("{wanted} workers but {has} cores to tie them to: name as many with --cores")]
    TooFewCores {
        /// The workers.
        wanted: usize,
        /// The cores.
        has: usize,
    },
    /// A port's device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The steering program.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// The sockets.
    #[error(transparent)]
    AfXdp(#[from] AfXdpError),
    /// The tap device.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The API's socket.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Threads, descriptors, rtnetlink.
    #[error("{what}: {error}")]
    System {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// A worker ended.
    #[error("worker {worker} ended: {reason}; the director ends with it")]
    Worker {
        /// Which.
        worker: usize,
        /// Why.
        reason: String,
    },
}

/// What ends a director.
#[derive(Clone, Debug)]
pub enum End {
    /// A signal, by its name.
    Signal(&'static str),
    /// A worker ended unasked.
    Worker(usize, String),
}

/// Runs a director until `ends` says so. `end` is for those parts of it that may.
pub fn run(options: &Options, end: Sender<End>, ends: &Receiver<End>) -> Result<(), StartError> {
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    let devices = devices(&options.ports)?;
    let cores = cores(options, workers(&devices, options.queues)?)?;
    // Each of these removes what it made when it is dropped, the last one first.
    let socket = Socket::bind(&options.api)?;
    let steering = Steering::attach(&devices, SteeringOptions::default())?;
    let (mut running, door) = Running::start(options, &devices, &cores, steering, end)?;
    // Frames are forwarded from here on. The API opens, and the director calls itself
    // ready, when the network can find the ports' addresses.
    let early = ends.recv_timeout(until(door.opens_at));
    let end = match early {
        Err(RecvTimeoutError::Timeout) => {
            running.open(door, socket)?;
            tracing::info!("{}", running.summary);
            ends.recv().ok()
        }
        early => early.ok(),
    };
    match end {
        Some(End::Signal(name)) => {
            tracing::info!("{name}: ending");
            Ok(())
        }
        Some(End::Worker(worker, reason)) => Err(StartError::Worker { worker, reason }),
        None => Ok(()),
    }
}

/// How long it is until a moment since the system's start.
fn until(moment: Duration) -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    moment.saturating_sub(now)
}

fn devices(names: &[String]) -> Result<Vec<Device>, StartError> {
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        let device = Device::find(name)?;
        if devices.iter().any(|known| known.index == device.index) {
            return Err(StartError::Twice(name.clone()));
        }
        devices.push(device);
    }
    Ok(devices)
}

/// As many as every port has queues for.
fn workers(devices: &[Device], wanted: Option<u32>) -> Result<usize, StartError> {
    let fewest = devices.iter().min_by_key(|device| device.queues);
    let Some(fewest) = fewest else {
        return Ok(0);
    };
    match wanted {
        Some(wanted) if wanted > fewest.queues => Err(StartError::TooFewQueues {
            port: fewest.name.clone(),
            has: fewest.queues,
            wanted,
        }),
        Some(wanted) => Ok(wanted as usize),
        None => {
            // More workers than cores only take turns: the queues are shared out instead.
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok((fewest.queues as usize).min(cores))
        }
    }
}

fn cores(options: &Options, workers: usize) -> Result<Vec<usize>, StartError> {
    let mut cores = options.cores.clone();
    if cores.is_empty() {
        let there = core_affinity::get_core_ids().unwrap_or_default();
        cores = there.into_iter().map(|core| core.id).collect();
    }
    if cores.len() < workers {
        return Err(StartError::TooFewCores {
            wanted: workers,
            has: cores.len(),
        });
    }
    cores.truncate(workers);
    Ok(cores)
}

/// A running director. The fields' order is the order in which they end.
struct Running {
    summary: String,
    _api: Api,
    control: Option<ControlThread>,
    workers: Vec<JoinHandle<()>>,
    _mirror: Mirror,
}

impl Running {
    fn start(
        options: &Options,
        devices: &[Device],
        cores: &[usize],
        mut steering: Steering,
        end: Sender<End>,
    ) -> Result<(Self, Door), StartError> {
        let (sender, views) = crossbeam_channel::unbounded();
        let indices = devices.iter().map(|device| device.index).collect();
        let (mirror, view) = Mirror::start(indices, sender).map_err(|e| system("rtnetlink", e))?;
        let mtu = devices.iter().map(|device| device.mtu).max().unwrap_or(0);
        let (host, host_queues) = Host::open(cores.len(), mtu)?;
        tracing::info!(
            "the host gets its own packets by the tap device {}",
            host.device
        );
        host.warnings
            .iter()
            .for_each(|text| tracing::warn!("{text}"));
        let queues = open_queues(options, devices, cores.len(), &mut steering)?;
        let summary = summary(options, &steering, &queues, cores);
        let seed = seed().map_err(|e| system("random numbers", e))?;
        let table = Arc::new(Table::new(options.connections, cores.len(), seed));
        let counters: Vec<Arc<Counters>> = cores
            .iter()
            .map(|_| {
                Arc::new(Counters::new(
                    LIMITS.services as usize,
                    LIMITS.servers as usize,
                ))
            })
            .collect();
        let opens_at = view.settled_at;
        let first = ControlThread::first_snapshot(&view);
        let (control_link, links) =
            link::link(cores.len(), first).map_err(|e| system("eventfd", e))?;
        let setup = Setup {
            limits: LIMITS,
            size: table.capacity() as u64,
            counters: counters.clone(),
            view,
            require_local: options.require_local,
        };
        let plant = LivePlant {
            steering,
            resolver: mirror.resolver(),
            end,
        };
        // From here on a failure drops `running`, which ends what was started.
        let mut running = Self {
            summary,
            _api: Api::idle(),
            control: None,
            workers: Vec::new(),
            _mirror: mirror,
        };
        let control = ControlThread::spawn(setup, control_link, views, Box::new(plant))
            .map_err(|e| system("starting control", e))?;
        let orders = control.orders();
        running.control = Some(control);
        let parts = links.into_iter().zip(queues).zip(host_queues).zip(cores);
        for (number, (((link, queues), host), &core)) in parts.enumerate() {
            let worker_options = WorkerOptions {
                core: Some(core),
                busy_poll: options.busy_poll,
            };
            let director = Director::new(table.clone(), number, counters[number].clone());
            let (frames, ports) = (queues.frames, queues.ports);
            let worker = Worker::new(worker_options, link, director, host, frames, ports);
            let thread = worker.spawn().map_err(|e| system("starting a worker", e))?;
            running.workers.push(thread);
        }
        let door = Door {
            orders,
            table,
            opens_at,
        };
        Ok((running, door))
    }

    fn open(&mut self, door: Door, socket: Socket) -> Result<(), StartError> {
        self._api = Api::serve(socket, door.orders, Arc::new(TableSource(door.table)))
            .map_err(|e| system("starting the API", e))?;
        Ok(())
    }
}

/// What the API is opened with.
struct Door {
    orders: Orders,
    table: Arc<Table>,
    /// Since the system's start.
    opens_at: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        self._api = Api::idle();
        // Control stops the workers, and lets go of the steering program with its plant.
        drop(self.control.take());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn system(what: &'static str, error: io::Error) -> StartError {
    StartError::System { what, error }
}

/// Keys the connection table's hash, so that nobody can aim at one of its buckets.
fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let file = std::fs::File::open("/dev/urandom")?;
    io::Read::read_exact(&mut &file, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// One worker's queues.
struct WorkerQueues {
    frames: Frames,
    ports: Vec<(PortId, AfXdpPort)>,
    transfer: Transfer,
}

/// Worker n serves queue n of every port, and every so many queues on, so that each queue
/// of each port is served.
fn open_queues(
    options: &Options,
    devices: &[Device],
    workers: usize,
    steering: &mut Steering,
) -> Result<Vec<WorkerQueues>, StartError> {
    let afxdp_options = AfXdpOptions {
        may_zero_copy: !options.copy,
        ..AfXdpOptions::default()
    };
    let mut opened = Vec::new();
    for worker in 0..workers {
        let mut setups = Vec::new();
        for (place, device) in devices.iter().enumerate() {
            for queue in (worker as u32..device.queues).step_by(workers) {
                setups.push(QueueSetup {
                    port: PortId(place as u8),
                    device,
                    queue,
                });
            }
        }
        let queues = afxdp::open(&setups, afxdp_options)?;
        let mut ports = Vec::new();
        for (setup, port) in setups.iter().zip(queues.ports) {
            if let Some(descriptor) = port.descriptor() {
                steering.register(setup.port, setup.queue, descriptor)?;
            }
            ports.push((setup.port, port));
        }
        opened.push(WorkerQueues {
            frames: queues.frames,
            ports,
            transfer: queues.transfer,
        });
    }
    Ok(opened)
}

/// What scripts wait for, and operators look at first.
fn summary(
    options: &Options,
    steering: &Steering,
    queues: &[WorkerQueues],
    cores: &[usize],
) -> String {
    let transfer = match queues.first().map(|queues| &queues.transfer) {
        Some(Transfer::ZeroCopy) => "zero-copy".to_owned(),
        Some(Transfer::Copy(why)) => format!("copy mode: {why}"),
        None => "no queue".to_owned(),
    };
    let port = |(device, mode): (&Device, &Mode)| match mode {
        Mode::Native => format!("{} (native XDP, {transfer})", device.name),
        Mode::Generic(why) => format!("{} (generic XDP as the driver refused: {why})", device.name),
    };
    let ports: Vec<String> = steering.modes().map(port).collect();
    let list: Vec<String> = cores.iter().map(usize::to_string).collect();
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    format!(
        "forwarding on {}; {} worker{} on core{} {}; API {}",
        ports.join(", "),
        cores.len(),
        plural(cores.len()),
        plural(cores.len()),
        list.join(","),
        options.api.display()
    )
}

/// Control's hands in a live director.
struct LivePlant {
    steering: Steering,
    resolver: Resolver,
    end: Sender<End>,
}

impl Plant for LivePlant {
    fn steer(&mut self, rules: &SteeringRules) -> Result<(), String> {
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
            ],
            Err(error) => {
                tracing::warn!("{error}");
                Vec::new()
            }
        }
    }

    fn worker_ended(&mut self, worker: usize, reason: &str) {
        let _ = self.end.send(End::Worker(worker, reason.to_owned()));
    }
}

impl HostPort for HostQueue {
    fn deliver(&mut self, frame: &mut Frame<'_>) -> Result<(), Reason> {
        HostQueue::deliver(self, frame)
    }
}

impl Handle for Director {
    fn handle(&mut self, snapshot: &Snapshot, now: Ticks, frame: &mut Frame<'_>) -> Verdict {
        Director::handle(self, snapshot, now, frame)
    }

    fn glance(&self, snapshot: &Snapshot, frame: &Frame<'_>) -> Glance {
        Director::glance(self, snapshot, frame)
    }

    fn reach(&self, glance: &mut Glance) {
        Director::reach(self, glance);
    }

    fn handle_glanced(
        &mut self,
        snapshot: &Snapshot,
        now: Ticks,
        frame: &mut Frame<'_>,
        glance: &Glance,
    ) -> Verdict {
        Director::handle_glanced(self, snapshot, now, frame, glance)
    }

    fn finish(&mut self, snapshot: &Snapshot, frame: &mut Frame<'_>, way: Way) -> Verdict {
        Director::finish(self, snapshot, frame, way)
    }

    fn next_piece(&mut self, piece: &mut Frame<'_>) -> bool {
        Director::next_piece(self, piece)
    }

    fn tidy(&mut self, snapshot: &Snapshot, now: Ticks) {
        Director::tidy(self, snapshot, now);
    }

    fn counters(&self) -> &Counters {
        Director::counters(self)
    }
}
