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
/// A single read takes the head and a body of up to this length; a scan takes many records with one.
const READ_AHEAD: usize = 4096;
const SCAN_AHEAD: usize = 64 << 10;

/// The bytes that were read last. Acknowledged records do not change, so what is in it stays true.
#[derive(Debug)]
pub(crate) struct Window {
    ahead: usize,
    number: u32,
    segment: Option<Segment>,
    offset: u64,
    bytes: Vec<u8>,
    /// A body that is not needed any more; its memory is the next one's.
    pub(crate) spare: Vec<u8>,
}

impl Window {
    /// For one record.
    pub(crate) fn once() -> Self {
        Self::new(RECORD_HEAD_MAX + READ_AHEAD)
    }

    /// For records that follow each other.
    pub(crate) fn scan() -> Self {
        Self::new(SCAN_AHEAD)
    }

    fn new(ahead: usize) -> Self {
        Self {
            ahead,
            number: 0,
            segment: None,
            offset: 0,
            bytes: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Turns to a segment.
    fn turn_to(&mut self, number: u32, log: &Log) -> Result<Segment> {
        if let (Some(segment), true) = (&self.segment, self.number == number) {
            return Ok(segment.clone());
        }
        let segment = log.segment(number)?;
        self.number = number;
        self.segment = Some(segment.clone());
        self.bytes.clear();
        Ok(segment)
    }

    /// `len` bytes at `offset`, or what the segment has of them.
    fn bytes(&mut self, segment: &Segment, offset: u64, len: usize) -> Result<&[u8]> {
        let left = usize::try_from(segment.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let held = offset
            .checked_sub(self.offset)
            .and_then(|from| usize::try_from(from).ok())
            .filter(|from| from.saturating_add(len) <= self.bytes.len());
        let from = match held {
            Some(from) => from,
            None => {
                // Nothing is held of a read that fails half-way.
                let mut bytes = std::mem::take(&mut self.bytes);
                bytes.resize(self.ahead.min(left).max(len), 0);
                segment.file.read_into(&mut bytes, offset)?;
                self.bytes = bytes;
                self.offset = offset;
                0
            }
        };
        Ok(&self.bytes[from..from + len])
    }
}

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

    /// The record at `seq`.
    pub(crate) fn read(&self, seq: Seq) -> Result<Record> {
        self.read_in(&mut Window::once(), seq, None)
    }

    /// The same through a window; `prev` is its predecessor's hash, when the caller has just read it.
    pub(crate) fn read_in(
        &self,
        window: &mut Window,
        seq: Seq,
        prev: Option<Digest>,
    ) -> Result<Record> {
        let prev = match prev {
            Some(prev) => prev,
            None => self.hash_at(Seq::new(seq.get() - 1))?,
        };
        let place = self.place(seq)?;
        let segment = window.turn_to(place.segment, self)?;
        let offset = u64::from(place.offset);
        let broken = |why| Error::Broken {
            path: segment.file.path.to_path_buf(),
            offset,
            seq: Some(seq),
            why,
        };
        let mut spare = std::mem::take(&mut window.spare);
        let bytes = window.bytes(&segment, offset, RECORD_HEAD_MAX)?;
        let head = frame::decode_head(bytes, segment.header.salt)
            .ok_or_else(|| broken("its head is damaged"))?;
        if head.seq != seq {
            return Err(broken("another record is there"));
        }
        let body = window.bytes(&segment, offset + head.len() as u64, head.body_len)?;
        if body.len() < head.body_len {
            return Err(broken("its body is cut off"));
        }
        segment::check(&segment.file.path, offset, &head, &prev, body)?;
        let mut erased = false;
        let body = match head.slot {
            None => {
                spare.clear();
                spare.extend_from_slice(body);
                spare
            }
            Some(slot) => match self.keys.get(slot)? {
                Slot::Key(key) => keys::unseal(&key, &head.kind, &head.subject, body, spare)
                    .ok_or(Error::Sealed { seq })?,
                Slot::Destroyed => {
                    erased = true;
                    Vec::new()
                }
                Slot::Damaged => return Err(self.keys.damaged(slot)),
            },
        };
        let mut record = head.record(body);
        record.erased = erased;
        Ok(record)
    }

    /// The record with this key, if it is not after `to`.
    pub(crate) fn read_key(&self, key: &str, to: Seq) -> Result<Option<Record>> {
        let Some(seq) = self.index().key(print(key)).filter(|seq| *seq <= to) else {
            return Ok(None);
        };
        let record = self.read(seq)?;
        Ok(Some(record).filter(|record| record.key.as_deref() == Some(key)))
    }

    pub(crate) fn of_kind(&self, kind: &str, from: Seq, to: Seq, limit: usize) -> VecDeque<Seq> {
        self.index().of_kind(kind, from, to, limit)
    }
}
