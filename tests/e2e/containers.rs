//! Where containers run a director: few capabilities, settings that cannot be written, no tap driver, and file systems
//! that several network namespaces see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::bad_input::{names, refused};
use crate::lab::{Family, Lab, Method, Options, VIP4, eventually, lvx, text};
use crate::load::{connect_all, round};

/// What a director needs, as `setpriv` writes it.
const NEEDED: [&str; 5] = ["net_admin", "net_raw", "bpf", "perfmon", "ipc_lock"];

/// A shell line before the director, in mounts of its own, and the capabilities it is left with.
fn contained(lab: &Lab, before: &str, capabilities: &[&str], words: &str) -> Command {
    let bounds: String = capabilities.iter().map(|c| format!(",+{c}")).collect();
    let line = format!(
        "{before}\nexec setpriv --bounding-set=-all{bounds} --inh-caps=-all {} director --api {} --port cl0 --port rs0 {words}",
        lvx().display(),
        lab.socket().display()
    );
    let mut command = lab.exec("director", "bash");
    command.args(["-euc", &line]);
    command
}

/// As a container's: nothing below can be written.
const READ_ONLY_SETTINGS: &str =
    "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";

#[test]
fn five_capabilities_and_read_only_settings() {
    let mut lab = Lab::forwarding_not_yet("five", Method::Nat);
    let command = contained(&lab, READ_ONLY_SETTINGS, &NEEDED, "");
    lab.start_command(command);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    lab.add_service(Family::V6, 80, "rr", Method::Nat, 80);
    lab.shell(
        "client",
        "curl -sSf -m 5 http://10.1.0.1/ 'http://[fd01::1]/' >/dev/null",
    );
    // What goes by the tap.
    lab.shell(
        "client",
        "ping -c 1 -W 2 -q -s 4000 10.1.0.1; ping -c 1 -W 2 -q -s 4000 fd01::1",
    );
    let log = lab.director().log();
    assert!(!log.contains("WARN"), "{log}");
    // A take-over works all the same, and a kill.
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 5));
    lab.inside("client", || round(&mut clients));
    lab.stop(Signal::KILL);
    let command = contained(&lab, READ_ONLY_SETTINGS, &NEEDED, "");
    lab.start_command(command);
    lab.inside("client", || round(&mut clients));
    assert!(lab.upgrade().success());
    lab.inside("client", || round(&mut clients));
    assert!(lab.stop(Signal::TERM).success());
}

/// The first process of a container must not hand over: its end is that of all others.
#[test]
fn the_first_process_goes_on() {
    let mut lab = Lab::forwarding_not_yet("first", Method::Nat);
    // `unshare` waits for the director, and takes it along when it is killed itself.
    let mut command = lab.exec("director", "unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(lvx());
    command
        .args(["director", "--port", "cl0", "--port", "rs0", "--api"])
        .arg(lab.socket());
    lab.start_command(command);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let inner = lab.shell("director", &format!("pgrep -P {}", lab.director().id()));
    lab.shell("director", &format!("kill -USR2 {}", inner.trim()));
    eventually(Duration::from_secs(5), || match lab.director().log() {
        log if log.contains("--init") && log.contains("goes on") => Ok(()),
        log => Err(log),
    });
    // As `podman exec` does.
    let mut second = lab.exec("director", "nsenter");
    second.args(["--pid", "--mount", "--target", inner.trim()]);
    second
        .arg(lvx())
        .args(["director", "--port", "cl0", "--port", "rs0"]);
    second.args(["--take-over", "--api"]).arg(lab.socket());
    names(
        "a second",
        &refused(&lab, "a second", second),
        &["taking over", "first process", "--init"],
    );
    lab.shell("client", "curl -sSf -m 5 http://10.1.0.1/ >/dev/null");
    lab.shell("director", &format!("kill -TERM {}", inner.trim()));
    eventually(Duration::from_secs(10), || {
        lab.ended().map(|_| ()).ok_or_else(|| "it runs".to_owned())
    });
}

/// Not root, but with all that a director needs; so is the process that takes over from it.
#[test]
fn another_user_with_the_capabilities() {
    let mut lab = Lab::forwarding_not_yet("not-root-but", Method::Nat);
    fs::set_permissions(
        lab.dir(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("own folder");
    let copy = lab.dir().join("lvx");
    fs::copy(lvx(), &copy).expect("the lab's folder is writable");
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("own file");
    let all: String = NEEDED.iter().map(|c| format!(",+{c}")).collect();
    let line = format!(
        "mknod -m 666 tun c 10 200; mount --bind tun /dev/net/tun
        mount -t bpf bpf /run/lvx/bpf; chmod 700 /run/lvx/bpf; chown 64010 /run/lvx/bpf
        exec setpriv --reuid 64010 --regid 64010 --clear-groups --inh-caps=-all{all} --ambient-caps=-all{all} \
        ./lvx director --port cl0 --port rs0 --api {}",
        lab.socket().display()
    );
    let mut command = lab.exec("director", "bash");
    command.args(["-euc", &line]).current_dir(lab.dir());
    lab.start_command(command);
    lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut clients = lab.inside("client", || connect_all(&Family::V4.service(80), 5));
    lab.inside("client", || round(&mut clients));
    assert!(lab.upgrade().success());
    lab.inside("client", || round(&mut clients));
    assert!(lab.stop(Signal::TERM).success());
}

/// One line names what is missing, before anything is made.
#[test]
fn each_capability_missing_alone() {
    let lab = Lab::new("lacks", Options::default());
    for missing in NEEDED {
        let rest: Vec<&str> = NEEDED.into_iter().filter(|name| *name != missing).collect();
        let mut command = contained(&lab, "ulimit -l 64", &rest, "");
        command.env("LC_ALL", "C");
        let line = refused(&lab, missing, command);
        let name = format!("CAP_{}", missing.to_uppercase());
        names(
            missing,
            &line,
            &[
                &format!("lacks {name} ("),
                &format!("--cap-add {}", &name[4..]),
            ],
        );
        let others = NEEDED.iter().filter(|other| **other != missing);
        for other in others {
            assert!(
                !line.contains(&format!("CAP_{}", other.to_uppercase())),
                "{missing}: {line}"
            );
        }
    }
    // All of them, but of a user namespace.
    let mut command = lab.exec("director", "unshare");
    command.args(["--user", "--map-root-user"]).arg(lvx());
    command
        .args(["director", "--port", "cl0", "--api"])
        .arg(lab.socket());
    names(
        "rootless",
        &refused(&lab, "rootless", command),
        &["user namespace", "rootless"],
    );
}

/// A limit that is high enough does for locked memory.
#[test]
fn a_limit_of_locked_memory_that_suffices() {
    let mut lab = Lab::new("memlock", Options::default());
    let limit = "ulimit -l unlimited";
    let may = lab.exec("director", "bash").args(["-c", limit]).status();
    if !may.expect("bash runs").success() {
        eprintln!("skipped: this machine's root may not raise its limits (no CAP_SYS_RESOURCE)");
        return;
    }
    let command = contained(&lab, limit, &NEEDED[..4], "");
    lab.start_command(command);
    assert!(lab.stop(Signal::TERM).success());
}

#[test]
fn what_is_not_there_is_named() {
    let lab = Lab::new("not-there", Options::default());
    // What is done before, and what the refusal names.
    let rows: [(&str, &str, &str, &[&str]); 3] = [
        (
            "no tap driver",
            "mount -t tmpfs none /dev/net",
            "",
            &["/dev/net/tun", "modprobe tun", "--device /dev/net/tun"],
        ),
        (
            "a tap driver that is another's",
            "mknod /run/lvx-lab/$$ c 10 201; mount --bind /run/lvx-lab/$$ /dev/net/tun; rm /run/lvx-lab/$$",
            "",
            &["/dev/net/tun", "--device /dev/net/tun"],
        ),
        (
            "no room for a state that is named",
            "mount -t tmpfs -o size=1m none /mnt",
            "--state-dir /mnt/state",
            &["/mnt/state", "no room", "size="],
        ),
    ];
    for (what, before, words, expected) in rows {
        let command = contained(&lab, before, &NEEDED, words);
        names(what, &refused(&lab, what, command), expected);
        assert!(!lab.socket().exists(), "{what}: no socket is left");
    }
}

/// Without them it works, and says what does not.
#[test]
fn what_it_can_do_without_is_named() {
    let mut lab = Lab::forwarding_not_yet("without", Method::Nat);
    let rows: [(&str, &str, &[&str]); 4] = [
        (
            "no BPF file system",
            "umount /run/lvx/bpf; umount /sys/fs/bpf || true",
            &["no BPF file system", "mount -t bpf", "--volume /sys/fs/bpf"],
        ),
        (
            "one that is read-only",
            "mount -o remount,ro,bind /run/lvx/bpf; umount /sys/fs/bpf || true",
            &["/run/lvx/bpf", "read-only", "remount,rw"],
        ),
        (
            "shared memory that is too small",
            "mount -t tmpfs -o size=1m none /dev/shm",
            &["/dev/shm/lvx-", "no room", "--shm-size"],
        ),
        (
            "shared memory that is read-only",
            "mount -t tmpfs -o ro none /dev/shm",
            &["/dev/shm/lvx-", "read-only", "--state-dir"],
        ),
    ];
    for (what, before, expected) in rows {
        let was = lab.footprint();
        let command = contained(&lab, before, &NEEDED, "");
        lab.start_command(command);
        lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
        lab.shell("client", "curl -sSf -m 5 http://10.1.0.1/ >/dev/null");
        // Nothing to go on with: that is said too, and it goes on itself.
        lab.director().signal(Signal::USR2);
        eventually(Duration::from_secs(5), || match lab.director().log() {
            log if log.contains("SIGUSR2") && log.contains("ignored") => Ok(()),
            log => Err(log),
        });
        let log = lab.director().log();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 2, "{what}: {log}");
        names(what, warnings[0], expected);
        assert!(lab.stop(Signal::TERM).success());
        assert_eq!(lab.footprint(), was, "{what}");
    }
}

/// Two directors with the same API path in mounts of their own, but one BPF file system and one shared memory.
struct Twin {
    lab: Lab,
    run: PathBuf,
}

const API: &str = "/run/twin/lvx.sock";

impl Twin {
    fn new(name: &str) -> Twin {
        let lab = Lab::forwarding_not_yet(name, Method::Nat);
        let run = lab.dir().join("run");
        fs::create_dir(&run).expect("own folder");
        fs::create_dir_all("/run/twin").expect("root may");
        Twin { lab, run }
    }

    fn command(&self, words: &str) -> Command {
        let line = format!(
            "mount --bind {} /run/twin && exec {} {words}",
            self.run.display(),
            lvx().display()
        );
        let mut command = self.lab.exec("director", "bash");
        command.args(["-c", &line]);
        command
    }

    fn start(&mut self, words: &str) {
        let socket = self.run.join("lvx.sock");
        let _ = fs::remove_file(self.lab.socket());
        // Where the lab looks for it.
        std::os::unix::fs::symlink(socket, self.lab.socket()).expect("own folder");
        let command = self.command(&format!(
            "director --api {API} --port cl0 --port rs0 {words}"
        ));
        self.lab.start_command(command);
    }

    fn lvx(&self, words: &str) -> String {
        let output = self.command(words).output().expect("bash runs");
        text(&output.stdout) + &text(&output.stderr)
    }
}

/// Ends a lab. Its namespaces go in their own time, so their devices go before.
fn without_devices(lab: Lab) {
    lab.shell("director", "ip link del cl0; ip link del rs0");
}

/// Names in a folder that belong to the twins.
fn entries(folder: &str, part: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.contains(part)).collect();
    names.sort();
    names
}

fn left_over() -> (Vec<String>, Vec<String>) {
    (
        entries("/run/lvx/bpf/lvx", "run-twin-"),
        entries("/dev/shm", "lvx-run-twin-"),
    )
}

#[test]
fn what_two_namespaces_share_is_each_ones_own() {
    let mut one = Twin::new("twin-one");
    let mut two = Twin::new("twin-two");
    let counts = || {
        let (pins, states) = left_over();
        (pins.len(), states.len())
    };
    assert_eq!(counts(), (0, 0), "{:?}", left_over());
    one.start("");
    one.lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    let mut clients = one
        .lab
        .inside("client", || connect_all(&Family::V4.service(80), 5));
    one.lab.inside("client", || round(&mut clients));
    two.start("");
    assert_eq!(
        two.lab.ipvsadm("-S -n"),
        "",
        "the other's services are not its own"
    );
    two.lab.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    for lab in [&one.lab, &two.lab] {
        lab.shell("client", "curl -sSf -m 5 http://10.1.0.1/ >/dev/null");
    }
    assert_eq!(counts(), (2, 2), "{:?}", left_over());

    // Killed, each takes up its own; the other's stays while nobody runs there.
    one.lab.stop(Signal::KILL);
    two.lab.stop(Signal::KILL);
    two.start("");
    assert!(
        two.lab.director().log().contains("took up"),
        "{}",
        two.lab.log()
    );
    assert_eq!(counts(), (2, 2), "{:?}", left_over());
    assert!(two.lab.stop(Signal::TERM).success());
    assert_eq!(counts(), (1, 1), "the other's is left: {:?}", left_over());
    let output = one
        .lab
        .exec("client", "curl")
        .args(["-sS", "-m", "1", &format!("http://{VIP4}/")])
        .output();
    let errors = text(&output.expect("curl runs").stderr);
    assert!(
        errors.contains("timed out"),
        "its frames still wait: {errors}"
    );
    // Nor does `lvx clean` elsewhere take it.
    let said = two.lvx(&format!("clean --api {API}"));
    assert!(said.contains("left /dev/shm/lvx-run-twin-"), "{said}");
    assert_eq!(counts(), (1, 1), "{:?}", left_over());
    one.start("");
    one.lab.inside("client", || round(&mut clients));
    assert!(
        one.lab.director().log().contains("took up"),
        "{}",
        one.lab.log()
    );

    // One that is gone, with its devices, is removed by the next start of the same name.
    one.lab.stop(Signal::KILL);
    assert_eq!(counts(), (1, 1));
    without_devices(one.lab);
    two.start("");
    assert_eq!(counts(), (1, 1), "{:?}", left_over());
    let log = two.lab.director().log();
    assert!(log.contains("network namespace that is gone"), "{log}");
    two.lab.stop(Signal::KILL);
    let said = two.lvx(&format!("clean --api {API}"));
    assert!(said.contains("removed the state"), "{said}");
    assert_eq!(counts(), (0, 0), "{:?}", left_over());
}

/// A folder that was named is taken up by whoever names it, but not while frames wait for another.
#[test]
fn a_named_folder_of_two_namespaces() {
    let folder = Path::new("/dev/shm").join(format!("named-{}", std::process::id()));
    let words = ["--state-dir", folder.to_str().expect("UTF-8")];
    let mut one = Lab::forwarding_not_yet("named-one", Method::Nat);
    let mut two = Lab::forwarding_not_yet("named-two", Method::Nat);
    let refuses = |lab: &Lab, expected: &str| {
        let mut command = lab.director_command(lab.ports(), &lab.socket());
        command.args(words);
        names(
            "the other's",
            &refused(lab, "the other's", command),
            &[expected, "--state-dir"],
        );
    };
    one.start_with(&words);
    one.add_service(Family::V4, 80, "rr", Method::Nat, 80);
    refuses(&two, "in use");
    one.stop(Signal::KILL);
    refuses(&two, "another network namespace");
    let mut command = two.exec("director", lvx());
    let cleaned = command.arg("clean").args(words).output().expect("it ends");
    assert!(!cleaned.status.success(), "{}", text(&cleaned.stdout));
    one.start_with(&words);
    let saved = one.ipvsadm("-S -n");
    assert!(saved.contains("10.1.0.1:80"), "{}", one.log());
    // Ended in good order: it is free.
    assert!(one.stop(Signal::TERM).success());
    two.start_with(&words);
    assert_eq!(two.ipvsadm("-S -n"), saved);
    two.shell("client", "curl -sSf -m 5 http://10.1.0.1/ >/dev/null");
    // As a container that was killed whole: its namespace is gone with all devices.
    two.stop(Signal::KILL);
    without_devices(two);
    one.start_with(&words);
    assert_eq!(one.ipvsadm("-S -n"), saved, "{}", one.log());
    one.shell("client", "curl -sSf -m 5 http://10.1.0.1/ >/dev/null");
    assert!(one.stop(Signal::TERM).success());
    let pins = entries("/run/lvx/bpf/lvx", &format!("named-{}", std::process::id()));
    assert!(pins.is_empty(), "{pins:?}");
    fs::remove_dir_all(&folder).expect("a named folder is kept");
}
