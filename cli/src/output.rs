//! What to do when standard output cannot be written.

use std::io::{self, ErrorKind, Write};

/// What a shell shows for a process that SIGPIPE ended: 128 + 13.
const BROKEN_PIPE_STATUS: u8 = 141;

/// The exit status after `error` on standard output. A reader that has gone away, as in
/// `ipvsadm -Lnc | head`, is no error to speak of; anything else is said on `err`.
pub fn failed(err: &mut dyn Write, program: &str, error: &io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return BROKEN_PIPE_STATUS;
    }
    let _ = writeln!(err, "{program}: cannot write standard output: {error}");
    1
}
