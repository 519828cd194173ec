//! What control and workers share. Control publishes snapshots; each worker adopts the
//! newest at its next burst and says so. Neither waits for the other's locks: there are none.
//!
//! Control keeps a snapshot until every worker has adopted a newer one, so that its memory
//! is never freed on a worker, in the middle of a burst.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use dataplane::hops::NeighbourKey;
use dataplane::snapshot::Snapshot;
use rustix::event::{EventfdFlags, eventfd};

/// Reports that may wait for control. A worker never waits for room: it says again later
/// what must be said, and lets go what the next packet will say again.
const REPORTS_MAX: usize = 4096;

/// What a worker tells control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The worker decides by this snapshot from now on, and holds no older one.
    Adopted {
        /// Which worker.
        worker: usize,
        /// The snapshot's generation.
        generation: u64,
    },
    /// A next hop's link address is needed.
    Resolve(NeighbourKey),
    /// The worker could not be tied to its core and runs wherever the kernel puts it.
    NotPinned {
        /// Which worker.
        worker: usize,
        /// The core.
        core: usize,
    },
    /// The worker has ended.
    Stopped {
        /// Which worker.
        worker: usize,
        /// Why.
        reason: String,
    },
}

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    /// That of `snapshot`, so that a worker need not look at it to see that it is the same.
    generation: AtomicU64,
    stop: AtomicBool,
    /// Each worker's turns: it is alive while they grow.
    turns: Box<[Turns]>,
    keep: AtomicBool,
    wakers: Box<[OwnedFd]>,
}

/// On a cache line of its own: the worker writes it, others rarely look.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Turns(AtomicU64);

/// Control's end.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    reports: Receiver<Report>,
    /// Snapshots that a worker may still hold, oldest first; the last is the current one.
    kept: VecDeque<Arc<Snapshot>>,
    /// What each worker has adopted; none once it has ended.
    adopted: Vec<Option<u64>>,
    /// Each worker's turns at the last look.
    seen: Vec<u64>,
}

/// A worker's end.
#[derive(Debug)]
pub struct WorkerLink {
    worker: usize,
    shared: Arc<Shared>,
    reports: Sender<Report>,
    snapshot: Arc<Snapshot>,
    /// Adopted, but there was no room to say so yet.
    unsaid: bool,
}

/// Ties `workers` workers to a control, all at `snapshot`.
pub fn link(workers: usize, snapshot: Arc<Snapshot>) -> io::Result<(Control, Vec<WorkerLink>)> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let wakers: Result<Vec<OwnedFd>, _> = (0..workers).map(|_| eventfd(0, flags)).collect();
    let generation = snapshot.generation;
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::new(Arc::clone(&snapshot)),
        generation: AtomicU64::new(generation),
        stop: AtomicBool::new(false),
        turns: (0..workers).map(|_| Turns::default()).collect(),
        keep: AtomicBool::new(false),
        wakers: wakers?.into_boxed_slice(),
    });
    let (sender, reports) = bounded(REPORTS_MAX);
    let links = (0..workers)
        .map(|worker| WorkerLink {
            worker,
            shared: Arc::clone(&shared),
            reports: sender.clone(),
            snapshot: Arc::clone(&snapshot),
            unsaid: false,
        })
        .collect();
    let control = Control {
        shared,
        reports,
        kept: VecDeque::from([snapshot]),
        adopted: vec![Some(generation); workers],
        seen: vec![u64::MAX; workers],
    };
    Ok((control, links))
}

impl Control {
    /// Puts a snapshot in force. Its generation must be above that of the last one.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        debug_assert!(generation > self.shared.generation.load(Ordering::Relaxed));
        self.kept.push_back(Arc::clone(&snapshot));
        self.shared.snapshot.store(snapshot);
        self.shared.generation.store(generation, Ordering::Release);
        self.wake_all();
    }

    /// Waits for a report, this long at most. Adoption is noted here; it is given out too.
    pub fn receive(&mut self, timeout: Duration) -> Option<Report> {
        let report = self.reports.recv_timeout(timeout).ok()?;
        self.note(&report);
        Some(report)
    }

    /// The reports as a channel, to wait for among others. Whoever takes one out must
    /// [`Control::note`] it.
    pub fn reports(&self) -> Receiver<Report> {
        self.reports.clone()
    }

    /// Notes what a report says of adoption.
    pub fn note(&mut self, report: &Report) {
        match report {
            Report::Adopted { worker, generation } => self.adopted[*worker] = Some(*generation),
            Report::Stopped { worker, .. } => self.adopted[*worker] = None,
            Report::Resolve(_) | Report::NotPinned { .. } => return,
        }
        self.release();
    }

    /// The running workers that have not adopted `generation`.
    pub fn laggards(&self, generation: u64) -> Vec<usize> {
        let lags = |(worker, adopted): (usize, &Option<u64>)| {
            adopted
                .is_some_and(|own| own < generation)
                .then_some(worker)
        };
        self.adopted.iter().enumerate().filter_map(lags).collect()
    }

    /// Whether every running worker decides by this generation or a newer one.
    pub fn is_adopted(&self, generation: u64) -> bool {
        self.oldest() >= generation
    }

    /// Waits until every worker has adopted `generation`, this long at most; what else they
    /// report meanwhile goes to `other`. False when one has not.
    pub fn await_adoption(
        &mut self,
        generation: u64,
        timeout: Duration,
        mut other: impl FnMut(Report),
    ) -> bool {
        let end = Instant::now() + timeout;
        while !self.is_adopted(generation) {
            let left = end.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Some(Report::Adopted { .. }) => {}
                Some(report) => other(report),
                None if left.is_zero() => return false,
                None => {}
            }
        }
        true
    }

    /// The running workers that have made no turn since the last call.
    pub fn silent(&mut self) -> Vec<usize> {
        let turns = self.shared.turns.iter().zip(&mut self.seen);
        let grown = turns.map(|(turns, seen)| {
            let now = turns.0.load(Ordering::Relaxed);
            std::mem::replace(seen, now) != now
        });
        let running = grown.zip(&self.adopted).enumerate();
        running
            .filter(|(_, (grown, adopted))| !grown && adopted.is_some())
            .map(|(worker, _)| worker)
            .collect()
    }

    /// Has workers, when they end, keep their queues for another process.
    pub fn keep(&self) {
        self.shared.keep.store(true, Ordering::Release);
    }

    /// Asks all workers to end; each reports `Stopped`.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake_all();
    }

    fn oldest(&self) -> u64 {
        let running = self.adopted.iter().flatten();
        running.min().copied().unwrap_or(u64::MAX)
    }

    /// Frees snapshots that no worker holds any more; never the current one.
    fn release(&mut self) {
        let oldest = self.oldest();
        while self.kept.len() > 1 && self.kept[0].generation < oldest {
            self.kept.pop_front();
        }
    }

    fn wake_all(&self) {
        for waker in &self.shared.wakers {
            // Full means that the worker has yet to see earlier ones: it will wake.
            let _ = rustix::io::write(waker, &1u64.to_ne_bytes());
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

impl WorkerLink {
    /// Which worker this is.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The snapshot to decide by.
    #[inline]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes up the newest snapshot; whether it is another than before.
    #[inline]
    pub fn adopt(&mut self) -> bool {
        let newest = self.shared.generation.load(Ordering::Acquire);
        if newest == self.snapshot.generation {
            if self.unsaid {
                self.say_adopted();
            }
            return false;
        }
        self.snapshot = self.shared.snapshot.load_full();
        self.say_adopted();
        true
    }

    /// Notes a turn.
    #[inline]
    pub fn turn(&self) {
        let turns = &self.shared.turns[self.worker].0;
        // Only this worker writes it.
        turns.store(turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether control asked to end.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Whether control asked to keep the queues for another process.
    pub fn is_to_keep(&self) -> bool {
        self.shared.keep.load(Ordering::Acquire)
    }

    /// Tells control; false when there is no room now.
    pub fn report(&self, report: Report) -> bool {
        // Without a control there is no one left to tell.
        !matches!(self.reports.try_send(report), Err(TrySendError::Full(_)))
    }

    /// The last report; waits for room as long as control is there.
    pub fn report_stopped(self, reason: &str) {
        let Self {
            worker,
            reports,
            snapshot,
            ..
        } = self;
        // Control frees old snapshots when it hears of the end, so let go before.
        drop(snapshot);
        let reason = reason.to_owned();
        let _ = reports.send(Report::Stopped { worker, reason });
    }

    /// Readable when control has something new.
    pub fn waker(&self) -> BorrowedFd<'_> {
        self.shared.wakers[self.worker].as_fd()
    }

    /// Makes the waker unreadable again.
    pub fn rest(&self) {
        let _ = rustix::io::read(self.waker(), &mut [0; 8]);
    }

    fn say_adopted(&mut self) {
        let (worker, generation) = (self.worker, self.snapshot.generation);
        self.unsaid = !self.report(Report::Adopted { worker, generation });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.generation = generation;
        Arc::new(snapshot)
    }

    fn is_readable(link: &WorkerLink) -> bool {
        rustix::io::read(link.waker(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn a_snapshot_is_in_force_once_all_have_adopted_it() {
        let (mut control, mut links) = link(2, snapshot(1)).unwrap();
        assert!(!links[0].adopt() && !is_readable(&links[0]));
        control.publish(snapshot(2));
        assert!(is_readable(&links[0]) && is_readable(&links[1]));
        assert!(links[0].adopt() && !links[0].adopt());
        assert_eq!(links[0].snapshot().generation, 2);
        assert!(!control.await_adoption(2, MOMENT, |_| ()));
        assert!(links[1].adopt());
        assert!(control.await_adoption(2, MOMENT, |_| ()));
    }

    #[test]
    fn control_frees_what_no_worker_holds() {
        let first = snapshot(1);
        let weak: Weak<Snapshot> = Arc::downgrade(&first);
        let (mut control, mut links) = link(2, first).unwrap();
        control.publish(snapshot(2));
        control.publish(snapshot(3));
        assert!(links[0].adopt());
        while control.receive(MOMENT).is_some() {}
        assert_eq!(
            control.kept.len(),
            3,
            "the other worker is still at the first"
        );
        assert!(links[1].adopt());
        assert_eq!(weak.strong_count(), 1, "only control holds it");
        while control.receive(MOMENT).is_some() {}
        assert_eq!((control.kept.len(), weak.strong_count()), (1, 0));
    }

    #[test]
    fn a_worker_that_ended_is_not_waited_for() {
        let (mut control, mut links) = link(2, snapshot(1)).unwrap();
        control.publish(snapshot(2));
        links.pop().unwrap().report_stopped("test");
        assert!(links[0].adopt());
        let mut others = Vec::new();
        assert!(control.await_adoption(2, MOMENT, |report| others.push(report)));
        let reason = "test".to_owned();
        assert_eq!(others, [Report::Stopped { worker: 1, reason }]);
    }

    #[test]
    fn a_worker_that_does_not_turn_is_silent() {
        let (mut control, mut links) = link(2, snapshot(1)).unwrap();
        assert_eq!(
            control.silent(),
            [0usize; 0],
            "the first look has nothing to compare"
        );
        links[0].turn();
        assert_eq!(control.silent(), [1]);
        links.pop().unwrap().report_stopped("test");
        while control.receive(MOMENT).is_some() {}
        assert_eq!(control.silent(), [0], "an ended one is told otherwise");
    }

    #[test]
    fn adoption_is_said_also_after_the_channel_was_full() {
        let (mut control, mut links) = link(1, snapshot(1)).unwrap();
        let key = NeighbourKey {
            device: 1,
            address: "10.0.0.1".parse().unwrap(),
        };
        while links[0].report(Report::Resolve(key)) {}
        control.publish(snapshot(2));
        assert!(links[0].adopt());
        while let Some(report) = control.receive(MOMENT) {
            assert_eq!(report, Report::Resolve(key));
        }
        assert!(!control.is_adopted(2));
        assert!(!links[0].adopt(), "nothing new, but now there is room");
        assert!(control.await_adoption(2, MOMENT, |_| ()));
    }
}
