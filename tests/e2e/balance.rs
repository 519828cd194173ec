//! How connections spread, and that the listings say so.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lab::{Family, Lab, Method, Options, eventually};
use crate::load::{Client, connect_all, round};

/// 1,000 connections open at once, over three servers by rr: 334, 333 and 333.
#[test]
fn a_thousand_connections_split_evenly() {
    let lab = Lab::forwarding(
        "thousand",
        Options {
            queues: 2,
            ..Options::default()
        },
        Method::Nat,
    );
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let clients = lab.inside("client", || {
        let mut clients = connect_all(&Family::V4.service(80), 1000);
        round(&mut clients);
        round(&mut clients);
        clients
    });

    let mut split: Vec<usize> = per_server(&clients).into_values().collect();
    split.sort_unstable();
    assert_eq!(split, [333, 333, 334], "connections per server");

    let table = lab.ipvsadm("-Lnc");
    let established = table
        .lines()
        .filter(|l| l.contains(" ESTABLISHED "))
        .count();
    assert_eq!(established, 1000, "established connections in ipvsadm -Lnc");

    let mut listed = column(&lab.ipvsadm("-Ln"), 4);
    listed.sort_unstable();
    assert_eq!(listed, [333, 333, 334], "ActiveConn in ipvsadm -Ln");

    // Counters move with the estimate, every 2 s, as IPVS's do.
    eventually(Duration::from_secs(5), || {
        let mut counted = column(&lab.ipvsadm("-Ln --stats"), 2);
        counted.sort_unstable();
        if counted == [333, 333, 334] {
            Ok(())
        } else {
            Err(format!("Conns in ipvsadm -Ln --stats: {counted:?}"))
        }
    });
}

/// Weights 1, 2, 3 by wrr; 60 connections.
#[test]
fn weights_decide() {
    let lab = Lab::forwarding("weights", Options::default(), Method::Direct);
    lab.add_service(Family::V6, 80, "wrr", Method::Direct, 80);
    for index in 1..=3 {
        let (service, server) = (Family::V6.service(80), Family::V6.server(index, 80));
        lab.ipvsadm(&format!("-e -t {service} -r {server} -g -w {index}"));
    }
    let clients = lab.inside("client", || {
        let mut clients = connect_all(&Family::V6.service(80), 60);
        round(&mut clients);
        clients
    });
    let split: Vec<usize> = per_server(&clients).into_values().collect();
    assert_eq!(split, [10, 20, 30], "connections to rs1, rs2, rs3");
}

fn per_server(clients: &[Client]) -> BTreeMap<&str, usize> {
    let mut split = BTreeMap::new();
    for client in clients {
        *split.entry(client.server()).or_default() += 1;
    }
    split
}

/// The numbers in a column of ipvsadm's server lines (`-> ADDRESS:PORT ...`); the arrow is column 0.
fn column(listing: &str, index: usize) -> Vec<u64> {
    let servers = listing
        .lines()
        .filter(|l| l.trim_start().starts_with("-> ") && !l.contains("RemoteAddress"));
    servers
        .map(|l| {
            l.split_whitespace()
                .nth(index)
                .and_then(|w| w.parse().ok())
                .expect("a number")
        })
        .collect()
}
