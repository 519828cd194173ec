//! Rewriting a packet for its way out.

pub mod checksum;
pub mod hop_limit;
pub mod link;
pub mod nat;
