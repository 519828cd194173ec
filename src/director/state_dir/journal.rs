//! Writes down what changes, before it is in force: connections that workers make by a
//! change name servers that the document knows, whenever the process is killed.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use sched::prefix::{Prefixes, changes_by_guard};
use sched::server::ServerId;
use sched::service::ServiceId;
use sched::table::{Limits, ServiceTable};

use super::document::{self, Header, Record, SavedWaiting};
use crate::director::control::state::State;
use crate::director::settings::Settings;

/// The document is written anew when the changes behind it are this long, and longer than
/// twice the document itself.
const CHANGES_BYTES_MIN: u64 = 1 << 20;

/// A line should stay readable.
const PREFIXES_OF_A_LINE: usize = 1000;

/// A counter's base that changed: of a service or of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A service's.
    Service(ServiceId, [u64; 5]),
    /// A server's.
    Server(ServerId, [u64; 5]),
}

/// What there is to write down.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// Services, servers, marks, tunables.
    pub state: &'a State,
    /// The bases that changed since the last time.
    pub bases: &'a [Base],
    /// The commit that waits.
    pub waiting: Option<&'a SavedWaiting>,
}

/// The document's writer.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    header: Header,
    file: Option<File>,
    last: State,
    last_waiting: Option<SavedWaiting>,
    document_bytes: u64,
    changes_bytes: u64,
    /// The last save failed.
    is_behind: bool,
}

impl Journal {
    /// Begins a document anew, with all there is: `bases` must be those of all services
    /// and servers.
    pub fn begin(path: &Path, header: Header, now: Now<'_>) -> io::Result<Self> {
        let mut journal = Self {
            path: path.to_owned(),
            header,
            file: None,
            last: empty(),
            last_waiting: None,
            document_bytes: 0,
            changes_bytes: 0,
            is_behind: false,
        };
        journal.rewrite(now)?;
        Ok(journal)
    }

    /// Whether the document should be written anew; `save` then wants the bases of all.
    pub fn wants_all(&self) -> bool {
        self.file.is_none() || self.is_behind || self.changes_bytes > self.changes_bytes_max()
    }

    fn changes_bytes_max(&self) -> u64 {
        CHANGES_BYTES_MIN.max(2 * self.document_bytes)
    }

    /// Whether the last save failed.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Writes down what changed.
    ///
    /// # Errors
    /// Where that fails the document stays as it was: it says what was last saved.
    pub fn save(&mut self, now: Now<'_>) -> io::Result<()> {
        let saved = match self.wants_all() {
            // Where there is no room for a second document, there may be for a change.
            true => self.rewrite(now).or_else(|error| match self.file {
                Some(_) => self.append(now),
                None => Err(error),
            }),
            false => self.append(now),
        };
        let was_behind = std::mem::replace(&mut self.is_behind, saved.is_err());
        match &saved {
            Ok(()) if was_behind => {
                tracing::info!("{}: the state is saved again", self.path.display());
            }
            Err(error) if !was_behind => tracing::error!(
                "{}: the state cannot be saved ({error}): changes are refused until there is \
                 room; make some there",
                self.path.display()
            ),
            _ => {}
        }
        saved
    }

    fn append(&mut self, now: Now<'_>) -> io::Result<()> {
        let mut records = changes(&self.last, now.state);
        records.extend(now.bases.iter().map(base));
        if self.last_waiting.as_ref() != now.waiting {
            records.push(Record::Waiting(now.waiting.cloned()));
        }
        let mut text = String::new();
        document::append(&mut text, &records);
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(text.as_bytes())
        {
            // What comes next must not follow half a group.
            let length = self.document_bytes + self.changes_bytes;
            if file.set_len(length).is_err() || file.seek(SeekFrom::Start(length)).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        self.changes_bytes += text.len() as u64;
        self.remember(now);
        Ok(())
    }

    fn rewrite(&mut self, now: Now<'_>) -> io::Result<()> {
        let mut records = changes(&empty(), now.state);
        records.extend(now.bases.iter().map(base));
        records.extend(now.waiting.cloned().map(|w| Record::Waiting(Some(w))));
        let text = document::write(&self.header, &records);
        let fresh = self.path.with_extension("new");
        let written = write_whole(&fresh, &text).and_then(|file| {
            fs::rename(&fresh, &self.path)?;
            Ok(file)
        });
        let file = written.inspect_err(|_| _ = fs::remove_file(&fresh))?;
        self.document_bytes = text.len() as u64;
        self.changes_bytes = 0;
        // Room for the changes to come, taken now: others may fill the file system. A wish: not
        // all of them can.
        let ahead = self.changes_bytes_max() + CHANGES_BYTES_MIN;
        let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, self.document_bytes, ahead);
        self.file = Some(file);
        self.remember(now);
        Ok(())
    }

    fn remember(&mut self, now: Now<'_>) {
        self.last = now.state.clone();
        self.last_waiting = now.waiting.cloned();
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn empty() -> State {
    State::new(Limits {
        services: 0,
        servers: 0,
    })
}

fn base(base: &Base) -> Record {
    match *base {
        Base::Service(id, counts) => Record::ServiceBase(id, counts),
        Base::Server(id, counts) => Record::ServerBase(id, counts),
    }
}

/// What leads from one state to the next. An edit makes new values, so that the same
/// values are the same in memory.
fn changes(from: &State, to: &State) -> Vec<Record> {
    let mut records = Vec::new();
    let gone = from.table.services().map(|service| service.id);
    let gone = gone.filter(|&id| to.table.service_by_id(id).is_none());
    records.extend(gone.map(Record::NoService));
    let gone = from.table.servers_unlike(&to.table).map(|server| server.id);
    let gone = gone.filter(|&id| to.table.server(id).is_none());
    records.extend(gone.map(Record::NoServer));
    let removals = to.table.removals();
    for server in to.table.servers_unlike(&from.table) {
        let old = from.table.server(server.id);
        if old.is_some_and(|old| Arc::ptr_eq(old, server)) {
            continue;
        }
        records.push(Record::Server {
            server: server.saved(removals.get(&server.id).copied()),
            forwarded: to.forwarded.get(&server.id).cloned().unwrap_or_default(),
        });
    }
    for service in to.table.services() {
        let old = from.table.service_by_id(service.id);
        if !old.is_some_and(|old| Arc::ptr_eq(old, service)) {
            records.push(Record::Service(ServiceTable::saved_service(service)));
        }
    }
    if from.marks != to.marks {
        records.push(Record::Marks(to.marks.rules()));
    }
    if from.marked != to.marked {
        let mut marked: Vec<_> = to.marked.iter().copied().collect();
        marked.sort_unstable();
        records.push(Record::Marked(marked));
    }
    prefixes(&from.prefixes, &to.prefixes, &mut records);
    if !same(&from.settings, &to.settings) {
        let values = to.settings.values().iter();
        let timeouts = to.settings.timeouts();
        records.push(Record::Settings {
            values: values
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            timeouts_s: [timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s],
        });
    }
    records
}

fn prefixes(from: &Arc<Prefixes>, to: &Arc<Prefixes>, records: &mut Vec<Record>) {
    if Arc::ptr_eq(from, to) {
        return;
    }
    for (guard, list) in changes_by_guard(from, to) {
        let lines = list.chunks(PREFIXES_OF_A_LINE);
        records.extend(lines.map(|part| Record::Prefixes(guard, part.to_vec())));
    }
}

fn same(one: &Settings, other: &Settings) -> bool {
    one.values() == other.values() && one.tunables() == other.tunables()
}
