//! What a virtual service is: the address (or firewall mark) that clients meet, and how
//! its connections are spread.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limit::Limiter;
use crate::scheduler::Scheduler;
use crate::server::RealServer;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// A transport protocol that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132.
    Sctp,
}

impl Protocol {
    /// The protocol's number in an IP header (IANA "Protocol Numbers").
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol's name, as it is written everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol with this IP number, if it is one that can be balanced.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// What identifies a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKey {
    /// Packets to this address, protocol and port.
    Address {
        /// The transport protocol.
        protocol: Protocol,
        /// The virtual address (VIP).
        address: IpAddr,
        /// The virtual port; 0 stands for every port (persistent services only).
        port: u16,
    },
    /// Packets that bear this firewall mark.
    Fwmark {
        /// The mark.
        mark: NonZeroU32,
        /// The family of the packets.
        family: Family,
    },
}

impl ServiceKey {
    /// The family of the service's clients.
    pub fn family(&self) -> Family {
        match *self {
            Self::Address { address, .. } => Family::of(address),
            Self::Fwmark { family, .. } => family,
        }
    }

    /// The service's port; 0 for fwmark services and for "every port".
    pub fn port(&self) -> u16 {
        match *self {
            Self::Address { port, .. } => port,
            Self::Fwmark { .. } => 0,
        }
    }
}

/// A dense number for a live service, reused after the service is gone. Workers index
/// their counters by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceId(pub u32);

/// How long, and for how much of a client's address, connections stick to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// The template's timeout, 1 to 2,678,400 s (31 days).
    pub timeout_s: u32,
}

/// The scheduler flags of `-b`, as IPVS numbers them (`IP_VS_SVC_F_SCHED1` to `3` shifted
/// to bits 0 to 2). `sh-fallback` and `mh-fallback` are bit 0, `sh-port` and `mh-port` bit 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchedulerFlags(pub u8);

impl SchedulerFlags {
    /// Take another server where the chosen one is not usable.
    pub const FALLBACK: u8 = 1;
    /// Hash the source port as well.
    pub const PORT: u8 = 2;

    /// Whether every bit of `flag` is set.
    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag == flag
    }
}

/// All that can be edited about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The scheduler's name, as typed; the table refuses one that it does not know.
    pub scheduler: String,
    /// The scheduler's flags.
    #[serde(default)]
    pub flags: SchedulerFlags,
    /// Persistence, where asked for.
    #[serde(default)]
    pub persistence: Option<Persistence>,
    /// The persistence netmask: for IPv4 the mask's 32 bits in host order (IPVS accepts
    /// any bits), for IPv6 a prefix length 1 to 128.
    pub netmask: u32,
    /// One-packet scheduling (UDP).
    #[serde(default)]
    pub one_packet: bool,
    /// A persistence engine's name (`sip`), where asked for.
    #[serde(default)]
    pub engine: Option<String>,
}

/// A live service as workers see it. Immutable: an edit makes a new one.
#[derive(Debug)]
pub struct Service {
    /// Its number.
    pub id: ServiceId,
    /// What it is found by.
    pub key: ServiceKey,
    /// What can be edited.
    pub spec: ServiceSpec,
    /// Its servers in IPVS's list order: the newest first.
    pub servers: Vec<Arc<RealServer>>,
    /// Limits on new connections, where there are any.
    pub limiter: Option<Arc<Limiter>>,
    /// Chooses among `servers`.
    pub scheduler: Arc<dyn Scheduler>,
}
