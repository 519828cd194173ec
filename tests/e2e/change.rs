//! What changes around a director: link addresses, links, routes, devices. Forwarding follows within a second, by the
//! same process, and connections go on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::{Family, Lab, Method, Options, eventually};
use crate::load::{Client, connect_all, round};

/// What the issue asks for.
pub const WITHIN: Duration = Duration::from_secs(1);
/// How long one try may take; a lost SYN is sent again after a second only.
const TRY: Duration = Duration::from_millis(100);

/// One request on a connection of its own.
fn request(to: &str) -> Result<(), String> {
    let to: SocketAddr = to.parse().expect("tests write addresses");
    let mut stream = TcpStream::connect_timeout(&to, TRY).map_err(|e| e.to_string())?;
    let read = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(TRY))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    match read(&mut stream) {
        Ok(answer) if answer.contains("200 OK") => Ok(()),
        Ok(answer) => Err(answer),
        Err(error) => Err(error.to_string()),
    }
}

/// How long it takes until a new request is answered.
fn gap(lab: &Lab, to: &str) -> Duration {
    let begin = Instant::now();
    lab.inside("client", || {
        loop {
            match request(to) {
                Ok(()) => return begin.elapsed(),
                Err(why) => assert!(
                    begin.elapsed() < Duration::from_secs(20),
                    "no answer for 20 s: {why}"
                ),
            }
            thread::sleep(Duration::from_millis(5));
        }
    })
}

/// A lab whose service has one server, the first, and connections to it.
pub struct Bed {
    pub lab: Lab,
    family: Family,
    pub process: u32,
    clients: Vec<Client>,
}

impl Bed {
    pub fn new(name: &str, options: Options, method: Method, family: Family) -> Bed {
        let lab = Lab::forwarding(name, options, method);
        Bed::over(lab, method, family, &family.server(1, 80))
    }

    pub fn over(lab: Lab, method: Method, family: Family, server: &str) -> Bed {
        let service = family.service(80);
        lab.ipvsadm(&format!("-A -t {service} -s rr"));
        lab.ipvsadm(&format!("-a -t {service} -r {server} {}", method.flag()));
        let process = lab.director().id();
        let mut bed = Bed {
            lab,
            family,
            process,
            clients: Vec::new(),
        };
        gap(&bed.lab, &service);
        bed.clients = bed.lab.inside("client", || connect_all(&service, 20));
        bed.go_on();
        bed
    }

    /// All connections are asked and answer, by the same server as before.
    pub fn go_on(&mut self) {
        let clients = &mut self.clients;
        self.lab.inside("client", || round(clients));
    }

    /// The next request is answered within a second from now, by the same process, and connections go on.
    pub fn follows(&mut self, what: &str) {
        let gap = gap(&self.lab, &self.family.service(80));
        println!(
            "{what}: the next request is answered after {} ms",
            gap.as_millis()
        );
        assert!(gap < WITHIN, "{what}: {gap:?}\n{}", self.lab.log());
        self.go_on();
        assert_eq!(self.lab.director().id(), self.process);
        let alive = std::path::Path::new("/proc").join(self.process.to_string());
        assert!(alive.exists(), "{what}: the director has ended");
    }

    pub fn counter(&self, name: &str) -> u64 {
        counter(&self.lab, name)
    }

    /// Sends requests that cannot be answered.
    pub fn try_in_vain(&self, times: usize) {
        let service = self.family.service(80);
        self.lab.inside("client", || {
            for _ in 0..times {
                assert!(request(&service).is_err());
            }
        });
    }
}

pub(crate) fn counter(lab: &Lab, name: &str) -> u64 {
    let listed = lab.lvx("counters");
    let line = listed
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    value.unwrap_or_else(|| panic!("no counter {name}:\n{listed}"))
}

/// The director's link to the servers, made as `scripts/lab` does.
pub fn plug_servers(lab: &Lab, queues: u8) {
    let lan = lab.namespace("lan");
    lab.shell(
        "director",
        &format!(
            "ip link add rs0 numtxqueues {queues} numrxqueues {queues} type veth \
             peer name to-director netns {lan} numtxqueues {queues} numrxqueues {queues}
             ip link set rs0 up
             ip address add 10.2.0.1/24 dev rs0
             ip -6 address add fd02::1/64 dev rs0 nodad"
        ),
    );
    lab.shell(
        "lan",
        "ip link set to-director up; ip link set to-director master br0",
    );
}

/// The link between clients and director, with the virtual address.
fn plug_clients(lab: &Lab) {
    let client = lab.namespace("client");
    lab.shell(
        "director",
        &format!("ip link add cl0 type veth peer name c0 netns {client}; ip link set cl0 up"),
    );
    lab.shell(
        "client",
        "ip link set c0 up; ip address add 10.1.0.254/24 dev c0
         ip route add 10.1.0.1/32 dev c0 src 10.9.0.1",
    );
    lab.shell(
        "director",
        "ip address add 10.1.0.253/24 dev cl0; ip address add 10.1.0.1/32 dev cl0
         ip route add 10.9.0.0/16 via 10.1.0.254",
    );
}

fn lines_with<'a>(log: &'a str, what: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(what)).collect()
}

fn server_device_returns(name: &str, method: Method, queues: u8) {
    let options = Options {
        queues,
        ..Options::default()
    };
    let mut bed = Bed::new(name, options, method, Family::V4);
    for time in 1..=3 {
        bed.lab.shell("director", "ip link del rs0");
        eventually(WITHIN, || match bed.counter("ports_away") {
            1 => Ok(()),
            n => Err(format!("{n} ports away")),
        });
        let drops = |bed: &Bed| bed.counter("drop_no_route") + bed.counter("drop_port_gone");
        let before = drops(&bed);
        bed.try_in_vain(5);
        assert!(drops(&bed) > before, "{}", bed.lab.lvx("counters"));
        let log = bed.lab.director().log();
        let said = lines_with(&log, "of port rs0 has gone");
        assert_eq!(said.len(), time, "once each time: {log}");
        plug_servers(&bed.lab, queues);
        bed.follows(&format!("{name}, return {time}"));
        assert_eq!(bed.counter("ports_away"), 0);
    }
}

#[test]
fn the_servers_device_returns_nat() {
    server_device_returns("device-nat", Method::Nat, 1);
}

#[test]
fn the_servers_device_returns_direct() {
    server_device_returns("device-direct", Method::Direct, 2);
}

#[test]
fn the_servers_device_returns_tunnel() {
    server_device_returns("device-tunnel", Method::Tunnel, 1);
}

/// A director whose only device goes: no socket is left to share memory with.
#[test]
fn the_only_device_returns() {
    let options = Options { arms: 1, queues: 2 };
    let mut bed = Bed::new("device-only", options, Method::Nat, Family::V4);
    // With another link address clients would ask the old one until they tire of it: for a card that was replaced, the
    // host tells them (arp_notify).
    let mac = bed.lab.shell("director", "cat /sys/class/net/cl0/address");
    let mac = mac.trim();
    for time in 1..=3 {
        bed.lab.shell("director", "ip link del cl0");
        thread::sleep(Duration::from_millis(300));
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
        bed.follows(&format!("the only device, return {time}"));
    }
}

/// The device whose socket libxdp registered the frames' memory with; and what comes after it: a director that takes
/// over, one that is started after a kill, and an end in good order.
#[test]
fn a_director_lives_on_with_the_device_that_came_back() {
    let mut bed = Bed::new("device-after", Options::default(), Method::Nat, Family::V4);
    bed.lab.shell("director", "ip link del cl0");
    thread::sleep(Duration::from_millis(300));
    plug_clients(&bed.lab);
    bed.follows("the clients' device");
    let pins = bed.lab.footprint();
    let links = pins.lines().filter(|line| line.contains("/link-"));
    assert_eq!(links.count(), 2, "one pin for each device there is: {pins}");

    let (status, log) = bed.lab.take_over(&[]);
    assert!(status.success(), "{status}: {log}");
    let log = bed.lab.director().log();
    assert!(log.contains("stood still for"), "{log}");
    bed.process = bed.lab.director().id();
    bed.follows("after a take-over");
    // Its frames are another process's: a device comes back to them too.
    bed.lab.shell("director", "ip link del rs0");
    plug_servers(&bed.lab, 1);
    bed.follows("the servers' device after a take-over");
    assert_eq!(bed.counter("drop_no_frame"), 0);

    bed.lab.stop(Signal::KILL);
    bed.lab.start();
    bed.process = bed.lab.director().id();
    bed.follows("after a kill");
    assert!(bed.lab.stop(Signal::TERM).success());
    let left = bed.lab.footprint();
    assert!(!left.contains("xdp") && !left.contains("/link-"), "{left}");
}

/// What cannot be opened is said once, tried again, and taken when it can.
#[test]
fn a_device_that_does_not_fit_is_taken_when_it_does() {
    let options = Options {
        queues: 2,
        ..Options::default()
    };
    let mut bed = Bed::new("device-unfit", options, Method::Nat, Family::V4);
    bed.lab.shell("director", "ip link del rs0");
    plug_servers(&bed.lab, 1);
    thread::sleep(Duration::from_millis(2500));
    let log = bed.lab.director().log();
    let said = lines_with(&log, "fewer than the 2 workers");
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains("ERROR"), "{log}");
    bed.try_in_vain(1);
    bed.lab.shell("director", "ip link del rs0");
    plug_servers(&bed.lab, 2);
    bed.follows("a device with queues enough");
}

/// `notice`: the server tells of its new address itself.
fn link_address_changes(name: &str, method: Method, family: Family, notice: bool) {
    let mut bed = Bed::new(name, Options::default(), method, family);
    let value = u8::from(notice);
    bed.lab.shell(
        "rs1",
        &format!("sysctl -qw net.ipv4.conf.eth0.arp_notify={value} net.ipv6.conf.eth0.ndisc_notify={value}"),
    );
    for time in 1..=3 {
        // The host takes no second address within a second (Linux's locktime).
        thread::sleep(Duration::from_millis(1500));
        bed.lab.shell(
            "rs1",
            &format!("ip link set eth0 address 02:00:00:00:99:0{time}"),
        );
        let how = if notice { "told" } else { "in silence" };
        bed.follows(&format!("{name}, link address changed {how}, {time}"));
    }
}

#[test]
fn a_link_address_changes_nat() {
    link_address_changes("mac-nat", Method::Nat, Family::V4, true);
}

#[test]
fn a_link_address_changes_direct() {
    link_address_changes("mac-direct", Method::Direct, Family::V4, true);
}

#[test]
fn a_link_address_changes_v6() {
    link_address_changes("mac-v6", Method::Nat, Family::V6, true);
}

#[test]
fn a_link_address_changes_in_silence_nat() {
    link_address_changes("silent-nat", Method::Nat, Family::V4, false);
}

#[test]
fn a_link_address_changes_in_silence_direct() {
    link_address_changes("silent-direct", Method::Direct, Family::V4, false);
}

#[test]
fn a_link_address_changes_in_silence_v6() {
    link_address_changes("silent-v6", Method::Nat, Family::V6, false);
}

#[test]
fn a_link_address_changes_in_silence_tunnel() {
    link_address_changes("silent-tunnel", Method::Tunnel, Family::V4, false);
}

/// Down for a while and up again, at each end.
fn link_comes_back(name: &str, method: Method) {
    let mut bed = Bed::new(name, Options::default(), method, Family::V4);
    // A server's routes go with its link.
    let routes = bed.lab.dir().join("routes");
    let routes = routes.display();
    bed.lab.shell("rs1", &format!("ip route save > {routes}"));
    let ends = [
        ("director", "rs0", String::new()),
        ("lan", "to-director", String::new()),
        ("lan", "to-rs1", String::new()),
        (
            "rs1",
            "eth0",
            format!("ip route restore < {routes} 2>/dev/null || true"),
        ),
    ];
    for (who, device, after) in ends {
        bed.lab.shell(who, &format!("ip link set {device} down"));
        bed.try_in_vain(3);
        thread::sleep(Duration::from_millis(300));
        bed.lab
            .shell(who, &format!("ip link set {device} up\n{after}"));
        bed.follows(&format!("{name}, {device} of {who} up again"));
    }
    let log = bed.lab.director().log();
    assert!(
        !log.contains("has gone"),
        "a link that is down is there: {log}"
    );
}

#[test]
fn links_go_down_and_up_nat() {
    link_comes_back("link-nat", Method::Nat);
}

#[test]
fn links_go_down_and_up_direct() {
    link_comes_back("link-direct", Method::Direct);
}

/// Packets that a namespace passed on for others.
fn forwarded(lab: &Lab, who: &str) -> u64 {
    let line = "nstat -asz IpForwDatagrams | awk '/IpForwDatagrams/ { print $2 }'";
    lab.shell(who, line).trim().parse().expect("a number")
}

/// The way to a server: by itself, by another router on the same link, by a router behind another device.
fn route_moves(name: &str, method: Method) {
    let lab = Lab::forwarding(name, Options::default(), method);
    lab.shell("rs1", "ip address add 10.3.0.11/32 dev lo");
    // Where BPF unpacks tunnels it does so for everybody's: this one is only a router.
    lab.shell(
        "rs2",
        "tc qdisc del dev eth0 clsact 2>/dev/null || true
         sysctl -qw net.ipv4.ip_forward=1; ip route add 10.3.0.11/32 via 10.2.0.11",
    );
    // It passes on what has one of its own addresses as its source: the clients live there.
    lab.shell(
        "client",
        "sysctl -qw net.ipv4.conf.all.accept_local=1; ip route add 10.3.0.11/32 via 10.2.0.11",
    );
    lab.shell("director", "ip route add 10.3.0.11/32 via 10.2.0.11");
    let mut bed = Bed::over(lab, method, Family::V4, "10.3.0.11:80");
    let ways = [
        ("by a router beside it", "via 10.2.0.12", Some("rs2")),
        (
            "by another device",
            "via 10.1.0.254 dev cl0",
            Some("client"),
        ),
        ("by itself again", "via 10.2.0.11 dev rs0", None),
    ];
    for (what, way, router) in ways {
        let before = router.map(|who| forwarded(&bed.lab, who));
        bed.lab
            .shell("director", &format!("ip route replace 10.3.0.11/32 {way}"));
        bed.follows(&format!("{name}, route {what}"));
        if let (Some(who), Some(before)) = (router, before) {
            let begin = Instant::now();
            eventually(WITHIN, || {
                bed.go_on();
                match forwarded(&bed.lab, who) > before {
                    true => Ok(()),
                    false => Err(format!("{who} passes nothing on")),
                }
            });
            println!(
                "{name}, {who} passes on after {} ms at most",
                begin.elapsed().as_millis()
            );
        }
    }
    // None, and one again.
    bed.lab.shell("director", "ip route del 10.3.0.11/32");
    // Followed soon, as every route, and not at once.
    thread::sleep(Duration::from_millis(300));
    let drops = bed.counter("drop_no_route");
    bed.try_in_vain(3);
    assert!(
        bed.counter("drop_no_route") > drops,
        "{}",
        bed.lab.lvx("counters")
    );
    bed.lab
        .shell("director", "ip route add 10.3.0.11/32 via 10.2.0.11");
    bed.follows(&format!("{name}, route is back"));
}

#[test]
fn a_route_moves_nat() {
    route_moves("route-nat", Method::Nat);
}

#[test]
fn a_route_moves_tunnel() {
    route_moves("route-tunnel", Method::Tunnel);
}

/// A server that answers no ARP: the drop has a name, and its return is seen within a second.
fn server_is_silent(name: &str, method: Method) {
    let mut bed = Bed::new(name, Options::default(), method, Family::V4);
    bed.lab.shell("rs1", "ip link set eth0 arp off");
    bed.lab.shell("director", "ip neigh flush dev rs0");
    eventually(Duration::from_secs(10), || {
        bed.try_in_vain(1);
        match bed.counter("drop_neighbour_unreachable") {
            0 => Err(bed.lab.lvx("counters")),
            n => Ok(n),
        }
    });
    bed.lab.shell("rs1", "ip link set eth0 arp on");
    bed.follows(&format!("{name}, a silent server answers again"));
}

#[test]
fn a_silent_server_nat() {
    server_is_silent("silent-server-nat", Method::Nat);
}

#[test]
fn a_silent_server_direct() {
    server_is_silent("silent-server-direct", Method::Direct);
}

/// A fault anywhere ends the process as this signal does; what its supervisor starts goes on with every connection.
#[test]
fn a_director_that_failed_is_started_again() {
    let mut bed = Bed::new("failed", Options::default(), Method::Nat, Family::V4);
    let status = bed.lab.stop(Signal::ABORT);
    assert!(!status.success(), "{status}");
    bed.lab.start();
    bed.process = bed.lab.director().id();
    bed.follows("started again after a fault");
}
