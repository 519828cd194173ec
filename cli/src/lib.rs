//! What people and scripts type, and what they read: ipvsadm's grammar and listings, and
//! the client of the director's API. Knows nothing of packets.

pub mod adm;
pub mod api;
pub mod client;
pub mod commands;
pub mod config;
pub mod director;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod limit;
pub mod manual;
mod output;
mod prefix;
pub mod shell;
#[cfg(any(test, fuzzing))]
mod testing;
pub mod top;

use std::ffi::OsString;
use std::io::{self, BufRead, BufWriter, Read};
use std::iter;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use adm::{Session, SystemNames};
use client::Client;

/// Standard output is written in pieces of this many bytes.
const OUTPUT_BYTES: usize = 64 * 1024;

/// Takes over if the process was started as ipvsadm, ipvsadm-save or ipvsadm-restore, or as
/// `lvx adm`. To be asked before any other parser, since ipvsadm's grammar is unlike any
/// other. `arguments` begin with the program's name.
pub fn run_as_adm(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next()?;
    // Messages name the program as people know it, not by the path it was started by.
    match Path::new(&program).file_name()?.to_str()? {
        "ipvsadm" => Some(run_adm("ipvsadm", arguments)),
        "ipvsadm-save" => Some(run_save(arguments)),
        "ipvsadm-restore" => Some(run_restore()),
        _ => match arguments.next()?.to_str()? {
            "adm" => Some(run_adm("lvx adm", arguments)),
            _ => None,
        },
    }
}

/// Runs one line of ipvsadm on the director that the environment names. `program` is the
/// name that messages use, `words` come after it.
pub fn run_adm(program: &str, words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    widen(io::stdin());
    ExitCode::from(adm_line(program, &words, &mut io::stdin()))
}

/// Lets a pipe hold as much as anyone may ask for (`fs.pipe-max-size`): while the director
/// carries out one batch of `-R`, the next one gathers there. What is no pipe stays as it is.
fn widen(input: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(input, 1 << 20);
}

/// `ipvsadm-save [-n]`: the table as lines for `ipvsadm-restore`.
fn run_save(words: impl Iterator<Item = OsString>) -> ExitCode {
    let rest = words.map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = iter::once("-S".to_owned()).chain(rest).collect();
    ExitCode::from(adm_line("ipvsadm", &words, &mut io::empty()))
}

/// `ipvsadm-restore`: the table becomes what standard input says.
fn run_restore() -> ExitCode {
    let cleared = adm_line("ipvsadm", &["-C".to_owned()], &mut io::empty());
    if cleared != 0 {
        return ExitCode::from(cleared);
    }
    widen(io::stdin());
    let mut input = Uncommented::new(io::stdin().lock());
    ExitCode::from(adm_line("ipvsadm", &["-R".to_owned()], &mut input))
}

fn adm_line(program: &str, words: &[String], input: &mut dyn Read) -> u8 {
    let mut session = Session {
        program,
        director: &mut Client::from_environment(),
        names: &SystemNames::default(),
        input: Some(input),
        out: &mut BufWriter::with_capacity(OUTPUT_BYTES, io::stdout()),
        err: &mut io::stderr(),
    };
    session.run(words)
}

/// Input without the lines that begin with `#`, which `-R` does not know.
struct Uncommented<R> {
    input: R,
    line: Vec<u8>,
    read: usize,
}

impl<R: BufRead> Uncommented<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            line: Vec::new(),
            read: 0,
        }
    }
}

impl<R: BufRead> Read for Uncommented<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.line.len() {
            self.line.clear();
            self.read = 0;
            if self.input.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(0);
            }
            if self.line.starts_with(b"#") {
                self.line.clear();
            }
        }
        let rest = &self.line[self.read..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_do_not_reach_restore() {
        let rows = [
            ("", ""),
            ("-A -t 1.2.3.4:80\n", "-A -t 1.2.3.4:80\n"),
            ("# one\n#two\n-A\n", "-A\n"),
            (
                "-A\n # not at the line's beginning\n#x",
                "-A\n # not at the line's beginning\n",
            ),
        ];
        for (text, expected) in rows {
            let mut out = String::new();
            let mut input = Uncommented::new(text.as_bytes());
            input.read_to_string(&mut out).unwrap();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn only_ipvsadms_names_take_over() {
        for line in ["lvx shell", "/usr/bin/lvx", "lvx-shell adm2"] {
            assert!(
                run_as_adm(line.split(' ').map(OsString::from)).is_none(),
                "{line}"
            );
        }
    }
}
