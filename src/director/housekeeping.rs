//! Where everything that is not packets runs: on the cores that no worker has. A worker that
//! polls is an ordinary thread to Linux, which would let control take its core in turns of
//! milliseconds; a receive ring is full after fewer.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Moves the calling thread, and the threads that it starts, off the workers' cores. Workers
/// then move to theirs. Where that leaves no core, all stays as it is.
pub fn keep_off(workers: &[usize]) {
    if let Err(error) = try_keep_off(workers) {
        tracing::warn!("control and API may run on the workers' cores: {error}");
    }
}

fn try_keep_off(workers: &[usize]) -> rustix::io::Result<()> {
    let mut left = sched_getaffinity(None)?;
    for &core in workers.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        left.unset(core);
    }
    match left.count() {
        0 => Ok(()),
        _ => sched_setaffinity(None, &left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread and one that it starts may run on, of `cores`, off these workers'.
    fn left(cores: &[usize], workers: &'static [usize]) -> Vec<usize> {
        let mut there = CpuSet::new();
        cores.iter().for_each(|core| there.set(*core));
        let thread = std::thread::spawn(move || {
            sched_setaffinity(None, &there).unwrap();
            keep_off(workers);
            let child = std::thread::spawn(|| sched_getaffinity(None).unwrap());
            child.join().unwrap()
        });
        let left = thread.join().unwrap();
        (0..CpuSet::MAX_CPU)
            .filter(|core| left.is_set(*core))
            .collect()
    }

    #[test]
    fn other_threads_leave_the_workers_their_cores() {
        let all = sched_getaffinity(None).unwrap();
        let all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| all.is_set(*core))
            .collect();
        if let [first, second, ..] = all[..] {
            assert_eq!(left(&[first, second], &[]), [first, second]);
            if first == 0 {
                assert_eq!(left(&[first, second], &[0]), [second]);
            }
        }
        assert_eq!(left(&all, &[1 << 20]), all, "a core that cannot be");
        let first = all[..1].to_vec();
        if first == [0] {
            assert_eq!(left(&first, &[0]), [0], "the only core is shared");
        }
    }
}
