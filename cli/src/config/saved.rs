//! What `ipvsadm-save -n` writes: a line of options for each service and server.

use sched::command::Command;
use sched::limit::ServiceLimits;
use sched::table::{Drafts, ServiceTable};

use super::{Config, Problem, Service};
use crate::adm::{self, PortNames, Request, restore_words};
use crate::shell::LIMITS;

/// Whether a text is such a file and no TOML: its first line that is neither empty nor a
/// comment begins with an option.
pub fn is_saved(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with('-') || line.starts_with("ipvsadm "))
}

/// Reads such a file.
pub fn read(text: &str) -> Result<Config, Vec<Problem>> {
    let mut config = Config::default();
    let (mut trial, mut drafts) = (ServiceTable::new(LIMITS), Drafts::default());
    let mut problems = Vec::new();
    // A director must start without a resolver: hosts are written as numbers (`-n`).
    let names = PortNames::default();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let words = restore_words(line.as_bytes());
        if words.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let span = start..start + line.trim_end().len();
        let command = match adm::parse("ipvsadm", &words, &names) {
            Ok(Request::Change(command)) => command,
            Ok(_) => {
                let text = "this line neither adds nor sets anything";
                problems.push(Problem::at(span, text).help("-A, -a and --set are what a file has"));
                continue;
            }
            Err(failure) => {
                problems.push(Problem::at(span, failure.message));
                continue;
            }
        };
        match trial.draft(&command, 0, &mut drafts) {
            Ok(_) => take(&mut config, command),
            Err(refusal) => problems.push(Problem::at(span, refusal.to_string())),
        }
    }
    match problems.is_empty() {
        true => Ok(config),
        false => Err(problems),
    }
}

/// The trial has seen to it that services are there.
fn take(config: &mut Config, command: Command) {
    match command {
        Command::AddService { service: key, spec } => config.services.push(Service {
            key,
            spec,
            limits: ServiceLimits::default(),
            servers: Vec::new(),
        }),
        Command::AddServer {
            service,
            server,
            spec,
        } => {
            let found = config.services.iter_mut().find(|s| s.key == service);
            if let Some(found) = found {
                found.servers.push((server, spec));
            }
        }
        Command::SetTimeouts {
            tcp_s,
            tcp_fin_s,
            udp_s,
        } => config.timeouts.set(tcp_s, tcp_fin_s, udp_s),
        _ => {}
    }
}
