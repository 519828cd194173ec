//! What cannot work is refused: one clear line, what to do, an exit status other than 0, nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Family, Lab, Method, Options, endpoint, eventually, lvx, text, wait_within};

/// Runs a director that must refuse, and returns its complaint.
pub fn refused(lab: &Lab, description: &str, mut command: Command) -> String {
    let before = lab.footprint();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    if wait_within(&mut child, Duration::from_secs(10)).is_none() {
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM);
        let output = child.wait_with_output().expect("a child can be waited for");
        panic!(
            "{description}: it runs instead of refusing:\n{}",
            text(&output.stderr)
        );
    }
    let output = child.wait_with_output().expect("a child can be waited for");
    let errors = text(&output.stderr);
    assert!(
        output.status.code().is_some_and(|c| c != 0),
        "{description}: {}\n{errors}",
        output.status
    );
    assert!(!errors.contains("panicked"), "{description}: {errors}");
    assert_eq!(
        lab.footprint(),
        before,
        "{description}: nothing is left behind"
    );
    let line = errors.lines().last().unwrap_or_default().to_owned();
    assert!(!line.is_empty(), "{description}: the last line says why");
    line
}

/// All `words` are in the complaint, whatever their case.
pub fn names(description: &str, line: &str, words: &[&str]) {
    for word in words {
        assert!(
            line.to_lowercase().contains(&word.to_lowercase()),
            "{description}: '{word}' is not in: {line}"
        );
    }
}

#[test]
fn without_root() {
    let lab = Lab::new("not-root", Options::default());
    // The build's folder may be closed to others; the lab's is not.
    let copy = lab.dir().join("lvx");
    fs::copy(lvx(), &copy).expect("the lab's folder is writable");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("own file");
    let mut command = lab.exec("director", "setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--inh-caps=-all",
    ]);
    command
        .arg(&copy)
        .args(["director", "--port", "cl0", "--api"])
        .arg(lab.socket());
    names("not root", &refused(&lab, "not root", command), &["root"]);
}

#[test]
fn no_such_device() {
    let lab = Lab::new("no-device", Options::default());
    let line = refused(
        &lab,
        "no such device",
        lab.director_command(&["cl0", "nodev0"], &lab.socket()),
    );
    names("no such device", &line, &["nodev0"]);
    assert!(!lab.socket().exists(), "no socket is left");
}

#[test]
fn device_with_another_xdp_program() {
    let lab = Lab::new("foreign-xdp", Options::default());
    let folder = lab.dir().display().to_string();
    lab.shell(
        "director",
        &format!(
            "cd {folder}; echo '__attribute__((section(\"xdp\"), used)) int pass(void *c) {{ return 2; }} \
             __attribute__((section(\"license\"), used)) char _license[] = \"GPL\";' > pass.c; \
             clang -O2 -target bpf -c pass.c -o pass.o; ip link set rs0 xdpdrv obj pass.o sec xdp"
        ),
    );
    let line = refused(
        &lab,
        "foreign XDP program",
        lab.director_command(lab.ports(), &lab.socket()),
    );
    names("foreign XDP program", &line, &["rs0", "XDP"]);
    // `refused` compared the footprint: the program's id is in it, so the program is still the same.
    assert!(
        lab.footprint().contains("prog/xdp id"),
        "the program is still there"
    );
    assert!(!lab.socket().exists(), "no socket is left");
}

#[test]
fn second_director_on_a_port() {
    let mut lab = Lab::new("second", Options::default());
    lab.start();
    let other = lab.dir().join("other.sock");
    let line = refused(
        &lab,
        "second director",
        lab.director_command(&["cl0"], &other),
    );
    names("second director", &line, &["cl0"]);
    assert!(!other.exists(), "no socket is left");
    lab.ipvsadm("-L -n");
    assert!(
        lab.stop(Signal::TERM).success(),
        "the first runs on undisturbed"
    );
}

#[test]
fn socket_exists() {
    let mut lab = Lab::new("socket", Options::default());
    // Somebody else's file, and somebody else's live socket: neither is replaced.
    let file = lab.dir().join("file");
    fs::write(&file, "precious").expect("the lab's folder is writable");
    let line = refused(
        &lab,
        "a file in the socket's place",
        lab.director_command(&["cl0"], &file),
    );
    names(
        "a file in the socket's place",
        &line,
        &[&file.display().to_string()],
    );
    assert_eq!(
        fs::read_to_string(&file).expect("it is still there"),
        "precious"
    );

    let live = lab.dir().join("live.sock");
    let listener = UnixListener::bind(&live).expect("the lab's folder is writable");
    let line = refused(&lab, "a live socket", lab.director_command(&["cl0"], &live));
    names("a live socket", &line, &[&live.display().to_string()]);
    assert!(live.exists(), "it is still there");
    drop(listener);

    // The same socket as a running director's, on another port.
    lab.start_on(&["cl0"]);
    let line = refused(
        &lab,
        "a director's socket",
        lab.director_command(&["rs0"], &lab.socket()),
    );
    names(
        "a director's socket",
        &line,
        &[&lab.socket().display().to_string()],
    );
    lab.ipvsadm("-L -n");
}

/// A director that may not use a system call.
fn without(lab: &Lab, call: &str) -> Command {
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/without-call.py");
    let mut command = lab.exec("director", "python3");
    command
        .arg(filter)
        .arg(call)
        .arg(lvx())
        .args(["director", "--port", "cl0", "--port", "rs0", "--api"])
        .arg(lab.socket());
    command
}

/// As in a container whose seccomp profile knows CAP_SYS_ADMIN alone: all capabilities are there.
#[test]
fn seccomp_that_forbids_bpf() {
    let lab = Lab::new("no-bpf", Options::default());
    let line = refused(&lab, "bpf(2) forbidden", without(&lab, "bpf"));
    names("bpf(2) forbidden", &line, &["bpf(2)", "seccomp"]);
    assert!(!lab.socket().exists(), "no socket is left");
}

/// As on a kernel built without AF_XDP: the system call says that it does not know the family.
#[test]
fn kernel_without_af_xdp() {
    let lab = Lab::new("no-afxdp", Options::default());
    let line = refused(&lab, "kernel without AF_XDP", without(&lab, "af-xdp"));
    names("kernel without AF_XDP", &line, &["AF_XDP"]);
    assert!(!lab.socket().exists(), "no socket is left");
}

/// IPVS takes any address, also one that is not the host's (clients may be routed here by other means).
/// So the command succeeds, and the log warns once, with the address.
#[test]
fn address_that_is_not_on_the_host() {
    let mut lab = Lab::new("foreign-vip", Options::default());
    lab.start();
    lab.ipvsadm("-A -t 10.1.0.77:80 -s rr");
    lab.ipvsadm("-E -t 10.1.0.77:80 -s wlc");
    let log = eventually(Duration::from_secs(3), || {
        let log = lab.director().log();
        if log.contains("10.1.0.77") {
            Ok(log)
        } else {
            Err(format!("no word about 10.1.0.77 in:\n{log}"))
        }
    });
    let warnings: Vec<_> = log
        .lines()
        .filter(|l| l.contains("10.1.0.77") && l.contains("WARN"))
        .collect();
    assert_eq!(warnings.len(), 1, "one warning: {log}");
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    assert!(
        !lab.director().log().contains("10.1.0.1 "),
        "no warning about an address that is here"
    );
}

/// Who wants to be told at once starts the director so.
#[test]
fn address_that_is_not_on_the_host_is_refused_on_request() {
    let mut lab = Lab::new("require-local", Options::default());
    lab.start_with(&["--require-local"]);
    for (address, length_bits) in [("10.1.0.77", 32), ("fd01::77", 128)] {
        let output = lab.try_ipvsadm(&format!("-A -t {} -s rr", endpoint(address, 80)));
        assert_eq!(output.status.code(), Some(255), "{address}");
        let expected = format!(
            "{address} is no address of this host: `ip addr add {address}/{length_bits} dev DEV`, \
             or start the director without --require-local\n"
        );
        assert_eq!(text(&output.stderr), expected);
    }
    assert_eq!(lab.ipvsadm("-S -n"), "", "nothing of it is in the table");
    // What the message says helps, at once.
    lab.shell("director", "ip addr add 10.1.0.77/32 dev cl0");
    eventually(Duration::from_secs(3), || {
        let output = lab.try_ipvsadm("-A -t 10.1.0.77:80 -s rr");
        let done = output.status.success();
        done.then_some(()).ok_or_else(|| text(&output.stderr))
    });
    lab.add_service(Family::V6, 80, "rr", Method::Nat, 80);
}

/// Commands that cannot be obeyed fail by themselves too, and say why.
#[test]
fn commands_without_a_director() {
    let lab = Lab::new("no-director", Options::default());
    let output = lab.try_ipvsadm("-L -n");
    assert!(!output.status.success(), "no director runs");
    let errors = text(&output.stderr);
    names(
        "no director",
        &errors,
        &[&lab.socket().display().to_string()],
    );
    assert_eq!(errors.lines().count(), 1, "one line: {errors}");
}
