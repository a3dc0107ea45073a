//! Writes a whole log at once, from records that already exist: an upgrade, a repair. Nothing is acknowledged before the end.

use std::path::Path;

use crate::{
    Digest, Result,
    disk::Disk,
    frame::{self, GROUP_HEADER, GroupHeader, Head},
    mark::Position,
    segment::{self, Segment},
};

/// Records are gathered into groups of about this many bytes.
const GROUP_BYTES: usize = 1 << 20;

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    limit: u64,
    active: Segment,
    at: u64,
    group: Vec<u8>,
    count: u32,
    /// Before the group.
    start: Position,
    end: Position,
}

impl<'a> Builder<'a> {
    /// Starts a log in an existing empty folder.
    pub(crate) fn new(disk: &'a dyn Disk, folder: &'a Path, limit: u64) -> Result<Self> {
        let active = segment(disk, folder, limit, 1, Position::start(), 0)?;
        Ok(Self {
            disk,
            folder,
            limit,
            active,
            at: segment::FIRST_GROUP,
            group: vec![0; GROUP_HEADER],
            count: 0,
            start: Position::start(),
            end: Position::start(),
        })
    }

    /// Appends a record; its place and hash are made anew, everything else is the head's. Returns its hash.
    pub(crate) fn push(&mut self, mut head: Head, body: &[u8]) -> Result<Digest> {
        head.seq = self.end.seq.next();
        head.hash = head.hashed(&self.end.hash, body);
        let need = head.len() + body.len();
        if self.group.len() + need > GROUP_BYTES && self.count > 0 {
            self.flush()?;
        }
        if self.at + (self.group.len() + need) as u64 > self.active.len {
            self.flush()?;
            self.active.file.sync()?;
            let number = self.active.header.number + 1;
            let need = (GROUP_HEADER + need) as u64;
            self.active = segment(self.disk, self.folder, self.limit, number, self.end, need)?;
            self.at = segment::FIRST_GROUP;
        }
        frame::encode_record(&mut self.group, self.active.header.salt, &head, body);
        self.count += 1;
        self.end = Position {
            seq: head.seq,
            hash: head.hash,
        };
        Ok(head.hash)
    }

    fn flush(&mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let salt = self.active.header.salt;
        let header = GroupHeader {
            len: self.group.len() - GROUP_HEADER,
            first: self.start.seq.next(),
            count: self.count,
            crc: frame::crc(salt, &self.group[GROUP_HEADER..]),
        };
        self.group[..GROUP_HEADER].copy_from_slice(&header.encode(salt));
        self.active.file.write(&self.group, self.at)?;
        self.at += self.group.len() as u64;
        self.group.truncate(GROUP_HEADER);
        self.count = 0;
        self.start = self.end;
        Ok(())
    }

    /// Makes it durable and says where it ends.
    pub(crate) fn finish(mut self) -> Result<Position> {
        self.flush()?;
        self.active.file.sync()?;
        Ok(self.end)
    }
}

fn segment(
    disk: &dyn Disk,
    folder: &Path,
    limit: u64,
    number: u64,
    end: Position,
    need: u64,
) -> Result<Segment> {
    let need = (need + segment::FIRST_GROUP).next_multiple_of(4096);
    let len = segment::size(number, limit).max(need);
    let reserved = Segment::reserve(disk, &folder.join("spare"), len)?;
    Segment::start(disk, folder, &reserved, number, end)
}
