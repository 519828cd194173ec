//! What the director says on standard error: one line for each event, `lvx: text`. The
//! journal and terminals know the time; files and pipes get it.
//!
//! A fault that lasts would say the same again and again, from any thread. The same line
//! is written once in ten seconds; the next one tells how many were held back.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How long a line is not repeated.
const QUIET: Duration = Duration::from_secs(10);

/// How many different lines are remembered for that.
const LINES_MAX: usize = 256;

/// Starts logging; `LVX_LOG` sets the level (`debug`) or a filter as tracing knows them.
pub fn to_standard_error() {
    let filter = EnvFilter::try_from_env("LVX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .event_format(Plain::default())
        .init();
}

#[derive(Default)]
struct Plain {
    repeats: Mutex<Repeats>,
}

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = match *event.metadata().level() {
            Level::INFO => "lvx: ".to_owned(),
            other => format!("lvx: {}: ", other.as_str()),
        };
        context
            .field_format()
            .format_fields(Writer::new(&mut text), event)?;
        let Some(held_back) = self.repeats.lock().admit(&text, Instant::now()) else {
            return Ok(());
        };
        if std::env::var_os("JOURNAL_STREAM").is_none() && !io::stderr().is_terminal() {
            SystemTime.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        match held_back {
            0 => writeln!(writer, "{text}"),
            n => writeln!(writer, "{text} (and {n} times more in between)"),
        }
    }
}

/// The lines of late.
#[derive(Default)]
struct Repeats(HashMap<String, Line>);

struct Line {
    written: Instant,
    held_back: u32,
}

impl Repeats {
    /// Whether a line is to be written now, and how often it was not since it last was.
    fn admit(&mut self, text: &str, now: Instant) -> Option<u32> {
        if let Some(line) = self.0.get_mut(text) {
            if now.saturating_duration_since(line.written) < QUIET {
                line.held_back += 1;
                return None;
            }
            line.written = now;
            return Some(std::mem::take(&mut line.held_back));
        }
        if self.0.len() >= LINES_MAX {
            self.0
                .retain(|_, line| now.saturating_duration_since(line.written) < QUIET);
        }
        if self.0.len() < LINES_MAX {
            let line = Line {
                written: now,
                held_back: 0,
            };
            self.0.insert(text.to_owned(), line);
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_not_repeated_for_a_while() {
        let mut repeats = Repeats::default();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let rows = [
            ("the first time", "a", 0, Some(0)),
            ("at once again", "a", 1, None),
            ("another line", "b", 1, Some(0)),
            ("still too early", "a", 9, None),
            ("after a while, with what was held back", "a", 10, Some(2)),
            ("and again held back", "a", 11, None),
        ];
        for (what, text, at_s, expected) in rows {
            assert_eq!(repeats.admit(text, after(at_s)), expected, "{what}");
        }
    }

    #[test]
    fn memory_is_bounded_and_new_lines_are_written_all_the_same() {
        let mut repeats = Repeats::default();
        let begin = Instant::now();
        for n in 0..2 * LINES_MAX {
            assert_eq!(repeats.admit(&n.to_string(), begin), Some(0));
        }
        assert_eq!(repeats.0.len(), LINES_MAX);
        assert_eq!(repeats.admit("later", begin + QUIET), Some(0));
        assert_eq!(repeats.0.len(), 1);
    }
}
