//! What threads may do. A director starts as root; each of its threads keeps only the
//! capabilities that it needs from then on, and none can get new ones. Linux counts
//! capabilities by thread, so each sheds its own as it begins.

use caps::{CapSet, Capability, CapsHashSet};

/// What the main thread and the one that hands over keep: devices, programs and sockets may
/// come anew, and another process is given the frames' memory (`/proc/self/map_files`). A
/// process that the main thread starts to take over gets no more than this either.
pub const OWNER: &[Capability] = &[
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_CHECKPOINT_RESTORE,
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
