//! Rewriting a packet for its way out.
