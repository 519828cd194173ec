//! TCP, UDP and SCTP states, their transitions and timeouts.
