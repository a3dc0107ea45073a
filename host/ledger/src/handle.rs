//! [`Ledger`]: the handle that everybody holds. Opening decides whether the folder can be trusted.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;

use crate::{
    Digest, Entry, Error, Pending, PendingAll, Record, Records, Result, Seq,
    blob::Blobs,
    entry, files,
    keys::Keys,
    mark,
    mark::{Mark, Position},
    pending,
    reader::Readers,
    reserve::Reserve,
    store,
    store::{Filter, Stored},
    writer::{Request, Shared, Writer},
};

/// Milliseconds since 1970, for people to read. Nothing is ordered by it.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Appends that may wait for the disk before further ones are refused as [`Error::Busy`].
const WAITING: usize = 16_384;
/// Records before the mark that opening checks: a read-only walk over everything is [`crate::verify`].
const TAIL: u64 = 64;

/// How to open a ledger.
#[derive(Clone)]
pub struct Options {
    /// Where timestamps come from.
    pub clock: Clock,
    /// The database may not grow beyond this; appends are then refused as [`Error::Full`]. `None` leaves it to the disk.
    pub max_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: system_clock(),
            max_bytes: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// An open ledger. Cheap to clone; when the last clone is dropped, everything sent is written and the folder is released.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    sender: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    blobs: Blobs,
    reserve: Reserve,
    _lock: File,
}

impl Ledger {
    /// Opens the ledger in `dir`, creating it when the folder has none, and checks that nothing acknowledged is missing.
    ///
    /// Records that a killed process had committed but not yet acknowledged are kept: their writers never learned of them,
    /// and an idempotency key lets them ask again.
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open elsewhere; an error for which [`Error::is_damage`] holds, naming the place, when
    /// what is on disk is not what was written; [`Error::Foreign`] or [`Error::Format`] when it is not ours to read.
    pub fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let dir = dir.into();
        files::create_dir(&dir)?;
        let lock = lock(&dir)?;
        let (conn, mark) = recover(&dir, options.max_bytes)?;
        let shared = Arc::new(Shared::default());
        shared
            .durable
            .store(mark.position().seq.get(), Ordering::Release);
        let blobs = Blobs::open(&dir)?;
        let keys = Arc::new(Keys::open(&dir)?);
        let free = store::free_slot(&conn)?;
        keys.provide(free)?;
        let (sender, requests) = sync_channel(WAITING);
        let writer = Writer {
            keys: keys.clone(),
            free,
            conn,
            mark,
            clock: options.clock,
            shared: shared.clone(),
        };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(Error::file("start the writer of", &dir))?;
        let readers = Arc::new(Readers::new(dir.clone(), keys));
        let thread = Some(thread);
        let dir_of = dir.clone();
        Ok(Self(Arc::new(Inner {
            dir,
            sender: Some(sender),
            thread,
            shared,
            readers,
            blobs,
            reserve: Reserve::new(&dir_of),
            _lock: lock,
        })))
    }

    /// Appends one entry. It counts only when the returned value has been waited for.
    pub fn append(&self, entry: Entry) -> Pending {
        Pending(self.append_all(vec![entry]))
    }

    /// Appends several entries: all of them or none. An entry whose key is already there is not appended again, and its
    /// receipt names the first place; the others are.
    pub fn append_all(&self, entries: Vec<Entry>) -> PendingAll {
        let (done, pending) = pending::pair(|| {
            Err(Error::Poisoned {
                reason: "the writer has ended".into(),
            })
        });
        let refusal = entries
            .iter()
            .filter(|_| !crate::mutant::on("limits-not-checked"))
            .try_for_each(Entry::check)
            .and_then(|()| self.0.shared.check());
        if let Err(error) = refusal {
            done.complete(Err(error));
        } else if entries.is_empty() {
            done.complete(Ok(Vec::new()));
        } else if let Some(sender) = &self.0.sender {
            self.0.shared.waiting.fetch_add(1, Ordering::Relaxed);
            if let Err(TrySendError::Full(request)) = sender.try_send(Request { entries, done }) {
                self.0.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                request.done.complete(Err(Error::Busy { waiting: WAITING }));
            }
        }
        pending
    }

    /// Every record from `from` on, up to what is acknowledged now.
    pub fn scan(&self, from: Seq) -> Records {
        self.records(Filter::All, from)
    }

    /// The records of one kind from `from` on.
    pub fn by_kind(&self, kind: &str, from: Seq) -> Records {
        self.records(Filter::Kind(kind.to_owned()), from)
    }

    /// The records about one subject, which is not empty.
    pub fn by_subject(&self, subject: &str) -> Records {
        self.records(Filter::Subject(subject.to_owned()), Seq::FIRST)
    }

    /// The record with an idempotency key.
    ///
    /// # Errors
    /// The database's, or the record's damage.
    pub fn by_key(&self, key: &str) -> Result<Option<Record>> {
        let end = self.durable();
        let found = self
            .0
            .readers
            .with(|conn| store::read_key(conn, key, end))?;
        found.map(|stored| self.opened(stored)).transpose()
    }

    /// The record at a place.
    ///
    /// # Errors
    /// The database's, or the record's damage.
    pub fn get(&self, seq: Seq) -> Result<Option<Record>> {
        let to = seq.min(self.durable());
        let found = self
            .0
            .readers
            .with(|conn| Ok(store::read(conn, &Filter::All, seq, to, 1)?.pop()))?;
        found.map(|stored| self.opened(stored)).transpose()
    }

    /// The acknowledged end.
    pub fn durable(&self) -> Seq {
        self.0.shared.durable()
    }

    /// Appends that wait for the disk now.
    pub fn waiting(&self) -> usize {
        self.0.shared.waiting.load(Ordering::Relaxed)
    }

    /// Whether the ledger still accepts.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write; the process should say so and exit.
    pub fn health(&self) -> Result<()> {
        self.0.shared.check()
    }

    /// Whether new work can be accepted: the ledger is healthy and the disk has room for what will be recorded of it. Cheap.
    ///
    /// # Errors
    /// [`Error::Full`] while there is no room: what is begun can still be finished, and it passes when there is room again;
    /// [`Error::Poisoned`] after a failed write.
    pub fn room(&self) -> Result<()> {
        self.0.shared.check()?;
        self.0.reserve.check()
    }

    /// Stores `bytes` under their digest; durable on return. Blocks; storing the same bytes again is cheap.
    ///
    /// # Errors
    /// The file system's. A failed write poisons the ledger, as a failed append does.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        if !crate::mutant::on("poisoned-takes-blobs") {
            self.0.shared.check()?;
        }
        self.0.blobs.put(bytes).map_err(|error| match &error {
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Error::Full
            }
            _ => self.0.shared.poison(&error),
        })
    }

    /// The bytes that a digest names, checked against it.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::BlobDamaged`], or the file system's.
    pub fn get_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.0.blobs.get(digest)
    }

    /// Removes a blob; durable on return. Gives whether it was there.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        self.0.blobs.remove(digest)
    }

    /// Destroys the keys of these subjects: what was sealed about them can never be read again, in no copy of the ledger.
    /// Durable on return, and done again without harm. Gives how many keys there were. Further sealed entries about them are
    /// refused.
    ///
    /// # Errors
    /// The file system's; a failed write poisons the ledger.
    pub fn destroy_keys(&self, subjects: &[String]) -> Result<u64> {
        self.0.shared.check()?;
        let slots = self.0.readers.with(|conn| {
            let slots = subjects.iter().map(|subject| store::slot_of(conn, subject));
            slots
                .collect::<rusqlite::Result<Vec<_>>>()
                .map_err(Error::database("read the keys' slots of"))
        })?;
        let slots: Vec<u64> = slots.into_iter().flatten().collect();
        let keys = &self.0.readers.keys;
        keys.destroy(&slots)
            .map_err(|error| self.0.shared.poison(&error))
    }

    /// Every blob, in no order.
    ///
    /// # Errors
    /// The file system's.
    pub fn blobs(&self) -> Result<Vec<Digest>> {
        self.0.blobs.list()
    }

    /// Whether there is a blob with this digest; its bytes are not checked.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.0.blobs.has(digest)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    fn opened(&self, stored: Stored) -> Result<Record> {
        stored.opened(&self.0.readers.keys)
    }

    fn records(&self, filter: Filter, from: Seq) -> Records {
        Records::new(self.0.readers.clone(), filter, from, self.durable())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.readers.close_idle();
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has told its waiters already; there is nobody left to tell here.
            let _ = thread.join();
        }
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file("open", &path))?;
    if crate::mutant::on("no-lock") {
        return Ok(file);
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(Error::file("lock", path)(source)),
    }
}

/// Opens the database and the mark, compares them, and leaves both durable at the same end.
fn recover(dir: &Path, max_bytes: Option<u64>) -> Result<(Connection, Mark)> {
    let mark = Mark::open(dir)?;
    let acknowledged = mark.as_ref().map_or(Position::start(), Mark::position);
    if acknowledged.seq > Seq::ZERO && !store::path_in(dir).exists() {
        return Err(lost(dir, acknowledged.seq, Seq::ZERO));
    }
    let conn = store::open_writer(dir, max_bytes)?;
    store::checkpoint(&conn)?;
    let last = store::last(&conn)?;
    let mut mark = match mark {
        Some(mark) => mark,
        None if last == Seq::ZERO => {
            files::sync_dir(dir)?;
            Mark::create(dir)?
        }
        None => {
            return Err(Error::MarkMissing {
                path: mark::path_in(dir),
                records: last.get(),
            });
        }
    };
    let end = check_end(dir, &conn, acknowledged, last)?;
    if end != acknowledged {
        tracing::info!(from = %acknowledged.seq, to = %end.seq, "kept records that had not been acknowledged");
        mark.advance(end)?;
    }
    Ok((conn, mark))
}

/// Checks the chain from shortly before the mark to the end, and that the mark is on it.
fn check_end(dir: &Path, conn: &Connection, mark: Position, last: Seq) -> Result<Position> {
    if last < mark.seq && !crate::mutant::on("mark-ignored") {
        return Err(lost(dir, mark.seq, last));
    }
    if let Some(found) = store::hash_at(conn, mark.seq)?
        && found != mark.hash
        && !crate::mutant::on("divergence-ignored")
    {
        return Err(Error::Diverged {
            seq: mark.seq,
            found,
            expected: mark.hash,
        });
    }
    if crate::mutant::on("tail-not-checked") {
        return Ok(mark);
    }
    let mut seq = Seq::new(mark.seq.get().saturating_sub(TAIL)).max(Seq::FIRST);
    let mut end = Position {
        seq: Seq::ZERO,
        hash: entry::genesis(),
    };
    while seq <= last {
        let records = store::read(conn, &Filter::All, seq, last, 64)?;
        let records: Vec<Record> = records.into_iter().map(|stored| stored.record).collect();
        for record in records {
            if record.seq != seq {
                return Err(Error::Missing { seq, last });
            }
            end = Position {
                seq,
                hash: record.hash,
            };
            seq = seq.next();
        }
        if end.seq.next() != seq {
            return Err(Error::Missing { seq, last });
        }
    }
    Ok(end)
}

fn lost(dir: &Path, mark: Seq, last: Seq) -> Error {
    Error::Lost {
        dir: dir.to_owned(),
        mark,
        last,
    }
}
