//! The writing end: it puts what waits into a group, writes it at the end of the log, syncs, moves the mark, and only then
//! acknowledges.
//!
//! It never retries a failed write: after one, the only honest state is on disk, and opening again reads it. What does not
//! fit is refused before anything is written.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crate::{
    Clock, Digest, Entry, Error, Receipt, Result, Seq,
    disk::{self, Named},
    frame::{self, GROUP_HEADER, GroupHeader, Head},
    index::{Print, Sealed, print},
    keys::{self, Slot},
    log::Log,
    mark::{Mark, Position},
    mutant,
    pending::Completer,
    segment::{self, Segment},
    shared::{Request, Shared},
    spare::Spare,
};

/// Keys that are made ahead of their use.
const KEYS_AHEAD: u32 = 64;

/// The writer's state.
pub(crate) struct Writer {
    pub(crate) log: Arc<Log>,
    pub(crate) active: Segment,
    /// Where the next group goes in it.
    pub(crate) at: u64,
    pub(crate) end: Position,
    pub(crate) mark: Mark,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) spare: Arc<Spare>,
    pub(crate) next_slot: u32,
}

/// Records on their way to the disk.
struct Group {
    bytes: Vec<u8>,
    heads: Vec<(Head, u64)>,
    keys: HashMap<Print, Seq>,
    slots: HashMap<Print, u32>,
    waiting: Vec<(Completer, Vec<Receipt>)>,
    end: Position,
    at_ms: i64,
}

impl Writer {
    /// Commits requests in their order and completes each of them.
    pub(crate) fn handle(&mut self, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let start = Instant::now();
        let count = requests.len();
        let at_ms = (self.clock)();
        let mut group = Group::new(self.end, at_ms);
        for Request { entries, done } in requests {
            let staged = self
                .shared
                .check()
                .and_then(|()| self.stage(&mut group, entries));
            match staged {
                Ok(receipts) => group.waiting.push((done, receipts)),
                Err(error) => done.complete(Err(self.judged(error))),
            }
        }
        self.flush(&mut group);
        tracing::trace!(group = count, elapsed = ?start.elapsed(), "committed");
    }

    /// A refusal stays one; anything else poisons.
    fn judged(&self, error: Error) -> Error {
        let refusal = error.is_refusal()
            && !(matches!(error, Error::Full) && mutant::on("full-poisons-nothing-written"));
        if refusal {
            error
        } else {
            self.shared.poison(&error)
        }
    }

    /// Puts a request's records into the group, first making room for them: all or none.
    fn stage(&mut self, group: &mut Group, entries: Vec<Entry>) -> Result<Vec<Receipt>> {
        let plan = self.plan(group, &entries)?;
        if plan.bytes > 0 {
            let room = |writer: &Self, group: &Group| {
                writer.at + (group.bytes.len() + plan.bytes) as u64 <= writer.active.len
            };
            if !room(self, group) {
                self.flush(group);
                self.shared.check()?;
            }
            if !room(self, group) {
                self.roll((GROUP_HEADER + plan.bytes) as u64)?;
            }
        }
        for (entry, (receipt, slot)) in entries
            .into_iter()
            .zip(plan.receipts.iter().zip(plan.slots))
        {
            if receipt.fresh {
                // Part of the request is in the group: there is no way back but to give up.
                self.put(group, receipt.seq, slot, entry)
                    .map_err(|error| self.shared.poison(&error))?;
            }
        }
        Ok(plan.receipts)
    }

    /// Which entries are already there, where the others will be, and how many bytes they take.
    fn plan(&mut self, group: &mut Group, entries: &[Entry]) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut here: HashMap<&str, Seq> = HashMap::new();
        let mut next = group.end.seq.next();
        for entry in entries {
            if let Some(key) = entry.key.as_deref() {
                let before = match here.get(key) {
                    Some(seq) => Some(*seq),
                    None => self.find_key(group, key)?,
                };
                if let Some(seq) = before.filter(|_| !mutant::on("key-not-checked")) {
                    plan.receipts.push(Receipt { seq, fresh: false });
                    plan.slots.push(None);
                    continue;
                }
                here.insert(key, next);
            }
            plan.slots.push(if entry.sealed {
                Some(self.slot(group, &entry.subject)?)
            } else {
                None
            });
            plan.bytes += frame::record_len(entry);
            plan.receipts.push(Receipt {
                seq: next,
                fresh: true,
            });
            next = next.next();
        }
        Ok(plan)
    }

    fn find_key(&self, group: &Group, key: &str) -> Result<Option<Seq>> {
        let print = print(key);
        if let Some(seq) = group.keys.get(&print) {
            return Ok(Some(*seq));
        }
        // 128 bits of SHA-256 stand for the key: reading the record back would find no difference that anybody can make.
        Ok(self.log.index().key(print))
    }

    /// The slot of the subject's key, which is there and durable.
    fn slot(&mut self, group: &mut Group, subject: &str) -> Result<u32> {
        let print = print(subject);
        let known = group
            .slots
            .get(&print)
            .copied()
            .or_else(|| self.log.index().slot(print));
        if let Some(slot) = known {
            return match self.log.keys.get(slot)? {
                Slot::Key(_) => Ok(slot),
                Slot::Destroyed => Err(Error::Erased {
                    subject: subject.to_owned(),
                }),
                Slot::Damaged => Err(self.log.keys.damaged(slot)),
            };
        }
        let slot = self.next_slot;
        let prepared = self.log.keys.prepare(&*self.log.disk, slot);
        prepared.map_err(|error| {
            if error.is_no_space() {
                Error::Full
            } else {
                error
            }
        })?;
        self.next_slot += 1;
        group.slots.insert(print, slot);
        Ok(slot)
    }

    fn put(&self, group: &mut Group, seq: Seq, slot: Option<u32>, entry: Entry) -> Result<()> {
        let body = match slot {
            Some(slot) => match self.log.keys.get(slot)? {
                Slot::Key(key) => keys::seal(&key, &entry.kind, &entry.subject, &entry.body)?,
                _ => return Err(self.log.keys.damaged(slot)),
            },
            None => entry.body,
        };
        if let Some(key) = &entry.key {
            group.keys.insert(print(key), seq);
        }
        let mut head = Head {
            seq,
            at_ms: group.at_ms,
            kind: entry.kind,
            subject: entry.subject,
            key: entry.key,
            slot,
            hash: Digest::from_bytes([0; 32]),
            body_len: body.len(),
        };
        head.hash = head.hashed(&group.end.hash, &body);
        group.end = Position {
            seq,
            hash: head.hash,
        };
        let offset = self.at + group.bytes.len() as u64;
        frame::encode_record(&mut group.bytes, self.active.header.salt, &head, &body);
        group.heads.push((head, offset));
        Ok(())
    }

    /// Writes and syncs the group, moves the mark, and acknowledges. On return it is durable, or the ledger is poisoned.
    fn flush(&mut self, group: &mut Group) {
        let next = Group::new(group.end, group.at_ms);
        let mut group = std::mem::replace(group, next);
        let outcome = self.shared.check().and_then(|()| match group.heads.len() {
            0 => Ok(()),
            _ => self.commit(&mut group),
        });
        match outcome {
            Ok(()) => {
                for (done, receipts) in group.waiting {
                    done.complete(Ok(receipts));
                }
                self.make_ahead();
            }
            Err(error) => {
                let error = self.shared.poison(&error);
                for (done, _) in group.waiting {
                    done.complete(Err(error.clone()));
                }
            }
        }
    }

    fn commit(&mut self, group: &mut Group) -> Result<()> {
        let salt = self.active.header.salt;
        let header = GroupHeader {
            len: group.bytes.len() - GROUP_HEADER,
            first: self.end.seq.next(),
            count: u32::try_from(group.heads.len()).unwrap_or(u32::MAX),
            crc: frame::crc(salt, &group.bytes[GROUP_HEADER..]),
        };
        group.bytes[..GROUP_HEADER].copy_from_slice(&header.encode(salt));
        self.active.file.write(&group.bytes, self.at)?;
        if !mutant::on("ack-before-fsync") {
            let synced = self.active.file.sync();
            if synced.is_err() && mutant::on("retry-after-failed-fsync") {
                self.active.file.sync()?;
            } else {
                synced?;
            }
        }
        self.at += group.bytes.len() as u64;
        self.end = group.end;
        self.mark.advance(self.end)?;
        let number = u32::try_from(self.active.header.number).unwrap_or(u32::MAX);
        let mut index = self.log.index_mut();
        for (head, offset) in &group.heads {
            let meta = index.meta(head, u32::try_from(*offset).unwrap_or(u32::MAX));
            index.push(number, meta);
        }
        drop(index);
        self.shared
            .durable
            .store(self.end.seq.get(), Ordering::Release);
        Ok(())
    }

    /// Goes on in the next segment, in which at least `need` bytes fit.
    fn roll(&mut self, need: u64) -> Result<()> {
        let disk = &*self.log.disk;
        let number = self.active.header.number + 1;
        let reserved = self.spare.take(disk, number, need)?;
        let next = match Segment::start(disk, &self.log.folder, &reserved, number, self.end) {
            Ok(next) => next,
            Err(error) if error.is_no_space() => return Err(Error::Full),
            Err(error) => return Err(error),
        };
        self.spare.taken(next.len);
        let sealed = {
            let mut index = self.log.index_mut();
            Sealed {
                number: self.active.header.number,
                salt: self.active.header.salt,
                first: self.active.header.first,
                last_hash: self.end.hash,
                rows: index.take_recent(),
                kinds: index.kind_names(),
            }
        };
        write_index(&self.log, sealed);
        self.active = next;
        self.at = segment::FIRST_GROUP;
        self.mark.sync()
    }

    /// Makes the next segment and the next keys ready before they are needed.
    pub(crate) fn make_ahead(&self) {
        let wanted = if self.at > self.active.len / 2 {
            self.active.header.number + 1
        } else {
            0
        };
        self.spare.want(&self.log, wanted, &self.shared);
        let slots = self.log.keys.slots();
        if slots > 0 && self.next_slot + KEYS_AHEAD > slots {
            let shared = self.shared.clone();
            self.log
                .beside(move |log| match log.keys.prepare_ahead(&*log.disk, slots) {
                    Err(error) if !error.is_no_space() => _ = shared.poison(&error),
                    _ => {}
                });
        }
    }

    /// Nothing has been appended for a while.
    pub(crate) fn idle(&mut self) {
        if !self.mark.is_dirty() {
            return;
        }
        if self.shared.check().is_ok()
            && let Err(error) = self.mark.sync()
        {
            self.shared.poison(&error);
        }
    }

    /// Ends it: the mark is durable, and nothing is made ahead any more.
    pub(crate) fn close(&mut self) {
        self.log.close();
        self.idle();
    }

    /// Destroys the keys of subjects; durable on return.
    pub(crate) fn destroy_keys(&mut self, subjects: &[String]) -> Result<u64> {
        self.shared.check()?;
        let slots: Vec<u32> = {
            let index = self.log.index();
            let slots = subjects.iter().filter_map(|s| index.slot(print(s)));
            slots.collect()
        };
        let destroyed = self.log.keys.destroy(&slots);
        destroyed.map_err(|error| self.shared.poison(&error))
    }
}

#[derive(Default)]
struct Plan {
    receipts: Vec<Receipt>,
    slots: Vec<Option<u32>>,
    bytes: usize,
}

impl Group {
    fn new(end: Position, at_ms: i64) -> Self {
        Self {
            bytes: vec![0; GROUP_HEADER],
            heads: Vec::new(),
            keys: HashMap::new(),
            slots: HashMap::new(),
            waiting: Vec::new(),
            end,
            at_ms,
        }
    }
}

/// Writes a sealed segment's index beside it. It can be made again, so that a failure only costs time at the next opening.
pub(crate) fn write_index(log: &Arc<Log>, sealed: Sealed) {
    log.beside(move |log| {
        let path = segment::index_path(&log.folder, sealed.number);
        let file = Named::create(&*log.disk, &path);
        if let Err(error) = file.and_then(|file| file.write(&sealed.encode(), 0)) {
            tracing::warn!(error = %error.chain(), "an index was not written; opening will make it again");
            let _ = disk::remove(&*log.disk, &path);
        }
    });
}
