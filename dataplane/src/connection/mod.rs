//! Connections: which server a flow went to, and in which state it is.

mod bucket;
mod entry;
mod hash;
mod index;
mod insert;
mod reclaim;
#[cfg(not(loom))]
mod recover;
mod region;
mod share;
pub mod state;
mod sweep;
mod sync;
pub mod table;
mod view;
pub mod word;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
