//! Replays what a kernel's IPVS did, measured by `scripts/measure-states.py`, against our
//! state machines: every state, direction and event, and each state's number and timeout.

use dataplane::connection::state::{self, Direction};
use dataplane::tunables::Tunables;
use sched::service::Protocol;

const MEASURED: &str = include_str!("data/states.tsv");

/// One line: `protocol table direction state events next timeout_s`.
struct Row {
    line: usize,
    protocol: Protocol,
    table: &'static str,
    direction: &'static str,
    state: &'static str,
    events: &'static str,
    next: &'static str,
    timeout_s: u32,
}

fn rows() -> Vec<Row> {
    let lines = MEASURED.lines().enumerate();
    let data = lines.filter(|(_, text)| !text.starts_with('#'));
    data.map(|(at, text)| {
        let [protocol, table, direction, state, events, next, timeout_s] =
            text.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("line {}: not seven fields", at + 1)
        };
        Row {
            line: at + 1,
            protocol: protocol_of(protocol),
            table,
            direction,
            state,
            events,
            next,
            timeout_s: timeout_s.parse().unwrap(),
        }
    })
    .collect()
}

fn protocol_of(name: &str) -> Protocol {
    match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => panic!("unknown protocol {other}"),
    }
}

fn number_of(protocol: Protocol, state_name: &str) -> u8 {
    (0..=u8::MAX)
        .find(|&s| state::name(protocol.number(), false, s) == state_name)
        .unwrap_or_else(|| panic!("no {protocol:?} state is called {state_name}"))
}

fn direction_of(name: &str) -> Direction {
    match name {
        "input" => Direction::Input,
        "output" => Direction::Output,
        "input-only" => Direction::InputOnly,
        other => panic!("unknown direction {other}"),
    }
}

/// `SA` and the like; `-` is none of the four.
fn flags_of(letters: &str) -> u8 {
    letters.chars().fold(0, |flags, letter| {
        flags
            | match letter {
                'F' => 0x01,
                'S' => 0x02,
                'R' => 0x04,
                'A' => 0x10,
                '-' => 0,
                other => panic!("unknown flag {other}"),
            }
    })
}

/// `0,3-5` as 0, 3, 4, 5.
fn chunks_of(ranges: &str) -> Vec<u8> {
    let parts = ranges.split(',');
    let ends = parts.map(|part| part.split_once('-').unwrap_or((part, part)));
    ends.flat_map(|(from, to)| from.parse::<u8>().unwrap()..=to.parse().unwrap())
        .collect()
}

/// What our machines do on each event of a row.
fn steps(row: &Row) -> Vec<(String, u8)> {
    let from = number_of(row.protocol, row.state);
    let direction = direction_of(row.direction);
    match row.protocol {
        Protocol::Tcp => row
            .events
            .split(',')
            .flat_map(|letters| {
                // PSH, URG, ECE and CWR must make no difference.
                [0, 0x08, 0x20, 0xc0].map(|more| {
                    let flags = flags_of(letters) | more;
                    let secure = row.table == "secure";
                    let next = state::next_tcp(from, direction, flags, secure);
                    (format!("flags {flags:#04x}"), next)
                })
            })
            .collect(),
        Protocol::Udp => vec![("packet".into(), state::next_udp(from))],
        Protocol::Sctp => chunks_of(row.events)
            .into_iter()
            .map(|chunk| {
                let next = state::next_sctp(from, direction, chunk);
                (format!("chunk {chunk}"), next)
            })
            .collect(),
    }
}

#[test]
fn every_measured_step_is_ours() {
    let mut replayed = 0;
    for row in rows().iter().filter(|row| row.table != "number") {
        for (event, next) in steps(row) {
            let name = state::name(row.protocol.number(), false, next);
            assert_eq!(
                name, row.next,
                "states.tsv:{}: {:?} {} {} in {}, {event}",
                row.line, row.protocol, row.table, row.direction, row.state
            );
            replayed += 1;
        }
    }
    // 2 tables x 3 directions x 11 states x 16 flag sets x 4, UDP's 3, SCTP's 3 x 14 x 256.
    assert_eq!(replayed, 2 * 3 * 11 * 16 * 4 + 3 + 3 * 14 * 256);
}

#[test]
fn numbers_names_and_timeouts_are_the_kernels() {
    let tunables = Tunables::default();
    for row in rows() {
        let next = number_of(row.protocol, row.next);
        if row.table == "number" {
            assert_eq!(row.events.parse(), Ok(next), "states.tsv:{}", row.line);
        }
        let ours = state::timeout_s(row.protocol, next, &tunables);
        assert_eq!(ours, row.timeout_s, "states.tsv:{}: {}", row.line, row.next);
    }
}
