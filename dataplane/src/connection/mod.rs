//! Connections: which server a flow went to, and in which state it is.

pub mod state;
pub mod table;
pub mod word;
