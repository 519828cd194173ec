//! The processor's own counters, for this thread and this process's code alone. Virtual
//! machines often have none.

use perf_event::events::Hardware;
use perf_event::{Builder, Counter};

/// Instructions, and misses of the last cache where they can be counted.
pub struct Counters {
    instructions: Counter,
    misses: Option<Counter>,
}

impl Counters {
    /// None where there are no such counters.
    pub fn of_this_core() -> Option<Self> {
        Some(Self {
            instructions: counter(Hardware::INSTRUCTIONS)?,
            misses: counter(Hardware::CACHE_MISSES),
        })
    }

    /// Counts what `work` does.
    pub fn during(&mut self, work: impl FnOnce()) {
        // A counter that was made can be started; if not, `read` tells.
        let _ = self.instructions.enable();
        let _ = self.misses.as_mut().map(Counter::enable);
        work();
        let _ = self.instructions.disable();
        let _ = self.misses.as_mut().map(Counter::disable);
    }

    /// All that was counted. None where nothing was: another had the counter all the time.
    pub fn read(&mut self) -> Option<(u64, Option<u64>)> {
        let instructions = self.instructions.read().ok().filter(|n| *n > 0)?;
        let misses = self.misses.as_mut().and_then(|m| m.read().ok());
        Some((instructions, misses))
    }
}

fn counter(event: Hardware) -> Option<Counter> {
    // Without kernel and hypervisor, as is the default: that is what may be counted.
    Builder::new(event).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the machine has counters, a loop of a million takes at least as many.
    #[test]
    fn a_loop_is_counted() {
        let Some(mut counters) = Counters::of_this_core() else {
            return;
        };
        counters.during(|| {
            (0..1_000_000u64).for_each(|n| {
                std::hint::black_box(n);
            })
        });
        if let Some((instructions, _)) = counters.read() {
            assert!(instructions >= 1_000_000, "{instructions}");
        }
    }
}
