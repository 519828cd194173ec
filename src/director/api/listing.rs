//! The table as JSON, made a piece at a time as the client takes it: a hundred thousand
//! servers take no more memory than a few hundred, also where nobody reads.

use std::convert::Infallible;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::vec::IntoIter;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cli::api::{Part, Sample};
use futures_util::stream;
use sched::command::Refusal;
use sched::prefix::{Prefix, Prefixes};
use sched::service::Service;
use serde::Serialize;

use crate::director::control::look::{Counts, Look, Moment};
use crate::director::control::state::not_carried_out;

/// A piece is as long as this, or a little longer.
const PIECE_BYTES: usize = 32 * 1024;

/// A part of the table.
pub(super) fn table(look: Look, part: &Part) -> Response {
    let services = look.services(part);
    let frame = to_text(&look.head());
    answer(Listing::new(look, Counts::Estimated, services, &frame))
}

/// All that moves.
pub(super) fn sample(moment: Moment) -> Response {
    let services = moment.look.services(&Part::All);
    let frame = to_text(&Sample {
        at_ns: moment.at_ns,
        up_ns: moment.up_ns,
        table: moment.look.head(),
        counters: moment.counters,
        workers: moment.workers,
        places: moment.places,
    });
    answer(Listing::new(moment.look, Counts::Live, services, &frame))
}

/// Client prefixes as one object.
pub(super) fn prefixes(prefixes: Arc<Prefixes>) -> Response {
    answer(PrefixList {
        prefixes,
        at: At::Begin,
    })
}

/// What so many commands, all or none, would come to.
pub(super) fn checked(checked: Checked) -> Response {
    answer(checked)
}

/// What is made piece by piece.
trait Pieces: Send + 'static {
    /// The next piece; none after the last.
    fn next(&mut self) -> Option<Vec<u8>>;
}

fn answer(pieces: impl Pieces) -> Response {
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        // Others have their turn in between.
        tokio::task::yield_now().await;
        let piece = pieces.next()?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), pieces))
    });
    let kind = [(CONTENT_TYPE, "application/json")];
    (kind, Body::from_stream(pieces)).into_response()
}

/// Plain data cannot fail to be text.
fn to_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let _ = serde_json::to_writer(out, value);
}

/// The end of a list without members.
const EMPTY: &str = "[]";

struct Listing {
    look: Look,
    counts: Counts,
    /// Those still to come.
    services: IntoIter<Arc<Service>>,
    /// The one under way, and how many of its servers are written.
    now: Option<(Arc<Service>, usize)>,
    is_first: bool,
    /// What comes before the next service.
    begin: String,
    /// What comes after the last; none once it was written.
    end: Option<String>,
}

impl Listing {
    /// `frame` is the whole answer with an empty list of services, to be filled.
    fn new(look: Look, counts: Counts, services: Vec<Arc<Service>>, frame: &str) -> Self {
        const SERVICES: &str = "\"services\":[";
        let at = frame.find(SERVICES).map_or(0, |at| at + SERVICES.len());
        let (begin, end) = frame.split_at(at);
        Self {
            look,
            counts,
            services: services.into_iter(),
            now: None,
            is_first: true,
            begin: begin.to_owned(),
            end: Some(end.to_owned()),
        }
    }

    /// Writes the next service without its servers.
    fn begin(&mut self, out: &mut Vec<u8>, service: Arc<Service>) {
        if !std::mem::take(&mut self.is_first) {
            out.push(b',');
        }
        write(out, &self.look.service_row(&service, self.counts));
        // Its list of servers is its last part, and empty so far.
        debug_assert!(out.ends_with(b"[]}"));
        out.truncate(out.len() - EMPTY.len());
        self.now = Some((service, 0));
    }

    fn server(&self, out: &mut Vec<u8>, service: &Service, number: usize) {
        if number > 0 {
            out.push(b',');
        }
        if let Some(server) = service.servers.get(number) {
            write(out, &self.look.server_row(server, self.counts));
        }
    }
}

impl Pieces for Listing {
    fn next(&mut self) -> Option<Vec<u8>> {
        self.end.as_ref()?;
        let mut out = std::mem::take(&mut self.begin).into_bytes();
        while out.len() < PIECE_BYTES {
            match self.now.take() {
                Some((service, number)) if number < service.servers.len() => {
                    self.server(&mut out, &service, number);
                    self.now = Some((service, number + 1));
                }
                Some(_) => out.extend_from_slice(b"]}"),
                None => match self.services.next() {
                    Some(service) => self.begin(&mut out, service),
                    None => {
                        out.extend(self.end.take().unwrap_or_default().into_bytes());
                        break;
                    }
                },
            }
        }
        Some(out)
    }
}

enum At {
    Begin,
    After(Prefix),
    End,
}

struct PrefixList {
    prefixes: Arc<Prefixes>,
    at: At,
}

impl Pieces for PrefixList {
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let from = match self.at {
            At::Begin => {
                out.push(b'{');
                Unbounded
            }
            At::After(last) => Excluded(last),
            At::End => return None,
        };
        let mut is_first = matches!(self.at, At::Begin);
        for (prefix, guard) in self.prefixes.range((from, Unbounded)) {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            write(&mut out, prefix);
            out.push(b':');
            write(&mut out, guard);
            if out.len() >= PIECE_BYTES {
                self.at = At::After(*prefix);
                return Some(out);
            }
        }
        out.push(b'}');
        self.at = At::End;
        Some(out)
    }
}

/// The outcome of a check: each command is done, or one is refused and the others therefore
/// not carried out. Of a hundred thousand no more is kept than that.
pub(super) struct Checked {
    commands: usize,
    /// The one that was refused, as text.
    refused: Option<(usize, String)>,
    /// What is said of each other one, as text.
    others: String,
    /// Those written.
    written: usize,
    is_over: bool,
}

impl Checked {
    pub(super) fn new(commands: usize, checked: Result<(), (usize, Refusal)>) -> Self {
        let refused = checked.err();
        let others = match &refused {
            Some((place, _)) => to_text(&not_carried_out(*place)),
            None => "null".into(),
        };
        Self {
            commands,
            refused: refused.map(|(place, refusal)| (place, to_text(&refusal))),
            others,
            written: 0,
            is_over: false,
        }
    }

    fn of(&self, number: usize) -> &str {
        match &self.refused {
            Some((place, refusal)) if *place == number => refusal,
            _ => &self.others,
        }
    }
}

impl Pieces for Checked {
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let mut out = Vec::new();
        if self.written == 0 {
            out.extend_from_slice(b"{\"refusals\":[");
        }
        while self.written < self.commands && out.len() < PIECE_BYTES {
            if self.written > 0 {
                out.push(b',');
            }
            out.extend_from_slice(self.of(self.written).as_bytes());
            self.written += 1;
        }
        self.is_over = self.written == self.commands;
        if self.is_over {
            out.extend_from_slice(b"]}");
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests;
