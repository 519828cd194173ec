//! What the director and its threads may do. A director starts with the capabilities of
//! [`NEEDS`], as root or not; each of its threads keeps only those that it needs from then
//! on, and none can get new ones. Linux counts capabilities by thread, so each sheds its own
//! as it begins.

use std::io;
use std::os::unix::fs::MetadataExt;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The inode of the first user namespace (`PROC_USER_INIT_INO` of linux/proc_ns.h).
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

/// How much a director needs a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// It does not start without.
    Needed,
    /// The same, unless so much memory may be locked all the same (RLIMIT_MEMLOCK).
    Locks,
}

/// A capability that a director starts with.
#[derive(Debug)]
struct Need {
    capability: Capability,
    what_for: &'static str,
    weight: Weight,
    /// CAP_SYS_ADMIN does as well: this one was cut out of it (Linux 5.8 and 5.9).
    or_admin: bool,
}

/// All of them.
const NEEDS: &[Need] = &[
    Need {
        capability: Capability::CAP_NET_ADMIN,
        what_for: "a program on the ports, the tap device, link addresses",
        weight: Weight::Needed,
        or_admin: false,
    },
    Need {
        capability: Capability::CAP_NET_RAW,
        what_for: "AF_XDP sockets and ARP",
        weight: Weight::Needed,
        or_admin: false,
    },
    Need {
        capability: Capability::CAP_BPF,
        what_for: "the steering program and its maps",
        weight: Weight::Needed,
        or_admin: true,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        what_for: "the steering program's use of pointers",
        weight: Weight::Needed,
        or_admin: true,
    },
    Need {
        capability: Capability::CAP_IPC_LOCK,
        what_for: "the frames' locked memory",
        weight: Weight::Locks,
        or_admin: false,
    },
];

/// Why the process may not be a director.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivilegeError {
    /// Capabilities count only within a user namespace.
    #[error(
        "this process is in a user namespace of its own (a rootless container, `unshare \
         --user`), where Linux loads no BPF programs, whatever the capabilities: start it, or \
         its container, as the system's own root"
    )]
    UserNamespace,
    /// Some are missing.
    #[error("{0}")]
    Missing(String),
}

/// Sees that all is there that a director needs, of which `locked_bytes` of locked memory.
pub fn check(locked_bytes: u64) -> Result<(), PrivilegeError> {
    // Without /proc nobody knows; the kernel will say.
    let user_namespace = std::fs::metadata("/proc/self/ns/user").map(|meta| meta.ino());
    if user_namespace.is_ok_and(|inode| inode != FIRST_USER_NAMESPACE) {
        return Err(PrivilegeError::UserNamespace);
    }
    let has = caps::read(None, CapSet::Effective).unwrap_or_default();
    judge(&has, raise_lock_limit(), locked_bytes)
}

/// Whether these capabilities suffice. `lockable_bytes` is the limit for those without
/// CAP_IPC_LOCK; none where there is no limit.
fn judge(
    has: &CapsHashSet,
    lockable_bytes: Option<u64>,
    locked_bytes: u64,
) -> Result<(), PrivilegeError> {
    let is_admin = has.contains(&Capability::CAP_SYS_ADMIN);
    let may_lock = lockable_bytes.is_none_or(|limit| limit >= locked_bytes);
    let is_met = |need: &Need| {
        let is_had = has.contains(&need.capability) || need.or_admin && is_admin;
        is_had || need.weight == Weight::Locks && may_lock
    };
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_met(need)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(PrivilegeError::Missing(complaint(&missing, locked_bytes))),
    }
}

/// One line: what is missing, what it is for, and how one gets it.
fn complaint(missing: &[&Need], locked_bytes: u64) -> String {
    let what = |need: &&Need| format!("{} ({})", need.capability, need.what_for);
    let whats: Vec<String> = missing.iter().map(what).collect();
    let names: Vec<String> = missing.iter().map(|n| n.capability.to_string()).collect();
    let option = |name: &String| format!("--cap-add {}", name.trim_start_matches("CAP_"));
    let options: Vec<String> = names.iter().map(option).collect();
    let limit = match missing.iter().any(|need| need.weight == Weight::Locks) {
        true => format!(
            "; instead of CAP_IPC_LOCK a limit of locked memory (`ulimit -l`, `--ulimit \
             memlock`) of {} KiB will do",
            locked_bytes.div_ceil(1024)
        ),
        false => String::new(),
    };
    format!(
        "a director lacks {}: start it as root, its container with `{}`, its systemd unit with \
         `AmbientCapabilities={}`{limit}",
        whats.join(", "),
        options.join(" "),
        names.join(" "),
    )
}

/// Takes the limit of locked memory as high as it goes; bytes, none where there is none.
fn raise_lock_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Memlock, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Runs `start`, whose children have what the calling thread has. Root's have so in any case;
/// those of another user only what is handed down.
pub fn hand_down<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if rustix::process::geteuid().is_root() {
        return start();
    }
    let handed = caps::read(None, CapSet::Permitted)
        .and_then(|has| {
            caps::set(None, CapSet::Inheritable, &has)?;
            caps::set(None, CapSet::Ambient, &has)
        })
        .map_err(io::Error::other);
    let started = handed.and_then(|()| start());
    // The ambient ones go with the inheritable.
    if let Err(error) = caps::clear(None, CapSet::Inheritable) {
        tracing::warn!("children of this thread get its capabilities: {error}");
    }
    started
}

/// What the main thread and the one that hands over keep: devices, programs and sockets may
/// come anew. A process that the main thread starts to take over gets no more than this either.
pub const OWNER: &[Capability] = &[
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_IPC_LOCK,
];

/// What the main thread keeps. Where the API's socket is a group's, a process that takes over
/// gives its own to that group.
pub fn main(has_groups: bool) -> Vec<Capability> {
    let groups: &[_] = match has_groups {
        true => &[Capability::CAP_CHOWN],
        false => NOTHING,
    };
    [OWNER, groups].concat()
}

/// Control writes BPF maps, and opens the devices that come back: the program's links,
/// AF_XDP sockets, and the frames' memory where no other socket has it.
pub const CONTROL: &[Capability] = &[
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_IPC_LOCK,
];

/// The mirror asks the host for neighbours.
pub const MIRROR: &[Capability] = &[Capability::CAP_NET_ADMIN];

/// Workers, the API and signals: a frame or a request gone wrong must not get anywhere.
pub const NOTHING: &[Capability] = &[];

/// No program that the calling thread or its later children run gives them more.
pub fn no_new() {
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!("no_new_privs is refused: {error}");
    }
}

/// Leaves the calling thread no capability but those of `keep` that it has.
pub fn keep(keep: &[Capability]) {
    if let Err(error) = try_keep(keep) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread");
        tracing::warn!("{name} keeps all capabilities: {error}");
    }
}

fn try_keep(keep: &[Capability]) -> Result<(), caps::errors::CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = keep.iter().copied().filter(|c| has.contains(c)).collect();
    caps::clear(None, CapSet::Inheritable)?;
    // The effective ones are of the permitted: they go first.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        use Capability::*;
        const MIB: u64 = 1 << 20;
        let five = [
            CAP_NET_ADMIN,
            CAP_NET_RAW,
            CAP_BPF,
            CAP_PERFMON,
            CAP_IPC_LOCK,
        ];
        let without = |one: Capability| five.iter().copied().filter(|c| *c != one).collect();
        type Row = (
            &'static str,
            Vec<Capability>,
            Option<u64>,
            &'static [&'static str],
        );
        let rows: [Row; 11] = [
            ("the five", five.to_vec(), Some(0), &[]),
            (
                "no NET_ADMIN",
                without(CAP_NET_ADMIN),
                None,
                &["CAP_NET_ADMIN"],
            ),
            ("no NET_RAW", without(CAP_NET_RAW), None, &["CAP_NET_RAW"]),
            ("no BPF", without(CAP_BPF), None, &["CAP_BPF"]),
            ("no PERFMON", without(CAP_PERFMON), None, &["CAP_PERFMON"]),
            (
                "no IPC_LOCK, and too low a limit",
                without(CAP_IPC_LOCK),
                Some(24 * MIB - 1),
                &["CAP_IPC_LOCK"],
            ),
            (
                "no IPC_LOCK, and a limit that suffices",
                without(CAP_IPC_LOCK),
                Some(24 * MIB),
                &[],
            ),
            (
                "no IPC_LOCK, and no limit",
                without(CAP_IPC_LOCK),
                None,
                &[],
            ),
            (
                "the old one for two new ones",
                vec![CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_IPC_LOCK],
                Some(0),
                &[],
            ),
            (
                "it is not for those of the network",
                vec![CAP_SYS_ADMIN],
                None,
                &["CAP_NET_ADMIN", "CAP_NET_RAW"],
            ),
            (
                "none",
                vec![],
                Some(0),
                &[
                    "CAP_NET_ADMIN",
                    "CAP_NET_RAW",
                    "CAP_BPF",
                    "CAP_PERFMON",
                    "CAP_IPC_LOCK",
                ],
            ),
        ];
        for (what, has, lockable_bytes, expected) in rows {
            let judged = judge(&has.into_iter().collect(), lockable_bytes, 24 * MIB);
            let text = judged.map_or_else(|error| error.to_string(), |()| String::new());
            for name in five {
                let name = name.to_string();
                let units = text
                    .split("AmbientCapabilities=")
                    .nth(1)
                    .unwrap_or_default();
                let is_named = text.contains(&format!("{name} (")) && units.contains(&name);
                assert_eq!(
                    is_named,
                    expected.contains(&name.as_str()),
                    "{what}: {text}"
                );
            }
            assert!(!text.contains('\n'), "{what}: {text}");
        }
    }

    #[test]
    fn a_thread_sheds_its_own_only() {
        let before = caps::read(None, CapSet::Effective).unwrap();
        assert!(before.len() > 2, "the tests run as root");
        let shed = |list: &'static [Capability]| {
            let thread = std::thread::spawn(move || {
                keep(list);
                caps::read(None, CapSet::Permitted).unwrap()
            });
            thread.join().unwrap()
        };
        assert_eq!(shed(NOTHING).len(), 0);
        assert_eq!(shed(CONTROL), CONTROL.iter().copied().collect());
        assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before);
    }
}
