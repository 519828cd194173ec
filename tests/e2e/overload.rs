//! More than the director can take: a flood of handshakes that nobody completes, clients above their limits, and a million
//! prefixes to keep out. What is established goes on, and every packet that is not forwarded is counted under a name.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Family, Lab, Method, Options, SERVERS, enter, eventually};
use crate::raw::{Random, flood};

const PORT: u16 = 9000;
const CONNECTIONS: usize = 4096;
const DOWNLOADS: u64 = 10;
/// Handshakes of the flood: ten times the table.
const FLOOD: u32 = 10 * CONNECTIONS as u32;
/// Slow enough that the flooder, the servers that answer and the director share two cores with room to spare: what is
/// measured is the director's policy, not who gets a core.
const FLOOD_PER_S: u32 = 10_000;
const MEASURED: Duration = Duration::from_secs(3);

/// Sends 16 KB each 10 ms to every client until told to stop.
fn serve(stop: &AtomicBool) {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("the port is free");
    listener.set_nonblocking(true).expect("own socket");
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            scope.spawn(move || {
                let _ = stream.set_nonblocking(false);
                let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
                while !stop.load(Ordering::Relaxed) && stream.write_all(&[7; 16 << 10]).is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
}

/// Reads until told to stop; an error where the connection ends before.
fn download(to: SocketAddr, stop: &AtomicBool, bytes: &AtomicU64) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(told)?;
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).map_err(told)?;
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer).map_err(told)? {
            // The servers are told to stop at the same time.
            0 if stop.load(Ordering::Relaxed) => break,
            0 => return Err("closed".into()),
            n => bytes.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
    Ok(())
}

/// The director's memory, KB.
fn resident_kb(lab: &Lab) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", lab.director().id()));
    let status = status.expect("the director runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.expect("Linux tells it").split_whitespace();
    words.nth(1).unwrap().parse().expect("a number")
}

/// A counter of `lvx counters`; 0 where it is not listed.
fn counter(lab: &Lab, name: &str) -> u64 {
    let listed = lab.lvx("counters");
    let words = listed.lines().map(|line| line.split_whitespace());
    let found = words.filter_map(|mut words| match words.next() == Some(name) {
        true => words.next()?.parse::<u64>().ok(),
        false => None,
    });
    found.sum()
}

/// What came within the measured time, bytes a second.
fn rate(bytes: &AtomicU64) -> f64 {
    let (begin, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
    thread::sleep(MEASURED);
    (bytes.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Also as a director comes: IPVS's defences are off then.
#[test]
fn a_flood_leaves_connections_alone() {
    survive_flood("flood", &[]);
}

/// Half-open connections make way as soon as the table is nearly full, as IPVS has it.
#[test]
fn a_flood_leaves_connections_alone_with_drop_entry() {
    survive_flood("flood-drop", &["drop_entry 1"]);
}

fn survive_flood(name: &str, tunables: &[&str]) {
    let mut lab = Lab::new(name, Options::default());
    lab.script(&["method", lab.name(), "nat"]);
    lab.start_with(&["--connections", &CONNECTIONS.to_string()]);
    lab.add_service(Family::V4, PORT, "rr", Method::Nat, PORT);
    for tunable in tunables {
        lab.lvx(&format!("set {tunable}"));
    }
    // Answers to the flood end at the clients' gateway.
    lab.shell("client", "ip route add blackhole 10.9.0.0/16");
    let to: SocketAddrV4 = Family::V4.service(PORT).parse().expect("an address");
    let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = lab.namespace("client");
    let servers = SERVERS.map(|who| lab.namespace(who));
    thread::scope(|scope| {
        let _end = End(&stop);
        for server in &servers {
            scope.spawn(|| enter(server, || serve(&stop)));
        }
        thread::sleep(Duration::from_millis(200));
        let run = || enter(&client, || download(to.into(), &stop, &bytes));
        let downloads: Vec<_> = (0..DOWNLOADS).map(|_| scope.spawn(run)).collect();
        thread::sleep(Duration::from_secs(1));
        let before = rate(&bytes);
        let before_kb = resident_kb(&lab);

        let flooding = scope.spawn(|| {
            enter(&client, || {
                flood(
                    (Ipv4Addr::new(10, 9, 128, 0), 17),
                    to,
                    FLOOD,
                    FLOOD_PER_S,
                    &mut Random::new(1),
                )
            })
        });
        thread::sleep(Duration::from_millis(500));
        let during = rate(&bytes);
        let took = flooding.join().expect("the flood ends");
        let end = Instant::now();
        let connect = || {
            let tried = TcpStream::connect_timeout(&to.into(), Duration::from_millis(100));
            tried.map_err(|error| error.to_string())
        };
        enter_here(&client, || eventually(Duration::from_secs(5), connect));
        let recovered = end.elapsed();
        let after_kb = resident_kb(&lab);
        let (full, ended) = (
            counter(&lab, "drop_table_full"),
            counter(&lab, "half_open_ended"),
        );
        println!(
            "flood of {FLOOD} in {took:?}: {:.1} MB/s before, {:.1} MB/s during; {before_kb} and {after_kb} KB; dropped \
             {full} table_full, {ended} half-open connections ended; new connections after {recovered:?}",
            before / 1e6,
            during / 1e6
        );
        assert!(during > 0.95 * before, "{during} of {before} bytes/s");
        assert!(
            after_kb < before_kb + 2048,
            "{before_kb} KB grew to {after_kb} KB"
        );
        assert!(
            full + ended > u64::from(FLOOD) / 2,
            "{}",
            lab.lvx("counters")
        );
        assert!(recovered < Duration::from_secs(1), "{recovered:?}");
        stop.store(true, Ordering::Relaxed);
        for download in downloads {
            download
                .join()
                .expect("no panic")
                .expect("a connection outlives the flood");
        }
    });
}

/// The same as `Lab::inside`, where the lab itself is in use.
fn enter_here<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(|| enter(namespace, body)).join()).expect("no panic")
}

/// How many of `count` connections come about, each tried for a short time only.
fn connects(lab: &Lab, to: SocketAddr, count: usize) -> usize {
    let tries = || (0..count).map(|_| TcpStream::connect_timeout(&to, Duration::from_millis(150)));
    lab.inside("client", || tries().filter(Result::is_ok).count())
}

#[test]
fn limits_and_prefixes_hold_back_real_traffic() {
    let lab = Lab::forwarding("limits", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let to: SocketAddr = Family::V4.service(80).parse().expect("an address");
    assert_eq!(connects(&lab, to, 10), 10);

    lab.lvx(&format!("limit set -t {to} --per-s 2"));
    thread::sleep(Duration::from_millis(1100));
    let let_in = connects(&lab, to, 8);
    assert!((2..8).contains(&let_in), "{let_in} of 8 came in");
    assert!(
        counter(&lab, "drop_service_limit") > 0,
        "{}",
        lab.lvx("counters")
    );

    lab.lvx(&format!("limit set -t {to} --source-per-s 2"));
    thread::sleep(Duration::from_millis(1100));
    let let_in = connects(&lab, to, 8);
    assert!((2..8).contains(&let_in), "{let_in} of 8 came in");
    assert!(
        counter(&lab, "drop_source_limit") > 0,
        "{}",
        lab.lvx("counters")
    );
    lab.lvx(&format!("limit del -t {to}"));
    assert_eq!(connects(&lab, to, 10), 10);

    // The clients' addresses on the wire are their gateway's.
    for denied in ["10.1.0.0/24", "10.9.0.0/16"] {
        lab.lvx(&format!("prefix deny {denied}"));
    }
    assert_eq!(connects(&lab, to, 2), 0);
    assert!(
        counter(&lab, "steering_denied") > 0,
        "{}",
        lab.lvx("counters")
    );
    lab.lvx("prefix allow 10.1.0.254/32 10.9.0.1/32");
    assert_eq!(connects(&lab, to, 10), 10);
}

#[test]
fn a_million_prefixes_load_while_packets_flow() {
    let lab = Lab::forwarding("million", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let to: SocketAddr = Family::V4.service(80).parse().expect("an address");
    let mut list = String::with_capacity(20 << 20);
    for number in 0..1_000_000_u32 {
        // /32s of 64.0.0.0/2, two apart, so that none can be put together with another.
        list += &format!("{}\n", Ipv4Addr::from_bits(0x4000_0000 + 2 * number));
    }
    let file = lab.dir().join("deny.txt");
    fs::write(&file, list).expect("the lab's folder has room");
    let begin = Instant::now();
    lab.lvx_words(&["prefix", "deny", "--file", file.to_str().expect("UTF-8")]);
    let took = begin.elapsed();
    let begin = Instant::now();
    lab.ipvsadm(&format!("-e -t {to} -r 10.2.0.11:80 -m -w 7"));
    let edit = begin.elapsed();
    println!("a million prefixes in {took:?}, an edit with them in {edit:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(edit < Duration::from_millis(500), "{edit:?}");
    assert_eq!(connects(&lab, to, 10), 10);
    lab.lvx("prefix deny 10.1.0.0/24 10.9.0.0/16");
    assert_eq!(connects(&lab, to, 1), 0);
    let begin = Instant::now();
    lab.lvx("prefix forget --all");
    println!("forgotten in {:?}", begin.elapsed());
    assert_eq!(connects(&lab, to, 10), 10);
}
