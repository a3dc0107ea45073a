//! The bytes of the log: a segment's header, a group's header, a record. `FORMAT.md` draws them.
//!
//! Encoding and decoding only: nothing here touches a file or decides what a bad byte means.

use crate::{Digest, Entry, Record, Seq};

pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"NSLEDG02";
/// A sector: the header is written whole or not at all.
pub(crate) const SEGMENT_HEADER: usize = 512;
const SEGMENT_FIELDS: usize = 84;
const GROUP_MAGIC: &[u8; 4] = b"NSG2";
pub(crate) const GROUP_HEADER: usize = 32;
/// A record's fields of fixed length.
pub(crate) const RECORD_FIXED: usize = 72;
/// The longest that a record is without its body.
pub(crate) const RECORD_HEAD_MAX: usize =
    RECORD_FIXED + crate::entry::MAX_KIND + 2 * crate::entry::MAX_NAME;
/// What sealing adds to a body: a nonce before it and a tag after it.
pub(crate) const SEAL_OVERHEAD: usize = 12 + 16;

/// A checksum that text inside a record cannot forge, because it starts from the segment's own random salt.
pub(crate) fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn digest_at(bytes: &[u8], at: usize) -> Option<Digest> {
    Some(Digest::from_bytes(bytes.get(at..at + 32)?.try_into().ok()?))
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) format: u32,
    pub(crate) number: u64,
    /// The first record that it holds, or will.
    pub(crate) first: Seq,
    /// The hash of the record before.
    pub(crate) prev: Digest,
    pub(crate) salt: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[32..64].copy_from_slice(self.prev.as_bytes());
        bytes[64..68].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc(0, &bytes[..SEGMENT_FIELDS - 4]);
        bytes[SEGMENT_FIELDS - 4..SEGMENT_FIELDS].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let magic = bytes.get(..8)? == SEGMENT_MAGIC;
        let sum = u32_at(bytes, SEGMENT_FIELDS - 4)? == crc(0, &bytes[..SEGMENT_FIELDS - 4]);
        if !magic || !sum {
            return None;
        }
        Some(Self {
            format: u32_at(bytes, 8)?,
            number: u64_at(bytes, 16)?,
            first: Seq::new(u64_at(bytes, 24)?),
            prev: digest_at(bytes, 32)?,
            salt: u32_at(bytes, 64)?,
        })
    }
}

/// Records that were written and synced together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Bytes of the records after it.
    pub(crate) len: usize,
    pub(crate) first: Seq,
    pub(crate) count: u32,
    pub(crate) crc: u32,
}

impl GroupHeader {
    pub(crate) fn encode(&self, salt: u32) -> [u8; GROUP_HEADER] {
        let mut bytes = [0; GROUP_HEADER];
        bytes[..4].copy_from_slice(GROUP_MAGIC);
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc(salt, &bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when these bytes are no group's header, whatever else they are.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        if bytes.get(..4)? != GROUP_MAGIC || u32_at(bytes, 28)? != crc(salt, &bytes[..28]) {
            return None;
        }
        Some(Self {
            len: usize::try_from(u32_at(bytes, 4)?).ok()?,
            first: Seq::new(u64_at(bytes, 8)?),
            count: u32_at(bytes, 16)?,
            crc: u32_at(bytes, 20)?,
        })
    }
}

/// A record without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: Seq,
    pub(crate) at_ms: i64,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) key: Option<String>,
    /// Where the key of a sealed body lies.
    pub(crate) slot: Option<u32>,
    pub(crate) hash: Digest,
    pub(crate) body_len: usize,
}

impl Head {
    /// Bytes before the body.
    pub(crate) fn len(&self) -> usize {
        RECORD_FIXED
            + self.kind.len()
            + self.subject.len()
            + self.key.as_ref().map_or(0, String::len)
    }

    pub(crate) fn hashed(&self, prev: &Digest, body: &[u8]) -> Digest {
        crate::entry::chain(
            prev,
            self.seq,
            self.at_ms,
            &self.kind,
            &self.subject,
            self.key.as_deref(),
            self.slot,
            body,
        )
    }

    /// The record, with its body as it lies on the disk.
    pub(crate) fn record(self, body: Vec<u8>) -> Record {
        Record {
            seq: self.seq,
            at_ms: self.at_ms,
            kind: self.kind,
            subject: self.subject,
            key: self.key,
            body,
            hash: self.hash,
            erased: false,
        }
    }
}

/// How long an entry's record will be.
pub(crate) fn record_len(entry: &Entry) -> usize {
    RECORD_FIXED
        + entry.kind.len()
        + entry.subject.len()
        + entry.key.as_ref().map_or(0, String::len)
        + entry.body.len()
        + if entry.sealed { SEAL_OVERHEAD } else { 0 }
}

/// Puts a record behind `out`.
pub(crate) fn encode_record(out: &mut Vec<u8>, salt: u32, head: &Head, body: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_FIXED]);
    let fixed = &mut out[start..];
    // The limits of an entry keep every length within its field.
    fixed[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    fixed[8..16].copy_from_slice(&head.seq.get().to_le_bytes());
    fixed[16..24].copy_from_slice(&head.at_ms.to_le_bytes());
    let slot = head.slot.map_or(0, |slot| slot + 1);
    fixed[24..28].copy_from_slice(&slot.to_le_bytes());
    let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
    fixed[28..30].copy_from_slice(&short(head.kind.len()));
    fixed[30..32].copy_from_slice(&short(head.subject.len()));
    fixed[32..34].copy_from_slice(&short(head.key.as_ref().map_or(0, String::len)));
    fixed[40..72].copy_from_slice(head.hash.as_bytes());
    out.extend_from_slice(head.kind.as_bytes());
    out.extend_from_slice(head.subject.as_bytes());
    out.extend_from_slice(head.key.as_deref().unwrap_or_default().as_bytes());
    let crc = crc(salt, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
}

/// The head of the record that starts `bytes`; `None` when they are not the whole head of one.
pub(crate) fn decode_head(bytes: &[u8], salt: u32) -> Option<Head> {
    let kind_len = usize::from(u16_at(bytes, 28)?);
    let subject_len = usize::from(u16_at(bytes, 30)?);
    let key_len = usize::from(u16_at(bytes, 32)?);
    let subject_at = RECORD_FIXED + kind_len;
    let key_at = subject_at + subject_len;
    let end = key_at + key_len;
    if u32_at(bytes, 0)? != crc(salt, bytes.get(4..end)?) {
        return None;
    }
    let text = |from, to| {
        std::str::from_utf8(&bytes[from..to])
            .ok()
            .map(str::to_owned)
    };
    let key = match key_len {
        0 => None,
        _ => Some(text(key_at, end)?),
    };
    Some(Head {
        seq: Seq::new(u64_at(bytes, 8)?),
        at_ms: i64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
        kind: text(RECORD_FIXED, subject_at)?,
        subject: text(subject_at, key_at)?,
        key,
        slot: u32_at(bytes, 24)?.checked_sub(1),
        hash: digest_at(bytes, 40)?,
        body_len: usize::try_from(u32_at(bytes, 4)?).ok()?,
    })
}

/// The hash that the fixed part of a record holds; its checksum is not looked at.
pub(crate) fn hash_in(fixed: &[u8]) -> Option<Digest> {
    digest_at(fixed, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            seq: Seq::new(7),
            at_ms: -3,
            kind: "turn".into(),
            subject: "t-1".into(),
            key: Some("k".into()),
            slot: Some(0),
            hash: Digest::of(b"x"),
            body_len: 4,
        }
    }

    #[test]
    fn a_record_is_read_back_and_no_flipped_bit_of_its_head_goes_unnoticed() {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, 9, &head(), b"body");
        assert_eq!(decode_head(&bytes, 9), Some(head()));
        assert_eq!(decode_head(&bytes, 8), None);
        assert_eq!(&bytes[head().len()..], b"body");
        for bit in 0..head().len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_head(&bytes, 9), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn headers_are_read_back_and_no_flipped_bit_goes_unnoticed() {
        let group = GroupHeader {
            len: 99,
            first: Seq::new(3),
            count: 2,
            crc: 5,
        };
        let mut bytes = group.encode(1);
        assert_eq!(GroupHeader::decode(&bytes, 1), Some(group));
        for bit in 0..GROUP_HEADER * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&bytes, 1), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let segment = SegmentHeader {
            format: 2,
            number: 4,
            first: Seq::new(3),
            prev: Digest::of(b"p"),
            salt: 77,
        };
        let mut bytes = segment.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(segment));
        for bit in 0..SEGMENT_FIELDS * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
