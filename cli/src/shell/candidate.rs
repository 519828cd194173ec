//! Changes that are collected before they are put in force. They are tried on a copy of
//! the running table by the director's own code ([`ServiceTable`]), so a change that would
//! be refused is refused when it is typed. The copy is made anew whenever it counts: others
//! may have changed the running table meanwhile.

use sched::command::{Command, Refusal};
use sched::table::{Drafts, Limits, ServiceTable};

use crate::api::{Rates, ServerRow, ServiceRow, Stats, Table};

/// A trial need not know the director's own limits: it judges again when asked to commit.
pub(crate) const LIMITS: Limits = Limits {
    services: 1 << 20,
    servers: 1 << 22,
};

/// A candidate.
#[derive(Debug)]
pub struct Candidate {
    commands: Vec<Command>,
    trial: ServiceTable,
}

/// A command of the candidate that the running table does not take any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// Which, from 1.
    pub number: usize,
    /// Why not.
    pub refusal: Refusal,
}

impl Candidate {
    /// No changes to `running`.
    pub fn new(running: &Table) -> Self {
        Self {
            commands: Vec::new(),
            trial: copy(running),
        }
    }

    /// The changes.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The changes that are not of services and servers.
    pub fn settings(&self) -> Vec<Command> {
        let of_table = |command: &&Command| !is_of_table(command);
        self.commands.iter().filter(of_table).cloned().collect()
    }

    /// Adds a change; where the table is concerned, only one that fits.
    pub fn add(&mut self, command: Command) -> Result<(), Refusal> {
        self.trial.apply(&command, 0)?;
        self.commands.push(command);
        Ok(())
    }

    /// Tries all changes on `running` as it is now.
    pub fn rebase(&mut self, running: &Table) -> Result<(), Overtaken> {
        let (mut trial, mut drafts) = (copy(running), Drafts::default());
        for (place, command) in self.commands.iter().enumerate() {
            let drafted = trial.draft(command, 0, &mut drafts);
            drafted.map_err(|refusal| Overtaken {
                number: place + 1,
                refusal,
            })?;
        }
        trial.settle(&mut drafts);
        self.trial = trial;
        Ok(())
    }

    /// The table as it would be; what stays keeps the counts it has in `running`.
    pub fn table(&self, running: &Table) -> Table {
        let services = self.trial.services().map(|service| {
            let before = running
                .services
                .iter()
                .find(|row| row.service == service.key);
            let servers = service.servers.iter().map(|server| {
                let rows = before.into_iter().flat_map(|row| &row.servers);
                let known = rows.into_iter().find(|row| row.server == server.key);
                let row = known.cloned();
                ServerRow {
                    spec: server.spec,
                    ..row.unwrap_or_else(|| new_server(server.key, server.spec))
                }
            });
            ServiceRow {
                service: service.key,
                spec: service.spec.clone(),
                limits: service.limiter.as_ref().map(|limiter| *limiter.limits()),
                stats: before.map_or_else(Stats::default, |row| row.stats),
                rates: before.map_or_else(Rates::default, |row| row.rates),
                servers: servers.collect(),
            }
        });
        let services = services.collect();
        let mut table = Table {
            services,
            ..running.clone()
        };
        for command in &self.commands {
            if let Command::SetTimeouts {
                tcp_s,
                tcp_fin_s,
                udp_s,
            } = *command
            {
                table.timeouts.set(tcp_s, tcp_fin_s, udp_s);
            }
        }
        table
    }
}

/// Whether the command is of services and servers.
pub fn is_of_table(command: &Command) -> bool {
    !matches!(
        command,
        Command::SetTimeouts { .. }
            | Command::SetTunable { .. }
            | Command::AddFwmark(_)
            | Command::DeleteFwmark(_)
            | Command::SetPrefixes { .. }
            | Command::Zero { .. }
    )
}

fn copy(running: &Table) -> ServiceTable {
    let (mut table, mut drafts) = (ServiceTable::new(LIMITS), Drafts::default());
    for row in &running.services {
        let service = row.service;
        let spec = row.spec.clone();
        // What runs was accepted once; a newer director's novelty is left to it.
        let _ = table.draft(&Command::AddService { service, spec }, 0, &mut drafts);
        if let Some(limits) = row.limits {
            let limit = Command::LimitService { service, limits };
            let _ = table.draft(&limit, 0, &mut drafts);
        }
        // Each goes to the front of the list.
        for server in row.servers.iter().rev() {
            let add = Command::AddServer {
                service,
                server: server.server,
                spec: server.spec,
            };
            let _ = table.draft(&add, 0, &mut drafts);
        }
    }
    table.settle(&mut drafts);
    table
}

fn new_server(server: sched::server::ServerKey, spec: sched::server::ServerSpec) -> ServerRow {
    ServerRow {
        server,
        spec,
        local: false,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
        rates: Rates::default(),
    }
}
