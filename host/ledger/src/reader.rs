//! Reading in order. A long scan never waits for the writer's disk or makes it wait.
//!
//! A reader sees acknowledged records only, and every one is checked against the hash chain before it is handed out.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    Digest, Record, Result, Seq,
    log::{Log, Window},
};

/// Places fetched at a time.
const PAGE: usize = 1024;

/// Which records a read wants.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    All,
    Kind(String),
    Subject(String),
}

/// Records in order, up to the acknowledged end at the time the iterator was made. It ends after the first error.
#[derive(Debug)]
pub struct Records {
    log: Arc<Log>,
    filter: Filter,
    next: Seq,
    end: Seq,
    places: VecDeque<Seq>,
    window: Window,
    /// The record read last, and its hash.
    last: Option<(Seq, Digest)>,
}

impl Records {
    pub(crate) fn new(log: Arc<Log>, filter: Filter, from: Seq, end: Seq) -> Self {
        let places = match &filter {
            Filter::Subject(subject) => log.index().about(subject, end),
            _ => VecDeque::new(),
        };
        // Others have records between theirs that are not asked for.
        let window = match filter {
            Filter::All => Window::scan(),
            _ => Window::once(),
        };
        Self {
            log,
            filter,
            window,
            next: from.max(Seq::FIRST),
            end,
            places,
            last: None,
        }
    }

    /// Uses the memory of a record that was read for the next one.
    pub fn reuse(&mut self, record: Record) {
        self.window.spare = record.body;
    }

    fn place(&mut self) -> Option<Seq> {
        match &self.filter {
            Filter::All => {
                let seq = self.next;
                self.next = seq.next();
                (seq <= self.end).then_some(seq)
            }
            Filter::Kind(kind) => {
                if self.places.is_empty() {
                    self.places = self.log.of_kind(kind, self.next, self.end, PAGE);
                }
                let seq = self.places.pop_front()?;
                self.next = seq.next();
                Some(seq)
            }
            Filter::Subject(_) => self.places.pop_front(),
        }
    }

    fn stop(&mut self) {
        self.end = Seq::ZERO;
        self.places.clear();
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(seq) = self.place() else {
            self.stop();
            return None;
        };
        let prev = self
            .last
            .filter(|(last, _)| last.next() == seq)
            .map(|(_, hash)| hash);
        let record = self.log.read_in(&mut self.window, seq, prev);
        match &record {
            Ok(record) => self.last = Some((seq, record.hash)),
            Err(_) => self.stop(),
        }
        Some(record)
    }
}
