//! Whose turn it is to compute, and when a turn is given away.
//!
//! Serving's turns are short and never interrupted: a decode step. A turn of training lasts seconds, and its holder is patient: it
//! gives way between two tasks of a job as soon as somebody waits, but not before it had a share of the time that the others
//! took last. So a decode step waits for less than it takes itself, and training goes on, however busy serving is. Does not
//! run jobs ([`super::Pool`] does) and knows no priorities but patience.

use parking_lot::lock_api::RawMutexFair as _;
use parking_lot::{Mutex, MutexGuard};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The end of a turn that is not interrupted.
pub(super) const NEVER: u64 = u64::MAX;

/// A patient holder computes for this part of the time that it waited for its turn before it gives way again: a third, so that a
/// step of serving that always meets training takes 1.3 times as long, with room for tasks that cannot be interrupted below the
/// double that is promised. With a half, the median was 1.6 times as long and not 1.4, and training no faster.
const SHARE: (u64, u64) = (1, 3);
/// And for this many nanoseconds at least: a waiter that is not asleep yet cannot be given a turn.
const LEAST: u64 = 50_000;

thread_local! {
    /// Of a thread that has breathed in its turn: at which gate, and from when on it gives way.
    static PATIENCE: Cell<(usize, u64)> = const { Cell::new((0, NEVER)) };
}

/// The gate, and who waits before it.
#[derive(Debug)]
pub(super) struct Turns {
    gate: Mutex<()>,
    waiting: AtomicUsize,
    start: Instant,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns {
            gate: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            start: Instant::now(),
        }
    }

    pub(super) fn enter(&self) -> Slice<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.gate.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Slice {
            turns: self,
            guard: Some(guard),
        }
    }

    /// When this thread gives way; never when it is not patient here.
    pub(super) fn until(&self) -> u64 {
        match PATIENCE.get() {
            (gate, until) if gate == self.place() => until,
            _ => NEVER,
        }
    }

    /// Whether somebody waits and a turn that may be interrupted from `until` on must be.
    pub(super) fn is_over(&self, until: u64) -> bool {
        until != NEVER && self.waiting.load(Ordering::Relaxed) > 0 && self.now() >= until
    }

    /// Lets whoever waits compute, if this thread is patient and had its share, and returns when the turn comes again.
    pub(super) fn give_way(&self) {
        if !self.is_over(self.until()) {
            return;
        }
        let before = self.now();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // SAFETY: this thread holds the gate: it is patient only from a breath in its turn to the end of that turn, and a guard
        // does not move between threads.
        unsafe { self.gate.raw().bump() };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let now = self.now();
        let share = (now - before) / SHARE.1 * SHARE.0;
        PATIENCE.set((self.place(), now + share.max(LEAST)));
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Nanoseconds since the pool was made: 584 years of them fit.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// A turn at computing; see [`super::Pool::enter`]. Ends when dropped.
#[derive(Debug)]
pub struct Slice<'a> {
    turns: &'a Turns,
    /// Always there until the drop.
    guard: Option<MutexGuard<'a, ()>>,
}

impl Slice<'_> {
    /// Says that this turn may be interrupted, and lets whoever waits go first, unless this thread has hardly computed since it
    /// was interrupted last. From the first breath on the turn is given away in the middle of jobs, too.
    pub fn breathe(&mut self) {
        if self.turns.until() == NEVER {
            PATIENCE.set((self.turns.place(), 0));
        }
        self.turns.give_way();
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        PATIENCE.set((0, NEVER));
        if let Some(guard) = self.guard.take() {
            MutexGuard::unlock_fair(guard);
        }
    }
}
