//! `lvx explain` of a real director: flows, frames and captures, and nothing changes by asking.

use std::process::{Command, Output};

use serde_json::Value;

use crate::lab::{Lab, Method, Options, lvx, text};

fn ask(lab: &Lab, words: &str) -> Output {
    let mut command = Command::new(lvx());
    command
        .arg("explain")
        .args(words.split(' '))
        .env("LVX_API", lab.socket());
    command.output().expect("lvx runs")
}

/// What it says, link addresses left out: each lab has others.
#[track_caller]
fn told(lab: &Lab, words: &str) -> String {
    let output = ask(lab, words);
    assert!(output.status.success(), "{words}: {}", text(&output.stderr));
    let is_mac = |word: &str| word.len() == 17 && word.split(':').count() == 6;
    let out = text(&output.stdout);
    let lines = out.lines().map(|line| {
        let words = line.split(' ').map(|word| match word.strip_suffix(',') {
            Some(bare) if is_mac(bare) => "MAC,",
            _ if is_mac(word) => "MAC",
            _ => word,
        });
        words.collect::<Vec<_>>().join(" ") + "\n"
    });
    lines.collect()
}

fn json(lab: &Lab, words: &str) -> Value {
    let output = ask(lab, &format!("{words} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{words}: {e}"))
}

#[track_caller]
fn says(lab: &Lab, words: &str, wanted: &[&str]) {
    let told = told(lab, words);
    for line in wanted {
        assert!(
            told.lines().any(|one| one.starts_with(line)),
            "{words}: no `{line}` in\n{told}"
        );
    }
}

const SYN: &str = "tcp 10.9.0.1:1001 10.1.0.1:80";
const SYN_TOLD: &str = "\
steer       taken: its destination is a service's, or bears a mark
parse       tcp 10.9.0.1:1001 > 10.1.0.1:80, 40 bytes, hop limit 64, flags S
connection  none of tcp 10.9.0.1:1001 > 10.1.0.1:80
service     tcp 10.1.0.1:80 (by its exact port), scheduler wlc
schedule    wlc takes 10.2.0.13:80
              server         weight   active inactive     cost  cost/weight
            > 10.2.0.13:80        3        0        0        0         0.00
              10.2.0.12:80        2        0        0        0         0.00
              10.2.0.11:80        0        0        0        0            -  drained
connection  begins: tcp 10.9.0.1:1001 > 10.1.0.1:80 on server 10.2.0.13:80
state       SYN_RECV, expires in 60 s unless another packet comes
forward     to server 10.2.0.13:80 by NAT
hop         by rs0 to MAC, MTU 1500
rewrite     link destination MAC -> MAC
rewrite     link source MAC -> MAC
rewrite     destination 10.1.0.1:80 -> 10.2.0.13:80
rewrite     hop limit 64 -> 63
verdict     sent by rs0
";

#[test]
fn what_becomes_of_a_packet() {
    let mut lab = Lab::forwarding("explain", Options::default(), Method::Nat);
    // Of no service yet: the frame leaves as it came, and serves as a captured one below.
    let before = json(&lab, SYN);
    assert_eq!(before["verdict"], "passed");
    let frame = before["frame"].as_str().unwrap().to_owned();
    lab.ipvsadm("-A -t 10.1.0.1:80 -s wlc");
    for (server, weight) in [(11, 0), (12, 2), (13, 3)] {
        lab.ipvsadm(&format!(
            "-a -t 10.1.0.1:80 -r 10.2.0.{server}:80 -m -w {weight}"
        ));
    }
    // The neighbours are found out while the servers are added.
    lab.shell("director", "for n in 1 2 3; do ping -c 1 -W 5 10.2.0.1$n >/dev/null; done; ping -c 1 -W 5 10.1.0.254 >/dev/null");
    let counters = lab.ipvsadm("-Ln --stats");
    assert_eq!(told(&lab, SYN), SYN_TOLD);
    assert_eq!(
        told(&lab, &format!("--frame {frame}")),
        SYN_TOLD,
        "a frame in digits"
    );
    let capture = lab.dir().join("in.pcap");
    std::fs::write(&capture, pcap(&[&[0; 14], &unhex(&frame)])).unwrap();
    let captured = format!("--pcap {} --packet 2", capture.display());
    assert_eq!(told(&lab, &captured), SYN_TOLD, "a line of a capture");
    let first = format!("--pcap {} --any-link", capture.display());
    says(
        &lab,
        &first,
        &["steer       passed to the host: neither IPv4 nor IPv6, or cut short"],
    );
    assert_eq!(json(&lab, SYN)["verdict"], "transmit");
    assert_eq!(json(&lab, SYN)["steps"][4]["servers"][0]["chosen"], true);
    assert_eq!(lab.ipvsadm("-Ln --stats"), counters, "nothing is counted");
    assert_eq!(lab.ipvsadm("-Lnc").lines().count(), 2, "nothing begins");

    // Templates: none, then one that a client's request left.
    lab.ipvsadm("-A -t 10.1.0.1:443 -s rr -p 300");
    lab.ipvsadm("-a -t 10.1.0.1:443 -r 10.2.0.12:80 -m");
    let persistent = "tcp 10.9.0.1:1001 10.1.0.1:443";
    let wanted = [
        "service     tcp 10.1.0.1:443 (by its exact port), scheduler rr, persistent 300 s",
        "template    none yet of client 10.9.0.1 to 10.1.0.1:443",
        "schedule    rr takes 10.2.0.12:80",
        "template    begins: client 10.9.0.1 to 10.1.0.1:443 on server 10.2.0.12:80",
    ];
    says(&lab, persistent, &wanted);
    assert_eq!(lab.shell("client", "curl -s http://10.1.0.1:443/"), "rs2\n");
    let found = "template    found: client 10.9.0.1 to 10.1.0.1:443 on server 10.2.0.12:80, state ";
    says(&lab, persistent, &[found]);
    assert!(
        !told(&lab, persistent).contains("\nschedule "),
        "the template decides"
    );

    // The connection itself, and its server's reply.
    let connections = lab.ipvsadm("-Lnc");
    let client = connections
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words[0] == "TCP" && words[4] == "10.1.0.1:443" && !words[3].ends_with(":0"))
        .map_or_else(
            || panic!("no connection in\n{connections}"),
            |words| words[3].to_owned(),
        );
    let known =
        format!("connection  found: tcp {client} > 10.1.0.1:443 on server 10.2.0.12:80, state ");
    says(
        &lab,
        &format!("tcp {client} 10.1.0.1:443 --flags A"),
        &[&known],
    );
    let reply = [
        "steer       taken: it comes from a masquerading server",
        &known,
        "rewrite     source 10.2.0.12:80 -> 10.1.0.1:443",
        "verdict     sent by cl0",
    ];
    says(
        &lab,
        &format!("tcp {client} 10.1.0.1:443 --from-server --flags A"),
        &reply,
    );

    // What goes wrong has a name and a word of advice.
    lab.ipvsadm("-A -t 10.1.0.1:8080 -s rr");
    let none = [
        "schedule    rr takes none: the service has no server",
        "refuse      no_server: its sender is told port unreachable",
        "rewrite     protocol tcp -> icmp",
        "verdict     sent by cl0",
    ];
    says(&lab, "tcp 10.9.0.1:1001 10.1.0.1:8080", &none);
    lab.ipvsadm("-a -t 10.1.0.1:8080 -r 10.2.0.11 -m -w 0");
    let drained = ["schedule    rr takes none: every server is drained or overloaded"];
    says(&lab, "tcp 10.9.0.1:1001 10.1.0.1:8080", &drained);
    lab.ipvsadm("-a -t 10.1.0.1:8080 -r 172.31.0.1 -m");
    let lost = [
        "hop         nowhere: no route",
        "refuse      no_route: its sender is told host unreachable",
        "rewrite     protocol tcp -> icmp",
        "verdict     sent by cl0",
    ];
    says(&lab, "tcp 10.9.0.1:1001 10.1.0.1:8080", &lost);
    let refused = json(&lab, "tcp 10.9.0.1:1001 10.1.0.1:8080");
    assert_eq!(refused["verdict"], "transmit", "{refused}");
    let passed = [
        "steer       passed to the host: no service, mark or masquerading server has its ends",
        "verdict     the host's own stack gets it; the director never sees it",
    ];
    says(&lab, "udp 10.9.0.1:1001 10.1.0.1:80", &passed);
    let no_syn = [
        "service     not asked: no packet that begins a connection",
        "verdict     the host's own",
    ];
    says(&lab, &format!("{SYN} --flags A"), &no_syn);

    // And what cannot be asked.
    let rows = [
        ("--frame 0g", "g is no hexadecimal digit"),
        ("--frame 000", "an odd number of hexadecimal digits"),
        (
            &format!("{SYN} --from-server"),
            "10.9.0.1:1001 has no connection to 10.1.0.1:80, so no server",
        ),
        (
            "tcp 10.9.0.1:1 [fd01::1]:80",
            "10.9.0.1:1 and [fd01::1]:80 are of two families",
        ),
        (
            &format!("{captured}9"),
            &format!("{}: has 2 frames, no frame 29", capture.display()),
        ),
    ];
    for (words, wanted) in rows {
        let output = ask(&lab, words);
        let error = text(&output.stderr);
        assert!(
            error.starts_with(&format!("lvx: {wanted}")),
            "{words}: {error}"
        );
        assert_eq!(
            (output.status.code(), error.lines().count()),
            (Some(1), 1),
            "{words}: {error}"
        );
    }
    assert!(lab.stop(rustix::process::Signal::TERM).success());
}

fn unhex(digits: &str) -> Vec<u8> {
    let bytes = (0..digits.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// A capture of Ethernet frames.
fn pcap(frames: &[&[u8]]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    file.extend([0; 8]);
    file.extend([0xff, 0xff, 0, 0, 1, 0, 0, 0]);
    for frame in frames {
        let length = (frame.len() as u32).to_le_bytes();
        file.extend([[0; 4], [0; 4], length, length].concat());
        file.extend(*frame);
    }
    file
}
