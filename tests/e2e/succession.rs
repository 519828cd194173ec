//! Nobody is left without a director: take-overs amid edits, successors that die or hang once nobody else forwards,
//! and a third process that would like to have the place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Family, Lab, Method, Operator, eventually};
use crate::load::{connect_all, round};
use crate::upgrade::answering;

/// Services come and go until `stop`; commands that find no director, as one takes over, are given again by the next
/// turn. How many were carried out.
fn edit(operator: &Operator, stop: &AtomicBool) -> usize {
    let mut done = 0;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let service = format!("10.1.0.1:{}", 7000 + turn % 7);
        let lines = [
            format!("-A -t {service} -s wlc"),
            format!("-a -t {service} -r 10.2.0.1{}:80 -m", 1 + turn % 3),
            format!("-D -t {service}"),
        ];
        for line in lines {
            done += usize::from(operator.ipvsadm(&line).status.success());
        }
    }
    done
}

#[test]
fn taken_over_amid_edits() {
    let mut lab = Lab::forwarding("succession-edits", Default::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 8080);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 10));
    let (operator, stop) = (lab.operator(), AtomicBool::new(false));
    thread::scope(|scope| {
        let editor = scope.spawn(|| edit(&operator, &stop));
        for time in 0..12 {
            let status = match time % 3 {
                0 => lab.take_over(&[]).0,
                _ => lab.upgrade(),
            };
            assert!(
                status.success(),
                "take-over {time}: {status}\n{}",
                lab.log()
            );
            lab.inside("client", || round(&mut clients));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(editor.join().expect("it does not panic") > 12);
    });
    let log = lab.director().log();
    assert!(!log.contains("ERROR"), "{log}");
    assert!(lab.ipvsadm("-Ln").contains(&Family::V4.service(80)));
}

/// It has the queues, and goes: the old process starts again, with all connections.
fn a_successor_fails(name: &str, fault: &str, within: Duration) {
    let mut lab = Lab::forwarding_not_yet(name, Method::Nat);
    let fault = format!("handed-over:{fault}");
    lab.start_as(&[], &[("LVX_FAULT", &fault)]);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 8080);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 10));
    let process = answering(&lab);
    for time in 1..=2 {
        lab.director().signal(Signal::USR2);
        eventually(within, || match lab.director().log() {
            log if log.matches("took up").count() == time => Ok(()),
            log => Err(log),
        });
        eventually(Duration::from_secs(5), || {
            match lab.try_ipvsadm("-Ln").status.success() {
                true => Ok(()),
                false => Err(lab.director().log()),
            }
        });
        let log = lab.director().log();
        assert!(log.contains("does not forward"), "{log}");
        assert_eq!(answering(&lab), process, "the same process: {log}");
        lab.inside("client", || round(&mut clients));
    }
    assert!(lab.stop(Signal::TERM).success());
}

#[test]
fn a_successor_that_ends_once_it_has_the_queues() {
    a_successor_fails("succession-ends", "exit", Duration::from_secs(10));
}

#[test]
fn a_successor_that_hangs_once_it_has_the_queues() {
    a_successor_fails("succession-hangs", "hang", Duration::from_secs(25));
}

/// Whoever is started while a take-over goes on is refused, each time.
#[test]
fn no_third_process_gets_in() {
    let mut lab = Lab::forwarding("succession-third", Default::default(), Method::Nat);
    let stop = AtomicBool::new(false);
    let third = || {
        let mut third = lab.director_command(lab.ports(), &lab.socket());
        third.stdout(std::process::Stdio::null());
        third
    };
    let (mut one, mut other) = (third(), third());
    thread::scope(|scope| {
        let first = scope.spawn(|| rush_until(&stop, &mut one));
        let second = scope.spawn(|| rush_until(&stop, &mut other));
        for _ in 0..6 {
            assert!(lab.upgrade().success());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(first.join().expect("none got in") + second.join().expect("none got in") > 6);
    });
    assert!(lab.stop(Signal::TERM).success());
}

/// How often a command was refused until `stop`.
fn rush_until(stop: &AtomicBool, command: &mut std::process::Command) -> usize {
    let mut refused = 0;
    while !stop.load(Ordering::Relaxed) {
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && !said.contains("forwarding on"),
            "{said}"
        );
        refused += 1;
    }
    refused
}
