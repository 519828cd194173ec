//! Checked views of frames: parsed once, where they lie; after that reads cannot fail.

mod buffer;

pub use buffer::Frame;
