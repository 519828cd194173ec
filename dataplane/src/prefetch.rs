//! Asking for memory ahead of its use.

/// Asks for the cache line in which a value begins.
#[inline(always)]
pub(crate) fn prefetch<T>(line: &T) {
    ask(std::ptr::from_ref(line));
}

/// Likewise the value at a place of `all`. Whether there is one is not asked: nothing is read.
#[inline(always)]
pub(crate) fn prefetch_at<T>(all: &[T], place: usize) {
    ask(all.as_ptr().wrapping_add(place));
}

#[inline(always)]
fn ask<T>(line: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[allow(unsafe_code, reason = "the prefetch instruction has no safe form")]
    // SAFETY: a prefetch reads nothing and cannot fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = line;
}
