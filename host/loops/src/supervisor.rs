//! Every task has an owner: the supervisor starts the loops, starts a failed one again, and ends them together.
//!
//! It knows nothing of what a loop does. A failed *ledger* is not a failed loop: then everything stops, and says why.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
};

use ledger::Ledger;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Duration, sleep},
};

use crate::{
    Error, Result,
    status::{Board, LoopState},
};

/// The wait before a failed loop is started again; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A promise that the host stops some day. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Stops everything that holds the [`Shutdown`]; dropping it does, too.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

/// A stop and what it stops.
pub fn shutdown() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(Arc::new(sender)), Shutdown(receiver))
}

impl Stop {
    /// Stops.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when it is time to stop.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        // An error means that the last `Stop` is gone: that is a stop.
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    /// Whether it is time to stop.
    pub fn is_now(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

type Task = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The loops of a host.
pub(crate) struct Supervisor {
    ledger: Ledger,
    board: Board,
    shutdown: Shutdown,
    tasks: JoinSet<Result<()>>,
}

impl Supervisor {
    pub(crate) fn new(ledger: Ledger, board: Board, shutdown: Shutdown) -> Self {
        Self {
            ledger,
            board,
            shutdown,
            tasks: JoinSet::new(),
        }
    }

    /// Runs what `start` makes until it ends by itself at the shutdown; starts it again when it fails or panics.
    pub(crate) fn keep(&mut self, name: &'static str, start: impl Fn() -> Task + Send + 'static) {
        let (ledger, board, shutdown) = (
            self.ledger.clone(),
            self.board.clone(),
            self.shutdown.clone(),
        );
        self.tasks.spawn(async move {
            let mut wait = FIRST_WAIT;
            let mut restarts = 0;
            loop {
                board.loop_is(name, LoopState::Running);
                let mut task = JoinSet::new();
                task.spawn(start());
                let error = match task.join_next().await {
                    Some(Ok(Ok(()))) | None => break,
                    Some(Ok(Err(error))) => error,
                    Some(Err(_)) => Error::Panicked {
                        what: format!("the {name} loop"),
                    },
                };
                restarts += 1;
                let why = error.chain();
                tracing::error!(looped = name, %why, restarts, "a loop failed");
                board.loop_is(name, LoopState::Failed { why, restarts });
                if ledger.health().is_err() {
                    return Err(error);
                }
                tokio::select! {
                    () = shutdown.wait() => break,
                    () = sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
                }
            }
            board.loop_is(name, LoopState::Stopped);
            Ok(())
        });
    }

    /// Returns when every loop has ended.
    ///
    /// # Errors
    /// The first failure that cannot be healed by starting a loop again, a ledger that no loop was using included; the others are
    /// ended at once.
    pub(crate) async fn wait(mut self) -> Result<()> {
        let ledger = self.ledger.clone();
        let mut failed = pin!(ledger.failed());
        tokio::select! {
            ended = self.ended() => ended,
            error = &mut failed => {
                // A loop that fails by it says more, and has a moment to do so.
                let said = tokio::time::timeout(FIRST_WAIT, self.ended()).await;
                let error = Error::ledger("host", "go on")(error);
                said.unwrap_or(Ok(())).and(Err(error))
            }
        }
    }

    async fn ended(&mut self) -> Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|_| Error::Panicked {
                what: "the supervisor".to_owned(),
            })??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use ledger::Options;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_fails_ends_all_loops_though_none_of_them_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
        let (_stop, shutdown) = shutdown();
        let mut supervisor = Supervisor::new(ledger.clone(), Board::default(), shutdown.clone());
        supervisor.keep("judge", move || {
            let shutdown = shutdown.clone();
            Box::pin(async move {
                shutdown.wait().await;
                Ok(())
            })
        });
        let ended = tokio::spawn(supervisor.wait());
        tokio::task::yield_now().await;
        // A blob has no place to go to: that is a failed write.
        let blobs = dir.path().join("blobs");
        std::fs::remove_dir_all(&blobs).unwrap();
        std::fs::write(&blobs, "a file").unwrap();
        ledger.put_blob(b"weights").unwrap_err();
        let error = ended.await.unwrap().unwrap_err();
        assert!(error.chain().contains("stopped accepting"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_fails_or_panics_is_started_again_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
        let board = Board::default();
        let (stop, shutdown) = shutdown();
        let mut supervisor = Supervisor::new(ledger, board.clone(), shutdown.clone());
        let starts = Arc::new(AtomicU32::new(0));
        let count = starts.clone();
        supervisor.keep("judge", move || {
            let (count, shutdown, stop) = (count.clone(), shutdown.clone(), stop.clone());
            Box::pin(async move {
                match count.fetch_add(1, Ordering::Relaxed) {
                    0 => Err(Error::Panicked {
                        what: "a call".to_owned(),
                    }),
                    1 => panic!("on purpose"),
                    _ => {
                        stop.stop();
                        shutdown.wait().await;
                        Ok(())
                    }
                }
            })
        });
        supervisor.wait().await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert_eq!(board.status().loops["judge"], LoopState::Stopped);
    }
}
