//! [`repair`]: everything of a damaged ledger that can be read, in a new folder. The old one is not touched.
//!
//! Records get new places and hashes; what they hold stays as it was, sealed bodies with their keys. It invents nothing:
//! what is lost is in the report.

use std::path::Path;

use serde::Serialize;

use crate::{
    Digest, Error, Result, Seq, blob,
    build::Builder,
    disk::{self, Disk, Machine},
    keys,
    mark::{self, Mark, Position},
    salvage::{self, Found},
    segment::{self, Segment},
    v1,
};

/// The segments of the new log.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Something that could not be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The record that should be there.
    pub seq: Seq,
    /// How many records are lost from there on.
    pub records: u64,
    /// The file that it was in.
    pub file: String,
    /// Where in it.
    pub offset: u64,
}

/// What [`repair`] did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepairReport {
    /// Records in the new folder.
    pub records: u64,
    /// Records that are lost.
    pub lost_records: u64,
    /// Where they were.
    pub lost: Vec<Lost>,
    /// Keys that are lost: what was sealed under them reads as erased.
    pub lost_keys: u64,
    /// Blobs in the new folder.
    pub blobs: u64,
    /// Blobs that are lost.
    pub lost_blobs: Vec<Digest>,
    /// The hash of the new ledger's last record.
    pub hash: Option<Digest>,
}

/// Copies what is whole of the ledger in `from` into a new one in `to`, which must be empty or not exist.
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::Locked`] when somebody has `from` open, or the file system's.
pub fn repair(from: &Path, to: &Path) -> Result<RepairReport> {
    let disk = &Machine;
    let lock_path = from.join("lock");
    let lock = disk
        .lock(&lock_path)
        .map_err(Error::file("lock", lock_path))?;
    let Some(_lock) = lock else {
        return Err(Error::Locked {
            dir: from.to_owned(),
        });
    };
    v1::refuse(disk, from)?;
    if !disk::list(disk, to)?.is_empty() {
        return Err(Error::NotEmpty {
            path: to.to_owned(),
        });
    }
    disk::create_dir(disk, to)?;
    let mut report = RepairReport::default();
    let (end, slots) = records(disk, from, to, &mut report)?;
    let old = disk::read_file(disk, &keys::path_in(from))?.unwrap_or_default();
    let (kept, lost_keys) = keys::repaired(&old, slots)?;
    report.lost_keys = lost_keys;
    if !kept.is_empty() {
        let path = keys::path_in(to);
        disk::write_durable(disk, &disk::temp_of(&path), &path, &kept)?;
    }
    blobs(disk, from, to, &mut report)?;
    // Last: without its mark a folder with records does not open.
    Mark::create(disk, to, end)?;
    Ok(report)
}

/// Says where the new log ends, and how many slots of keys its records use.
fn records(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    report: &mut RepairReport,
) -> Result<(Position, u32)> {
    let mut slots = 0;
    let (old, new) = (segment::folder(from), segment::folder(to));
    disk::create_dir(disk, &new)?;
    let mut builder = Builder::new(disk, &new, SEGMENT_BYTES)?;
    let mut end = Position::start();
    let mut place = (String::new(), 0);
    for number in segment::numbers(disk, &old)? {
        let file = format!("{number:08}.seg");
        let segment = match Segment::open(disk, &old, number, false) {
            Ok(segment) => segment,
            Err(Error::Broken { .. }) => {
                place = (file, 0);
                continue;
            }
            Err(error) => return Err(error),
        };
        let start = segment.start_position();
        if start.seq > end.seq {
            report.lose(end.seq.next(), segment.header.first, &place);
            end = start;
        }
        let bytes = segment.rest(0)?;
        place = (file.clone(), 0);
        for found in salvage::salvage(&segment.file.path, &segment.header, &bytes, end) {
            match found {
                Found::Record(head, body, error) => {
                    report.lose(end.seq.next(), head.seq, &place);
                    end = Position {
                        seq: head.seq,
                        hash: head.hash,
                    };
                    let offset = (body.start - head.len()) as u64;
                    match error {
                        None => {
                            slots = slots.max(head.slot.map_or(0, |slot| slot + 1));
                            report.hash = Some(builder.push(*head, &bytes[body])?);
                            report.records += 1;
                        }
                        Some(_) => {
                            report.lose(head.seq, head.seq.next(), &(file.clone(), offset));
                        }
                    }
                    place = (file.clone(), offset);
                }
                Found::Damage { offset, .. } => place = (file.clone(), offset as u64),
            }
        }
    }
    if let Ok(Some(mark)) = mark::peek(disk, from) {
        report.lose(end.seq.next(), mark.seq.next(), &place);
    }
    Ok((builder.finish()?, slots))
}

impl RepairReport {
    fn lose(&mut self, from: Seq, to: Seq, (file, offset): &(String, u64)) {
        let records = to.get().saturating_sub(from.get());
        if records > 0 {
            self.lost_records += records;
            self.lost.push(Lost {
                seq: from,
                records,
                file: format!("log/{file}"),
                offset: *offset,
            });
        }
    }
}

fn blobs(disk: &dyn Disk, from: &Path, to: &Path, report: &mut RepairReport) -> Result<()> {
    let (old, new) = (blob::path_in(from), blob::path_in(to));
    disk::create_dir(disk, &new)?;
    for digest in blob::list(disk, &old)? {
        match disk::read_file(disk, &blob::file_of(&old, &digest))? {
            Some(bytes) if Digest::of(&bytes) == digest => {
                let path = blob::file_of(&new, &digest);
                disk::create_dir(disk, path.parent().unwrap_or(&new))?;
                disk::write_durable(disk, &disk::temp_of(&path), &path, &bytes)?;
                report.blobs += 1;
            }
            _ => report.lost_blobs.push(digest),
        }
    }
    Ok(())
}
