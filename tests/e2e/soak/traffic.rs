//! What clients do: downloads, short requests, datagrams. Every service has one server of each forwarding method.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::Scene;
use crate::downloads::{block, download, serve as serve_downloads};
use crate::lab::{Family, Lab, Method, VIP4, VIP6, enter};
use crate::load::Client;

pub const DOWNLOADS: u16 = 9000;
pub const REQUESTS: u16 = 80;
pub const DATAGRAMS: u16 = 9053;
/// Datagrams in fragments: one server only, as what unwraps tunnels in the lab knows no fragments.
pub const FRAGMENTED: u16 = 9054;
/// What is flooded: nobody accepts there.
pub const FLOODED: u16 = 9100;
/// The ports of all services that stay.
pub const SERVICES: [u16; 5] = [DOWNLOADS, REQUESTS, DATAGRAMS, FRAGMENTED, FLOODED];

/// What `scripts/lab method NAME mixed` sets each server up for.
pub const METHODS: [Method; 3] = [Method::Nat, Method::Direct, Method::Tunnel];

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const DOWNLOADERS: u64 = 36;
const REQUESTERS: u64 = 4;
const CORRESPONDENTS: u64 = 6;

const SMALL_BYTES: usize = 1200;
const LARGE_BYTES: usize = 4000;

pub fn add_services(lab: &Lab) {
    // Short timeouts, so that a soak can wait for the end of all.
    lab.ipvsadm("--set 90 20 20");
    for family in FAMILIES {
        for (flag, port) in [
            ("-t", DOWNLOADS),
            ("-t", REQUESTS),
            ("-t", FLOODED),
            ("-u", DATAGRAMS),
            ("-u", FRAGMENTED),
        ] {
            let service = family.service(port);
            lab.ipvsadm(&format!("-A {flag} {service} -s rr"));
            let servers = if port == FRAGMENTED { 1 } else { METHODS.len() };
            for (index, method) in (1..).zip(&METHODS[..servers]) {
                let server = family.server(index, port);
                lab.ipvsadm(&format!(
                    "-a {flag} {service} -r {server} {}",
                    method.flag()
                ));
            }
        }
    }
}

/// The servers' side; nginx answers requests.
pub fn serve<'s>(scope: &'s Scope<'s, '_>, scene: &'s Scene) {
    for (index, namespace) in (1..).zip(&scene.servers) {
        scope.spawn(move || enter(namespace, || serve_downloads(DOWNLOADS, &scene.closed)));
        for family in FAMILIES {
            for port in [DATAGRAMS, FRAGMENTED] {
                scope.spawn(move || enter(namespace, || echo(scene, family, index, port)));
            }
        }
    }
}

/// Sends back what comes, with the server's number before it. Behind direct routing and tunnels from the virtual
/// address, as the answer goes straight to the client.
fn echo(scene: &Scene, family: Family, index: usize, port: u16) {
    let own: SocketAddr = family.server(index, port).parse().expect("an address");
    let virtual_: IpAddr = family.vip().parse().expect("an address");
    let address = match METHODS[index - 1] {
        Method::Nat => own.ip(),
        Method::Direct | Method::Tunnel => virtual_,
    };
    let socket = UdpSocket::bind((address, port)).expect("the port is free");
    let patience = Some(Duration::from_millis(200));
    socket.set_read_timeout(patience).expect("own socket");
    let mut bytes = [0; 8192];
    bytes[0] = index as u8;
    while !scene.closed.load(Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut bytes[1..]) {
            let _ = socket.send_to(&bytes[..=length], client);
        }
    }
}

pub fn begin<'s>(scope: &'s Scope<'s, '_>, scene: &'s Scene) -> Vec<ScopedJoinHandle<'s, ()>> {
    let mut threads = Vec::new();
    let mut client = |body: Box<dyn FnOnce() + Send + 's>| {
        threads.push(scope.spawn(|| enter(&scene.client, body)));
    };
    for number in 0..DOWNLOADERS {
        client(Box::new(move || downloader(scene, number)));
    }
    for number in 0..REQUESTERS {
        client(Box::new(move || requester(scene, number)));
    }
    for number in 0..CORRESPONDENTS {
        client(Box::new(move || correspondent(scene, number)));
    }
    threads
}

fn family(number: u64) -> Family {
    FAMILIES[usize::from(number % 3 == 2)]
}

fn address(family: Family, port: u16) -> SocketAddr {
    let vip = match family {
        Family::V4 => VIP4,
        Family::V6 => VIP6,
    };
    (vip.parse::<IpAddr>().expect("an address"), port).into()
}

/// One download after the other; every fourth lasts as long as the soak.
fn downloader(scene: &Scene, number: u64) {
    let mut random = scene.random(100 + number);
    let family = family(number);
    scene.rest(random.time_ms(0, 1000));
    while !scene.is_over() {
        let lasts = match number % 4 {
            0 => Duration::MAX,
            _ => random.time_ms(1000, 30_000),
        };
        let begin = Instant::now();
        let stop = || scene.is_over() || begin.elapsed() > lasts;
        let to = address(family, DOWNLOADS);
        match download(to, random.number(), stop, &scene.downloads) {
            Ok(_) => _ = scene.tally.downloads.fetch_add(1, Relaxed),
            Err(why) => scene.lost(format!("download of {family:?}: {why}")),
        }
    }
}

/// Connects, asks some times, goes.
fn requester(scene: &Scene, number: u64) {
    let mut random = scene.random(200 + number);
    let to = address(family(number), REQUESTS).to_string();
    while !scene.is_over() {
        let asks = 1 + random.below(3);
        match Client::connect(&to).and_then(|client| ask(client, asks)) {
            Ok(()) => _ = scene.tally.requests.fetch_add(1, Relaxed),
            Err(why) => scene.lost(format!("request to {to}: {why}")),
        }
        thread::sleep(random.time_ms(5, 40));
    }
}

fn ask(mut client: Client, times: u64) -> std::io::Result<()> {
    for _ in 0..times {
        client.ask()?;
        client.answer()?;
    }
    Ok(())
}

/// Sends datagrams and waits for each to come back: they may be lost, but not come back otherwise.
fn correspondent(scene: &Scene, number: u64) {
    let mut random = scene.random(300 + number);
    let family = family(number);
    let (port, longest) = match number % 2 {
        0 => (DATAGRAMS, SMALL_BYTES),
        _ => (FRAGMENTED, LARGE_BYTES),
    };
    while !scene.is_over() {
        let lasts = random.time_ms(1000, 10_000);
        let seed = random.number();
        if let Err(why) = correspond(scene, address(family, port), seed, longest, lasts) {
            scene.lost(format!("datagrams of {family:?} to port {port}: {why}"));
        }
    }
}

fn correspond(
    scene: &Scene,
    to: SocketAddr,
    seed: u64,
    longest: usize,
    lasts: Duration,
) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(told)?;
    socket.connect(to).map_err(told)?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .map_err(told)?;
    let (begin, mut server) = (Instant::now(), None);
    let (mut sent, mut back) = (vec![0; longest], vec![0; longest + 1]);
    for number in 0_u64.. {
        if scene.is_over() || begin.elapsed() > lasts {
            break;
        }
        let length = 16 + (seed.wrapping_mul(number + 1) >> 33) as usize % (longest - 16);
        block(seed, number * 8, &mut sent[..length]);
        sent[..8].copy_from_slice(&number.to_le_bytes());
        socket.send(&sent[..length]).map_err(told)?;
        scene.tally.sent.fetch_add(1, Relaxed);
        let got = loop {
            match socket.recv(&mut back) {
                // One that was given up before.
                Ok(got) if got > 9 && back[1..9] != sent[..8] => continue,
                Ok(got) => break Some(got),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(error) => return Err(told(error)),
            }
        };
        let Some(got) = got else { continue };
        if back[1..got] != sent[..length] {
            return Err(format!("number {number} came back with other bytes"));
        }
        match server.replace(back[0]) {
            Some(other) if other != back[0] => {
                let now = back[0];
                return Err(format!("server {now} answers instead of {other}"));
            }
            _ => _ = scene.tally.answered.fetch_add(1, Relaxed),
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
