//! How many sessions of a server are in use, so that an episode waits for one and is not turned away.
//!
//! Counts; opens nothing.

use std::{sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

/// The sessions of a server.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        })
    }

    /// Waits for one; none when none was free within `limit`.
    pub(super) fn take(self: &Arc<Self>, limit: Duration) -> Option<Slot> {
        let mut free = self.free.lock();
        self.freed
            .wait_while_for(&mut free, |free| *free == 0, limit);
        *free = free.checked_sub(1)?;
        Some(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_gets_the_slot_that_another_gives_back() {
        let slots = Slots::new(1);
        let first = slots.take(Duration::ZERO).unwrap();
        assert!(slots.take(Duration::ZERO).is_none());
        let waiting = {
            let slots = Arc::clone(&slots);
            std::thread::spawn(move || slots.take(Duration::from_secs(60)).is_some())
        };
        drop(first);
        assert!(waiting.join().unwrap());
    }
}
