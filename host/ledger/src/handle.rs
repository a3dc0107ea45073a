//! [`Ledger`]: the handle that everybody holds. Opening decides whether the folder can be trusted.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    Digest, Entry, Error, Pending, PendingAll, Record, Records, Result, Seq,
    blob::Blobs,
    disk::{self, Disk, Guard, Machine},
    frame,
    log::Log,
    mutant, pending,
    reader::Filter,
    recover::{self, Recovered},
    shared::{Core, Request, Shared},
    spare::Spare,
    v1,
    writer::Writer,
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

/// The longest that a segment is by default: a steady stream rolls every few seconds, a walk over one takes 50 ms.
const SEGMENT_BYTES: u64 = 16 << 20;
/// What [`Ledger::append_all`] takes at most: a group lies in one segment.
const TOGETHER: usize = 1 << 30;

/// How to open a ledger.
#[derive(Clone)]
pub struct Options {
    /// Where timestamps come from.
    pub clock: Clock,
    /// The log may not grow beyond this; appends are then refused as [`Error::Full`]. `None` leaves it to the disk.
    pub max_bytes: Option<u64>,
    /// The longest that a segment of the log is, unless one record needs more.
    pub segment_bytes: u64,
    /// What the files are on.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: system_clock(),
            max_bytes: None,
            segment_bytes: SEGMENT_BYTES,
            disk: Arc::new(Machine),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_bytes", &self.max_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// An open ledger. Cheap to clone; when the last clone is dropped, everything sent is written and the folder is released.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    thread: Option<JoinHandle<()>>,
    core: Arc<Core>,
    log: Arc<Log>,
    spare: Arc<Spare>,
    blobs: Blobs,
    _lock: Option<Guard>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger in `dir`, creating it when the folder has none, and checks that nothing acknowledged is missing.
    /// A ledger of format 1 is turned into one of the current format first; its old file is kept beside it.
    ///
    /// Records that a killed process had written but not yet acknowledged are kept: their writers never learned of them,
    /// and an idempotency key lets them ask again.
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open elsewhere; an error for which [`Error::is_damage`] holds, naming the place, when
    /// what is on disk is not what was written; [`Error::Foreign`] or [`Error::Format`] when it is not ours to read.
    pub fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let dir = dir.into();
        let disk = options.disk;
        disk::create_dir(&*disk, &dir)?;
        let lock = lock(&*disk, &dir)?;
        v1::upgrade(&*disk, &dir, options.segment_bytes)?;
        let found = recover::recover(&disk, &dir, options.segment_bytes, options.max_bytes)?;
        let Recovered {
            log,
            active,
            at,
            end,
            mark,
            spare,
        } = found;
        let shared = Arc::new(Shared::default());
        shared.durable.store(end.seq.get(), Ordering::Release);
        let blobs = Blobs::open(disk, &dir)?;
        let next_slot = log.index().free_slot();
        let writer = Writer {
            log: log.clone(),
            active,
            at,
            end,
            mark,
            clock: options.clock,
            shared: shared.clone(),
            spare: spare.clone(),
            next_slot,
        };
        writer.make_ahead();
        let core = Arc::new(Core::new(writer, shared));
        let behind = core.clone();
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || behind.run())
            .map_err(Error::file("start the writer of", &dir))?;
        Ok(Self(Arc::new(Inner {
            dir,
            thread: Some(thread),
            core,
            log,
            spare,
            blobs,
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
        let core = &self.0.core;
        let (done, pending) = pending::pair(
            || {
                Err(Error::Poisoned {
                    reason: "the writer has ended".into(),
                })
            },
            Some(core.clone()),
        );
        if let Err(error) = check(&entries).and_then(|()| core.shared.check()) {
            done.complete(Err(error));
        } else if entries.is_empty() {
            done.complete(Ok(Vec::new()));
        } else {
            core.send(Request { entries, done });
        }
        pending
    }

    /// Every record from `from` on, up to what is acknowledged now.
    pub fn scan(&self, from: Seq) -> Records {
        self.records(Filter::All, from)
    }

    /// The same up to `to`: long reads can be shared out.
    pub fn scan_to(&self, from: Seq, to: Seq) -> Records {
        let end = self.durable().min(to);
        Records::new(self.0.log.clone(), Filter::All, from, end)
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
    /// The file system's, or the record's damage.
    pub fn by_key(&self, key: &str) -> Result<Option<Record>> {
        self.0.log.read_key(key, self.durable())
    }

    /// The record at a place.
    ///
    /// # Errors
    /// The file system's, or the record's damage.
    pub fn get(&self, seq: Seq) -> Result<Option<Record>> {
        if seq == Seq::ZERO || seq > self.durable() {
            return Ok(None);
        }
        self.0.log.read(seq).map(Some)
    }

    /// The acknowledged end.
    pub fn durable(&self) -> Seq {
        self.0.core.shared.durable()
    }

    /// Appends that wait for the disk now.
    pub fn waiting(&self) -> usize {
        self.0.core.shared.waiting.load(Ordering::Relaxed)
    }

    /// Whether the ledger still accepts.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write; the process should say so and exit.
    pub fn health(&self) -> Result<()> {
        self.0.core.shared.check()
    }

    /// Returns when the ledger accepts nothing more, with the reason; whatever failed, and whether anybody waits for it or not.
    pub async fn failed(&self) -> Error {
        std::future::poll_fn(|cx| self.0.core.shared.poll_failed(cx)).await
    }

    /// Does what closing would do while its outcome can still be told: what was sent is written, and the mark is durable. Blocks.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write or sync, of this or of before.
    pub fn settle(&self) -> Result<()> {
        self.0.core.with_writer(Writer::idle);
        self.health()
    }

    /// Stores `bytes` under their digest; durable on return. Blocks; storing the same bytes again is cheap.
    ///
    /// # Errors
    /// The file system's. A failed write poisons the ledger, as a failed append does.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        self.0.core.shared.check()?;
        self.0.blobs.put(bytes).map_err(|error| match &error {
            error if error.is_no_space() => Error::Full,
            _ => self.0.core.shared.poison(&error),
        })
    }

    /// The bytes that a digest names, checked against it.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::BlobDamaged`], or the file system's.
    pub fn get_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.0.blobs.get(digest)
    }

    /// Whether there is a blob with this digest; its bytes are not checked.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.0.blobs.has(digest)
    }

    /// Removes a blob; durable on return. False when there was none.
    ///
    /// # Errors
    /// The file system's, which poisons the ledger.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        self.0.core.shared.check()?;
        let removed = self.0.blobs.remove(digest);
        removed.map_err(|error| self.0.core.shared.poison(&error))
    }

    /// The digests of all blobs, in order; their bytes are not checked.
    ///
    /// # Errors
    /// The file system's.
    pub fn blobs(&self) -> Result<Vec<Digest>> {
        self.0.blobs.all()
    }

    /// Destroys the keys of `subjects`: what was sealed under them reads as erased from now on, here and in every copy of
    /// the log. Durable on return; says how many keys there were. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::KeysDamaged`], or the file system's; a failed write poisons the ledger.
    pub fn destroy_keys(&self, subjects: &[String]) -> Result<u64> {
        let done = self.0.core.with_writer(|w| w.destroy_keys(subjects));
        done.unwrap_or_else(|| Err(ended()))
    }

    /// Whether new work can be accepted, and what is begun be finished. Cheap.
    ///
    /// # Errors
    /// [`Error::Full`] while there is no space for another segment: what is begun still fits; [`Error::Poisoned`].
    pub fn room(&self) -> Result<()> {
        self.0.spare.room(&self.0.log, &self.0.core.shared)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    fn records(&self, filter: Filter, from: Seq) -> Records {
        Records::new(self.0.log.clone(), filter, from, self.durable())
    }
}

fn ended() -> Error {
    Error::Poisoned {
        reason: "the writer has ended".into(),
    }
}

fn check(entries: &[Entry]) -> Result<()> {
    entries.iter().try_for_each(Entry::check)?;
    let len = entries.iter().map(frame::record_len).sum();
    if len > TOGETHER {
        return Err(Error::Together {
            entries: entries.len(),
            len,
            most: TOGETHER,
        });
    }
    Ok(())
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.close();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has told its waiters already; there is nobody left to tell here.
            let _ = thread.join();
        }
        if let Some(mut writer) = self.core.take_writer() {
            writer.close();
        }
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Option<Guard>> {
    let path = dir.join("lock");
    if mutant::on("lock-not-taken") {
        return Ok(None);
    }
    match disk.lock(&path).map_err(Error::file("lock", path))? {
        Some(guard) => Ok(Some(guard)),
        None => Err(Error::Locked {
            dir: dir.to_owned(),
        }),
    }
}
