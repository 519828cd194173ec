//! The atomics: the standard library's, or loom's where the models run. Mutual agreement
//! of two cores ("I wrote, then looked; so did you: one of us saw the other") rests on
//! [`fence`] with `SeqCst`, never on `SeqCst` accesses, which loom does not model.

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(super) use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
