//! Virtual services, their real servers, and the schedulers that choose among them.
//!
//! Pure: no clock, thread, socket, file or randomness. Time and addresses come in as
//! arguments, so the same code decides in a worker, in a test and in a simulation.

pub mod command;
pub mod limit;
pub mod prefix;
pub mod scheduler;
pub mod server;
pub mod service;
mod slots;
pub mod table;
