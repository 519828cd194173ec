//! What a running director may still do, and who may ask it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::lab::{Family, Lab, Method, Options, lvx};

/// Numbers that no account of a test machine has.
const OPERATORS: u32 = 64_001;
const READERS: u32 = 64_002;

#[test]
fn threads_keep_only_what_they_need() {
    let lab = Lab::forwarding("privilege", Options::default(), Method::Nat);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.shell("client", "curl -sSf -m 5 http://10.1.0.1/ >/dev/null");
    let tasks = format!("/proc/{}/task", lab.director().id());
    let mut seen = BTreeMap::new();
    let mut cores = BTreeMap::new();
    for task in fs::read_dir(tasks).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}:\n{status}")).trim()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
        let permitted = u64::from_str_radix(field("CapPrm:"), 16).unwrap();
        let effective = u64::from_str_radix(field("CapEff:"), 16).unwrap();
        assert_eq!(permitted, effective, "{status}");
        seen.insert(field("Name:").to_owned(), permitted);
        let allowed = field("Cpus_allowed_list:").to_owned();
        cores.insert(field("Name:").to_owned(), allowed);
    }
    // The worker has its core to itself, where there is another for the rest.
    assert_eq!(cores["lvx-worker-0"], "0", "{cores:?}");
    if std::thread::available_parallelism().unwrap().get() > 1 {
        for thread in ["lvx-api", "lvx-control", "lvx-neighbours"] {
            assert!(!cores[thread].starts_with('0'), "{thread} of {cores:?}");
        }
    }
    let bit = |capability: u32| 1u64 << capability;
    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_IPC_LOCK 14, CAP_BPF 39 (linux/capability.h).
    let control = bit(12) | bit(13) | bit(14) | bit(39);
    let rows = [
        ("lvx-worker-0", 0),
        ("lvx-api", 0),
        ("lvx-signals", 0),
        ("lvx-control", control),
        ("lvx-neighbours", bit(12)),
    ];
    for (name, expected) in rows {
        assert_eq!(seen.get(name), Some(&expected), "{name} of {seen:x?}");
    }
    // CAP_SYS_ADMIN 21, CAP_DAC_OVERRIDE 1, CAP_SYS_PTRACE 19, CAP_SYS_MODULE 16.
    let too_much = bit(21) | bit(1) | bit(19) | bit(16);
    for (name, permitted) in &seen {
        assert_eq!(permitted & too_much, 0, "{name}: {permitted:x}");
    }
}

#[test]
fn groups_may_use_the_api() {
    let mut lab = Lab::new("groups", Options::default());
    let (operators, readers) = (OPERATORS.to_string(), READERS.to_string());
    let ask = |lab: &Lab, group: u32, line: &str| {
        let line = format!(
            "setpriv --reuid 64000 --regid {group} --clear-groups {} {line}",
            lvx().display()
        );
        let mut command = lab.exec("director", "bash");
        command.args(["-c", &line]).env("LVX_API", lab.socket());
        let output = command.output().unwrap();
        output.status.code()
    };
    // The lab's folder is root's own; so is the way to the binary.
    fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    lab.start_with(&["--api-group", &operators]);
    let meta = fs::metadata(lab.socket()).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.gid()), (0o660, OPERATORS));
    assert_eq!(ask(&lab, OPERATORS, "adm -A -t 10.1.0.1:80"), Some(0));
    assert_eq!(ask(&lab, READERS, "get"), Some(2), "the socket's mode");
    lab.stop(rustix::process::Signal::TERM);

    lab.start_with(&["--api-group", &operators, "--api-read-group", &readers]);
    let rows = [
        (OPERATORS, "adm -A -t 10.1.0.1:80", Some(0)),
        (OPERATORS, "set drop_entry 1", Some(0)),
        (READERS, "get drop_entry", Some(0)),
        (READERS, "adm -Ln", Some(0)),
        (READERS, "explain tcp 10.9.0.1:1 10.1.0.1:80", Some(0)),
        (READERS, "set drop_entry 0", Some(2)),
        (READERS, "adm -C", Some(255)),
        (64_003, "get", Some(2)),
        (64_003, "adm -Ln", Some(255)),
    ];
    for (group, line, expected) in rows {
        assert_eq!(ask(&lab, group, line), expected, "{group}: {line}");
    }
    assert!(lab.ipvsadm("-S -n").starts_with("-A -t 10.1.0.1:80"));
}
