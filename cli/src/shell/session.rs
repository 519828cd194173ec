//! Carries lines out, one after the other. Knows no terminal: what it prints goes to a
//! writer, so scripts, people and tests share it.

use std::io::{self, Write};
use std::ops::ControlFlow;

use sched::command::{Command, Refusal};
use sched::server::Forwarding;
use sched::service::ServiceKey;

use super::action::{Action, Change, Columns, Show, What, Which};
use super::appliance::Appliance;
use super::candidate::{Candidate, is_of_table};
use super::failure::Failure;
use super::fault::Fault;
use super::{diff, help, meaning, show, words};
use crate::adm::{self, Listing, Names, Request};
use crate::api::{ConnectionRow, Part, ServiceRow, Table};
use crate::commands::write_json;
use crate::director::{Director, DirectorError};

/// A session.
pub struct Session<'a> {
    /// Who carries commands out.
    pub director: &'a mut dyn Appliance,
    /// Looks names up.
    pub names: &'a dyn Names,
    /// All output as JSON.
    pub json: bool,
    /// The candidate, where one was begun.
    pub candidate: Option<Candidate>,
}

/// What to do after a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Read another.
    Go,
    /// Show something again and again: whose the terminal is, does that.
    Watch {
        /// How often, s.
        every_s: u32,
        /// How many times.
        count: Option<u32>,
        /// What.
        show: Show,
    },
    /// Leave.
    Quit,
}

impl Session<'_> {
    /// Carries out one line.
    pub fn line(&mut self, line: &str, out: &mut dyn Write) -> Result<Next, Failure> {
        match meaning::parse(line, self.names)? {
            Action::Nothing => {}
            Action::Change(change) => self.change(&change, out)?,
            Action::Show(show) => self.show(&show, out)?,
            Action::Watch {
                every_s,
                count,
                show,
            } => {
                return Ok(Next::Watch {
                    every_s,
                    count,
                    show,
                });
            }
            Action::Adm(words) => self.adm(&words, out)?,
            Action::Edit => self.begin(out)?,
            Action::Diff { json } => self.diff(json, out)?,
            Action::Commit { confirm_within_s } => self.commit(confirm_within_s, out)?,
            Action::Confirm => {
                self.director.confirm()?;
                self.say(out, "confirmed: the last commit stays")?;
            }
            Action::Return => {
                self.director.take_back()?;
                self.say(out, "the last commit is taken back")?;
            }
            Action::Discard => {
                self.the_candidate()?;
                self.candidate = None;
                self.say(out, "the candidate is discarded")?;
            }
            Action::Help => help::write(out)?,
            Action::Quit => return Ok(Next::Quit),
        }
        Ok(Next::Go)
    }

    /// What a person at a prompt had better be asked before this line is carried out: one that
    /// removes everything at once, where `commit` is not the question already.
    pub fn question(&mut self, line: &str) -> Option<String> {
        if self.candidate.is_some() || !self.removes_all(line) {
            return None;
        }
        let table = self.director.table().ok()?;
        let servers = table.services.iter().flat_map(|row| &row.servers);
        let live: u64 = servers
            .map(|row| u64::from(row.active) + u64::from(row.inactive))
            .sum();
        let count = |count: u64, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        match table.services.len() as u64 {
            0 => None,
            services => Some(format!(
                "remove {}, with {}?",
                count(services, "service"),
                count(live, "live connection")
            )),
        }
    }

    fn removes_all(&self, line: &str) -> bool {
        match meaning::parse(line, self.names) {
            Ok(Action::Change(Change::Command(Command::Flush))) => true,
            Ok(Action::Adm(words)) => matches!(
                adm::parse("lvx shell", &words, self.names),
                Ok(Request::Change(Command::Flush))
            ),
            _ => false,
        }
    }

    /// Prints what `show` asks for: of the candidate, where there is one.
    pub fn show(&mut self, show: &Show, out: &mut dyn Write) -> Result<(), Failure> {
        let candidate = match self.candidate.is_some() {
            true => Some(self.table()?),
            false => None,
        };
        let json = show.json || self.json;
        let show = Show {
            json,
            ..show.clone()
        };
        show::show(out, self.director, candidate, &show)
    }

    /// The table that changes are made to: the candidate's, where there is one.
    pub fn table(&mut self) -> Result<Table, Failure> {
        let running = self.director.table()?;
        let Some(candidate) = &mut self.candidate else {
            return Ok(running);
        };
        rebase(candidate, &running)?;
        Ok(candidate.table(&running))
    }

    /// News for people: a program that reads JSON has asked for none.
    fn say(&self, out: &mut dyn Write, text: &str) -> Result<(), Failure> {
        match self.json {
            true => Ok(()),
            false => Ok(writeln!(out, "{text}")?),
        }
    }

    fn change(&mut self, change: &Change, out: &mut dyn Write) -> Result<(), Failure> {
        let (command, news) = self.command(change)?;
        self.execute(command)?;
        match news {
            Some(news) => self.say(out, &news),
            None => Ok(()),
        }
    }

    /// The command for a change, and what to tell about it.
    fn command(&mut self, change: &Change) -> Result<(Command, Option<String>), Failure> {
        let command = match change {
            Change::Command(command) => command.clone(),
            Change::Mark(true, rule) => Command::AddFwmark(rule.clone()),
            Change::Mark(false, rule) => Command::DeleteFwmark(rule.clone()),
            Change::EditService(service, edit) => {
                let row = self.service(service)?;
                Command::EditService {
                    service: *service,
                    spec: edit.apply(&row.spec),
                }
            }
            Change::EditServer(service, which, edit) => {
                let row = self.server(service, which)?;
                let command = Command::EditServer {
                    service: *service,
                    server: row.server,
                    spec: edit.apply(row.spec),
                };
                if edit
                    .forwarding
                    .is_some_and(|way| way != Forwarding::Masquerade)
                    && matches!(service, ServiceKey::Address { .. })
                    && row.server.port != service.port()
                {
                    let message = "only nat can change the port: delete the server and add it anew";
                    return Err(Fault::whole(message).into());
                }
                let drained = edit.weight == Some(0) && self.candidate.is_none();
                let news = drained.then(|| {
                    let (active, inactive) = (row.active, row.inactive);
                    let server = words::server(&row.server);
                    format!("{server} takes no new connections; {active} active and {inactive} inactive live on")
                });
                return Ok((command, news));
            }
            Change::DeleteServer(service, which) => Command::DeleteServer {
                service: *service,
                server: self.server(service, which)?.server,
            },
        };
        Ok((command, None))
    }

    /// A service of the table that changes are made to.
    fn service(&mut self, key: &ServiceKey) -> Result<ServiceRow, Failure> {
        let table = match self.candidate {
            None => self.director.table_part(&Part::Service(*key))?,
            Some(_) => self.table()?,
        };
        match table.services.into_iter().find(|row| row.service == *key) {
            Some(row) => Ok(row),
            None => Err(no_service(key, &self.table()?).into()),
        }
    }

    fn server(
        &mut self,
        service: &ServiceKey,
        which: &Which,
    ) -> Result<crate::api::ServerRow, Failure> {
        let row = self.service(service)?;
        let known = |message: String| Fault::whole(message);
        let of = words::service(service);
        // A port that was not typed is the service's, if there is such a server.
        let exact = row.servers.iter().find(|s| {
            s.server.address == which.address
                && s.server.port == which.port.unwrap_or(service.port())
        });
        let mut meant = row.servers.iter().filter(|s| which.is(&s.server));
        match (exact, meant.next(), meant.next()) {
            (Some(row), ..) | (None, Some(row), None) => Ok(row.clone()),
            (None, None, _) => {
                let names: Vec<_> = row
                    .servers
                    .iter()
                    .map(|s| words::server(&s.server))
                    .collect();
                let which = which.address;
                Err(known(match names.is_empty() {
                    true => format!("{of} has no servers"),
                    false => format!("{of} has no server {which}; it has {}", names.join(", ")),
                })
                .into())
            }
            _ => Err(known(format!(
                "{of} has several servers {}: add the port",
                which.address
            ))
            .into()),
        }
    }

    fn execute(&mut self, command: Command) -> Result<(), Failure> {
        if let Command::SetTunable { name, .. } = &command {
            let tunables = self.director.tunables()?;
            if !tunables.contains_key(name) {
                return Err(show::no_tunable(name, &tunables).into());
            }
        }
        let Some(candidate) = &mut self.candidate else {
            let refusals = self.director.all_or_none(&[command])?;
            return first(&refusals).map_or(Ok(()), |(_, refusal)| Err(refused(refusal)));
        };
        if !is_of_table(&command) {
            // What the copy does not judge, the director does.
            let mut commands = candidate.settings();
            commands.retain(|c| !matches!(c, Command::Zero { .. }));
            if !matches!(command, Command::Zero { .. }) {
                commands.push(command.clone());
                let refusals = self.director.check(&commands)?;
                if let Some((_, refusal)) = first(&refusals) {
                    return Err(refused(refusal));
                }
            }
        }
        candidate.add(command).map_err(|refusal| refused(&refusal))
    }

    fn the_candidate(&mut self) -> Result<&mut Candidate, Failure> {
        let message = "there is no candidate; `edit` begins one";
        self.candidate
            .as_mut()
            .ok_or_else(|| Fault::whole(message).into())
    }

    fn begin(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.candidate.is_some() {
            return Err(
                Fault::whole("a candidate is under way: `commit` or `discard` it first").into(),
            );
        }
        self.candidate = Some(Candidate::new(&self.director.table()?));
        self.say(
            out,
            "changes are collected from here: `diff` shows them, `commit` puts them in force",
        )
    }

    fn differences(&mut self) -> Result<Vec<diff::Difference>, Failure> {
        self.the_candidate()?;
        let running = self.director.table()?;
        let tunables = self.director.tunables()?;
        let candidate = self.the_candidate()?;
        rebase(candidate, &running)?;
        let after = candidate.table(&running);
        Ok(diff::between(
            candidate.commands(),
            &running,
            after,
            &tunables,
        ))
    }

    fn diff(&mut self, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
        let found = self.differences()?;
        match json || self.json {
            true => write_json(out, &found)?,
            false => diff::write(out, &found)?,
        }
        Ok(())
    }

    fn commit(&mut self, within_s: Option<u32>, out: &mut dyn Write) -> Result<(), Failure> {
        if self.candidate.is_none() && within_s.is_none() && self.director.waiting()?.is_some() {
            // What other tools call it.
            self.director.confirm()?;
            return self.say(out, "confirmed: the last commit stays");
        }
        let commands = self.the_candidate()?.commands().to_vec();
        if commands.is_empty() {
            self.candidate = None;
            return self.say(out, "there was nothing to commit");
        }
        let refusals = match within_s {
            None => self.director.all_or_none(&commands)?,
            Some(within_s) => self.director.try_out(&commands, within_s)?,
        };
        if let Some((place, refusal)) = first(&refusals) {
            let message = format!(
                "nothing was changed, as change {} of {} was refused: {refusal}",
                place + 1,
                commands.len()
            );
            return Err(Fault::whole(message).into());
        }
        self.candidate = None;
        match within_s {
            None => self.say(out, &format!("{} in force", changes(commands.len()))),
            Some(within_s) => self.say(
                out,
                &format!(
                    "{} in force; the director takes them back in {within_s} s unless you `confirm`",
                    changes(commands.len())
                ),
            ),
        }
    }

    fn adm(&mut self, words: &[String], out: &mut dyn Write) -> Result<(), Failure> {
        if self.json || self.candidate.is_some() {
            let request = adm::parse("lvx shell", words, self.names);
            match request.map_err(|failure| Failure::Adm(failure.status, failure.message))? {
                Request::List(listing, format) if self.json => {
                    return self.show(&as_show(listing, format.columns), out);
                }
                Request::Change(command) if self.candidate.is_some() => {
                    return self.execute(command);
                }
                _ => {}
            }
        }
        let table = match self.candidate.is_some() {
            true => Some(self.table()?),
            false => None,
        };
        let mut view = View {
            director: &mut *self.director,
            table,
        };
        let mut err = Vec::new();
        let status = adm::Session {
            program: "lvx shell",
            director: &mut view,
            names: self.names,
            input: None,
            out,
            err: &mut err,
        }
        .run(words);
        match status {
            0 => Ok(()),
            _ => {
                let text = String::from_utf8_lossy(&err).into_owned();
                // A reader that has gone says nothing.
                match text.is_empty() {
                    true => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
                    false => Err(Failure::Adm(status, text)),
                }
            }
        }
    }
}

/// A director as ipvsadm's listings see it: with the candidate's table, if there is one.
struct View<'a> {
    director: &'a mut dyn Appliance,
    table: Option<Table>,
}

impl Director for View<'_> {
    fn execute(&mut self, commands: &[Command]) -> Result<Vec<Option<Refusal>>, DirectorError> {
        self.director.execute(commands)
    }

    fn table(&mut self) -> Result<Table, DirectorError> {
        match &self.table {
            Some(table) => Ok(table.clone()),
            None => self.director.table(),
        }
    }

    fn table_part(&mut self, part: &Part) -> Result<Table, DirectorError> {
        match &self.table {
            Some(table) => Ok(part.of(table.clone())),
            None => self.director.table_part(part),
        }
    }

    fn connections(
        &mut self,
        each: &mut dyn FnMut(ConnectionRow) -> ControlFlow<()>,
    ) -> Result<(), DirectorError> {
        self.director.connections(each)
    }
}

fn as_show(listing: Listing, columns: adm::Columns) -> Show {
    let columns = match columns {
        adm::Columns::Stats => Columns::Stats,
        adm::Columns::Rate => Columns::Rates,
        adm::Columns::Thresholds => Columns::Thresholds,
        _ => Columns::Plain,
    };
    match listing {
        Listing::Service(key) => {
            let mut show = Show::all(What::Services(columns));
            show.filter.service = Some(key);
            show
        }
        Listing::Connections => Show::all(What::Connections {
            limit: None,
            count: false,
        }),
        Listing::Timeouts => Show::all(What::Timeouts),
        Listing::Services | Listing::Daemons => Show::all(What::Services(columns)),
    }
}

/// "1 change is", "3 changes are".
fn changes(count: usize) -> String {
    match count {
        1 => "1 change is".to_owned(),
        n => format!("{n} changes are"),
    }
}

fn rebase(candidate: &mut Candidate, running: &Table) -> Result<(), Failure> {
    candidate.rebase(running).map_err(|overtaken| {
        let message = format!(
            "someone has changed the running table: change {} of the candidate does not fit any \
             more: {}; `discard` it and begin anew",
            overtaken.number, overtaken.refusal
        );
        Fault::whole(message).into()
    })
}

fn first(refusals: &[Option<Refusal>]) -> Option<(usize, &Refusal)> {
    // The director refuses the whole batch in the name of one command.
    let real = |refusal: &&Refusal| {
        !refusal
            .to_string()
            .starts_with("not carried out, as command")
    };
    let all = || {
        let numbered = refusals.iter().enumerate();
        numbered.filter_map(|(place, refusal)| Some((place, refusal.as_ref()?)))
    };
    all()
        .find(|(_, refusal)| real(refusal))
        .or_else(|| all().next())
}

fn refused(refusal: &Refusal) -> Failure {
    Fault::whole(refusal.to_string()).into()
}

fn no_service(key: &ServiceKey, table: &Table) -> Fault {
    let names: Vec<_> = table
        .services
        .iter()
        .map(|row| words::service(&row.service))
        .collect();
    let wanted = words::service(key);
    let nearest = super::fault::nearest(&wanted, names.iter().map(String::as_str));
    Fault::whole(match nearest {
        Some(known) => format!("there is no service {wanted}; did you mean {known}?"),
        None => format!("there is no service {wanted}; `show services` lists them"),
    })
}

#[cfg(test)]
mod tests;
