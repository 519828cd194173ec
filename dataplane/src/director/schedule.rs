//! A connection's beginning: the service it asks for, the server it gets, the entry that
//! remembers it.

use std::sync::Arc;

use sched::scheduler::Request;
use sched::server::{Counted, Forwarding, RealServer};
use sched::service::{Family, Persistence, Protocol, Service, ServiceKey};

use super::observer::{Observer, Step};
use super::{Director, Moment};
use crate::address::{Bits, Endpoint, address, bits};
use crate::connection::table::{Connection, Draft, Full, Handle, Inserted, Key};
use crate::connection::word::{Method, Word};
use crate::frame::{Packet, sctp_chunk, tcp_flag};
use crate::hops::Way;
use crate::snapshot::ServerSlot;
use crate::time::{TICKS_PER_S, ticks};
use crate::verdict::Reason;

/// FTP's ports (RFC 959), which IPVS treats apart.
const FTP: u16 = 21;
const FTP_DATA: u16 = 20;

/// Templates that one client network may have at once for one destination: one that is
/// followed, and retired ones.
const TEMPLATES_MAX: u16 = 4;

/// A connection's timeout before its first packet sets another (Linux's `ip_vs_conn_new`).
const FIRST_TIMEOUT_S: u32 = 3;

/// What became of a packet that belongs to no connection.
pub(super) enum Admission {
    /// It began this connection.
    Begun(Handle),
    /// It is forwarded by this draft and forgotten (one-packet scheduling).
    Once(Draft),
    /// No service wants it.
    NotOurs,
    /// Its service has no server for it.
    NoServer,
    /// It is dropped.
    Refused(Reason),
}

/// Why a service that wants a packet begins nothing with it. Small, as the way there is
/// hot: the rest of [`Admission`] carries a draft.
enum Obstacle {
    NoServer,
    TableFull,
}

impl<O: Observer> Director<O> {
    /// Begins a connection, if the packet may and a service takes it. `quoted` tells that
    /// the packet stood in an ICMP error and shows no more than its ports.
    pub(super) fn admit(
        &mut self,
        moment: Moment<'_>,
        packet: &Packet,
        protocol: Protocol,
        key: Key,
        quoted: bool,
    ) -> Admission {
        if !quoted && !may_begin(moment, packet, protocol) || is_martian(moment, packet) {
            self.observer.step(|| Step::MayNotBegin);
            return Admission::NotOurs;
        }
        let snapshot = moment.snapshot;
        let mark = snapshot.mark(key.family, protocol, key.virtual_);
        let service = snapshot.service(key.family, protocol, key.virtual_, mark);
        self.observer.step(|| Step::Service {
            mark,
            destination: key.virtual_,
            family: key.family,
            protocol,
            service: service.cloned(),
        });
        let Some(service) = service else {
            return Admission::NotOurs;
        };
        if self.is_to_drop(moment) {
            return Admission::Refused(Reason::DropPacket);
        }
        if let Some(reason) = self.above_limits(moment, service, key) {
            return Admission::Refused(reason);
        }
        if key.client.port == FTP_DATA {
            self.observer.step(|| Step::FtpData);
            return Admission::NotOurs;
        }
        let begun = match service.spec.persistence {
            Some(persistence) => self.persist(moment, service, persistence, key, mark),
            None => self.spread(moment, service, key, mark),
        };
        match begun {
            Ok(admission) => admission,
            Err(Obstacle::NoServer) if is_beside_ftp(service, key) => Admission::NotOurs,
            Err(Obstacle::NoServer) => Admission::NoServer,
            Err(Obstacle::TableFull) => Admission::Refused(Reason::TableFull),
        }
    }

    /// Linux's `ip_vs_todrop`: every `am_droprate`th packet.
    fn is_to_drop(&mut self, moment: Moment<'_>) -> bool {
        let tunables = &moment.snapshot.tunables;
        if tunables.drop_packet != 3 || tunables.am_droprate == 0 {
            return false;
        }
        self.observer.step(|| Step::DropRate(tunables.am_droprate));
        self.packets_until_drop = self.packets_until_drop.saturating_sub(1);
        let drops = self.packets_until_drop == 0;
        if drops {
            self.packets_until_drop = tunables.am_droprate;
        }
        drops
    }

    fn spread(
        &mut self,
        moment: Moment<'_>,
        service: &Arc<Service>,
        key: Key,
        mark: u32,
    ) -> Result<Admission, Obstacle> {
        if matches!(service.key, ServiceKey::Address { port, .. } if port != key.virtual_.port) {
            self.observer.step(|| Step::OtherPort);
            return Err(Obstacle::NoServer);
        }
        let server = self
            .choose(moment, service, key)
            .ok_or(Obstacle::NoServer)?;
        let slot = slot(moment, server)?;
        let port = own_or(server.key.port, key.virtual_.port);
        let draft = draft(slot, key, port, mark);
        self.begin(moment, service, slot, draft)
    }

    /// Linux's `ip_vs_sched_persist`: a template per client network names the server, and
    /// connections keep it alive.
    fn persist(
        &mut self,
        moment: Moment<'_>,
        service: &Arc<Service>,
        persistence: Persistence,
        key: Key,
        mark: u32,
    ) -> Result<Admission, Obstacle> {
        let (template, slot) = match self.template(moment, template_key(service, key)) {
            Ok(found) => found,
            Err(template_key) => {
                let server = self
                    .choose(moment, service, key)
                    .ok_or(Obstacle::NoServer)?;
                let slot = slot(moment, server)?;
                let own_port =
                    key.virtual_.port == service.key.port() && template_key.virtual_.port != 0;
                let port = if own_port { server.key.port } else { 0 };
                let draft = Draft {
                    timeout: ticks(persistence.timeout_s),
                    ..draft(slot, template_key, port, mark)
                };
                self.observer.step(|| Step::Begin(draft));
                (self.enter(moment, slot, &draft, Counted::Template)?, slot)
            }
        };
        let own_port = key.virtual_.port == service.key.port();
        let server_port = slot.server.key.port;
        let port = if own_port {
            own_or(server_port, key.virtual_.port)
        } else {
            key.virtual_.port
        };
        let draft = Draft {
            template: Some(template),
            ..draft(slot, key, port, mark)
        };
        let begun = self.begin(moment, service, slot, draft);
        let template = self.table.view(template);
        template.touch(moment.now.wrapping_add(template.timeout()));
        begun
    }

    /// The template with this key and its server, if it may be followed; else the key that a
    /// new one is to have. One that may not be followed any more retires: it stays for as
    /// long as its connections, and a new one beside it gets another `client.port`, which
    /// templates have no other use for.
    fn template<'s>(
        &mut self,
        moment: Moment<'s>,
        key: Key,
    ) -> Result<(Handle, &'s ServerSlot), Key> {
        let mut free = None;
        for age in 0..TEMPLATES_MAX {
            let key = aged(key, age);
            let handle = self.table.find(&key);
            // Told also where none stands: an explanation runs over copies, and what it
            // misses there it looks for in the live table.
            self.observer.step(|| Step::Lookup {
                key,
                entry: handle.and_then(|handle| self.table.read(handle.index)),
            });
            let Some(handle) = handle else {
                free = free.or(Some(key));
                continue;
            };
            let template = self.table.view(handle);
            if Word(template.word()).is_retired() {
                continue;
            }
            let slot = moment.snapshot.server(template.server());
            if let Some(slot) = slot.filter(|slot| is_followed(moment, slot)) {
                return Ok((handle, slot));
            }
            self.observer.step(|| Step::TemplateRetired);
            retire(template);
        }
        // All retired: the first makes room. Its connections do without it.
        Err(free.unwrap_or_else(|| {
            if let Some(handle) = self.table.find(&key) {
                self.end(moment, handle);
            }
            key
        }))
    }

    fn begin(
        &mut self,
        moment: Moment<'_>,
        service: &Arc<Service>,
        slot: &ServerSlot,
        draft: Draft,
    ) -> Result<Admission, Obstacle> {
        self.observer.step(|| Step::Begin(draft));
        let once = service.spec.one_packet && draft.key.protocol == Protocol::Udp.number();
        let admission = if once {
            Admission::Once(draft)
        } else {
            Admission::Begun(self.enter(moment, slot, &draft, Counted::Inactive)?)
        };
        self.counters.server(slot.server.id).connection();
        self.counters.service(service.id).connection();
        Ok(admission)
    }

    fn choose<'s>(
        &self,
        moment: Moment<'_>,
        service: &'s Arc<Service>,
        key: Key,
    ) -> Option<&'s Arc<RealServer>> {
        let request = Request {
            client: address(key.family, key.client.address),
            client_port: key.client.port,
            virtual_address: address(key.family, key.virtual_.address),
            virtual_port: key.virtual_.port,
            now_s: u64::from(moment.now / TICKS_PER_S),
        };
        let chosen = service.scheduler.schedule(&request, &service.servers);
        self.observer
            .step(|| Step::schedule(service, &request, chosen));
        service.servers.get(chosen?)
    }

    /// Into the table and into the server's counts.
    fn enter(
        &mut self,
        moment: Moment<'_>,
        slot: &ServerSlot,
        draft: &Draft,
        counted: Counted,
    ) -> Result<Handle, Obstacle> {
        match self.table.insert_missed(&mut self.cache, draft, moment.now) {
            Ok(Inserted::New(handle)) => {
                slot.server.bind(counted);
                Ok(handle)
            }
            Ok(Inserted::Found(handle)) => Ok(handle),
            Err(Full) => {
                self.room.is_missed();
                Err(Obstacle::TableFull)
            }
        }
    }
}

/// Whether a packet may begin a connection (the `conn_schedule` of Linux's
/// `ip_vs_proto_tcp.c`, `_udp.c` and `_sctp.c`).
fn may_begin(moment: Moment<'_>, packet: &Packet, protocol: Protocol) -> bool {
    let tunables = &moment.snapshot.tunables;
    match protocol {
        Protocol::Tcp => {
            packet.tcp_flags & tcp_flag::RST == 0
                && (tunables.sloppy_tcp || packet.tcp_flags & tcp_flag::SYN != 0)
        }
        Protocol::Udp => true,
        Protocol::Sctp => {
            packet.sctp_chunk != sctp_chunk::ABORT
                && (tunables.sloppy_sctp || packet.sctp_chunk == sctp_chunk::INIT)
        }
    }
}

/// Whether the host never lets a packet in for its source: nobody outside has that address
/// (Linux's `ip_route_input_slow` and `ip6_rcv_core`). The host is left to drop it.
fn is_martian(moment: Moment<'_>, packet: &Packet) -> bool {
    const IPV4_MAPPED: Bits = 0xffff << 32;
    const V4_BITS: Bits = 0xffff_ffff;
    let source = packet.source.address;
    match packet.family {
        Family::V4 => {
            matches!(source >> 24, 0 | 127 | 224..=239)
                || source == V4_BITS
                || moment.snapshot.hops.is_local_v4(source)
        }
        Family::V6 => source == 1 || source >> 120 == 0xff || source & !V4_BITS == IPV4_MAPPED,
    }
}

/// Packets to other ports of an FTP service's address are not its own, and may be meant
/// for the host (Linux's `ip_vs_leave`).
fn is_beside_ftp(service: &Service, key: Key) -> bool {
    service.key.port() == FTP && key.virtual_.port != FTP
}

fn slot<'s>(moment: Moment<'s>, server: &RealServer) -> Result<&'s ServerSlot, Obstacle> {
    moment.snapshot.server(server.id).ok_or(Obstacle::NoServer)
}

fn draft(slot: &ServerSlot, key: Key, port: u16, mark: u32) -> Draft {
    let real_address = slot.server.key.address;
    Draft {
        key,
        real_family: Family::of(real_address),
        real: Endpoint {
            address: bits(real_address),
            port,
        },
        server: slot.server.id,
        word: Word::new(method(slot)).0,
        mark,
        template: None,
        timeout: ticks(FIRST_TIMEOUT_S),
    }
}

fn method(slot: &ServerSlot) -> Method {
    if slot.way == Way::Local {
        return Method::Local;
    }
    match slot.server.spec.forwarding {
        Forwarding::Masquerade => Method::Masquerade,
        Forwarding::Route => Method::Route,
        Forwarding::Tunnel(_) => Method::Tunnel,
    }
}

/// Linux's `ip_vs_check_template`.
fn is_followed(moment: Moment<'_>, slot: &ServerSlot) -> bool {
    let quiescent = moment.snapshot.tunables.expire_quiescent_template;
    slot.server.available && !(quiescent && slot.server.spec.weight == 0)
}

fn retire(template: Connection<'_>) {
    let mut word = Word(template.word());
    while let Err(other) = template.replace_word(word.0, word.retired().0) {
        word = Word(other);
    }
}

fn aged(key: Key, age: u16) -> Key {
    let client = Endpoint {
        port: age,
        ..key.client
    };
    Key { client, ..key }
}

fn own_or(own: u16, other: u16) -> u16 {
    if own == 0 { other } else { own }
}

/// Linux's `ip_vs_sched_persist` on template keys: an exact service's template names its
/// port (but for FTP, whose data ports belong to it); a port-0 service's names port 0; a
/// fwmark service's names the mark in place of the address, and no protocol.
fn template_key(service: &Service, key: Key) -> Key {
    let client = Endpoint {
        address: network(key.family, key.client.address, service.spec.netmask),
        port: 0,
    };
    let own_port = key.virtual_.port == service.key.port();
    let (protocol, virtual_) = match service.key {
        ServiceKey::Fwmark { mark, family } => {
            let address = match family {
                Family::V4 => Bits::from(mark.get()),
                Family::V6 => Bits::from(mark.get()) << 96,
            };
            (0, Endpoint { address, port: 0 })
        }
        ServiceKey::Address { port, .. } if own_port && port != FTP => (key.protocol, key.virtual_),
        ServiceKey::Address { .. } => (
            key.protocol,
            Endpoint {
                port: 0,
                ..key.virtual_
            },
        ),
    };
    Key {
        family: key.family,
        template: true,
        protocol,
        client,
        virtual_,
    }
}

/// The network that a client's template covers.
fn network(family: Family, client: Bits, netmask: u32) -> Bits {
    match family {
        Family::V4 => client & Bits::from(netmask),
        Family::V6 if netmask == 0 => 0,
        Family::V6 => client & Bits::MAX << 128u32.saturating_sub(netmask),
    }
}
