//! Where replies leave, remembered by client: a look-up of the host's routes costs several
//! hash probes, and clients send more than one packet.
//!
//! A small direct-mapped table of each worker's own. A place knows the snapshot that it was
//! filled from and says nothing under another, so an edit, a new route or a neighbour's new
//! link address is in force at once.

use sched::service::Family;

use crate::address::Bits;
use crate::hops::Way;
use crate::snapshot::{Exit, Snapshot};

/// Clients remembered; 400 KiB, a part of a core's second cache.
const PLACES: usize = 8192;

/// Of no snapshot; they count from 1.
const NEVER: u64 = 0;

#[derive(Clone, Copy, Debug)]
struct Place {
    client: Bits,
    generation: u64,
    family: Family,
    exit: Exit,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Exits(Box<[Place]>);

impl Exits {
    pub(super) fn new() -> Self {
        let place = Place {
            client: 0,
            generation: NEVER,
            family: Family::V4,
            exit: Exit::NONE,
        };
        Self(vec![place; PLACES].into_boxed_slice())
    }

    /// The exit to a client; [`Exit::NONE`] where it is no port's or the neighbour is not
    /// known.
    #[inline(always)]
    pub(super) fn find(&mut self, snapshot: &Snapshot, family: Family, client: Bits) -> &Exit {
        let place = &mut self.0[index(client)];
        let knows = place.client == client
            && place.generation == snapshot.generation
            && place.family == family
            && snapshot.generation != NEVER;
        if !knows {
            fill(place, snapshot, family, client);
        }
        &place.exit
    }
}

#[cold]
#[inline(never)]
fn fill(place: &mut Place, snapshot: &Snapshot, family: Family, client: Bits) {
    let exit = match snapshot.hops.lookup(family, client) {
        Way::Ready(hop) => Exit::new(&hop, family),
        _ => Exit::NONE,
    };
    *place = Place {
        client,
        generation: snapshot.generation,
        family,
        exit,
    };
}

/// Fibonacci hashing (Knuth, "The Art of Computer Programming", 6.4) of the folded address.
#[inline(always)]
fn index(client: Bits) -> usize {
    let folded = client as u64 ^ (client >> 64) as u64;
    let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> (64 - PLACES.trailing_zeros())) as usize % PLACES
}
