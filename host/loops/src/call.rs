//! Calls through the seams: blocking code, off the runtime's threads, with a time limit and a bound on how many run.
//!
//! Blocking code cannot be stopped from outside. A call that outlives its limit keeps its permit until it returns, so that
//! a callee that never answers takes up its own permits and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rl::Error;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Duration, timeout},
};

/// Set when nobody waits for the answer any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets the flag when the caller stops waiting, for whatever reason.
struct Waiter(GivenUp);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// A bounded way to somebody's blocking code.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    permits: Arc<Semaphore>,
    limit: Duration,
}

impl Caller {
    pub(crate) fn new(at_once: usize, limit: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once)),
            limit,
        }
    }

    /// The answer, or [`Error::TimedOut`]. Waiting for a permit counts.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        f: impl FnOnce(&GivenUp) -> rl::Result<T> + Send + 'static,
    ) -> rl::Result<T> {
        let given_up = GivenUp::default();
        let waiter = Waiter(given_up.clone());
        let permits = self.permits.clone();
        let answer = async move {
            let permit = permits.acquire_owned().await;
            let run = move || {
                let _permit = permit;
                f(&given_up)
            };
            spawn_blocking(run).await
        };
        let answer = timeout(self.limit, answer).await;
        drop(waiter);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Failed {
                what: what.to_owned(),
                why: "it panicked".to_owned(),
            }),
            Err(_) => Err(Error::TimedOut {
                what: what.to_owned(),
                limit_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}
