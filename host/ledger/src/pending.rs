//! An append that is on its way to the disk: wait for it on a thread, or await it in a task of any runtime.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{Receipt, Result, shared::Core};

struct Slot {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    value: Option<Result<Vec<Receipt>>>,
    waker: Option<Waker>,
}

/// A group of entries that is being made durable. Dropping it does not take the append back.
///
/// The core is there until it has been helped or told that somebody waits.
#[must_use = "an append is acknowledged only when this has been waited for"]
pub struct PendingAll(Arc<Slot>, Option<Arc<Core>>);

/// One entry that is being made durable. Dropping it does not take the append back.
#[must_use = "an append is acknowledged only when this has been waited for"]
#[derive(Debug)]
pub struct Pending(pub(crate) PendingAll);

/// The writer's end.
pub(crate) struct Completer(Option<Arc<Slot>>, fn() -> Result<Vec<Receipt>>);

/// A pair; when the completer is dropped without a value, the waiter gets `abandoned()`.
/// While it waits it helps `core`.
pub(crate) fn pair(
    abandoned: fn() -> Result<Vec<Receipt>>,
    core: Option<Arc<Core>>,
) -> (Completer, PendingAll) {
    let slot = Arc::new(Slot {
        state: Mutex::default(),
        ready: Condvar::new(),
    });
    (
        Completer(Some(slot.clone()), abandoned),
        PendingAll(slot, core),
    )
}

impl Completer {
    pub(crate) fn complete(mut self, value: Result<Vec<Receipt>>) {
        if let Some(slot) = self.0.take() {
            slot.set(value);
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.set((self.1)());
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, value: Result<Vec<Receipt>>) {
        let mut state = self.lock();
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        self.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl PendingAll {
    /// Blocks until the group is durable.
    ///
    /// # Errors
    /// Whatever kept it from becoming durable; then none of it counts.
    pub fn wait(mut self) -> Result<Vec<Receipt>> {
        let core = self.1.take().filter(|_| self.0.lock().value.is_none());
        if let Some(core) = core {
            core.help();
        }
        let mut state = self.0.lock();
        loop {
            if let Some(value) = state.value.take() {
                return value;
            }
            state = self
                .0
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for PendingAll {
    fn drop(&mut self) {
        if let Some(core) = self.1.take().filter(|_| self.0.lock().value.is_none()) {
            core.announce();
        }
    }
}

impl Future for PendingAll {
    type Output = Result<Vec<Receipt>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let core = self.1.take();
        let mut state = self.0.lock();
        if let Some(core) = core.filter(|_| state.value.is_none()) {
            core.announce();
        }
        match state.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Pending {
    /// Blocks until the entry is durable.
    ///
    /// # Errors
    /// Whatever kept it from becoming durable; then it does not count.
    pub fn wait(self) -> Result<Receipt> {
        self.0.wait().map(|receipts| receipts[0])
    }
}

impl Future for Pending {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map_ok(|receipts| receipts[0])
    }
}

impl fmt::Debug for PendingAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAll").finish_non_exhaustive()
    }
}
