//! Lines without a person: `-c LINE` and a script on standard input. The first line that
//! fails ends it, named by its number.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use super::failure::Failure;
use super::session::{Next, Session};
use crate::output;

/// Where lines come from, for messages.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// `-c`, the nth of them.
    Argument,
    /// Standard input, the nth line.
    Input,
}

/// Carries out lines until one fails or asks to leave. The exit status.
pub fn run(
    session: &mut Session<'_>,
    source: Source,
    lines: impl Iterator<Item = io::Result<String>>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    for (number, line) in (1..).zip(lines) {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let _ = writeln!(err, "lvx: cannot read standard input: {error}");
                return 1;
            }
        };
        let ended = session.line(&line, out).and_then(|next| match next {
            Next::Watch {
                every_s,
                count,
                show,
            } => watch(session, every_s, count, &show, out).map(|()| Next::Go),
            next => Ok(next),
        });
        match ended.and_then(|next| out.flush().map(|()| next).map_err(Failure::from)) {
            Ok(Next::Quit) => break,
            Ok(_) => {}
            Err(Failure::Output(error)) => return output::failed(err, "lvx", &error),
            Err(failure) => {
                let place = match source {
                    Source::Argument => format!("-c {number}"),
                    Source::Input => format!("line {number}"),
                };
                let _ = writeln!(err, "lvx: {place}: {}", failure.text(&line));
                return failure.status();
            }
        }
    }
    match session.candidate.as_ref().map(|c| c.commands().len()) {
        None | Some(0) => 0,
        Some(count) => {
            let _ = writeln!(
                err,
                "lvx: the lines end without `commit`: {count} changes of the candidate are not in \
                 force"
            );
            1
        }
    }
}

fn watch(
    session: &mut Session<'_>,
    every_s: u32,
    count: Option<u32>,
    show: &super::action::Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut shown = 0;
    loop {
        session.show(show, out)?;
        out.flush()?;
        shown += 1;
        if count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(every_s.into()));
    }
}
