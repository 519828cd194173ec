//! The workers' queues: opened, or resumed from another process's.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use dataplane::hops::PortId;
use dataplane::port::afxdp::{
    self, AfXdpOptions, AfXdpPort, Anchor, PassedQueues, QueueSetup, Transfer, takes_several_chunks,
};
use dataplane::port::device::Device;
use dataplane::port::steering::{Mode, Steering};
use dataplane::port::{CHUNK_BYTES, Frames, Port, SURE_MTU};

use super::error::system;
use super::{Options, StartError};
use crate::director::ports;

/// One worker's queues.
pub(super) struct WorkerQueues {
    pub(super) frames: Frames,
    pub(super) ports: Vec<(PortId, AfXdpPort)>,
    pub(super) transfer: Transfer,
}

impl WorkerQueues {
    /// Why frames are copied between the driver and the worker's memory, if they are.
    pub(super) fn copies_because(&self) -> Option<String> {
        match &self.transfer {
            Transfer::ZeroCopy => None,
            Transfer::Copy(why) => Some(why.clone()),
        }
    }

    /// Whether another process can go on with them.
    pub(super) fn can_be_passed(&self) -> bool {
        self.ports.iter().all(|(_, port)| port.can_be_passed())
    }
}

/// Whether a packet of these ports may be larger than every driver takes in one buffer. Needs
/// Linux 6.6; without, [`Device::find`] refuses what is larger than a chunk.
pub(super) fn are_jumbo(devices: &[Device]) -> bool {
    devices.iter().any(|device| device.mtu > SURE_MTU) && takes_several_chunks()
}

/// Whether frames of the ports may take several chunks: jumbo frames, and in generic mode those
/// that the kernel joined, or left whole, before the program saw them.
pub(super) fn several_chunks(devices: &[Device], steering: &Steering) -> bool {
    are_jumbo(devices) || generic_port(steering).is_some() && takes_several_chunks()
}

/// Worker n serves queue n of every port, and every so many queues on, so that each queue
/// of each port is served.
pub(super) fn open_queues(
    options: &Options,
    devices: &[Device],
    workers: usize,
    steering: &mut Steering,
) -> Result<Vec<WorkerQueues>, StartError> {
    let generic = generic_port(steering);
    let afxdp_options = AfXdpOptions {
        may_zero_copy: !options.copy && generic.is_none(),
        several_chunks: several_chunks(devices, steering),
        ..AfXdpOptions::default()
    };
    let setups: Vec<Vec<QueueSetup<'_>>> = (0..workers)
        .map(|worker| setups(devices, worker, workers))
        .collect();
    // Making the frames' memory takes longest, and each worker has its own.
    let opened: Vec<_> = thread::scope(|scope| {
        let open = |setups| scope.spawn(move || afxdp::open(setups, afxdp_options));
        let threads: Vec<_> = setups.iter().map(|setups| open(setups)).collect();
        threads.into_iter().map(joined).collect()
    });
    let mut all = Vec::new();
    for opened in opened {
        let queues = opened?;
        let mut ports = Vec::new();
        for port in queues.ports {
            if let Some(descriptor) = port.descriptor() {
                steering.register(port.port(), port.queue(), descriptor)?;
            }
            ports.push((port.port(), port));
        }
        let transfer = match &generic {
            Some(why) if !options.copy => Transfer::Copy(why.clone()),
            _ => queues.transfer,
        };
        all.push(WorkerQueues {
            frames: queues.frames,
            ports,
            transfer,
        });
    }
    Ok(all)
}

/// Why there can be no zero-copy, where a port has the program in generic mode: its driver would
/// grant it, and frames would then never reach the program. All of a worker's sockets are alike.
fn generic_port(steering: &Steering) -> Option<String> {
    let mut modes = steering.modes();
    let is_generic = |(_, mode): &(&Device, &Mode)| matches!(mode, Mode::Generic(_));
    let (device, _) = modes.find(is_generic)?;
    Some(format!("{} has generic XDP only", device.name))
}

/// The frames' memory of all workers, bytes: the kernel locks it.
pub(super) fn locked_bytes(devices: &[Device]) -> u64 {
    let queues: u64 = devices.iter().map(|device| u64::from(device.queues)).sum();
    let frames = u64::from(AfXdpOptions::default().frames_per_queue);
    queues * frames * CHUNK_BYTES as u64
}

/// What the workers' queues are opened anew with.
pub(super) fn anchors(
    options: &Options,
    queues: &[WorkerQueues],
    several_chunks: bool,
) -> Result<Vec<Anchor>, StartError> {
    let options = AfXdpOptions {
        may_zero_copy: !options.copy,
        several_chunks,
        ..AfXdpOptions::default()
    };
    let anchor = |q: &WorkerQueues| Anchor::of(&q.frames, &q.ports, &q.transfer, options);
    let anchors: io::Result<Vec<_>> = queues.iter().map(anchor).collect();
    let anchors = anchors.map_err(|e| system("AF_XDP sockets", e))?;
    Ok(anchors.into_iter().flatten().collect())
}

/// How many queues of each port are open.
pub(super) fn open_queues_of(ports: usize, queues: &[WorkerQueues]) -> Vec<u32> {
    let mut open = vec![0; ports];
    for (port, queue) in queues.iter().flat_map(|worker| &worker.ports) {
        let open = &mut open[usize::from(port.0)];
        *open = queue.queue().saturating_add(1).max(*open);
    }
    open
}

/// The ports that no worker has a queue of: their devices were absent, or went while another
/// process had them.
pub(super) fn absentees(ports: usize, queues: &[WorkerQueues]) -> Vec<PortId> {
    let is_served = |port: &PortId| {
        let mut own = queues.iter().flat_map(|queues| &queues.ports);
        own.any(|(id, _)| id == port)
    };
    let ports = (0..ports).map(|place| PortId(place as u8));
    ports.filter(|port| !is_served(port)).collect()
}

/// The queues of one of so many workers.
fn setups(devices: &[Device], worker: usize, workers: usize) -> Vec<QueueSetup<'_>> {
    let mut setups = Vec::new();
    for (place, device) in devices.iter().enumerate() {
        let port = PortId(place as u8);
        setups.extend(ports::queues_of(port, device, worker, workers));
    }
    setups
}

/// Goes on with the queues that another process passed.
pub(super) fn resume_queues(
    workers: impl Iterator<Item = (PassedQueues, Vec<OwnedFd>)>,
    steering: &mut Steering,
    copies_because: Option<&str>,
) -> Result<Vec<WorkerQueues>, StartError> {
    let mut all = Vec::new();
    for (passed, descriptors) in workers {
        let resumed = afxdp::resume(&passed, descriptors);
        let (frames, ports) = resumed.map_err(|e| system("queues that were passed", e))?;
        for (id, port) in &ports {
            if let Some(descriptor) = port.descriptor() {
                steering.register(*id, port.queue(), descriptor)?;
            }
        }
        let is_zero_copy = ports.iter().all(|(_, port)| port.is_zero_copy());
        let transfer = match copies_because {
            Some(why) if !is_zero_copy => Transfer::Copy(why.to_owned()),
            _ => Transfer::ZeroCopy,
        };
        all.push(WorkerQueues {
            frames,
            ports,
            transfer,
        });
    }
    Ok(all)
}

/// What a thread came to; where it panicked, so does this one.
pub(super) fn joined<T, E>(thread: thread::ScopedJoinHandle<'_, Result<T, E>>) -> Result<T, E> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
