//! What a director stands on: the connection table, the counters, and the services that
//! they belong to. Taken up from what an earlier process left, where there is such a
//! thing and it fits; else new.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::connection::table::Table;
use dataplane::counters::Counters;
use dataplane::port::device::Device;
use dataplane::port::shared_memory::SharedMemory;
use dataplane::port::steering::Pins;
use sched::table::Limits;

use super::clean::clean_elsewhere;
use super::control::Resume;
use super::control::state::State;
use super::state_dir::document::{Header, KnownPort, Refused};
use super::state_dir::journal::{Base, Journal, Now};
use super::state_dir::{self, Left, Loads, StateDir, StateError};
use super::statistics::Statistics;

/// Where a director's state is, and what becomes of it.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// The folder; the API socket's own one in shared memory where none is named.
    pub folder: Option<PathBuf>,
    /// Keep none.
    pub off: bool,
    /// Ignore what is there.
    pub cold: bool,
    /// Put the connection table into huge pages.
    pub huge_pages: bool,
    /// Take a running director's place.
    pub take_over: bool,
}

impl StateOptions {
    /// The folder of a director whose API is `api`.
    pub fn folder(&self, api: &Path) -> PathBuf {
        let default = || StateDir::default_folder(api);
        self.folder.clone().unwrap_or_else(default)
    }

    /// The ports of the director whose state is to be taken up, or whose place is to be
    /// taken; none where there is no such thing.
    pub fn known_ports(&self, api: &Path) -> Vec<KnownPort> {
        let folder = self.folder(api);
        let is_ignored = self.off || (self.cold && !self.take_over);
        if is_ignored || !folder.join("state").exists() {
            return Vec::new();
        }
        let left = StateDir::follow(&folder).ok().map(|dir| dir.read());
        let Some(Ok(Some(Left { header, .. }))) = left else {
            return Vec::new();
        };
        match header.boot == state_dir::boot() {
            true => header.ports,
            false => Vec::new(),
        }
    }
}

/// How large what is new is to be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Services and servers.
    pub limits: Limits,
    /// Connections.
    pub connections: usize,
    /// Workers.
    pub workers: usize,
    /// Keys a new table's hash.
    pub seed: u64,
    /// Put a new table into huge pages.
    pub huge_pages: bool,
}

/// A locked state folder, and what was in it.
#[derive(Debug)]
pub struct Claim {
    dir: StateDir,
    left: Option<Left>,
    is_named: bool,
    pins: Option<Pins>,
    ports: Vec<KnownPort>,
}

impl Claim {
    /// The state that these options mean; none where it is to be kept nowhere.
    pub fn stake(options: &StateOptions, api: &Path) -> Result<Option<Self>, StateError> {
        if options.off {
            return Ok(None);
        }
        let is_named = options.folder.is_some();
        let folder = options.folder(api);
        let dir = match StateDir::claim(&folder) {
            Ok(dir) => dir,
            Err(error) if is_named || matches!(error, StateError::InUse(_)) => return Err(error),
            Err(error) => {
                tracing::warn!("{error}; until then no connection outlives this process");
                return Ok(None);
            }
        };
        let pins = match Pins::find(&dir.name()) {
            Ok((pins, warning)) => {
                warning.iter().for_each(|text| tracing::warn!("{text}"));
                Some(pins)
            }
            Err(error) => {
                tracing::warn!(
                    "{error}; until then the host answers for services when this process is killed"
                );
                None
            }
        };
        if dir.is_on_disk() {
            tracing::warn!(
                "{} is on a disk: the connection table costs writes there; better is a folder \
                 in memory, such as one below /dev/shm",
                dir.folder().display()
            );
        }
        let mut claim = Self {
            dir,
            left: None,
            is_named,
            pins,
            ports: Vec::new(),
        };
        claim.look(options.cold)?;
        let cleaned = clean_elsewhere(&claim.dir, (!is_named).then_some(api));
        for what in cleaned.removed {
            tracing::info!("removed what was left in a network namespace that is gone: {what}");
        }
        Ok(Some(claim))
    }

    /// The state of a director that is to hand over.
    pub fn follow(options: &StateOptions, api: &Path) -> Result<Self, StateError> {
        let dir = StateDir::follow(&options.folder(api))?;
        Ok(Self {
            pins: Pins::existing(&dir.name()),
            dir,
            left: None,
            is_named: options.folder.is_some(),
            ports: Vec::new(),
        })
    }

    /// Has these written down as the director's ports.
    pub fn note_ports(&mut self, devices: &[Device]) {
        let known = |device: &Device| KnownPort {
            name: device.name.clone(),
            queues: device.queues,
            mtu: device.mtu,
        };
        self.ports = devices.iter().map(known).collect();
    }

    /// The lock that the director before held, and this one holds from now on: between them
    /// no third process gets in.
    pub fn adopt_lock(&mut self, lock: OwnedFd) {
        self.dir.adopt_lock(lock);
    }

    /// The lock, to be passed to the next process.
    pub fn lock_file(&self) -> BorrowedFd<'_> {
        self.dir.lock_file()
    }

    /// Where the state is.
    pub fn folder(&self) -> &Path {
        self.dir.folder()
    }

    fn look(&mut self, cold: bool) -> Result<(), StateError> {
        let mut left = match self.dir.read() {
            Ok(left) => left,
            Err(_) if cold => None,
            Err(refused) => {
                self.refuse(&refused);
                return Ok(());
            }
        };
        let boot = state_dir::boot();
        if let Some(left) = left.as_mut().filter(|left| left.header.boot == boot) {
            self.settle(left)?;
        }
        let folder = self.dir.folder().display();
        if cold {
            if let Some(pins) = self.pins.as_ref().filter(|_| left.is_some()) {
                let _ = pins.remove();
            }
            self.dir.clear();
            return Ok(());
        }
        self.left = left.filter(|left| {
            let is_same = left.header.boot == boot;
            if !is_same {
                tracing::info!("{folder}: the state is from before the last boot: starting cold");
            }
            is_same
        });
        if self.left.is_none() {
            self.dir.clear();
        }
        Ok(())
    }

    /// Takes over what a director in another network namespace left, with its pins; not
    /// where its frames still wait for the next one there. A container that is started again
    /// is in another one than before.
    fn settle(&self, left: &mut Left) -> Result<(), StateError> {
        let before = left.header.namespace;
        if before == self.dir.namespace().number() {
            return Ok(());
        }
        if let Some(theirs) = Pins::existing(&self.dir.name_in(before)) {
            let elsewhere = || StateError::Elsewhere(self.dir.folder().to_owned());
            let forsaken = theirs.forsaken().ok_or_else(elsewhere)?;
            let done = match &self.pins {
                Some(own) => forsaken.become_those(own),
                None => forsaken.remove(),
            };
            done.map_err(|error| StateError::Folder {
                path: theirs.folder().to_owned(),
                error,
            })?;
        }
        self.dir.adopt(&mut left.header);
        Ok(())
    }

    /// Says why, and sets aside what is there.
    fn refuse(&mut self, refused: &Refused) {
        let aside = self.dir.set_aside();
        tracing::error!(
            "the state in {} is not taken up: {refused}. It is set aside as {}; starting cold",
            self.dir.folder().display(),
            aside.display()
        );
        self.left = None;
    }

    /// Whether there is something to take up.
    pub fn is_warm(&self) -> bool {
        self.left.is_some()
    }

    /// The steering program's pins.
    pub fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// Leaves everything as it is for the next process.
    pub fn keep(&self) {
        if let Some(pins) = &self.pins {
            pins.keep(true);
        }
    }

    /// The end in good order: a state folder that nobody named goes too.
    pub fn end(self) {
        if !self.is_named {
            self.dir.remove();
        }
    }
}

/// What a director stands on.
#[derive(Debug)]
pub struct Ground {
    /// The connection table.
    pub table: Arc<Table>,
    /// Each worker's counters.
    pub counters: Vec<Arc<Counters>>,
    /// What control goes on from.
    pub resume: Resume,
    /// Connections and templates taken up; none where nothing was.
    pub taken_up: Option<usize>,
    /// Whether the state is kept.
    pub is_kept: bool,
}

impl Ground {
    /// Takes up what the claim holds, or makes all anew.
    pub fn prepare(claim: Option<&mut Claim>, size: Size) -> Result<Self, StateError> {
        let Some(claim) = claim else {
            return Ok(Self::private(size));
        };
        if let Some(left) = claim.left.take() {
            let header = left.header.clone();
            let taken_up = Readied::from(&claim.dir, left, size)
                .and_then(|readied| readied.take_up(size, None));
            match taken_up {
                Ok(ground) => return Ok(ground.written_down(claim, header, size)),
                Err(refused) => claim.refuse(&refused),
            }
        }
        match fresh(&claim.dir, size) {
            Ok((ground, header)) => Ok(ground.written_down(claim, header, size)),
            Err(error) if claim.is_named => Err(error),
            Err(error) => {
                tracing::warn!("{error}; until then no connection outlives this process");
                claim.dir.clear();
                Ok(Self::private(size))
            }
        }
    }

    /// Reads all that can be read while the director before still works.
    pub fn ready(claim: &Claim, size: Size) -> Result<Readied, Refused> {
        let nothing = || Refused::File {
            what: claim.dir.document().display().to_string(),
            why: "it is not there".into(),
        };
        // Before reading: a change that comes between shows later.
        let stamp = claim.dir.stamp();
        let left = claim.dir.read()?.ok_or_else(nothing)?;
        let mut readied = Readied::from(&claim.dir, left, size)?;
        readied.stamp = stamp;
        Ok(readied)
    }

    /// Goes on where the director before has just stopped.
    pub fn succeed(
        claim: &Claim,
        mut readied: Readied,
        size: Size,
        loads: &[(u32, [u32; 3])],
    ) -> Result<Self, Refused> {
        if claim.dir.stamp() != readied.stamp {
            let left = claim.dir.read()?.ok_or(Refused::NotAState)?;
            readied.state = state_dir::restore(&left.document, size.limits)?;
            readied.left = left;
        }
        let header = readied.left.header.clone();
        let ground = readied.take_up(size, Some(loads))?;
        Ok(ground.written_down(claim, header, size))
    }

    /// In memory that ends with the process.
    fn private(size: Size) -> Self {
        let Limits { services, servers } = size.limits;
        let counters = || Counters::new(services as usize, servers as usize);
        Self {
            table: Arc::new(Table::new(size.connections, size.workers, size.seed)),
            counters: (0..size.workers).map(|_| Arc::new(counters())).collect(),
            resume: Resume::default(),
            taken_up: None,
            is_kept: false,
        }
    }

    /// Begins the document anew: this process' version, and no changes behind it.
    fn written_down(mut self, claim: &Claim, mut header: Header, size: Size) -> Self {
        let dir = &claim.dir;
        header.ports = claim.ports.clone();
        header.lvx = env!("CARGO_PKG_VERSION").to_owned();
        header.counters = layout(size.limits);
        let none = State::new(size.limits);
        let state = self.resume.state.as_ref().unwrap_or(&none);
        let services = state.table.services().map(|service| service.id);
        let servers = state.table.servers().map(|(server, _)| server.id);
        let now = Now {
            state,
            bases: &self.resume.statistics.bases(services, servers),
            waiting: self.resume.waiting.as_ref(),
        };
        match Journal::begin(&dir.document(), header, now) {
            Ok(journal) => self.resume.journal = Some(journal),
            Err(error) => {
                let path = dir.document();
                let _ = std::fs::remove_file(&path);
                tracing::error!(
                    "{}: {error}: the state is not kept, and the next director begins cold",
                    path.display()
                );
                self.is_kept = false;
            }
        }
        self
    }
}

fn fresh(dir: &StateDir, size: Size) -> Result<(Ground, Header), StateError> {
    let bytes = Table::needed_bytes(size.connections, size.workers);
    let made = dir.new_table(bytes, size.huge_pages);
    let (memory, path, warning) = match made {
        Err(StateError::NoRoom { .. }) if dir.forget_refused() => {
            dir.new_table(bytes, size.huge_pages)?
        }
        made => made?,
    };
    warning.iter().for_each(|text| tracing::warn!("{text}"));
    let table = memory
        .new_table(size.connections, size.workers, size.seed)
        .expect("as much memory as the table asked for");
    let counters = for_workers(all_counters(dir, size, false)?, size.workers);
    let header = Header {
        boot: state_dir::boot(),
        namespace: dir.namespace().number(),
        table: size.seed,
        table_file: path.to_string_lossy().into_owned(),
        ..Header::default()
    };
    let ground = Ground {
        table: Arc::new(table),
        counters,
        resume: Resume::default(),
        taken_up: None,
        is_kept: true,
    };
    Ok((ground, header))
}

/// A state that was read, and memory that was mapped, but that another process may still
/// work on.
#[derive(Debug)]
pub struct Readied {
    left: Left,
    /// The document as it was read.
    stamp: (u64, u64),
    state: State,
    memory: SharedMemory,
    counters: Vec<Counters>,
    /// The counters' layout is this process's own.
    go_on: bool,
}

impl Readied {
    fn from(dir: &StateDir, left: Left, size: Size) -> Result<Self, Refused> {
        let state = state_dir::restore(&left.document, size.limits)?;
        let memory = dir.open_table(&left.header)?;
        let go_on = left.header.counters == layout(size.limits);
        let counters = all_counters(dir, size, go_on).map_err(|error| Refused::File {
            what: "counters".into(),
            why: error.to_string(),
        })?;
        Ok(Self {
            left,
            stamp: dir.stamp(),
            state,
            memory,
            counters,
            go_on,
        })
    }

    /// The process that left it has ended, or stopped for good and told these loads.
    fn take_up(self, size: Size, told: Option<&[(u32, [u32; 3])]>) -> Result<Ground, Refused> {
        let Left { header, document } = &self.left;
        let mut loads = Loads::of(document, size.limits);
        let settled = match told {
            Some(_) => self.memory.adopt_settled_table(size.workers),
            None => Ok(Err(self.memory)),
        };
        let (table, connections) = match settled.map_err(Refused::Table)? {
            Ok(table) => {
                loads.set(told.unwrap_or_default());
                let connections = table.len();
                (table, connections)
            }
            Err(memory) => {
                let mut count = |survivor| loads.count(survivor);
                let adopted = memory.adopt_table(size.workers, &mut count);
                let (table, recovered) = adopted.map_err(Refused::Table)?;
                (table, recovered.kept)
            }
        };
        if table.seed() != header.table {
            let what = "the connection table is another state's";
            return Err(Refused::Contradiction(what.into()));
        }
        for (server, _) in self.state.table.servers() {
            let [active, inactive, persistent] = loads.server(server.id);
            server.restore_load(active, inactive, persistent);
        }
        if table.capacity() != size.connections {
            tracing::warn!(
                "the connection table keeps its size of {}: --connections {} counts for a cold \
                 start",
                table.capacity(),
                size.connections
            );
        }
        let counters = for_workers(self.counters, size.workers);
        let go_on = self.go_on;
        let service = |id| Base::Service(id, base(go_on, document.service_bases.get(&id)));
        let server = |id| Base::Server(id, base(go_on, document.server_bases.get(&id)));
        let services = document.services.keys().copied().map(service);
        let servers = document.servers.keys().copied().map(server);
        let statistics = Statistics::resume(services.chain(servers), &counters);
        Ok(Ground {
            table: Arc::new(table),
            counters,
            resume: Resume {
                state: Some(self.state),
                statistics,
                waiting: document.waiting.clone(),
                journal: None,
            },
            taken_up: Some(connections),
            is_kept: true,
        })
    }
}

fn base(go_on: bool, base: Option<&[u64; 5]>) -> [u64; 5] {
    base.copied().filter(|_| go_on).unwrap_or_default()
}

fn layout(limits: Limits) -> u64 {
    Counters::layout(limits.services as usize, limits.servers as usize)
}

/// All sets of counters that are there, at least one for each worker.
fn all_counters(dir: &StateDir, size: Size, go_on: bool) -> Result<Vec<Counters>, StateError> {
    let (services, servers) = (size.limits.services as usize, size.limits.servers as usize);
    let each = Counters::needed_bytes(services, servers);
    let mut rest = dir.counters(each * size.workers, go_on)?;
    let mut all = Vec::new();
    while rest.len() >= each {
        let Some((part, more)) = rest.split(each) else {
            break;
        };
        all.extend(Counters::in_memory(part, services, servers));
        rest = more;
    }
    Ok(all)
}

/// A set for each worker. Those of workers that there are no more go to the first.
fn for_workers(mut all: Vec<Counters>, workers: usize) -> Vec<Arc<Counters>> {
    let spare = all.split_off(workers.min(all.len()));
    for other in &spare {
        all[0].absorb(other);
    }
    all.into_iter().map(Arc::new).collect()
}
