//! A terminal for what is longer than it: pages, keys, and a screen shown again and again.

use std::io::{self, IsTerminal, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// Ctrl-C, as a key.
const CTRL_C: u8 = 3;
/// The terminal's size where it does not say: that of a VT100.
const ROWS: u16 = 24;

/// Rows and columns of standard output.
pub fn size() -> (u16, u16) {
    match termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 => (size.ws_row, size.ws_col),
        _ => (ROWS, 80),
    }
}

/// Keys one by one, unseen, for as long as the value lives.
pub struct Keys {
    before: Option<Termios>,
}

impl Keys {
    /// Takes the keys over, where standard input is a terminal.
    pub fn new() -> Self {
        let before = termios::tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            raw.special_codes[SpecialCodeIndex::VMIN] = 1;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        Self { before }
    }

    /// A key; none if no key comes in time, or never will.
    pub fn wait(&self, limit: Option<Duration>) -> Option<u8> {
        let stdin = io::stdin();
        if self.before.is_none() {
            std::thread::sleep(limit.unwrap_or_default());
            return None;
        }
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut fds, limit.as_ref()) {
            Ok(1..) => {}
            _ => return None,
        }
        let mut key = [0];
        // Not through the buffer of standard input: the next prompt reads the rest.
        match rustix::io::read(&stdin, &mut key) {
            Ok(1..) => Some(key[0]),
            _ => Some(CTRL_C),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Whether a key means "enough".
pub fn ends(key: u8) -> bool {
    matches!(key, b'q' | b'Q' | CTRL_C | 0x1b | 4)
}

/// Output that stops at each screenful or, where there is more than one, goes to `$PAGER`.
/// Ends with [`io::ErrorKind::BrokenPipe`] once its reader has seen enough.
pub struct Pager {
    rows: u16,
    columns: u16,
    /// Rows written since the last stop.
    used: u16,
    /// Characters in the row under way.
    column: u16,
    theirs: Theirs,
}

/// The user's own pager.
enum Theirs {
    /// There is none.
    No,
    /// It is begun once there is more than this.
    Waits(String, Vec<u8>),
    /// It runs.
    Runs(Child, Option<ChildStdin>),
}

impl Pager {
    /// A pager for standard output.
    pub fn new() -> Self {
        let command = std::env::var("PAGER")
            .ok()
            .filter(|pager| !pager.trim().is_empty());
        let (rows, columns) = size();
        Self {
            rows,
            columns: columns.max(1),
            // The line that asked for it stays in sight.
            used: 1,
            column: 0,
            theirs: command.map_or(Theirs::No, |command| Theirs::Waits(command, Vec::new())),
        }
    }

    /// Writes what waits, and waits until the user's pager has ended.
    pub fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.theirs, Theirs::No) {
            Theirs::No => {}
            Theirs::Waits(_, text) => io::stdout().write_all(&text)?,
            Theirs::Runs(mut child, stdin) => {
                drop(stdin);
                child.wait()?;
            }
        }
        io::stdout().flush()
    }

    fn is_full(&self) -> bool {
        self.column == 0 && self.used + 1 >= self.rows
    }

    fn count(&mut self, line: &[u8]) {
        let length = String::from_utf8_lossy(line).trim_end().chars().count();
        self.column = self.column.saturating_add(length as u16);
        if line.ends_with(b"\n") {
            self.used += 1 + self.column.saturating_sub(1) / self.columns;
            self.column = 0;
        }
    }

    fn begin(command: &str, text: &[u8]) -> io::Result<Theirs> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(command)
            .stdin(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            stdin.write_all(text)?;
        }
        Ok(Theirs::Runs(child, stdin))
    }
}

impl Write for Pager {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let full = self.is_full();
            match &mut self.theirs {
                Theirs::Runs(_, Some(stdin)) => stdin.write_all(line)?,
                Theirs::Runs(_, None) => return Err(io::ErrorKind::BrokenPipe.into()),
                Theirs::Waits(command, held) => {
                    held.extend_from_slice(line);
                    if full {
                        self.theirs = Self::begin(command, held)?;
                    }
                }
                Theirs::No => {
                    let mut out = io::stdout().lock();
                    if full {
                        self.used = stop(&mut out, self.rows)?;
                    }
                    out.write_all(line)?;
                }
            }
            self.count(line);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.theirs {
            Theirs::No => io::stdout().flush(),
            Theirs::Waits(..) | Theirs::Runs(_, None) => Ok(()),
            Theirs::Runs(_, Some(stdin)) => stdin.flush(),
        }
    }
}

/// Waits for a key. How many rows of the next page are used already.
fn stop(out: &mut impl Write, rows: u16) -> io::Result<u16> {
    write!(out, "--more-- (space: page, enter: line, q: enough)")?;
    out.flush()?;
    let key = Keys::new().wait(None).unwrap_or(b'q');
    write!(out, "\r\x1b[K")?;
    out.flush()?;
    match key {
        key if ends(key) => Err(io::ErrorKind::BrokenPipe.into()),
        b'\r' | b'\n' | b'j' => Ok(rows.saturating_sub(2)),
        _ => Ok(0),
    }
}

/// Whether a person sits at both ends.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// All of standard input, line by line, as bytes that need not be UTF-8.
pub fn input_lines() -> impl Iterator<Item = io::Result<String>> {
    let mut input = io::BufReader::new(io::stdin().lock().take(u64::MAX));
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match io::BufRead::read_until(&mut input, b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(String::from_utf8_lossy(&line)
                .trim_end_matches(['\n', '\r'])
                .to_owned())),
            Err(error) => Some(Err(error)),
        }
    })
}
