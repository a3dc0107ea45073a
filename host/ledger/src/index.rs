//! Where every record is, in memory, built when the ledger is opened: by place, key, subject and kind.
//!
//! Texts are kept as fingerprints (128 bits of their SHA-256). Nothing here is written to the log; what a sealed segment
//! adds is also written beside it (`.idx`), so that opening need not walk it, and can be thrown away.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{Digest, Seq, frame, frame::Head};

/// A text, for looking it up. 0 for none.
pub(crate) type Print = u128;

pub(crate) fn print(text: &str) -> Print {
    if text.is_empty() {
        return 0;
    }
    let digest = Digest::of(text.as_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_bytes()[..16]);
    u128::from_le_bytes(first).max(1)
}

/// What the index knows of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) offset: u32,
    /// Number in the table of kinds.
    pub(crate) kind: u32,
    /// The slot of the key of a sealed body, and one; 0 when it is not sealed.
    pub(crate) slot: u32,
    pub(crate) subject: Print,
    pub(crate) key: Print,
}

/// A record's place: the segment's number and the byte in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Subject {
    last: u64,
    /// As in [`Meta`].
    slot: u32,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: Vec<Place>,
    /// The record about the same subject before each, or 0.
    before: Vec<u64>,
    kinds: Vec<(Arc<str>, Vec<u64>)>,
    kind_numbers: HashMap<Arc<str>, u32>,
    subjects: HashMap<Print, Subject>,
    keys: HashMap<Print, u64>,
    /// The records of the segment that is being written, for its `.idx`.
    recent: Vec<Meta>,
    slots: u32,
}

impl Index {
    pub(crate) fn last(&self) -> Seq {
        Seq::new(self.places.len() as u64)
    }

    pub(crate) fn kind_number(&mut self, kind: &str) -> u32 {
        if let Some(number) = self.kind_numbers.get(kind) {
            return *number;
        }
        let name: Arc<str> = kind.into();
        let number = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        self.kinds.push((name.clone(), Vec::new()));
        self.kind_numbers.insert(name, number);
        number
    }

    pub(crate) fn meta(&mut self, head: &Head, offset: u32) -> Meta {
        Meta {
            offset,
            kind: self.kind_number(&head.kind),
            slot: head.slot.map_or(0, |slot| slot + 1),
            subject: print(&head.subject),
            key: head.key.as_deref().map_or(0, print),
        }
    }

    /// Room for `more` records, so that a long load does not grow by steps.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.places.reserve(more);
        self.before.reserve(more);
        self.keys.reserve(more);
    }

    /// Puts the next record in.
    pub(crate) fn push(&mut self, segment: u32, meta: Meta) {
        let seq = self.places.len() as u64 + 1;
        self.places.push(Place {
            segment,
            offset: meta.offset,
        });
        if let Some((_, list)) = self.kinds.get_mut(meta.kind as usize) {
            list.push(seq);
        }
        let mut before = 0;
        if meta.subject != 0 {
            let subject = self.subjects.entry(meta.subject).or_default();
            before = subject.last;
            subject.last = seq;
            if meta.slot != 0 {
                subject.slot = meta.slot;
            }
        }
        self.before.push(before);
        self.slots = self.slots.max(meta.slot);
        if meta.key != 0 {
            // The first one counts.
            self.keys.entry(meta.key).or_insert(seq);
        }
        self.recent.push(meta);
    }

    pub(crate) fn place(&self, seq: Seq) -> Option<Place> {
        let at = usize::try_from(seq.get().checked_sub(1)?).ok()?;
        self.places.get(at).copied()
    }

    pub(crate) fn key(&self, print: Print) -> Option<Seq> {
        self.keys.get(&print).copied().map(Seq::new)
    }

    /// The slot that a subject's sealed bodies use.
    pub(crate) fn slot(&self, print: Print) -> Option<u32> {
        self.subjects.get(&print)?.slot.checked_sub(1)
    }

    /// The first slot that no record uses.
    pub(crate) fn free_slot(&self) -> u32 {
        self.slots
    }

    /// The places of at most `limit` records of a kind.
    pub(crate) fn of_kind(&self, kind: &str, from: Seq, to: Seq, limit: usize) -> VecDeque<Seq> {
        let Some((_, list)) = self
            .kind_numbers
            .get(kind)
            .and_then(|number| self.kinds.get(*number as usize))
        else {
            return VecDeque::new();
        };
        let start = list.partition_point(|seq| *seq < from.get());
        list[start..]
            .iter()
            .take_while(|seq| **seq <= to.get())
            .take(limit)
            .map(|seq| Seq::new(*seq))
            .collect()
    }

    /// The places of all records about a subject.
    pub(crate) fn about(&self, subject: &str, to: Seq) -> VecDeque<Seq> {
        let mut places = VecDeque::new();
        let mut seq = self
            .subjects
            .get(&print(subject))
            .map_or(0, |subject| subject.last);
        while let Some(at) = seq.checked_sub(1) {
            if seq <= to.get() {
                places.push_front(Seq::new(seq));
            }
            let before = usize::try_from(at).ok().and_then(|at| self.before.get(at));
            seq = before.copied().unwrap_or(0);
        }
        places
    }

    /// What the segment that is being written has added, and starts the next.
    pub(crate) fn take_recent(&mut self) -> Vec<Meta> {
        std::mem::take(&mut self.recent)
    }

    /// The kinds' names, by number.
    pub(crate) fn kind_names(&self) -> Vec<Arc<str>> {
        self.kinds.iter().map(|(name, _)| name.clone()).collect()
    }
}

const MAGIC: &[u8; 8] = b"NSLIDX02";
const FIXED: usize = 80;
const ROW: usize = 44;

/// What a `.idx` file says of its sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) number: u64,
    pub(crate) salt: u32,
    pub(crate) first: Seq,
    /// The hash of its last record.
    pub(crate) last_hash: Digest,
    pub(crate) kinds: Vec<Arc<str>>,
    pub(crate) rows: Vec<Meta>,
}

impl Sealed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&(self.rows.len() as u64).to_le_bytes());
        bytes[32..64].copy_from_slice(self.last_hash.as_bytes());
        bytes[64..68].copy_from_slice(&self.salt.to_le_bytes());
        let kinds = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        bytes[68..72].copy_from_slice(&kinds.to_le_bytes());
        for kind in &self.kinds {
            // A kind is at most 64 bytes.
            bytes.push(u8::try_from(kind.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(kind.as_bytes());
        }
        for row in &self.rows {
            bytes.extend_from_slice(&row.offset.to_le_bytes());
            bytes.extend_from_slice(&row.kind.to_le_bytes());
            bytes.extend_from_slice(&row.slot.to_le_bytes());
            bytes.extend_from_slice(&row.subject.to_le_bytes());
            bytes.extend_from_slice(&row.key.to_le_bytes());
        }
        let crc = frame::crc(self.salt, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when these are not the whole bytes of one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let salt = u32::from_le_bytes(content.get(64..68)?.try_into().ok()?);
        if content.get(..8)? != MAGIC || u32::from_le_bytes(*crc) != frame::crc(salt, content) {
            return None;
        }
        let u64_at = |at: usize| {
            let bytes = content.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let count = usize::try_from(u64_at(24)?).ok()?;
        let mut kinds = Vec::new();
        let mut at = FIXED;
        for _ in 0..u32::from_le_bytes(content.get(68..72)?.try_into().ok()?) {
            let len = usize::from(*content.get(at)?);
            let name = content.get(at + 1..at + 1 + len)?;
            kinds.push(std::str::from_utf8(name).ok()?.into());
            at += 1 + len;
        }
        let rows = content.get(at..)?;
        if rows.len() != count.checked_mul(ROW)? {
            return None;
        }
        let rows = rows.chunks_exact(ROW).map(row).collect::<Option<_>>()?;
        Some(Self {
            number: u64_at(8)?,
            salt,
            first: Seq::new(u64_at(16)?),
            last_hash: Digest::from_bytes(content.get(32..64)?.try_into().ok()?),
            kinds,
            rows,
        })
    }
}

fn row(bytes: &[u8]) -> Option<Meta> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u128_at = |at: usize| {
        Some(u128::from_le_bytes(
            bytes.get(at..at + 16)?.try_into().ok()?,
        ))
    };
    Some(Meta {
        offset: u32_at(0)?,
        kind: u32_at(4)?,
        slot: u32_at(8)?,
        subject: u128_at(12)?,
        key: u128_at(28)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_segments_index_is_read_back_and_a_damaged_one_is_not() {
        let sealed = Sealed {
            number: 3,
            salt: 8,
            first: Seq::new(40),
            last_hash: Digest::of(b"l"),
            kinds: vec!["turn".into(), "vote".into()],
            rows: vec![
                Meta {
                    offset: 512,
                    kind: 1,
                    slot: 0,
                    subject: 5,
                    key: 0,
                };
                3
            ],
        };
        let mut bytes = sealed.encode();
        assert_eq!(Sealed::decode(&bytes), Some(sealed));
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            assert_eq!(Sealed::decode(&bytes), None, "byte {at}");
            bytes[at] ^= 4;
        }
        assert_eq!(Sealed::decode(&bytes[..bytes.len() - 1]), None);
    }
}
