//! [`verify`]: a walk over everything in a ledger's folder, read-only, that finds and locates damage.
//!
//! It works on a folder that nobody has open and, reading a moment's state, on one that is in use. It repairs nothing:
//! that is [`crate::repair`].

use std::{collections::HashSet, path::Path};

use serde::{Serialize, Serializer};

use crate::{
    Digest, Error, Result, Seq, blob,
    disk::{self, Disk, Machine},
    frame::Head,
    keys::{self, Keys, Slot},
    lineage,
    mark::{self, Position},
    salvage::{self, Found},
    segment::{self, Segment},
    v1,
};

/// More damage than this is counted, not listed.
const LISTED: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone, Serialize)]
pub struct Damage {
    /// Which part: `record 17`, `blob 3f…`, `mark`, `log/00000002.seg at byte 512`.
    pub place: String,
    /// What is wrong with it.
    #[serde(serialize_with = "as_text")]
    pub error: Error,
}

fn as_text<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&error.chain())
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Records whose hash was checked.
    pub records: u64,
    /// The last record in the log.
    pub last: Seq,
    /// The acknowledged end, when the mark could be read.
    pub acknowledged: Option<Seq>,
    /// The hash of the last record: it names the whole ledger.
    pub hash: Option<Digest>,
    /// Files of the log.
    pub segments: u64,
    /// Sealed records whose key is there, and fits.
    pub sealed: u64,
    /// Sealed records whose key has been destroyed.
    pub erased: u64,
    /// Blobs whose bytes were checked.
    pub blobs: u64,
    /// Versions whose content hash, parent and blobs were checked.
    pub versions: u64,
    /// Pieces of damage in all.
    pub damaged: u64,
    /// The first of them, in order.
    pub damage: Vec<Damage>,
}

impl Report {
    /// True when everything is as it was written.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0
    }

    fn add(&mut self, place: impl Into<String>, error: Error) {
        self.damaged += 1;
        if self.damage.len() < LISTED {
            self.damage.push(Damage {
                place: place.into(),
                error,
            });
        }
    }

    fn missing(&mut self, from: Seq, to: Seq, last: Seq) {
        let mut seq = from;
        while seq < to {
            self.add(format!("record {seq}"), Error::Missing { seq, last });
            seq = seq.next();
        }
    }
}

/// Walks every record, blob and version in `dir`.
///
/// # Errors
/// Only when the folder cannot be examined at all; damage is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<Report> {
    verify_on(&Machine, dir)
}

/// The same on any disk.
///
/// # Errors
/// Only when the folder cannot be examined at all; damage is in the report.
pub fn verify_on(disk: &dyn Disk, dir: impl AsRef<Path>) -> Result<Report> {
    let dir = dir.as_ref();
    v1::refuse(disk, dir)?;
    let mut report = Report::default();
    // The mark first: a host that goes on writing only moves the log further ahead of it.
    let mark = match mark::peek(disk, dir) {
        Ok(mark) => mark,
        Err(error) => {
            report.add("mark", error);
            None
        }
    };
    report.acknowledged = mark.map(|position| position.seq);
    let mut walk = Walker {
        mark,
        mark_hash: None,
        keys: None,
        versions: Vec::new(),
        end: Position::start(),
    };
    match Keys::open_read(disk, dir) {
        Ok(keys) => walk.keys = Some(keys),
        Err(error) => report.add("keys", error),
    }
    walk.log(disk, dir, &mut report)?;
    report.last = walk.end.seq;
    if mark.is_none() && report.damaged == 0 && report.last > Seq::ZERO {
        let (path, records) = (mark::path_in(dir), report.last.get());
        report.add("mark", Error::MarkMissing { path, records });
    }
    check_mark(dir, &mut report, mark, walk.mark_hash);
    let whole = blobs(disk, dir, &mut report)?;
    check_versions(&walk.versions, &whole, &mut report);
    Ok(report)
}

struct Walker {
    mark: Option<Position>,
    /// The hash of the record at the mark.
    mark_hash: Option<Digest>,
    keys: Option<Keys>,
    versions: Vec<lineage::VersionRecord>,
    end: Position,
}

impl Walker {
    fn log(&mut self, disk: &dyn Disk, dir: &Path, report: &mut Report) -> Result<()> {
        let folder = segment::folder(dir);
        let numbers = segment::numbers(disk, &folder)?;
        if self.mark.is_some_and(|mark| mark.seq == Seq::ZERO) {
            self.mark_hash = Some(self.end.hash);
        }
        for (at, number) in numbers.iter().enumerate() {
            let name = format!("log/{number:08}.seg");
            let segment = match Segment::open(disk, &folder, *number, false) {
                Ok(segment) => segment,
                Err(error @ (Error::Broken { .. } | Error::Format { .. })) => {
                    report.add(name, error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            report.segments += 1;
            let start = segment.start_position();
            if start.seq > self.end.seq {
                report.missing(self.end.seq.next(), segment.header.first, start.seq);
            }
            if start.seq != self.end.seq {
                self.end = start;
            }
            self.segment(&name, &segment, at + 1 == numbers.len(), report)?;
        }
        Ok(())
    }

    fn segment(
        &mut self,
        name: &str,
        segment: &Segment,
        active: bool,
        report: &mut Report,
    ) -> Result<()> {
        let bytes = segment.rest(0)?;
        let found = salvage::salvage(&segment.file.path, &segment.header, &bytes, self.end);
        let more = |at: usize| found[at..].iter().any(|f| matches!(f, Found::Record(..)));
        for (at, item) in found.iter().enumerate() {
            match item {
                Found::Record(head, body, error) => {
                    report.missing(self.end.seq.next(), head.seq, head.seq);
                    match error {
                        None => self.record(head, &bytes[body.clone()], report),
                        Some(error) => report.add(format!("record {}", head.seq), error.clone()),
                    }
                    self.end = Position {
                        seq: head.seq,
                        hash: head.hash,
                    };
                    if self.mark.is_some_and(|mark| mark.seq == head.seq) {
                        self.mark_hash = Some(head.hash);
                    }
                }
                Found::Damage { offset, seq } => {
                    // At the very end it is a group that nobody was told of, or that is being written now.
                    let acknowledged = self.mark.is_some_and(|mark| mark.seq >= *seq);
                    if !active || acknowledged || more(at) {
                        let error = Error::Broken {
                            path: segment.file.path.to_path_buf(),
                            offset: *offset as u64,
                            seq: Some(*seq),
                            why: "these bytes are not what was written",
                        };
                        report.add(format!("{name} at byte {offset}"), error);
                    }
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, head: &Head, body: &[u8], report: &mut Report) {
        report.records += 1;
        report.hash = Some(head.hash);
        let place = format!("record {}", head.seq);
        if let Some(slot) = head.slot {
            match self.keys.as_ref().map(|keys| (keys, keys.get(slot))) {
                Some((_, Ok(Slot::Key(key)))) => {
                    if keys::unseal(&key, &head.kind, &head.subject, body, Vec::new()).is_some() {
                        report.sealed += 1;
                    } else {
                        report.add(place, Error::Sealed { seq: head.seq });
                    }
                }
                Some((_, Ok(Slot::Destroyed))) => report.erased += 1,
                Some((keys, Ok(Slot::Damaged))) => report.add(place, keys.damaged(slot)),
                Some((_, Err(error))) => report.add(place, error),
                None => {}
            }
        } else if head.kind == lineage::KIND {
            match lineage::VersionRecord::from_record(&head.clone().record(body.to_vec())) {
                Ok(version) => self.versions.push(version),
                Err(error) => report.add(place, error),
            }
        }
    }
}

fn check_mark(dir: &Path, report: &mut Report, mark: Option<Position>, found: Option<Digest>) {
    let Some(mark) = mark else { return };
    if report.last < mark.seq {
        let error = Error::Lost {
            dir: dir.to_owned(),
            mark: mark.seq,
            last: report.last,
        };
        report.add("mark", error);
    } else if let Some(found) = found
        && found != mark.hash
    {
        let error = Error::Diverged {
            seq: mark.seq,
            found,
            expected: mark.hash,
        };
        report.add("mark", error);
    }
}

/// Checks every blob and returns the digests of the whole ones.
fn blobs(disk: &dyn Disk, dir: &Path, report: &mut Report) -> Result<HashSet<Digest>> {
    let root = blob::path_in(dir);
    let mut whole = HashSet::new();
    for digest in blob::list(disk, &root)? {
        // One that is gone by now was removed while we looked.
        let Some(bytes) = disk::read_file(disk, &blob::file_of(&root, &digest))? else {
            continue;
        };
        report.blobs += 1;
        let found = Digest::of(&bytes);
        if found == digest {
            whole.insert(digest);
        } else {
            let error = Error::BlobDamaged { digest, found };
            report.add(format!("blob {digest}"), error);
        }
    }
    Ok(whole)
}

fn check_versions(
    versions: &[lineage::VersionRecord],
    whole: &HashSet<Digest>,
    report: &mut Report,
) {
    let mut seen = HashSet::new();
    for version in versions {
        report.versions += 1;
        let place = || format!("version {} of {:?}", version.version, version.adapter);
        for digest in version.adapter_blob.iter().chain(&version.optimizer_blob) {
            if !whole.contains(digest) {
                report.add(place(), Error::NoBlob { digest: *digest });
            }
        }
        if let Some(parent) = &version.parent
            && !seen.contains(parent)
        {
            report.add(
                place(),
                Error::NoParent {
                    version: version.version,
                    parent: *parent,
                },
            );
        }
        seen.insert(version.hash());
    }
}
