//! Why frames cannot be steered, in words that say what to do.

use std::error::Error;
use std::io;

use aya::maps::MapError;
use aya::programs::{ProgramError, loaded_programs};

use super::PORTS_MAX;
use crate::port::device::Device;

/// Why frames cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The process may not load programs.
    #[error(
        "loading the steering program is not permitted: root may, or who has CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, unless a seccomp profile or security module forbids bpf(2) (a container needs `--security-opt seccomp=unconfined`, or a profile with bpf)"
    )]
    NotPermitted,
    /// The kernel lacks what the program needs.
    #[error(
        "this kernel cannot run the steering program ({0}): lvx needs Linux 5.15 or later with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS"
    )]
    Unsupported(String),
    /// The device has an XDP program already.
    #[error(
        "{device} already runs the XDP program {name} (id {id}): end the process that attached it, `lvx clean` where a killed director left it, or `ip link set dev {device} xdp off`"
    )]
    Occupied {
        /// The device.
        device: String,
        /// The program's number.
        id: u32,
        /// The program's name.
        name: String,
    },
    /// The device went away.
    #[error("{0} is gone: `ip link` lists the network devices there are")]
    DeviceGone(String),
    /// Neither the driver nor the stack took the program.
    #[error(
        "{device} takes no XDP program ({cause}): check its MTU and features, or choose another port"
    )]
    Refused {
        /// The device.
        device: String,
        /// What the kernel said.
        cause: String,
    },
    /// More ports than the program's maps hold.
    #[error("{0} ports: a director has at most {PORTS_MAX}")]
    TooManyPorts(usize),
    /// A queue number beyond the maps.
    #[error("port {port} has no queue {queue} for a socket")]
    NoSuchQueue {
        /// The port's number.
        port: u8,
        /// The queue.
        queue: u32,
    },
    /// A map is full.
    #[error(
        "the steering program's map {name} is full: lvx steers {limit} of them at most; the last change is not in force, take some services or servers out"
    )]
    Full {
        /// The map.
        name: &'static str,
        /// Its size.
        limit: u32,
    },
    /// The program, a map or a link could not be pinned, or its pin not be taken up.
    #[error("the pin {path}: {cause}")]
    Pin {
        /// Its name in the BPF file system.
        path: std::path::PathBuf,
        /// What the kernel said.
        cause: String,
    },
    /// A map could not be read or written.
    #[error("the steering program's map {name}: {cause}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        cause: String,
    },
}

impl SteeringError {
    /// From creating maps or loading the program.
    pub(in crate::port) fn from_load(error: &(dyn Error + 'static)) -> Self {
        match errno_of(error) {
            Some(libc::EPERM) => Self::NotPermitted,
            _ => Self::Unsupported(one_line(error)),
        }
    }

    /// From attaching it.
    pub(in crate::port) fn from_attach(device: &Device, error: &ProgramError) -> Self {
        let name = device.name.clone();
        match errno_of(error) {
            Some(libc::EPERM) => Self::NotPermitted,
            Some(libc::ENODEV) => Self::DeviceGone(name),
            // Someone was faster than our own look.
            Some(libc::EBUSY | libc::EEXIST) => {
                occupied(device, super::program_on(device.index).unwrap_or(0))
            }
            _ => Self::Refused {
                device: name,
                cause: one_line(error),
            },
        }
    }
}

/// The error that names the program in the way.
pub(super) fn occupied(device: &Device, id: u32) -> SteeringError {
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty());
    SteeringError::Occupied {
        device: device.name.clone(),
        id,
        name: name.unwrap_or_else(|| "(without a name)".to_owned()),
    }
}

pub(in crate::port) fn map_failed(name: &'static str, error: &MapError) -> SteeringError {
    SteeringError::Map {
        name,
        cause: one_line(error),
    }
}

pub(super) fn pin_failed(path: &std::path::Path, cause: String) -> SteeringError {
    let path = path.to_owned();
    SteeringError::Pin { path, cause }
}

/// The kernel's error number at the bottom of a chain of errors.
pub(super) fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        at = error.source();
    }
    None
}

/// The chain of errors in one line; a verifier's log goes no further than its first.
pub(super) fn one_line(error: &(dyn Error + 'static)) -> String {
    if let Some(number) = errno_of(error) {
        return io::Error::from_raw_os_error(number).to_string();
    }
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
