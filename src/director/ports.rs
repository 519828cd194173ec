//! A port whose device goes, and the device that takes its place: the steering program, the
//! AF_XDP sockets and the workers' queues are let go of and made anew, while all else runs
//! on ([why so](../../docs/decisions/devices.md)).

pub mod fit;
pub mod health;

use std::sync::Arc;
use std::time::Duration;

use dataplane::hops::PortId;
use dataplane::port::afxdp;
use dataplane::port::afxdp::{AfXdpPort, Anchor, QueueSetup};
use dataplane::port::device::Device;
use dataplane::port::steering::{Mode, Steering};
use dataplane::port::{MTU_MAX, ONE_CHUNK_MTU, SURE_MTU};
use parking_lot::Mutex;

use super::hand_over::Offer;
use super::neighbours;
use super::neighbours::links::PortFacts;
use super::worker::QUEUES_MAX;
use super::worker::plugs::PlugBoard;

/// How long workers have to give queues back. They do when they adopt a snapshot.
const PATIENCE: Duration = Duration::from_secs(1);

/// What [`Device::index`] of an absent device is.
const NO_DEVICE: u32 = 0;

/// The ports of a director that runs.
#[derive(Debug)]
pub struct Ports {
    /// Each worker's memory, to open more sockets over.
    pub anchors: Vec<Anchor>,
    /// The way to the workers.
    pub board: PlugBoard<AfXdpPort>,
    /// What a process that takes over is told.
    pub offer: Arc<Mutex<Offer>>,
    /// How many queues of each port are open, the first ones; by the port's place.
    pub open: Vec<u32>,
}

impl Ports {
    /// Lets go of a port whose device has gone; workers do with the next snapshot.
    pub fn gone(&mut self, port: PortId, steering: &mut Steering) {
        steering.detach(port);
        self.anchors.iter_mut().for_each(|a| a.release(port));
        self.board.unplug(port);
        self.note_open(port, 0);
        self.offer(port, NO_DEVICE);
    }

    fn note_open(&mut self, port: PortId, queues: u32) {
        if let Some(open) = self.open.get_mut(usize::from(port.0)) {
            *open = queues;
        }
    }

    /// The largest packets that the open queues certainly take.
    pub fn largest_mtu(&self) -> u32 {
        let mut anchors = self.anchors.iter();
        match anchors.any(Anchor::takes_several_chunks) {
            true => MTU_MAX,
            // Where the kernel has them, they would be open if a port had been wider at start.
            false if afxdp::takes_several_chunks() => SURE_MTU,
            false => ONE_CHUNK_MTU,
        }
    }

    /// Opens the queues that a port's device has got since; workers have them with the next
    /// snapshot. How many there were and are, where that is news.
    pub fn follow_queues(
        &mut self,
        port: PortId,
        (index, facts): (u32, &PortFacts),
        steering: &mut Steering,
    ) -> Result<Option<(u32, u32)>, String> {
        let before = self.open.get(usize::from(port.0)).copied().unwrap_or(0);
        if fit::queues_now(index, facts) == before {
            return Ok(None);
        }
        let device = found(index)?;
        let shares = self.shares(port, &device, before)?;
        let kept: Vec<usize> = self.anchors.iter().map(Anchor::sockets).collect();
        let opened = self.open(&shares, steering).inspect_err(|_| {
            let anchors = self.anchors.iter_mut().zip(kept);
            anchors.for_each(|(anchor, sockets)| anchor.keep(sockets));
        })?;
        for (worker, queues) in opened.into_iter().enumerate() {
            if !queues.is_empty() {
                self.board.plug(worker, port, queues);
            }
        }
        self.note_open(port, device.queues);
        Ok(Some((before, device.queues)))
    }

    fn offer(&self, port: PortId, index: u32) {
        if let Some(offered) = self.offer.lock().ports.get_mut(usize::from(port.0)) {
            *offered = index;
        }
    }

    /// Makes a port of the device with this index; workers have it with the next snapshot.
    /// Those must have adopted the one since the port had gone.
    pub fn back(
        &mut self,
        port: PortId,
        index: u32,
        steering: &mut Steering,
    ) -> Result<(), String> {
        let slow = self.board.close(port, PATIENCE);
        if !slow.is_empty() {
            return Err(format!(
                "worker {slow:?} has not let go of the old device's queues"
            ));
        }
        let device = found(index)?;
        let shares = self.shares(port, &device, 0)?;
        steering.detach(port);
        steering
            .attach_again(port, &device)
            .map_err(|error| error.to_string())?;
        let opened = self
            .expect(port, steering)
            .and_then(|()| self.open(&shares, steering));
        let Ok(opened) = opened else {
            steering.detach(port);
            self.anchors.iter_mut().for_each(|a| a.release(port));
            return opened.map(|_| ());
        };
        for (worker, queues) in opened.into_iter().enumerate() {
            self.board.plug(worker, port, queues);
        }
        self.note_open(port, device.queues);
        self.offer(port, index);
        Ok(())
    }

    /// Closes what this has of the workers' sockets, which go with the workers then.
    pub fn release(&mut self) {
        self.anchors.iter_mut().for_each(Anchor::release_all);
    }

    /// Each worker's queues of a device, from this one on.
    fn shares<'a>(
        &self,
        port: PortId,
        device: &'a Device,
        first: u32,
    ) -> Result<Vec<Vec<QueueSetup<'a>>>, String> {
        let workers = self.anchors.len();
        if (device.queues as usize) < workers {
            return Err(format!(
                "{0} has {1} queues now, fewer than the {workers} workers: `ethtool -L {0} \
                 combined {workers}`",
                device.name, device.queues
            ));
        }
        let shares = (0..workers).map(|worker| {
            let mut share = queues_of(port, device, worker, workers);
            share.retain(|setup| setup.queue >= first);
            share
        });
        let shares: Vec<Vec<_>> = shares.collect();
        let is_full =
            |(share, anchor): (&Vec<_>, &Anchor)| share.len() + anchor.sockets() > QUEUES_MAX;
        if shares.iter().zip(&self.anchors).any(is_full) {
            return Err(format!(
                "{} has {} queues now, too many for {workers} workers: `ethtool -L {0} combined \
                 {workers}`",
                device.name, device.queues
            ));
        }
        Ok(shares)
    }

    fn expect(&mut self, port: PortId, steering: &Steering) -> Result<(), String> {
        let attached = steering.modes().nth(usize::from(port.0));
        let (device, mode) = attached.ok_or("no such port")?;
        let is_native = *mode == Mode::Native;
        let mut anchors = self.anchors.iter_mut();
        anchors
            .try_for_each(|anchor| anchor.expect(&device.name, is_native))
            .map_err(|error| error.to_string())
    }

    fn open(
        &mut self,
        shares: &[Vec<QueueSetup<'_>>],
        steering: &mut Steering,
    ) -> Result<Vec<Vec<AfXdpPort>>, String> {
        let mut all = Vec::new();
        for (share, anchor) in shares.iter().zip(&mut self.anchors) {
            let queues = anchor.open(share).map_err(|error| error.to_string())?;
            for queue in &queues {
                steering
                    .register(queue.port(), queue.queue(), queue.socket())
                    .map_err(|error| error.to_string())?;
            }
            all.push(queues);
        }
        Ok(all)
    }
}

/// The device with this index, fit to be a port.
fn found(index: u32) -> Result<Device, String> {
    let mut device = Device::find_by_index(index).map_err(|error| error.to_string())?;
    let links = neighbours::links_now().map_err(|error| format!("rtnetlink: {error}"))?;
    fit::fit(&mut device, &links).map_err(|error| error.to_string())?;
    Ok(device)
}

/// The queues of a device that one of so many workers serves: its own, and every so many
/// queues on.
pub fn queues_of(
    port: PortId,
    device: &Device,
    worker: usize,
    workers: usize,
) -> Vec<QueueSetup<'_>> {
    let queues = (worker as u32..device.queues).step_by(workers);
    let setup = |queue| QueueSetup {
        port,
        device,
        queue,
    };
    queues.map(setup).collect()
}
