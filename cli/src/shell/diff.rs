//! What a candidate would change: which services, servers and settings, and how many live
//! connections each change touches.

use std::io::{self, Write};

use sched::command::Command;
use sched::prefix::Guard;
use sched::service::{Family, ServiceKey};
use serde::Serialize;

use super::words;
use crate::api::{ServerRow, ServiceRow, Table};
use crate::client::Values;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What happens.
    pub change: Kind,
    /// The service, server or setting.
    pub what: String,
    /// The service of a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// As it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Live connections of what is removed or changed.
    pub live_connections: u64,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It changes.
    Changed,
}

/// All that `commands` change, whose outcome is `after`.
pub fn between(
    commands: &[Command],
    before: &Table,
    mut after: Table,
    tunables: &Values,
) -> Vec<Difference> {
    // Both sides in one order.
    let mut before = before.clone();
    before.services.sort_by_key(|row| row.service);
    after.services.sort_by_key(|row| row.service);
    let mut found = tables(&before, &after);
    found.extend(settings(commands, &before, &after, tunables));
    found
}

/// The differences of services and servers: services in the tables' order, each followed by
/// its servers.
pub fn tables(before: &Table, after: &Table) -> Vec<Difference> {
    let mut found = Vec::new();
    for row in &before.services {
        match after
            .services
            .iter()
            .find(|other| other.service == row.service)
        {
            Some(other) => service(row, other, &mut found),
            None => gone(row, &mut found),
        }
    }
    for row in &after.services {
        if !before
            .services
            .iter()
            .any(|other| other.service == row.service)
        {
            come(row, &mut found);
        }
    }
    found
}

/// The differences that commands other than those of services and servers make.
pub fn settings(
    commands: &[Command],
    before: &Table,
    after: &Table,
    tunables: &Values,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let timeouts = |table: &Table| {
        let t = table.timeouts;
        format!("tcp {} tcpfin {} udp {}", t.tcp_s, t.tcp_fin_s, t.udp_s)
    };
    if before.timeouts != after.timeouts {
        found.push(changed("timeouts", timeouts(before), timeouts(after)));
    }
    for (place, command) in commands.iter().enumerate() {
        match command {
            Command::SetTunable { name, value } => {
                let later = &commands[place + 1..];
                let again =
                    |c: &Command| matches!(c, Command::SetTunable { name: n, .. } if n == name);
                let now = tunables
                    .get(name)
                    .map(crate::commands::plain)
                    .unwrap_or_default();
                if !later.iter().any(again) && now != *value {
                    found.push(changed(name, now, value.clone()));
                }
            }
            Command::AddFwmark(rule) => found.push(one(Kind::Added, mark(rule))),
            Command::SetPrefixes { guard, prefixes } => {
                let what = match guard {
                    Some(Guard::Allow) => "let in",
                    Some(Guard::Deny) => "kept out",
                    None => "named no more",
                };
                let text = match &prefixes[..] {
                    [only] => format!("prefix {only} {what}"),
                    all => format!("{} prefixes {what}", all.len()),
                };
                found.push(one(Kind::Changed, text));
            }
            Command::DeleteFwmark(rule) => found.push(one(Kind::Removed, mark(rule))),
            Command::Zero { service } => {
                let of = service.map_or("of every service".to_owned(), |s| words::service(&s));
                found.push(one(Kind::Changed, format!("counters {of} to zero")));
            }
            _ => {}
        }
    }
    found
}

/// Writes differences as people read them.
pub fn write(out: &mut dyn Write, differences: &[Difference]) -> io::Result<()> {
    if differences.is_empty() {
        return writeln!(out, "no differences");
    }
    let texts: Vec<String> = differences.iter().map(text).collect();
    let width = texts
        .iter()
        .map(|text| text.chars().count())
        .max()
        .unwrap_or(0);
    for (difference, text) in differences.iter().zip(&texts) {
        match difference.live_connections {
            0 => writeln!(out, "{text}")?,
            live => writeln!(out, "{text:<width$}  {}", connections(live))?,
        }
    }
    // A service's connections are its servers': none counts twice.
    let servers = differences.iter().filter(|d| d.service.is_some());
    let touched: u64 = servers.map(|d| d.live_connections).sum();
    let changes = match differences.len() {
        1 => "1 change".to_owned(),
        n => format!("{n} changes"),
    };
    writeln!(out, "{changes}, {} touched", connections(touched))
}

fn connections(live: u64) -> String {
    match live {
        1 => "1 live connection".to_owned(),
        n => format!("{n} live connections"),
    }
}

fn text(difference: &Difference) -> String {
    let sign = match difference.change {
        Kind::Added => '+',
        Kind::Removed => '-',
        Kind::Changed => '~',
    };
    let indent = if difference.service.is_some() {
        "  "
    } else {
        ""
    };
    let what = &difference.what;
    let mut text = format!("{sign} {indent}{what}");
    match (&difference.before, &difference.after) {
        (Some(before), Some(after)) => {
            let shown = |text: &str| {
                if text.is_empty() {
                    "nothing".to_owned()
                } else {
                    text.to_owned()
                }
            };
            text += &format!("  {} -> {}", shown(before), shown(after));
        }
        (Some(only), None) | (None, Some(only)) => text += &format!("  {only}"),
        (None, None) => {}
    }
    text
}

fn one(change: Kind, what: String) -> Difference {
    Difference {
        change,
        what,
        service: None,
        before: None,
        after: None,
        live_connections: 0,
    }
}

fn changed(what: &str, before: String, after: String) -> Difference {
    Difference {
        before: Some(before),
        after: Some(after),
        ..one(Kind::Changed, what.to_owned())
    }
}

fn mark(rule: &sched::command::FwmarkRule) -> String {
    let ports: Vec<_> = rule.ports.iter().map(u16::to_string).collect();
    let protocol = rule.protocol.name();
    format!(
        "fwmark {} {} {protocol} {}",
        rule.mark,
        rule.address,
        ports.join(",")
    )
}

fn service(before: &ServiceRow, after: &ServiceRow, found: &mut Vec<Difference>) {
    let key = &before.service;
    let family = key.family();
    let parts = |row: &ServiceRow| service_parts(family, row);
    let other = differing(&parts(before), &parts(after));
    let mut servers = Vec::new();
    for row in &before.servers {
        match after
            .servers
            .iter()
            .find(|other| other.server == row.server)
        {
            Some(other) => server(key, row, other, &mut servers),
            None => servers.push(whole_server(Kind::Removed, key, row)),
        }
    }
    let is_new = |row: &&ServerRow| {
        !before
            .servers
            .iter()
            .any(|other| other.server == row.server)
    };
    let new = after.servers.iter().filter(is_new);
    servers.extend(new.map(|row| whole_server(Kind::Added, key, row)));
    match other {
        Some((old, new)) => found.push(Difference {
            live_connections: before.servers.iter().map(live).sum(),
            ..changed(&named(key), old, new)
        }),
        // The heading of its servers.
        None if !servers.is_empty() => found.push(one(Kind::Changed, named(key))),
        None => {}
    }
    found.extend(servers);
}

fn server(key: &ServiceKey, before: &ServerRow, after: &ServerRow, found: &mut Vec<Difference>) {
    let parts = |row: &ServerRow| words::server_parts(&row.spec);
    if let Some((old, new)) = differing(&parts(before), &parts(after)) {
        found.push(Difference {
            service: Some(words::service(key)),
            live_connections: live(before),
            ..changed(
                &format!("server {}", words::server(&before.server)),
                old,
                new,
            )
        });
    }
}

fn gone(row: &ServiceRow, found: &mut Vec<Difference>) {
    found.push(Difference {
        before: Some(whole(row.service.family(), row)),
        live_connections: row.servers.iter().map(live).sum(),
        ..one(Kind::Removed, named(&row.service))
    });
    let servers = row.servers.iter();
    found.extend(servers.map(|server| whole_server(Kind::Removed, &row.service, server)));
}

fn come(row: &ServiceRow, found: &mut Vec<Difference>) {
    found.push(Difference {
        after: Some(whole(row.service.family(), row)),
        ..one(Kind::Added, named(&row.service))
    });
    let servers = row.servers.iter();
    found.extend(servers.map(|server| whole_server(Kind::Added, &row.service, server)));
}

fn whole(family: Family, row: &ServiceRow) -> String {
    words::joined(&service_parts(family, row))
}

fn service_parts(family: Family, row: &ServiceRow) -> Vec<(&'static str, String)> {
    let mut parts = words::service_parts(family, &row.spec);
    parts.push(("limits", words::limits(row.limits.as_ref())));
    parts
}

fn whole_server(change: Kind, key: &ServiceKey, row: &ServerRow) -> Difference {
    let text = words::joined(&words::server_parts(&row.spec));
    let removed = change == Kind::Removed;
    Difference {
        service: Some(words::service(key)),
        before: removed.then(|| text.clone()),
        after: (!removed).then_some(text),
        live_connections: if removed { live(row) } else { 0 },
        ..one(change, format!("server {}", words::server(&row.server)))
    }
}

fn named(key: &ServiceKey) -> String {
    format!("service {}", words::service(key))
}

fn live(row: &ServerRow) -> u64 {
    u64::from(row.active) + u64::from(row.inactive)
}

/// The parts that differ, before and after.
fn differing(
    before: &[(&'static str, String)],
    after: &[(&'static str, String)],
) -> Option<(String, String)> {
    let pairs = before.iter().zip(after).filter(|(a, b)| a.1 != b.1);
    let (old, new): (Vec<_>, Vec<_>) = pairs.map(|(a, b)| (a.clone(), b.clone())).unzip();
    (!old.is_empty() || !new.is_empty()).then(|| (words::joined(&old), words::joined(&new)))
}
