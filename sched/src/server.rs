//! What a real server is, and the load that schedulers weigh.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

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
/// inactive: never for each packet. Change them through [`RealServer`]'s methods, which
/// keep the overload mark in step.
#[derive(Debug, Default)]
pub struct Load {
    /// Connections that count as active.
    pub active: AtomicU32,
    /// All other connections.
    pub inactive: AtomicU32,
    /// Persistence templates that name this server.
    pub persistent: AtomicU32,
    /// The last change of the overload mark: twice the `threshold_version` under which it
    /// was made, plus 1 where it was set.
    mark: AtomicU32,
}

impl Load {
    /// Active and inactive connections: what thresholds are compared with.
    pub fn total(&self) -> u32 {
        let [active, inactive] = [&self.active, &self.inactive].map(|n| n.load(Relaxed));
        active.saturating_add(inactive)
    }

    /// Whether no connection and no template refers to the server.
    pub fn is_idle(&self) -> bool {
        [&self.active, &self.inactive, &self.persistent]
            .iter()
            .all(|n| n.load(Relaxed) == 0)
    }

    /// Another load of the same counts.
    fn copy(&self) -> Self {
        let copy = |n: &AtomicU32| AtomicU32::new(n.load(Relaxed));
        Self {
            active: copy(&self.active),
            inactive: copy(&self.inactive),
            persistent: copy(&self.persistent),
            mark: copy(&self.mark),
        }
    }

    fn counter(&self, counted: Counted) -> &AtomicU32 {
        match counted {
            Counted::Active => &self.active,
            Counted::Inactive => &self.inactive,
            Counted::Template => &self.persistent,
        }
    }
}

/// As what an entry of the connection table counts towards its server's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// An active connection.
    Active,
    /// Any other connection.
    Inactive,
    /// A persistence template.
    Template,
}

/// A real server as workers see it. Immutable but for its load: an edit makes a new one.
#[derive(Clone, Debug)]
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
    /// The weight it was added with or, if later, its last weight other than 0: a server
    /// that is drained by weight 0 keeps its place in `mh`'s table (`last_weight` of
    /// Linux's `struct ip_vs_dest`).
    pub last_weight: u32,
    /// Counts the edits of its thresholds, from 1. A change of the overload mark under
    /// another version means nothing. So an edit that is undone leaves no trace in the
    /// load, which all versions share.
    pub threshold_version: u32,
    /// Whether it was overloaded when this version began.
    pub overloaded_at_first: bool,
    /// Its live counts.
    pub load: Arc<Load>,
}

impl RealServer {
    /// A server that was just added and has no connections.
    pub fn new(id: ServerId, service: ServiceId, key: ServerKey, spec: ServerSpec) -> Self {
        Self {
            id,
            service,
            key,
            spec,
            available: true,
            last_weight: spec.weight,
            threshold_version: 1,
            overloaded_at_first: false,
            load: Arc::default(),
        }
    }

    /// This server with a load of its own, for trying out what would become of it.
    #[must_use]
    pub fn forked(&self) -> Self {
        Self {
            load: Arc::new(self.load.copy()),
            ..self.clone()
        }
    }

    /// This server with another spec, as `ipvsadm -e` makes it. Where thresholds change,
    /// its connections are compared with the new ones at once.
    pub fn edited(&self, spec: ServerSpec) -> Self {
        let thresholds = |spec: &ServerSpec| (spec.upper_threshold, spec.lower_threshold);
        let mut edited = Self {
            spec,
            ..self.clone()
        };
        if spec.weight != 0 {
            edited.last_weight = spec.weight;
        }
        if thresholds(&spec) != thresholds(&self.spec) {
            edited.threshold_version += 1;
            edited.overloaded_at_first = edited.judge(self.is_overloaded());
        }
        edited
    }

    /// Above its upper threshold and not yet below the lower one.
    pub fn is_overloaded(&self) -> bool {
        // Looking at the load again heals a mark that a worker, still at work with a
        // version before the last edit, did not lift.
        self.is_marked() && self.judge(true)
    }

    /// Whether a scheduler may choose it: its weight is not 0 and it is not overloaded.
    pub fn is_usable(&self) -> bool {
        self.spec.weight > 0 && !self.is_overloaded()
    }

    /// Counts a new entry (Linux's `ip_vs_bind_dest`). Templates are no matter to
    /// thresholds.
    pub fn bind(&self, counted: Counted) {
        self.load.counter(counted).fetch_add(1, Relaxed);
        if counted != Counted::Template && self.spec.upper_threshold != 0 {
            self.update_mark();
        }
    }

    /// Counts an entry no longer (Linux's `ip_vs_unbind_dest`).
    pub fn unbind(&self, counted: Counted) {
        let before = self.load.counter(counted).fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "unbound {counted:?} more often than bound");
        if self.is_marked() {
            self.update_mark();
        }
    }

    /// Counts a connection as active that counted as inactive. Thresholds do not care.
    pub fn activate(&self) {
        self.load.inactive.fetch_sub(1, Relaxed);
        self.load.active.fetch_add(1, Relaxed);
    }

    /// Counts a connection as inactive that counted as active.
    pub fn deactivate(&self) {
        self.load.active.fetch_sub(1, Relaxed);
        self.load.inactive.fetch_add(1, Relaxed);
    }

    fn is_marked(&self) -> bool {
        let mark = self.load.mark.load(Relaxed);
        if mark / 2 == self.threshold_version {
            mark % 2 == 1
        } else {
            self.overloaded_at_first
        }
    }

    pub(crate) fn update_mark(&self) {
        let before = self.is_marked();
        let overloaded = self.judge(before);
        if overloaded != before {
            let mark = self.threshold_version * 2 + u32::from(overloaded);
            let over = |now: u32| (now / 2 <= self.threshold_version).then_some(mark);
            // Refused where a worker has marked a later version.
            let _ = self.load.mark.fetch_update(Relaxed, Relaxed, over);
        }
    }

    /// Whether it is overloaded, given that it was or was not: from the upper threshold on
    /// and until below the lower one, or 75 % of the upper one where there is no lower
    /// (Linux's `ip_vs_dest_update_overload`, which 2026's stable kernels have, 6.1 too;
    /// before, an edit could lift the mark but not set it).
    fn judge(&self, overloaded: bool) -> bool {
        let [upper, lower] = [self.spec.upper_threshold, self.spec.lower_threshold];
        let lower = if lower == 0 { upper - upper / 4 } else { lower };
        let total = self.load.total();
        upper != 0 && (total >= upper || (overloaded && total >= lower))
    }
}
