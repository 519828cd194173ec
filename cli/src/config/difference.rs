//! What a transaction changes, for people.

use sched::command::Command;

use super::Running;
use crate::shell::{Candidate, diff};

/// A line for each service, server and setting that `commands` change; empty where there
/// is nothing to do.
pub fn difference(running: &Running, commands: &[Command]) -> String {
    if commands.is_empty() {
        return String::new();
    }
    let mut candidate = Candidate::new(&running.table);
    for command in commands {
        // The director judges for itself; what it refuses changes nothing.
        let _ = candidate.add(command.clone());
    }
    let after = candidate.table(&running.table);
    let tunables = running.tunables.iter();
    let tunables = tunables.map(|(name, value)| (name.clone(), value.clone().into()));
    let found = diff::between(commands, &running.table, after, &tunables.collect());
    let mut text = Vec::new();
    // Writing into memory does not fail.
    let _ = diff::write(&mut text, &found);
    String::from_utf8_lossy(&text).into_owned()
}
