//! The document: what is written is read, hostile bytes are refused and never panic, and a
//! state folder is one director's.

use std::path::PathBuf;

use cli::api::Batch;
use proptest::prelude::*;
use sched::command::{Command, FwmarkRule};
use sched::server::{Forwarding, ServerKey, ServerSpec};
use sched::service::{Persistence, Protocol, ServiceKey, ServiceSpec};
use sched::table::{Limits, ServiceTable};

use super::document::{Header, Record, Refused, SavedWaiting, read, write};
use super::journal::{Base, Journal, Now};
use super::*;
use crate::director::control::state::State;

const LIMITS: Limits = Limits {
    services: 8,
    servers: 32,
};

/// A folder of the test's own, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let unique = format!("lvx-test-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn service(number: u8) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: [10, 1, 0, number % 3].into(),
        port: 80,
    }
}

fn server(number: u8) -> ServerKey {
    ServerKey {
        address: [10, 2, 0, number % 4 + 1].into(),
        port: 80,
    }
}

/// A command out of three numbers: some of them are refused, as in life.
fn command((what, which, value): (u8, u8, u8)) -> Command {
    let (key, real) = (service(which), server(value));
    let spec = ServiceSpec {
        scheduler: ["rr", "wlc", "mh"][usize::from(value) % 3].into(),
        flags: Default::default(),
        persistence: (value % 5 == 0).then_some(Persistence { timeout_s: 60 }),
        netmask: u32::MAX,
        one_packet: false,
        engine: None,
    };
    let real_spec = ServerSpec {
        forwarding: [Forwarding::Masquerade, Forwarding::Route][usize::from(value) % 2],
        weight: u32::from(value),
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let rule = || FwmarkRule {
        mark: (u32::from(value) + 1).try_into().unwrap(),
        address: [10, 1, 0, 1].into(),
        protocol: Protocol::Udp,
        ports: vec![u16::from(which)],
    };
    match what % 10 {
        0 => Command::AddService { service: key, spec },
        1 => Command::EditService { service: key, spec },
        2 => Command::DeleteService { service: key },
        3 | 4 => Command::AddServer {
            service: key,
            server: real,
            spec: real_spec,
        },
        5 => Command::EditServer {
            service: key,
            server: real,
            spec: real_spec,
        },
        6 => Command::DeleteServer {
            service: key,
            server: real,
        },
        7 => Command::AddFwmark(rule()),
        8 => Command::SetTimeouts {
            tcp_s: u32::from(value),
            tcp_fin_s: 0,
            udp_s: u32::from(which),
        },
        _ => Command::SetTunable {
            name: "sloppy_tcp".into(),
            value: (value % 2).to_string(),
        },
    }
}

fn run(state: &mut State, command: Command, now_s: u64) {
    let batch = Batch {
        commands: vec![command],
        atomic: false,
    };
    state.run(&batch, now_s, &|_| Ok(()));
}

/// All of a state that is to be kept.
fn essence(state: &State) -> String {
    let removals = state.table.removals();
    let services: Vec<_> = state
        .table
        .services()
        .map(|service| ServiceTable::saved_service(service))
        .collect();
    let servers: Vec<_> = state
        .table
        .servers()
        .map(|(server, _)| server.saved(removals.get(&server.id).copied()))
        .collect();
    let mut keys: Vec<_> = state.keys.iter().collect();
    keys.retain(|(id, _)| {
        let named = state
            .table
            .servers()
            .any(|(server, _)| server.service == **id);
        named || state.table.service_by_id(**id).is_some()
    });
    keys.sort_unstable();
    format!(
        "{services:#?} {servers:#?} {keys:?} {:?} {:?} {:?}",
        state.marks.rules(),
        state.settings.values(),
        state.settings.tunables()
    )
}

fn plain(state: &State) -> Now<'_> {
    Now {
        state,
        bases: &[],
        waiting: None,
    }
}

fn header() -> Header {
    Header {
        lvx: "0".into(),
        boot: "b".into(),
        table: u64::MAX,
        ..Header::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever the process is killed, the document says what was last saved.
    #[test]
    fn what_is_saved_is_read(steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..60), cut: usize) {
        let folder = Folder::new("journal");
        let path = folder.0.join("state");
        let mut state = State::new(LIMITS);
        let mut journal = Journal::begin(&path, header(), plain(&state)).unwrap();
        let mut before = essence(&state);
        for (place, step) in steps.into_iter().enumerate() {
            let now_s = place as u64 * 20;
            run(&mut state, command(step), now_s);
            if place % 7 == 6 {
                state.reap(now_s);
            }
            let old = fs::read(&path).unwrap();
            journal.save(plain(&state)).unwrap();
            let bytes = fs::read(&path).unwrap();
            let (found, document) = read(&bytes).unwrap();
            prop_assert_eq!(found, header());
            let restored = restore(&document, LIMITS).unwrap();
            prop_assert_eq!(essence(&restored), essence(&state));
            // Cut short within the last group: the state before, all of it and no more.
            if bytes.len() > old.len() {
                let torn = old.len() + cut % (bytes.len() - old.len());
                let (_, document) = read(&bytes[..torn]).unwrap();
                prop_assert_eq!(essence(&restore(&document, LIMITS).unwrap()), before);
            }
            before = essence(&state);
        }
    }

    /// Bytes of any kind, and documents with any bytes changed, have an answer.
    #[test]
    fn hostile_bytes_are_refused(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..20),
        changes in prop::collection::vec(any::<(usize, u8)>(), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = read(&noise);
        let mut after_magic = b"lvx-state 2 ".to_vec();
        after_magic.extend(&noise);
        prop_assert!(read(&after_magic).is_err());
        let mut state = State::new(LIMITS);
        steps.into_iter().for_each(|step| run(&mut state, command(step), 0));
        let folder = Folder::new("hostile");
        let path = folder.0.join("state");
        let now = Now { state: &state, bases: &[], waiting: None };
        Journal::begin(&path, header(), now).unwrap();
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        for (place, value) in changes {
            let place = place % bytes.len();
            bytes[place] ^= value;
        }
        match read(&bytes) {
            // Only a last group that lost its end may be left out unseen.
            Ok((_, document)) => _ = restore(&document, LIMITS),
            Err(_) => prop_assert!(bytes != good),
        }
    }

    /// Lines with the right checksum but any contents are refused or taken, never a panic.
    #[test]
    fn hostile_records_are_refused(json in "\\PC{0,80}", numbers in prop::collection::vec(any::<u32>(), 4)) {
        let line = |json: &str| {
            let line = format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
            let sum = crc32c::crc32c(line.as_bytes());
            format!("{line}end 1 {sum:08x}\n")
        };
        let good = write(&header(), &[]);
        let _ = read(format!("{good}{}", line(&json)).as_bytes());
        let tricky = format!(
            "{{\"server\":{{\"server\":{{\"id\":{},\"service\":{},\"key\":{{\"address\":\"10.0.0.1\",\"port\":1}},\
             \"spec\":{{\"forwarding\":\"route\",\"weight\":{}}},\"last_weight\":{}}},\"forwarded\":[]}}}}",
            numbers[0], numbers[1], numbers[2], numbers[3]
        );
        let (_, document) = read(format!("{good}{}", line(&tricky)).as_bytes()).unwrap();
        // A server in no list.
        prop_assert!(restore(&document, LIMITS).is_err());
        let loads = Loads::of(&document, LIMITS);
        prop_assert_eq!(loads.server(sched::server::ServerId(numbers[1])), [0; 3]);
    }
}

#[test]
fn bases_marks_and_a_waiting_commit_are_read_too() {
    let folder = Folder::new("waiting");
    let path = folder.0.join("state");
    let mut state = State::new(LIMITS);
    run(&mut state, command((0, 1, 1)), 0);
    let waiting = SavedWaiting {
        undo: vec![Command::Flush],
        until_ms: 77,
    };
    let base = Base::Service(sched::service::ServiceId(0), [1, 2, 3, 4, u64::MAX]);
    let empty = State::new(LIMITS);
    let now = Now {
        state: &empty,
        bases: &[],
        waiting: None,
    };
    let mut journal = Journal::begin(&path, header(), now).unwrap();
    journal
        .save(Now {
            state: &state,
            bases: &[base],
            waiting: Some(&waiting),
        })
        .unwrap();
    let (_, document) = read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(document.waiting, Some(waiting));
    let bases: Vec<_> = document.service_bases.values().collect();
    assert_eq!(bases, [&[1, 2, 3, 4, u64::MAX]]);
    journal
        .save(Now {
            state: &state,
            bases: &[],
            waiting: None,
        })
        .unwrap();
    let (_, document) = read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(document.waiting, None);
}

/// A document that grew long is written anew, and says the same.
#[test]
fn a_long_document_is_written_anew() {
    let folder = Folder::new("long");
    let path = folder.0.join("state");
    let mut state = State::new(LIMITS);
    run(&mut state, command((0, 1, 1)), 0);
    let mut journal = Journal::begin(&path, header(), plain(&state)).unwrap();
    let (mut longest, mut shrunk) = (0, false);
    for edit in 0..6_000_u32 {
        run(&mut state, command((1, 1, (edit % 250) as u8 + 1)), 0);
        journal.save(plain(&state)).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        shrunk = shrunk || length < longest;
        longest = longest.max(length);
    }
    assert!(shrunk, "{longest} bytes and never written anew");
    let (_, document) = read(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        essence(&restore(&document, LIMITS).unwrap()),
        essence(&state)
    );
}

#[test]
fn formats_and_damage_have_their_words() {
    let good = write(&header(), &[Record::Waiting(None)]);
    let rows: [(&str, String, &str); 9] = [
        ("empty", String::new(), "not a state"),
        ("another file", "#!/bin/sh\n".into(), "not a state"),
        ("a later format", good.replacen(" 2 ", " 3 ", 1), "format 3"),
        ("an earlier one", good.replacen(" 2 ", " 1 ", 1), "format 1"),
        ("no header", "lvx-state 2 ".into(), "line 1"),
        (
            "a changed line",
            good.replacen("waiting\":null", "waiting\":true", 1),
            "line 2",
        ),
        (
            "cut at the end of a line",
            good[..good.find("end ").unwrap()].into(),
            "line 3 is damaged: it is cut short",
        ),
        (
            "a line less than its end says",
            good.lines()
                .take(1)
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                + &good[good.find("end ").unwrap()..],
            "line 2",
        ),
        (
            "a line without a sum, and lines after it",
            format!("{good}x\n{}", &good[good.find('\n').unwrap() + 1..]),
            "line 4",
        ),
    ];
    for (description, text, expected) in rows {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{description}: {error}");
    }
    assert!(read(good.as_bytes()).is_ok());
    let torn = format!("{good}x\n");
    assert!(
        read(torn.as_bytes()).is_ok(),
        "as a killed writer leaves it"
    );
}

/// A batch of many lines, cut at each of its bytes: all that was there before stands, and of the
/// batch nothing, until its very last byte.
#[test]
fn a_torn_batch_is_absent_and_all_before_it_stands() {
    let limits = Limits {
        services: 8,
        servers: 512,
    };
    let folder = Folder::new("torn");
    let path = folder.0.join("state");
    let mut state = State::new(limits);
    run(&mut state, command((0, 1, 1)), 0);
    let mut journal = Journal::begin(&path, header(), plain(&state)).unwrap();
    run(&mut state, command((3, 1, 2)), 0);
    journal.save(plain(&state)).unwrap();
    let (old, before) = (fs::read(&path).unwrap(), essence(&state));
    for number in 0..300_u16 {
        let [high, low] = number.to_be_bytes();
        let mut add = command((3, 1, 3));
        if let Command::AddServer { server, .. } = &mut add {
            server.address = [10, 3, high, low].into();
        }
        run(&mut state, add, 0);
    }
    journal.save(plain(&state)).unwrap();
    let bytes = fs::read(&path).unwrap();
    for cut in old.len()..bytes.len() {
        let (_, document) = read(&bytes[..cut]).unwrap();
        assert_eq!(document.servers.len(), 1, "cut at {cut}");
        if cut % 997 == 0 {
            let restored = restore(&document, limits).unwrap();
            assert_eq!(essence(&restored), before, "cut at {cut}");
        }
    }
    let (_, document) = read(&bytes).unwrap();
    assert_eq!(document.servers.len(), 301);
}

#[test]
fn a_folder_is_one_directors() {
    let folder = Folder::new("claim");
    let path = folder.0.join("state");
    let dir = StateDir::claim(&path).unwrap();
    assert!(matches!(StateDir::claim(&path), Err(StateError::InUse(_))));
    assert!(matches!(dir.read(), Ok(None)));
    fs::write(dir.document(), "nonsense").unwrap();
    assert_eq!(dir.read().unwrap_err(), Refused::NotAState);
    let aside = dir.set_aside();
    assert!(aside.join("state").exists() && matches!(dir.read(), Ok(None)));
    let stranger = Header {
        table_file: "/etc/passwd".into(),
        ..header()
    };
    assert!(matches!(
        dir.open_table(&stranger),
        Err(Refused::File { .. })
    ));
    let (memory, file, _) = dir.new_table(10_000, false).unwrap();
    assert!(memory.len() >= 10_000 && file.starts_with(dir.folder()));
    let huge = 1 << 50;
    let error = dir.new_table(huge, false).unwrap_err().to_string();
    assert!(
        error.contains("no room") && error.contains("--connections"),
        "{error}"
    );
    dir.remove();
    assert!(!path.exists());
    // A folder that others may write to could be anyone's.
    fs::create_dir(&path).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&path, open).unwrap();
    assert!(matches!(
        StateDir::claim(&path),
        Err(StateError::Folder { .. })
    ));
}

#[test]
fn names_tell_paths_apart() {
    let [a, b] = ["/run/a-b", "/run/a/b"].map(|path| name_of(Path::new(path)));
    assert_ne!(a, b);
    assert!(a.starts_with("run-a-b-"), "{a}");
    let long = format!("/{}", "x".repeat(500));
    assert!(name_of(Path::new(&long)).len() < 120);
}

#[test]
fn names_tell_network_namespaces_apart() {
    let rows = [
        ("unmarked, of an lvx before this one", "lvx-a", true),
        ("another namespace's", "lvx-a-net1f", true),
        ("another API's", "lvx-ab-net1f", false),
        ("no number", "lvx-a-net", false),
        ("not as lvx writes it", "lvx-a-net01F", false),
        ("something behind", "lvx-a-net1f-net2", false),
    ];
    for (what, name, expected) in rows {
        assert_eq!(is_marked(name, "lvx-a"), expected, "{what}");
    }
    let stem = |path: &str| stem_of(Path::new(path));
    assert_eq!(stem("/dev/shm/lvx-a-net1f"), stem("/dev/shm/lvx-a"));
    assert_ne!(stem("/dev/shm/lvx-a-net1f"), stem("/dev/shm/lvx-b-net1f"));
    // A name that somebody chose is all of it.
    assert_ne!(stem("/srv/lvx-a-net1f"), stem("/srv/lvx-a"));
}

/// What a state of another network namespace names is found under that one's name, and is this one's then.
#[test]
fn a_state_of_another_namespace_is_adopted() {
    let folder = Folder::new("adopt");
    let dir = StateDir::claim(&folder.0.join("state")).unwrap();
    let own = dir.namespace().number();
    let (of_old, of_other) = (dir.name_in(0), dir.name_in(own + 1));
    assert!(dir.is_name_elsewhere(&of_old) && dir.is_name_elsewhere(&of_other));
    assert!(!dir.is_name_elsewhere(&dir.name()));
    let mut left = Header {
        namespace: own + 1,
        ..header()
    };
    dir.adopt(&mut left);
    assert_eq!(left.namespace, own);
    assert_eq!(left.table_file, header().table_file);
}
