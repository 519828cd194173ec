//! A client against a served socket, and the document against the routes and the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use cli::api::{
    Commit, ConnectionRow, ExplainRequest, Explanation, FramesRow, Outcome, PlacesRow, Table,
    Timeouts, WorkerRow,
};
use sched::command::{Command, Refusal};
use serde_json::Value;

use super::*;
use dataplane::connection::table::Table as TableOf;
use dataplane::port::steering::SteeringRules;

use crate::director::control::Orders;
use crate::director::control::look::Moment;
use crate::director::control::state::State;
use crate::director::explain::World;
use crate::director::state_dir::document::SavedWaiting;

struct Rows(u32);

impl ConnectionSource for Rows {
    fn high_water(&self) -> u32 {
        self.0
    }
    fn row(&self, index: u32) -> Option<ConnectionRow> {
        let row = ConnectionRow {
            protocol: 6,
            expires_s: 900,
            state: "ESTABLISHED".into(),
            client: "10.0.0.1".parse().unwrap(),
            client_port: index as u16,
            virtual_address: "192.0.2.1".parse().unwrap(),
            virtual_port: 80,
            server: "10.0.1.1".parse().unwrap(),
            server_port: 80,
        };
        index.is_multiple_of(2).then_some(row)
    }
    fn explain(&self, world: &World, request: &ExplainRequest) -> Result<Explanation, String> {
        crate::director::explain::explain(world, &TableOf::new(1024, 1, 0), 1000, request)
    }
}

/// A directory that goes when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lvxc-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn socket(&self) -> PathBuf {
        self.0.join("run/lvx.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A commit that is to be confirmed within this time is never answered, s.
const NEVER_S: u32 = 77;

/// How many of them wait; one test makes them.
static NEVER_ANSWERED: AtomicUsize = AtomicUsize::new(0);

/// Control's stand-in: refuses every second command.
fn orders() -> Orders {
    let (orders, inbox) = Orders::channel();
    std::thread::spawn(move || {
        let mut never = Vec::new();
        for order in inbox.orders {
            match order {
                Order::Run(batch, reply) => {
                    let refusal = |n: usize| (n % 2 == 1).then_some(Refusal::NoSuchService);
                    let refusals = (0..batch.commands.len()).map(refusal).collect();
                    let _ = reply.send(Ok(Outcome { refusals }));
                }
                Order::Try(trial, reply) if trial.confirm_within_s == NEVER_S => {
                    never.push(reply);
                    NEVER_ANSWERED.store(never.len(), Relaxed);
                }
                Order::Try(trial, reply) => {
                    let refusals = vec![None; trial.commands.len()];
                    let _ = reply.send(Ok(Outcome { refusals }));
                }
                Order::Confirm(reply) | Order::TakeBack(reply) => {
                    let _ = reply.send(Ok(Commit::default()));
                }
                Order::Look(reply) => _ = reply.send(look()),
                Order::Counters(reply) => {
                    let _ = reply.send(BTreeMap::from([("drop_not_ip".into(), 3)]));
                }
                Order::Sample(reply) => _ = reply.send(moment()),
                Order::World(reply) => {
                    let _ = reply.send(World {
                        snapshot: Arc::default(),
                        steered: SteeringRules {
                            macs: vec![(2, [2, 0, 0, 0, 0, 1])],
                            ..SteeringRules::default()
                        }
                        .into(),
                        ports: vec!["eth0".into()],
                    });
                }
                Order::HandOver(_) | Order::Stop => return,
            }
        }
    });
    orders
}

/// What the listing says.
fn look() -> Look {
    let mut commands = Vec::new();
    for row in listing().services {
        let service = row.service;
        commands.push(Command::AddService {
            service,
            spec: row.spec,
        });
        commands.extend(row.servers.iter().map(|row| Command::AddServer {
            service,
            server: row.server,
            spec: row.spec,
        }));
    }
    let mut state = State::new(sched::table::Limits {
        services: 8,
        servers: 8,
    });
    let atomic = true;
    let (refusals, _) = state.run(&Batch { commands, atomic }, 0, &|_| Ok(()));
    assert!(refusals.iter().all(Option::is_none), "{refusals:?}");
    let saved = SavedWaiting {
        undo: vec![Command::Flush],
        until_ms: 0,
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
    Look {
        state,
        hops: Default::default(),
        statistics: Default::default(),
        counters: Vec::new(),
        size: 4096,
        require_local: false,
        waiting: Some((until, Arc::new(saved))),
    }
}

fn moment() -> Moment {
    Moment {
        at_ns: 5,
        up_ns: 4,
        look: look(),
        counters: BTreeMap::from([("drop_not_ip".into(), 3)]),
        workers: vec![WorkerRow {
            worker: 0,
            core: 2,
            busy_ns: 4,
            received: 3,
            sent: 2,
            to_host: 1,
            dropped: 0,
            frames: FramesRow {
                total: 8,
                free: 5,
                in_rings: 2,
                waiting: 1,
            },
        }],
        places: PlacesRow {
            capacity: 4096,
            taken: 3,
            reached: 32,
        },
    }
}

fn listing() -> Table {
    let services = r#"[{
        "service": {"address": {"protocol": "tcp", "address": "192.0.2.1", "port": 80}},
        "spec": {"scheduler": "wlc", "flags": 0, "persistence": {"timeout_s": 300},
                 "netmask": 4294967295, "one_packet": false, "engine": null},
        "stats": {"connections": 1, "in_packets": 2, "out_packets": 3, "in_bytes": 4, "out_bytes": 5},
        "rates": {"connections": 1, "in_packets": 2, "out_packets": 3, "in_bytes": 4, "out_bytes": 5},
        "servers": [{
            "server": {"address": "10.0.1.1", "port": 80},
            "spec": {"forwarding": {"tunnel": {"gue": {"port": 6080, "checksum": "none"}}},
                     "weight": 1, "upper_threshold": 0, "lower_threshold": 0},
            "local": false, "active": 1, "inactive": 2, "persistent": 0,
            "stats": {"connections": 1, "in_packets": 2, "out_packets": 3, "in_bytes": 4, "out_bytes": 5},
            "rates": {"connections": 1, "in_packets": 2, "out_packets": 3, "in_bytes": 4, "out_bytes": 5}
        }]
    }]"#;
    let daemons = r#"[{"role": "master", "interface": "eth0", "sync_id": 1,
        "max_length_bytes": 1460, "group": "224.0.0.81", "port": 8848, "ttl": 1}]"#;
    Table {
        version: "0".into(),
        size: 4096,
        timeouts: Timeouts {
            tcp_s: 900,
            tcp_fin_s: 120,
            udp_s: 300,
        },
        services: serde_json::from_str(services).unwrap(),
        daemons: serde_json::from_str(daemons).unwrap(),
    }
}

fn serve(directory: &Directory, rows: u32) -> Api {
    let socket = Socket::bind(&directory.socket()).unwrap();
    Api::serve(socket, orders(), Arc::new(Rows(rows))).unwrap()
}

/// Status, and body with its chunks joined.
fn request(directory: &Directory, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(directory.socket()).unwrap();
    let head = format!(
        "{} {path} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        method.to_uppercase(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is too long is refused before it is read.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn the_socket_is_private_and_goes_with_its_director() {
    let directory = Directory::new();
    let api = serve(&directory, 0);
    let mode = fs::metadata(directory.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(
        Socket::bind(&directory.socket()),
        Err(ApiError::Taken(_))
    ));
    drop(api);
    assert!(!directory.socket().exists());
    // A killed director leaves its socket behind: it is replaced.
    drop(StdListener::bind(directory.socket()).unwrap());
    assert!(directory.socket().exists());
    drop(Socket::bind(&directory.socket()).unwrap());
    assert!(!directory.socket().exists());
    fs::write(directory.socket(), "a file").unwrap();
    assert!(matches!(
        Socket::bind(&directory.socket()),
        Err(ApiError::NotASocket(_))
    ));
}

/// A umask would be the whole process's: a folder of another thread made meanwhile could not
/// be walked.
#[test]
fn a_socket_being_made_changes_nobodys_files() {
    let directory = Directory::new();
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Relaxed) {
                drop(Socket::bind(&directory.socket()).unwrap());
            }
        });
        let folder = directory.0.join("folder");
        for _ in 0..5000 {
            fs::create_dir(&folder).unwrap();
            let mode = fs::metadata(&folder).unwrap().permissions().mode();
            fs::remove_dir(&folder).unwrap();
            if mode & 0o700 != 0o700 {
                ends.store(true, Relaxed);
                panic!("made with mode {mode:o}");
            }
        }
        ends.store(true, Relaxed);
    });
}

#[test]
fn errors_are_json() {
    let directory = Directory::new();
    let _api = serve(&directory, 0);
    let unknown = r#"{"commands": ["fly"]}"#;
    let endless = r#"{"commands": [], "confirm_within_s": 0}"#;
    let long = " ".repeat(BODY_BYTES_MAX + 1);
    let rows = [
        ("get", "/nowhere", "", 404),
        ("post", "/v1/table", "{}", 405),
        ("get", "/v1/table?services=some", "", 400),
        ("get", "/v1/table?service=tcp:192.0.2.1", "", 400),
        (
            "get",
            "/v1/table?service=tcp:192.0.2.1:80&services=none",
            "",
            400,
        ),
        ("post", "/v1/commands", "{", 400),
        ("post", "/v1/commands", unknown, 422),
        ("post", "/v1/commands", long.as_str(), 413),
        ("post", "/v1/check", "{", 400),
        ("post", "/v1/commit", endless, 422),
    ];
    for (method, path, body, status) in rows {
        let (code, text) = request(&directory, method, path, body);
        assert_eq!(code, status, "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["error"].is_string(), "{path}: {text}");
    }
}

#[test]
fn the_table_is_given_in_parts() {
    let directory = Directory::new();
    let _api = serve(&directory, 0);
    let rows = [
        ("", 1),
        ("?", 1),
        ("?services=none", 0),
        ("?service=tcp:192.0.2.1:80", 1),
        ("?service=tcp%3A192.0.2.1%3A80", 1),
        ("?service=udp:192.0.2.1:80", 0),
        ("?service=tcp:[2001:db8::1]:80", 0),
    ];
    for (query, services) in rows {
        let (status, text) = request(&directory, "get", &format!("/v1/table{query}"), "");
        assert_eq!(status, 200, "{query}: {text}");
        let table: Table = serde_json::from_str(&text).unwrap();
        assert_eq!(table.services.len(), services, "{query}");
        assert_eq!(table.timeouts, listing().timeouts, "{query}");
    }
}

/// What a client reads until it is hung up on; it may be nothing.
fn read_all(mut stream: UnixStream) -> String {
    let patience = Some(std::time::Duration::from_secs(5));
    stream.set_read_timeout(patience).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(answer).unwrap()
}

fn counter(directory: &Directory, name: &str) -> u64 {
    let (status, text) = request(directory, "get", "/v1/counters", "");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// Connects and asks; the connection stays.
fn ask_on(directory: &Directory, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(directory.socket()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

const GET: &str = "GET /v1/counters HTTP/1.1\r\nhost: lvx\r\n\r\n";

/// A request whose answer never comes.
fn endless() -> String {
    let body = format!(r#"{{"commands": [], "confirm_within_s": {NEVER_S}}}"#);
    format!(
        "POST /v1/commit HTTP/1.1\r\nhost: lvx\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn so_many_clients_and_no_more() {
    let directory = Directory::new();
    let _api = serve(&directory, 0);
    let endless = endless();
    let mut clients: Vec<UnixStream> = (0..rights::CLIENTS_MAX)
        .map(|_| ask_on(&directory, &endless))
        .collect();
    let begun = std::time::Instant::now();
    while NEVER_ANSWERED.load(Relaxed) < rights::CLIENTS_MAX {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // Long enough for those that rest to give way.
    std::thread::sleep(2 * seats::REST_MIN);
    for _ in 0..50 {
        let answer = read_all(ask_on(&directory, GET));
        // Those that come too fast are hung up on without a word.
        let is_told = answer.starts_with("HTTP/1.1 503 ") && answer.contains("128 clients");
        assert!(is_told || answer.is_empty(), "{answer}");
    }
    assert!(read_all(ask_on(&directory, GET)).contains("try again later"));
    clients.truncate(rights::CLIENTS_MAX - 2);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(counter(&directory, "api_too_many_clients"), 51);
    assert_eq!(counter(&directory, "api_gave_way"), 0, "none rested");
}

#[test]
fn who_rests_gives_way_where_places_are_short() {
    let directory = Directory::new();
    let _api = serve(&directory, 0);
    let mut clients: Vec<UnixStream> = (0..rights::CLIENTS_MAX)
        .map(|_| {
            let mut stream = ask_on(&directory, GET);
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream
        })
        .collect();
    let clock = std::time::Instant::now();
    while clock.elapsed() < 2 * door::HEAD_WITHIN + seats::REST_MIN {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(counter(&directory, "api_gave_way") >= 1, "it had to");
    assert_eq!(
        counter(&directory, "api_too_slow"),
        0,
        "to rest is not slow"
    );
    assert_eq!(counter(&directory, "api_too_many_clients"), 0);
    let first = clients.remove(0);
    assert_eq!(read_all(first), "", "the one that rested longest has gone");
    let mut last = clients.pop().unwrap();
    last.write_all(GET.as_bytes()).unwrap();
    assert!(last.read(&mut [0; 4096]).unwrap() > 0, "others stay");
}

#[test]
fn who_does_not_read_its_answer_is_hung_up_on() {
    let directory = Directory::new();
    let _api = serve(&directory, 400_000);
    let unread = "GET /v1/connections HTTP/1.1\r\nhost: lvx\r\n\r\n";
    let stream = ask_on(&directory, unread);
    let begun = std::time::Instant::now();
    while counter(&directory, "api_unread") == 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let answer = read_all(stream);
    assert!(!answer.ends_with("0\r\n\r\n"), "it is cut off");
}

#[test]
fn so_many_commands_and_no_more() {
    let directory = Directory::new();
    let _api = serve(&directory, 0);
    let most = Access::Root.limits().commands;
    for (count, expected) in [(most, 200), (most + 1, 413)] {
        let list = vec!["\"flush\""; count].join(",");
        let body = format!(r#"{{"commands": [{list}]}}"#);
        let (status, text) = request(&directory, "post", "/v1/check", &body);
        assert_eq!(status, expected, "{count}");
        let is_told = text.contains("at most 262144 commands, not 262145");
        assert_eq!(is_told, expected == 413);
    }
    assert_eq!(counter(&directory, "api_too_many_commands"), 1);
}

#[test]
fn slow_clients_are_hung_up_on() {
    let directory = Directory::new();
    let _api = serve(&directory, 0);
    let post = "POST /v1/commands HTTP/1.1\r\nhost: lvx\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n";
    let rows = [
        ("says nothing", "", ""),
        ("half a head", "GET /v1/table HTTP/1.1\r\nho", ""),
        ("half a body", post, "HTTP/1.1 408 "),
        (
            "a body that is not JSON",
            &format!("{post}{}", "x".repeat(100)),
            "HTTP/1.1 400 ",
        ),
    ];
    for (what, said, expected) in rows {
        let mut stream = UnixStream::connect(directory.socket()).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        // A byte now and then does not count as speed.
        let mut drip = stream.try_clone().unwrap();
        let drips = if said.is_empty() { 0 } else { 200 };
        let dripping = std::thread::spawn(move || {
            for _ in 0..drips {
                std::thread::sleep(std::time::Duration::from_millis(20));
                if drip.write_all(b"x").is_err() {
                    return;
                }
            }
        });
        let begin = std::time::Instant::now();
        let answer = read_all(stream);
        assert!(answer.starts_with(expected), "{what}: {answer}");
        assert_eq!(answer.is_empty(), expected.is_empty(), "{what}: {answer}");
        if !answer.is_empty() {
            assert!(answer.contains(r#"{"error":"#), "{what}: {answer}");
        }
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(3),
            "{what}"
        );
        dripping.join().unwrap();
    }
    assert!(counter(&directory, "api_too_slow") >= 3);
    let (status, _) = request(&directory, "get", "/v1/table", "");
    assert_eq!(status, 200);
}

#[test]
fn connections_are_streamed_line_by_line() {
    let directory = Directory::new();
    let _api = serve(&directory, 20_000);
    let (status, text) = request(&directory, "get", "/v1/connections", "");
    assert_eq!(status, 200);
    let rows: Vec<ConnectionRow> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 10_000);
    assert_eq!(rows[9_999].client_port, 19_998);
}

#[test]
fn the_document_has_every_route_and_real_answers_fit_it() {
    let directory = Directory::new();
    let _api = serve(&directory, 2);
    let (_, text) = request(&directory, "get", "/v1/openapi.json", "");
    let document: Value = serde_json::from_str(&text).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (path.clone(), method.clone()))
        })
        .collect();
    let served = routes().into_iter().flat_map(|(path, methods, _)| {
        let methods = methods.iter();
        methods.map(move |method| (path.to_owned(), (*method).to_owned()))
    });
    assert_eq!(described, served.collect());

    let commands = commands_of_all_kinds();
    let batch = serde_json::json!({ "commands": commands });
    fits(
        &document,
        &document["components"]["schemas"]["Batch"],
        &batch,
    )
    .unwrap();
    let flow = r#"{"flow": {"protocol": "tcp", "client": "10.9.0.1:1001",
        "destination": "10.1.0.1:80", "flags": "S", "from_server": false}}"#
        .to_owned();
    let asked: Value = serde_json::from_str(&flow).unwrap();
    let request_schema = &document["components"]["schemas"]["ExplainRequest"];
    fits(&document, request_schema, &asked).unwrap();
    for (path, method) in described {
        let body = match (method.as_str(), path.as_str()) {
            ("post", "/v1/explain") => flow.clone(),
            ("post", "/v1/commit") => {
                serde_json::json!({ "commands": commands, "confirm_within_s": 9 }).to_string()
            }
            ("post", _) => batch.to_string(),
            _ => String::new(),
        };
        let (status, text) = request(&directory, &method, &path, &body);
        assert_eq!(status, 200, "{path}: {text}");
        let answer: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let content = &document["paths"][&path][&method]["responses"]["200"]["content"];
        let schema = &content.as_object().unwrap().values().next().unwrap()["schema"];
        fits(&document, schema, &answer).unwrap_or_else(|why| panic!("{path}: {why}"));
    }
    let wrong = serde_json::json!({ "refusals": "none" });
    let outcome = &document["components"]["schemas"]["Outcome"];
    assert!(
        fits(&document, outcome, &wrong).is_err(),
        "the test can fail"
    );
}

fn commands_of_all_kinds() -> Vec<Command> {
    let service = listing().services.remove(0);
    let server = &service.servers[0];
    let key = service.service;
    let rule: cli::api::FwmarkRule = serde_json::from_str(
        r#"{"mark": 1, "address": "fd00::1", "protocol": "udp", "ports": [53]}"#,
    )
    .unwrap();
    let spec = service.spec.clone();
    vec![
        Command::AddService {
            service: key,
            spec: spec.clone(),
        },
        Command::EditService { service: key, spec },
        Command::DeleteService { service: key },
        Command::Flush,
        Command::AddServer {
            service: key,
            server: server.server,
            spec: server.spec,
        },
        Command::EditServer {
            service: key,
            server: server.server,
            spec: server.spec,
        },
        Command::DeleteServer {
            service: key,
            server: server.server,
        },
        Command::Zero { service: None },
        Command::Zero { service: Some(key) },
        Command::SetTimeouts {
            tcp_s: 1,
            tcp_fin_s: 2,
            udp_s: 3,
        },
        Command::SetTunable {
            name: "drop_packet".into(),
            value: "1".into(),
        },
        Command::AddFwmark(rule.clone()),
        Command::DeleteFwmark(rule),
    ]
}

/// Whether a value fits a schema: the keywords that the document uses, no others.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{value} {why} {schema}"));
    for (keyword, content) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$ref" => {
                let pointer = content.as_str().unwrap().trim_start_matches('#');
                fits(document, document.pointer(pointer).unwrap(), value)?;
            }
            "oneOf" => {
                let all = content.as_array().unwrap();
                let fitting = all.iter().filter(|s| fits(document, s, value).is_ok());
                if fitting.count() != 1 {
                    return wrong("does not fit exactly one of");
                }
            }
            "enum" if !content.as_array().unwrap().contains(value) => return wrong("is not in"),
            "type" => {
                let good = match content.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                if !good {
                    return wrong("is not of the type of");
                }
            }
            "minimum"
                if value
                    .as_i64()
                    .is_some_and(|n| n < content.as_i64().unwrap()) =>
            {
                return wrong("is below");
            }
            "required" => {
                let names = content.as_array().unwrap().iter();
                if names
                    .clone()
                    .any(|name| value.get(name.as_str().unwrap()).is_none())
                {
                    return wrong("lacks a property of");
                }
            }
            "properties" => {
                for (name, schema) in content.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        fits(document, schema, value)?;
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let others = value.as_object().into_iter().flatten();
                for (_, other) in others.filter(|(n, _)| known.is_none_or(|k| !k.contains_key(*n)))
                {
                    match content {
                        Value::Bool(false) => return wrong("has more properties than"),
                        schema => fits(document, schema, other)?,
                    }
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(document, content, item)?;
                }
            }
            "enum" | "minimum" | "description" => {}
            other => panic!("keyword {other}"),
        }
    }
    Ok(())
}
