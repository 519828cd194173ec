//! ipvsadm 1.31: its grammar, messages, exit statuses and listings, byte for byte, since
//! scripts and tools (ldirectord, `ipvsadm-save`) depend on each of them.
//!
//! A line goes `typed` (words to options, as popt does it), `draft` (options to values),
//! `meaning` (values to a [`Request`]). `words` and `legality` are the grammar as tables.

mod draft;
pub(crate) mod endpoint;
mod failure;
pub mod flags;
pub(crate) mod help;
pub mod legality;
pub mod listing;
mod meaning;
pub(crate) mod names;
mod number;
#[cfg(test)]
mod replay;
mod request;
mod restore;
#[cfg(test)]
mod roundtrip;
mod session;
pub mod slot;
mod typed;
pub mod words;

pub use failure::Failure;
pub use help::VERSION;
pub use meaning::parse;
pub use names::{Names, PortNames, SystemNames};
pub use request::{Columns, DaemonRole, DaemonSpec, Format, Listing, Request};
pub(crate) use restore::words as restore_words;
pub use session::Session;
