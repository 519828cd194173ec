//! The client against a real HTTP server over a Unix socket, in this process.

use std::convert::Infallible;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;

use hyper::body::{Body, Frame};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;

use super::*;
use crate::adm::{Session, SystemNames};
use crate::testing::MemoryDirector;

/// A body in the given pieces.
struct Pieces(std::vec::IntoIter<Vec<u8>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.next();
        Poll::Ready(next.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }
}

/// A director in memory behind the API.
struct Server {
    path: PathBuf,
    director: Arc<Mutex<MemoryDirector>>,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    fn start(director: MemoryDirector) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvx-cli-test-{}-{number}.sock", std::process::id());
        let server = Self {
            path: std::env::temp_dir().join(name),
            director: Arc::new(Mutex::new(director)),
            accepted: Arc::default(),
        };
        let listener = std::os::unix::net::UnixListener::bind(&server.path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (director, accepted) = (server.director.clone(), server.accepted.clone());
        thread::spawn(move || {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(serve(listener, director, accepted));
        });
        server
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(
    listener: std::os::unix::net::UnixListener,
    director: Arc<Mutex<MemoryDirector>>,
    accepted: Arc<AtomicUsize>,
) {
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        accepted.fetch_add(1, Ordering::Relaxed);
        let director = director.clone();
        let service = service_fn(move |request| answer(request, director.clone()));
        let connection = server::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn answer(
    request: Request<Incoming>,
    director: Arc<Mutex<MemoryDirector>>,
) -> Result<Response<Pieces>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut director = director.lock().unwrap();
    let json = |value: serde_json::Value| vec![value.to_string().into_bytes()];
    let (status, pieces) = match (method, path.as_str()) {
        (Method::GET, "/v1/table") => (200, json(serde_json::to_value(&director.table).unwrap())),
        (Method::POST, "/v1/commands") => {
            let batch: Batch = serde_json::from_slice(&body).unwrap();
            let refusals = director.execute(&batch.commands).unwrap();
            (
                200,
                json(serde_json::to_value(Outcome { refusals }).unwrap()),
            )
        }
        (Method::GET, "/v1/connections") => {
            let rows = director.connections.iter();
            let lines: Vec<u8> = rows
                .flat_map(|row| (serde_json::to_string(row).unwrap() + "\n").into_bytes())
                .collect();
            (200, lines.chunks(1000).map(<[u8]>::to_vec).collect())
        }
        (Method::GET, "/v1/counters") => (200, json(serde_json::json!({"drop_no_server": 7}))),
        (Method::GET, "/v1/tunables") => (
            500,
            json(serde_json::json!({"error": "the table is on fire"})),
        ),
        (Method::GET, "/v1/fwmarks") => (403, Vec::new()),
        (Method::POST, "/v1/check") => (422, json(serde_json::json!({"error": "unknown"}))),
        _ => (404, Vec::new()),
    };
    let mut response = Response::builder().status(status);
    if path != "/v9/none" {
        response = response.header(header::SERVER, "lvx/0.0.7");
    }
    Ok(response.body(Pieces(pieces.into_iter())).unwrap())
}

fn row(number: u32) -> ConnectionRow {
    let address = |bits: u32| std::net::Ipv4Addr::from_bits(bits).into();
    ConnectionRow {
        protocol: 6,
        expires_s: number % 900,
        state: "ESTABLISHED".to_owned(),
        client: address(0x0a09_0000 + number),
        client_port: 1000,
        virtual_address: address(0x0a01_0001),
        virtual_port: 80,
        server: address(0x0a02_000b),
        server_port: 80,
    }
}

fn run(client: &mut Client, line: &str, mut input: &[u8]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let status = session(client, &mut input, &mut out, &mut err).run(&words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status, text(out), text(err))
}

fn session<'a>(
    client: &'a mut Client,
    input: &'a mut dyn io::Read,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
) -> Session<'a> {
    Session {
        program: "ipvsadm",
        director: client,
        names: Box::leak(Box::new(SystemNames::default())),
        input: Some(input),
        out,
        err,
    }
}

#[test]
fn a_session_over_one_connection() {
    let server = Server::start(MemoryDirector::default());
    let mut client = server.client();
    let lines = b"-A -t 10.1.0.1:80 -s rr\n-a -t 10.1.0.1:80 -r 10.2.0.11 -m\n\
                  -a -t 10.1.0.9:80 -r 10.2.0.11 -m\n-Sn\n";
    let (status, out, err) = run(&mut client, "-R", lines);
    let saved = "-A -t 10.1.0.1:80 -s rr\n-a -t 10.1.0.1:80 -r 10.2.0.11:80 -m -w 1\n";
    assert_eq!((status, out.as_str()), (0, saved));
    assert_eq!(err, "Service not defined\n");
    let ended = run(&mut client, "-A -t 10.1.0.1:80", b"");
    assert_eq!(
        ended,
        (255, String::new(), "Service already exists\n".to_owned())
    );
    assert_eq!(client.counters().unwrap()["drop_no_server"], 7);
    assert_eq!(server.accepted.load(Ordering::Relaxed), 1);
    assert_eq!(server.director.lock().unwrap().batches, [3, 1]);
}

#[test]
fn connections_are_streamed() {
    let director = MemoryDirector {
        connections: (0..5000).map(row).collect(),
        ..MemoryDirector::default()
    };
    let server = Server::start(director);
    let mut client = server.client();
    let (mut seen, mut broken_off) = (Vec::new(), 0);
    let mut keep = |row| {
        seen.push(row);
        ControlFlow::Continue(())
    };
    client.connections(&mut keep).unwrap();
    assert_eq!(seen, (0..5000).map(row).collect::<Vec<_>>());
    let mut stop = |_| {
        broken_off += 1;
        ControlFlow::Break(())
    };
    client.connections(&mut stop).unwrap();
    assert_eq!(broken_off, 1);
    assert_eq!(client.table().unwrap().size, 4096);
    let (status, out, _) = run(&mut client, "-Lnc", b"");
    assert_eq!((status, out.lines().count()), (0, 5002));
}

#[test]
fn a_reader_that_goes_away_ends_a_listing_quietly() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let director = MemoryDirector {
        connections: vec![row(1)],
        ..MemoryDirector::default()
    };
    let server = Server::start(director);
    for line in ["-Lnc", "-Ln"] {
        let (mut client, mut err) = (server.client(), Vec::new());
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let status = session(&mut client, &mut io::empty(), &mut Gone, &mut err).run(&words);
        assert_eq!((status, err.len()), (141, 0), "{line}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let server = Server::start(MemoryDirector::default());
    let mut client = server.client();
    assert!(matches!(
        client.fwmarks(),
        Err(DirectorError::PermissionDenied)
    ));
    let failed = client.tunables().unwrap_err().to_string();
    assert!(
        failed.ends_with("answered 500: the table is on fire"),
        "{failed}"
    );
    let unknown = client.json::<Values>(Method::GET, "/v9/none", Vec::new());
    let unknown = unknown.unwrap_err().to_string();
    assert!(
        unknown.contains("is lvx of another version, this is lvx ")
            && unknown.contains("and it does not know /v9/none; start the director anew"),
        "{unknown}"
    );
    let older = client.check(&[]).unwrap_err().to_string();
    assert!(
        older.contains("is lvx 0.0.7, this is lvx ")
            && older.contains("it does not understand the request; start"),
        "{older}"
    );
    let other = client.json::<u32>(Method::GET, "/v1/table", Vec::new());
    let other = other.unwrap_err().to_string();
    assert!(
        other.contains("lvx 0.0.7") && other.contains("its answer is another than expected"),
        "{other}"
    );
    // The connection outlives an answer that was no answer.
    assert_eq!(client.counters().unwrap().len(), 1);

    let (status, out, err) = run(&mut Client::new("/nonexistent/lvx.sock"), "-Ln", b"");
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        err.starts_with("lvx: no director answers on /nonexistent/lvx.sock: No such"),
        "{err}"
    );
    assert!(
        err.contains("start it with 'lvx director --port DEV'"),
        "{err}"
    );
}

#[test]
fn a_socket_that_may_not_be_opened() {
    let denied = DirectorError::from_connect(
        "/run/lvx/lvx.sock".into(),
        io::ErrorKind::PermissionDenied.into(),
    );
    assert_eq!(denied.to_string(), "Permission denied (you must be root)");
}

/// What a director does with a connection.
type Act = fn(std::os::unix::net::UnixStream);

/// A director that does as it is told for each connection, one after the other.
fn director_of(name: &str, acts: &[Act]) -> (PathBuf, thread::JoinHandle<()>) {
    let acts = acts.to_vec();
    let name = format!("lvx-cli-again-{}-{name}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let socket = path.clone();
    let served = thread::spawn(move || {
        for act in acts {
            act(listener.accept().unwrap().0);
        }
        let _ = std::fs::remove_file(socket);
    });
    (path, served)
}

/// Reads a request's head and answers it.
fn say(stream: &mut std::os::unix::net::UnixStream, status: &str, body: &str) {
    use std::io::Read;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).unwrap();
}

fn well(mut stream: std::os::unix::net::UnixStream) {
    say(&mut stream, "200 OK", r#"{"a": 1}"#);
}

fn later(mut stream: std::os::unix::net::UnixStream) {
    say(
        &mut stream,
        "503 Service Unavailable",
        r#"{"error": "later"}"#,
    );
}

fn not_a_word(mut stream: std::os::unix::net::UnixStream) {
    use std::io::Read;
    let _ = stream.read(&mut [0; 4096]);
}

#[test]
fn what_did_nothing_is_asked_again() {
    let rows: [(&str, &[Act]); 4] = [
        ("at once", &[well]),
        ("later", &[later, later, well]),
        ("hung-up", &[not_a_word, well]),
        ("gone", &[drop, well]),
    ];
    for (what, acts) in rows {
        let (path, served) = director_of(what, acts);
        let counters = Client::new(&path).counters();
        assert_eq!(counters.unwrap()["a"], 1, "{what}");
        served.join().unwrap();
    }
}

/// The director may have closed what rested, to make room for others.
#[test]
fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let (path, served) = director_of("rested", &[well, well]);
    let mut client = Client::new(&path);
    assert_eq!(client.counters().unwrap()["a"], 1);
    thread::sleep(Duration::from_millis(50));
    let outcome: Result<Values, _> = client.post("/v1/commands", &());
    assert_eq!(outcome.unwrap()["a"], 1, "a command that was never sent");
    served.join().unwrap();
}

/// Whether it was carried out, nobody knows: it must not be carried out twice.
#[test]
fn a_command_that_was_sent_is_not_sent_again() {
    let (path, served) = director_of("sent", &[not_a_word]);
    let outcome: Result<Values, _> = Client::new(&path).post("/v1/commands", &());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("hung up before it answered"), "{error}");
    served.join().unwrap();
}

/// As while one director takes over from another.
#[test]
fn a_director_that_is_about_to_come_is_waited_for() {
    let path = std::env::temp_dir().join(format!("lvx-cli-next-{}.sock", std::process::id()));
    let beside = path.with_extension("next");
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&beside).unwrap();
    let socket = path.clone();
    let served = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        std::fs::rename(beside, &socket).unwrap();
        well(listener.accept().unwrap().0);
        let _ = std::fs::remove_file(socket);
    });
    assert_eq!(Client::new(&path).counters().unwrap()["a"], 1);
    served.join().unwrap();
    let begun = std::time::Instant::now();
    assert!(Client::new(&path).counters().is_err(), "there is none");
    assert!(begun.elapsed() < Duration::from_secs(1), "and none to come");
}
