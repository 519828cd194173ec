//! What can be asked of the service table, and how it may refuse.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limit::ServiceLimits;
use crate::prefix::{Guard, Prefix};
use crate::server::{ServerKey, ServerSpec};
use crate::service::{Protocol, ServiceKey, ServiceSpec};

/// One change. Applied whole or refused whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// `ipvsadm -A`.
    AddService {
        /// Which service.
        service: ServiceKey,
        /// What it is to be.
        spec: ServiceSpec,
    },
    /// `ipvsadm -E`.
    EditService {
        /// Which service.
        service: ServiceKey,
        /// What it is to be.
        spec: ServiceSpec,
    },
    /// `lvx limit set`: what a service takes of new connections. It keeps its limits when
    /// it is edited otherwise.
    LimitService {
        /// Which service.
        service: ServiceKey,
        /// Its limits.
        limits: ServiceLimits,
    },
    /// `ipvsadm -D`.
    DeleteService {
        /// Which service.
        service: ServiceKey,
    },
    /// `ipvsadm -C`: remove every service.
    Flush,
    /// `ipvsadm -a`.
    AddServer {
        /// Of which service.
        service: ServiceKey,
        /// Which server.
        server: ServerKey,
        /// What it is to be.
        spec: ServerSpec,
    },
    /// `ipvsadm -e`.
    EditServer {
        /// Of which service.
        service: ServiceKey,
        /// Which server.
        server: ServerKey,
        /// What it is to be.
        spec: ServerSpec,
    },
    /// `ipvsadm -d`.
    DeleteServer {
        /// Of which service.
        service: ServiceKey,
        /// Which server.
        server: ServerKey,
    },
    /// `ipvsadm -Z`: counters back to zero, of one service or of all.
    Zero {
        /// Which service; none stands for all.
        service: Option<ServiceKey>,
    },
    /// `ipvsadm --set`; 0 keeps a value.
    SetTimeouts {
        /// Established TCP connections, s.
        tcp_s: u32,
        /// TCP connections after a FIN, s.
        tcp_fin_s: u32,
        /// UDP, s.
        udp_s: u32,
    },
    /// `lvx set NAME VALUE`: a tunable by its sysctl's name.
    SetTunable {
        /// The name, without `net.ipv4.vs.`.
        name: String,
        /// The value, as typed.
        value: String,
    },
    /// `lvx fwmark add`.
    AddFwmark(FwmarkRule),
    /// `lvx fwmark del`.
    DeleteFwmark(FwmarkRule),
    /// `lvx prefix`: clients with these prefixes are let in, kept out or no more named.
    SetPrefixes {
        /// What becomes of them; none forgets the prefixes, also those that nobody named.
        guard: Option<Guard>,
        /// Which.
        prefixes: Vec<Prefix>,
    },
}

/// Packets to these ports get a firewall mark. Frames taken by AF_XDP never meet
/// netfilter, so the director marks them itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FwmarkRule {
    /// The mark.
    pub mark: NonZeroU32,
    /// The destination address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination ports; 0 stands for every port.
    pub ports: Vec<u16>,
}

/// What there may be only so many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limited {
    /// Virtual services, with removed ones whose servers are still remembered.
    #[serde(rename = "services")]
    Services,
    /// Real servers of all services together, with removed ones that are still remembered.
    #[serde(rename = "real servers")]
    Servers,
    /// Client prefixes.
    #[serde(rename = "prefixes")]
    Prefixes,
    /// Destinations that bear a firewall mark.
    #[serde(rename = "destinations with marks")]
    Marks,
}

impl Limited {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Services, Self::Servers, Self::Prefixes, Self::Marks];
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Servers => "real servers",
            Self::Prefixes => "prefixes",
            Self::Marks => "destinations with marks",
        })
    }
}

/// Why a command was not carried out. The table is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// `-A` of a service that exists.
    #[error("the service already exists")]
    ServiceExists,
    /// The named service does not exist.
    #[error("no such service")]
    NoSuchService,
    /// `-a` of a server that exists.
    #[error("the real server already exists")]
    ServerExists,
    /// The named server does not exist.
    #[error("no such real server")]
    NoSuchServer,
    /// An unknown scheduler or persistence engine.
    #[error("no scheduler or persistence engine of that name")]
    NoSuchScheduler,
    /// A number out of its range, such as a lower threshold above the upper one.
    #[error("out of range: {what}")]
    OutOfRange {
        /// Which number.
        what: String,
    },
    /// A combination that makes no sense.
    #[error("{what}")]
    Invalid {
        /// What is wrong and what to do.
        what: String,
    },
    /// A service's address is not the host's, and the director was started to insist on that.
    #[error(
        "{address} is no address of this host: `ip addr add {address}/{} dev DEV`, or start the \
         director without --require-local",
        if address.is_ipv4() { 32 } else { 128 }
    )]
    NotLocal {
        /// The address.
        address: IpAddr,
    },
    /// An unknown tunable.
    #[error("no tunable is called {name}; `lvx get` lists them")]
    NoSuchTunable {
        /// The name as typed.
        name: String,
    },
    /// A limit was reached.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// Of what.
        what: Limited,
        /// How many there may be.
        limit: u64,
    },
}
