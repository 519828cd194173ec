//! Instructions and cache misses by valgrind's callgrind, where the processor's counters
//! cannot be read: it runs the same benchmark on a simulated processor. Two runs of
//! different lengths are told apart, so that what comes before the packets is not counted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::pipeline::{BURST, Counted};

/// Packets of the short and of the long run.
const PACKETS: [u64; 2] = [50 * BURST as u64, 450 * BURST as u64];

/// Counts for `lvx bench pipeline WORDS`.
///
/// # Errors
/// Where callgrind is missing or fails.
pub fn count(lvx: &Path, words: &[String]) -> Result<Counted, String> {
    let [short, long] = PACKETS.map(|packets| events(lvx, words, packets));
    let (short, long) = (short?, long?);
    let packets = (PACKETS[1] - PACKETS[0]) as f64;
    let each = |of: fn(&Events) -> u64| (of(&long) as f64 - of(&short) as f64) / packets;
    Ok(Counted {
        instructions: each(|events| events.instructions),
        cache_misses: Some(each(|events| events.misses)),
        simulated: true,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Events {
    instructions: u64,
    misses: u64,
}

fn events(lvx: &Path, words: &[String], packets: u64) -> Result<Events, String> {
    let file = std::env::temp_dir().join(format!("lvx-callgrind.{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--cache-sim=yes"])
        .arg("--toggle-collect=*handle_burst*")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(lvx)
        .args(["bench", "pipeline", "--rounds", "1", "--packets"])
        .arg(packets.to_string())
        .args(words)
        .stdin(Stdio::null())
        .output();
    let text = fs::read_to_string(&file);
    let _ = fs::remove_file(&file);
    let output =
        output.map_err(|error| format!("valgrind: {error}: `apt-get install valgrind`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        return Err(format!("valgrind: {}: {last}", output.status));
    }
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    totals(&text).ok_or_else(|| "callgrind's file has no totals".to_owned())
}

/// What stands in a callgrind file: names of events, and their totals in that order.
fn totals(text: &str) -> Option<Events> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let names: Vec<&str> = line("events:")?.split_whitespace().collect();
    let counts: Vec<u64> = line("totals:")
        .or_else(|| line("summary:"))?
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let count = |name: &str| -> Option<u64> {
        let place = names.iter().position(|known| *known == name)?;
        // Zeros at the end are left out.
        Some(counts.get(place).copied().unwrap_or(0))
    };
    Some(Events {
        instructions: count("Ir")?,
        misses: count("DLmr").unwrap_or(0) + count("DLmw").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_found_by_the_events_names() {
        let rows = [
            (
                "events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw\nfn=(1)\n0 5 5\ntotals: 100 20 10 9 8 7 6 5 4\n",
                Some((100, 9)),
            ),
            (
                "events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw\ntotals: 100 20\n",
                Some((100, 0)),
            ),
            ("events: Ir\nsummary: 77\n", Some((77, 0))),
            ("events: Dr\nsummary: 77\n", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let found = totals(text).map(|events| (events.instructions, events.misses));
            assert_eq!(found, expected, "{text}");
        }
    }
}
