//! Operators change services while clients use them: who is connected must not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::lab::{Family, Lab, Method, Options, SERVERS};
use crate::load::{connect_all, round, rounds_until};

const CONNECTIONS: usize = 60;

/// Another service comes, is changed and goes; the clients' own is changed in every way that keeps its servers.
/// (A server that is removed takes its connections with it, here as in IPVS: that is another test.)
#[test]
fn edits_under_load_lose_no_connection() {
    for (name, method) in [("edits-nat", Method::Nat), ("edits-direct", Method::Direct)] {
        let lab = Lab::forwarding(name, Options::default(), method);
        lab.add_service(Family::V4, 80, "rr", method, 80);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| {
                lab.inside("client", || {
                    let mut clients = connect_all(&Family::V4.service(80), CONNECTIONS);
                    rounds_until(&mut clients, &stop)
                })
            });
            thread::sleep(Duration::from_millis(300));
            for _ in 0..5 {
                edit_all(&lab, method);
                assert!(!load.is_finished(), "the load ended early");
            }
            stop.store(true, Ordering::Relaxed);
            let rounds = load
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            assert!(
                rounds > 10,
                "the load was too slow to prove anything: {rounds} rounds"
            );
        });
    }
}

fn edit_all(lab: &Lab, method: Method) {
    let own = Family::V4.service(80);
    lab.add_service(Family::V4, 8080, "wlc", method, 8080);
    lab.add_service(Family::V6, 80, "lc", method, 80);
    lab.ipvsadm(&format!("-E -t {own} -s wlc"));
    lab.ipvsadm(&format!(
        "-e -t {own} -r {} {} -w 7",
        Family::V4.server(1, 80),
        method.flag()
    ));
    // Weight 0 takes no new connections, and keeps those that are there.
    lab.ipvsadm(&format!(
        "-e -t {own} -r {} {} -w 0",
        Family::V4.server(2, 80),
        method.flag()
    ));
    lab.ipvsadm(&format!("-E -t {} -s rr", Family::V4.service(8080)));
    lab.ipvsadm(&format!(
        "-d -t {} -r {}",
        Family::V4.service(8080),
        Family::V4.server(1, 8080)
    ));
    lab.ipvsadm(&format!("-D -t {}", Family::V4.service(8080)));
    lab.ipvsadm(&format!("-D -t {}", Family::V6.service(80)));
    lab.ipvsadm(&format!(
        "-e -t {own} -r {} {} -w 1",
        Family::V4.server(2, 80),
        method.flag()
    ));
    lab.ipvsadm(&format!("-E -t {own} -s rr"));
    lab.ipvsadm("-Z");
}

/// A command that has returned is in force: the very next connection feels it.
#[test]
fn a_command_that_has_returned_is_in_force() {
    let lab = Lab::forwarding(
        "in-force",
        Options {
            queues: 2,
            ..Options::default()
        },
        Method::Nat,
    );
    let service = Family::V4.service(80);
    lab.ipvsadm(&format!("-A -t {service} -s rr"));
    for repeat in 0..10 {
        for (index, name) in SERVERS.iter().enumerate() {
            let server = Family::V4.server(index + 1, 80);
            lab.ipvsadm(&format!("-a -t {service} -r {server} -m"));
            lab.inside("client", || {
                let mut clients = connect_all(&service, 4);
                round(&mut clients);
                for client in clients {
                    assert_eq!(
                        client.server(),
                        *name,
                        "repeat {repeat}: the only server is {name}"
                    );
                }
            });
            lab.ipvsadm(&format!("-d -t {service} -r {server}"));
        }
    }
}

/// `-S` printed, `-C`, `-R` of what was printed: the same table.
#[test]
fn saved_rules_restore() {
    let mut lab = Lab::new("restore", Options::default());
    lab.start();
    lab.add_service(Family::V4, 80, "wlc", Method::Nat, 8080);
    lab.add_service(Family::V6, 80, "rr", Method::Direct, 80);
    lab.ipvsadm("-A -f 7 -s lc -p 60");
    lab.ipvsadm("-a -f 7 -r 10.2.0.11 -i -w 5");
    let (saved, listed) = (lab.ipvsadm("-S -n"), lab.ipvsadm("-Ln"));
    assert_eq!(
        saved.lines().count(),
        10,
        "three services, seven servers:\n{saved}"
    );
    lab.ipvsadm("-C");
    assert_eq!(lab.ipvsadm("-S -n"), "");
    let file = lab.dir().join("rules");
    std::fs::write(&file, &saved).expect("the lab's folder is writable");
    let restored = lab.restore(&file);
    assert!(
        restored.status.success(),
        "ipvsadm -R: {}",
        crate::lab::text(&restored.stderr)
    );
    assert_eq!(lab.ipvsadm("-S -n"), saved);
    assert_eq!(lab.ipvsadm("-Ln"), listed);
}
