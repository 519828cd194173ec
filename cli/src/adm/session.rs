//! Carries out what lines ask for. One session is one run of ipvsadm.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;

use sched::command::Command;
use sched::service::ServiceKey;

use super::failure::Failure;
use super::listing::{self, Style};
use super::names::Names;
use super::request::{Format, Listing, Request};
use super::{help, meaning, restore};
use crate::api::Part;
use crate::director::{Director, DirectorError};
use crate::output;

/// How many commands of `-R` go to the director at once. Each batch costs a snapshot and a
/// look through all servers, whatever its length: batches of 1,000 made 100,000 lines slow.
const BATCH_MAX: usize = 10_000;
/// How much of standard input is read at once, bytes.
const INPUT_BYTES: usize = 1024 * 1024;

/// One run: what it works with.
pub struct Session<'a> {
    /// The name that messages call us by.
    pub program: &'a str,
    /// Who carries out commands.
    pub director: &'a mut dyn Director,
    /// Looks names up.
    pub names: &'a dyn Names,
    /// Standard input, for `-R`.
    pub input: Option<&'a mut dyn Read>,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

/// Why a line, or a whole run, ended early.
enum Stop {
    Failure(Failure),
    Output(io::Error),
    /// `-h` and `-v` end a run, also within `-R`.
    Done,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<DirectorError> for Stop {
    fn from(error: DirectorError) -> Self {
        let status = match error {
            DirectorError::PermissionDenied => 255,
            _ => 2,
        };
        Self::Failure(Failure {
            status,
            message: error.to_string(),
            fatal: true,
        })
    }
}

impl Session<'_> {
    /// Carries out one line, and for `-R` those on standard input. The exit status.
    pub fn run(&mut self, words: &[String]) -> u8 {
        let ended = self.line(words);
        let flushed = self.out.flush();
        let ended = match (ended, flushed) {
            (Ok(_) | Err(Stop::Done), Err(error)) => Err(Stop::Output(error)),
            (ended, _) => ended,
        };
        match ended {
            Ok(status) => status,
            Err(Stop::Done) => 0,
            Err(Stop::Failure(failure)) => self.report(&failure),
            Err(Stop::Output(error)) => output::failed(self.err, self.program, &error),
        }
    }

    fn line(&mut self, words: &[String]) -> Result<u8, Stop> {
        match meaning::parse(self.program, words, self.names)? {
            Request::Restore => self.restore(),
            request => self.request(request),
        }
    }

    /// Says on standard error what is wrong, after all that was written before.
    fn report(&mut self, failure: &Failure) -> u8 {
        let _ = self.out.flush();
        let _ = writeln!(self.err, "{}", failure.message);
        failure.status
    }

    fn request(&mut self, request: Request) -> Result<u8, Stop> {
        match request {
            Request::Help => {
                help::write(self.out, self.program)?;
                Err(Stop::Done)
            }
            Request::Version => {
                writeln!(self.out, "{}", help::VERSION)?;
                Err(Stop::Done)
            }
            Request::Change(command) => self.execute(&[command]),
            Request::List(listing, format) => self.list(listing, &format),
            Request::Save { numeric } => {
                let table = self.director.table()?;
                listing::rules(self.out, table, style(self.names, numeric))?;
                Ok(0)
            }
            Request::Restore => Err(Failure::try_help(self.program).into()),
            Request::StartDaemon(_) => Err(Failure::refused(
                "lvx does not synchronize connections with another director",
            )
            .into()),
            Request::StopDaemon { .. } => Err(Failure::refused("No daemon is running").into()),
        }
    }

    /// Carries out `commands` in order and reports refusals. The status of the last.
    fn execute(&mut self, commands: &[Command]) -> Result<u8, Stop> {
        let refusals = self.director.execute(commands)?;
        let mut status = 0;
        for (command, refusal) in commands.iter().zip(&refusals) {
            status = match refusal {
                Some(refusal) => self.report(&Failure::of(command, refusal)),
                None => 0,
            };
        }
        Ok(status)
    }

    fn list(&mut self, listing: Listing, format: &Format) -> Result<u8, Stop> {
        let style = style(self.names, format.numeric);
        match listing {
            Listing::Services => {
                let table = self.director.table()?;
                listing::services(self.out, table, format, style)?;
            }
            Listing::Service(key) => self.list_service(key, format, style)?,
            Listing::Connections => self.list_connections(format, style)?,
            Listing::Timeouts => {
                let table = self.director.table_part(&Part::NoServices)?;
                listing::timeouts(self.out, &table.timeouts)?;
            }
            Listing::Daemons => {
                let table = self.director.table_part(&Part::NoServices)?;
                listing::daemons(self.out, &table.daemons)?;
            }
        }
        Ok(0)
    }

    fn list_service(
        &mut self,
        key: ServiceKey,
        format: &Format,
        style: Style<'_>,
    ) -> Result<(), Stop> {
        let table = self.director.table_part(&Part::Service(key))?;
        let row = table.services.into_iter().next();
        let row = row.ok_or_else(|| Failure::listing("No such service"))?;
        Ok(listing::service(self.out, row, format, style)?)
    }

    /// Row by row, so that memory stays flat however many connections there are.
    fn list_connections(&mut self, format: &Format, style: Style<'_>) -> Result<(), Stop> {
        let out = &mut *self.out;
        let mut written = Ok(());
        let mut begun = false;
        self.director.connections(&mut |row| {
            written = match begun {
                true => Ok(()),
                false => listing::connections_heading(out, format.persistent_conn),
            };
            begun = true;
            if written.is_ok() {
                written = listing::connection(out, &row, style);
            }
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        written?;
        if !begun {
            listing::connections_heading(self.out, format.persistent_conn)?;
        }
        Ok(())
    }

    /// Carries out the lines on standard input. Changes go to the director in batches, but
    /// never wait: a batch is sent before anything else is done, and before reading could
    /// block, so that whoever feeds us line by line sees each line in force.
    fn restore(&mut self) -> Result<u8, Stop> {
        let Some(input) = self.input.take() else {
            return Ok(0);
        };
        let mut input = BufReader::with_capacity(INPUT_BYTES, input);
        let (mut status, mut batch, mut line) = (0, Vec::new(), Vec::new());
        loop {
            let may_block = !input.buffer().contains(&b'\n');
            if !batch.is_empty() && (may_block || batch.len() == BATCH_MAX) {
                status = self.execute(&batch)?;
                batch.clear();
            }
            line.clear();
            let length = input.read_until(b'\n', &mut line).map_err(unreadable)?;
            if length == 0 {
                return Ok(status);
            }
            let words = restore::words(&line);
            if words.is_empty() {
                continue;
            }
            match meaning::parse(self.program, &words, self.names) {
                Ok(Request::Change(command)) => batch.push(command),
                other => {
                    if !batch.is_empty() {
                        self.execute(&batch)?;
                        batch.clear();
                    }
                    status = self.other_line(other)?;
                }
            }
        }
    }

    fn other_line(&mut self, line: Result<Request, Failure>) -> Result<u8, Stop> {
        let ended = line.map_err(Stop::from).and_then(|line| self.request(line));
        match ended {
            Err(Stop::Failure(failure)) if !failure.fatal => Ok(self.report(&failure)),
            ended => ended,
        }
    }
}

fn style(names: &dyn Names, numeric: bool) -> Style<'_> {
    Style {
        names: (!numeric).then_some(names),
    }
}

fn unreadable(error: io::Error) -> Stop {
    Failure::usage(format!("lvx: cannot read standard input: {error}")).into()
}
