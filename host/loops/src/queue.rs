//! The queue between two loops is the ledger itself: a reader with a place in it, and a bell.
//!
//! So it is lossless over a kill, its memory is bounded, and a slow consumer never holds up a producer. [`Depth`] says how
//! much work waits and for how long. It does not know what the work is.

use std::{collections::VecDeque, sync::Arc};

use ledger::{Ledger, Record, Seq};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{Error, Result};

/// Arrival times that are kept; further waiting work is counted, and its age is that of the last one kept.
const KEPT: usize = 65_536;

/// What waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, serde::Deserialize)]
pub struct QueueStatus {
    /// Pieces of work that are not finished.
    pub depth: u64,
    /// How long the oldest has waited, in seconds; since the last start for what is older.
    pub oldest_seconds: f64,
}

#[derive(Debug, Default)]
struct Waiting {
    since: VecDeque<Instant>,
    beyond: u64,
}

/// The bell and the gauge of one queue. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Depth {
    bell: Arc<Notify>,
    waiting: Arc<Mutex<Waiting>>,
    changed: Changed,
}

/// Rings at every change, for whoever watches.
#[derive(Clone, Debug)]
pub(crate) struct Changed(Arc<watch::Sender<()>>);

impl Default for Changed {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }
}

impl Changed {
    pub(crate) fn ring(&self) {
        self.0.send_replace(());
    }

    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl Depth {
    /// A queue whose changes ring `changed`, too.
    pub(crate) fn watched(changed: Changed) -> Self {
        Self {
            changed,
            ..Self::default()
        }
    }

    /// `count` pieces of work were recorded.
    pub fn added(&self, count: usize) {
        if count > 0 {
            let mut waiting = self.waiting.lock();
            for _ in 0..count {
                if waiting.since.len() < KEPT {
                    waiting.since.push_back(Instant::now());
                } else {
                    waiting.beyond += 1;
                }
            }
        }
        self.bell.notify_one();
        self.changed.ring();
    }

    /// `count` pieces of work are finished, the oldest first.
    pub fn finished(&self, count: usize) {
        let mut waiting = self.waiting.lock();
        for _ in 0..count {
            waiting.since.pop_front();
            if waiting.beyond > 0 {
                waiting.beyond -= 1;
                let last = waiting.since.back().copied().unwrap_or_else(Instant::now);
                waiting.since.push_back(last);
            }
        }
        drop(waiting);
        self.changed.ring();
    }

    /// Forgets what waits: a loop that starts again counts anew.
    pub fn reset(&self, count: usize) {
        *self.waiting.lock() = Waiting::default();
        self.added(count);
    }

    /// Waits until something was recorded since the last time.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// How much waits.
    pub fn status(&self) -> QueueStatus {
        let waiting = self.waiting.lock();
        QueueStatus {
            depth: waiting.since.len() as u64 + waiting.beyond,
            oldest_seconds: waiting
                .since
                .front()
                .map_or(0.0, |at| at.elapsed().as_secs_f64()),
        }
    }
}

/// A place in the records of one kind.
#[derive(Debug)]
pub struct Tail {
    ledger: Ledger,
    looped: &'static str,
    kind: &'static str,
    next: Seq,
}

impl Tail {
    /// Reads on from `next`.
    pub fn new(ledger: Ledger, looped: &'static str, kind: &'static str, next: Seq) -> Self {
        Self {
            ledger,
            looped,
            kind,
            next,
        }
    }

    /// The next records that are acknowledged, at most `limit`; empty when there is none yet.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn take(&mut self, limit: usize) -> Result<Vec<Record>> {
        let (ledger, kind, next) = (self.ledger.clone(), self.kind, self.next);
        let read = move || {
            ledger
                .by_kind(kind, next)
                .take(limit)
                .collect::<ledger::Result<Vec<_>>>()
        };
        let records = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Error::Panicked {
                what: format!("reading {kind} records"),
            })?
            .map_err(Error::ledger(self.looped, "read the ledger"))?;
        if let Some(last) = records.last() {
            self.next = last.seq.next();
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn depth_and_age_are_those_of_what_is_not_finished() {
        let depth = Depth::default();
        depth.added(1);
        advance(Duration::from_secs(3)).await;
        depth.added(2);
        assert_eq!(
            depth.status(),
            QueueStatus {
                depth: 3,
                oldest_seconds: 3.0
            }
        );
        depth.finished(1);
        advance(Duration::from_secs(1)).await;
        assert_eq!(
            depth.status(),
            QueueStatus {
                depth: 2,
                oldest_seconds: 1.0
            }
        );
        depth.finished(5);
        assert_eq!(depth.status(), QueueStatus::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bell_that_rang_before_anybody_waited_is_heard() {
        let depth = Depth::default();
        depth.added(0);
        depth.rung().await;
    }

    #[test]
    fn more_work_than_is_remembered_is_still_counted() {
        let depth = Depth::default();
        depth.added(KEPT + 10);
        assert_eq!(depth.status().depth, KEPT as u64 + 10);
        depth.finished(11);
        assert_eq!(depth.status().depth, KEPT as u64 - 1);
    }
}
