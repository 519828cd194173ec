//! Pinned-core benchmarks.
