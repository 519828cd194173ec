//! One look, for scripts: plain columns, or JSON.

use std::io::{self, Write};

use serde_json::json;

use super::number::short;
use super::reading::{Reading, Traffic};
use super::state::{Row, State};
use crate::commands::write_json;
use crate::shell::grid::{self, Cell};
use crate::shell::words;

/// Prints a reading; of services and servers those that the filter takes.
pub fn reading(out: &mut dyn Write, reading: &Reading, filter: &str, json: bool) -> io::Result<()> {
    let mut state = State::new(std::time::Duration::ZERO, false);
    state.filter = filter.to_owned();
    state.reading = Some(reading.clone());
    let rows = state.rows();
    if json {
        return write_json(out, &filtered(reading, &rows));
    }
    heading(out, reading)?;
    services(out, &rows)?;
    workers(out, reading)?;
    counters(out, reading)
}

/// The same reading with the filtered services alone; all else as it is.
fn filtered(reading: &Reading, rows: &[Row<'_>]) -> serde_json::Value {
    let mut whole = json!(reading);
    let services = rows.iter().filter_map(|row| match row {
        Row::Service(service) => Some(service),
        Row::Server(..) => None,
    });
    let services = services.map(|service| {
        let servers = rows.iter().filter_map(|row| match row {
            Row::Server(of, server) if of.service == service.service => Some(server),
            _ => None,
        });
        let mut value = json!(service);
        value["servers"] = json!(servers.collect::<Vec<_>>());
        value
    });
    whole["services"] = services.collect();
    whole["drops_per_s"] = json!((reading.drops_per_s() * 1000.0).round() / 1000.0);
    whole
}

fn heading(out: &mut dyn Write, reading: &Reading) -> io::Result<()> {
    let total = &reading.total;
    writeln!(
        out,
        "lvx {}, up {:.0} s; rates over {:.1} s",
        reading.version,
        reading.up_s,
        reading.over_s.unwrap_or(0.0)
    )?;
    writeln!(
        out,
        "{} of {} connections, {} new/s; in {} pkt/s {} B/s, out {} pkt/s {} B/s; {} drops/s\n",
        total.live(),
        reading.connections_max,
        short(total.connections_per_s),
        short(total.in_packets_per_s),
        short(total.in_bytes_per_s),
        short(total.out_packets_per_s),
        short(total.out_bytes_per_s),
        short(reading.drops_per_s())
    )
}

fn right(texts: &[&str]) -> impl Iterator<Item = Cell> {
    let texts: Vec<_> = texts
        .iter()
        .map(|text| Cell::Right((*text).into()))
        .collect();
    texts.into_iter()
}

fn services(out: &mut dyn Write, rows: &[Row<'_>]) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "no services");
    }
    let mut lines = vec![vec![Cell::text("SERVICE / SERVER"), Cell::text("WEIGHT")]];
    lines[0].extend(right(&[
        "ACTIVE", "INACT", "CPS", "INPPS", "OUTPPS", "INBPS", "OUTBPS",
    ]));
    lines.extend(rows.iter().map(|row| {
        let (name, weight) = match row {
            Row::Service(row) => (words::service(&row.service), row.spec.scheduler.to_string()),
            Row::Server(_, row) => (
                format!("  {}", words::server(&row.server)),
                row.spec.weight.to_string(),
            ),
        };
        let mut line = vec![Cell::text(name), Cell::text(weight)];
        line.extend(cells(row.traffic()));
        line
    }));
    grid::write(out, &lines)
}

fn cells(traffic: &Traffic) -> Vec<Cell> {
    let mut cells = vec![Cell::number(traffic.active), Cell::number(traffic.inactive)];
    cells.extend(traffic.rates().map(|rate| Cell::Right(short(rate))));
    cells
}

fn workers(out: &mut dyn Write, reading: &Reading) -> io::Result<()> {
    let mut lines: Vec<Vec<Cell>> = vec![
        right(&[
            "WORKER", "CORE", "BUSY %", "IN/S", "OUT/S", "HOST/S", "DROPS/S",
        ])
        .collect(),
    ];
    lines.extend(reading.workers.iter().map(|row| {
        let rates = [
            row.busy_share * 100.0,
            row.received_per_s,
            row.sent_per_s,
            row.to_host_per_s,
            row.dropped_per_s,
        ];
        let mut line = vec![
            Cell::number(row.worker as u64),
            Cell::number(row.core as u64),
        ];
        line.extend(rates.map(|rate| Cell::Right(short(rate))));
        line
    }));
    writeln!(out)?;
    grid::write(out, &lines)
}

fn counters(out: &mut dyn Write, reading: &Reading) -> io::Result<()> {
    let counted = reading.counters.iter().filter(|row| row.total > 0);
    let mut lines = vec![vec![
        Cell::text("DROPS AND EVENTS"),
        Cell::Right("TOTAL".into()),
        Cell::Right("PER S".into()),
    ]];
    lines.extend(counted.map(|row| {
        vec![
            Cell::text(&row.name),
            Cell::number(row.total),
            Cell::Right(short(row.per_s)),
        ]
    }));
    writeln!(out)?;
    grid::write(out, &lines)
}
