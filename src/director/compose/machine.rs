//! What of the machine a director uses: devices, workers, cores, the host's routing.

use std::io;

use dataplane::port::device::{Device, DeviceError};

use super::error::system;
use super::{Options, StartError};
use crate::director::control::Views;
use crate::director::neighbours::{self, Mirror, View};
use crate::director::ports::fit;

/// The ports' devices, in the order of their names.
pub(super) fn devices(options: &Options) -> Result<Vec<Device>, StartError> {
    let links = neighbours::links_now().map_err(|e| system("rtnetlink", e))?;
    let mut devices: Vec<Device> = Vec::new();
    for name in &options.ports {
        let mut device = match Device::find(name) {
            Err(DeviceError::Missing(_)) => absent(name, options)?,
            found => found?,
        };
        fit::fit(&mut device, &links)?;
        let is_it = |known: &Device| match device.is_there() {
            true => known.index == device.index,
            false => known.name == device.name,
        };
        if devices.iter().any(is_it) {
            return Err(StartError::Twice(name.clone()));
        }
        devices.push(device);
    }
    Ok(devices)
}

/// A device that is not there, but was a port of the director whose place this one takes:
/// all connections over other ports would wait for it else. A name that nobody knows may be
/// misspelled, and is not waited for.
fn absent(name: &str, options: &Options) -> Result<Device, StartError> {
    let known = options.state.known_ports(&options.api);
    let port = known.iter().find(|port| port.name == name);
    let port = port.ok_or_else(|| StartError::Absent(name.to_owned()))?;
    tracing::warn!(
        "there is no device {name} now: starting without it; what would leave by it is dropped \
         until one of that name is there"
    );
    Ok(Device::absent(name, port.queues, port.mtu))
}

/// As many as every port has queues for.
pub(super) fn workers(devices: &[Device], wanted: Option<u32>) -> Result<usize, StartError> {
    let fewest = devices.iter().min_by_key(|device| device.queues);
    let Some(fewest) = fewest else {
        return Ok(0);
    };
    match wanted {
        Some(wanted) if wanted > fewest.queues => Err(StartError::TooFewQueues {
            port: fewest.name.clone(),
            has: fewest.queues,
            wanted,
        }),
        Some(wanted) => Ok(wanted as usize),
        None => {
            // More workers than cores only take turns: the queues are shared out instead.
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok((fewest.queues as usize).min(cores))
        }
    }
}

/// The core of each worker.
pub(super) fn cores(options: &Options, workers: usize) -> Result<Vec<usize>, StartError> {
    let mut cores = options.cores.clone();
    if cores.is_empty() {
        let there = core_affinity::get_core_ids().unwrap_or_default();
        cores = there.into_iter().map(|core| core.id).collect();
    }
    if cores.len() < workers {
        return Err(StartError::TooFewCores {
            wanted: workers,
            has: cores.len(),
        });
    }
    cores.truncate(workers);
    Ok(cores)
}

/// The host's routing.
pub(super) struct Surroundings {
    pub(super) views: Views,
    pub(super) mirror: Mirror,
    pub(super) view: View,
}

impl Surroundings {
    pub(super) fn look(devices: &[Device]) -> Result<Self, StartError> {
        let (sender, views) = crossbeam_channel::unbounded();
        let port = |device: &Device| (device.index, device.name.clone());
        let ports = devices.iter().map(port).collect();
        let (mirror, view) = Mirror::start(ports, sender).map_err(|e| system("rtnetlink", e))?;
        Ok(Self {
            views,
            mirror,
            view,
        })
    }
}

/// Keys the connection table's hash, so that nobody can aim at one of its buckets.
pub(super) fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let file = std::fs::File::open("/dev/urandom")?;
    io::Read::read_exact(&mut &file, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
