//! The texts of `-h` and `-v`.

use std::io::{self, Write};

use super::words::{Argument, Meaning, WORDS, Word};

/// The version that the grammar and the listings are of: tools read it.
pub const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";

/// Writes the help text: the forms of a line, then every word.
pub fn write(out: &mut dyn Write, program: &str) -> io::Result<()> {
    writeln!(
        out,
        "{VERSION}\nas spoken by lvx {}\n",
        env!("CARGO_PKG_VERSION")
    )?;
    for form in FORMS {
        writeln!(out, "  {program} {form}")?;
    }
    writeln!(
        out,
        "\nSERVICE: -t|-u|--sctp-service HOST[:PORT], or -f MARK [-6]"
    )?;
    writeln!(out, "\nCommands (the first word):")?;
    section(out, |meaning| matches!(meaning, Meaning::Verb(_)))?;
    writeln!(out, "\nOptions:")?;
    section(out, |meaning| matches!(meaning, Meaning::Flag(_)))
}

/// The forms of a line, after the program's name.
pub const FORMS: [&str; 11] = [
    "-A|-E SERVICE [-s NAME] [-p [SECONDS]] [-M MASK] [--pe ENGINE] [-b FLAG,...] [-o]",
    "-D SERVICE",
    "-a|-e SERVICE -r HOST[:PORT] [-g|-i|-m] [-w N] [-x N] [-y N] [TUNNEL]",
    "-d SERVICE -r HOST[:PORT]",
    "-L|-l [SERVICE|-c|--timeout|--daemon] [-n] [--stats|--rate|--thresholds|...]",
    "-C | -Z [SERVICE] | -S [-n] | -R",
    "--set TCP TCPFIN UDP",
    "--start-daemon master|backup [--mcast-interface DEVICE] [--syncid N] [...]",
    "--stop-daemon master|backup [--syncid N]",
    "-h",
    "-v",
];

fn section(out: &mut dyn Write, wanted: fn(Meaning) -> bool) -> io::Result<()> {
    WORDS
        .iter()
        .filter(|word| wanted(word.meaning))
        .try_for_each(|word| writeln!(out, "  {:<34} {}", usage(word), word.help))
}

/// A word with its letter and value.
pub fn usage(word: &Word) -> String {
    let short = match word.short {
        Some(letter) => format!("-{letter}, "),
        None => "    ".to_owned(),
    };
    let value = match word.argument {
        Argument::None => String::new(),
        Argument::Required(name) => format!(" {name}"),
        Argument::Optional(name) => format!(" [{name}]"),
    };
    format!("{short}--{}{value}", word.long)
}
