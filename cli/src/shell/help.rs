//! The texts of `help` and `?`.

use std::io::{self, Write};

use super::matcher::{Place, Terminal};

/// Writes what may be typed first, and how the shell is used.
pub fn write(out: &mut dyn Write) -> io::Result<()> {
    choices(out, &Place::start())?;
    writeln!(
        out,
        "\n\
         TAB completes a word, `?` says what may come next. Words may be cut short (`sh serv`).\n\
         Lines of ipvsadm work as they are (`-L -n`, `-A -t 10.0.0.1:80 -s rr`).\n\
         `--json` at the end of a line that prints asks for JSON.\n\
         After `edit`, changes are collected; `diff` shows them, `commit` puts all of them in\n\
         force or none, `commit confirmed 60` takes them back unless you `confirm` in time."
    )
}

/// Writes what may come at a place, a line each.
pub fn choices(out: &mut dyn Write, place: &Place) -> io::Result<()> {
    narrowed(out, place, "")
}

/// The same, of fixed words only those that begin so.
pub fn narrowed(out: &mut dyn Write, place: &Place, begun: &str) -> io::Result<()> {
    let expected = place.expected();
    let name = |terminal: &Terminal| match terminal {
        Terminal::Word(word) => word.name.to_owned(),
        Terminal::Value(value) => value.name.to_owned(),
    };
    let mut terminals = expected.terminals();
    terminals.retain(|terminal| match terminal {
        Terminal::Word(word) => word.name.starts_with(begun),
        Terminal::Value(_) => true,
    });
    let widths = terminals.iter().map(|terminal| name(terminal).len());
    let width = widths.max().unwrap_or(0).max("<enter>".len());
    for terminal in &terminals {
        writeln!(out, "  {:<width$}  {}", name(terminal), terminal.help())?;
    }
    if begun.is_empty() && expected.may_end && !place.gotten.is_empty() {
        writeln!(out, "  {:<width$}  do it", "<enter>")?;
    }
    Ok(())
}
