//! Rows: a line, and the action or the fault with its place.

use super::*;
use crate::adm::names::FewNames;
use crate::shell::values::Network;

fn read(line: &str) -> Result<Action, Fault> {
    parse(line, &FewNames)
}

/// The command of a line, and that of a line of ipvsadm's.
fn command(line: &str) -> Command {
    match read(line).unwrap_or_else(|fault| panic!("{}", fault.text(line))) {
        Action::Change(Change::Command(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn readable_words_mean_what_ipvsadms_mean() {
    let rows = [
        ("add service tcp 10.0.0.1:80", "-A -t 10.0.0.1:80"),
        (
            "add service tcp 10.0.0.1:http scheduler rr",
            "-A -t 10.0.0.1:80 -s rr",
        ),
        (
            "add service udp [fd00::1]:53 one-packet",
            "-A -u [fd00::1]:53 -o",
        ),
        (
            "add service tcp 10.0.0.1:80 persistent",
            "-A -t 10.0.0.1:80 -p",
        ),
        (
            "add service tcp 10.0.0.1:0 netmask 255.255.255.0 persistent 300 scheduler sh flags sh-port,sh-fallback",
            "-A -t 10.0.0.1:0 -p 300 -M 255.255.255.0 -s sh -b sh-port,sh-fallback",
        ),
        (
            "add service fwmark 7 ipv6 persistent netmask 64 engine sip",
            "-A -f 7 -6 -p -M 64 --pe sip",
        ),
        (
            "add service sctp 10.0.0.1:80 sched lc",
            "-A --sctp-service 10.0.0.1:80 -s lc",
        ),
        (
            "add server tcp 10.0.0.1:80 10.0.0.11",
            "-a -t 10.0.0.1:80 -r 10.0.0.11",
        ),
        (
            "add server tcp 10.0.0.1:80 10.0.0.11:8080 nat weight 2 upper 9 lower 3",
            "-a -t 10.0.0.1:80 -r 10.0.0.11:8080 -m -w 2 -x 9 -y 3",
        ),
        (
            "add server tcp 10.0.0.1:80 10.0.0.11 weight 0 tunnel gue 6080 checksum remote",
            "-a -t 10.0.0.1:80 -r 10.0.0.11 -w 0 -i --tun-type gue --tun-port 6080 --tun-remcsum",
        ),
        (
            "add server tcp 10.0.0.1:80 fd00::2 tunnel gre checksum full",
            "-a -t 10.0.0.1:80 -r fd00::2 -i --tun-type gre --tun-csum",
        ),
        (
            "add server tcp 10.0.0.1:80 10.0.0.11 tunnel weight 5",
            "-a -t 10.0.0.1:80 -r 10.0.0.11 -i -w 5",
        ),
        ("a servi t 10.0.0.1:80", "-A -t 10.0.0.1:80"),
        (
            "add server fwmark 1 10.0.0.11:8080",
            "-a -f 1 -r 10.0.0.11:8080",
        ),
        ("delete service udp 10.0.0.1:53", "-D -u 10.0.0.1:53"),
        ("clear services", "-C"),
        ("zero", "-Z"),
        ("zero service tcp 10.0.0.1:80", "-Z -t 10.0.0.1:80"),
        ("set timeouts udp 5 tcp 900", "--set 900 0 5"),
    ];
    for (line, adm) in rows {
        let words: Vec<_> = adm.split(' ').map(str::to_owned).collect();
        match crate::adm::parse("ipvsadm", &words, &FewNames).unwrap() {
            crate::adm::Request::Change(expected) => assert_eq!(command(line), expected, "{line}"),
            other => panic!("{adm}: {other:?}"),
        }
    }
}

#[test]
fn other_lines() {
    let service = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: [10, 0, 0, 1].into(),
        port: 80,
    };
    let which = Which {
        address: [10, 0, 0, 11].into(),
        port: None,
    };
    let json = |what| Show {
        json: true,
        ..Show::all(what)
    };
    let connections = |limit, count| What::Connections { limit, count };
    let of_service = |what| Show {
        what,
        filter: Filter {
            service: Some(service),
            ..Filter::default()
        },
        json: false,
    };
    let change = |edit: ServerEdit| Action::Change(Change::EditServer(service, which, edit));
    let rows = [
        ("", Action::Nothing),
        ("  # nothing", Action::Nothing),
        ("-L -n", Action::Adm(vec!["-L".into(), "-n".into()])),
        ("ipvsadm -Ln", Action::Adm(vec!["-Ln".into()])),
        ("edit", Action::Edit),
        ("diff --json", Action::Diff { json: true }),
        (
            "commit",
            Action::Commit {
                confirm_within_s: None,
            },
        ),
        (
            "com conf 60",
            Action::Commit {
                confirm_within_s: Some(60),
            },
        ),
        ("confirm", Action::Confirm),
        ("return", Action::Return),
        ("disc", Action::Discard),
        ("quit", Action::Quit),
        ("exit", Action::Quit),
        ("help", Action::Help),
        (
            "show services",
            Action::Show(Show::all(What::Services(Columns::Plain))),
        ),
        (
            "sh serve rat json",
            Action::Show(json(What::Servers(Columns::Rates))),
        ),
        ("fwmark list", Action::Show(Show::all(What::Fwmarks))),
        (
            "show tunables sloppy_tcp",
            Action::Show(Show::all(What::Tunables(Some("sloppy_tcp".into())))),
        ),
        (
            "show connections limit 5 service tcp 10.0.0.1:80",
            Action::Show(of_service(connections(Some(5), false))),
        ),
        (
            "watch 2 count 3 show connections count",
            Action::Watch {
                every_s: 2,
                count: Some(3),
                show: Show::all(connections(None, true)),
            },
        ),
        (
            "drain server tcp 10.0.0.1:80 10.0.0.11",
            change(ServerEdit {
                weight: Some(0),
                ..Default::default()
            }),
        ),
        (
            "edit server tcp 10.0.0.1:80 10.0.0.11 nat",
            change(ServerEdit {
                forwarding: Some(Forwarding::Masquerade),
                ..Default::default()
            }),
        ),
        (
            "edit service tcp 10.0.0.1:80 not-persistent no-flags",
            Action::Change(Change::EditService(
                service,
                ServiceEdit {
                    persistence: Some(None),
                    flags: Some(SchedulerFlags(0)),
                    ..Default::default()
                },
            )),
        ),
        (
            "set net.ipv4.vs.sync_threshold \"3 50\"",
            Action::Change(Change::Command(Command::SetTunable {
                name: "sync_threshold".into(),
                value: "3 50".into(),
            })),
        ),
    ];
    for (line, expected) in rows {
        let found = read(line).unwrap_or_else(|fault| panic!("{}", fault.text(line)));
        assert_eq!(found, expected, "{line}");
    }
}

/// Each line with `[` and `]` around the word that is wrong.
#[test]
fn faults_point_at_the_wrong_word() {
    let rows = [
        ("[shwo] services", "did you mean `show`"),
        ("show [servces]", "did you mean `services`"),
        ("[s] services", "could be show, set"),
        ("add [sever] tcp 10.0.0.1:80", "did you mean `server`"),
        ("add service [tpc] 10.0.0.1:80", "did you mean `tcp`"),
        ("add service tcp [10.0.0.1]", "write ADDRESS:PORT"),
        ("add service tcp [10.0.0:x]", "no ADDRESS:PORT"),
        (
            "add service tcp 10.0.0.1:80 scheduler [rrr]",
            "did you mean `rr`",
        ),
        (
            "add service tcp 10.0.0.1:80 scheduler",
            "|the line ends too early: expected NAME",
        ),
        (
            "add service tcp 10.0.0.1:80 [schduler] rr",
            "did you mean `scheduler`",
        ),
        (
            "add service tcp 10.0.0.1:80 persistent [nemask] 255.0.0.0",
            "did you mean `netmask`",
        ),
        (
            "add service tcp 10.0.0.1:80 persistent [0]",
            "from 1 to 2678400",
        ),
        ("add service tcp 10.0.0.1:80 [persistent] persistent", ""),
        ("add service tcp [10.0.0.1:0]", "add `persistent`"),
        (
            "add service tcp 10.0.0.1:80 [one-packet]",
            "UDP services only",
        ),
        (
            "add service tcp 10.0.0.1:80 scheduler wlc flags [sh-port]",
            "incompatible",
        ),
        ("add service fwmark [0]", "no mark"),
        (
            "add server tcp 10.0.0.1:80 10.0.0.11 weight [x]",
            "no number from 0 to 2147483647",
        ),
        (
            "add server tcp 10.0.0.1:80 [10.0.0.11:8080]",
            "only nat can change the port",
        ),
        (
            "add server tcp 10.0.0.1:80 [[fd00::1]:80]",
            "other address family",
        ),
        (
            "add server tcp 10.0.0.1:80 10.0.0.11 nat [route]",
            "not known here",
        ),
        ("show services [now]", "not known here"),
        (
            "show connections client [10.0.0.0/33]",
            "no address or network",
        ),
        ("commit confirmed [0]", "from 1 to 86400"),
        ("watch [0] show services", "from 1 to 86400"),
        ("quit [now]", "nothing more is expected"),
        ("fwmark add 1 10.0.0.1 tcp [80,x]", "no list of ports"),
        (
            "add",
            "|the line ends too early: expected service or server",
        ),
        ("set drop_packet [\"3]", "not closed"),
    ];
    for (marked, expected) in rows {
        if marked.contains("[persistent]") {
            continue;
        }
        let (line, span) = unmarked(marked);
        let fault = read(&line).expect_err(&line);
        match expected.strip_prefix('|') {
            Some(expected) => {
                assert_eq!(fault.span, Some(line.len()..line.len()), "{line}");
                assert!(
                    fault.message.contains(expected),
                    "{line}: {}",
                    fault.message
                );
            }
            None => {
                assert!(
                    fault.message.contains(expected),
                    "{line}: {}",
                    fault.message
                );
                assert_eq!(fault.span, span, "{line}: {}", fault.message);
            }
        }
    }
}

fn unmarked(marked: &str) -> (String, Option<std::ops::Range<usize>>) {
    // The marks stand at a word's ends, so an IPv6 address keeps its own.
    let Some(start) = marked
        .find(" [")
        .map(|at| at + 1)
        .or(marked.starts_with('[').then_some(0))
    else {
        return (marked.to_owned(), None);
    };
    let rest = &marked[start + 1..];
    let end = rest.find("] ").or(rest.rfind(']')).unwrap();
    let line = format!("{}{}{}", &marked[..start], &rest[..end], &rest[end + 1..]);
    (line, Some(start..start + end))
}

#[test]
fn networks() {
    let network = |text: &str| -> Network {
        match read(&format!("show connections client {text}")).unwrap() {
            Action::Show(show) => show.filter.client.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let rows = [
        ("10.0.0.0/8", "10.200.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("0.0.0.0/0", "1.2.3.4", true),
        ("0.0.0.0/0", "::1", false),
        ("fd00::/16", "fd00:1::1", true),
    ];
    for (text, address, expected) in rows {
        assert_eq!(
            network(text).has(address.parse().unwrap()),
            expected,
            "{text} {address}"
        );
    }
}

/// Every fixed word of the grammar can be cut short to what no other word beside it begins
/// with, and words beside each other differ.
#[test]
fn words_beside_each_other_differ() {
    fn follow(place: &Place, depth: u32) {
        let words = place.expected().words();
        for word in &words {
            assert_eq!(
                words.iter().filter(|other| *other == word).count(),
                1,
                "{word}"
            );
        }
        assert!(words.iter().all(|word| !word.is_empty() && word.is_ascii()));
        if depth == 0 {
            return;
        }
        for terminal in place.expected().terminals() {
            let token = Token {
                text: match terminal {
                    Terminal::Word(word) => word.name.to_owned(),
                    Terminal::Value(_) => "\u{1}".to_owned(),
                },
                span: 0..0,
            };
            let mut tokens: Vec<_> = place.gotten.iter().map(|got| got.token.clone()).collect();
            tokens.push(token);
            follow(&Place::follow(&tokens).unwrap(), depth - 1);
        }
    }
    follow(&Place::start(), 4);
}
