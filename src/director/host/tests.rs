//! A real host behind the tap device: the port's own input is closed by nftables, and a
//! relay takes the frames up as the director would.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::*;
use crate::director::testing::{Pair, run, within};

#[test]
fn tags_are_stripped_and_short_frames_survive() {
    let macs = [1u8, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
    let row = |middle: &[u8]| [&macs[..], middle].concat();
    let rows = [
        ("untagged", row(&[8, 0, 0x45]), row(&[8, 0, 0x45])),
        (
            "one tag",
            row(&[0x81, 0, 0, 7, 8, 0, 0x45]),
            row(&[8, 0, 0x45]),
        ),
        (
            "two tags",
            row(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 8, 0, 0x45]),
            row(&[8, 0, 0x45]),
        ),
        (
            "a tag and nothing behind",
            row(&[0x81, 0, 0]),
            row(&[0x81, 0, 0]),
        ),
        ("no header", vec![1, 2, 3], vec![1, 2, 3]),
    ];
    for (description, mut before, after) in rows {
        let end = before.len();
        let mut frame = Frame::new(&mut before, 0, end).unwrap();
        strip_tags(&mut frame);
        assert_eq!(frame.bytes(), after, "{description}");
    }
}

/// Hands every frame for the port's MAC and of `kinds` to the host until told to stop.
fn relay(queue: &HostQueue, port: Mac, stop: &AtomicBool) {
    // ETH_P_ALL of linux/if_ether.h, in network order.
    let all = rustix::net::Protocol::from_raw(0x0300.try_into().unwrap());
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::NONBLOCK,
        Some(all),
    )
    .unwrap();
    let mut buffer = [0; 9000];
    while !stop.load(Relaxed) {
        let Ok((length, _)) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
        else {
            std::thread::sleep(std::time::Duration::from_micros(200));
            continue;
        };
        let mut frame = Frame::new(&mut buffer, 0, length).unwrap();
        let ip = matches!(frame.bytes()[12..14], [0x08, 0x00] | [0x86, 0xdd]);
        if frame.bytes()[..6] == port && ip {
            queue.deliver(&mut frame).unwrap();
        }
    }
}

struct World {
    pair: Pair,
    third: String,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.third])
            .status();
    }
}

/// Client - director - a host behind it. The director's stack hears no IP from `cl0`.
fn world() -> Option<World> {
    let pair = Pair::new()?;
    let third = format!("{}t", pair.director());
    let world = World { pair, third };
    let (pair, third) = (&world.pair, &world.third);
    run(&format!("ip netns add {third}"));
    let peer = pair.peer();
    pair.ip(&format!(
        "link add rs0 type veth peer name th0 netns {third}"
    ));
    pair.ip("addr add 10.99.1.1/24 dev cl0");
    pair.ip("addr add 10.99.1.100/32 dev cl0");
    pair.ip("addr add fd99::1/64 dev cl0 nodad");
    pair.ip("addr add 10.99.2.1/24 dev rs0");
    pair.ip("link set rs0 up");
    pair.peer_ip("addr add 10.99.1.2/24 dev peer0");
    pair.peer_ip("addr add fd99::2/64 dev peer0 nodad");
    pair.peer_ip("route add default via 10.99.1.1");
    run(&format!("ip -n {third} addr add 10.99.2.2/24 dev th0"));
    run(&format!("ip -n {third} link set th0 up"));
    run(&format!("ip -n {third} route add default via 10.99.2.1"));
    // The relay hands on what the sender computed: let it compute all of it.
    run(&format!("ip netns exec {peer} ethtool -K peer0 tx off"));
    let director = pair.director();
    run(&format!(
        "ip netns exec {director} sysctl -qw net.ipv4.ip_forward=1"
    ));
    let script = "table netdev t { chain c { type filter hook ingress device cl0 priority 0; \
                  meta protocol ip drop; icmpv6 type echo-request drop; tcp dport 80 drop; }; }\n";
    let script_file = std::env::temp_dir().join(&world.third);
    std::fs::write(&script_file, script).unwrap();
    run(&format!(
        "ip netns exec {director} nft -f {}",
        script_file.display()
    ));
    std::fs::remove_file(script_file).unwrap();
    Some(world)
}

fn serve(address: &str) -> std::thread::JoinHandle<()> {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let head = "HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[b'x'; 100_000]).unwrap();
    })
}

/// A command in the client's namespace: whether it succeeded, and what it printed.
fn client(world: &World, line: &str) -> (bool, String) {
    within(&world.pair.peer(), || {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    })
}

#[test]
fn the_host_answers_routes_and_resets_through_the_tap() {
    let Some(world) = world() else {
        return;
    };
    let ping = |to: &str| client(&world, &format!("ping -n -c 2 -i 0.2 -W 1 {to}")).0;
    assert!(!ping("10.99.1.100"), "the port's own input must be closed");
    let mac = world.pair.ip("-o link show cl0");
    let mac = mac.split("link/ether ").nth(1).unwrap();
    let port: Vec<u8> = mac[..17]
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).unwrap())
        .collect();
    let port: Mac = port.try_into().unwrap();
    let (host, queues) = world.pair.inside(|| Host::open(2, 1500)).unwrap();
    assert_eq!(queues.len(), 2);
    assert_eq!(host.warnings, Vec::<String>::new());
    let addresses = world.pair.ip(&format!("-o addr show dev {}", host.device));
    assert_eq!(addresses, "", "the tap device bears no address");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| within(&world.pair.director(), || relay(&queues[1], port, &stop)));
        let _stop = StopOnDrop(&stop);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(ping("10.99.1.100"), "IPv4 ping");
        assert!(ping("fd99::1"), "IPv6 ping");
        assert!(ping("10.99.2.2"), "routed ping");
        for (address, url) in [
            ("10.99.1.100:80", "10.99.1.100"),
            ("[fd99::1]:80", "[fd99::1]"),
        ] {
            let server = world.pair.inside(|| serve(address));
            let (good, text) = client(&world, &format!("curl -gsS -m 5 http://{url}/ | wc -c"));
            assert!(good && text.trim() == "100000", "{url}: {text}");
            server.join().unwrap();
        }
        let (good, text) = client(&world, "curl -sS -m 5 http://10.99.1.100:81/");
        assert!(!good && text.contains("connect"), "{text}");
        assert!(!text.contains("timed out"), "{text}");
    });
    drop(queues);
    let links = world.pair.ip("-o link show");
    assert!(!links.contains(&host.device), "{links}");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_strict_reverse_path_filter_is_warned_of() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let director = pair.director();
    run(&format!(
        "ip netns exec {director} sysctl -qw net.ipv4.conf.all.rp_filter=1"
    ));
    let (host, _queues) = pair.inside(|| Host::open(1, 9000)).unwrap();
    assert_eq!(host.warnings.len(), 1);
    assert!(host.warnings[0].contains("rp_filter"));
    assert!(
        pair.ip(&format!("link show {}", host.device))
            .contains("mtu 9000")
    );
}

/// As in a container: what rtnetlink cannot set is only missed where it is wrong.
#[test]
fn read_only_settings() {
    // What new devices are like, and of which settings the warnings tell.
    let rows: [(&str, &str, &[&str]); 3] = [
        (
            "right as they are",
            "net.ipv4.conf.default.rp_filter=1 net.ipv6.conf.default.accept_ra=0",
            &[],
        ),
        (
            "a router",
            "net.ipv6.conf.default.forwarding=1 net.ipv6.conf.default.accept_ra=1",
            &[],
        ),
        (
            "wrong",
            "net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.default.disable_ipv6=1",
            &["accept_ra", "disable_ipv6"],
        ),
    ];
    for (what, settings, expected) in rows {
        let Some(pair) = Pair::new() else {
            return;
        };
        let (device, warnings, values) = pair.inside(|| {
            run(&format!("sysctl -qw {settings}"));
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            run("mount --make-rprivate /");
            run("mount --bind /proc/sys /proc/sys");
            run("mount -o remount,ro,bind /proc/sys");
            let (host, _queues) = Host::open(1, 1500).unwrap();
            let device = &host.device;
            let value = |name: &str| {
                let path = format!("/proc/sys/net/{name}").replace("DEV", device);
                std::fs::read_to_string(path).unwrap().trim().to_owned()
            };
            let values = [
                "ipv4/conf/DEV/rp_filter",
                "ipv4/conf/DEV/arp_ignore",
                "ipv6/conf/DEV/addr_gen_mode",
            ]
            .map(value);
            (host.device, host.warnings, values)
        });
        assert_eq!(values, ["0", "8", "1"], "{what}");
        assert_eq!(warnings.len(), expected.len(), "{what}: {warnings:?}");
        for (warning, name) in warnings.iter().zip(expected) {
            let line = format!("sysctl -w net.ipv6.conf.{device}.{name}=0");
            assert!(warning.contains(&line), "{what}: {warning}");
            let option = format!("--sysctl net.ipv6.conf.default.{name}=0");
            assert!(warning.contains(&option), "{what}: {warning}");
        }
    }
}
