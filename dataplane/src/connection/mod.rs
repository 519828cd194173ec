//! Connections: which server a flow went to, and in which state it is.

mod bucket;
mod entry;
mod hash;
mod insert;
mod reclaim;
mod recover;
mod region;
pub mod state;
mod sweep;
mod sync;
pub mod table;

#[cfg(all(test, loom))]
#[cfg(all(test, not(loom)))]
mod models;
mod tests;
mod view;
pub mod word;
