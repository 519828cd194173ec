//! Why a queue cannot be opened, in words that say what to do.

use std::io;

use super::QueueSetup;
use crate::port::CHUNK_BYTES;

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// The kernel has no AF_XDP.
    #[error("this kernel has no AF_XDP: lvx needs Linux 5.15 or later with CONFIG_XDP_SOCKETS")]
    Unsupported,
    /// The process may not.
    #[error("AF_XDP sockets are not permitted: run as root (they need CAP_NET_RAW)")]
    NotPermitted,
    /// Another socket has the queue.
    #[error(
        "queue {queue} of {device} is taken by another AF_XDP socket: end the process that has it (`ss --xdp -p` lists them)"
    )]
    Busy {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// The device has no such queue.
    #[error("{device} has no queue {queue}: `ethtool -l {device}` lists them")]
    NoSuchQueue {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// No memory for the frames: MiB, and what the kernel said.
    #[error(
        "no memory for {0} MiB of frames ({1}): free some, or start fewer workers (`--queues`)"
    )]
    Memory(u64, String),
    /// More memory would be locked than this process may lock.
    #[error(
        "the frames' memory cannot be locked: give the process CAP_IPC_LOCK, or raise its limit of locked memory (`ulimit -l`)"
    )]
    LockedMemory,
    /// The device cannot do what the others do.
    #[error(
        "{0} has generic XDP only, and the other ports have zero-copy: start the director again, then all are in copy mode"
    )]
    GenericOnly(String),
    /// The device went away.
    #[error("{0} is gone: `ip link` lists the network devices there are")]
    DeviceGone(String),
    /// Anything else.
    #[error("AF_XDP socket on queue {queue} of {device}: {cause}")]
    Socket {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl AfXdpError {
    /// From making the frames' memory.
    pub(super) fn memory(chunks: u32, error: &io::Error) -> Self {
        let mebibytes = (u64::from(chunks) * CHUNK_BYTES as u64) >> 20;
        Self::Memory(mebibytes, error.to_string())
    }

    /// From making a socket, or binding it.
    pub(super) fn from_socket(setup: QueueSetup<'_>, error: io::Error) -> Self {
        let (device, queue) = (setup.device.name.clone(), setup.queue);
        match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => Self::Unsupported,
            Some(libc::EPERM) => Self::NotPermitted,
            Some(libc::ENOBUFS) => Self::LockedMemory,
            Some(libc::EBUSY) => Self::Busy { device, queue },
            Some(libc::ENODEV | libc::ENXIO) => Self::DeviceGone(device),
            Some(libc::EINVAL) if queue >= setup.device.queues => {
                Self::NoSuchQueue { device, queue }
            }
            _ => Self::Socket {
                device,
                queue,
                cause: error,
            },
        }
    }

    /// Why there is no zero-copy, where that is what this tells.
    pub(super) fn no_zero_copy(self) -> Result<String, Self> {
        let Self::Socket {
            device,
            queue,
            cause,
        } = self
        else {
            return Err(self);
        };
        Ok(match cause.kind() {
            io::ErrorKind::Unsupported => format!("the driver of {device} has no zero-copy"),
            _ => format!(
                "the driver of {device} refused zero-copy on queue {queue} ({cause}): its kernel \
                 log or docs/platforms.md may tell what it needs"
            ),
        })
    }
}
