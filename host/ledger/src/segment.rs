//! One file of the log: creating it, and walking what is in it.
//!
//! A walk reads groups from the front and stops at the first that is not whole; why it stopped is for the caller to judge.
//! Salvaging, which finds what is whole behind damage, is in [`crate::salvage`].

use std::path::{Path, PathBuf};

use crate::{
    Digest, Error, Result, Seq,
    disk::{self, Disk, Named},
    frame::{self, GROUP_HEADER, GroupHeader, Head, SEGMENT_HEADER, SegmentHeader},
    keys,
    mark::Position,
    mutant,
};

/// The format that this program writes.
pub(crate) const FORMAT: u32 = 2;
/// The first segment is small, so that a new ledger is there at once; each one after it is twice as long, up to the limit.
const FIRST_BYTES: u64 = 64 << 10;
const ZEROS: usize = 1 << 20;

/// Where the first group of a segment starts.
pub(crate) const FIRST_GROUP: u64 = SEGMENT_HEADER as u64;

pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("log")
}

pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.seg"))
}

pub(crate) fn index_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.idx"))
}

/// How long segment `number` is, when nothing longer must fit.
pub(crate) fn size(number: u64, limit: u64) -> u64 {
    let doubled = FIRST_BYTES << number.saturating_sub(1).min(32);
    doubled.min(limit).max(2 * SEGMENT_HEADER as u64)
}

/// The numbers of the segments in a log's folder, ascending.
pub(crate) fn numbers(disk: &dyn Disk, folder: &Path) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk::list(disk, folder)?
        .iter()
        .filter_map(|name| name.strip_suffix(".seg")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) file: Named,
    pub(crate) header: SegmentHeader,
    pub(crate) len: u64,
}

impl Segment {
    /// Writes zeros to a file and makes them durable, so that later syncs have data to write and nothing else.
    pub(crate) fn reserve(disk: &dyn Disk, path: &Path, len: u64) -> Result<Named> {
        let made = Named::create(disk, path).and_then(|file| {
            let zeros = vec![0; ZEROS];
            let mut at = 0;
            while at < len {
                let part = usize::try_from(len - at).unwrap_or(ZEROS).min(ZEROS);
                file.write(&zeros[..part], at)?;
                at += part as u64;
            }
            file.sync()?;
            Ok(file)
        });
        made.map_err(|error| {
            if error.is_no_space() {
                // What is there of it only takes up the space that is missing.
                let _ = disk.remove(path);
                return Error::Full;
            }
            error
        })
    }

    /// Turns a reserved file into the segment `number`: header, sync, name, sync of the folder.
    pub(crate) fn start(
        disk: &dyn Disk,
        folder: &Path,
        reserved: &Named,
        number: u64,
        end: Position,
    ) -> Result<Self> {
        let header = SegmentHeader {
            format: FORMAT,
            number,
            first: end.seq.next(),
            prev: end.hash,
            salt: u32::from_le_bytes(keys::random()?),
        };
        reserved.write(&header.encode(), 0)?;
        if !mutant::on("name-before-header") {
            reserved.sync()?;
        }
        let path = path(folder, number);
        disk::rename(disk, &reserved.path, &path)?;
        disk::sync_dir(disk, folder)?;
        Ok(Self {
            len: reserved.len()?,
            file: Named {
                file: reserved.file.clone(),
                path: path.into(),
            },
            header,
        })
    }

    /// Opens a segment that is there.
    pub(crate) fn open(disk: &dyn Disk, folder: &Path, number: u64, write: bool) -> Result<Self> {
        let path = path(folder, number);
        let file = if write {
            Named::open(disk, &path)?
        } else {
            Named::open_read(disk, &path)?
        };
        let len = file.len()?;
        let broken = |why| Error::Broken {
            path: path.clone(),
            offset: 0,
            seq: None,
            why,
        };
        if len < SEGMENT_HEADER as u64 {
            return Err(broken("it is shorter than its header"));
        }
        let bytes = file.read(0, SEGMENT_HEADER)?;
        let header = SegmentHeader::decode(&bytes)
            .ok_or_else(|| broken("its header's checksum does not agree"))?;
        if header.format != FORMAT {
            return Err(Error::Format {
                path,
                found: i64::from(header.format),
                supported: i64::from(FORMAT),
            });
        }
        if header.number != number {
            return Err(broken("its header has another segment's number"));
        }
        Ok(Self { file, header, len })
    }

    pub(crate) fn start_position(&self) -> Position {
        Position {
            seq: Seq::new(self.header.first.get() - 1),
            hash: self.header.prev,
        }
    }

    /// Reads groups until one is not whole, and checks the chain in them.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(Head, u64)) -> Result<Walk> {
        let mut walk = Walk {
            at: SEGMENT_HEADER as u64,
            last_group: None,
            end: self.start_position(),
        };
        while let Some((group, payload)) = self.group(walk.at, walk.end.seq)? {
            let records_at = walk.at + GROUP_HEADER as u64;
            for (head, at) in self.records(&payload, records_at, walk.end)? {
                walk.end = Position {
                    seq: head.seq,
                    hash: head.hash,
                };
                visit(head, at);
            }
            walk.last_group = Some((walk.at, GROUP_HEADER + group.len));
            walk.at = records_at + group.len as u64;
        }
        Ok(walk)
    }

    /// The group at `at`, when a whole one that follows `last` is there.
    fn group(&self, at: u64, last: Seq) -> Result<Option<(GroupHeader, Vec<u8>)>> {
        let records_at = at + GROUP_HEADER as u64;
        if records_at > self.len {
            return Ok(None);
        }
        let header = self.file.read(at, GROUP_HEADER)?;
        let Some(group) = GroupHeader::decode(&header, self.header.salt) else {
            return Ok(None);
        };
        if group.first != last.next() || records_at + group.len as u64 > self.len {
            return Ok(None);
        }
        let payload = self.file.read(records_at, group.len)?;
        let whole = frame::crc(self.header.salt, &payload) == group.crc;
        Ok((whole || mutant::on("ignore-torn-group")).then_some((group, payload)))
    }

    /// The records of a whole group; the checksum having agreed, anything wrong in them is damage.
    fn records(&self, payload: &[u8], start: u64, end: Position) -> Result<Vec<(Head, u64)>> {
        let mut records = Vec::new();
        let mut at = 0;
        let mut end = end;
        while at < payload.len() {
            let offset = start + at as u64;
            let Some(head) = frame::decode_head(&payload[at..], self.header.salt) else {
                if mutant::on("ignore-torn-group") {
                    break;
                }
                return Err(self.broken(offset, end.seq.next(), "its head is damaged"));
            };
            let body = at + head.len()..at + head.len() + head.body_len;
            let Some(body) = payload.get(body) else {
                return Err(self.broken(offset, end.seq.next(), "its body is cut off"));
            };
            check(&self.file.path, offset, &head, &end.hash, body)?;
            at += head.len() + head.body_len;
            end = Position {
                seq: head.seq,
                hash: head.hash,
            };
            records.push((head, offset));
        }
        Ok(records)
    }

    fn broken(&self, offset: u64, seq: Seq, why: &'static str) -> Error {
        Error::Broken {
            path: self.file.path.to_path_buf(),
            offset,
            seq: Some(seq),
            why,
        }
    }

    /// The bytes from `at` to the end.
    pub(crate) fn rest(&self, at: u64) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        self.file.read(at, len)
    }
}

/// Checks a record against the one before it.
pub(crate) fn check(
    path: &Path,
    offset: u64,
    head: &Head,
    prev: &Digest,
    body: &[u8],
) -> Result<()> {
    let expected = head.hashed(prev, body);
    if head.hash == expected || mutant::on("no-chain-check") {
        return Ok(());
    }
    Err(Error::Damaged {
        seq: head.seq,
        path: path.to_owned(),
        offset,
        found: head.hash,
        expected,
    })
}

/// How far a walk came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// The byte after the last whole group.
    pub(crate) at: u64,
    /// Where the last whole group starts, and its length.
    pub(crate) last_group: Option<(u64, usize)>,
    pub(crate) end: Position,
}
