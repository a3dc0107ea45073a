//! [`repair`]: a way out of damage that loses only what is damaged.
//!
//! Copies everything that can be read into a new folder, where it is chained anew; the old folder is left as it is. A record
//! whose content does not fit its hash is lost, and so is what the database cannot read; a record after it is not.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    Digest, Error, Ledger, Options, Result, Seq, blob, files, keys,
    mark::{Mark, Position},
    store::{self, Filter},
};

/// Something that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Which: `record 17`, `blob 3f…`.
    pub place: String,
    /// Why.
    pub why: String,
}

/// What a repair kept and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Records that were kept.
    pub records: u64,
    /// Blobs that were kept.
    pub blobs: u64,
    /// Everything that was not.
    pub lost: Vec<Lost>,
}

/// Copies what is whole from one folder to another, which must not hold a ledger. Records keep their kind, subject, key, time
/// and content, and sealed ones their key; places and hashes are new, since the lost ones leave no gaps.
///
/// # Errors
/// When the folder cannot be read at all, or the new one cannot be written; damage is in the report.
pub fn repair(from: &Path, to: &Path) -> Result<RepairReport> {
    if store::path_in(to).exists() {
        return Err(Error::Occupied { dir: to.to_owned() });
    }
    let source = store::open_reader(from)?;
    let old = keys::Keys::open(from)?;
    let mut report = RepairReport::default();
    files::create_dir(to)?;
    let key_file = keys::path_in(to);
    fs::copy(keys::path_in(from), &key_file).map_err(Error::file("copy the keys to", &key_file))?;
    // A new ledger, whose records are those that can be read.
    drop(Ledger::open(to, Options::default())?);
    let mut conn = store::open_writer(to, None)?;
    let last = store::last(&source)?;
    let mut end = Position::start();
    let transaction = conn
        .transaction()
        .map_err(Error::database("begin the repair of"))?;
    let mut seq = Seq::FIRST;
    while seq <= last {
        match kept(&source, &old, seq) {
            Ok(Some((at_ms, entry, slot))) => {
                let sealed = slot.map(|slot| {
                    let body = match old.get(slot)? {
                        keys::Key::Whole(_) => old.seal(slot, end.seq.next(), &entry.body)?,
                        keys::Key::Destroyed => entry.body.clone(),
                    };
                    Ok((slot, body))
                });
                let sealed = sealed.transpose()?;
                let sealed = sealed.as_ref().map(|(slot, body)| (*slot, &body[..]));
                end = store::insert(&transaction, &end, at_ms, &entry, sealed)
                    .map_err(Error::database("append to"))?;
                report.records += 1;
            }
            Ok(None) => lose(&mut report, format!("record {seq}"), "it is missing"),
            Err(error) => lose(&mut report, format!("record {seq}"), error.chain()),
        }
        seq = seq.next();
    }
    transaction
        .commit()
        .map_err(Error::database("commit the repair of"))?;
    store::checkpoint(&conn)?;
    drop(conn);
    let mut mark = Mark::open(to)?.ok_or(Error::MarkMissing {
        path: to.to_owned(),
        records: end.seq.get(),
    })?;
    mark.advance(end)?;
    blobs(from, to, &mut report)?;
    Ok(report)
}

type Kept = (i64, crate::Entry, Option<u64>);

/// One record, unsealed when its key is there. Its own hash must fit; its predecessor's place in the chain need not.
fn kept(source: &rusqlite::Connection, old: &keys::Keys, seq: Seq) -> Result<Option<Kept>> {
    let stored = match store::read(source, &Filter::All, seq, seq, 1) {
        Ok(mut found) => found.pop(),
        Err(Error::Missing { .. }) => store::read_alone(source, seq)?,
        Err(error) => return Err(error),
    };
    let Some(stored) = stored else {
        return Ok(None);
    };
    let slot = stored.slot;
    let sealed = stored.record.body.clone();
    let record = stored.opened(old)?;
    let entry = crate::Entry {
        kind: record.kind,
        subject: record.subject,
        key: record.key,
        // What was erased stays as unreadable as it is.
        body: if record.erased { sealed } else { record.body },
        sealed: slot.is_some(),
    };
    Ok(Some((record.at_ms, entry, slot)))
}

fn blobs(from: &Path, to: &Path, report: &mut RepairReport) -> Result<()> {
    let target = blob::Blobs::open(to)?;
    let source = blob::Blobs::reading(from);
    let found = match source.list() {
        Ok(found) => found,
        Err(error) => {
            lose(report, "blobs".to_owned(), error.chain());
            Vec::new()
        }
    };
    for digest in found {
        let copied: Result<Digest> = source.get(&digest).and_then(|bytes| target.put(&bytes));
        match copied {
            Ok(_) => report.blobs += 1,
            Err(error) => lose(report, format!("blob {digest}"), error.chain()),
        }
    }
    Ok(())
}

fn lose(report: &mut RepairReport, place: String, why: impl Into<String>) {
    report.lost.push(Lost {
        place,
        why: why.into(),
    });
}
