//! The one thread that writes: it gathers what is waiting into a group, commits it with one sync, moves the mark with
//! another, and only then acknowledges.
//!
//! It never retries a failed write: after one, the only honest state is on disk, and opening again reads it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::Receiver,
    },
    time::Instant,
};

use rusqlite::Connection;

use crate::{
    Clock, Entry, Error, Receipt, Result, Seq,
    keys::{Key, Keys},
    mark::{Mark, Position},
    pending::Completer,
    store,
};

/// Most entries in a group, and most bytes: a group's memory and its longest wait are bounded.
const GROUP_ENTRIES: usize = 4_096;
const GROUP_BYTES: usize = 32 << 20;

/// Entries that must become durable together, and who waits for them.
pub(crate) struct Request {
    pub(crate) entries: Vec<Entry>,
    pub(crate) done: Completer,
}

/// What the handles and the writer both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The acknowledged end: readers go no further.
    pub(crate) durable: AtomicU64,
    pub(crate) waiting: AtomicUsize,
    poisoned: OnceLock<Arc<str>>,
}

impl Shared {
    pub(crate) fn poison(&self, error: &Error) -> Error {
        let reason = self.poisoned.get_or_init(|| {
            let reason = error.chain();
            tracing::error!(%reason, "the ledger stopped accepting");
            reason.into()
        });
        Error::Poisoned {
            reason: reason.clone(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.poisoned.get() {
            Some(reason) => Err(Error::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq::new(self.durable.load(Ordering::Acquire))
    }
}

/// The writer's state.
pub(crate) struct Writer {
    pub(crate) conn: Connection,
    pub(crate) keys: Arc<Keys>,
    /// The first slot that no record has used; its key is durable.
    pub(crate) free: u64,
    pub(crate) mark: Mark,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
}

impl Writer {
    /// Runs until every handle is gone and everything that they had sent is on disk.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let group = gather(first, requests);
            self.shared
                .waiting
                .fetch_sub(group.len(), Ordering::Relaxed);
            self.handle(group);
        }
    }

    fn handle(&mut self, group: Vec<Request>) {
        let start = Instant::now();
        let (group, refused) = self.without_forgotten(group);
        for (request, error) in refused {
            request.done.complete(Err(error));
        }
        if group.is_empty() {
            return;
        }
        let outcome = self.shared.check().and_then(|()| self.commit(&group));
        match outcome {
            Ok(receipts) => {
                tracing::trace!(group = group.len(), elapsed = ?start.elapsed(), "committed");
                for (request, receipts) in group.into_iter().zip(receipts) {
                    request.done.complete(Ok(receipts));
                }
            }
            Err(error) => {
                let error = if error.is_retryable() || crate::mutant::on("failed-write-goes-on") {
                    error
                } else {
                    self.shared.poison(&error)
                };
                for request in group {
                    request.done.complete(Err(error.clone()));
                }
            }
        }
    }

    /// Takes out requests about subjects whose key was destroyed: they are refused, and the others go on.
    fn without_forgotten(&self, group: Vec<Request>) -> (Vec<Request>, Vec<(Request, Error)>) {
        let (mut kept, mut refused) = (Vec::with_capacity(group.len()), Vec::new());
        for request in group {
            let mut sealed = request.entries.iter().filter(|entry| entry.sealed);
            let gone = sealed.find_map(|entry| {
                let slot = store::slot_of(&self.conn, &entry.subject).ok()??;
                matches!(self.keys.get(slot), Ok(Key::Destroyed)).then(|| Error::KeyDestroyed {
                    seq: self.mark.position().seq.next(),
                })
            });
            match gone.filter(|_| !crate::mutant::on("forgotten-poisons")) {
                Some(error) => refused.push((request, error)),
                None => kept.push(request),
            }
        }
        (kept, refused)
    }

    /// On return the group is durable, or it is not in the ledger, or the ledger is poisoned.
    fn commit(&mut self, group: &[Request]) -> Result<Vec<Vec<Receipt>>> {
        let at_ms = (self.clock)();
        let start = self.mark.position();
        let mut free = self.free;
        match insert_all(&mut self.conn, (&self.keys, &mut free), start, at_ms, group)? {
            Ok((end, receipts)) => {
                self.free = free;
                if end != start {
                    self.mark.advance(end)?;
                    self.shared.durable.store(end.seq.get(), Ordering::Release);
                }
                Ok(receipts)
            }
            Err(error) if store::is_full(&error) && !crate::mutant::on("full-poisons") => {
                // SQLite has usually rolled back by itself; a transaction that is still open is ours to end.
                if !self.conn.is_autocommit() {
                    self.conn
                        .execute_batch("ROLLBACK")
                        .map_err(Error::database("roll back"))?;
                }
                tracing::warn!("the ledger is full");
                Err(Error::Full)
            }
            Err(error) => Err(Error::database("append to")(error)),
        }
    }
}

fn insert_all(
    conn: &mut Connection,
    (keys, free): (&Keys, &mut u64),
    end: Position,
    at_ms: i64,
    group: &[Request],
) -> Result<rusqlite::Result<Inserted>> {
    let mut failed = None;
    let inserted = insert_group(conn, end, at_ms, group, &mut |conn, seq, entry| {
        let slot = match store::slot_of(conn, &entry.subject)? {
            Some(slot) => slot,
            None => {
                let slot = *free;
                *free += 1;
                slot
            }
        };
        // The next slot, too: its key is durable before a record can use it.
        let sealed = keys
            .provide(*free)
            .and_then(|()| keys.seal(slot, seq, &entry.body));
        match sealed {
            Ok(body) => Ok((slot, body)),
            Err(error) => {
                failed = Some(error);
                Err(rusqlite::Error::ExecuteReturnedResults)
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(inserted),
    }
}

/// The new end, and every request's receipts.
type Inserted = (Position, Vec<Vec<Receipt>>);
type Seal<'a> = dyn FnMut(&Connection, Seq, &Entry) -> rusqlite::Result<(u64, Vec<u8>)> + 'a;

fn insert_group(
    conn: &mut Connection,
    mut end: Position,
    at_ms: i64,
    group: &[Request],
    seal: &mut Seal<'_>,
) -> rusqlite::Result<Inserted> {
    let transaction = conn.transaction()?;
    let mut all = Vec::with_capacity(group.len());
    for request in group {
        let mut receipts = Vec::with_capacity(request.entries.len());
        for entry in &request.entries {
            let before = match &entry.key {
                Some(_) if crate::mutant::on("key-not-checked") => None,
                Some(key) => store::find_key(&transaction, key)?,
                None => None,
            };
            receipts.push(match before {
                Some(seq) => Receipt { seq, fresh: false },
                None => {
                    let sealed = match entry.sealed {
                        true => Some(seal(&transaction, end.seq.next(), entry)?),
                        false => None,
                    };
                    let sealed = sealed.as_ref().map(|(slot, body)| (*slot, &body[..]));
                    end = store::insert(&transaction, &end, at_ms, entry, sealed)?;
                    Receipt {
                        seq: end.seq,
                        fresh: true,
                    }
                }
            });
        }
        all.push(receipts);
    }
    if !crate::mutant::on("not-committed") {
        transaction.commit()?;
    }
    Ok((end, all))
}

fn gather(first: Request, requests: &Receiver<Request>) -> Vec<Request> {
    let size = |request: &Request| {
        let bytes: usize = request.entries.iter().map(|entry| entry.body.len()).sum();
        (request.entries.len(), bytes)
    };
    let (mut entries, mut bytes) = size(&first);
    let mut group = vec![first];
    while entries < GROUP_ENTRIES && bytes < GROUP_BYTES {
        let Ok(next) = requests.try_recv() else { break };
        let (more, longer) = size(&next);
        entries += more;
        bytes += longer;
        group.push(next);
    }
    group
}
