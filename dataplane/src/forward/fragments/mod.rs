//! Datagrams that come in fragments: put together on the way in, because ports are only in
//! the first and checksums cover the whole, and split on the way out at the same places.

mod blocks;
mod datagram;
mod pieces;
mod reassembly;

pub use pieces::Pieces;
pub use reassembly::{Offered, Reassembly};

use blocks::Blocks;

#[cfg(test)]
mod tests;

/// How a datagram had been split.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// The longest fragment, IP header included, bytes: what the path is known to carry.
    pub largest: usize,
    /// The identification that its fragments shared.
    pub identification: u32,
    /// The bytes that the fragments carried in all.
    total: usize,
    /// The blocks where a fragment begins.
    starts: Blocks,
}
