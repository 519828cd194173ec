//! Starts a director from its options, runs it until it is asked to end, and takes all of
//! it down again: sockets before the program that feeds them, the tap device with its
//! last queue, the API's socket with its thread. What fails to start leaves nothing.

mod error;
mod machine;
mod plant;
mod queues;
mod seams;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cli::config::Config;
use crossbeam_channel::{Receiver, Sender};
use dataplane::connection::table::Table;
use dataplane::director::Director;
use dataplane::hops::PortId;
use dataplane::port::Frames;
use dataplane::port::afxdp::{self, AfXdpPort};
use dataplane::port::device::Device;
use dataplane::port::steering::{Mode, Steering, SteeringOptions};
use parking_lot::Mutex;
use sched::server::RealServer;
use sched::table::Limits;
use sd_notify::NotifyState;

pub use error::StartError;

use super::api::{Api, Groups, Socket, TableSource};
use super::attend::{self, Attendant};
use super::clock;
use super::control::{ControlThread, Order, Orders, Setup};
use super::fault;
use super::hand_over::{self, Handed, Legacy, Offer, Predecessor, Request, Waiting};
use super::host::{self, Host, HostQueue};
use super::housekeeping;
use super::link;
use super::neighbours::Mirror;
use super::ports::Ports;
use super::privilege;
use super::successor::{Launch, Successor};
use super::take_up::{Claim, Ground, Size, StateOptions};
use super::worker::plugs::plug_board;
use super::worker::{Remains, Worker, WorkerOptions};
use error::system;
use machine::{Surroundings, cores, devices, seed, workers};
use plant::LivePlant;
use queues::{
    WorkerQueues, absentees, anchors, joined, locked_bytes, open_queues, open_queues_of,
    resume_queues,
};

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
    /// Whose members may use it.
    pub groups: Groups,
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
    /// The configuration file, to be taken up again on SIGHUP.
    pub file: Option<PathBuf>,
    /// What it said.
    pub config: Option<Config>,
    /// Where the state is that the next process takes up.
    pub state: StateOptions,
}

/// What ends a director.
#[derive(Clone, Debug)]
pub enum End {
    /// A signal, by its name.
    Signal(&'static str),
    /// SIGHUP: not an end, but what comes the same way.
    Reload,
    /// SIGUSR2: another process is to be started, which takes over.
    Upgrade,
    /// It ended, and how.
    SuccessorEnded(String),
    /// A worker ended unasked.
    Worker(usize, String),
    /// Another process is to go on.
    HandOver(Arc<Request>),
}

/// How a director ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// In good order.
    Asked,
    /// Another process goes on.
    HandedOver,
    /// Another process was to go on and did not: this one starts again.
    StartAgain,
}

/// Runs a director until `ends` says so. `end` is for those parts of it that may.
pub fn run(options: &Options, end: Sender<End>, ends: &Receiver<End>) -> Result<(), StartError> {
    let begun = Instant::now();
    let launch = Launch::of_this_process().map_err(|e| system("finding this program", e))?;
    let devices = devices(options)?;
    let cores = cores(options, workers(&devices, options.queues)?)?;
    // Both before anything is made.
    privilege::check(locked_bytes(&devices))?;
    host::check()?;
    housekeeping::keep_off(&cores);
    // Each of these removes what it made when it is dropped, the last one first.
    let mut predecessor = None;
    if options.state.take_over {
        let found = Predecessor::find(&options.state.folder(&options.api));
        predecessor = found.map_err(|error| StartError::TakeOver(error.to_string()))?;
        if predecessor.is_none() {
            tracing::info!("no director is there to take over from: starting as usual");
        }
    }
    let (mut socket, mut claim) = match &predecessor {
        Some(_) => (
            Socket::bind_beside(&options.api)?,
            Some(Claim::follow(&options.state, &options.api)?),
        ),
        None => (
            Socket::bind(&options.api)?,
            Claim::stake(&options.state, &options.api)?,
        ),
    };
    socket.admit(options.groups)?;
    if let Some(claim) = &mut claim {
        claim.note_ports(&devices);
    }
    let was_warm = predecessor.is_some() || claim.as_ref().is_some_and(Claim::is_warm);
    let place = Place {
        options,
        devices: &devices,
        cores: &cores,
        begun,
        launch,
    };
    let served = serve(&place, (end, ends), &mut claim, socket, predecessor);
    if matches!(served, Ok(Ended::StartAgain)) {
        if let Some(claim) = &claim {
            claim.keep();
        }
        drop(claim);
        let error = place.launch.start_again();
        return Err(system("starting again", error));
    }
    match claim {
        // Without these, what was taken up would be lost; a supervisor may start it again.
        Some(claim) if matches!(served, Err(StartError::Worker { .. })) => claim.keep(),
        Some(_) if matches!(served, Ok(Ended::HandedOver)) => {}
        Some(_) if served.is_err() && was_warm => {}
        Some(claim) => claim.end(),
        None => {}
    }
    served.map(|_| ())
}

/// What a director is started with, and where.
struct Place<'a> {
    options: &'a Options,
    devices: &'a [Device],
    cores: &'a [usize],
    begun: Instant,
    launch: Launch,
}

fn serve(
    place: &Place<'_>,
    (end, ends): (Sender<End>, &Receiver<End>),
    claim: &mut Option<Claim>,
    mut socket: Socket,
    predecessor: Option<Predecessor>,
) -> Result<Ended, StartError> {
    let steering_options = SteeringOptions {
        takes_frags: queues::are_jumbo(place.devices),
        ..SteeringOptions::default()
    };
    let steering = match claim.as_ref().and_then(Claim::pins) {
        Some(pins) => Steering::attach_pinned(place.devices, steering_options, pins)?.0,
        None => Steering::attach(place.devices, steering_options)?,
    };
    let takes_over = predecessor.is_some();
    let (ender, upgrader) = (end.clone(), end.clone());
    let (mut running, door, waiting) = Running::start(place, steering, end, claim, predecessor)?;
    tracing::info!("{}", running.begun);
    if takes_over && let Err(error) = socket.take_place(&place.options.api) {
        tracing::error!("{error}: this director forwards, but nobody can ask it anything");
    }
    // Without pins the ports would not be free for another process.
    let has_pins = claim.as_ref().is_some_and(|claim| claim.pins().is_some());
    let can_hand_over = has_pins && door.is_kept;
    if let Some(claim) = claim
        && can_hand_over
        && let Err(error) = hand_over::listen(claim.folder(), running.offer.clone(), ender)
    {
        tracing::error!("the hand-over socket: {error}: no process can take over from this one");
    }
    // From here on nothing ends this process that the old one could make good.
    if let Some(waiting) = waiting {
        waiting.let_go();
    }
    let file = place.options.file.clone();
    let successor = can_hand_over.then(|| Successor::new(place.launch.clone(), upgrader));
    let attendant = Attendant::new(door.orders.clone(), file, place.options.config.as_ref());
    let mut attendant = attendant.with_successor(successor);
    attendant.say_alive();
    if let Some(config) = &place.options.config {
        let file = place.options.file.clone().unwrap_or_default();
        match attendant.enforce(config) {
            // What was taken over is worth more than the file: nobody else forwards now.
            Err(reason) if takes_over => attend::refuse(&file, &reason),
            Err(reason) => return Err(StartError::Config { file, reason }),
            Ok(_) => {}
        }
    }
    if let Some(pins) = claim.as_ref().and_then(Claim::pins) {
        pins.keep(false);
    }
    // Frames are forwarded from here on. The API opens, and the director calls itself
    // ready, when the network can find the ports' addresses.
    let opens_at = Instant::now() + until(door.opens_at);
    let mut end = attendant.wait(ends, Some(opens_at));
    if end.is_none() {
        running.open(door, socket)?;
        // All that takes more has been done.
        privilege::keep(&privilege::main(place.options.groups.are_named()));
        tracing::info!("{}", running.summary);
        attendant.say(&[NotifyState::Ready]);
        end = attendant.wait(ends, None);
    }
    match &end {
        // The service goes on, in another process.
        Some(End::HandOver(_)) => {}
        _ => attendant.say(&[NotifyState::Stopping]),
    }
    match end {
        Some(End::Signal(name)) => {
            tracing::info!("{name}: ending");
            attendant.stop_successor();
            Ok(Ended::Asked)
        }
        Some(End::Worker(worker, reason)) => {
            if let Some(claim) = claim {
                claim.keep();
            }
            Err(StartError::Worker { worker, reason })
        }
        Some(End::HandOver(request)) => {
            let handed_over = match claim {
                Some(claim) => running.hand_over(&request, claim),
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            match handed_over.and_then(|()| request.await_forwarding()) {
                Ok(()) => {
                    attendant.say_main(request.process);
                    tracing::info!("process {} has taken over: ending", request.process);
                    Ok(Ended::HandedOver)
                }
                Err(error) => {
                    tracing::error!(
                        "process {} took over and does not forward ({error}): it is ended, and \
                         this one starts again",
                        request.process
                    );
                    request.end_it();
                    Ok(Ended::StartAgain)
                }
            }
        }
        Some(End::Reload | End::Upgrade | End::SuccessorEnded(_)) | None => Ok(Ended::Asked),
    }
}

/// How long it is until a moment since the system's start.
fn until(moment: Duration) -> Duration {
    moment.saturating_sub(clock::monotonic())
}

/// A running director. The fields' order is the order in which they end.
struct Running {
    summary: String,
    /// What to say of the beginning.
    begun: String,
    offer: Arc<Mutex<Offer>>,
    table: Arc<Table>,
    _api: Api,
    control: Option<ControlThread>,
    workers: Vec<JoinHandle<Option<Remains<AfXdpPort, Director>>>>,
    /// What another process goes on with.
    passed: Vec<(Frames, Vec<(PortId, AfXdpPort)>)>,
    _mirror: Mirror,
}

impl Running {
    fn start(
        place: &Place<'_>,
        mut steering: Steering,
        end: Sender<End>,
        claim: &mut Option<Claim>,
        predecessor: Option<Predecessor>,
    ) -> Result<(Self, Door, Option<Waiting>), StartError> {
        let &Place { options, cores, .. } = place;
        let size = Size {
            limits: LIMITS,
            connections: options.connections,
            workers: cores.len(),
            seed: seed().map_err(|e| system("random numbers", e))?,
            huge_pages: options.state.huge_pages,
        };
        let built = match predecessor {
            Some(predecessor) => succeed(place, size, &mut steering, claim, predecessor)?,
            None => build(place, size, &mut steering, claim)?,
        };
        let Built {
            ground,
            around,
            tap,
            host_queues,
            queues,
            handed,
            waiting,
        } = built;
        let Surroundings {
            views,
            mirror,
            view,
        } = around;
        let summary = summary(options, &steering, &queues, cores);
        let copies_because = queues.iter().find_map(WorkerQueues::copies_because);
        let ports = place.devices.iter().map(|device| device.index).collect();
        let several_chunks = queues::several_chunks(place.devices, &steering);
        let offer = Offer {
            tap,
            ports,
            workers: cores.len(),
            copies_because,
            passes_queues: queues.iter().all(WorkerQueues::can_be_passed),
            several_chunks,
            ..Offer::of_this_process()
        };
        let offer = Arc::new(Mutex::new(offer));
        let Ground {
            table,
            counters,
            resume,
            taken_up,
            is_kept,
        } = ground;
        if let Some(pins) = claim.as_ref().and_then(Claim::pins).filter(|_| !is_kept) {
            // Frames that the next process could not relate had better go to the host.
            let _ = pins.remove();
        }
        let first = match &resume.state {
            Some(state) => {
                // Before anything waits for control: until then another version's program may
                // be there.
                steering.set(&ControlThread::rules(&view, state))?;
                ControlThread::resumed_snapshot(&view, state)
            }
            None => ControlThread::first_snapshot(&view),
        };
        let opens_at = view.settled_at;
        let (control_link, links) =
            link::link(cores.len(), first).map_err(|e| system("eventfd", e))?;
        let setup = Setup {
            limits: LIMITS,
            size: table.capacity() as u64,
            counters: counters.clone(),
            cores: cores.to_vec(),
            ports: options.ports.clone(),
            absent: absentees(place.devices.len(), &queues),
            view,
            require_local: options.require_local,
            resume,
        };
        let (board, plugs) = plug_board(cores.len());
        let plant = LivePlant {
            ports: Ports {
                anchors: anchors(options, &queues, several_chunks)?,
                open: open_queues_of(place.devices.len(), &queues),
                board,
                offer: offer.clone(),
            },
            steering,
            resolver: mirror.resolver(),
            table: table.clone(),
            end,
        };
        // From here on a failure drops `running`, which ends what was started.
        let mut running = Self {
            summary,
            begun: String::new(),
            offer,
            table: table.clone(),
            _api: Api::idle(),
            control: None,
            workers: Vec::new(),
            passed: Vec::new(),
            _mirror: mirror,
        };
        let control = ControlThread::spawn(setup, control_link, views, Box::new(plant))
            .map_err(|e| system("starting control", e))?;
        let orders = control.orders();
        running.control = Some(control);
        let parts = links.into_iter().zip(queues).zip(host_queues).zip(cores);
        for (number, ((((link, queues), host), &core), plugs)) in parts.zip(plugs).enumerate() {
            let worker_options = WorkerOptions {
                core: Some(core),
                busy_poll: options.busy_poll,
            };
            let director = Director::new(table.clone(), number, counters[number].clone());
            let (frames, ports) = (queues.frames, queues.ports);
            let worker = Worker::new(worker_options, link, director, host, frames, ports);
            let worker = worker.with_plugs(plugs);
            let thread = worker.spawn().map_err(|e| system("starting a worker", e))?;
            running.workers.push(thread);
        }
        running.begun = match (taken_up, handed) {
            (Some(connections), Some((process, stopped_ns))) => format!(
                "took over {connections} connections from process {process}, which stood still \
                 for {:.1} ms",
                (clock::monotonic_ns().saturating_sub(stopped_ns)) as f64 / 1e6
            ),
            (Some(connections), None) => format!(
                "took up {connections} connections, forwarding after {} ms",
                place.begun.elapsed().as_millis()
            ),
            (None, _) => format!(
                "no connections to take up, forwarding after {} ms",
                place.begun.elapsed().as_millis()
            ),
        };
        let door = Door {
            orders,
            table,
            opens_at,
            is_kept,
        };
        Ok((running, door, waiting))
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
    /// The next process can take this one's state up.
    is_kept: bool,
}

/// All that a director is put together from.
struct Built {
    ground: Ground,
    around: Surroundings,
    tap: String,
    host_queues: Vec<HostQueue>,
    queues: Vec<WorkerQueues>,
    /// The process taken over from, and when it stopped.
    handed: Option<(u32, u64)>,
    /// That process, which waits until this one forwards.
    waiting: Option<Waiting>,
}

fn build(
    place: &Place<'_>,
    size: Size,
    steering: &mut Steering,
    claim: &mut Option<Claim>,
) -> Result<Built, StartError> {
    let &Place {
        options, devices, ..
    } = place;
    // A large table takes as long to take up as all the rest to set up.
    thread::scope(|scope| {
        let ground = scope.spawn(|| Ground::prepare(claim.as_mut(), size));
        let around = Surroundings::look(devices)?;
        let mtu = devices.iter().map(|device| device.mtu).max().unwrap_or(0);
        let (host, host_queues) = Host::open(size.workers, mtu)?;
        tracing::info!(
            "the host gets its own packets by the tap device {}",
            host.device
        );
        host.warnings
            .iter()
            .for_each(|text| tracing::warn!("{text}"));
        let queues = open_queues(options, devices, size.workers, steering)?;
        Ok(Built {
            ground: joined(ground)?,
            around,
            tap: host.device,
            host_queues,
            queues,
            handed: None,
            waiting: None,
        })
    })
}

/// As [`build`], in the place of another process: all is ready before that one stops.
fn succeed(
    place: &Place<'_>,
    size: Size,
    steering: &mut Steering,
    claim: &mut Option<Claim>,
    predecessor: Predecessor,
) -> Result<Built, StartError> {
    let &Place {
        options, devices, ..
    } = place;
    let failed = |error: &dyn std::fmt::Display| StartError::TakeOver(error.to_string());
    let Some(claim) = claim else {
        return Err(failed(&"there is no state folder"));
    };
    let offer = predecessor.offer.clone();
    let readied = Ground::ready(claim, size).map_err(|e| failed(&e))?;
    let around = Surroundings::look(devices)?;
    let (_, host_queues) = Host::join(&offer.tap, size.workers)?;
    let ports: Vec<u32> = devices.iter().map(|device| device.index).collect();
    let is_same = offer.ports == ports && offer.workers == size.workers;
    let fits = offer.several_chunks == queues::several_chunks(devices, steering);
    let goes_on = is_same && fits && offer.passes_queues;
    let legacy = predecessor.succeed(goes_on).map_err(|e| failed(&e))?;
    // From here on nobody forwards: should this process end, the old one starts again.
    let Legacy {
        handed,
        lock,
        descriptors,
        waiting,
    } = legacy;
    fault::point("handed-over");
    claim.adopt_lock(lock);
    if handed.steered_times != offer.steered_times {
        steering.read_again();
    }
    let ground = Ground::succeed(claim, readied, size, &handed.loads).map_err(|e| failed(&e))?;
    let copies = offer.copies_because.as_deref();
    let queues = match handed.workers.len() == size.workers {
        true => {
            let workers = handed.workers.into_iter().zip(descriptors);
            resume_queues(workers, steering, copies)?
        }
        false => open_queues(options, devices, size.workers, steering)?,
    };
    Ok(Built {
        ground,
        around,
        tap: offer.tap,
        host_queues,
        queues,
        handed: Some((offer.process, handed.stopped_ns)),
        waiting: Some(waiting),
    })
}

impl Running {
    /// Stops, and gives another process what it needs to go on.
    ///
    /// # Errors
    /// That process has gone, or control had ended: nobody forwards.
    fn hand_over(&mut self, request: &Request, claim: &Claim) -> io::Result<()> {
        claim.keep();
        let stopped_ns = clock::monotonic_ns();
        let (reply, servers) = tokio::sync::oneshot::channel();
        // It ends by itself then, beside what comes here.
        if let Some(control) = &self.control {
            control.orders().send(Order::HandOver(reply));
        }
        let servers = servers.blocking_recv().map_err(io::Error::other)?;
        let workers = self.workers.drain(..);
        let remains: Vec<_> = workers.filter_map(|w| w.join().ok().flatten()).collect();
        let (mut caches, mut queues) = (Vec::new(), Vec::new());
        for worker in remains {
            caches.push(worker.director.into_cache());
            queues.push((worker.frames, worker.queues));
        }
        self.table.leave(caches);
        let mut handed = Handed {
            stopped_ns,
            steered_times: self.offer.lock().steered_times,
            loads: servers.iter().map(|server| load(server)).collect(),
            workers: Vec::new(),
        };
        let passed: io::Result<Vec<_>> = match request.wants_queues {
            true => queues.iter().map(|(f, q)| afxdp::pass(f, q)).collect(),
            false => Ok(Vec::new()),
        };
        let passed = passed.unwrap_or_else(|error| {
            tracing::warn!("the queues cannot be passed ({error}): they are opened anew");
            Vec::new()
        });
        if passed.is_empty() {
            drop(queues);
            return request.answer(&handed, claim.lock_file(), &[]);
        }
        let (workers, descriptors): (Vec<_>, Vec<_>) = passed.into_iter().unzip();
        handed.workers = workers;
        request.answer(&handed, claim.lock_file(), &descriptors)?;
        // The other process has them now: nothing is taken down here while it lives.
        self.passed = queues;
        Ok(())
    }
}

/// A server's number, and its active, inactive and persistent connections.
fn load(server: &RealServer) -> (u32, [u32; 3]) {
    use std::sync::atomic::Ordering::Relaxed;
    let load = &server.load;
    let counts = [&load.active, &load.inactive, &load.persistent];
    (server.id.0, counts.map(|count| count.load(Relaxed)))
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

/// What scripts wait for, and operators look at first.
fn summary(
    options: &Options,
    steering: &Steering,
    queues: &[WorkerQueues],
    cores: &[usize],
) -> String {
    let copying: Vec<String> = queues
        .iter()
        .filter_map(WorkerQueues::copies_because)
        .collect();
    let transfer = match copying.first() {
        None if queues.is_empty() => "no queue".to_owned(),
        None => "zero-copy".to_owned(),
        Some(why) if copying.len() == queues.len() => format!("copy mode: {why}"),
        Some(why) => {
            let (some, all) = (copying.len(), queues.len());
            format!("zero-copy, but copy mode in {some} of {all} workers: {why}")
        }
    };
    let port = |(device, mode): (&Device, &Mode)| match mode {
        Mode::Absent => format!("{} (absent)", device.name),
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
