//! Whole sessions: lines in, text out, and what the director was asked.

use super::*;
use crate::adm::names::FewNames;
use crate::shell::script::{self, Source};
use crate::shell::stub::Stub;

/// Two services; 12 and 3 connections live on the first server.
fn stub() -> Stub {
    let mut stub = Stub::default();
    let set_up = "add service tcp 10.0.0.1:80 scheduler rr persistent 300\n\
                  add server tcp 10.0.0.1:80 10.0.0.11:8080 nat weight 2\n\
                  add server tcp 10.0.0.1:80 10.0.0.12 nat weight 0 upper 100\n\
                  add service fwmark 7 ipv6\n\
                  add server fwmark 7 ipv6 [fd00::1]:0 tunnel gue 6080";
    let (status, _, err) = script(&mut stub, set_up);
    assert_eq!((status, err.as_str()), (0, ""));
    let row = stub.memory.table.services[0]
        .servers
        .iter_mut()
        .find(|s| s.server.port == 8080);
    let row = row.unwrap();
    (row.active, row.inactive, row.persistent) = (12, 3, 4);
    row.rates.connections = 1_000_000;
    stub.memory.connections = (0..3)
        .map(|n| ConnectionRow {
            protocol: 6,
            expires_s: 60 * n + 5,
            state: if n == 2 { "FIN_WAIT" } else { "ESTABLISHED" }.into(),
            client: [192, 0, 2, n as u8].into(),
            client_port: 40_000,
            virtual_address: [10, 0, 0, 1].into(),
            virtual_port: 80,
            server: [10, 0, 0, 11].into(),
            server_port: 8080,
        })
        .collect();
    stub
}

/// Exit status, output, errors.
fn script(stub: &mut Stub, lines: &str) -> (u8, String, String) {
    run(stub, lines, false)
}

fn run(stub: &mut Stub, lines: &str, json: bool) -> (u8, String, String) {
    let mut session = Session {
        director: stub,
        names: &FewNames,
        json,
        candidate: None,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let lines = lines.lines().map(|line| Ok(line.to_owned()));
    let status = script::run(&mut session, Source::Input, lines, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status, text(out), text(err))
}

#[test]
fn listings() {
    let rows = [
        (
            "show services",
            "SERVICE / SERVER  FORWARDING       STATE    WEIGHT  ACTIVE  INACTIVE  PERSISTENT\n\
             tcp 10.0.0.1:80  scheduler rr persistent 300\n\
             \x20 10.0.0.11:8080  nat              ready         2      12         3           4\n\
             \x20 10.0.0.12:80    nat              drained       0       0         0           0\n\
             fwmark 7 ipv6  scheduler wlc\n\
             \x20 [fd00::1]:0     tunnel gue 6080  ready         1       0         0           0\n",
        ),
        (
            "show servers state drained thresholds",
            "SERVICE          SERVER        STATE    UPPER  LOWER  ACTIVE  INACTIVE\n\
             tcp 10.0.0.1:80  10.0.0.12:80  drained    100      0       0         0\n",
        ),
        (
            "show servers service tcp 10.0.0.1:80 server 10.0.0.11 rates",
            "SERVICE          SERVER          CONNS/S  IN PKT/S  OUT PKT/S  IN B/S  OUT B/S\n\
             tcp 10.0.0.1:80  10.0.0.11:8080  1000000         0          0       0        0\n",
        ),
        (
            "show connections state fin_wait",
            "PROTO  EXPIRES  STATE        CLIENT                 SERVICE                SERVER\n\
             tcp       2:05  FIN_WAIT     192.0.2.2:40000        10.0.0.1:80            10.0.0.11:8080\n",
        ),
        (
            "show connections count client 192.0.2.0/31",
            "ESTABLISHED  2\ntotal        2\n",
        ),
        (
            "show connections limit 1 server 10.0.0.11 json",
            "{\"protocol\":6,\"expires_s\":5,\"state\":\"ESTABLISHED\",\"client\":\"192.0.2.0\",\
             \"client_port\":40000,\"virtual_address\":\"10.0.0.1\",\"virtual_port\":80,\
             \"server\":\"10.0.0.11\",\"server_port\":8080}\n",
        ),
        ("show counters", "drop_not_ip  3\n"),
        ("show counters all", "drop_not_ip  3\ndrop_ttl     0\n"),
        ("show tunables sloppy_tcp", "sloppy_tcp  0\n"),
        (
            "show timeouts",
            "tcp_fin_s  120\ntcp_s      900\nudp_s      300\n",
        ),
        (
            "show fwmarks",
            "MARK       ADDRESS  PROTOCOL PORTS\n1          10.0.0.1 tcp      80,443\n",
        ),
        (
            "show status",
            "connections          15\nconnections_max    4096\nconnections_per_s     0\n\
             servers               3\nservers_drained       1\nservices              2\nversion            test\n",
        ),
        (
            "show tunables sloppy_tcp --json",
            "{\n  \"sloppy_tcp\": \"0\"\n}\n",
        ),
        (
            "-Ln -t 10.0.0.1:80",
            "Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
             TCP  10.0.0.1:80 rr persistent 300\n\
             \x20 -> 10.0.0.11:8080               Masq    2      12         3         \n\
             \x20 -> 10.0.0.12:80                 Masq    0      0          0         \n",
        ),
    ];
    for (line, expected) in rows {
        let (status, out, err) = script(&mut stub(), line);
        assert_eq!((status, err.as_str()), (0, ""), "{line}");
        assert_eq!(out, expected, "{line}");
    }
    assert_eq!(
        script(&mut Stub::default(), "show services").1,
        "no services\n"
    );
}

#[test]
fn everything_that_prints_prints_json() {
    for line in [
        "show services",
        "show servers",
        "show counters",
        "show tunables",
        "show fwmarks",
        "show timeouts",
        "show status",
        "show connections count",
        "-L",
        "-L --timeout",
        "-Ln --stats",
        "show connections",
        "-Lnc",
        "edit\ndelete service tcp 10.0.0.1:80\ndiff\ndiscard",
    ] {
        let (status, out, err) = run(&mut stub(), line, true);
        assert_eq!((status, err.as_str()), (0, ""), "{line}");
        let mut values = serde_json::Deserializer::from_str(&out).into_iter::<serde_json::Value>();
        assert!(
            values.all(|value| value.is_ok()) && !out.is_empty(),
            "{line}: {out}"
        );
    }
}

#[test]
fn an_edit_changes_only_what_it_names() {
    let mut stub = stub();
    let lines = "edit server tcp 10.0.0.1:80 10.0.0.11 weight 5\n\
                 edit service tcp 10.0.0.1:80 scheduler lc\n\
                 drain server tcp 10.0.0.1:80 10.0.0.11:8080";
    let (status, out, err) = script(&mut stub, lines);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "10.0.0.11:8080 takes no new connections; 12 active and 3 inactive live on\n"
    );
    let row = &stub.memory.table.services[0];
    assert_eq!(row.spec.scheduler, "lc");
    assert_eq!(row.spec.persistence.unwrap().timeout_s, 300);
    let server = row.servers.iter().find(|s| s.server.port == 8080).unwrap();
    assert_eq!(
        (server.spec.weight, server.spec.forwarding),
        (0, Forwarding::Masquerade)
    );
}

#[test]
fn a_script_ends_at_its_first_error() {
    let rows = [
        (
            "# nothing\n\nshow counters\nshow servces\nclear services",
            1,
            "lvx: line 4: `servces` is not known here; did you mean `services`?\n  show servces\n       ^^^^^^^\n",
        ),
        (
            "add service tcp 10.0.0.1:80",
            1,
            "lvx: line 1: the service already exists\n",
        ),
        (
            "delete service tcp 10.0.0.1:81",
            1,
            "lvx: line 1: no such service\n",
        ),
        (
            "edit service tcp 10.0.0.1:88 scheduler rr",
            1,
            "lvx: line 1: there is no service tcp 10.0.0.1:88; did you mean tcp 10.0.0.1:80?\n",
        ),
        (
            "drain server tcp 10.0.0.1:80 10.0.0.13",
            1,
            "lvx: line 1: tcp 10.0.0.1:80 has no server 10.0.0.13; it has 10.0.0.12:80, 10.0.0.11:8080\n",
        ),
        ("-D -t 10.0.0.1:81", 255, "lvx: line 1: No such service\n"),
        (
            "-A -t 10.0.0.1",
            2,
            "lvx: line 1: Zero port specified for non-persistent service\n",
        ),
        (
            "set slopy_tcp 1",
            1,
            "lvx: line 1: no tunable is called `slopy_tcp`; did you mean `sloppy_tcp`?\n",
        ),
        ("confirm", 1, "lvx: line 1: no commit waits\n"),
        (
            "diff",
            1,
            "lvx: line 1: there is no candidate; `edit` begins one\n",
        ),
        (
            "edit\nclear services",
            1,
            "lvx: the lines end without `commit`: 1 changes of the candidate are not in force\n",
        ),
        ("quit\nshow servces", 0, ""),
        ("watch 1 count 1 show counters", 0, ""),
    ];
    for (lines, status, expected) in rows {
        let mut stub = stub();
        let (ended, _, err) = script(&mut stub, lines);
        assert_eq!((ended, err.as_str()), (status, expected), "{lines}");
        assert_eq!(
            stub.memory.table.services.len(),
            2,
            "{lines}: nothing changed"
        );
    }
}

#[test]
fn a_candidate_changes_nothing_until_it_is_committed_whole() {
    let mut stub = stub();
    stub.memory.batches.clear();
    let lines = "edit\n\
                 delete server tcp 10.0.0.1:80 10.0.0.12\n\
                 edit server tcp 10.0.0.1:80 10.0.0.11 weight 0\n\
                 -D -f 7 -6\n\
                 add service udp 10.0.0.1:53 scheduler rr\n\
                 add server udp 10.0.0.1:53 10.0.0.11 nat\n\
                 set sloppy_tcp 1\n\
                 set timeouts udp 10\n\
                 diff\n";
    let (_, out, err) = script(&mut stub, lines);
    assert!(
        err.contains("7 changes of the candidate are not in force"),
        "{err}"
    );
    assert!(stub.memory.batches.is_empty(), "nothing was carried out");
    let diff = out.split_once("in force\n").unwrap().1;
    assert_eq!(
        diff,
        "~ service tcp 10.0.0.1:80\n\
         -   server 10.0.0.12:80  nat weight 0 upper 100\n\
         ~   server 10.0.0.11:8080  weight 2 -> weight 0  15 live connections\n\
         - service fwmark 7 ipv6  scheduler wlc\n\
         -   server [fd00::1]:0  tunnel gue 6080 weight 1\n\
         + service udp 10.0.0.1:53  scheduler rr\n\
         +   server 10.0.0.11:53  nat weight 1\n\
         ~ timeouts  tcp 900 tcpfin 120 udp 300 -> tcp 900 tcpfin 120 udp 10\n\
         ~ sloppy_tcp  0 -> 1\n\
         9 changes, 15 live connections touched\n"
            .replace(
                "weight 2 -> weight 0  15",
                "weight 2 -> weight 0                      15"
            )
            .as_str(),
    );
    let (status, out, err) = script(&mut stub, &format!("{lines}show servers\ncommit\n"));
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(
        out.contains("udp 10.0.0.1:53  10.0.0.11:53"),
        "listings show the candidate: {out}"
    );
    assert!(out.ends_with("7 changes are in force\n"), "{out}");
    assert_eq!(stub.memory.batches, [7], "one batch");
    assert_eq!(stub.set, [("sloppy_tcp".to_owned(), "1".to_owned())]);
}

#[test]
fn what_would_be_refused_is_refused_when_it_is_typed() {
    let rows = [
        ("add service tcp 10.0.0.1:80", "the service already exists"),
        (
            "add server tcp 10.0.0.1:80 10.0.0.12 nat",
            "the real server already exists",
        ),
        ("-a -t 10.0.0.1:81 -r 10.0.0.5 -m", "no such service"),
        ("add server tcp 10.0.0.1:80 224.0.0.1 nat", "unicast"),
        ("set sloppy_tcp x", "out of range"),
        (
            "edit server tcp 10.0.0.1:80 10.0.0.12 lower 200",
            "lower threshold",
        ),
        ("edit", "a candidate is under way"),
    ];
    for (line, expected) in rows {
        let mut stub = stub();
        let (status, _, err) = script(&mut stub, &format!("edit\n{line}\n"));
        assert_eq!(status, 1, "{line}");
        assert!(
            err.starts_with("lvx: line 2: ") && err.contains(expected),
            "{line}: {err}"
        );
    }
}

#[test]
fn a_running_table_that_others_changed_is_noticed() {
    let mut stub = stub();
    let mut session = Session {
        director: &mut stub,
        names: &FewNames,
        json: false,
        candidate: None,
    };
    let mut out = Vec::new();
    session.line("edit", &mut out).unwrap();
    session
        .line("delete service fwmark 7 ipv6", &mut out)
        .unwrap();
    session.director.execute(&[Command::Flush]).unwrap();
    let failure = session.line("diff", &mut out).unwrap_err();
    assert!(
        failure
            .text("diff")
            .contains("change 1 of the candidate does not fit")
    );
    let failure = session.line("commit", &mut out).unwrap_err();
    assert!(
        failure
            .text("commit")
            .contains("change 1 of 1 was refused: no such service")
    );
    assert!(session.candidate.is_some(), "it can still be looked at");
    session.line("discard", &mut out).unwrap();
}

#[test]
fn commit_confirmed_waits() {
    let mut stub = stub();
    let (status, out, _) = script(
        &mut stub,
        "edit\nclear services\ncommit confirmed 60\nshow status\n",
    );
    assert_eq!(status, 0);
    assert!(
        out.contains("1 change is in force; the director takes them back in 60 s"),
        "{out}"
    );
    assert!(out.contains("confirm_within_s     60\n"), "{out}");
    let (status, _, err) = script(
        &mut stub,
        "edit\nadd service tcp 10.0.0.2:80\ncommit confirmed 9\n",
    );
    assert_eq!((status, err.as_str()), (1, "lvx: line 3: a commit waits\n"));
    assert_eq!(
        script(&mut stub, "return").1,
        "the last commit is taken back\n"
    );
    assert_eq!(stub.memory.table.services.len(), 2);
    let lines = "edit\nclear services\ncommit confirmed 60\nconfirm\n";
    assert!(
        script(&mut stub, lines)
            .1
            .ends_with("confirmed: the last commit stays\n")
    );
    assert!(stub.memory.table.services.is_empty() && stub.waiting.is_none());
}

#[test]
fn a_person_is_asked_before_everything_goes() {
    let asked = Some("remove 2 services, with 15 live connections?");
    let rows = [
        ("clear services", asked),
        ("cl s", asked),
        ("-C", asked),
        ("--clear", asked),
        ("delete service tcp 10.0.0.1:80", None),
        ("-D -t 10.0.0.1:80", None),
        ("show services", None),
        ("clear", None),
        ("", None),
    ];
    let mut stub = stub();
    let mut session = Session {
        director: &mut stub,
        names: &FewNames,
        json: false,
        candidate: None,
    };
    for (line, expected) in rows {
        assert_eq!(session.question(line).as_deref(), expected, "{line}");
    }
    session.line("edit", &mut Vec::new()).unwrap();
    assert_eq!(session.question("clear services"), None, "`commit` asks");
    session.line("discard", &mut Vec::new()).unwrap();
    session.line("clear services", &mut Vec::new()).unwrap();
    assert_eq!(session.question("clear services"), None, "nothing is there");
}
