//! A director that ends leaves its host as it found it, and another can begin at once.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Family, Lab, Method, Options, eventually};
use crate::load::{connect_all, round};

#[test]
fn terminated_it_leaves_nothing() {
    leaves_nothing("sigterm", Signal::TERM);
}

#[test]
fn interrupted_it_leaves_nothing() {
    leaves_nothing("sigint", Signal::INT);
}

fn leaves_nothing(name: &str, signal: Signal) {
    let mut lab = Lab::new(name, Options::default());
    let before = lab.footprint();
    lab.start();
    let during = lab.footprint();
    assert_ne!(
        before, during,
        "a director shows as an XDP program at least"
    );
    assert!(
        during.contains("xdp"),
        "an XDP program is attached:\n{during}"
    );
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.add_service(Family::V6, 80, "rr", Method::Nat, 80);
    let objects = lab.director().bpf_objects();
    assert!(
        objects.iter().any(|o| o.0 == "prog") && objects.iter().any(|o| o.0 == "map"),
        "held: {objects:?}"
    );
    // The work of a moment before: packets in flight must not keep anything alive.
    lab.shell("client", "curl -sS -m 2 http://10.1.0.1/ || true");

    let status = lab.stop(signal);
    assert!(
        status.success(),
        "{signal:?} ends it in good order: {status}"
    );
    assert_eq!(lab.footprint(), before, "links, addresses, routes, rules");
    assert!(!lab.socket().exists(), "the API's socket is gone");
    eventually(Duration::from_secs(5), || {
        let left: Vec<_> = objects
            .iter()
            .filter(|(kind, id)| bpf_object_exists(kind, id))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("BPF objects are left: {left:?}"))
        }
    });
}

fn bpf_object_exists(kind: &str, id: &str) -> bool {
    let output = Command::new("bpftool")
        .args([kind, "show", "id", id])
        .output()
        .expect("bpftool is installed");
    output.status.success()
}

/// The sockets of a process just gone are released late: the next one tries again for a while.
#[test]
fn another_begins_at_once() {
    let mut lab = Lab::forwarding("again", Options::default(), Method::Direct);
    for _ in 0..3 {
        lab.add_service(Family::V4, 80, "rr", Method::Direct, 80);
        let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 20));
        lab.inside("client", || round(&mut clients));
        lab.stop(Signal::TERM);
        lab.start();
        assert_eq!(
            lab.ipvsadm("-S -n"),
            "",
            "a new director begins with an empty table"
        );
    }
}

/// A killed director cannot clean up; the next one can.
#[test]
fn a_killed_director_is_succeeded() {
    let mut lab = Lab::new("killed", Options::default());
    let before = lab.footprint();
    lab.start();
    lab.stop(Signal::KILL);
    // What it left (a program, a tap, a socket nobody listens on) is no reason to refuse, or it is said how to remove it.
    thread::sleep(Duration::from_millis(200));
    lab.start();
    assert!(lab.stop(Signal::TERM).success());
    assert_eq!(lab.footprint(), before, "the successor cleans up for both");
}
