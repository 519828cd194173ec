//! `lvx shell`: for a person at the appliance, and for scripts.
//!
//! A line goes `tokens` (words with places), `matcher` (through the `grammar`, one table for
//! parsing, completion and help), `meaning` (words to an `action`), `session` (carried out).
//! `interactive` and `script` feed sessions; only the former knows a terminal.

mod action;
mod appliance;
mod candidate;
mod complete;
pub(crate) mod diff;
mod failure;
mod fault;
mod grammar;
pub(crate) mod grid;
mod help;
mod interactive;
mod matcher;
pub(crate) mod meaning;
mod script;
mod session;
mod show;
#[cfg(test)]
mod stub;
mod terminal;
mod tokens;
mod values;
pub(crate) mod words;

use std::io::{self, BufWriter};

pub(crate) use terminal::is_interactive;

use crate::adm::SystemNames;
use crate::client::Client;
use script::Source;
use session::Session;

pub(crate) use candidate::{Candidate, LIMITS};
pub(crate) use fault::nearest;

/// How the shell is started.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ShellArgs {
    /// Carry out this line and leave; may be given again
    #[arg(short = 'c', value_name = "LINE", allow_hyphen_values = true)]
    lines: Vec<String>,
    /// Print JSON, whatever is printed
    #[arg(long)]
    json: bool,
}

/// Runs the shell on the director that the environment names. The exit status.
pub fn run(args: &ShellArgs) -> u8 {
    let session = Session {
        director: &mut Client::from_environment(),
        names: &SystemNames::default(),
        json: args.json,
        candidate: None,
    };
    if args.lines.is_empty() && terminal::is_interactive() {
        return interactive::run(session);
    }
    let mut session = session;
    let mut out = BufWriter::new(io::stdout());
    let err = &mut io::stderr();
    if args.lines.is_empty() {
        return script::run(
            &mut session,
            Source::Input,
            terminal::input_lines(),
            &mut out,
            err,
        );
    }
    let lines = args.lines.iter().cloned().map(Ok);
    script::run(&mut session, Source::Argument, lines, &mut out, err)
}
