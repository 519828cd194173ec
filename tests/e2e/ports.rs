//! Every kind of port, and what happens to a port while it is one: macvlans on it, bridges, members, queues, MTU,
//! links. What works is shown by clients that are answered, what does not by what the log says to do.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::change::{Bed, counter, plug_servers};
use crate::lab::{Family, LARGE, Lab, Method, Options, eventually, text};
use crate::load::{connect_all, round};

/// VRRP's link address of virtual router 51 (RFC 5798, 7.3).
const VMAC: &str = "00:00:5e:00:01:33";

/// How long the log may take to say what has changed.
const SAID_WITHIN: Duration = Duration::from_secs(3);

/// The virtual addresses on a macvlan of `parent`, as keepalived's `use_vmac` has it; nobody else answers for them.
fn to_macvlan(lab: &Lab, parent: &str, mode: &str) {
    lab.shell(
        "director",
        &format!(
            "sysctl -qw net.ipv4.conf.{parent}.arp_ignore=1
             ip address del 10.1.0.1/32 dev {parent}; ip address del fd01::1/128 dev {parent} 2>/dev/null || true
             ip link add link {parent} name vrrp51 address {VMAC} type macvlan mode {mode}
             sysctl -qw net.ipv4.conf.vrrp51.rp_filter=0 net.ipv4.conf.all.rp_filter=0
             ip link set vrrp51 up
             ip address add 10.1.0.1/32 dev vrrp51; ip address add fd01::1/128 dev vrrp51 nodad"
        ),
    );
    forget_neighbours(lab);
}

fn from_macvlan(lab: &Lab, parent: &str) {
    lab.shell(
        "director",
        &format!(
            "ip link del vrrp51; ip address add 10.1.0.1/32 dev {parent}
             ip address add fd01::1/128 dev {parent} nodad"
        ),
    );
    forget_neighbours(lab);
}

fn forget_neighbours(lab: &Lab) {
    lab.shell("client", "ip neigh flush dev c0; ip -6 neigh flush dev c0");
}

/// The clients' entry for the virtual address.
fn is_found_at_vmac(lab: &Lab, family: Family) {
    let table = lab.shell("client", &format!("ip neigh show {}", family.vip()));
    assert!(
        table.contains(VMAC),
        "clients know the virtual address as: {table}"
    );
}

fn virtual_address_on_macvlan(name: &str, mode: &str, method: Method, family: Family) {
    let lab = Lab::forwarding(name, Options::default(), method);
    let mut bed = Bed::over(lab, method, family, &family.server(1, 80));
    for time in 1..=2 {
        to_macvlan(&bed.lab, "cl0", mode);
        bed.follows(&format!("{name}, on a macvlan, {time}"));
        is_found_at_vmac(&bed.lab, family);
        from_macvlan(&bed.lab, "cl0");
        bed.follows(&format!("{name}, on the port again, {time}"));
    }
    // And one that was there before the director.
    to_macvlan(&bed.lab, "cl0", mode);
    bed.lab.stop(Signal::KILL);
    bed.lab.start();
    bed.process = bed.lab.director().id();
    bed.follows(&format!("{name}, after a kill"));
    is_found_at_vmac(&bed.lab, family);
}

#[test]
fn a_virtual_address_on_a_private_macvlan() {
    virtual_address_on_macvlan("macvlan-private", "private", Method::Nat, Family::V4);
}

#[test]
fn a_virtual_address_on_a_bridging_macvlan_v6() {
    virtual_address_on_macvlan("macvlan-bridge", "bridge", Method::Direct, Family::V6);
}

/// Routes by the macvlan: answers leave by its parent, with its link address.
#[test]
fn clients_behind_a_macvlan() {
    let lab = Lab::forwarding("macvlan-route", Options::default(), Method::Nat);
    to_macvlan(&lab, "cl0", "private");
    lab.shell(
        "director",
        "ip route replace 10.1.0.254/32 dev vrrp51; ip route replace 10.9.0.0/16 via 10.1.0.254 dev vrrp51 onlink",
    );
    let family = Family::V4;
    let mut bed = Bed::over(lab, Method::Nat, family, &family.server(1, 80));
    bed.follows("clients by the macvlan");
    let seen = bed.lab.shell(
        "client",
        "timeout 10 tcpdump -i c0 -e -n -c 1 'src 10.1.0.1 and tcp' 2>/dev/null & sleep 0.5
         curl -s -m 3 http://10.1.0.1/ >/dev/null; wait",
    );
    assert!(seen.contains(VMAC), "{seen}");
}

/// The device `name`, made by `make`, takes the place of `instead` with its addresses.
fn replace_port(lab: &Lab, instead: &str, name: &str, make: &str) {
    let (v4, v6) = match instead {
        "cl0" => ("10.1.0.253/24", "fd01::253/64"),
        _ => ("10.2.0.1/24", "fd02::1/64"),
    };
    let vips = match instead {
        "cl0" => format!(
            "ip address add 10.1.0.1/32 dev {name}; ip address add fd01::1/128 dev {name} nodad
             ip route replace 10.9.0.0/16 via 10.1.0.254; ip -6 route replace fd09::/64 via fd01::254"
        ),
        _ => String::new(),
    };
    lab.shell(
        "director",
        &format!(
            "ip address flush dev {instead}
             {make}
             ip link set {name} up
             ip address add {v4} dev {name}; ip -6 address add {v6} dev {name} nodad
             {vips}"
        ),
    );
    forget_neighbours(lab);
}

/// Ten megabytes by a service, whole and unchanged.
fn downloads(lab: &Lab, what: &str) {
    let want = lab.shell(
        "client",
        &format!("head -c 10485760 {} | sha256sum", LARGE.path.display()),
    );
    let got = lab.shell(
        "client",
        "curl -sSf -m 60 -r 0-10485759 http://10.1.0.1/large | sha256sum",
    );
    assert_eq!(got, want, "{what}: {}", lab.lvx("counters"));
}

fn is_joining(lab: &Lab, device: &str) -> bool {
    let state = lab.shell(
        "director",
        &format!("ethtool -k {device} | grep '^generic-receive-offload'"),
    );
    state.contains(": on")
}

/// Frames that the servers' offload made large come whole by a bridge.
#[test]
fn a_bridge_as_a_port() {
    let mut lab = Lab::forwarding_not_yet("bridge", Method::Nat);
    lab.shell("director", "ethtool -K rs0 gro on");
    replace_port(
        &lab,
        "rs0",
        "br1",
        "ip link add br1 type bridge; ip link set rs0 master br1",
    );
    lab.start_on(&["cl0", "br1"]);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.inside("client", || {
        round(&mut connect_all(&Family::V4.service(80), 20))
    });
    downloads(&lab, "by a bridge");
    let log = lab.director().log();
    assert!(
        log.contains("WARN") && log.contains("br1 has generic XDP"),
        "{log}"
    );
    assert!(!is_joining(&lab, "rs0"), "a member joins packets still");
    // Who takes it up after a kill puts it back at its end.
    lab.stop(Signal::KILL);
    lab.start_on(&["cl0", "br1"]);
    downloads(&lab, "by a bridge, after a kill");
    assert!(lab.stop(Signal::TERM).success());
    assert!(is_joining(&lab, "rs0"), "the member is as it was");
}

/// A member that comes later is followed, one that goes is as it was.
#[test]
fn a_bridges_members_change() {
    let mut lab = Lab::forwarding_not_yet("members", Method::Nat);
    replace_port(
        &lab,
        "rs0",
        "br1",
        "ip link add br1 type bridge; ip link set rs0 master br1",
    );
    lab.start_on(&["cl0", "br1"]);
    lab.shell(
        "director",
        "ip link add m0 type veth peer name m1; ethtool -K m0 gro on; ip link set m0 master br1; ip link set m0 up",
    );
    let joins = |wanted: bool| {
        eventually(SAID_WITHIN, || match is_joining(&lab, "m0") == wanted {
            true => Ok(()),
            false => Err(format!("m0 joins packets: {}", !wanted)),
        })
    };
    joins(false);
    lab.shell("director", "ip link set m0 nomaster");
    joins(true);
}

/// The lines that must be there (a warning, or any), in this order, one each.
fn says(lab: &Lab, words: &[(&str, &str)]) {
    let lines = eventually(SAID_WITHIN, || {
        let log = lab.director().log();
        let found = words.iter().map(|(level, word)| {
            log.lines()
                .enumerate()
                .filter(|(_, line)| line.contains(level) && line.contains(word))
                .map(|(place, _)| place)
                .collect::<Vec<_>>()
        });
        let found: Vec<Vec<usize>> = found.collect();
        match found.iter().all(|lines| lines.len() == 1) {
            true => Ok(found.concat()),
            false => Err(format!("{words:?} are on lines {found:?}\n{log}")),
        }
    });
    assert!(
        lines.is_sorted(),
        "{words:?} come in another order: {lines:?}"
    );
}

/// A device whose frames another takes is no port, at start and later.
#[test]
fn a_member_is_no_port() {
    let mut lab = Lab::forwarding_not_yet("member", Method::Nat);
    lab.shell(
        "director",
        "ip link add br1 type bridge; ip link set rs0 master br1; ip link set br1 up",
    );
    let mut command = lab.director_command(lab.ports(), &lab.socket());
    let output = command.stdout(Stdio::null()).output().expect("it runs");
    let errors = text(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    let line = errors.lines().last().unwrap_or_default();
    for word in ["rs0", "member", "bridge br1", "--port br1"] {
        assert!(line.contains(word), "'{word}' is not in: {line}");
    }
    assert!(!lab.socket().exists(), "no socket is left");
    let left = lab.footprint();
    assert!(!left.contains("xdp") && !left.contains("/link-"), "{left}");
    lab.shell("director", "ip link set rs0 nomaster");
    lab.start();
    lab.shell("director", "ip link set rs0 master br1");
    says(&lab, &[("WARN", "rs0 is a member of the bridge br1")]);
    lab.shell("director", "ip link set rs0 nomaster");
    says(
        &lab,
        &[
            ("WARN", "rs0 is a member"),
            ("", "rs0 is no other device's member"),
        ],
    );
}

#[test]
fn a_macvlan_as_a_port() {
    let mut lab = Lab::forwarding_not_yet("macvlan-port", Method::Nat);
    replace_port(
        &lab,
        "cl0",
        "mv0",
        "ip link add link cl0 name mv0 type macvlan mode bridge",
    );
    lab.start_on(&["mv0", "rs0"]);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.add_service(Family::V6, 80, "rr", Method::Nat, 80);
    for family in [Family::V4, Family::V6] {
        lab.inside("client", || {
            round(&mut connect_all(&family.service(80), 20))
        });
    }
    downloads(&lab, "by a macvlan");
    says(&lab, &[("WARN", "mv0 has generic XDP")]);
    assert!(lab.director().log().contains("give the device below"));
}

/// Links and MTU: each change is said once, and forwarding follows.
#[test]
fn what_a_port_meets_is_said() {
    let mut lab = Lab::forwarding_not_yet("port-health", Method::Nat);
    lab.shell("director", "ip link set rs0 down");
    lab.start();
    let down = ("WARN", "rs0 is down");
    says(&lab, &[down]);
    lab.shell("director", "ip link set rs0 up");
    let up = ("", "rs0 has a link again");
    says(&lab, &[down, up]);
    lab.shell("lan", "ip link set to-director down");
    says(&lab, &[down, up, ("WARN", "rs0 has no link")]);
    lab.shell("lan", "ip link set to-director up");
    lab.shell("director", "ip link set cl0 mtu 9500");
    says(&lab, &[("WARN", "cl0 has an MTU of 9500")]);
    lab.shell("director", "ip link set cl0 mtu 1500");
    says(
        &lab,
        &[
            ("WARN", "cl0 has an MTU of 9500"),
            ("", "cl0 has an MTU that lvx can take"),
        ],
    );
    assert!(lab.lvx("counters").contains("frames_too_long"));
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.shell("director", "ip -6 address replace fd02::1/64 dev rs0 nodad");
    lab.inside("client", || {
        round(&mut connect_all(&Family::V4.service(80), 5))
    });
}

/// Queues that a device gets while the director runs are taken up: all connections are answered. A veth gives them
/// the program only when it was down, as the warning says.
#[test]
fn queues_are_followed() {
    let options = Options {
        queues: 4,
        ..Options::default()
    };
    let mut lab = Lab::forwarding_not_yet_with("queues-grow", options, Method::Nat);
    let set = |lab: &Lab, queues: u32| {
        // The sender's last: a device with XDP must have as many as its peer sends by.
        let sender = format!("ethtool -L c0 rx {queues} tx {queues}");
        let own = format!("ethtool -L cl0 rx {queues} tx {queues}");
        let lines = [("director", own), ("client", sender)];
        let is_less = queues == 1;
        let mut lines = lines.to_vec();
        if is_less {
            lines.reverse();
        }
        lines.iter().for_each(|(who, line)| {
            lab.shell(who, line);
        });
    };
    set(&lab, 1);
    lab.start();
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 40));
    for (queues, before) in [(2, 1), (4, 2)] {
        set(&lab, queues);
        let word = format!("cl0 has {queues} queues now, {before} before");
        says(&lab, &[("WARN", &word)]);
        lab.shell(
            "director",
            "ip link set cl0 down; ip link set cl0 up; ip route add 10.9.0.0/16 via 10.1.0.254",
        );
        lab.inside("client", || round(&mut clients));
        let dropped = counter(&lab, "steering_dropped");
        lab.inside("client", || {
            round(&mut connect_all(&Family::V4.service(80), 200))
        });
        assert_eq!(
            counter(&lab, "steering_dropped"),
            dropped,
            "all queues have sockets"
        );
    }
    // The next process has them all too.
    let (status, log) = lab.take_over(&[]);
    assert!(status.success(), "{status}: {log}");
    lab.inside("client", || round(&mut clients));
    lab.inside("client", || {
        round(&mut connect_all(&Family::V4.service(80), 100))
    });
}

/// A device may go at any moment of the start: the director says so and ends, or runs without it.
#[test]
fn a_device_goes_during_the_start() {
    let mut lab = Lab::forwarding_not_yet("goes-early", Method::Nat);
    for delay_ms in [5, 20, 40, 60, 90, 130, 200] {
        let before = lab.shell("director", "ip -o link | grep -c xdp || true");
        let mut child = lab
            .director_command(lab.ports(), &lab.socket())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        thread::sleep(Duration::from_millis(delay_ms));
        lab.shell("director", "ip link del rs0");
        thread::sleep(Duration::from_millis(1500));
        if child.try_wait().expect("a child").is_none() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        }
        let output = child.wait_with_output().expect("a child");
        let errors = text(&output.stderr) + &text(&output.stdout);
        assert!(!errors.contains("panicked"), "{delay_ms} ms: {errors}");
        let is_named = errors.lines().any(|line| line.contains("rs0"));
        assert!(
            output.status.success() || is_named,
            "{delay_ms} ms: {errors}"
        );
        println!(
            "{delay_ms} ms: {}: {}",
            output.status,
            errors.lines().last().unwrap_or_default()
        );
        plug_servers(&lab, 1);
        assert_eq!(
            lab.shell("director", "ip -o link | grep -c xdp || true"),
            before,
            "{delay_ms} ms"
        );
    }
    lab.start();
}
