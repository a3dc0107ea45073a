//! Opening: reads the log, decides whether its end is torn or damaged, and leaves log and mark durable at the same end.
//!
//! Torn: the last group, which nobody was told of; it is dropped. Damaged: anything before it, or what the mark says was
//! acknowledged; that is refused and located. The rules are in `FORMAT.md`.

use std::{path::Path, sync::Arc};

use crate::{
    Error, Result, Seq,
    disk::{self, Disk},
    frame::{self, GROUP_HEADER, GroupHeader, SEGMENT_HEADER},
    index::{Index, Meta, Sealed},
    keys::Keys,
    log::Log,
    mark::{self, Mark, Position},
    mutant,
    segment::{self, Segment, Walk},
    spare::Spare,
    writer,
};

/// What was found, ready to go on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: Arc<Log>,
    pub(crate) active: Segment,
    pub(crate) at: u64,
    pub(crate) end: Position,
    pub(crate) mark: Mark,
    pub(crate) spare: Arc<Spare>,
}

/// What loading the segments gives.
struct Loaded {
    index: Index,
    active: Segment,
    walk: Walk,
    bytes: u64,
    /// Indices that were not there or not good, to be written again.
    missing: Vec<Sealed>,
}

pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    limit: u64,
    max_bytes: Option<u64>,
) -> Result<Recovered> {
    let folder = segment::folder(dir);
    let mark = Mark::open(&**disk, dir)?;
    let acknowledged = mark.as_ref().map_or(Position::start(), Mark::position);
    let numbers = segment::numbers(&**disk, &folder)?;
    if numbers.is_empty() {
        if acknowledged.seq > Seq::ZERO {
            return Err(lost(dir, acknowledged.seq, Seq::ZERO));
        }
        create(&**disk, dir, limit)?;
    }
    // Names that a killed process made and did not live to make durable.
    disk::sync_dir(&**disk, &folder)?;
    let numbers = segment::numbers(&**disk, &folder)?;
    let loaded = load(&**disk, dir, &numbers, acknowledged)?;
    let end = loaded.walk.end;
    settle(&loaded.active, &loaded.walk, acknowledged)?;
    let keys = Keys::open(&**disk, dir)?;
    keys.heal(loaded.index.free_slot())?;
    let log = Arc::new(Log::new(disk.clone(), folder.clone(), keys, loaded.index));
    check_mark(dir, &log, acknowledged, end)?;
    let mark = settle_mark(&**disk, dir, mark, end)?;
    for sealed in loaded.missing {
        writer::write_index(&log, sealed);
    }
    let spare = Arc::new(Spare::new(&folder, limit, max_bytes, loaded.bytes));
    disk::sync_dir(&**disk, dir)?;
    Ok(Recovered {
        log,
        active: loaded.active,
        at: loaded.walk.at,
        end,
        mark,
        spare,
    })
}

/// The first segment of a new ledger.
fn create(disk: &dyn Disk, dir: &Path, limit: u64) -> Result<()> {
    let folder = segment::folder(dir);
    disk::create_dir(disk, &folder)?;
    let reserved = Segment::reserve(disk, &folder.join("spare"), segment::size(1, limit))?;
    Segment::start(disk, &folder, &reserved, 1, Position::start())?;
    disk::sync_dir(disk, dir)
}

/// Reads all segments; only the last may end in something that is not whole.
fn load(disk: &dyn Disk, dir: &Path, numbers: &[u64], mark: Position) -> Result<Loaded> {
    let folder = segment::folder(dir);
    let mut index = Index::default();
    let mut missing = Vec::new();
    let mut end = Position::start();
    let mut bytes = 0;
    let mut active = None;
    for (at, number) in numbers.iter().enumerate() {
        let here = Segment::open(disk, &folder, *number, true)?;
        if *number != at as u64 + 1 {
            return Err(Error::Missing {
                seq: end.seq.next(),
                last: here.start_position().seq,
            });
        }
        if here.start_position() != end {
            return Err(gap(&here, end));
        }
        bytes += here.len;
        index.take_recent();
        if let Some(next) = numbers.get(at + 1) {
            let next = Segment::open(disk, &folder, *next, false)?.start_position();
            if !load_index(disk, &folder, &here, next, &mut index)? {
                let walk = walk(&here, &mut index)?;
                if walk.end != next {
                    return Err(torn_inside(&here, &walk, next.seq));
                }
                missing.push(Sealed {
                    number: *number,
                    salt: here.header.salt,
                    first: here.header.first,
                    last_hash: next.hash,
                    rows: index.take_recent(),
                    kinds: index.kind_names(),
                });
            }
            end = next;
            continue;
        }
        let walk = walk(&here, &mut index)?;
        if walk.end.seq < mark.seq && !mutant::on("mark-ignored") {
            return Err(behind_mark(dir, &here, &walk, mark));
        }
        active = Some((here, walk));
    }
    let (active, walk) = active.ok_or_else(|| lost(dir, mark.seq, Seq::ZERO))?;
    Ok(Loaded {
        index,
        active,
        walk,
        bytes,
        missing,
    })
}

fn walk(segment: &Segment, index: &mut Index) -> Result<Walk> {
    let number = u32::try_from(segment.header.number).unwrap_or(u32::MAX);
    segment.walk(&mut |head, offset| {
        let meta = index.meta(&head, u32::try_from(offset).unwrap_or(u32::MAX));
        index.push(number, meta);
    })
}

/// Takes a sealed segment's records from its index; false when there is no good one.
fn load_index(
    disk: &dyn Disk,
    folder: &Path,
    segment: &Segment,
    next: Position,
    index: &mut Index,
) -> Result<bool> {
    let path = segment::index_path(folder, segment.header.number);
    let Ok(Some(bytes)) = disk::read_file(disk, &path) else {
        return Ok(false);
    };
    let Some(sealed) = Sealed::decode(&bytes) else {
        return Ok(false);
    };
    let header = &segment.header;
    let fits = sealed.number == header.number
        && sealed.salt == header.salt
        && sealed.first == header.first
        && sealed.first.get() + sealed.rows.len() as u64 == next.seq.get() + 1
        && sealed.last_hash == next.hash;
    if !fits && !mutant::on("index-trusted") {
        return Ok(false);
    }
    let kinds: Vec<u32> = sealed.kinds.iter().map(|k| index.kind_number(k)).collect();
    let number = u32::try_from(header.number).unwrap_or(u32::MAX);
    index.reserve(sealed.rows.len());
    for row in sealed.rows {
        let kind = kinds.get(row.kind as usize).copied().unwrap_or(u32::MAX);
        index.push(number, Meta { kind, ..row });
    }
    Ok(true)
}

/// Leaves the end of the active segment clean and durable, or refuses it as damaged.
fn settle(active: &Segment, walk: &Walk, mark: Position) -> Result<()> {
    let rest = active.rest(walk.at)?;
    if let Some(dirty) = rest.iter().rposition(|byte| *byte != 0) {
        if let Some(later) = later_group(&rest, active.header.salt, walk.end.seq) {
            // Groups are written one after the other, each synced before the next: this one was whole once.
            return Err(torn_inside(active, walk, later));
        }
        tracing::info!(
            at = walk.at,
            "dropped a group that was torn before it was acknowledged"
        );
        active.file.write(&vec![0; dirty + 1], walk.at)?;
    }
    if walk.end.seq > mark.seq
        && let Some((at, len)) = walk.last_group
    {
        // A process that died of a failed sync leaves pages in the cache that look clean and never reached the disk.
        let group = active.file.read(at, len)?;
        active.file.write(&group, at)?;
    }
    active.file.sync()
}

/// The first record of a group behind the end, if there is one.
fn later_group(rest: &[u8], salt: u32, end: Seq) -> Option<Seq> {
    rest.windows(GROUP_HEADER)
        .filter_map(|bytes| GroupHeader::decode(bytes, salt))
        .map(|group| group.first)
        .find(|first| *first > end.next())
}

fn check_mark(dir: &Path, log: &Log, mark: Position, end: Position) -> Result<()> {
    if mutant::on("mark-ignored") {
        return Ok(());
    }
    if end.seq < mark.seq {
        return Err(lost(dir, mark.seq, end.seq));
    }
    let found = log.hash_at(mark.seq)?;
    if found != mark.hash {
        return Err(Error::Diverged {
            seq: mark.seq,
            found,
            expected: mark.hash,
        });
    }
    Ok(())
}

fn settle_mark(disk: &dyn Disk, dir: &Path, mark: Option<Mark>, end: Position) -> Result<Mark> {
    let mut mark = match mark {
        Some(mark) => mark,
        None if end.seq == Seq::ZERO => Mark::create(disk, dir, end)?,
        None => {
            return Err(Error::MarkMissing {
                path: mark::path_in(dir),
                records: end.seq.get(),
            });
        }
    };
    if mark.position() != end {
        tracing::info!(from = %mark.position().seq, to = %end.seq, "kept records that had not been acknowledged");
        mark.advance(end)?;
    }
    mark.sync()?;
    Ok(mark)
}

fn gap(segment: &Segment, end: Position) -> Error {
    let start = segment.start_position();
    if start.seq > end.seq {
        return Error::Missing {
            seq: end.seq.next(),
            last: start.seq,
        };
    }
    Error::Broken {
        path: segment.file.path.to_path_buf(),
        offset: 0,
        seq: Some(segment.header.first),
        why: "it does not go on where the segment before it ends",
    }
}

/// Names the first thing that is wrong at the end of a walk, when records should follow.
fn torn_inside(segment: &Segment, walk: &Walk, last: Seq) -> Error {
    match locate(segment, walk) {
        Ok(()) => Error::Missing {
            seq: walk.end.seq.next(),
            last,
        },
        Err(error) => error,
    }
}

fn behind_mark(dir: &Path, segment: &Segment, walk: &Walk, mark: Position) -> Error {
    match locate(segment, walk) {
        Ok(()) => lost(dir, mark.seq, walk.end.seq),
        Err(error) => error,
    }
}

/// What is wrong with the group after a walk's end; nothing when there are only zeros.
fn locate(segment: &Segment, walk: &Walk) -> Result<()> {
    let rest = segment.rest(walk.at)?;
    let broken = |offset, seq, why| Error::Broken {
        path: segment.file.path.to_path_buf(),
        offset,
        seq: Some(seq),
        why,
    };
    let seq = walk.end.seq.next();
    let head = rest.get(..GROUP_HEADER).unwrap_or_default();
    if rest.iter().take(SEGMENT_HEADER).all(|byte| *byte == 0) {
        return Ok(());
    }
    if GroupHeader::decode(head, segment.header.salt).is_none() {
        return Err(broken(walk.at, seq, "the header of its group is damaged"));
    }
    let mut at = GROUP_HEADER;
    let mut end = walk.end;
    loop {
        let offset = walk.at + at as u64;
        let bytes = rest.get(at..).unwrap_or_default();
        let Some(head) = frame::decode_head(bytes, segment.header.salt) else {
            return Err(broken(offset, end.seq.next(), "its head is damaged"));
        };
        let Some(body) = bytes.get(head.len()..head.len() + head.body_len) else {
            return Err(broken(offset, end.seq.next(), "its body is cut off"));
        };
        segment::check(&segment.file.path, offset, &head, &end.hash, body)?;
        at += head.len() + head.body_len;
        end = Position {
            seq: head.seq,
            hash: head.hash,
        };
    }
}

pub(crate) fn lost(dir: &Path, mark: Seq, last: Seq) -> Error {
    Error::Lost {
        dir: dir.to_owned(),
        mark,
        last,
    }
}
