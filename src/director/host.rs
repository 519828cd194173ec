//! The way to the host's own stack, for frames that were taken up but are not the
//! director's: a tap device, whose frames the host receives as if from a network card.
//!
//! The host must treat them as it would have on the port they came by, so the device
//! filters nothing itself: no reverse-path filter, and no addresses that packets could be
//! meant for. Answers leave by the host's routes, not by this device. What tells input
//! devices apart (firewall rules with `iif`, VRFs) sees the tap device.
//!
//! The device lives as long as a queue of it is open: nothing stays behind, however the
//! process ends.

mod conf;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;

use dataplane::frame::Frame;
use dataplane::hops::Mac;
use dataplane::verdict::Reason;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// What makes tap devices.
const DRIVER: &str = "/dev/net/tun";
/// Linux puts the lowest free number in place of the mark.
const NAME: &str = "lvx%d";
/// The frames that the host itself sends here (router solicitations and the like) are
/// read by nobody: keep few.
const SEND_QUEUE_FRAMES: u32 = 2;
/// 65,535 less the link header, the largest that Linux's tun driver takes (its `max_mtu`).
const MTU_BYTES_MAX: u16 = 65_521;
/// EtherTypes of VLAN tags (IEEE 802.1Q and 802.1ad).
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

const MACS_BYTES: usize = 12;
const LINK_HEADER_BYTES: usize = 14;
const TAG_BYTES: usize = 4;

/// Why the tap device cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// What makes tap devices is not there, or not for this process.
    #[error(
        "{DRIVER} cannot be opened ({0}), so there is no tap device for the host's own packets: \
         `modprobe tun` where it is missing, a container needs `--device {DRIVER}`, a user other \
         than root the right to read and write it"
    )]
    Driver(io::Error),
    /// No device could be made.
    #[error("no tap device for the host's own packets can be made: {0}")]
    Open(io::Error),
    /// The device could not be set up.
    #[error("the tap device {device} cannot be set up ({what}): {error}")]
    SetUp {
        /// Its name.
        device: String,
        /// What failed.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// Whether a tap device can be made at all.
pub fn check() -> Result<(), HostError> {
    let opened = File::options().read(true).write(true).open(DRIVER);
    opened.map(|_| ()).map_err(HostError::Driver)
}

/// One worker's queue to the host.
pub struct HostQueue {
    queue: SyncDevice,
    mac: Mac,
}

/// The tap device.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub device: String,
    /// What the operator should know: settings of the host that keep packets from it.
    pub warnings: Vec<String>,
}

impl Host {
    /// Makes the device in the calling thread's network namespace, with one queue for
    /// each worker. `mtu_bytes` is the largest of the ports' MTUs.
    pub fn open(workers: usize, mtu_bytes: u32) -> Result<(Self, Vec<HostQueue>), HostError> {
        let first = DeviceBuilder::new()
            .name(NAME)
            .layer(Layer::L2)
            // Up only when all is set: it must not get a link-local address.
            .enable(false)
            .with(|options| {
                options.multi_queue(true).packet_information(false);
            })
            .build_sync()
            .map_err(HostError::Open)?;
        let device = first.name().map_err(HostError::Open)?;
        let failed = |what, error| HostError::SetUp {
            device: device.clone(),
            what,
            error,
        };
        let mac = first
            .mac_address()
            .map_err(|error| failed("link address", error))?;
        let mtu = u16::try_from(mtu_bytes).map_or(MTU_BYTES_MAX, |m| m.clamp(1500, MTU_BYTES_MAX));
        first.set_mtu(mtu).map_err(|error| failed("MTU", error))?;
        first
            .set_tx_queue_len(SEND_QUEUE_FRAMES)
            .map_err(|error| failed("send queue", error))?;
        let index = first.if_index().map_err(|error| failed("index", error))?;
        let warnings = conf::set_up(&device, index).map_err(|error| failed("rtnetlink", error))?;
        first
            .enabled(true)
            .map_err(|error| failed("setting it up", error))?;
        let mut queues = Vec::new();
        for _ in 1..workers {
            let next = first.try_clone().map_err(|error| failed("queue", error))?;
            queues.push(HostQueue::new(next, mac).map_err(|error| failed("queue", error))?);
        }
        let first = HostQueue::new(first, mac).map_err(|error| failed("queue", error))?;
        queues.insert(0, first);
        Ok((Self { device, warnings }, queues))
    }

    /// More queues of a device that another process made, one for each worker.
    pub fn join(device: &str, workers: usize) -> Result<(Self, Vec<HostQueue>), HostError> {
        let mut queues = Vec::new();
        for _ in 0..workers {
            let queue = DeviceBuilder::new()
                .name(device)
                .layer(Layer::L2)
                .inherit_enable_state()
                .with(|options| {
                    options.multi_queue(true).packet_information(false);
                })
                .build_sync()
                .map_err(HostError::Open)?;
            let mac = queue.mac_address().map_err(HostError::Open)?;
            queues.push(HostQueue::new(queue, mac).map_err(HostError::Open)?);
        }
        let (device, warnings) = (device.to_owned(), Vec::new());
        Ok((Self { device, warnings }, queues))
    }
}

impl HostQueue {
    fn new(queue: SyncDevice, mac: Mac) -> io::Result<Self> {
        queue.set_nonblocking(true)?;
        Ok(Self { queue, mac })
    }

    /// Hands a frame to the host: addressed to the tap device and without VLAN tags. The
    /// transport checksum must be complete: unlike a network card, a tap device cannot
    /// say that it is not. Never blocks; Linux receives the packet within the call, on
    /// the caller's core.
    pub fn deliver(&self, frame: &mut Frame<'_>) -> Result<(), Reason> {
        strip_tags(frame);
        if frame.len() < LINK_HEADER_BYTES {
            return Err(Reason::LinkTruncated);
        }
        frame.bytes_mut()[..6].copy_from_slice(&self.mac);
        match self.queue.send(frame.bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err(Reason::HostFull),
        }
    }
}

impl std::fmt::Debug for HostQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostQueue").field("mac", &self.mac).finish()
    }
}

fn strip_tags(frame: &mut Frame<'_>) {
    while frame.len() >= LINK_HEADER_BYTES + TAG_BYTES {
        let bytes = frame.bytes_mut();
        let kind = [bytes[MACS_BYTES], bytes[MACS_BYTES + 1]];
        if !TAGS.contains(&kind) {
            return;
        }
        bytes.copy_within(..MACS_BYTES, TAG_BYTES);
        frame.shrink_front(TAG_BYTES);
    }
}
