//! Replays what the kernel did. Each file in `rows/` is a list of events with the answers
//! that Linux 6.1's IPVS gave; here the same events go through the table and the
//! schedulers, and the answers must be the same.
//!
//! | Row | Meaning |
//! |-|-|
//! | `-A ...`, `-E`, `-D`, `-C`, `-a`, `-e`, `-d` | ipvsadm's words |
//! | `syn CLIENT VIP SERVER` | a TCP connection begins, which counts as active |
//! | `udp CLIENT VIP SERVER` | the same of UDP, which never does |
//! | `fin CLIENT VIP` | it no longer counts as active |
//! | `close CLIENT VIP` | the same, and it is gone after 10 s |
//! | `expire CLIENT VIP` | it is gone |
//! | `sleep N` | time passes, s |
//! | `load SERVER ACTIVE INACTIVE` | what `ipvsadm -L` shows |

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use sched::scheduler::Request;
use sched::server::{Counted, ServerId};
use sched::service::{Protocol, ServiceKey};
use sched::table::{Limits, ServiceTable};

/// How long IPVS keeps a TCP connection in CLOSE, s.
const CLOSE_S: f64 = 10.0;

#[test]
fn every_choice_is_the_kernels() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rows");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut choices = 0;
    for path in paths {
        let rows = std::fs::read_to_string(&path).unwrap();
        let mut replay = Replay::new();
        for (number, row) in (1..).zip(rows.lines()) {
            let words: Vec<_> = row.split_whitespace().collect();
            if !row.starts_with('#') {
                let place = format!("{}:{number}: {row}", path.display());
                replay.play(&words, &place);
            }
        }
        choices += replay.choices;
    }
    assert!(choices > 1000, "only {choices} choices were compared");
}

struct Replay {
    table: ServiceTable,
    now_s: f64,
    connections: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    choices: usize,
}

struct Connection {
    server: ServerId,
    counted: Counted,
    ends_s: f64,
}

impl Replay {
    fn new() -> Self {
        let limits = Limits {
            services: 16,
            servers: 256,
        };
        Self {
            table: ServiceTable::new(limits),
            now_s: 1000.0,
            connections: BTreeMap::new(),
            choices: 0,
        }
    }

    fn play(&mut self, words: &[&str], place: &str) {
        match words {
            [option, ..] if option.starts_with('-') => {
                let command = common::command(&words.join(" "));
                let applied = self.table.apply(&command, self.now_s as u64);
                assert!(applied.is_ok(), "{place}: {applied:?}");
            }
            ["syn", client, vip, expected] => {
                self.open(Protocol::Tcp, (client, vip), expected, place);
            }
            ["udp", client, vip, expected] => {
                self.open(Protocol::Udp, (client, vip), expected, place);
            }
            ["fin", client, vip] => self.end_activity((client, vip), f64::INFINITY),
            ["close", client, vip] => {
                self.end_activity((client, vip), self.now_s + CLOSE_S);
            }
            ["expire", client, vip] => self.expire(flow((client, vip))),
            ["sleep", s] => self.sleep(s.parse().unwrap()),
            ["load", server, active, inactive] => {
                let shown = self.load(server.parse().unwrap());
                let expected = [active, inactive].map(|n| n.parse().unwrap());
                assert_eq!(shown, expected, "{place}");
            }
            _ => panic!("{place}: what is this row?"),
        }
    }

    fn open(&mut self, protocol: Protocol, names: (&str, &str), expected: &str, place: &str) {
        let (client, vip) = flow(names);
        let key = ServiceKey::Address {
            protocol,
            address: vip.ip(),
            port: vip.port(),
        };
        let marked = |key: &ServiceKey| matches!(key, ServiceKey::Fwmark { .. });
        let service = self
            .table
            .service(&key)
            .or_else(|| self.table.services().find(|service| marked(&service.key)))
            .unwrap_or_else(|| panic!("{place}: no service"));
        let request = Request {
            client: client.ip(),
            client_port: client.port(),
            virtual_address: vip.ip(),
            virtual_port: vip.port(),
            now_s: self.now_s as u64,
        };
        let chosen = service.scheduler.schedule(&request, &service.servers);
        let chosen = chosen.map(|index| service.servers[index].clone());
        let name = chosen.as_ref().map(|s| name(s.key.address));
        assert_eq!(name.as_deref().unwrap_or("none"), expected, "{place}");
        self.choices += 1;
        let Some(server) = chosen else { return };
        // IPVS binds every connection as inactive; a SYN's new state makes it active.
        server.bind(Counted::Inactive);
        let counted = match protocol {
            Protocol::Tcp => {
                server.activate();
                Counted::Active
            }
            _ => Counted::Inactive,
        };
        let connection = Connection {
            server: server.id,
            counted,
            ends_s: f64::INFINITY,
        };
        self.connections.insert((client, vip), connection);
    }

    fn end_activity(&mut self, names: (&str, &str), ends_s: f64) {
        // A client that was refused ends nothing.
        let Some(connection) = self.connections.get_mut(&flow(names)) else {
            return;
        };
        let server = self.table.server(connection.server).unwrap();
        // IPVS drops what belongs to a removed server before it looks at the state.
        if !server.available {
            return;
        }
        if connection.counted == Counted::Active {
            server.deactivate();
        }
        connection.counted = Counted::Inactive;
        connection.ends_s = ends_s;
    }

    fn expire(&mut self, flow: (SocketAddr, SocketAddr)) {
        let connection = self.connections.remove(&flow).unwrap();
        let server = self.table.server(connection.server).unwrap();
        server.unbind(connection.counted);
    }

    fn sleep(&mut self, s: f64) {
        self.now_s += s;
        let mut due: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.ends_s <= self.now_s)
            .map(|(flow, connection)| (connection.ends_s, *flow))
            .collect();
        due.sort_by(|a, b| a.partial_cmp(b).unwrap());
        for (_, flow) in due {
            self.expire(flow);
        }
    }

    fn load(&self, server: SocketAddr) -> [u32; 2] {
        use std::sync::atomic::Ordering::Relaxed;
        let (server, _) = self
            .table
            .servers()
            .find(|(s, _)| s.available && s.key.address == server.ip())
            .unwrap();
        [&server.load.active, &server.load.inactive].map(|n| n.load(Relaxed))
    }
}

fn flow((client, vip): (&str, &str)) -> (SocketAddr, SocketAddr) {
    (client.parse().unwrap(), vip.parse().unwrap())
}

/// The oracle's name of a server: `10.2.0.11` and `fd02::11` are `real11`.
fn name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => format!("real{}", a.octets()[3]),
        IpAddr::V6(a) => format!("real{:x}", a.segments()[7]),
    }
}
