//! What of the state is written down: services, servers, marks, tunables, the counters'
//! bases and a commit that waits. Lines of text: a header, then records, each with its
//! checksum; a later record takes the place of an earlier one of the same thing. So a
//! change costs the lines of what it changed.
//!
//! Records come in groups: first all there is, then a group for each change. The last line of
//! a group counts and sums its lines. A group without it was being written when its writer was
//! killed, before it told anyone: it is left out, and all before it stands. Anything else that
//! does not fit is damage, and then nothing of it is believed.

use std::collections::BTreeMap;

use dataplane::connection::table::RegionError;
use sched::command::{Command, FwmarkRule};
use sched::prefix::{Guard, Prefix, Prefixes};
use sched::server::{Forwarding, ServerId};
use sched::service::ServiceId;
use sched::table::{SavedServer, SavedService};
use serde::{Deserialize, Serialize};

use crate::director::marks::Place;

/// Counts changes to the meaning of a line.
const FORMAT: u32 = 2;

/// What every document begins with, before its format's number.
const MAGIC: &str = "lvx-state ";

/// What a group's last line begins with, before the number of its records and the sum of
/// their lines.
const END: &str = "end ";

/// The longest document that is read.
pub const BYTES_MAX: u64 = 1 << 30;

/// What the document belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of lvx that wrote it.
    pub lvx: String,
    /// The boot that its times count from (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The network namespace that its ports are in; 0 in that of an lvx before this one.
    #[serde(default)]
    pub namespace: u64,
    /// The connection table's seed: its name.
    pub table: u64,
    /// The file that the table is in.
    pub table_file: String,
    /// How counters lie in memory; see `Counters::layout`.
    pub counters: u64,
    /// The ports. An lvx before this one wrote none.
    #[serde(default)]
    pub ports: Vec<KnownPort>,
}

/// A port's device, so that a director can start while it is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPort {
    /// Its name.
    pub name: String,
    /// Its receive queues.
    pub queues: u32,
    /// Its MTU, bytes.
    pub mtu: u32,
}

/// A part of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A live service.
    Service(SavedService),
    /// A service is no more, or only its removed servers name it.
    NoService(ServiceId),
    /// A server, and how it forwarded before.
    Server {
        /// The server.
        server: SavedServer,
        /// Other methods, for connections that still use them.
        forwarded: Vec<Forwarding>,
    },
    /// A server is forgotten.
    NoServer(ServerId),
    /// All firewall marks.
    Marks(Vec<FwmarkRule>),
    /// All destinations that bore a mark before.
    Marked(Vec<(Place, u32)>),
    /// Prefixes of clients that are let in, kept out, or no more named.
    Prefixes(Option<Guard>, Vec<Prefix>),
    /// All tunables and the three timeouts of `--set`.
    Settings {
        /// By name.
        values: BTreeMap<String, String>,
        /// TCP, TCP after FIN, UDP.
        timeouts_s: [u32; 3],
    },
    /// What is taken off a service's counters.
    ServiceBase(ServiceId, [u64; 5]),
    /// What is taken off a server's counters.
    ServerBase(ServerId, [u64; 5]),
    /// The commit that waits for its confirmation.
    Waiting(Option<SavedWaiting>),
}

/// A commit that is taken back at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedWaiting {
    /// What takes it back.
    pub undo: Vec<Command>,
    /// When, ms of the monotonic clock.
    pub until_ms: u64,
}

/// All that is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    pub services: BTreeMap<ServiceId, SavedService>,
    pub servers: BTreeMap<ServerId, (SavedServer, Vec<Forwarding>)>,
    pub marks: Vec<FwmarkRule>,
    pub marked: Vec<(Place, u32)>,
    pub prefixes: Prefixes,
    pub values: BTreeMap<String, String>,
    pub timeouts_s: Option<[u32; 3]>,
    pub service_bases: BTreeMap<ServiceId, [u64; 5]>,
    pub server_bases: BTreeMap<ServerId, [u64; 5]>,
    pub waiting: Option<SavedWaiting>,
}

/// Why a state is not taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is of another format.
    #[error("it is of format {found}, this lvx reads {FORMAT}")]
    OtherFormat {
        /// Its number, or what stands in its place.
        found: String,
    },
    /// It is no state at all.
    #[error("it is not a state of lvx")]
    NotAState,
    /// A line does not fit its checksum, or is not understood.
    #[error("line {line} is damaged: {why}")]
    Damaged {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The lines contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The connection table.
    #[error("{0}")]
    Table(RegionError),
    /// A file is missing or cannot be read.
    #[error("{what}: {why}")]
    File {
        /// The file.
        what: String,
        /// Why.
        why: String,
    },
}

/// The lines of a header and records, which are the first group.
pub fn write(header: &Header, records: &[Record]) -> String {
    let mut text = format!("{MAGIC}{FORMAT} ");
    append_line(&mut text, header);
    append(&mut text, records);
    text
}

/// Adds a group of records.
pub fn append(text: &mut String, records: &[Record]) {
    let from = text.len();
    records.iter().for_each(|record| append_line(text, record));
    let sum = crc32c::crc32c(&text.as_bytes()[from..]);
    text.push_str(&format!("{END}{} {sum:08x}\n", records.len()));
}

fn append_line(text: &mut String, value: &impl Serialize) {
    // No map of the state has keys that JSON could not write.
    let json = serde_json::to_string(value).unwrap_or_default();
    let sum = crc32c::crc32c(json.as_bytes());
    text.push_str(&format!("{sum:08x} {json}\n"));
}

/// Reads a document. Bytes of any kind give an answer.
pub fn read(bytes: &[u8]) -> Result<(Header, Document), Refused> {
    let rest = bytes
        .strip_prefix(MAGIC.as_bytes())
        .ok_or(Refused::NotAState)?;
    let space = rest.iter().take(32).position(|&byte| byte == b' ');
    let (format, rest) = rest.split_at(space.ok_or(Refused::NotAState)?);
    if format != FORMAT.to_string().as_bytes() {
        let found = String::from_utf8_lossy(format).into_owned();
        return Err(Refused::OtherFormat { found });
    }
    let mut lines = Lines::of(&rest[1..]);
    let first = lines.next().ok_or_else(|| damaged(1, "it is cut short"))?;
    let header = parse(first).map_err(|why| damaged(1, &why))?;
    let mut document = Document::default();
    for number in 0.. {
        match lines.group()? {
            Some(records) => records.into_iter().for_each(|record| document.take(record)),
            // The first group was written whole before its file got its name.
            None if number == 0 => return Err(damaged(lines.number + 1, "it is cut short")),
            None => break,
        }
    }
    Ok((header, document))
}

fn damaged(line: usize, why: &str) -> Refused {
    let why = why.to_owned();
    Refused::Damaged { line, why }
}

/// The lines of a document that have an end.
struct Lines<'a> {
    rest: &'a [u8],
    /// Lines read.
    number: usize,
}

impl<'a> Lines<'a> {
    fn of(rest: &'a [u8]) -> Self {
        Self { rest, number: 0 }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        self.number += 1;
        Some(line)
    }

    /// The records of the next group; none where its end is missing.
    fn group(&mut self) -> Result<Option<Vec<Record>>, Refused> {
        let (begin, first) = (self.rest, self.number + 1);
        let mut records = Vec::new();
        let mut wrong = None;
        while let Some(line) = self.next() {
            let Some(end) = line.strip_prefix(END.as_bytes()) else {
                match parse(line) {
                    Ok(record) => records.push(record),
                    Err(why) => wrong = wrong.or(Some(damaged(self.number, &why))),
                }
                continue;
            };
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
            let length = begin.len() - self.rest.len() - line.len() - 1;
            let sum = crc32c::crc32c(&begin[..length]);
            if end != format!("{} {sum:08x}", records.len()).as_bytes() {
                return Err(damaged(
                    first,
                    "the lines from here on are not those written",
                ));
            }
            return Ok(Some(records));
        }
        Ok(None)
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    let (sum, json) = line.split_at_checked(9).ok_or("it is cut short")?;
    let sum = std::str::from_utf8(&sum[..8]).ok();
    let sum = sum.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if sum != Some(crc32c::crc32c(json)) {
        return Err("its checksum does not fit".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

impl Document {
    /// Takes a record in.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Service(service) => _ = self.services.insert(service.id, service),
            Record::NoService(id) => {
                self.services.remove(&id);
                self.service_bases.remove(&id);
            }
            Record::Server { server, forwarded } => {
                self.servers.insert(server.id, (server, forwarded));
            }
            Record::NoServer(id) => {
                self.servers.remove(&id);
                self.server_bases.remove(&id);
            }
            Record::Marks(marks) => self.marks = marks,
            Record::Marked(marked) => self.marked = marked,
            Record::Prefixes(Some(guard), list) => {
                self.prefixes
                    .extend(list.into_iter().map(|prefix| (prefix, guard)));
            }
            Record::Prefixes(None, list) => {
                list.iter()
                    .for_each(|prefix| _ = self.prefixes.remove(prefix));
            }
            Record::Settings { values, timeouts_s } => {
                self.values = values;
                self.timeouts_s = Some(timeouts_s);
            }
            Record::ServiceBase(id, base) => _ = self.service_bases.insert(id, base),
            Record::ServerBase(id, base) => _ = self.server_bases.insert(id, base),
            Record::Waiting(waiting) => self.waiting = waiting,
        }
    }
}
