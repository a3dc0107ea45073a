//! What the writer and the readers share of the log: the index, the open files and the keys.
//!
//! Reading a record checks its head's checksum, its place, and its hash against its predecessor's; a sealed body is opened,
//! or found erased. Nothing here writes.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    Digest, Error, Record, Result, Seq,
    disk::Disk,
    entry,
    frame::{self, RECORD_FIXED, RECORD_HEAD_MAX},
    index::{Index, Place, print},
    keys::{self, Keys, Slot},
    segment::{self, Segment},
};

/// Segments kept open for reading.
const OPEN_SEGMENTS: usize = 64;
/// One read takes the head and a body of up to this length.
const READ_AHEAD: usize = 4096;

/// The shared part of an open ledger.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    /// The folder of the segments.
    pub(crate) folder: PathBuf,
    pub(crate) keys: Keys,
    index: RwLock<Index>,
    open: Mutex<HashMap<u32, Segment>>,
    /// Held for reading by every job beside the writer; true once the ledger is closed.
    closed: RwLock<bool>,
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf, keys: Keys, index: Index) -> Self {
        Self {
            disk,
            folder,
            keys,
            index: RwLock::new(index),
            open: Mutex::default(),
            closed: RwLock::default(),
        }
    }

    /// Runs a job beside the caller, unless the ledger is closed by then.
    pub(crate) fn beside(self: &Arc<Self>, job: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let log = self.clone();
        self.disk.spawn(Box::new(move || {
            let closed = log.closed.read().unwrap_or_else(PoisonError::into_inner);
            if !*closed {
                job(&log);
            }
        }));
    }

    /// Waits for the jobs that run; those that have not begun do nothing any more.
    pub(crate) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn segment(&self, number: u32) -> Result<Segment> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = open.get(&number) {
            return Ok(segment.clone());
        }
        let segment = Segment::open(&*self.disk, &self.folder, u64::from(number), false)?;
        if open.len() >= OPEN_SEGMENTS {
            open.clear();
        }
        open.insert(number, segment.clone());
        Ok(segment)
    }

    fn place(&self, seq: Seq) -> Result<Place> {
        let index = self.index();
        index.place(seq).ok_or(Error::Missing {
            seq,
            last: index.last(),
        })
    }

    /// The hash that the record at `seq` has on the disk.
    pub(crate) fn hash_at(&self, seq: Seq) -> Result<Digest> {
        if seq == Seq::ZERO {
            return Ok(entry::genesis());
        }
        let place = self.place(seq)?;
        let segment = self.segment(place.segment)?;
        let fixed = segment.file.read(u64::from(place.offset), RECORD_FIXED)?;
        frame::hash_in(&fixed).ok_or(Error::Missing { seq, last: seq })
    }

    /// The record at `seq`; `prev` is its predecessor's hash, when the caller has just read it.
    pub(crate) fn read(&self, seq: Seq, prev: Option<Digest>) -> Result<Record> {
        let place = self.place(seq)?;
        let segment = self.segment(place.segment)?;
        let offset = u64::from(place.offset);
        let ahead = (segment.len - offset).min((RECORD_HEAD_MAX + READ_AHEAD) as u64);
        let mut bytes = segment
            .file
            .read(offset, usize::try_from(ahead).unwrap_or(0))?;
        let broken = |why| Error::Broken {
            path: segment.file.path.to_path_buf(),
            offset,
            seq: Some(seq),
            why,
        };
        let head = frame::decode_head(&bytes, segment.header.salt)
            .ok_or_else(|| broken("its head is damaged"))?;
        if head.seq != seq {
            return Err(broken("another record is there"));
        }
        let start = head.len();
        let mut body = if start + head.body_len <= bytes.len() {
            bytes.truncate(start + head.body_len);
            bytes.split_off(start)
        } else {
            segment.file.read(offset + start as u64, head.body_len)?
        };
        let prev = match prev {
            Some(prev) => prev,
            None => self.hash_at(Seq::new(seq.get() - 1))?,
        };
        segment::check(&segment.file.path, offset, &head, &prev, &body)?;
        let slot = head.slot;
        let mut erased = false;
        if let Some(slot) = slot {
            body = match self.keys.get(slot)? {
                Slot::Key(key) => keys::unseal(&key, &head.kind, &head.subject, &body)
                    .ok_or(Error::Sealed { seq })?,
                Slot::Destroyed => {
                    erased = true;
                    Vec::new()
                }
                Slot::Damaged => return Err(self.keys.damaged(slot)),
            };
        }
        let mut record = head.record(body);
        record.erased = erased;
        Ok(record)
    }

    /// The record with this key, if it is not after `to`.
    pub(crate) fn read_key(&self, key: &str, to: Seq) -> Result<Option<Record>> {
        let Some(seq) = self.index().key(print(key)).filter(|seq| *seq <= to) else {
            return Ok(None);
        };
        let record = self.read(seq, None)?;
        Ok(Some(record).filter(|record| record.key.as_deref() == Some(key)))
    }

    pub(crate) fn of_kind(&self, kind: &str, from: Seq, to: Seq, limit: usize) -> VecDeque<Seq> {
        self.index().of_kind(kind, from, to, limit)
    }
}
