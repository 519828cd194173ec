//! The director's host keeps what is its own: other traffic to its addresses is as it would be without lvx.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{DIRECTOR4, DIRECTOR6, Family, LARGE, Lab, Method, Options, VIP4, VIP6, endpoint};
use crate::load::{connect_all, rounds_until};

const BULK_BYTES: usize = 20 << 20;

/// A session to the director's own address, and one to the VIP on a port that is no service, while it balances.
#[test]
fn ssh_like_sessions_are_undisturbed() {
    let lab = Lab::forwarding("ssh", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let stop = AtomicBool::new(false);
    let listener = lab.inside("director", || {
        TcpListener::bind("[::]:22").expect("port 22 of the director")
    });
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            lab.inside("client", || {
                rounds_until(&mut connect_all(&Family::V4.service(80), 100), &stop)
            })
        });
        thread::sleep(Duration::from_millis(200));
        for address in [DIRECTOR4, DIRECTOR6, VIP4, VIP6] {
            let server = scope.spawn(|| echo_once(&listener));
            lab.inside("client", || session(&endpoint(address, 22)));
            server
                .join()
                .expect("the echo server ends with its session");
        }
        stop.store(true, Ordering::Relaxed);
        let rounds = load
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(
            rounds > 3,
            "the load ran beside the sessions: {rounds} rounds"
        );
    });
}

fn echo_once(listener: &TcpListener) {
    let (stream, _) = listener.accept().expect("a session");
    std::io::copy(&mut &stream, &mut &stream).expect("an echo");
}

/// Keystrokes, each echoed at once, then a bulk transfer.
fn session(to: &str) {
    let mut stream = TcpStream::connect(to).unwrap_or_else(|e| panic!("{to}: {e}"));
    stream.set_nodelay(true).expect("a socket option");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a socket option");
    let mut key = [0];
    for typed in 0..200_u8 {
        let begin = Instant::now();
        stream.write_all(&[typed]).expect("a keystroke");
        stream
            .read_exact(&mut key)
            .unwrap_or_else(|e| panic!("{to}: keystroke {typed}: {e}"));
        assert_eq!(key[0], typed);
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "{to}: keystroke {typed} took {:?}",
            begin.elapsed()
        );
    }
    let sent = &std::fs::read(&LARGE.path).expect("the large file")[..BULK_BYTES];
    let mut echoed = vec![0; sent.len()];
    thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("a second handle");
        scope.spawn(move || writer.write_all(sent).expect("bulk goes out"));
        stream
            .read_exact(&mut echoed)
            .unwrap_or_else(|e| panic!("{to}: bulk: {e}"));
    });
    assert!(echoed == sent, "{to}: the bulk came back changed");
}

/// The host answers pings and refuses connections to closed ports, by the VIP and by its own address.
#[test]
fn host_answers_as_before() {
    let lab = Lab::forwarding("answers", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.add_service(Family::V6, 80, "rr", Method::Nat, 80);
    for address in [DIRECTOR4, DIRECTOR6, VIP4, VIP6] {
        lab.shell("client", &format!("ping -c 3 -i 0.05 -W 1 -q {address}"));
        lab.shell(
            "client",
            &format!("ping -c 3 -i 0.05 -W 1 -q -s 4000 {address}"),
        );
        let refused = lab.inside("client", || {
            let begin = Instant::now();
            let error =
                TcpStream::connect(endpoint(address, 81)).expect_err("nobody listens on port 81");
            (error.kind(), begin.elapsed())
        });
        assert_eq!(refused.0, ErrorKind::ConnectionRefused, "{address}:81");
        assert!(
            refused.1 < Duration::from_secs(1),
            "{address}:81 was refused after {:?}",
            refused.1
        );
    }
    // The director still routes for others: from the client to a server's own address.
    lab.shell(
        "client",
        "ip route add 10.2.0.12/32 via 10.1.0.253; curl -sSf -m 5 http://10.2.0.12/",
    );
}

/// A service without servers refuses (ICMP port unreachable), one that is gone is the host's again.
#[test]
fn no_server_refuses_at_once() {
    let lab = Lab::forwarding("no-server", Options::default(), Method::Nat);
    let service = Family::V4.service(80);
    let connect = || {
        lab.inside("client", || {
            let begin = Instant::now();
            let error = TcpStream::connect(&service).expect_err("no server is there");
            assert!(
                begin.elapsed() < Duration::from_secs(1),
                "refused after {:?}",
                begin.elapsed()
            );
            error.kind()
        })
    };
    lab.ipvsadm(&format!("-A -t {service} -s rr"));
    assert_eq!(
        connect(),
        ErrorKind::ConnectionRefused,
        "a service without servers"
    );
    lab.ipvsadm(&format!("-D -t {service}"));
    assert_eq!(connect(), ErrorKind::ConnectionRefused, "no service");
}
