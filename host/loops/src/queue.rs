//! The queue between two loops is the ledger itself: a reader with a place in it, and a bell.
//!
//! So it is lossless over a kill, what waits costs memory a few bytes a record, and a slow consumer never holds up a producer. [`Depth`]
//! says how much work waits and for how long: what was recorded behind the reader's place, and what the reader says that it has taken up.
//! Counting both ends apart from each other would drift whenever one of them starts again. It does not know what the work is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use ledger::{Ledger, Record, Seq};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{Error, Result};

/// What waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, serde::Deserialize)]
pub struct QueueStatus {
    /// Pieces of work that are not finished.
    pub depth: u64,
    /// How long the oldest has waited, in seconds; since the last start for what is older.
    pub oldest_seconds: f64,
}

/// The kind of a record that is work, and its place.
pub type Work = (&'static str, Seq);

#[derive(Debug, Default)]
struct Waiting {
    /// Recorded, and not taken up.
    coming: BTreeMap<Work, Instant>,
    /// Taken up and not finished, the oldest first: since when each has waited.
    taken: VecDeque<Instant>,
    /// Where the reader reads on.
    next: HashMap<&'static str, Seq>,
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

    /// Rings the bell.
    pub fn ring(&self) {
        self.bell.notify_one();
        self.changed.ring();
    }

    /// A piece of work was recorded. Whoever reads may have been faster.
    pub fn added(&self, (kind, at): Work) {
        let mut waiting = self.waiting.lock();
        if waiting.next.get(kind).is_none_or(|next| *next <= at) {
            waiting.coming.insert((kind, at), Instant::now());
        }
        drop(waiting);
        self.ring();
    }

    /// The reader reads on from these places; of what lies before them this many pieces are not finished.
    pub fn taken(&self, next: &[Work], count: usize) {
        let mut waiting = self.waiting.lock();
        let Waiting {
            coming,
            taken,
            next: known,
        } = &mut *waiting;
        let depth = coming.len() + taken.len();
        for (kind, place) in next {
            known.insert(kind, *place);
            let before: Vec<Work> = coming
                .range((*kind, Seq::ZERO)..(*kind, *place))
                .map(|(work, _)| *work)
                .collect();
            taken.extend(before.iter().filter_map(|work| coming.remove(work)));
        }
        while taken.len() > count {
            taken.pop_front();
        }
        taken.resize_with(count, Instant::now);
        let changed = depth != coming.len() + count;
        drop(waiting);
        if changed {
            self.changed.ring();
        }
    }

    /// The reader starts anew: what was recorded by then and not finished is in `work`.
    pub fn reset(&self, work: impl IntoIterator<Item = Work>, next: &[Work]) {
        let mut waiting = self.waiting.lock();
        waiting.taken.clear();
        waiting.next = next.iter().copied().collect();
        let now = Instant::now();
        for work in work {
            waiting.coming.entry(work).or_insert(now);
        }
        drop(waiting);
        self.ring();
    }

    /// Waits until something was recorded since the last time.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// How much waits.
    pub fn status(&self) -> QueueStatus {
        let waiting = self.waiting.lock();
        let oldest = waiting.coming.values().chain(&waiting.taken).min();
        QueueStatus {
            depth: (waiting.coming.len() + waiting.taken.len()) as u64,
            oldest_seconds: oldest.map_or(0.0, |at| at.elapsed().as_secs_f64()),
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

    /// Where it reads on.
    pub(crate) fn place(&self) -> Work {
        (self.kind, self.next)
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

    const A: &str = "a";
    const B: &str = "b";

    fn at(kind: &'static str, seq: u64) -> Work {
        (kind, Seq::new(seq))
    }

    #[tokio::test(start_paused = true)]
    async fn depth_and_age_are_those_of_what_is_not_finished() {
        let depth = Depth::default();
        depth.added(at(A, 1));
        advance(Duration::from_secs(3)).await;
        depth.added(at(B, 2));
        depth.added(at(A, 3));
        let waits = |depth, oldest_seconds| QueueStatus {
            depth,
            oldest_seconds,
        };
        assert_eq!(depth.status(), waits(3, 3.0));
        // One of kind `a` is taken up; then it is finished, and the other two are taken up.
        depth.taken(&[at(A, 2), at(B, 1)], 1);
        assert_eq!(depth.status(), waits(3, 3.0));
        depth.taken(&[at(A, 4), at(B, 3)], 2);
        advance(Duration::from_secs(1)).await;
        assert_eq!(depth.status(), waits(2, 1.0));
        depth.taken(&[at(A, 4), at(B, 3)], 0);
        assert_eq!(depth.status(), QueueStatus::default());
    }

    #[test]
    fn a_reader_that_was_faster_than_the_word_of_it_leaves_nothing_behind() {
        let depth = Depth::default();
        depth.taken(&[at(A, 6)], 0);
        depth.added(at(A, 5));
        assert_eq!(depth.status().depth, 0);
        depth.added(at(A, 6));
        assert_eq!(depth.status().depth, 1);
    }

    #[test]
    fn a_reader_that_starts_anew_finds_what_was_not_finished_and_what_came_since() {
        let depth = Depth::default();
        for seq in 1..=3 {
            depth.added(at(A, seq));
        }
        depth.taken(&[at(A, 3)], 2);
        // It failed; of what it had taken up one piece is left, and the third was recorded after it had looked.
        depth.reset([at(A, 2)], &[at(A, 2)]);
        assert_eq!(depth.status().depth, 2);
        // What it reads again without there being anything to do is gone when it says so.
        depth.taken(&[at(A, 4)], 5);
        assert_eq!(depth.status().depth, 5);
        depth.taken(&[at(A, 4)], 0);
        assert_eq!(depth.status().depth, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bell_that_rang_before_anybody_waited_is_heard() {
        let depth = Depth::default();
        depth.ring();
        depth.rung().await;
    }
}
