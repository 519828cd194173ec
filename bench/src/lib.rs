//! Pinned-core benchmarks: what the director itself costs, apart from drivers and wires.

pub mod pipeline;
mod traffic;
mod world;
