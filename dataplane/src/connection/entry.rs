//! One connection in one cache line. All fields are atomics, so that no race on them is
//! undefined; what makes a set of them consistent is the head.
//!
//! The head is version, protocol, kind and phase in one word. An entry's key and
//! addresses change only while its phase is free, and its version with them: whoever reads
//! the same committed head before and after has read one entry. Within a worker's burst
//! that is certain anyway (see `reclaim`).
//!
//! Addresses that are not both IPv4 lie in a second entry of the same pool, the extension.

use sched::server::ServerId;
use sched::service::Family;

use super::sync::{AtomicU32, AtomicU64, Relaxed, Release, fence};
use super::table::{Draft, Handle, Key};
use super::word::Word;
use crate::address::{Bits, Endpoint};
use crate::forward::nat::Correction;
use crate::time::Ticks;

/// Not in use; the phase of zeroed memory.
pub(super) const FREE: u32 = 0;
/// Entered in the index, not yet valid: another core may be entering the same.
pub(super) const TENTATIVE: u32 = 1;
/// In force.
pub(super) const COMMITTED: u32 = 2;
/// Was tentative; another core took precedence.
pub(super) const ABORTED: u32 = 3;
/// Taken out; waits until nobody can still look at it.
pub(super) const DEAD: u32 = 4;
/// Holds another entry's addresses.
pub(super) const EXTENSION: u32 = 5;

const PHASE: u32 = 7;
const CLIENT_V6: u32 = 1 << 3;
const REAL_V6: u32 = 1 << 4;
const TEMPLATE: u32 = 1 << 5;
/// The bits of a head that a key decides (and the phase).
const KEY_BITS: u32 = 0xffff & !REAL_V6;

#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Version (16 bits), protocol (8), kind (5), phase (3).
    pub(super) head: AtomicU32,
    pub(super) word: AtomicU32,
    pub(super) expires: AtomicU32,
    pub(super) timeout: AtomicU32,
    server: AtomicU32,
    /// The template's place; 0 for none.
    template: AtomicU32,
    /// Of a template: the connections that it controls. Of a connection: what its translation
    /// changes in checksums.
    pub(super) controlled: AtomicU32,
    mark: AtomicU32,
    /// Client and, above it, virtual address. With an extension: the client's low half, as a
    /// number; all other addresses and ports are as packets have them, so that a packet is
    /// compared and rewritten without turning bytes round.
    addresses: AtomicU64,
    /// Ports of client, virtual, real; the template's version. 16 bits each, from below.
    ports: AtomicU64,
    /// The real server's address and, above it, the extension's place.
    real: AtomicU64,
    /// Below: the next of a chain of free entries, an extension's owner. Above: the next
    /// chain. Never a connection's.
    pub(super) link: AtomicU64,
}

/// What `find` compares, made once.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'k> {
    head: u32,
    addresses: u64,
    ports: u32,
    key: &'k Key,
}

impl<'k> Wanted<'k> {
    #[inline(always)]
    pub(super) fn new(key: &'k Key) -> Self {
        Self {
            head: kind(key) | COMMITTED,
            addresses: pair(key.client.address, key.virtual_.address),
            ports: ports_of(key.client, key.virtual_),
            key,
        }
    }

    /// Whether this is the entry, in the phase of `head`.
    #[inline(always)]
    pub(super) fn is(&self, entry: &Entry, head: u32, pool: &[Entry]) -> bool {
        (head ^ self.head) & KEY_BITS & !PHASE == 0 && self.same_ends(entry, head, pool)
    }

    /// Whether this is the entry, and it is in force.
    #[inline(always)]
    pub(super) fn is_committed(&self, entry: &Entry, head: u32, pool: &[Entry]) -> bool {
        (head ^ self.head) & KEY_BITS == 0 && self.same_ends(entry, head, pool)
    }

    #[inline(always)]
    fn same_ends(&self, entry: &Entry, head: u32, pool: &[Entry]) -> bool {
        if entry.ports.load(Relaxed) as u32 != self.ports {
            return false;
        }
        if is_extended(head) {
            return self.same_extended(entry, pool);
        }
        entry.addresses.load(Relaxed) == self.addresses
    }

    #[inline(never)]
    fn same_extended(&self, entry: &Entry, pool: &[Entry]) -> bool {
        entry.addresses.load(Relaxed) == self.key.client.address as u64
            && entry.extension(pool).is_some_and(|extension| {
                extension.client_high() == (self.key.client.address >> 64) as u64
                    && extension.virtual_() == self.key.virtual_.address
            })
    }
}

/// Whether an entry is in force, from `client` to `virtual_`, and its server of the client's
/// family. Where the family is a constant, nothing is asked that is known by it.
#[inline(always)]
pub(super) fn is_unmixed(
    (entry, head, pool): (&Entry, u32, &[Entry]),
    (family, protocol): (Family, u8),
    client: Endpoint,
    virtual_: Endpoint,
) -> bool {
    let families = match family {
        Family::V4 => 0,
        Family::V6 => CLIENT_V6 | REAL_V6,
    };
    let wanted = u32::from(protocol) << 8 | families | COMMITTED;
    let is_of_kind = (head ^ wanted) & 0xffff == 0;
    if !is_of_kind || entry.ports.load(Relaxed) as u32 != ports_of(client, virtual_) {
        return false;
    }
    match family {
        Family::V4 => entry.addresses.load(Relaxed) == pair(client.address, virtual_.address),
        Family::V6 => {
            entry.addresses.load(Relaxed) == client.address as u64
                && entry.extension(pool).is_some_and(|extension| {
                    extension.client_high() == (client.address >> 64) as u64
                        && extension.virtual_() == virtual_.address
                })
        }
    }
}

/// What `find_reply` compares.
#[derive(Clone, Copy)]
pub(super) struct WantedReply {
    pub(super) family: Family,
    pub(super) protocol: u8,
    pub(super) client: Endpoint,
    pub(super) real: Endpoint,
}

impl WantedReply {
    /// What a reply to this connection is found by; none where nothing is translated back.
    pub(super) fn of(draft: &Draft) -> Option<Self> {
        let is_answered = !draft.key.template
            && draft.key.family == draft.real_family
            && Word(draft.word).is_masqueraded();
        is_answered.then_some(Self {
            family: draft.key.family,
            protocol: draft.key.protocol,
            client: draft.key.client,
            real: draft.real,
        })
    }

    /// Whether this is such a connection, in force; client and server are of one family.
    #[inline(always)]
    pub(super) fn is_committed(&self, entry: &Entry, head: u32, pool: &[Entry]) -> bool {
        self.is_asked(0xffff, entry, head, pool)
    }

    /// Whether this is such a masqueraded connection, in force or about to be.
    pub(super) fn is_rival(&self, entry: &Entry, head: u32, pool: &[Entry]) -> bool {
        matches!(phase(head), TENTATIVE | COMMITTED)
            && self.is_asked(0xffff & !PHASE, entry, head, pool)
            && Word(entry.word.load(Relaxed)).is_masqueraded()
    }

    /// `asked` are the bits of the head that count.
    #[inline(always)]
    fn is_asked(&self, asked: u32, entry: &Entry, head: u32, pool: &[Entry]) -> bool {
        let families = match self.family {
            Family::V4 => 0,
            Family::V6 => CLIENT_V6 | REAL_V6,
        };
        let wanted = u32::from(self.protocol) << 8 | families | COMMITTED;
        let ports = u64::from(self.client.port.to_be()) | u64::from(self.real.port.to_be()) << 32;
        if (head ^ wanted) & asked != 0
            || (entry.ports.load(Relaxed) ^ ports) & 0x0000_ffff_0000_ffff != 0
        {
            return false;
        }
        match self.family {
            Family::V4 => {
                entry.addresses.load(Relaxed) as u32 == in_packet(self.client.address)
                    && entry.real.load(Relaxed) as u32 == in_packet(self.real.address)
            }
            Family::V6 => {
                entry.addresses.load(Relaxed) == self.client.address as u64
                    && entry.extension(pool).is_some_and(|extension| {
                        extension.client_high() == (self.client.address >> 64) as u64
                            && extension.real() == self.real.address
                    })
            }
        }
    }
}

/// Reading.
impl Entry {
    pub(super) fn key(&self, head: u32, pool: &[Entry]) -> Key {
        Key {
            family: family(head & CLIENT_V6 != 0),
            template: head & TEMPLATE != 0,
            protocol: (head >> 8) as u8,
            client: self.client_end(head, pool),
            virtual_: self.virtual_end(head, pool),
        }
    }

    #[inline]
    pub(super) fn client_end(&self, head: u32, pool: &[Entry]) -> Endpoint {
        let low = self.addresses.load(Relaxed);
        let address = if is_extended(head) {
            let high = self.extension(pool).map_or(0, Entry::client_high);
            Bits::from(high) << 64 | Bits::from(low)
        } else {
            from_packet(low as u32)
        };
        Endpoint {
            address,
            port: self.port(0),
        }
    }

    /// The port that stands this far left.
    #[inline(always)]
    fn port(&self, left: u32) -> u16 {
        u16::from_be((self.ports.load(Relaxed) >> left) as u16)
    }

    /// The real server's endpoint, of an entry whose client and server are of `family`.
    #[inline(always)]
    pub(super) fn unmixed_real(&self, family: Family, pool: &[Entry]) -> Endpoint {
        let address = match family {
            Family::V4 => from_packet(self.real.load(Relaxed) as u32),
            Family::V6 => self.extension(pool).map_or(0, Entry::real),
        };
        Endpoint {
            address,
            port: self.port(32),
        }
    }

    /// The virtual endpoint, likewise.
    #[inline(always)]
    pub(super) fn unmixed_virtual(&self, family: Family, pool: &[Entry]) -> Endpoint {
        let address = match family {
            Family::V4 => from_packet((self.addresses.load(Relaxed) >> 32) as u32),
            Family::V6 => self.extension(pool).map_or(0, Entry::virtual_),
        };
        Endpoint {
            address,
            port: self.port(16),
        }
    }

    #[inline]
    pub(super) fn virtual_end(&self, head: u32, pool: &[Entry]) -> Endpoint {
        let address = if is_extended(head) {
            self.extension(pool).map_or(0, Entry::virtual_)
        } else {
            from_packet((self.addresses.load(Relaxed) >> 32) as u32)
        };
        Endpoint {
            address,
            port: self.port(16),
        }
    }

    #[inline]
    pub(super) fn real_end(&self, head: u32, pool: &[Entry]) -> Endpoint {
        let address = if is_extended(head) {
            self.extension(pool).map_or(0, Entry::real)
        } else {
            from_packet(self.real.load(Relaxed) as u32)
        };
        Endpoint {
            address,
            port: self.port(32),
        }
    }

    pub(super) fn server(&self) -> ServerId {
        ServerId(self.server.load(Relaxed))
    }

    pub(super) fn mark(&self) -> u32 {
        self.mark.load(Relaxed)
    }

    /// How many connections a template controls; 0 of what is none.
    pub(super) fn controls(&self, head: u32) -> u32 {
        match is_template(head) {
            true => self.controlled.load(Relaxed),
            false => 0,
        }
    }

    /// What the translation of a connection's packets changes in their checksums. Without
    /// meaning where client and server are of different families: those are not translated.
    #[inline(always)]
    pub(super) fn correction(&self) -> Correction {
        Correction(self.controlled.load(Relaxed))
    }

    /// Whether a template was named.
    #[inline(always)]
    pub(super) fn names_template(&self) -> bool {
        self.template.load(Relaxed) != 0
    }

    /// The template as it was named; it may have ended since.
    pub(super) fn template(&self) -> Option<Handle> {
        let index = self.template.load(Relaxed);
        let version = (self.ports.load(Relaxed) >> 48) as u16;
        (index != 0).then_some(Handle { index, version })
    }

    /// The extension's place.
    pub(super) fn extension_index(&self) -> u32 {
        (self.real.load(Relaxed) >> 32) as u32
    }

    fn extension<'p>(&self, pool: &'p [Entry]) -> Option<&'p Entry> {
        pool.get(self.extension_index() as usize)
    }
}

/// An extension's fields: what its own line calls otherwise.
impl Entry {
    /// The entry whose addresses it holds.
    #[cfg(not(loom))]
    pub(super) fn owner(&self) -> u32 {
        self.link.load(Relaxed) as u32
    }

    fn client_high(&self) -> u64 {
        self.addresses.load(Relaxed)
    }

    fn virtual_(&self) -> Bits {
        Bits::from(self.ports.load(Relaxed)) | Bits::from(self.real.load(Relaxed)) << 64
    }

    fn real(&self) -> Bits {
        [&self.mark, &self.controlled, &self.template, &self.server]
            .iter()
            .fold(0, |bits, word| bits << 32 | Bits::from(word.load(Relaxed)))
    }

    /// Makes this free entry the extension of the entry `owner`.
    pub(super) fn write_extension(&self, owner: u32, draft: &Draft) {
        self.begin_writing(EXTENSION);
        let (client, virtual_) = (draft.key.client.address, draft.key.virtual_.address);
        let real = draft.real.address;
        self.addresses.store((client >> 64) as u64, Relaxed);
        self.ports.store(virtual_ as u64, Relaxed);
        self.real.store((virtual_ >> 64) as u64, Relaxed);
        for (i, word) in [&self.server, &self.template, &self.controlled, &self.mark]
            .iter()
            .enumerate()
        {
            word.store((real >> (32 * i)) as u32, Relaxed);
        }
        self.link.store(u64::from(owner), Relaxed);
    }
}

/// Writing, while the entry is free and the writer's own.
impl Entry {
    /// Fills the entry; its head afterwards, tentative.
    pub(super) fn write(
        &self,
        draft: &Draft,
        template: Option<Handle>,
        extension: u32,
        expires: Ticks,
    ) -> u32 {
        let version = self.begin_writing(FREE);
        let extended = extension != 0;
        let template = template.unwrap_or(Handle {
            index: 0,
            version: 0,
        });
        let Key {
            client, virtual_, ..
        } = draft.key;
        self.word.store(draft.word, Relaxed);
        self.expires.store(expires, Relaxed);
        self.timeout.store(draft.timeout, Relaxed);
        self.server.store(draft.server.0, Relaxed);
        self.template.store(template.index, Relaxed);
        self.mark.store(draft.mark, Relaxed);
        let addresses = if extended {
            client.address as u64
        } else {
            pair(client.address, virtual_.address)
        };
        self.addresses.store(addresses, Relaxed);
        let ports = u64::from(ports_of(client, virtual_))
            | u64::from(draft.real.port.to_be()) << 32
            | u64::from(template.version) << 48;
        self.ports.store(ports, Relaxed);
        let real = if extended {
            0
        } else {
            in_packet(draft.real.address)
        };
        let real = u64::from(real) | u64::from(extension) << 32;
        self.real.store(real, Relaxed);
        let correction = match draft.key.template {
            true => Correction::default(),
            false => Correction::between(draft.key.family, virtual_, draft.real),
        };
        self.controlled.store(correction.0, Relaxed);
        let real_v6 = if draft.real_family == Family::V6 {
            REAL_V6
        } else {
            0
        };
        let head = version << 16 | kind(&draft.key) | real_v6 | TENTATIVE;
        self.head.store(head, Release);
        head
    }

    /// Sets the next version before any field changes, for those who read without being
    /// waited for.
    fn begin_writing(&self, phase: u32) -> u32 {
        let version = (self.head.load(Relaxed) >> 16).wrapping_add(1) & 0xffff;
        self.head.store(version << 16 | phase, Relaxed);
        fence(Release);
        version
    }
}

pub(super) fn needs_extension(draft: &Draft) -> bool {
    draft.key.family == Family::V6 || draft.real_family == Family::V6
}

#[inline(always)]
pub(super) fn is_extended(head: u32) -> bool {
    head & (CLIENT_V6 | REAL_V6) != 0
}

pub(super) fn is_template(head: u32) -> bool {
    head & TEMPLATE != 0
}

#[inline(always)]
pub(super) fn phase(head: u32) -> u32 {
    head & PHASE
}

/// The same head in another phase.
pub(super) fn in_phase(head: u32, phase: u32) -> u32 {
    head & !PHASE | phase
}

#[inline(always)]
pub(super) fn version(head: u32) -> u16 {
    (head >> 16) as u16
}

pub(super) fn real_family(head: u32) -> Family {
    family(head & REAL_V6 != 0)
}

/// 0 for IPv4, 1 for IPv6.
#[inline(always)]
pub(super) fn family_bit(family: Family) -> u32 {
    (family == Family::V6) as u32
}

fn family(is_v6: bool) -> Family {
    if is_v6 { Family::V6 } else { Family::V4 }
}

/// The head's bits that a key decides.
#[inline(always)]
fn kind(key: &Key) -> u32 {
    (u32::from(key.protocol) << 8)
        | (family_bit(key.family) * CLIENT_V6)
        | (u32::from(key.template) * TEMPLATE)
}

/// Two IPv4 addresses as they follow each other in a packet.
#[inline(always)]
fn pair(first: Bits, second: Bits) -> u64 {
    u64::from(in_packet(first)) | u64::from(in_packet(second)) << 32
}

/// Likewise two ports.
#[inline(always)]
fn ports_of(first: Endpoint, second: Endpoint) -> u32 {
    u32::from(first.port.to_be()) | u32::from(second.port.to_be()) << 16
}

#[inline(always)]
fn in_packet(address: Bits) -> u32 {
    (address as u32).to_be()
}

#[inline(always)]
fn from_packet(address: u32) -> Bits {
    Bits::from(u32::from_be(address))
}
