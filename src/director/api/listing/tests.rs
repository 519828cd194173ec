//! Pieces joined are what the whole would be.

use cli::api::{Batch, Outcome};
use cli::config;
use sched::command::Command;
use sched::prefix::Guard;
use sched::server::{Forwarding, ServerKey, ServerSpec};
use sched::service::{Protocol, ServiceKey};
use sched::table::Limits;
use serde_json::{Value, json};

use super::*;
use crate::director::control::state::{State, undone};

/// Services with so many servers each.
fn look(servers: &[u32]) -> Look {
    let mut commands = Vec::new();
    for (number, &count) in servers.iter().enumerate() {
        let service = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: [10, 1, 0, number as u8].into(),
            port: 80,
        };
        let spec = serde_json::from_str(r#"{"scheduler": "rr", "netmask": 4294967295}"#);
        commands.push(Command::AddService {
            service,
            spec: spec.unwrap(),
        });
        commands.extend((0..count).map(|n| Command::AddServer {
            service,
            server: ServerKey {
                address: std::net::Ipv4Addr::from_bits(0x0a02_0000 + n).into(),
                port: 80,
            },
            spec: ServerSpec {
                forwarding: Forwarding::Masquerade,
                weight: n,
                upper_threshold: 0,
                lower_threshold: 0,
            },
        }));
    }
    let mut state = State::new(Limits {
        services: 8,
        servers: 8192,
    });
    let atomic = true;
    let (refusals, _) = state.run(&Batch { commands, atomic }, 0, &|_| Ok(()));
    assert!(refusals.iter().all(Option::is_none));
    Look {
        state,
        hops: Default::default(),
        statistics: Default::default(),
        counters: Vec::new(),
        size: 4096,
        require_local: false,
        waiting: None,
    }
}

fn joined(mut pieces: impl Pieces) -> Value {
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next() {
        assert!(piece.len() < PIECE_BYTES + 2048, "{}", piece.len());
        whole.extend(piece);
    }
    assert!(pieces.next().is_none(), "it stays at its end");
    let text = String::from_utf8(whole).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_table_in_pieces() {
    let rows: [(&str, &[u32]); 5] = [
        ("no services", &[]),
        ("no servers", &[0]),
        ("some", &[0, 3, 0, 1]),
        ("many", &[1000, 2000]),
        ("none after many", &[1000, 0]),
    ];
    for (what, servers) in rows {
        let look = look(servers);
        let expected = json!(look.table(&Part::All));
        let services = look.services(&Part::All);
        let frame = to_text(&look.head());
        let listing = Listing::new(look, Counts::Estimated, services, &frame);
        assert_eq!(joined(listing), expected, "{what}");
    }
}

#[test]
fn prefixes_in_pieces() {
    for count in [0, 1, 2, 5000] {
        let prefix = |n: u32| Prefix::of(std::net::Ipv4Addr::from_bits(n << 8).into(), 24);
        let prefixes: Prefixes = (0..count).map(|n| (prefix(n), Guard::Deny)).collect();
        let expected = json!(prefixes);
        let list = PrefixList {
            prefixes: Arc::new(prefixes),
            at: At::Begin,
        };
        assert_eq!(joined(list), expected, "{count}");
    }
}

#[test]
fn a_checks_outcome_in_pieces() {
    let refused = |place| Err((place, Refusal::NoSuchService));
    let rows = [
        ("no commands", 0, Ok(())),
        ("all done", 3, Ok(())),
        ("the first refused", 3, refused(0)),
        ("many, and one refused", 5000, refused(4000)),
    ];
    for (what, count, checked) in rows {
        let refusals = match checked.clone() {
            Ok(()) => vec![None; count],
            Err((place, refusal)) => undone(count, place, refusal),
        };
        let expected = json!(Outcome { refusals });
        assert_eq!(joined(Checked::new(count, checked)), expected, "{what}");
    }
}

/// What reads an answer takes it for the table it is.
#[test]
fn a_piecewise_table_is_read_back() {
    let look = look(&[2, 1]);
    let config = look.state.config();
    let services = look.services(&Part::All);
    let frame = to_text(&look.head());
    let listing = Listing::new(look, Counts::Live, services, &frame);
    let table: cli::api::Table = serde_json::from_value(joined(listing)).unwrap();
    let keys: Vec<_> = table.services.iter().map(|row| row.service).collect();
    let expected: Vec<_> = config
        .services
        .iter()
        .map(|s: &config::Service| s.key)
        .collect();
    assert_eq!(keys, expected);
    assert_eq!(table.services[0].servers.len(), 2);
}
