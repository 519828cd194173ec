//! What may complete the word under the cursor: fixed words, names that are known, and the
//! services and servers that the director has at this moment.

use sched::scheduler;
use sched::service::{Protocol, ServiceKey};

use super::grammar::Kind;
use super::matcher::{Got, Place, Terminal};
use super::tokens::{self, Token};
use super::words;
use crate::adm::flags;
use crate::adm::legality::{Rules, TunnelKind};
use crate::adm::words::{Flag, Meaning, Verb, WORDS, Word};
use crate::api::{ServiceRow, Table};

/// The states that connections may be in (Linux's `ip_vs_proto_*.c`).
const STATES: [&str; 22] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
    "NONE",
    "UDP",
    "ASSURED",
    "INIT1",
    "INIT",
    "COOKIE_SENT",
    "COOKIE_REPLIED",
    "COOKIE_WAIT",
    "COOKIE",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECEIVED",
    "SHUTDOWN_ACK_SENT",
];

/// What completion asks the director. Without a director there is nothing to know.
pub trait Known {
    /// The table.
    fn table(&mut self) -> Option<Table>;
    /// The tunables' names.
    fn tunables(&mut self) -> Vec<String>;
}

/// What may stand in place of the last word of `line`: where that begins, and each word.
pub fn complete(line: &str, known: &mut dyn Known) -> (usize, Vec<String>) {
    let Ok(mut tokens) = tokens::split(line) else {
        return (line.len(), Vec::new());
    };
    let unfinished = match line.ends_with(char::is_whitespace) {
        true => None,
        false => tokens.pop(),
    };
    let (start, begun) = match &unfinished {
        Some(token) => (token.span.start, token.text.as_str()),
        None => (line.len(), ""),
    };
    let adm = tokens.first().map_or(begun.starts_with('-'), |first| {
        first.text == "ipvsadm" || first.text.starts_with('-')
    });
    let mut found = match adm {
        true => adm_words(&tokens, begun, known),
        false => match Place::follow(&tokens) {
            Ok(place) => place_words(&place, begun, known),
            Err(_) => Vec::new(),
        },
    };
    found.retain(|word| word.starts_with(begun));
    found.dedup();
    (start, found)
}

fn place_words(place: &Place, begun: &str, known: &mut dyn Known) -> Vec<String> {
    let mut found = Vec::new();
    for terminal in place.expected().terminals() {
        match terminal {
            Terminal::Word(word) => found.push(word.name.to_owned()),
            Terminal::Value(value) => found.extend(values(value.kind, &place.gotten, begun, known)),
        }
    }
    found
}

fn values(kind: Kind, gotten: &[Got], begun: &str, known: &mut dyn Known) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match kind {
        Kind::Scheduler => scheduler::names().map(str::to_owned).collect(),
        Kind::Engine => owned(&["sip"]),
        Kind::Flags => listed(begun, flags::names()),
        Kind::State => owned(&STATES),
        Kind::Tunable => known.tunables(),
        Kind::Service => services(known, gotten.last().map_or("", |got| got.terminal.name())),
        Kind::ServiceMark => marks(known),
        Kind::Server => match named_service(gotten) {
            Some(name) => servers(known, |row| words::service(&row.service) == name),
            None => Vec::new(),
        },
        Kind::AnyServer => servers(known, |_| true),
        // A server to be is often one of another service already.
        Kind::NewServer => Vec::new(),
        _ => Vec::new(),
    }
}

/// `begun` with each name that may follow its last comma.
fn listed<'a>(begun: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let before = begun.rfind(',').map_or("", |comma| &begun[..=comma]);
    names.map(|name| format!("{before}{name}")).collect()
}

fn rows(known: &mut dyn Known) -> Vec<ServiceRow> {
    let mut services = known
        .table()
        .map(|table| table.services)
        .unwrap_or_default();
    services.sort_by_key(|row| row.service);
    services
}

fn services(known: &mut dyn Known, protocol: &str) -> Vec<String> {
    let names = rows(known).into_iter().filter_map(|row| match row.service {
        ServiceKey::Address {
            protocol: of,
            address,
            port,
        } if of.name() == protocol => Some(words::endpoint(address, port)),
        _ => None,
    });
    names.collect()
}

fn marks(known: &mut dyn Known) -> Vec<String> {
    let marks = rows(known).into_iter().filter_map(|row| match row.service {
        ServiceKey::Fwmark { mark, .. } => Some(mark.to_string()),
        ServiceKey::Address { .. } => None,
    });
    marks.collect()
}

fn servers(known: &mut dyn Known, wanted: impl Fn(&ServiceRow) -> bool) -> Vec<String> {
    let rows = rows(known);
    let servers = rows
        .iter()
        .filter(|row| wanted(row))
        .flat_map(|row| &row.servers);
    let mut names: Vec<_> = servers.map(|row| words::server(&row.server)).collect();
    names.sort();
    names.dedup();
    names
}

/// The service that the line names, as listings write it.
fn named_service(gotten: &[Got]) -> Option<String> {
    let place = gotten.iter().position(|got| match got.terminal {
        Terminal::Value(value) => matches!(value.kind, Kind::Service | Kind::ServiceMark),
        Terminal::Word(_) => false,
    })?;
    let mut name = format!(
        "{} {}",
        gotten[place - 1].terminal.name(),
        gotten[place].token.text
    );
    if gotten
        .get(place + 1)
        .is_some_and(|got| got.terminal.name() == "ipv6")
    {
        name += " ipv6";
    }
    Some(name)
}

fn adm_words(tokens: &[Token], begun: &str, known: &mut dyn Known) -> Vec<String> {
    let typed: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let meant = |text: &&str| meaning(text);
    let verb = typed.iter().find_map(|text| match meant(text)?.meaning {
        Meaning::Verb(verb) => Some(verb),
        Meaning::Flag(_) => None,
    });
    if let Some(Meaning::Flag(flag)) = typed.last().and_then(meant).map(|word| word.meaning) {
        let found = adm_values(flag, &typed, begun, known);
        if !found.is_empty() {
            return found;
        }
    }
    let options = WORDS.iter().filter(|word| match (word.meaning, verb) {
        (Meaning::Verb(_), None) => true,
        (Meaning::Flag(flag), Some(verb)) => may_stand(flag, verb),
        _ => false,
    });
    let mut found = Vec::new();
    for word in options {
        found.extend(word.short.map(|letter| format!("-{letter}")));
        found.push(format!("--{}", word.long));
    }
    found
}

fn may_stand(flag: Flag, verb: Verb) -> bool {
    let rules = Rules::of(verb);
    flag.slot().is_none_or(|slot| {
        rules.allowed.has(slot) || rules.required.has(slot) || rules.exclusive.has(slot)
    })
}

fn meaning(text: &str) -> Option<&'static Word> {
    match text.strip_prefix("--") {
        Some(long) => WORDS.iter().find(|word| word.long == long),
        None => {
            let letter = text.strip_prefix('-')?.chars().next()?;
            WORDS.iter().find(|word| word.short == Some(letter))
        }
    }
}

fn adm_values(flag: Flag, typed: &[&str], begun: &str, known: &mut dyn Known) -> Vec<String> {
    match flag {
        Flag::Scheduler => scheduler::names().map(str::to_owned).collect(),
        Flag::TunnelType => TunnelKind::ALL.map(|kind| kind.name().to_owned()).into(),
        Flag::SchedulerFlags => listed(begun, flags::names()),
        Flag::Engine => vec!["sip".to_owned()],
        Flag::TcpService => services(known, Protocol::Tcp.name()),
        Flag::UdpService => services(known, Protocol::Udp.name()),
        Flag::SctpService => services(known, Protocol::Sctp.name()),
        Flag::FwmarkService => marks(known),
        Flag::RealServer => {
            let named = |row: &ServiceRow| {
                let name = words::service(&row.service);
                let key = name.split(' ').nth(1).unwrap_or_default();
                typed.contains(&key)
            };
            servers(known, named)
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
