//! How many ICMP errors may be written: a flood of unwanted packets must not make the
//! director a flood of its own.

use crate::time::{TICKS_PER_S, Ticks};

/// Errors a second (Linux's `net.ipv4.icmp_msgs_per_sec`).
const PER_S: u32 = 1000;

/// Errors at once after a quiet time (Linux's `net.ipv4.icmp_msgs_burst`).
const BURST: u32 = 50;

/// A bucket of errors that may be written, filled by the passing of time.
#[derive(Debug)]
pub(super) struct ErrorBudget {
    left: u32,
    filled: Ticks,
}

impl Default for ErrorBudget {
    fn default() -> Self {
        Self {
            left: BURST,
            filled: 0,
        }
    }
}

impl ErrorBudget {
    /// Takes one error out, if there is one.
    pub(super) fn take(&mut self, now: Ticks) -> bool {
        let passed = now.wrapping_sub(self.filled);
        if passed > 0 {
            let fresh = passed.saturating_mul(PER_S / TICKS_PER_S);
            self.left = self.left.saturating_add(fresh).min(BURST);
            self.filled = now;
        }
        let granted = self.left > 0;
        self.left -= u32::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut budget = ErrorBudget::default();
        assert_eq!((0..100).filter(|_| budget.take(7)).count(), BURST as usize);
        assert_eq!((0..100).filter(|_| budget.take(7)).count(), 0);
        assert_eq!((0..100).filter(|_| budget.take(8)).count(), BURST as usize);
    }
}
