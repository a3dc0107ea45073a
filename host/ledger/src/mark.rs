//! The high-water mark: how far the ledger has been acknowledged, kept outside the log.
//!
//! A log that has silently lost its tail looks healthy; the mark is what tells. Two slots are written in turn, so that a
//! torn write of one leaves the other. It is written after every group but synced rarely: the records themselves are
//! synced, and an old mark only notices less. It does not know what the records are.

use std::path::{Path, PathBuf};

use crate::{
    Digest, Error, Result, Seq,
    disk::{self, Disk, Named},
    entry::genesis,
};

const MAGIC: &[u8; 8] = b"NSMARK01";
/// Each slot has a page of its own, so that a torn page cannot take both.
const SLOT_STRIDE: u64 = 4096;
/// magic 8 · turn 8 · seq 8 · hash 32 · digest of the 56 bytes before 32
const SLOT_LEN: usize = 88;
const FILE_LEN: usize = 2 * SLOT_STRIDE as usize;

/// The acknowledged end of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: Seq,
    pub(crate) hash: Digest,
}

impl Position {
    pub(crate) fn start() -> Self {
        Self {
            seq: Seq::ZERO,
            hash: genesis(),
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Mark {
    file: Named,
    turn: u64,
    position: Position,
    dirty: bool,
}

pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("mark")
}

impl Mark {
    /// Reads the mark; `None` when there is none.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>> {
        let path = path_in(dir);
        if !disk.exists(&path) {
            return Ok(None);
        }
        let file = Named::open(disk, &path)?;
        let (turn, position) = read(&file)?;
        Ok(Some(Self {
            file,
            turn,
            position,
            // A killed process may not have synced what is read here.
            dirty: true,
        }))
    }

    /// Creates a mark at `position`, replacing one that is there.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, position: Position) -> Result<Self> {
        let path = path_in(dir);
        let mut bytes = vec![0; FILE_LEN];
        for turn in [0, 1] {
            let at = usize::try_from(offset(turn)).unwrap_or(0);
            bytes[at..at + SLOT_LEN].copy_from_slice(&encode(turn, &position));
        }
        disk::write_durable(disk, &disk::temp_of(&path), &path, &bytes)?;
        Self::open(disk, dir)?.ok_or(Error::MarkMissing { path, records: 0 })
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Writes the position: a process that is killed from now on leaves it.
    pub(crate) fn advance(&mut self, position: Position) -> Result<()> {
        let turn = self.turn + 1;
        self.file.write(&encode(turn, &position), offset(turn))?;
        self.turn = turn;
        self.position = position;
        self.dirty = true;
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.dirty {
            self.file.sync()?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// Reads the mark of a ledger that somebody else may be writing.
pub(crate) fn peek(disk: &dyn Disk, dir: &Path) -> Result<Option<Position>> {
    let path = path_in(dir);
    if !disk.exists(&path) {
        return Ok(None);
    }
    let file = Named::open_read(disk, &path)?;
    read(&file).map(|(_, position)| Some(position))
}

fn offset(turn: u64) -> u64 {
    (turn % 2) * SLOT_STRIDE
}

fn encode(turn: u64, position: &Position) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&turn.to_le_bytes());
    slot[16..24].copy_from_slice(&position.seq.get().to_le_bytes());
    slot[24..56].copy_from_slice(position.hash.as_bytes());
    let digest = Digest::of(&slot[..56]);
    slot[56..].copy_from_slice(digest.as_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_LEN]) -> Option<(u64, Position)> {
    let (fields, digest) = slot.split_at(56);
    if &fields[..8] != MAGIC || Digest::of(fields).as_bytes() != digest {
        return None;
    }
    let turn = u64::from_le_bytes(fields[8..16].try_into().ok()?);
    let seq = Seq::new(u64::from_le_bytes(fields[16..24].try_into().ok()?));
    let hash = Digest::from_bytes(fields[24..56].try_into().ok()?);
    Some((turn, Position { seq, hash }))
}

fn read(file: &Named) -> Result<(u64, Position)> {
    let mut best = None;
    for slot in [0, 1] {
        let mut bytes = [0; SLOT_LEN];
        if file.read_into(&mut bytes, offset(slot)).is_err() {
            continue;
        }
        best = best.max_by_turn(decode(&bytes));
    }
    best.ok_or(Error::MarkDamaged {
        path: PathBuf::from(&*file.path),
        why: "neither of its two slots has a valid checksum",
    })
}

trait MaxByTurn {
    fn max_by_turn(self, other: Self) -> Self;
}

impl MaxByTurn for Option<(u64, Position)> {
    fn max_by_turn(self, other: Self) -> Self {
        match (self, other) {
            (Some(a), Some(b)) => Some(if a.0 >= b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Machine;

    fn at(seq: u64) -> Position {
        Position {
            seq: Seq::new(seq),
            hash: Digest::of(&seq.to_le_bytes()),
        }
    }

    #[test]
    fn the_newest_position_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::create(&Machine, dir.path(), Position::start()).unwrap();
        assert_eq!(mark.position(), Position::start());
        for seq in 1..6 {
            mark.advance(at(seq)).unwrap();
            assert_eq!(peek(&Machine, dir.path()).unwrap(), Some(at(seq)));
        }
        drop(mark);
        assert_eq!(
            Mark::open(&Machine, dir.path())
                .unwrap()
                .unwrap()
                .position(),
            at(5)
        );
    }

    #[test]
    fn a_torn_write_of_one_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::create(&Machine, dir.path(), Position::start()).unwrap();
        mark.advance(at(1)).unwrap();
        mark.advance(at(2)).unwrap();
        let torn = encode(mark.turn + 1, &at(3));
        mark.file.write(&torn[..40], offset(mark.turn + 1)).unwrap();
        assert_eq!(peek(&Machine, dir.path()).unwrap(), Some(at(2)));
        let mut mark = Mark::open(&Machine, dir.path()).unwrap().unwrap();
        mark.advance(at(3)).unwrap();
        assert_eq!(peek(&Machine, dir.path()).unwrap(), Some(at(3)));
    }

    #[test]
    fn a_mark_without_one_whole_slot_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Mark::create(&Machine, dir.path(), Position::start()).unwrap();
        for bytes in [vec![], vec![0; FILE_LEN], b"NSMARK01".repeat(1024)] {
            std::fs::write(path_in(dir.path()), bytes).unwrap();
            assert!(matches!(
                peek(&Machine, dir.path()),
                Err(Error::MarkDamaged { .. })
            ));
        }
    }
}
