//! What a real server is, and the load that schedulers weigh.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use serde::{Deserialize, Serialize};

use crate::service::ServiceId;

/// What identifies a real server within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerKey {
    /// The real server's address (RIP).
    pub address: IpAddr,
    /// Its port; 0 keeps the packet's own (any-port and fwmark services).
    pub port: u16,
}

/// What a tunnel's header carries for checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelChecksum {
    /// None (`--tun-nocsum`).
    #[default]
    None,
    /// The outer checksum (`--tun-csum`).
    Full,
    /// Remote checksum offload, GUE only (`--tun-remcsum`).
    Remote,
}

/// How a tunnel wraps packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tunnel {
    /// IP in IP (RFC 2003, RFC 2473).
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// The UDP destination port.
        port: u16,
        /// The checksum variant.
        checksum: TunnelChecksum,
    },
    /// GRE (RFC 2784).
    Gre {
        /// The checksum variant; never `Remote`.
        checksum: TunnelChecksum,
    },
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// NAT: rewrite addresses and ports; replies come back through the director.
    Masquerade,
    /// Direct routing: rewrite the MAC address only.
    Route,
    /// IP tunnel.
    Tunnel(Tunnel),
}

/// All that can be edited about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Its share, 0 to 2,147,483,647; 0 takes no new connections.
    pub weight: u32,
    /// No new connections at this many connections; 0 sets no limit.
    #[serde(default)]
    pub upper_threshold: u32,
    /// New connections again below this many; 0 stands for 75 % of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
}

/// A dense number for a server, kept while a connection refers to it. Connections name
/// their server by it and workers index their counters by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerId(pub u32);

/// The live counts that schedulers weigh. Shared by all versions of a server and written
/// by every worker, but only when a connection begins, ends or changes between active and
/// inactive: never for each packet.
#[derive(Debug, Default)]
pub struct Load {
    /// Connections that count as active.
    pub active: AtomicU32,
    /// All other connections.
    pub inactive: AtomicU32,
    /// Persistence templates that name this server.
    pub persistent: AtomicU32,
    /// Above its upper threshold and not yet below the lower one.
    pub overloaded: AtomicBool,
}

/// A real server as workers see it. Immutable but for its load: an edit makes a new one.
#[derive(Debug)]
pub struct RealServer {
    /// Its number.
    pub id: ServerId,
    /// The service it belongs (or, once removed, belonged) to.
    pub service: ServiceId,
    /// What it is found by.
    pub key: ServerKey,
    /// What can be edited.
    pub spec: ServerSpec,
    /// False once it was removed and only its connections still know it.
    pub available: bool,
    /// Its live counts.
    pub load: Arc<Load>,
}
