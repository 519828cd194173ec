//! How ports are taken from workers and given to them while they run: a device vanished, or
//! another took its place. Control puts a change into each worker's box and publishes a
//! snapshot; a worker looks into its box when it adopts one, so a turn costs no more than
//! before. Sockets are opened and closed by control: both take the kernel many
//! milliseconds, and a worker may do neither.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::hops::PortId;
use dataplane::port::steering::PORTS_MAX;

/// Changes that wait for one worker: each port may go and come back, twice.
const CHANGES_MAX: usize = 4 * PORTS_MAX;

/// What becomes of a port.
#[derive(Debug)]
pub enum PortChange<P> {
    /// Its device has gone: give its queues back.
    Unplug(PortId),
    /// Those have been closed; these are of the device that took its place.
    Plug(PortId, Vec<P>),
}

/// A worker's queues of a port whose device has gone.
#[derive(Debug)]
pub struct Unplugged<P> {
    /// Which worker.
    pub worker: usize,
    /// The port.
    pub port: PortId,
    /// Closed when dropped, which takes the kernel a while.
    pub queues: Vec<P>,
}

/// Control's end.
#[derive(Debug)]
pub struct PlugBoard<P> {
    boxes: Vec<Sender<PortChange<P>>>,
    back: Receiver<Unplugged<P>>,
    /// Workers that have yet to give back a port's queues.
    missing: Vec<(PortId, usize)>,
}

/// A worker's end.
#[derive(Debug)]
pub struct Plugs<P> {
    worker: usize,
    changes: Receiver<PortChange<P>>,
    back: Sender<Unplugged<P>>,
}

/// A board for this many workers.
pub fn plug_board<P>(workers: usize) -> (PlugBoard<P>, Vec<Plugs<P>>) {
    let (back_sender, back) = bounded(workers * CHANGES_MAX);
    let (mut boxes, mut plugs) = (Vec::new(), Vec::new());
    for worker in 0..workers {
        let (sender, changes) = bounded(CHANGES_MAX);
        boxes.push(sender);
        plugs.push(Plugs {
            worker,
            changes,
            back: back_sender.clone(),
        });
    }
    let missing = Vec::new();
    let board = PlugBoard {
        boxes,
        back,
        missing,
    };
    (board, plugs)
}

impl<P> PlugBoard<P> {
    /// Has all workers give back the port's queues, once a snapshot is published.
    pub fn unplug(&mut self, port: PortId) {
        for (worker, sender) in self.boxes.iter().enumerate() {
            // No room, or no worker: then it is missing for good, and the port stays away.
            let _ = sender.try_send(PortChange::Unplug(port));
            self.missing.push((port, worker));
        }
    }

    /// Closes what was given back, waiting this long for what was not. The workers that
    /// have the port's queues still.
    pub fn close(&mut self, port: PortId, patience: Duration) -> Vec<usize> {
        let end = Instant::now() + patience;
        loop {
            let missing: Vec<usize> = self.of(port).collect();
            if missing.is_empty() {
                return missing;
            }
            match self.back.recv_deadline(end) {
                Ok(back) => {
                    drop(back.queues);
                    let is_it = |own: &(PortId, usize)| *own == (back.port, back.worker);
                    if let Some(place) = self.missing.iter().position(is_it) {
                        self.missing.swap_remove(place);
                    }
                }
                Err(_) => return missing,
            }
        }
    }

    fn of(&self, port: PortId) -> impl Iterator<Item = usize> {
        let own = self.missing.iter().filter(move |own| own.0 == port);
        own.map(|own| own.1)
    }

    /// Gives a worker queues of a port, once a snapshot is published.
    pub fn plug(&self, worker: usize, port: PortId, queues: Vec<P>) {
        let _ = self.boxes[worker].try_send(PortChange::Plug(port, queues));
    }
}

impl<P> Plugs<P> {
    /// The next change, if there is one.
    pub(super) fn next(&self) -> Option<PortChange<P>> {
        self.changes.try_recv().ok()
    }

    /// Gives queues back. Without a control, they are closed here.
    pub(super) fn give_back(&self, port: PortId, queues: Vec<P>) {
        let _ = self.back.try_send(Unplugged {
            worker: self.worker,
            port,
            queues,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_closed_once_all_workers_gave_it_back() {
        let (mut board, plugs) = plug_board::<u8>(2);
        let port = PortId(3);
        board.unplug(port);
        assert_eq!(board.close(port, Duration::ZERO), [0, 1]);
        for own in &plugs {
            assert!(matches!(own.next(), Some(PortChange::Unplug(PortId(3)))));
            assert!(own.next().is_none());
        }
        plugs[1].give_back(port, vec![7]);
        assert_eq!(board.close(port, Duration::ZERO), [0]);
        plugs[0].give_back(port, vec![]);
        assert_eq!(board.close(port, Duration::ZERO), [0usize; 0]);
        board.plug(1, port, vec![8, 9]);
        assert!(matches!(plugs[1].next(), Some(PortChange::Plug(PortId(3), q)) if q == [8, 9]));
        assert!(plugs[0].next().is_none());
    }
}
