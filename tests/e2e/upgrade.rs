//! A director that starts the next version itself, on SIGUSR2: connections go on, and whoever supervises it can follow.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Family, Lab, Method, Options, eventually, lvx};
use crate::load::{connect_all, round};
use crate::outlive::undisturbed;

const PORT: u16 = 9000;

/// What the unit leaves a director (`CapabilityBoundingSet=`), in setpriv's words.
fn unit_bounding_set() -> String {
    let unit = include_str!("../../scripts/lvx.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.expect("the unit bounds them").split_whitespace();
    let names = names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    format!("--bounding-set=-all{}", names.collect::<String>())
}

/// A copy of the binary, in a place that can be overwritten as an upgrade does it.
fn installed(lab: &Lab) -> PathBuf {
    let place = lab.dir().join("lvx");
    replace(&place, &fs::read(lvx()).expect("it was built"));
    place
}

/// Puts a program in another's place in one step: a running one cannot be written to.
fn replace(place: &Path, program: &[u8]) {
    let beside = place.with_extension("new");
    fs::write(&beside, program).expect("the lab's folder has room");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("own file");
    fs::rename(beside, place).expect("the same folder");
}

/// Starts the words behind it with the three standard descriptors and no others: this process has sockets of other
/// tests, and some library may not have made its own close-on-exec.
const WITHOUT_DESCRIPTORS: &str =
    r#"for n in /proc/$$/fd/*; do n=${n##*/}; [ "$n" -le 2 ] || exec {n}>&-; done; exec "$0" "$@""#;

/// `program director` on the lab's ports, in a sandbox like the unit's as far as that is without systemd.
fn command(lab: &Lab, program: &Path) -> Command {
    let mut command = lab.exec("director", "bash");
    command
        .args(["-c", WITHOUT_DESCRIPTORS, "setpriv"])
        .arg(unit_bounding_set())
        .arg("--no-new-privs")
        .arg(program);
    command.arg("director").arg("--api").arg(lab.socket());
    for port in lab.ports() {
        command.args(["--port", port]);
    }
    command
}

/// The process that answers at the API's socket.
pub(crate) fn answering(lab: &Lab) -> u32 {
    let stream = UnixStream::connect(lab.socket()).expect("somebody listens");
    let peer = rustix::net::sockopt::socket_peercred(&stream).expect("a local socket");
    peer.pid.as_raw_nonzero().get() as u32
}

fn troubles(log: &str) -> Vec<&str> {
    let is_bad = |line: &&str| line.contains("ERROR") || line.contains("WARN");
    log.lines().filter(is_bad).collect()
}

/// Files that the process would leave open to a program that it starts, beside the three standard ones.
fn inherited(process: u32) -> Vec<PathBuf> {
    let process = Path::new("/proc").join(process.to_string());
    let stays = |number: &std::ffi::OsString| {
        let info = fs::read_to_string(process.join("fdinfo").join(number)).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        // O_CLOEXEC (asm-generic/fcntl.h).
        flags.is_some_and(|f| u32::from_str_radix(f.trim(), 8).expect("octal") & 0o2000000 == 0)
    };
    let links = fs::read_dir(process.join("fd")).expect("it runs").flatten();
    let others = links.filter(|link| !["0", "1", "2"].iter().any(|n| link.file_name() == *n));
    let staying = others.filter(|link| stays(&link.file_name()));
    staying
        .filter_map(|link| fs::read_link(link.path()).ok())
        .collect()
}

fn cores(process: u32, thread: &str) -> String {
    for task in fs::read_dir(format!("/proc/{process}/task"))
        .expect("it runs")
        .flatten()
    {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        if status.starts_with(&format!("Name:\t{thread}\n")) {
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
            return line.expect("Linux says so").trim().to_owned();
        }
    }
    panic!("process {process} has no thread {thread}");
}

fn upgraded_under_load(name: &str, method: Method, queues: u8) {
    let options = Options {
        queues,
        ..Options::default()
    };
    let mut lab = Lab::forwarding_not_yet_with(name, options, method);
    let before = lab.footprint();
    let place = installed(&lab);
    let command = command(&lab, &place);
    lab.start_command(command);
    lab.add_service(Family::V4, PORT, "rr", method, PORT);
    let build = fs::read(lvx()).expect("it was built");
    let old_cores = cores(lab.director().id(), "lvx-worker-0");
    undisturbed(&mut lab, Family::V4, |lab, time| {
        let old = lab.director().id();
        assert_eq!(inherited(old), Vec::<PathBuf>::new());
        replace(&place, &build);
        let status = lab.upgrade();
        let log = lab.director().log();
        assert!(status.success(), "{status}: {log}");
        let new = lab.director().id();
        assert_ne!(new, old);
        assert_eq!(answering(lab), new, "{log}");
        let program = fs::read_link(format!("/proc/{new}/exe")).expect("it runs");
        assert_eq!(program, place, "the new file, not the deleted one");
        let words = fs::read_to_string(format!("/proc/{new}/cmdline")).expect("it runs");
        assert_eq!(words.matches("--take-over").count(), 1, "{words}");
        assert_eq!(cores(new, "lvx-worker-0"), old_cores, "upgrade {time}");
        assert_eq!(troubles(&log), [""; 0], "{log}");
    });
    assert_eq!(lab.director().log().matches("stood still for").count(), 5);
    assert!(lab.ipvsadm("-Ln").contains(&Family::V4.service(PORT)));
    lab.ipvsadm("-C");
    assert!(lab.stop(Signal::TERM).success());
    fs::remove_file(place).expect("own file");
    assert_eq!(lab.footprint(), before);
}

#[test]
fn upgraded_under_load_nat() {
    upgraded_under_load("upgrade-nat", Method::Nat, 1);
}

#[test]
fn upgraded_under_load_direct() {
    upgraded_under_load("upgrade-direct", Method::Direct, 2);
}

/// What a service manager hears, in this order: it takes the main process's word only (`NotifyAccess=main`).
#[test]
fn a_service_manager_can_follow() {
    let mut lab = Lab::forwarding_not_yet_with("upgrade-told", Options::default(), Method::Nat);
    let notified = lab.dir().join("notify.sock");
    let manager = UnixDatagram::bind(&notified).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    rustix::net::sockopt::set_socket_passcred(&manager, true).unwrap();
    let hear = || {
        let (text, sender) = receive(&manager);
        (sender, text)
    };
    // As systemd does: the director's own process, by its number.
    let line = format!(
        "WATCHDOG_PID=$$ exec setpriv {} --no-new-privs {} director --api {} --port cl0 --port rs0 \
         --api-group 64001",
        unit_bounding_set(),
        lvx().display(),
        lab.socket().display()
    );
    let mut command = lab.exec("director", "sh");
    command
        .args(["-c", &line])
        .env("NOTIFY_SOCKET", &notified)
        .env("WATCHDOG_USEC", "1000000");
    lab.start_command(command);
    let first = lab.director().id();
    let heard = std::iter::repeat_with(hear).find(|(_, text)| text != "WATCHDOG=1\n");
    assert_eq!(heard, Some((first, "READY=1\n".into())));
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 5));
    for _ in 0..2 {
        let old = lab.director().id();
        let status = lab.upgrade();
        assert!(status.success(), "{status}\n{}", lab.log());
        let new = lab.director().id();
        let heard = std::iter::repeat_with(hear).find(|(_, text)| text != "WATCHDOG=1\n");
        // In one message: after it, the old one is not heard any more.
        assert_eq!(heard, Some((old, format!("MAINPID={new}\nWATCHDOG=1\n"))));
        // Nothing more of the old one; the new one is alive before it is ready, and stays so.
        assert_eq!(hear(), (new, "WATCHDOG=1\n".into()));
        let heard = std::iter::repeat_with(hear).find(|(_, text)| text != "WATCHDOG=1\n");
        assert_eq!(heard, Some((new, "READY=1\n".into())));
        for _ in 0..3 {
            assert_eq!(hear(), (new, "WATCHDOG=1\n".into()));
        }
        lab.inside("client", || round(&mut clients));
    }
    assert_eq!(troubles(&lab.director().log()), [""; 0]);
    assert!(lab.stop(Signal::TERM).success());
}

/// A message, and the process that sent it.
fn receive(manager: &UnixDatagram) -> (String, u32) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4096];
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(manager, &mut buffers, &mut control, RecvFlags::empty());
    let length = received.expect("a director tells").bytes;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
        _ => None,
    });
    let sender = sender.expect("Linux says who").as_raw_nonzero().get() as u32;
    (
        String::from_utf8_lossy(&bytes[..length]).into_owned(),
        sender,
    )
}

/// A next version that does not start, or is slow to, leaves the old one forwarding; it can be asked again.
#[test]
fn a_successor_that_fails_changes_nothing() {
    let mut lab = Lab::forwarding_not_yet_with("upgrade-fails", Options::default(), Method::Nat);
    let before = lab.footprint();
    let place = installed(&lab);
    let file = lab.dir().join("lvx.toml");
    let right = "[[service]]\naddress = \"10.1.0.1:80\"\n[[service.server]]\n\
                 address = \"10.2.0.11:80\"\nforwarding = \"nat\"\n";
    fs::write(&file, right).expect("the lab's folder has room");
    let mut command = command(&lab, &place);
    command.arg("--config").arg(&file);
    lab.start_command(command);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 10));
    let process = lab.director().id();
    let build = fs::read(lvx()).expect("it was built");
    let rows: [(&str, &[u8], &str, &str); 4] = [
        (
            "a wrong file",
            &build,
            "[tunables]\nno_such = 1\n",
            "(exit status: 1)",
        ),
        (
            "a program that fails",
            b"#!/bin/sh\nexit 3\n",
            right,
            "(exit status: 3)",
        ),
        (
            "one that is killed",
            b"#!/bin/sh\nkill -9 $$\n",
            right,
            "(signal: 9 (SIGKILL))",
        ),
        ("no program at all", b"\x7fELF", right, "cannot be started"),
    ];
    for (what, program, config, expected) in rows {
        replace(&place, program);
        fs::write(&file, config).expect("own file");
        lab.director().signal(Signal::USR2);
        eventually(Duration::from_secs(10), || match lab.director().log() {
            log if log.contains(expected) => Ok(()),
            log => Err(format!("{what}: {log}")),
        });
        lab.inside("client", || round(&mut clients));
        assert_eq!(answering(&lab), process, "{what}");
        assert_eq!(
            children(process),
            [""; 0],
            "{what}: neither left nor a zombie"
        );
    }
    let refused = lab.director().log().matches("this process goes on").count();
    assert_eq!(refused, rows.len(), "{}", lab.log());

    // Slow: a second one is not started beside it.
    fs::write(&file, right).expect("own file");
    replace(&place, b"#!/bin/sh\nexec sleep 60\n");
    lab.director().signal(Signal::USR2);
    eventually(Duration::from_secs(5), || match children(process) {
        some if some.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    lab.director().signal(Signal::USR2);
    eventually(Duration::from_secs(5), || match lab.director().log() {
        log if log.contains("about to take over already: ignored") => Ok(()),
        log => Err(log),
    });
    assert_eq!(children(process).len(), 1);
    let slow = children(process).remove(0);
    let slow = rustix::process::Pid::from_raw(slow.parse().unwrap()).unwrap();
    rustix::process::kill_process(slow, Signal::KILL).expect("it sleeps");
    eventually(Duration::from_secs(5), || match children(process) {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });

    // The right one at last.
    replace(&place, &build);
    let status = lab.upgrade();
    assert!(status.success(), "{status}\n{}", lab.log());
    assert_ne!(answering(&lab), process);
    lab.inside("client", || round(&mut clients));

    // Who ends a director ends the one that was to follow too.
    let process = lab.director().id();
    replace(&place, b"#!/bin/sh\nexec sleep 60\n");
    lab.director().signal(Signal::USR2);
    eventually(Duration::from_secs(5), || match children(process) {
        some if some.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let slow = children(process).remove(0);
    assert!(lab.stop(Signal::TERM).success());
    eventually(Duration::from_secs(5), || match is_alive(&slow) {
        false => Ok(()),
        true => Err(format!("process {slow} is still there")),
    });
    fs::remove_file(&place).expect("own file");
    assert_eq!(lab.footprint(), before);
}

/// The processes that this one has started and not yet waited for.
fn children(process: u32) -> Vec<String> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))
        .expect("it runs")
        .flatten()
    {
        let some = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(some.split_whitespace().map(str::to_owned));
    }
    all
}

fn is_alive(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// A file that cannot be put in force ends a director that starts, not one that has just taken over.
#[test]
fn a_file_that_is_refused_after_the_take_over_ends_nothing() {
    let mut lab = Lab::forwarding_not_yet_with("upgrade-file", Options::default(), Method::Nat);
    let file = lab.dir().join("lvx.toml");
    let services = "[[service]]\naddress = \"10.1.0.1:80\"\n[[service.server]]\n\
                    address = \"10.2.0.11:80\"\nforwarding = \"nat\"\n";
    fs::write(&file, services).expect("the lab's folder has room");
    let name = file.to_str().expect("UTF-8").to_owned();
    lab.start_with(&["--config", &name, "--require-local"]);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 5));
    fs::write(&file, services.replace("10.1.0.1:80", "10.77.0.1:80")).expect("own file");
    let status = lab.upgrade();
    let log = lab.director().log();
    assert!(status.success(), "{status}: {log}");
    assert!(
        log.contains("refused, all stays as it was") && log.contains("10.77.0.1"),
        "{log}"
    );
    lab.inside("client", || round(&mut clients));
    assert!(lab.ipvsadm("-S -n").starts_with("-A -t 10.1.0.1:80"));
    assert!(lab.stop(Signal::TERM).success());

    // Without a state there is nothing to take over.
    lab.start_with(&["--no-state"]);
    lab.director().signal(Signal::USR2);
    eventually(Duration::from_secs(5), || match lab.director().log() {
        log if log.contains("no state is kept") => Ok(()),
        log => Err(log),
    });
    assert!(lab.stop(Signal::TERM).success());
}
