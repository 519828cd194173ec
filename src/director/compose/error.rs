//! Why a director does not start.

use std::io;
use std::path::PathBuf;

use dataplane::port::afxdp::AfXdpError;
use dataplane::port::device::DeviceError;
use dataplane::port::steering::SteeringError;

use crate::director::api::ApiError;
use crate::director::host::HostError;
use crate::director::ports::fit::Unfit;
use crate::director::privilege::PrivilegeError;
use crate::director::state_dir::StateError;

/// Why a director does not start, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It may not.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A port named twice.
    #[error("port {0} is named twice: name each once")]
    Twice(String),
    /// More workers than a port has queues.
    #[error(
        "{port} has {has} queues, fewer than the {wanted} workers: `ethtool -L {port} combined \
         {wanted}`, or --queues {has}"
    )]
    TooFewQueues {
        /// The port.
        port: String,
        /// Its queues.
        has: u32,
        /// The workers.
        wanted: u32,
    },
    /// Cores that do not suffice or do not exist.
    #[error("{wanted} workers but {has} cores to tie them to: name as many with --cores")]
    TooFewCores {
        /// The workers.
        wanted: usize,
        /// The cores.
        has: usize,
    },
    /// A port's device is not there, and no state knows it.
    #[error(
        "no network device {0}: `ip link` lists those there are; correct the name, or start the \
         director when the device is there (a director waits only for ports that it had before)"
    )]
    Absent(String),
    /// A port's device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A port's device that is another one's member.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The steering program.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// The sockets.
    #[error(transparent)]
    AfXdp(#[from] AfXdpError),
    /// The tap device.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The API's socket.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The configuration file asks for what cannot be.
    #[error("{}: {reason}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another director's place.
    #[error("taking over: {0}")]
    TakeOver(String),
    /// Threads, descriptors, rtnetlink.
    #[error("{what}: {error}")]
    System {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// A worker ended.
    #[error("worker {worker} ended: {reason}; the director ends with it")]
    Worker {
        /// Which.
        worker: usize,
        /// Why.
        reason: String,
    },
}

pub(super) fn system(what: &'static str, error: io::Error) -> StartError {
    StartError::System { what, error }
}
