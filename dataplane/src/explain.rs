//! What a director would do with a frame, and why, without doing it.
//!
//! The very code of the packet path runs, over a copy of what it would read and change: a
//! table of its own with the entries that the packet meets, servers with loads of their
//! own, forked schedulers, counters that nobody reads. Which entries the packet meets, the
//! run itself tells: each look-up that finds nothing in the copy is made in the live table,
//! and where that has an entry, it is copied and the run is made anew.

use std::sync::Arc;

use sched::server::ServerId;
use sched::service::Family;

use crate::address::Endpoint;
use crate::connection::table::{Cache, Draft, Handle, Key, Row, Table};
use crate::counters::Counters;
use crate::director::Director;
use crate::director::observer::Trace;
use crate::frame::Frame;
use crate::snapshot::Snapshot;
use crate::time::Ticks;
use crate::verdict::Verdict;

pub use crate::director::observer::{Candidate, Step};

/// A packet looks for a connection from either side, for one it quotes, one inside that,
/// and for a template: a run more for each, and one for good measure.
const RUNS_MAX: usize = 8;
/// Room for what a run copies and begins.
const ENTRIES: usize = 64;
/// Free memory around the frame, for headers: no less than a port's frames have.
const ROOM_BYTES: usize = 512;

/// What would become of a frame.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// What led to it, in order.
    pub steps: Vec<Step>,
    /// The frame after it.
    pub frame: Vec<u8>,
}

/// What a director with this snapshot and this live table would do with `frame` at `now`.
/// Changes neither. Any thread may ask while workers work.
///
/// What a single worker keeps to itself is taken to be as in a worker just begun: no
/// datagram incomplete, ICMP errors allowed, `drop_packet`'s turn not come.
pub fn explain(snapshot: &Snapshot, live: &Table, now: Ticks, frame: &[u8]) -> Explanation {
    let mut copies = Vec::new();
    for _ in 1..RUNS_MAX {
        let explanation = run(snapshot, &copies, live.is_full(), now, frame);
        let missed = explanation
            .steps
            .iter()
            .filter_map(|step| missed(step, live));
        let known = copies.len();
        for copy in missed.collect::<Vec<_>>() {
            if !copies.iter().any(|c: &Copied| c.row.key == copy.row.key) {
                copies.push(copy);
            }
        }
        if copies.len() == known {
            return explanation;
        }
    }
    run(snapshot, &copies, live.is_full(), now, frame)
}

/// The live table's entry of a connection, if it has one.
pub fn find(live: &Table, key: &Key) -> Option<Row> {
    read(live, live.find(key)?, |row| row.key == *key)
}

/// A copy of a live entry, and of its template.
#[derive(Clone, Copy, Debug)]
struct Copied {
    row: Row,
    template: Option<Row>,
}

/// The live entry that a look-up in the copy has missed.
fn missed(step: &Step, live: &Table) -> Option<Copied> {
    match step {
        Step::Lookup { key, entry: None } => copied(live, live.find(key)?, |row| row.key == *key),
        Step::LookupReply {
            family,
            protocol,
            client,
            real,
            entry: None,
        } => {
            let is_it = |row: &Row| {
                let ends: (Endpoint, Endpoint) = (row.key.client, row.real);
                ends == (*client, *real)
                    && (row.key.family, row.key.protocol) == (*family, *protocol)
            };
            copied(
                live,
                live.find_reply(*family, *protocol, *client, *real)?,
                is_it,
            )
        }
        _ => None,
    }
}

fn copied(live: &Table, handle: Handle, is_it: impl Fn(&Row) -> bool) -> Option<Copied> {
    let template = live.view(handle).template();
    let row = read(live, handle, is_it)?;
    Some(Copied {
        row,
        template: template.and_then(|handle| read(live, handle, |row| row.key.template)),
    })
}

/// This thread is no worker, so an entry may be used anew while it looks: then it is
/// another's.
fn read(live: &Table, handle: Handle, is_it: impl Fn(&Row) -> bool) -> Option<Row> {
    live.read(handle.index).filter(is_it)
}

fn run(
    snapshot: &Snapshot,
    copies: &[Copied],
    is_full: bool,
    now: Ticks,
    frame: &[u8],
) -> Explanation {
    let snapshot = snapshot.forked();
    let table = Arc::new(Table::new(ENTRIES, 1, 0));
    let mut cache = table.cache(0);
    for copy in copies {
        let template = copy
            .template
            .and_then(|row| enter(&table, &mut cache, &row, None));
        enter(&table, &mut cache, &copy.row, template);
    }
    if is_full {
        fill(&table, &mut cache);
    }
    let counters = Arc::new(Counters::new(
        snapshot.services_end(),
        snapshot.servers_end(),
    ));
    let mut director = Director::observed(table, 0, counters, Trace::default());
    let mut memory = vec![0; ROOM_BYTES];
    memory.extend(frame);
    memory.resize(memory.len() + ROOM_BYTES, 0);
    let end = ROOM_BYTES + frame.len();
    let Some(mut frame) = Frame::new(&mut memory, ROOM_BYTES, end) else {
        unreachable!("the memory was made for it");
    };
    let (verdict, steps) = director.explain(&snapshot, now, &mut frame);
    Explanation {
        verdict,
        steps,
        frame: frame.bytes().to_vec(),
    }
}

/// Leaves no room for another connection, as the live table has none.
fn fill(table: &Table, cache: &mut Cache) {
    let end = |port| Endpoint { address: 0, port };
    for port in 0..=u16::MAX {
        let stranger = Draft {
            key: Key {
                family: Family::V4,
                template: false,
                // Of no protocol that is balanced: nobody looks for it.
                protocol: u8::MAX,
                client: end(port),
                virtual_: end(0),
            },
            real_family: Family::V4,
            real: end(0),
            server: ServerId(0),
            word: 0,
            mark: 0,
            template: None,
            timeout: 0,
        };
        if table.insert(cache, &stranger, 0).is_err() {
            return;
        }
    }
}

fn enter(table: &Table, cache: &mut Cache, row: &Row, template: Option<Handle>) -> Option<Handle> {
    let draft = Draft {
        key: row.key,
        real_family: row.real_family,
        real: row.real,
        server: row.server,
        word: row.word,
        mark: row.mark,
        template,
        timeout: row.timeout,
    };
    // So that it expires when the live one does.
    let began = row.expires.wrapping_sub(row.timeout);
    table.insert(cache, &draft, began).ok()?;
    table.find(&row.key)
}
