//! ICMP errors: written to a packet's sender, translated across NAT, and read for the packet
//! that they are about.

mod error;
mod quoted;
#[cfg(test)]
mod tests;
mod translate;

pub use error::{ErrorKind, relay_tunnel_error, write_error};
pub use quoted::{Quoted, TunnelQuote, quoted};
pub use translate::{translate_to_client, translate_to_server};
