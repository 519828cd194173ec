//! What must change so that a director is what its file says. An edit keeps what stays:
//! a service or server that is in both is edited, never removed and added again, so its
//! connections and counters go on.

use sched::command::Command;
use sched::prefix::changes_by_guard;

use super::{Config, Service, Tunables};

/// The commands that lead from one configuration to another, to be carried out all or
/// none. `defaults` are the values of tunables that neither names. The order of servers
/// that are in both does not change.
pub fn transaction(from: &Config, to: &Config, defaults: &Tunables) -> Vec<Command> {
    let mut commands = Vec::new();
    settings(from, to, defaults, &mut commands);
    prefixes(from, to, &mut commands);
    for now in &from.services {
        if !to.services.iter().any(|then| then.key == now.key) {
            commands.push(Command::DeleteService { service: now.key });
        }
    }
    for then in &to.services {
        match from.services.iter().find(|now| now.key == then.key) {
            Some(now) => edit(now, then, &mut commands),
            None => add(then, &mut commands),
        }
    }
    commands
}

fn settings(from: &Config, to: &Config, defaults: &Tunables, commands: &mut Vec<Command>) {
    let names: std::collections::BTreeSet<_> =
        from.tunables.keys().chain(to.tunables.keys()).collect();
    for name in names {
        let [now, then] = [from, to].map(|c| c.tunables.get(name).or_else(|| defaults.get(name)));
        if let Some(value) = then.filter(|_| now != then) {
            commands.push(Command::SetTunable {
                name: name.clone(),
                value: value.clone(),
            });
        }
    }
    if from.timeouts != to.timeouts {
        commands.push(Command::SetTimeouts {
            tcp_s: to.timeouts.tcp_s,
            tcp_fin_s: to.timeouts.tcp_fin_s,
            udp_s: to.timeouts.udp_s,
        });
    }
    let gone = from.marks.iter().filter(|rule| !to.marks.contains(rule));
    commands.extend(gone.cloned().map(Command::DeleteFwmark));
    let new = to.marks.iter().filter(|rule| !from.marks.contains(rule));
    commands.extend(new.cloned().map(Command::AddFwmark));
}

fn prefixes(from: &Config, to: &Config, commands: &mut Vec<Command>) {
    let (Some(now), Some(then)) = (&from.prefixes, &to.prefixes) else {
        return;
    };
    let lists = changes_by_guard(now, then).into_iter();
    commands.extend(lists.map(|(guard, prefixes)| Command::SetPrefixes { guard, prefixes }));
}

fn add(then: &Service, commands: &mut Vec<Command>) {
    let service = then.key;
    commands.push(Command::AddService {
        service,
        spec: then.spec.clone(),
    });
    if !then.limits.is_none() {
        commands.push(Command::LimitService {
            service,
            limits: then.limits,
        });
    }
    for &(server, spec) in &then.servers {
        commands.push(Command::AddServer {
            service,
            server,
            spec,
        });
    }
}

fn edit(now: &Service, then: &Service, commands: &mut Vec<Command>) {
    let service = then.key;
    if now.spec != then.spec {
        commands.push(Command::EditService {
            service,
            spec: then.spec.clone(),
        });
    }
    let (old, limits) = (now.limits, then.limits);
    if old != limits && !(old.is_none() && limits.is_none()) {
        commands.push(Command::LimitService { service, limits });
    }
    for &(server, _) in &now.servers {
        if !then.servers.iter().any(|(key, _)| *key == server) {
            commands.push(Command::DeleteServer { service, server });
        }
    }
    for &(server, spec) in &then.servers {
        match now.servers.iter().find(|(key, _)| *key == server) {
            Some((_, old)) if *old == spec => {}
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
