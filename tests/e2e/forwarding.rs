//! Each forwarding method in both families: every server answers, and large transfers arrive byte for byte.

use std::net::UdpSocket;
use std::time::Duration;

use crate::lab::{Family, LARGE, Lab, Method, Options, SERVERS};

/// Small requests, a download of 200 MB and an upload through one service.
fn forwards(name: &str, options: Options, method: Method, family: Family) {
    let lab = Lab::forwarding(name, options, method);
    // NAT may map the port; the other methods cannot.
    let server_port = if method == Method::Nat { 8080 } else { 80 };
    lab.add_service(family, 80, "rr", method, server_port);
    let url = format!("http://{}", family.service(80));

    every_server_answers(&lab, &url);
    download_is_whole(&lab, &url);
    upload_is_whole(&lab, &url);
}

pub(crate) fn every_server_answers(lab: &Lab, url: &str) {
    let mut answers: Vec<String> = (0..9)
        .map(|_| lab.shell("client", &format!("curl -sSfg -m 5 {url}/")))
        .collect();
    answers.sort();
    let expected: Vec<String> = SERVERS
        .iter()
        .flat_map(|s| std::iter::repeat_n(format!("{s}\n"), 3))
        .collect();
    assert_eq!(answers, expected, "nine requests over three servers by rr");
}

pub(crate) fn download_is_whole(lab: &Lab, url: &str) {
    let sum = lab.shell(
        "client",
        &format!("curl -sSfg -m 100 {url}/large | sha256sum"),
    );
    assert_eq!(
        sum.split_whitespace().next(),
        Some(LARGE.sha256.as_str()),
        "sha256 of {url}/large"
    );
}

/// Full frames from the client: where a tunnel makes them too long, the client must learn the path's MTU.
pub(crate) fn upload_is_whole(lab: &Lab, url: &str) {
    let file = lab.dir().join("to-upload");
    let line = format!(
        "head -c 5000000 {large} > {file}; sha256sum < {file}; curl -sSfg -m 20 -T {file} {url}/upload/file",
        large = LARGE.path.display(),
        file = file.display()
    );
    let sent = lab.shell("client", &line);
    let arrived = lab.shell(
        "client",
        &format!("sha256sum < {}/rs?/upload/file", lab.dir().display()),
    );
    assert_eq!(arrived, sent, "sha256 of the upload");
}

macro_rules! forwarding_tests {
    ($($name:ident: $options:expr, $method:ident, $family:ident;)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name).replace('_', "-");
            forwards(&name, $options, Method::$method, Family::$family);
        }
    )*};
}

const ONE_ARM: Options = Options { arms: 1, queues: 1 };
const TWO_ARMS: Options = Options { arms: 2, queues: 1 };
const TWO_QUEUES: Options = Options { arms: 2, queues: 2 };

forwarding_tests! {
    nat_v4: TWO_ARMS, Nat, V4;
    nat_v6: TWO_ARMS, Nat, V6;
    direct_v4: TWO_ARMS, Direct, V4;
    direct_v6: TWO_ARMS, Direct, V6;
    tunnel_v4: TWO_ARMS, Tunnel, V4;
    tunnel_v6: TWO_ARMS, Tunnel, V6;
    // All on one network: only ARP silence keeps clients from going to a server at once.
    one_arm_direct_v4: ONE_ARM, Direct, V4;
    one_arm_nat_v4: ONE_ARM, Nat, V4;
    // Both directions of a flow may meet different workers.
    two_queues_nat_v4: TWO_QUEUES, Nat, V4;
}

#[test]
fn tunnel_between_families() {
    let lab = Lab::forwarding("tunnel-mixed", Options::default(), Method::Tunnel);
    for (vip, servers) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let service = vip.service(80);
        lab.ipvsadm(&format!("-A -t {service} -s rr"));
        for index in 1..=SERVERS.len() {
            lab.ipvsadm(&format!(
                "-a -t {service} -r {} -i",
                servers.server(index, 80)
            ));
        }
        let url = format!("http://{service}");
        every_server_answers(&lab, &url);
        upload_is_whole(&lab, &url);
        lab.shell(
            "client",
            &format!("rm {}/rs?/upload/file", lab.dir().display()),
        );
    }
}

#[test]
fn udp_through_nat_and_direct() {
    for (name, method) in [("udp-nat", Method::Nat), ("udp-direct", Method::Direct)] {
        let lab = Lab::forwarding(name, Options::default(), method);
        let service = Family::V4.service(5300);
        lab.ipvsadm(&format!("-A -u {service} -s rr"));
        for index in 1..=SERVERS.len() {
            lab.ipvsadm(&format!(
                "-a -u {service} -r {} {}",
                Family::V4.server(index, 5300),
                method.flag()
            ));
        }
        // With direct routing the answers must bear the VIP: a socket bound to it sends them so.
        let address = if method == Method::Direct {
            service.as_str()
        } else {
            "0.0.0.0:5300"
        };
        let servers =
            SERVERS.map(|who| lab.inside(who, || UdpSocket::bind(address).expect("a free port")));
        std::thread::scope(|scope| {
            for (server, name) in servers.iter().zip(SERVERS) {
                scope.spawn(move || answer_datagrams(server, name));
            }
            let answers = lab.inside("client", || ask_by_datagrams(&service, 9));
            let mut counts = SERVERS.map(|s| answers.iter().filter(|a| *a == s).count());
            counts.sort();
            assert_eq!(
                counts,
                [3, 3, 3],
                "nine clients over three servers: {answers:?}"
            );
        });
    }
}

/// Answers three datagrams with the server's name.
fn answer_datagrams(server: &UdpSocket, name: &str) {
    server
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout can be set");
    let mut buffer = [0; 2048];
    for _ in 0..3 {
        let Ok((_, client)) = server.recv_from(&mut buffer) else {
            return;
        };
        let _ = server.send_to(name.as_bytes(), client);
    }
}

fn ask_by_datagrams(service: &str, clients: usize) -> Vec<String> {
    (0..clients)
        .map(|_| {
            let socket = UdpSocket::bind("10.9.0.1:0").expect("the client's address");
            socket.connect(service).expect("a route");
            socket
                .set_read_timeout(Some(Duration::from_secs(3)))
                .expect("a timeout can be set");
            socket.send(&[7; 1000]).expect("it is sent");
            let mut buffer = [0; 64];
            let n = socket
                .recv(&mut buffer)
                .unwrap_or_else(|e| panic!("no answer from {service}: {e}"));
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        })
        .collect()
}
