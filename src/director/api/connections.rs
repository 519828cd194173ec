//! Connections as lines of JSON, read from the live table a piece at a time: a million of
//! them take no more memory than a few thousand.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cli::api::{ConnectionRow, ExplainRequest, Explanation};
use dataplane::address::{Bits, address};
use dataplane::connection::state;
use dataplane::connection::table::{Row, Table};
use dataplane::connection::word::Word;
use dataplane::time::{TICKS_PER_S, is_due};
use futures_util::stream;
use sched::service::Family;

use crate::director::clock;
use crate::director::explain::{self, World};

/// How many entries are looked at before others get a turn.
const ENTRIES: u32 = 4096;

/// Where connections are listed from.
pub trait ConnectionSource: Send + Sync {
    /// One more than the highest index there may be.
    fn high_water(&self) -> u32;
    /// The connection at an index, if there is one.
    fn row(&self, index: u32) -> Option<ConnectionRow>;
    /// What would become of a packet, or what is wrong with the request.
    fn explain(&self, world: &World, request: &ExplainRequest) -> Result<Explanation, String>;
}

/// The live connection table.
#[derive(Debug)]
pub struct TableSource(pub Arc<Table>);

impl ConnectionSource for TableSource {
    fn high_water(&self) -> u32 {
        self.0.high_water()
    }

    fn row(&self, index: u32) -> Option<ConnectionRow> {
        self.0.read(index).map(|row| shown(&row, clock::now()))
    }

    fn explain(&self, world: &World, request: &ExplainRequest) -> Result<Explanation, String> {
        explain::explain(world, &self.0, clock::now(), request)
    }
}

/// The port that IPVS lists a retired template with.
const RETIRED: u16 = 0xffff;

fn shown(row: &Row, now: u32) -> ConnectionRow {
    let key = &row.key;
    let port = |port| match Word(row.word).is_retired() {
        true => RETIRED,
        false => port,
    };
    let left = match is_due(row.expires, now) {
        true => 0,
        false => row.expires.wrapping_sub(now),
    };
    let ip = |family: Family, bits: Bits| -> IpAddr { address(family, bits) };
    ConnectionRow {
        protocol: key.protocol,
        expires_s: left / TICKS_PER_S,
        state: state::name(key.protocol, key.template, Word(row.word).state()).into(),
        client: ip(key.family, key.client.address),
        // Templates of one network differ in it, and IPVS lists none.
        client_port: if key.template { 0 } else { key.client.port },
        virtual_address: ip(key.family, key.virtual_.address),
        virtual_port: port(key.virtual_.port),
        server: ip(row.real_family, row.real.address),
        server_port: port(row.real.port),
    }
}

/// The answer with all connections.
pub fn stream(source: Arc<dyn ConnectionSource>) -> Response {
    let pieces = stream::unfold((source, 0), |(source, from)| async move {
        let end = source.high_water();
        let mut from = from;
        while from < end {
            let to = end.min(from + ENTRIES);
            let lines = lines(&*source, from, to);
            from = to;
            if !lines.is_empty() {
                return Some((Ok::<_, Infallible>(Bytes::from(lines)), (source, from)));
            }
            tokio::task::yield_now().await;
        }
        None
    });
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(pieces)).into_response()
}

fn lines(source: &dyn ConnectionSource, from: u32, to: u32) -> Vec<u8> {
    let mut lines = Vec::new();
    for row in (from..to).filter_map(|index| source.row(index)) {
        // Writing plain data to memory cannot fail.
        if serde_json::to_writer(&mut lines, &row).is_ok() {
            lines.push(b'\n');
        }
    }
    lines
}
