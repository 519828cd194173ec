//! Frames larger than one chunk of the frames' memory: links with an MTU of 9,000, and senders whose offload leaves
//! TCP packets of up to 64 KiB for the link to cut. Needs Linux 6.6.

use std::net::UdpSocket;
use std::time::Duration;

use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

use crate::change::counter;
use crate::forwarding::{download_is_whole, every_server_answers, upload_is_whole};
use crate::lab::{Family, Lab, Method, SERVERS};

/// All links of the lab, then those that have another MTU than the rest.
fn with_mtu(name: &str, method: Method, mtu: u32, but: &[(&str, &str, u32)]) -> Lab {
    let mut lab = Lab::forwarding_not_yet(name, method);
    let set = |who: &str, device: &str, mtu: u32| {
        lab.shell(who, &format!("ip link set {device} mtu {mtu}"));
    };
    for device in [
        "to-client",
        "to-director",
        "to-rs1",
        "to-rs2",
        "to-rs3",
        "br0",
    ] {
        set("lan", device, mtu);
    }
    for device in ["c0", "lan0"] {
        set("client", device, mtu);
    }
    for device in ["cl0", "rs0"] {
        set("director", device, mtu);
    }
    SERVERS.iter().for_each(|who| set(who, "eth0", mtu));
    but.iter()
        .for_each(|(who, device, mtu)| set(who, device, *mtu));
    lab.start();
    lab
}

fn jumbo(name: &str, method: Method, family: Family) {
    let lab = with_mtu(name, method, 9000, &[]);
    let server_port = if method == Method::Nat { 8080 } else { 80 };
    lab.add_service(family, 80, "rr", method, server_port);
    let url = format!("http://{}", family.service(80));
    every_server_answers(&lab, &url);
    let before = counter(&lab, "frames_received");
    download_is_whole(&lab, &url);
    let frames = counter(&lab, "frames_received") - before;
    if method == Method::Nat {
        // 200 MB in packets of 9,000 are 22,000, and as many acknowledgements at most.
        assert!(frames < 80_000, "{frames} frames: they were not large");
    }
    upload_is_whole(&lab, &url);
    for name in [
        "drop_offload_joined",
        "frames_missed",
        "drop_transport_malformed",
    ] {
        assert_eq!(counter(&lab, name), 0, "{name}");
    }
}

#[test]
fn jumbo_nat_v4() {
    jumbo("jumbo-nat-v4", Method::Nat, Family::V4);
}

#[test]
fn jumbo_nat_v6() {
    jumbo("jumbo-nat-v6", Method::Nat, Family::V6);
}

#[test]
fn jumbo_direct_v4() {
    jumbo("jumbo-direct-v4", Method::Direct, Family::V4);
}

#[test]
fn jumbo_tunnel_v4() {
    jumbo("jumbo-tunnel-v4", Method::Tunnel, Family::V4);
}

#[test]
fn jumbo_tunnel_v6() {
    jumbo("jumbo-tunnel-v6", Method::Tunnel, Family::V6);
}

/// A jumbo datagram where the servers' link is narrow: the director splits what came whole, and what comes back in
/// fragments leaves as it came.
#[test]
fn a_jumbo_datagram_is_split_for_a_narrow_way() {
    let narrow = [
        ("director", "rs0", 1500),
        ("rs1", "eth0", 1500),
        ("rs2", "eth0", 1500),
        ("rs3", "eth0", 1500),
    ];
    let lab = with_mtu("jumbo-split", Method::Nat, 9000, &narrow);
    let service = Family::V4.service(5300);
    lab.ipvsadm(&format!("-A -u {service} -s rr"));
    lab.ipvsadm(&format!(
        "-a -u {service} -r {} -m",
        Family::V4.server(1, 5300)
    ));
    let server = lab.inside("rs1", || {
        UdpSocket::bind("0.0.0.0:5300").expect("a free port")
    });
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&server, 3));
        lab.inside("client", || {
            for length in [200, 4_000, 8_900] {
                assert_eq!(
                    ask(&service, length),
                    length,
                    "a datagram of {length} bytes"
                );
            }
        });
    });
}

fn echo(server: &UdpSocket, times: usize) {
    let mut buffer = [0; 16_384];
    let timeout = Some(Duration::from_secs(10));
    server
        .set_read_timeout(timeout)
        .expect("a timeout can be set");
    for _ in 0..times {
        let Ok((length, client)) = server.recv_from(&mut buffer) else {
            return;
        };
        let _ = server.send_to(&buffer[..length], client);
    }
}

/// How much of a datagram comes back as it was.
fn ask(service: &str, length: usize) -> usize {
    let socket = UdpSocket::bind("10.9.0.1:0").expect("the client's address");
    // Routers may split it.
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT).expect("the option is known");
    socket.connect(service).expect("a route");
    let timeout = Some(Duration::from_secs(3));
    socket
        .set_read_timeout(timeout)
        .expect("a timeout can be set");
    let sent: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    socket.send(&sent).expect("it is sent");
    let mut buffer = vec![0; 16_384];
    match socket.recv(&mut buffer) {
        Ok(came) if buffer[..came] == sent => came,
        other => panic!("{other:?} for {length} bytes"),
    }
}
