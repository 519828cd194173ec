//! Pinned-core benchmarks: what the director itself costs, apart from drivers and wires,
//! and what it does on a wire, beside what people would use instead.

pub mod callgrind;
pub mod connections;
mod counters;
pub mod pipeline;
pub mod reflect;
pub mod spread;
pub mod suite;
mod traffic;
pub mod wire;
mod world;
pub mod xsk;
