//! What must change so that a director is what its file says. An edit keeps what stays:
//! a service or server that is in both is edited, never removed and added again, so its
//! connections and counters go on.

use sched::command::Command;

use super::{Config, Running, Service, Tunables};
use crate::api::ServiceRow;

/// The commands, to be carried out all or none. `defaults` are the values of tunables that
/// the file does not name. The order of servers that are in both does not change.
pub fn transaction(config: &Config, running: &Running, defaults: &Tunables) -> Vec<Command> {
    let mut commands = Vec::new();
    settings(config, running, defaults, &mut commands);
    for row in &running.table.services {
        if !config.services.iter().any(|s| s.key == row.service) {
            commands.push(Command::DeleteService {
                service: row.service,
            });
        }
    }
    for service in &config.services {
        let rows = &running.table.services;
        match rows.iter().find(|row| row.service == service.key) {
            Some(row) => edit(service, row, &mut commands),
            None => add(service, &mut commands),
        }
    }
    commands
}

fn settings(config: &Config, running: &Running, defaults: &Tunables, commands: &mut Vec<Command>) {
    for (name, now) in &running.tunables {
        let wanted = config.tunables.get(name).or_else(|| defaults.get(name));
        if let Some(value) = wanted.filter(|value| *value != now) {
            commands.push(Command::SetTunable {
                name: name.clone(),
                value: value.clone(),
            });
        }
    }
    if config.timeouts != running.table.timeouts {
        commands.push(Command::SetTimeouts {
            tcp_s: config.timeouts.tcp_s,
            tcp_fin_s: config.timeouts.tcp_fin_s,
            udp_s: config.timeouts.udp_s,
        });
    }
    let gone = running.marks.iter();
    let gone = gone.filter(|rule| !config.marks.contains(rule));
    commands.extend(gone.cloned().map(Command::DeleteFwmark));
    let new = config.marks.iter();
    let new = new.filter(|rule| !running.marks.contains(rule));
    commands.extend(new.cloned().map(Command::AddFwmark));
}

fn add(wanted: &Service, commands: &mut Vec<Command>) {
    let service = wanted.key;
    commands.push(Command::AddService {
        service,
        spec: wanted.spec.clone(),
    });
    for &(server, spec) in &wanted.servers {
        commands.push(Command::AddServer {
            service,
            server,
            spec,
        });
    }
}

fn edit(wanted: &Service, row: &ServiceRow, commands: &mut Vec<Command>) {
    let service = wanted.key;
    if wanted.spec != row.spec {
        commands.push(Command::EditService {
            service,
            spec: wanted.spec.clone(),
        });
    }
    for known in &row.servers {
        if !wanted.servers.iter().any(|(key, _)| *key == known.server) {
            commands.push(Command::DeleteServer {
                service,
                server: known.server,
            });
        }
    }
    for &(server, spec) in &wanted.servers {
        match row.servers.iter().find(|known| known.server == server) {
            Some(known) if known.spec == spec => {}
            Some(_) => commands.push(Command::EditServer {
                service,
                server,
                spec,
            }),
            None => commands.push(Command::AddServer {
                service,
                server,
                spec,
            }),
        }
    }
}
