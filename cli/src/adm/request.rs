//! What a line means. Valid by construction: the parser makes no other.

use std::net::IpAddr;

use sched::command::Command;
use sched::service::ServiceKey;
use serde::{Deserialize, Serialize};

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
    /// Change the table.
    Change(Command),
    /// Print a listing.
    List(Listing, Format),
    /// Print the table as lines for `-R`.
    Save {
        /// Numbers, not names.
        numeric: bool,
    },
    /// Carry out the lines on standard input.
    Restore,
    /// Start a synchronization daemon.
    StartDaemon(DaemonSpec),
    /// Stop a synchronization daemon.
    StopDaemon {
        /// Which.
        role: DaemonRole,
        /// Its sync id; 0 stands for any.
        sync_id: u8,
    },
}

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Every service.
    Services,
    /// One service.
    Service(ServiceKey),
    /// The connections.
    Connections,
    /// The timeouts.
    Timeouts,
    /// The synchronization daemons.
    Daemons,
}

/// How to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// What each service and server is shown with.
    pub columns: Columns,
    /// Numbers, not names.
    pub numeric: bool,
    /// Large numbers in full.
    pub exact: bool,
    /// In the order they come.
    pub unsorted: bool,
    /// `--persistent-conn`, which also widens the list of connections.
    pub persistent_conn: bool,
}

/// The columns beside a service or server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Forwarding method, weight, active and inactive connections.
    #[default]
    Plain,
    /// The same with tunnels.
    TunnelInfo,
    /// Weight, persistent, active and inactive connections.
    PersistentConn,
    /// Thresholds, active and inactive connections.
    Thresholds,
    /// Rates.
    Rate,
    /// Counters.
    Stats,
}

/// Which half of connection synchronization a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonRole {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

impl DaemonRole {
    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "master" => Some(Self::Master),
            "backup" => Some(Self::Backup),
            _ => None,
        }
    }
}

/// A synchronization daemon to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSpec {
    /// Which half.
    pub role: DaemonRole,
    /// The device that it multicasts on.
    pub interface: String,
    /// Its sync id.
    pub sync_id: u8,
    /// The longest message, bytes; none stands for the device's MTU.
    pub max_length_bytes: Option<u16>,
    /// The group; none stands for 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The UDP port; none stands for 8848.
    pub port: Option<u16>,
    /// The time to live; none stands for 1.
    pub ttl: Option<u8>,
}
