//! Rows: a line up to the cursor, and what may complete its last word.

use super::*;
use crate::adm::names::FewNames;
use crate::shell::session::Session;
use crate::shell::stub::Stub;

#[test]
fn rows() {
    let mut stub = Stub::default();
    let mut session = Session {
        director: &mut stub,
        names: &FewNames,
        json: false,
        candidate: None,
    };
    for line in [
        "add service tcp 10.0.0.1:80",
        "add server tcp 10.0.0.1:80 10.0.0.11:8080 nat",
        "add server tcp 10.0.0.1:80 10.0.0.12 nat",
        "add service udp 10.0.0.1:53",
        "add service fwmark 7",
        "add server fwmark 7 10.0.0.13",
    ] {
        session.line(line, &mut Vec::new()).unwrap();
    }
    let rows: [(&str, &[&str]); 24] = [
        ("sh", &["show"]),
        ("show se", &["services", "servers"]),
        (
            "show servers ",
            &[
                "service",
                "server",
                "state",
                "stats",
                "rates",
                "thresholds",
                "json",
            ],
        ),
        ("show servers json st", &["state", "stats"]),
        ("add ser", &["service", "server"]),
        ("add service tcp ", &[]),
        ("add service tcp 10.0.0.9:80 sched", &["scheduler"]),
        (
            "add service tcp 10.0.0.9:80 scheduler l",
            &["lc", "lblc", "lblcr"],
        ),
        (
            "add service tcp 10.0.0.9:80 scheduler sh flags sh-port,sh",
            &["sh-port,sh-fallback", "sh-port,sh-port"],
        ),
        ("delete service tcp ", &["10.0.0.1:80"]),
        ("delete service u ", &["10.0.0.1:53"]),
        ("delete service fwmark ", &["7"]),
        (
            "drain server tcp 10.0.0.1:80 ",
            &["10.0.0.11:8080", "10.0.0.12:80"],
        ),
        (
            "drain server tcp 10.0.0.1:80 10.0.0.11",
            &["10.0.0.11:8080"],
        ),
        ("drain server fwmark 7 ", &["10.0.0.13:0", "ipv6"]),
        ("show servers server 10.0.0.13", &["10.0.0.13:0"]),
        ("set sloppy", &["sloppy_sctp", "sloppy_tcp"]),
        ("shwo ser", &[]),
        ("show connections state SYN_", &["SYN_SENT", "SYN_RECV"]),
        ("-A -t 10.0.0.9:80 -s w", &["wrr", "wlc"]),
        ("-E -t ", &["10.0.0.1:80"]),
        ("-d -t 10.0.0.1:80 -r ", &["10.0.0.11:8080", "10.0.0.12:80"]),
        ("ipvsadm -D --t", &["--tcp-service"]),
        ("--ad", &["--add-service", "--add-server"]),
    ];
    for (line, expected) in rows {
        let (start, mut found) = complete(line, &mut session);
        let mut expected = expected.to_vec();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{line}");
        assert!(
            found.iter().all(|word| word.starts_with(&line[start..])),
            "{line}"
        );
    }
}

#[test]
fn the_candidates_own_services_complete() {
    let mut stub = Stub::default();
    let mut session = Session {
        director: &mut stub,
        names: &FewNames,
        json: false,
        candidate: None,
    };
    for line in ["edit", "add service tcp 10.0.0.1:80"] {
        session.line(line, &mut Vec::new()).unwrap();
    }
    assert_eq!(
        complete("delete service tcp ", &mut session).1,
        ["10.0.0.1:80"]
    );
    session.candidate = None;
    assert!(complete("delete service tcp ", &mut session).1.is_empty());
}
