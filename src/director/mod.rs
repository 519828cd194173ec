//! The running director: composes ports, workers, control, the mirror of the host's
//! routing, the way to the host's own stack, and the API.

pub mod clock;
pub mod host;
pub mod link;
pub mod neighbours;
#[cfg(test)]
mod testing;
pub mod worker;
