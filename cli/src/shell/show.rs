//! What `show` prints: for people in columns, for programs as the API's own JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;

use sched::service::{Protocol, ServiceKey};
use serde_json::{Value, json};

use super::action::{Columns, Filter, Show, What};
use super::appliance::Appliance;
use super::failure::Failure;
use super::fault::{Fault, nearest};
use super::grid::{self, Cell};
use super::words;
use crate::api::{ConnectionRow, Part, ServerRow, ServiceRow, Table};
use crate::client::Values;
use crate::commands::{write_json, write_marks, write_values};

/// Prints what `show` asks for. `candidate` stands for the running table where there is one.
pub fn show(
    out: &mut dyn Write,
    director: &mut dyn Appliance,
    candidate: Option<Table>,
    show: &Show,
) -> Result<(), Failure> {
    let Show { what, filter, json } = show;
    let part = match (what, &filter.service) {
        (What::Timeouts, _) => Part::NoServices,
        (_, Some(key)) => Part::Service(*key),
        (_, None) => Part::All,
    };
    let table = |director: &mut dyn Appliance| match candidate {
        Some(table) => Ok(table),
        None => director.table_part(&part),
    };
    match what {
        What::Services(columns) => {
            let services = filtered(table(director)?, filter)?;
            match json {
                true => write_json(out, &services)?,
                false => write_services(out, &services, *columns)?,
            }
        }
        What::Servers(columns) => {
            let services = filtered(table(director)?, filter)?;
            match json {
                true => write_json(out, &flat(&services))?,
                false => write_servers(out, &services, *columns)?,
            }
        }
        What::Connections {
            limit,
            count: false,
        } => {
            connections(out, director, filter, *limit, *json)?;
        }
        What::Connections { .. } => count(out, director, filter, *json)?,
        What::Counters { all } => {
            let mut counters = director.counters()?;
            if !all {
                counters.retain(|_, count| *count != 0);
            }
            write_values(out, &counters, *json)?;
        }
        What::Tunables(name) => {
            let tunables = named(director.tunables()?, name.as_deref())?;
            write_values(out, &tunables, *json)?;
        }
        What::Fwmarks => {
            let rules = director.fwmarks()?;
            match json {
                true => write_json(out, &rules)?,
                false => write_marks(out, &rules)?,
            }
        }
        What::Timeouts => {
            let timeouts = table(director)?.timeouts;
            let value = serde_json::to_value(timeouts).map_err(io::Error::from)?;
            let values: Values = serde_json::from_value(value).map_err(io::Error::from)?;
            write_values(out, &values, *json)?;
        }
        What::Status => status(out, director, *json)?,
    }
    Ok(())
}

fn named(mut tunables: Values, name: Option<&str>) -> Result<Values, Failure> {
    let Some(name) = name else {
        return Ok(tunables);
    };
    let short = name.strip_prefix("net.ipv4.vs.").unwrap_or(name);
    if !tunables.contains_key(short) {
        return Err(no_tunable(short, &tunables).into());
    }
    tunables.retain(|known, _| known == short);
    Ok(tunables)
}

/// The fault of a name that no tunable has.
pub fn no_tunable(name: &str, tunables: &Values) -> Fault {
    Fault::whole(match nearest(name, tunables.keys().map(String::as_str)) {
        Some(known) => format!("no tunable is called `{name}`; did you mean `{known}`?"),
        None => format!("no tunable is called `{name}`; `show tunables` lists them"),
    })
}

fn filtered(table: Table, filter: &Filter) -> Result<Vec<ServiceRow>, Failure> {
    let mut services = table.services;
    if let Some(key) = &filter.service {
        services.retain(|row| row.service == *key);
        if services.is_empty() {
            let message = format!("there is no service {}", words::service(key));
            return Err(Fault::whole(message).into());
        }
    }
    let by_server = filter.server.is_some() || filter.state.is_some();
    for row in &mut services {
        row.servers.sort_by_key(|server| server.server);
        row.servers.retain(|server| {
            let meant = filter.server.is_none_or(|which| which.is(&server.server));
            meant
                && filter
                    .state
                    .as_deref()
                    .is_none_or(|wanted| wanted == state(server))
        });
    }
    services.retain(|row| !by_server || !row.servers.is_empty());
    services.sort_by_key(|row| row.service);
    Ok(services)
}

fn state(row: &ServerRow) -> &'static str {
    match row.spec.weight {
        0 => "drained",
        _ => "ready",
    }
}

fn headings(names: &[&str]) -> Vec<Cell> {
    let columns = names.iter().map(|name| match name.strip_prefix('>') {
        Some(name) => Cell::Right(name.to_owned()),
        None => Cell::text(*name),
    });
    columns.collect()
}

fn column_names(columns: Columns) -> &'static [&'static str] {
    match columns {
        Columns::Plain => &[
            "FORWARDING",
            "STATE",
            ">WEIGHT",
            ">ACTIVE",
            ">INACTIVE",
            ">PERSISTENT",
        ],
        Columns::Stats => &[">CONNS", ">IN PKTS", ">OUT PKTS", ">IN BYTES", ">OUT BYTES"],
        Columns::Rates => &[">CONNS/S", ">IN PKT/S", ">OUT PKT/S", ">IN B/S", ">OUT B/S"],
        Columns::Thresholds => &["STATE", ">UPPER", ">LOWER", ">ACTIVE", ">INACTIVE"],
    }
}

fn cells(row: &ServerRow, columns: Columns) -> Vec<Cell> {
    match columns {
        Columns::Plain => vec![
            Cell::text(words::forwarding(row.spec.forwarding)),
            Cell::text(state(row)),
            Cell::number(row.spec.weight),
            Cell::number(row.active),
            Cell::number(row.inactive),
            Cell::number(row.persistent),
        ],
        Columns::Thresholds => vec![
            Cell::text(state(row)),
            Cell::number(row.spec.upper_threshold),
            Cell::number(row.spec.lower_threshold),
            Cell::number(row.active),
            Cell::number(row.inactive),
        ],
        Columns::Stats => numbers(&serde_json::to_value(row.stats)),
        Columns::Rates => numbers(&serde_json::to_value(row.rates)),
    }
}

fn numbers(traffic: &serde_json::Result<Value>) -> Vec<Cell> {
    const NAMES: [&str; 5] = [
        "connections",
        "in_packets",
        "out_packets",
        "in_bytes",
        "out_bytes",
    ];
    let of = |name| traffic.as_ref().ok()?.get(name)?.as_u64();
    NAMES.map(|name| Cell::number(of(name).unwrap_or(0))).into()
}

fn write_services(
    out: &mut dyn Write,
    services: &[ServiceRow],
    columns: Columns,
) -> io::Result<()> {
    if services.is_empty() {
        return writeln!(out, "no services");
    }
    let mut names = vec!["SERVICE / SERVER"];
    names.extend(column_names(columns));
    let mut rows = vec![headings(&names)];
    for row in services {
        let name = words::service(&row.service);
        rows.push(match columns {
            Columns::Stats => with(name, numbers(&serde_json::to_value(row.stats))),
            Columns::Rates => with(name, numbers(&serde_json::to_value(row.rates))),
            _ => {
                let parts = words::service_parts(row.service.family(), &row.spec);
                vec![Cell::Across(format!("{name}  {}", words::joined(&parts)))]
            }
        });
        let servers = row.servers.iter();
        rows.extend(
            servers.map(|s| with(format!("  {}", words::server(&s.server)), cells(s, columns))),
        );
    }
    grid::write(out, &rows)
}

fn with(name: String, cells: Vec<Cell>) -> Vec<Cell> {
    let mut row = vec![Cell::text(name)];
    row.extend(cells);
    row
}

fn write_servers(out: &mut dyn Write, services: &[ServiceRow], columns: Columns) -> io::Result<()> {
    let mut names = vec!["SERVICE", "SERVER"];
    names.extend(column_names(columns));
    let mut rows = vec![headings(&names)];
    for row in services {
        rows.extend(row.servers.iter().map(|server| {
            let mut line = vec![
                Cell::text(words::service(&row.service)),
                Cell::text(words::server(&server.server)),
            ];
            line.extend(cells(server, columns));
            line
        }));
    }
    match rows.len() {
        1 => writeln!(out, "no servers"),
        _ => grid::write(out, &rows),
    }
}

/// Server rows that name their service.
fn flat(services: &[ServiceRow]) -> Vec<Value> {
    let rows = services.iter().flat_map(|row| {
        row.servers.iter().map(|server| {
            let mut value = json!(server);
            value["service"] = json!(row.service);
            value["state"] = state(server).into();
            value
        })
    });
    rows.collect()
}

impl Filter {
    fn takes(&self, row: &ConnectionRow) -> bool {
        let service = self.service.is_none_or(|key| is_of(row, &key));
        let server = self.server.is_none_or(|which| {
            which.address == row.server && which.port.is_none_or(|port| port == row.server_port)
        });
        let client = self.client.is_none_or(|network| network.has(row.client));
        let state = self.state.as_ref().is_none_or(|state| *state == row.state);
        service && server && client && state
    }
}

/// Connections do not name their service: those of one by address go to its address; those
/// of a mark cannot be told, but for its templates.
fn is_of(row: &ConnectionRow, key: &ServiceKey) -> bool {
    match *key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            row.protocol == protocol.number()
                && row.virtual_address == address
                && (port == 0 || row.virtual_port == port)
        }
        ServiceKey::Fwmark { mark, .. } => {
            let as_address = match row.virtual_address {
                IpAddr::V4(address) => address.to_bits(),
                IpAddr::V6(address) => address.to_bits() as u32,
            };
            row.protocol == 0 && as_address == mark.get()
        }
    }
}

/// Row by row: memory stays flat however many there are.
fn connections(
    out: &mut dyn Write,
    director: &mut dyn Appliance,
    filter: &Filter,
    limit: Option<u32>,
    json: bool,
) -> Result<(), Failure> {
    if !json {
        writeln!(
            out,
            "PROTO  EXPIRES  {:<12} {:<22} {:<22} SERVER",
            "STATE", "CLIENT", "SERVICE"
        )?;
    }
    let mut left = limit.unwrap_or(u32::MAX);
    let mut written = Ok(());
    director.connections(&mut |row| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        if filter.takes(&row) {
            left -= 1;
            written = match json {
                true => json_line(out, &row),
                false => connection(out, &row),
            };
        }
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    Ok(written?)
}

fn json_line(out: &mut dyn Write, row: &ConnectionRow) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    writeln!(out)
}

fn connection(out: &mut dyn Write, row: &ConnectionRow) -> io::Result<()> {
    let protocol = Protocol::from_number(row.protocol).map_or("ip", Protocol::name);
    let expires = format!("{}:{:02}", row.expires_s / 60, row.expires_s % 60);
    writeln!(
        out,
        "{protocol:<5}  {expires:>7}  {:<12} {:<22} {:<22} {}",
        row.state,
        words::endpoint(row.client, row.client_port),
        words::endpoint(row.virtual_address, row.virtual_port),
        words::endpoint(row.server, row.server_port)
    )
}

fn count(
    out: &mut dyn Write,
    director: &mut dyn Appliance,
    filter: &Filter,
    json: bool,
) -> Result<(), Failure> {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    director.connections(&mut |row| {
        if filter.takes(&row) {
            *states.entry(row.state).or_default() += 1;
        }
        ControlFlow::Continue(())
    })?;
    states.insert("total".to_owned(), states.values().sum());
    let values: Values = states.into_iter().map(|(k, v)| (k, v.into())).collect();
    Ok(write_values(out, &values, json)?)
}

fn status(out: &mut dyn Write, director: &mut dyn Appliance, json: bool) -> Result<(), Failure> {
    let table = director.table()?;
    let waiting = director.waiting()?;
    let servers = || table.services.iter().flat_map(|row| &row.servers);
    let live: u64 = servers()
        .map(|s| u64::from(s.active) + u64::from(s.inactive))
        .sum();
    let rates: u64 = table.services.iter().map(|row| row.rates.connections).sum();
    let mut values = Values::from([
        ("version".to_owned(), table.version.clone().into()),
        ("services".to_owned(), table.services.len().into()),
        ("servers".to_owned(), servers().count().into()),
        (
            "servers_drained".to_owned(),
            servers().filter(|s| s.spec.weight == 0).count().into(),
        ),
        ("connections".to_owned(), live.into()),
        ("connections_per_s".to_owned(), rates.into()),
        ("connections_max".to_owned(), table.size.into()),
    ]);
    if let Some(waiting) = waiting {
        values.insert("confirm_within_s".to_owned(), waiting.left_s.into());
    }
    Ok(write_values(out, &values, json)?)
}
