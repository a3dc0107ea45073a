//! Reading: connections of their own, so that a long scan never waits for the writer or makes it wait.
//!
//! A reader sees acknowledged records only, and every one is checked against the hash chain before it is handed out.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;

use crate::{
    Error, Record, Result, Seq,
    keys::Keys,
    store::{self, Filter},
};

/// Records fetched at a time: enough to hide the query's cost, little enough to hold in memory.
const PAGE: usize = 128;

/// Idle read connections.
#[derive(Debug)]
pub(crate) struct Readers {
    dir: PathBuf,
    pub(crate) keys: Arc<Keys>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(dir: PathBuf, keys: Arc<Keys>) -> Self {
        Self {
            dir,
            keys,
            idle: Mutex::default(),
        }
    }

    /// Closes the idle connections, so that the writer is the last to close and folds its log into the database.
    pub(crate) fn close_idle(&self) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let conn = match idle {
            Some(conn) => conn,
            None => store::open_reader(&self.dir)?,
        };
        let result = read(&conn)?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(conn);
        Ok(result)
    }
}

/// Records in order, up to the acknowledged end at the time the iterator was made. It ends after the first error.
#[derive(Debug)]
pub struct Records {
    readers: Arc<Readers>,
    filter: Filter,
    next: Seq,
    end: Seq,
    page: VecDeque<Record>,
}

impl Records {
    pub(crate) fn new(readers: Arc<Readers>, filter: Filter, from: Seq, end: Seq) -> Self {
        Self {
            readers,
            filter,
            next: from.max(Seq::FIRST),
            end,
            page: VecDeque::new(),
        }
    }

    fn fetch(&mut self) -> Result<()> {
        let page = self
            .readers
            .with(|conn| store::read(conn, &self.filter, self.next, self.end, PAGE))?;
        let keys = &self.readers.keys;
        let page = page.into_iter().map(|stored| stored.opened(keys));
        let page = page.collect::<Result<Vec<Record>>>()?;
        if matches!(self.filter, Filter::All) {
            let mut expected = self.next;
            for record in &page {
                if record.seq != expected {
                    return Err(Error::Missing {
                        seq: expected,
                        last: self.end,
                    });
                }
                expected = expected.next();
            }
            if page.is_empty() {
                return Err(Error::Missing {
                    seq: expected,
                    last: self.end,
                });
            }
        }
        self.page = page.into();
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && self.next <= self.end
            && let Err(error) = self.fetch()
        {
            self.end = Seq::ZERO;
            return Some(Err(error));
        }
        match self.page.pop_front() {
            Some(record) => {
                self.next = record.seq.next();
                Some(Ok(record))
            }
            None => {
                self.end = Seq::ZERO;
                None
            }
        }
    }
}
