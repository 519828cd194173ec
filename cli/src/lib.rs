//! What people and scripts type, and what they read: ipvsadm's grammar and listings, and
//! the client of the director's API. Knows nothing of packets.

pub mod adm;
pub mod api;
