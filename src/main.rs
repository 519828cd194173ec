//! The lvx binary.

mod director;

fn main() {}
