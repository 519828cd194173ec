//! Listings with live counts, as Linux 6.1 and ipvsadm 1.31 printed them.

use std::net::IpAddr;

use sched::server::{Forwarding, ServerKey, ServerSpec, Tunnel};
use sched::service::{Protocol, SchedulerFlags, ServiceKey, ServiceSpec};

use super::*;
use crate::adm::names::FewNames;
use crate::adm::request::{Columns, Format};
use crate::api::{ConnectionRow, Rates, ServerRow, ServiceRow, Stats, Table, Timeouts};

const NUMERIC: Style<'static> = Style { names: None };

fn server(address: &str, port: u16, forwarding: Forwarding) -> ServerRow {
    ServerRow {
        server: ServerKey {
            address: address.parse().unwrap(),
            port,
        },
        spec: ServerSpec {
            forwarding,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        },
        local: false,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
        rates: Rates::default(),
    }
}

fn service_of(protocol: Protocol, address: &str, port: u16, servers: Vec<ServerRow>) -> ServiceRow {
    ServiceRow {
        service: ServiceKey::Address {
            protocol,
            address: address.parse().unwrap(),
            port,
        },
        spec: ServiceSpec {
            scheduler: "wlc".to_owned(),
            flags: SchedulerFlags(0),
            persistence: None,
            netmask: u32::MAX,
            one_packet: false,
            engine: None,
        },
        limits: None,
        stats: Stats::default(),
        rates: Rates::default(),
        servers,
    }
}

fn table(services: Vec<ServiceRow>) -> Table {
    Table {
        version: String::new(),
        size: 4096,
        timeouts: Timeouts {
            tcp_s: 900,
            tcp_fin_s: 120,
            udp_s: 300,
        },
        services,
        daemons: Vec::new(),
    }
}

fn printed(services: Vec<ServiceRow>, columns: Columns, exact: bool) -> String {
    let format = Format {
        columns,
        exact,
        ..Format::default()
    };
    let mut out = Vec::new();
    super::services(&mut out, table(services), &format, NUMERIC).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn connections_as_recorded() {
    let rows = include_str!("../../../tests/data/connections.jsonl");
    for row in rows.lines() {
        let (row, text): (ConnectionRow, String) = serde_json::from_str(row).unwrap();
        let mut out = Vec::new();
        connection(&mut out, &row, NUMERIC).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{text}\n"));
    }
    assert!(rows.lines().count() >= 30);
}

#[test]
fn connections_by_name() {
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    let vip: IpAddr = "10.55.0.1".parse().unwrap();
    let row = ConnectionRow {
        protocol: 17,
        expires_s: 61,
        state: "UDP".to_owned(),
        client: vip,
        client_port: 55380,
        virtual_address: vip,
        virtual_port: 69,
        server: loopback,
        server_port: 69,
    };
    let mut out = Vec::new();
    connections_heading(&mut out, true).unwrap();
    let names = Some(&FewNames as &dyn Names);
    connection(&mut out, &row, Style { names }).unwrap();
    let expected = "\
IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
UDP 01:01  UDP         vip.example.org:55380 vip.example.org:tftp localhost:tftp
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// From the golden run `adm-list-forms`.
#[test]
fn stats() {
    let counts = |connections, in_packets, in_bytes| Stats {
        connections,
        in_packets,
        in_bytes,
        ..Stats::default()
    };
    let mut first = server("10.2.0.11", 80, Forwarding::Masquerade);
    first.stats = counts(2, 2, 80);
    let mut second = server("10.2.0.12", 80, Forwarding::Route);
    second.stats = counts(1, 1, 40);
    let mut web = service_of(Protocol::Tcp, "10.1.0.1", 80, vec![second, first]);
    web.stats = counts(3, 3, 120);
    let mut third = server("10.2.0.13", 53, Forwarding::Tunnel(Tunnel::Ipip));
    third.stats = counts(2, 2, 2056);
    let mut dns = service_of(Protocol::Udp, "10.1.0.2", 53, vec![third]);
    dns.stats = counts(2, 2, 2056);
    let expected = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.1.0.1:80                         3        3        0      120        0
  -> 10.2.0.11:80                        2        2        0       80        0
  -> 10.2.0.12:80                        1        1        0       40        0
UDP  10.1.0.2:53                         2        2        0     2056        0
  -> 10.2.0.13:53                        2        2        0     2056        0
";
    let services = vec![dns, web];
    assert_eq!(printed(services.clone(), Columns::Stats, false), expected);
    assert_eq!(printed(services, Columns::Stats, true), expected);
}

/// Counts as in the golden runs `thresholds` and `persist`, each column another number.
#[test]
fn live_counts() {
    let mut row = server("10.2.0.11", 8080, Forwarding::Masquerade);
    row.spec.weight = 100;
    row.spec.upper_threshold = 30;
    row.spec.lower_threshold = 20;
    (row.active, row.inactive, row.persistent) = (12, 345, 7);
    row.rates = Rates {
        connections: 150_000_000,
        in_packets: 2,
        out_packets: 3,
        in_bytes: 150_000_000,
        out_bytes: 5,
    };
    let mut web = service_of(Protocol::Tcp, "10.1.0.1", 80, vec![row.clone()]);
    web.rates = row.rates;
    let rows = [
        (
            Columns::Plain,
            "  -> 10.2.0.11:8080               Masq    100    12         345       ",
        ),
        (
            Columns::TunnelInfo,
            "  -> 10.2.0.11:8080               Masq    n/a           100    12         345       ",
        ),
        (
            Columns::Thresholds,
            "  -> 10.2.0.11:8080               30         20         12         345       ",
        ),
        (
            Columns::PersistentConn,
            "  -> 10.2.0.11:8080               100       7           12         345       ",
        ),
        (
            Columns::Rate,
            "  -> 10.2.0.11:8080               150000000        2        3  150000K        5",
        ),
    ];
    for (columns, expected) in rows {
        let text = printed(vec![web.clone()], columns, false);
        assert_eq!(text.lines().last(), Some(expected), "{columns:?}");
    }
    let rates = printed(vec![web], Columns::Rate, false);
    let expected = "TCP  10.1.0.1:80                   150000K        2        3  150000K        5";
    assert_eq!(rates.lines().nth(3), Some(expected));
}

#[test]
fn a_local_server_is_shown_by_its_method_as_the_kernel_does() {
    let mut row = server("10.2.0.1", 80, Forwarding::Route);
    row.local = true;
    let web = service_of(Protocol::Tcp, "10.1.0.1", 80, vec![row]);
    let text = printed(vec![web], Columns::Plain, false);
    let expected = "  -> 10.2.0.1:80                  Route   1      0          0         ";
    assert_eq!(text.lines().last(), Some(expected));
}

#[test]
fn daemons_of_the_other_role() {
    let daemon = DaemonRow {
        role: DaemonRole::Backup,
        interface: "lo".to_owned(),
        sync_id: 7,
        max_length_bytes: 1024,
        group: "224.1.2.3".parse().unwrap(),
        port: 999,
        ttl: 3,
    };
    let mut out = Vec::new();
    daemons(&mut out, &[daemon]).unwrap();
    let expected =
        "backup sync daemon (mcast=lo, syncid=7, maxlen=1024, group=224.1.2.3, port=999, ttl=3)\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
