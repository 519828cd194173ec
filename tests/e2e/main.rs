//! End to end: real clients and servers in network namespaces, the `lvx` binary between them over AF_XDP.
//!
//! Needs root and what `scripts/test` installs. Each test builds a lab of its own (`scripts/lab`), at most two at once,
//! and leaves nothing behind, also when it fails. `LVX` names another binary than the one just built.

mod absent;
mod bad_input;
mod balance;
mod bench;
mod change;
mod config;
mod containers;
mod downloads;
mod edits;
mod explain;
mod forwarding;
mod host;
mod jumbo;
mod lab;
mod ldirectord;
mod listing;
mod load;
mod misbehave;
mod outlive;
mod overload;
mod ports;
mod privilege;
mod raw;
mod scarce;
mod shell;
mod shutdown;
mod soak;
mod succession;
mod terminal;
mod top;
mod upgrade;
