//! A director that a file describes: at its start, on SIGHUP, under a service manager.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Lab, Options, eventually, lvx};

const SERVICES: &str = r#"
[tunables]
expire_nodest_conn = 1

[[service]]
address = "10.1.0.1:80"
scheduler = "rr"
[[service.server]]
address = "10.2.0.11:80"
forwarding = "nat"
weight = 3
[[service.server]]
address = "10.2.0.12:80"
forwarding = "nat"
"#;

fn file_of(lab: &Lab, text: &str) -> PathBuf {
    let path = lab.dir().join("lvx.toml");
    fs::write(&path, text).expect("the lab's folder can be written");
    path
}

fn client(lab: &Lab, words: &[&str]) -> Output {
    let mut command = lab.exec("director", lvx());
    command.args(words).env("LVX_API", lab.socket());
    command.output().expect("lvx runs")
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b));
    format!("{out}{err}")
}

#[test]
fn a_file_is_in_force_at_the_start_and_after_sighup() {
    let mut lab = Lab::new("config", Options::default());
    let file = file_of(&lab, SERVICES);
    let notified = lab.dir().join("notify.sock");
    let manager = UnixDatagram::bind(&notified).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let hear = || {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).expect("the director tells");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let name = file.to_str().unwrap();
    let environment = [
        ("NOTIFY_SOCKET", notified.to_str().unwrap()),
        ("WATCHDOG_USEC", "1000000"),
    ];
    lab.start_as(&["--config", name], &environment);
    let rules = "-A -t 10.1.0.1:80 -s rr\n\
                 -a -t 10.1.0.1:80 -r 10.2.0.11:80 -m -w 3\n\
                 -a -t 10.1.0.1:80 -r 10.2.0.12:80 -m -w 1\n";
    assert_eq!(lab.ipvsadm("-S -n"), rules);
    // Alive before it is ready, then ready.
    let ready = std::iter::repeat_with(hear).find(|text| text != "WATCHDOG=1\n");
    assert_eq!(ready.as_deref(), Some("READY=1\n"));
    assert_eq!(hear(), "WATCHDOG=1\n");

    // Drained, one more, a tunable back to its default.
    let edited = SERVICES
        .replace("weight = 3", "weight = 0")
        .replace("expire_nodest_conn = 1", "")
        + "[[service.server]]\naddress = \"10.2.0.13\"\n";
    file_of(&lab, &edited);
    let shown = said(&client(&lab, &["check", "--diff", name]));
    for line in [
        "1 services, 3 servers",
        "~ expire_nodest_conn  1 -> 0",
        "+   server 10.2.0.13:80  route weight 1",
        "~   server 10.2.0.11:80  weight 3 -> weight 0",
    ] {
        assert!(shown.contains(line), "{line}:\n{shown}");
    }
    lab.director().signal(Signal::HUP);
    let rules = "-A -t 10.1.0.1:80 -s rr\n\
                 -a -t 10.1.0.1:80 -r 10.2.0.11:80 -m -w 0\n\
                 -a -t 10.1.0.1:80 -r 10.2.0.12:80 -m -w 1\n\
                 -a -t 10.1.0.1:80 -r 10.2.0.13:80 -g -w 1\n";
    eventually(Duration::from_secs(5), || match lab.ipvsadm("-S -n") {
        now if now == rules => Ok(()),
        now => Err(now),
    });
    let heard: Vec<_> = std::iter::repeat_with(hear)
        .filter(|text| text != "WATCHDOG=1\n")
        .take(2)
        .collect();
    assert!(
        heard[0].starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{heard:?}"
    );
    assert_eq!(heard[1], "READY=1\n");
    assert!(
        lab.director()
            .log()
            .contains("server 10.2.0.13:80  route weight 1")
    );

    // What is wrong changes nothing, and is pointed at.
    file_of(
        &lab,
        &edited.replace("scheduler = \"rr\"", "scheduler = \"rrr\""),
    );
    lab.director().signal(Signal::HUP);
    eventually(Duration::from_secs(5), || match lab.director().log() {
        log if log.contains("lvx.toml:7:13: no scheduler is called `rrr`") => Ok(()),
        log => Err(log),
    });
    let wrong = client(&lab, &["check", name]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        said(&wrong).contains("did you mean `rr`?"),
        "{}",
        said(&wrong)
    );
    assert_eq!(lab.ipvsadm("-S -n"), rules);

    // What runs, as a file, is what runs.
    let kept = lab.dir().join("kept.toml");
    let kept = kept.to_str().unwrap();
    assert!(client(&lab, &["save", kept]).status.success());
    let shown = said(&client(&lab, &["check", "--diff", kept]));
    assert!(shown.contains("is so already"), "{shown}");
    let shown = said(&client(&lab, &["check", "--json", name]));
    assert!(shown.contains("\"line\": 7"), "{shown}");
    assert!(lab.stop(Signal::TERM).success());
    let rest: Vec<_> = std::iter::repeat_with(hear)
        .filter(|text| text != "WATCHDOG=1\n")
        .take(3)
        .collect();
    assert!(
        rest[0].starts_with("RELOADING=1"),
        "the refused one: {rest:?}"
    );
    assert_eq!(rest[1..], ["READY=1\n", "STOPPING=1\n"]);
}

#[test]
fn a_file_that_is_wrong_starts_nothing() {
    let lab = Lab::new("misconfig", Options::default());
    let before = lab.footprint();
    let rows = [
        (
            "a wrong word",
            "[[service]]\nadress = \"10.1.0.1:80\"\n",
            "lvx.toml:2:1: nothing here is called `adress` (did you mean `address`?)",
        ),
        (
            "no ports",
            "",
            "no ports: name them with --port, or under [director]",
        ),
        ("no such port", "[director]\nports = [\"none0\"]\n", "none0"),
        (
            "an address that is not the host's",
            "[director]\nports = [\"cl0\"]\nrequire_local = true\n\
             [[service]]\naddress = \"10.77.0.1:80\"\n",
            "10.77.0.1 is no address of this host",
        ),
    ];
    for (what, text, expected) in rows {
        let file = file_of(&lab, text);
        let socket = lab.socket();
        let words = ["director", "--api", socket.to_str().unwrap(), "--config"];
        let mut command = lab.exec("director", lvx());
        let output = command.args(words).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {}", said(&output));
        assert!(
            said(&output).contains(expected),
            "{what}: {}",
            said(&output)
        );
        assert!(!socket.exists(), "{what}");
    }
    assert_eq!(lab.footprint(), before);
}

#[test]
fn the_unit_is_right() {
    let verify = |words: &[&str]| {
        let output = Command::new("systemd-analyze").args(words).output();
        output.expect("systemd-analyze is installed")
    };
    let folder = std::env::temp_dir().join(format!("lvx-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let unit = folder.join("lvx.service");
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lvx.service"));
    // Only programs that are there can be verified.
    let program = lvx().display().to_string();
    let text = text.unwrap().replace("@PREFIX@/bin/lvx", &program);
    fs::write(&unit, text).unwrap();
    let unit = unit.to_str().unwrap();
    let verified = verify(&["verify", "--man=no", unit]);
    let security = verify(&["security", "--offline=true", "--threshold=40", unit]);
    fs::remove_dir_all(&folder).unwrap();
    // It looks at the machine's other units too.
    let said_of_it = said(&verified);
    let said_of_it: Vec<_> = said_of_it.lines().filter(|l| l.contains("lvx")).collect();
    assert_eq!(said_of_it, [""; 0]);
    assert!(security.status.success(), "{}", said(&security));
}
