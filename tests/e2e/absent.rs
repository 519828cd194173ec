//! A director is started, or takes over, while the device of one of its ports is not there: what goes over the other
//! ports goes on, and the device is taken up when it comes.

use std::process::Output;

use rustix::process::Signal;

use crate::change::{Bed, WITHIN, plug_servers};
use crate::lab::{Family, Lab, Method, Options, eventually, text};

/// How the next director gets there.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Killed,
    TakenOver,
}

/// Another director, while `rs0` is not there.
fn next_without_servers(bed: &mut Bed, how: How) {
    match how {
        How::Killed => {
            bed.lab.stop(Signal::KILL);
            bed.lab.shell("director", "ip link del rs0");
            bed.lab.start();
        }
        How::TakenOver => {
            bed.lab.shell("director", "ip link del rs0");
            eventually(WITHIN, || match bed.counter("ports_away") {
                1 => Ok(()),
                n => Err(format!("{n} ports away")),
            });
            let (status, log) = bed.lab.take_over(&[]);
            assert!(status.success(), "{status}: {log}");
        }
    }
    bed.process = bed.lab.director().id();
    let log = bed.lab.director().log();
    assert!(log.contains("there is no device rs0 now"), "{log}");
    let word = if how == How::Killed {
        "took up"
    } else {
        "took over"
    };
    assert!(log.contains(word), "{log}");
    assert!(log.contains("rs0 (absent)"), "{log}");
    assert_eq!(bed.counter("ports_away"), 1);
}

fn servers_return(name: &str, how: How, queues: u8) {
    let options = Options {
        queues,
        ..Options::default()
    };
    let mut bed = Bed::new(name, options, Method::Nat, Family::V4);
    for time in 1..=2 {
        next_without_servers(&mut bed, how);
        let drops = |bed: &Bed| bed.counter("drop_no_route") + bed.counter("drop_port_gone");
        let before = drops(&bed);
        bed.try_in_vain(3);
        assert!(drops(&bed) > before, "{}", bed.lab.lvx("counters"));
        plug_servers(&bed.lab, queues);
        bed.follows(&format!("{name}, return {time}"));
        assert_eq!(bed.counter("ports_away"), 0);
    }
    assert!(bed.lab.stop(Signal::TERM).success());
    let left = bed.lab.footprint();
    assert!(!left.contains("xdp") && !left.contains("/link-"), "{left}");
}

#[test]
fn a_device_absent_at_a_restart_returns() {
    servers_return("absent-restart", How::Killed, 2);
}

#[test]
fn a_device_absent_at_a_take_over_returns() {
    servers_return("absent-take", How::TakenOver, 1);
}

/// A service whose packets never touch the device that is not there.
fn the_rest_goes_on(name: &str, how: How) {
    let lab = Lab::forwarding(name, Options::default(), Method::Tunnel);
    lab.shell("rs1", "ip address add 10.3.0.11/32 dev lo");
    lab.shell(
        "client",
        "sysctl -qw net.ipv4.conf.all.accept_local=1; ip route add 10.3.0.11/32 via 10.2.0.11",
    );
    lab.shell(
        "director",
        "ip route add 10.3.0.11/32 via 10.1.0.254 dev cl0",
    );
    let mut bed = Bed::over(lab, Method::Tunnel, Family::V4, "10.3.0.11:80");
    next_without_servers(&mut bed, how);
    bed.follows(&format!("{name}, by the other port"));
    plug_servers(&bed.lab, 1);
    eventually(WITHIN * 2, || match bed.counter("ports_away") {
        0 => Ok(()),
        n => Err(format!("{n} ports away\n{}", bed.lab.log())),
    });
    bed.lab.shell(
        "director",
        "ip route replace 10.3.0.11/32 via 10.2.0.11 dev rs0",
    );
    bed.follows(&format!("{name}, by the device that came"));
}

#[test]
fn other_ports_forward_after_a_restart() {
    the_rest_goes_on("absent-rest", How::Killed);
}

#[test]
fn other_ports_forward_after_a_take_over() {
    the_rest_goes_on("absent-rest-take", How::TakenOver);
}

/// No socket was opened at all when the device comes.
#[test]
fn the_only_device_is_absent() {
    let options = Options { arms: 1, queues: 2 };
    let mut bed = Bed::new("absent-only", options, Method::Nat, Family::V4);
    let mac = bed.lab.shell("director", "cat /sys/class/net/cl0/address");
    let mac = mac.trim();
    bed.lab.stop(Signal::KILL);
    bed.lab.shell("director", "ip link del cl0");
    bed.lab.start();
    bed.process = bed.lab.director().id();
    let lan = bed.lab.namespace("lan");
    bed.lab.shell(
        "director",
        &format!(
            "ip link add cl0 address {mac} numtxqueues 2 numrxqueues 2 type veth \
             peer name to-director netns {lan} numtxqueues 2 numrxqueues 2
             ip link set cl0 up; ip address add 10.2.0.1/24 dev cl0
             ip address add 10.1.0.1/32 dev cl0; ip route add 10.9.0.0/16 via 10.2.0.254"
        ),
    );
    bed.lab.shell(
        "lan",
        "ip link set to-director up; ip link set to-director master br0",
    );
    bed.follows("the only device came");
}

fn start_misspelled(bed: &Bed) -> Output {
    let mut command = bed.lab.director_command(&["cl0", "rs9"], &bed.lab.socket());
    command.output().expect("ip netns exec runs")
}

/// Whether a state is there or not; and the state stays.
#[test]
fn a_name_that_was_no_port_is_not_waited_for() {
    let mut bed = Bed::new("absent-typo", Options::default(), Method::Nat, Family::V4);
    let refused = |bed: &Bed| {
        let output = start_misspelled(bed);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("no network device rs9"), "{said}");
        assert!(said.contains("correct the name"), "{said}");
    };
    bed.lab.stop(Signal::KILL);
    refused(&bed);
    bed.lab.start();
    bed.process = bed.lab.director().id();
    bed.follows("started by the right names");
    assert!(bed.lab.stop(Signal::TERM).success());
    let before = bed.lab.footprint();
    refused(&bed);
    assert_eq!(bed.lab.footprint(), before);
}
