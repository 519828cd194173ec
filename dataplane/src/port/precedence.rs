//! A worker goes before other work on its core. Linux would let anything that wakes up there
//! (a command's process, say) have the core for milliseconds, while the receive ring is full
//! after fewer; and nobody but who has cores to spare can keep all others off.

use std::io;

/// The worker's nice value: about nine tenths of its core while others want it too.
const NICE: i32 = -10;

/// Its time slice, ns, the least that Linux takes (kernel/sched/syscalls.c): who has the core
/// meanwhile is asked to give it back after as long.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` of linux/sched/types.h, in its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Lets the calling thread go before others. Needs CAP_SYS_NICE.
///
/// # Errors
/// Linux's; then all stays as it was.
pub fn take() -> io::Result<()> {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        nice: std::env::var("LVX_NICE").map_or(NICE, |v| v.parse().unwrap()),
        runtime_ns: std::env::var("LVX_SLICE").map_or(SLICE_NS, |v| v.parse().unwrap()),
        ..Attributes::default()
    };
    // SAFETY: the structure is as long as it says and is read during the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_takes_it_for_itself_only() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let thread = std::thread::spawn(move || {
            take().unwrap();
            nice()
        });
        assert_eq!(thread.join().unwrap(), NICE, "the tests run as root");
        assert_eq!(nice(), before);
    }
}
