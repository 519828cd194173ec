//! A frame in, a verdict out: what a director does with a packet.
//!
//! Pure outside `port/`: no clock, thread, socket, file or randomness. The same
//! [`director::Director::handle`] runs under AF_XDP, over pcap files, in tests, fuzzers
//! and benchmarks.

pub mod address;
pub mod connection;
pub mod counters;
pub mod director;
pub mod explain;
pub mod forward;
pub mod frame;
#[cfg(fuzzing)]
pub use director::fuzz;
pub mod hops;
pub mod port;
pub(crate) mod prefetch;
pub mod snapshot;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code))]
pub(crate) mod testing;
pub mod time;
pub mod tunables;
pub mod verdict;
