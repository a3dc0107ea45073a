//! [`verify`]: a walk over everything in a ledger's folder, read-only, that finds and locates damage.
//!
//! It works on a folder that nobody has open and, reading a moment's state, on one that is in use. It repairs nothing.

use std::{fs, path::Path};

use rusqlite::Connection;

use crate::{
    Digest, Error, Result, Seq, blob,
    entry::genesis,
    lineage,
    mark::{self, Position},
    store::{self, Filter},
};

/// More damage than this is counted, not listed.
const LISTED: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone)]
pub struct Damage {
    /// Which part: `record 17`, `blob 3f…`, `mark`, `database`.
    pub place: String,
    /// What is wrong with it.
    pub error: Error,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Records whose hash was checked.
    pub records: u64,
    /// The last record in the database.
    pub last: Seq,
    /// The acknowledged end, when the mark could be read.
    pub acknowledged: Option<Seq>,
    /// The hash of the last record: it names the whole ledger.
    pub hash: Option<Digest>,
    /// Blobs whose bytes were checked.
    pub blobs: u64,
    /// Versions whose content hash, parent and blobs were checked.
    pub versions: u64,
    /// Pieces of damage in all.
    pub damaged: u64,
    /// The first of them, in order.
    pub damage: Vec<Damage>,
    /// What the database engine says about its own file.
    pub database: Vec<String>,
}

impl Report {
    /// True when everything is as it was written.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.database.is_empty()
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
}

/// Walks every record, blob and version in `dir`.
///
/// # Errors
/// Only when the folder cannot be examined at all; damage is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<Report> {
    let dir = dir.as_ref();
    let mut report = Report::default();
    // The mark first: a host that goes on writing only moves the database further ahead of it.
    let mark = match mark::peek(dir) {
        Ok(mark) => mark,
        Err(error) => {
            report.add("mark", error);
            None
        }
    };
    report.acknowledged = mark.map(|position| position.seq);
    let conn = store::open_reader(dir)?;
    report.last = store::last(&conn)?;
    if mark.is_none() && report.damaged == 0 && report.last > Seq::ZERO {
        let path = mark::path_in(dir);
        report.add(
            "mark",
            Error::MarkMissing {
                path,
                records: report.last.get(),
            },
        );
    }
    let versions = walk(&conn, &mut report)?;
    if let Some(mark) = mark {
        check_mark(dir, &conn, &mut report, mark)?;
    }
    report.database = match store::integrity(&conn) {
        Ok(lines) => lines,
        Err(error) => vec![error.chain()],
    };
    let whole = blobs(dir, &mut report)?;
    check_versions(&versions, &whole, &mut report);
    Ok(report)
}

/// Checks record by record; after a damaged one it goes on with the hash that is stored, so that each is found by itself.
fn walk(conn: &Connection, report: &mut Report) -> Result<Vec<lineage::VersionRecord>> {
    let mut versions = Vec::new();
    let mut seq = Seq::FIRST;
    while seq <= report.last {
        match store::read(conn, &Filter::All, seq, seq, 1) {
            Ok(records) => match records.into_iter().next() {
                Some(stored) => {
                    let record = stored.record;
                    report.records += 1;
                    report.hash = Some(record.hash);
                    if record.kind == lineage::KIND {
                        match lineage::VersionRecord::from_record(&record) {
                            Ok(version) => versions.push(version),
                            Err(error) => report.add(format!("record {seq}"), error),
                        }
                    }
                }
                None => report.add(
                    format!("record {seq}"),
                    Error::Missing {
                        seq,
                        last: report.last,
                    },
                ),
            },
            Err(error) => report.add(format!("record {seq}"), error),
        }
        seq = seq.next();
    }
    Ok(versions)
}

fn check_mark(dir: &Path, conn: &Connection, report: &mut Report, mark: Position) -> Result<()> {
    if report.last < mark.seq {
        let error = Error::Lost {
            dir: dir.to_owned(),
            mark: mark.seq,
            last: report.last,
        };
        report.add("mark", error);
        return Ok(());
    }
    let found = match mark.seq {
        Seq::ZERO => Some(genesis()),
        seq => store::hash_at(conn, seq)?,
    };
    if let Some(found) = found
        && found != mark.hash
    {
        report.add(
            "mark",
            Error::Diverged {
                seq: mark.seq,
                found,
                expected: mark.hash,
            },
        );
    }
    Ok(())
}

/// Checks every blob and returns the digests of the whole ones.
fn blobs(dir: &Path, report: &mut Report) -> Result<Vec<Digest>> {
    let root = blob::path_in(dir);
    let mut whole = Vec::new();
    if !root.is_dir() {
        return Ok(whole);
    }
    for shelf in sorted(&root)? {
        if !shelf.is_dir() {
            continue;
        }
        for path in sorted(&shelf)? {
            let Some(digest) = blob::digest_of(&path) else {
                continue;
            };
            report.blobs += 1;
            let found = Digest::of(&fs::read(&path).map_err(Error::file("read", &path))?);
            if found == digest {
                whole.push(digest);
            } else {
                report.add(
                    format!("blob {digest}"),
                    Error::BlobDamaged { digest, found },
                );
            }
        }
    }
    Ok(whole)
}

fn sorted(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut paths = fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|e| e.map(|e| e.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(Error::file("list", dir))?;
    paths.sort();
    Ok(paths)
}

fn check_versions(versions: &[lineage::VersionRecord], whole: &[Digest], report: &mut Report) {
    let mut seen = std::collections::HashSet::new();
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
