//! How often a plugin's instances may break: what comes after too many of them waits.
//!
//! Taking an instance's memory away interrupts the machine's other cores, so that a plugin that breaks thousands of times a second
//! would slow down everybody's calls. A plugin that breaks now and then never waits, and nobody waits for another's plugin.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Each ending is paid for with this much time: 200 a second in the long run.
const EACH: Duration = Duration::from_millis(5);

/// So many may come at once.
const AT_ONCE: u32 = 64;

/// Longest wait for an instance: whoever calls the plugin waits with it.
const LONGEST: Duration = Duration::from_millis(50);

/// Longest time after the last ending in which anybody waits.
const MOST: Duration = Duration::from_secs(2);

/// The endings of a plugin's instances.
#[derive(Debug)]
pub(crate) struct Endings {
    /// When all that ended is paid for.
    paid: Mutex<Instant>,
}

impl Endings {
    pub(crate) fn new() -> Self {
        Self {
            paid: Mutex::new(Instant::now()),
        }
    }

    /// An instance broke.
    pub(crate) fn count(&self) {
        let mut paid = self.paid.lock();
        let now = Instant::now();
        // With a ceiling: what many callers broke at once must not be paid for by others long afterwards.
        *paid = (paid.max(now) + EACH).min(now + EACH * AT_ONCE + MOST);
    }

    /// Waits until another instance may be made.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing will happen: time is the price"
    )]
    pub(crate) fn wait(&self) {
        let wait = self.owed(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    fn owed(&self, now: Instant) -> Duration {
        let owed = self.paid.lock().saturating_duration_since(now);
        owed.saturating_sub(EACH * AT_ONCE).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_endings_cost_nothing_and_many_are_paid_for() {
        let endings = Endings::new();
        let now = Instant::now();
        let owed_after = |count: u32| {
            for _ in 0..count {
                endings.count();
            }
            endings.owed(now)
        };
        assert_eq!(owed_after(AT_ONCE / 2), Duration::ZERO);
        assert!(owed_after(AT_ONCE / 2 + 4) >= EACH * 4);
        assert_eq!(owed_after(1_000), LONGEST);
        let after = Instant::now() + EACH * AT_ONCE + MOST;
        assert_eq!(endings.owed(after), Duration::ZERO);
    }
}
