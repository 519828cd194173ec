//! The names of scheduler flags. A scheduler of its own names has no others.

use sched::service::SchedulerFlags;

use super::failure::Failure;

struct Name {
    text: &'static str,
    /// The scheduler that alone may bear it.
    scheduler: Option<&'static str>,
    bit: u8,
}

const fn name(text: &'static str, scheduler: Option<&'static str>, bit: u8) -> Name {
    Name {
        text,
        scheduler,
        bit,
    }
}

const NAMES: [Name; 7] = [
    name("flag-1", None, 1),
    name("flag-2", None, 2),
    name("flag-3", None, 4),
    name("sh-fallback", Some("sh"), SchedulerFlags::FALLBACK),
    name("sh-port", Some("sh"), SchedulerFlags::PORT),
    name("mh-fallback", Some("mh"), SchedulerFlags::FALLBACK),
    name("mh-port", Some("mh"), SchedulerFlags::PORT),
];

/// Every name, for help and completion.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|name| name.text)
}

/// Reads a list of names, split at commas; empty ones count for nothing.
pub fn parse(text: &str, scheduler: &str) -> Result<SchedulerFlags, Failure> {
    let mut bits = 0;
    for typed in text.split(',').filter(|typed| !typed.is_empty()) {
        let name = NAMES
            .iter()
            .find(|name| name.text == typed)
            .ok_or_else(|| Failure::usage(format!("invalid scheduler flag `{typed}'")))?;
        if name.scheduler.is_some_and(|only| only != scheduler) {
            return Err(Failure::usage(format!(
                "incompatible scheduler flag `{typed}'"
            )));
        }
        bits |= name.bit;
    }
    Ok(SchedulerFlags(bits))
}

/// The names of `flags` under `scheduler`, comma-separated.
pub fn text(flags: SchedulerFlags, scheduler: &str) -> String {
    let own = NAMES.iter().any(|name| name.scheduler == Some(scheduler));
    let wanted = own.then_some(scheduler);
    let set: Vec<_> = NAMES
        .iter()
        .filter(|name| name.scheduler == wanted && flags.has(name.bit))
        .map(|name| name.text)
        .collect();
    set.join(",")
}
