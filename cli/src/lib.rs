//! What people and scripts type, and what they read: ipvsadm's grammar and listings, and
//! the client of the director's API. Knows nothing of packets.

pub mod adm;
pub mod api;
pub mod client;
pub mod commands;
pub mod director;
mod explain;
mod output;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;

use adm::{Session, SystemNames};
use client::Client;

/// Standard output is written in pieces of this many bytes.
const OUTPUT_BYTES: usize = 64 * 1024;

/// Takes over if the process was started as ipvsadm: under that name, or as `lvx adm`. To
/// be asked before any other parser, since ipvsadm's grammar is unlike any other.
/// `arguments` begin with the program's name.
pub fn run_as_adm(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next()?;
    // Messages name the program as people know it, not by the path it was started by.
    if Path::new(&program).file_name()? == "ipvsadm" {
        return Some(run_adm("ipvsadm", arguments));
    }
    match arguments.next()?.to_str()? {
        "adm" => Some(run_adm("lvx adm", arguments)),
        _ => None,
    }
}

/// Runs one line of ipvsadm on the director that the environment names. `program` is the
/// name that messages use, `words` come after it.
pub fn run_adm(program: &str, words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut session = Session {
        program,
        director: &mut Client::from_environment(),
        names: &SystemNames::default(),
        input: Some(&mut io::stdin()),
        out: &mut BufWriter::with_capacity(OUTPUT_BYTES, io::stdout()),
        err: &mut io::stderr(),
    };
    ExitCode::from(session.run(&words))
}
