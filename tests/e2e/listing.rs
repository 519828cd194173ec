//! Clients under bad conditions: no permission, a reader that goes away, a director of
//! another version, and a listing of a million connections.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, sendto};

use crate::lab::{Lab, Method, Options, eventually, ipvsadm, lvx, text};
use crate::raw::raw_socket;

#[test]
fn a_socket_without_permission() {
    let mut lab = Lab::new("denied", Options::default());
    lab.start();
    let copy = lab.dir().join("ipvsadm");
    fs::copy(lvx(), &copy).expect("the lab's folder is writable");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("own file");
    let denied = |words: &[&str], mode: u32| {
        fs::set_permissions(lab.socket(), fs::Permissions::from_mode(mode)).unwrap();
        let mut command = lab.exec("director", "setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        let output = command
            .arg(&copy)
            .args(words)
            .env("LVX_API", lab.socket())
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "", "{words:?}");
        (text(&output.stderr), output.status.code())
    };
    let message = "Permission denied (you must be root)\n".to_owned();
    // Also where somebody has opened the socket to all: the director asks who it is.
    for mode in [0o600, 0o666] {
        for words in [&["-L", "-n"][..], &["-C"], &["-A", "-t", "10.1.0.1:80"]] {
            assert_eq!(
                denied(words, mode),
                (message.clone(), Some(255)),
                "{words:?} {mode:o}"
            );
        }
    }
}

/// A stand-in for a director of an older version: it knows no path, or no command.
#[test]
fn an_older_director() {
    let lab = Lab::new("older", Options::default());
    let listener = UnixListener::bind(lab.socket()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.push(byte[0]);
            }
            let status = match request.starts_with(b"POST") {
                true => "422 Unprocessable Entity",
                false => "404 Not Found",
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nserver: lvx/0.0.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            );
        }
    });
    let rows = [
        ("top --once", "it does not know /v1/sample", 2),
        (
            "explain tcp 10.9.0.1:1 10.1.0.1:80",
            "it does not understand the request",
            2,
        ),
        ("set sloppy_tcp 1", "it does not understand the request", 2),
        ("adm -L -n", "it does not know /v1/table", 2),
    ];
    for (words, reason, status) in rows {
        let mut command = Command::new(lvx());
        command.args(words.split(' ')).env("LVX_API", lab.socket());
        let output = command.output().unwrap();
        let expected = format!(
            "lvx: the director on {} is lvx 0.0.1, this is lvx {}, and {reason}; start the director \
             anew with this version, or use the one that it was started with\n",
            lab.socket().display(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text(&output.stderr), expected, "{words}");
        assert_eq!(output.status.code(), Some(status), "{words}");
    }
}

/// Connections, made by so many UDP packets from as many clients.
fn connect(lab: &Lab, connections: u32) {
    lab.inside("client", || {
        let socket = raw_socket();
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 53);
        // The kernel fills the checksum of IP in; that of UDP may be left out.
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([0, 0, 0, 0, 10, 1, 0, 1, 0, 0, 0, 53, 0, 8, 0, 0]);
        for number in 0..connections {
            let client = 0x0b00_0000 + number / 1000;
            packet[12..16].copy_from_slice(&client.to_be_bytes());
            packet[20..22].copy_from_slice(&(10_000 + (number % 1000) as u16).to_be_bytes());
            while sendto(&socket, &packet, SendFlags::empty(), &to).is_err() {
                thread::yield_now();
            }
        }
    });
}

/// Connections of the UDP service, as the listing counts them.
fn live(lab: &Lab) -> u64 {
    let listing = lab.ipvsadm("-Ln -u 10.1.0.1:53");
    let server = listing.lines().find(|line| line.contains("10.2.0.11"));
    let numbers = server
        .into_iter()
        .flat_map(|line| line.split_whitespace().rev().take(2));
    numbers.filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Requests over one connection, one after another, until `ends`; how long each took.
fn request(lab: &Lab, ends: &AtomicBool) -> Vec<Duration> {
    lab.inside("client", || {
        let mut stream = TcpStream::connect("10.1.0.1:80").expect("nginx listens");
        stream.set_nodelay(true).unwrap();
        let (mut took, mut answer) = (Vec::new(), [0; 4096]);
        while !ends.load(Relaxed) {
            let begin = Instant::now();
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .unwrap();
            let length = stream.read(&mut answer).unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
            took.push(begin.elapsed());
        }
        took
    })
}

/// `count MEDIAN 99th`, and the median.
fn quantiles(mut took: Vec<Duration>) -> (String, Duration) {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    (
        format!(
            "{} requests, median {:?}, 99 % {:?}",
            took.len(),
            at(50),
            at(99)
        ),
        at(50),
    )
}

/// A line of `/proc/PID/status`, KiB.
fn memory_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| {
        line.trim_matches(&[':', '\t', ' '][..])
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    number.unwrap_or(0)
}

/// A value, and how long requests took while it was made.
fn with_requests<T>(lab: &Lab, body: impl FnOnce() -> T) -> (T, Vec<Duration>) {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let requests = scope.spawn(|| request(lab, &ends));
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        ends.store(true, Relaxed);
        let took = requests.join().expect("requests are answered");
        (
            value.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            took,
        )
    })
}

struct Listing {
    count: u64,
    first: Duration,
    all: Duration,
    client_kib: u64,
    director_kib: u64,
}

/// `ipvsadm -Lnc`, read to its end.
fn list(lab: &Lab, director: u32) -> Listing {
    let begin = Instant::now();
    let mut child = Command::new(ipvsadm())
        .args(["-L", "-n", "-c"])
        .env("LVX_API", lab.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut count, mut first) = (String::new(), 0u64, None);
    let (mut client_kib, mut director_kib) = (0, 0);
    while lines.read_line(&mut line).unwrap() > 0 {
        count += 1;
        if count == 3 {
            first = Some(begin.elapsed());
            assert!(line.starts_with("UDP "), "{line}");
        }
        if count % 100_000 == 0 {
            client_kib = client_kib.max(memory_kib(child.id(), "VmHWM"));
            director_kib = director_kib.max(memory_kib(director, "VmRSS"));
        }
        line.clear();
    }
    let all = begin.elapsed();
    assert!(child.wait().unwrap().success());
    Listing {
        count,
        first: first.expect("there are rows"),
        all,
        client_kib,
        director_kib,
    }
}

const CONNECTIONS: u32 = 1_000_000;

#[test]
fn a_million_connections_are_streamed() {
    let mut lab = Lab::new("million", Options::default());
    lab.script(&["method", lab.name(), Method::Direct.word()]);
    // A director that is full lets go of connections; so there is room for more.
    lab.start_with(&["--connections", "2097152"]);
    // The listing should be slow, if it is, for its own reasons.
    lab.shell("rs1", "nft 'add table ip f; add chain ip f i { type filter hook prerouting priority -400; }; add rule ip f i udp dport 53 drop'");
    lab.ipvsadm("-A -u 10.1.0.1:53 -s rr");
    lab.ipvsadm("-a -u 10.1.0.1:53 -r 10.2.0.11 -g");
    lab.ipvsadm("-A -t 10.1.0.1:80 -s rr");
    lab.ipvsadm("-a -t 10.1.0.1:80 -r 10.2.0.12 -g");
    let begin = Instant::now();
    connect(&lab, CONNECTIONS);
    // What the director could not take in time is sent again.
    eventually(Duration::from_secs(120), || match live(&lab) {
        count if count >= u64::from(CONNECTIONS) => Ok(()),
        count => {
            connect(&lab, CONNECTIONS);
            Err(format!("{count} connections"))
        }
    });
    eprintln!("made within {:?}", begin.elapsed());
    let (idle, idle_median) =
        quantiles(with_requests(&lab, || thread::sleep(Duration::from_secs(2))).1);
    let director = lab.director().id();
    let before_kib = memory_kib(director, "VmRSS");
    let (listing, took) = with_requests(&lab, || list(&lab, director));
    let Listing {
        count,
        first,
        all,
        client_kib,
        director_kib,
    } = listing;
    let (busy, busy_median) = quantiles(took);
    eprintln!(
        "{count} lines: the first row after {first:?}, all after {all:?}; client {client_kib} KiB, \
         director {before_kib} -> {director_kib} KiB\nwithout it {idle}\nmeanwhile {busy}"
    );
    assert!(count >= u64::from(CONNECTIONS), "{count} lines");
    // 0.2 s on an idle machine; the test's cores are shared with other tests.
    assert!(
        first < Duration::from_secs(2),
        "the first row after {first:?}"
    );
    assert!(client_kib < 32 * 1024, "the client took {client_kib} KiB");
    let more_kib = director_kib.saturating_sub(before_kib);
    assert!(
        more_kib < 16 * 1024,
        "the director took {more_kib} KiB more"
    );

    // Workers wait for nothing here; the listing only takes its share of the cores.
    assert!(
        busy_median < 10 * idle_median.max(Duration::from_millis(1)),
        "{idle}; meanwhile {busy}"
    );

    // A reader that has seen enough ends it at once, quietly.
    let line = format!(
        "LVX_API={} {} -Lnc | head -n 3; echo ${{PIPESTATUS[0]}}",
        lab.socket().display(),
        ipvsadm().display()
    );
    let begin = Instant::now();
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    let out = text(&output.stdout);
    assert_eq!(
        (out.lines().count(), out.lines().last()),
        (4, Some("141")),
        "{out}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}
