//! Checked views of frames.
