//! Rewriting a packet for its way out.

pub mod checksum;
pub mod fragments;
pub mod hop_limit;
pub mod icmp;
mod ip;
pub mod link;
pub mod nat;
pub mod options;
#[cfg(test)]
mod robustness;
pub mod segments;
pub mod tunnel;
