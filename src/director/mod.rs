//! The running director: composes ports, workers, control, the mirror of the host's
//! routing, the way to the host's own stack, and the API.

pub mod api;
mod attend;
pub mod clean;
pub mod clock;
pub mod compose;
pub mod control;
pub mod explain;
pub mod fault;
pub mod hand_over;
pub mod host;
mod housekeeping;
pub mod link;
mod marks;
pub mod neighbours;
mod ports;
pub mod privilege;
pub mod settings;
pub mod state_dir;
mod statistics;
mod successor;
pub mod take_up;
#[cfg(test)]
mod testing;
pub mod worker;
