//! The ledger of format 1, a SQLite database: read once, checked, and written again as a log of the current format.
//!
//! Records keep their places and hashes, so that the mark goes on to hold. The database stays beside the log, renamed.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};

use crate::{
    Digest, Error, Result, Seq,
    build::Builder,
    disk::{self, Disk},
    frame::Head,
    mark::Position,
    segment,
};

/// "NSLG": says in the file's header whose it is.
const APPLICATION_ID: i64 = 0x4E53_4C47;
const FORMAT: i64 = 1;
const NAME: &str = "ledger.db";
const KEPT: &str = "ledger.db.v1";

/// Turns a ledger of format 1 into one of the current format; does nothing when there is none. A run that was interrupted
/// is started again, or finished.
pub(crate) fn upgrade(disk: &dyn Disk, dir: &Path, segment_bytes: u64) -> Result<()> {
    let old = dir.join(NAME);
    // Only the machine's own disk can hold a database.
    if !disk.exists(&old) {
        return Ok(());
    }
    let folder = segment::folder(dir);
    if !disk.exists(&folder) {
        let begun = dir.join("log.new");
        disk::create_dir(disk, &begun)?;
        disk::clear(disk, &begun)?;
        let end = convert(disk, &old, &begun, segment_bytes)?;
        disk::sync_dir(disk, &begun)?;
        // From here on the log is what counts.
        disk::rename(disk, &begun, &folder)?;
        disk::sync_dir(disk, dir)?;
        tracing::info!(records = %end.seq, "upgraded the ledger from format 1");
    }
    disk::rename(disk, &old, &dir.join(KEPT))?;
    disk::sync_dir(disk, dir)
}

/// Refuses a folder that would have to be upgraded first.
pub(crate) fn refuse(disk: &dyn Disk, dir: &Path) -> Result<()> {
    if disk.exists(&dir.join(NAME)) && !disk.exists(&segment::folder(dir)) {
        return Err(Error::Old {
            dir: dir.to_owned(),
        });
    }
    Ok(())
}

fn convert(disk: &dyn Disk, old: &Path, folder: &Path, segment_bytes: u64) -> Result<Position> {
    let conn = open(old)?;
    let mut builder = Builder::new(disk, folder, segment_bytes)?;
    let mut statement = conn
        .prepare("SELECT seq, at_ms, kind, subject, key, body, hash FROM records ORDER BY seq")
        .map_err(Error::database("read from"))?;
    let mut rows = statement.query([]).map_err(Error::database("read from"))?;
    let mut expected = Seq::FIRST;
    while let Some(row) = rows.next().map_err(Error::database("read from"))? {
        let (head, body) = record(row).map_err(Error::database("read from"))?;
        let (seq, found) = (head.seq, head.hash);
        if seq != expected {
            return Err(Error::Missing {
                seq: expected,
                last: seq,
            });
        }
        let expected_hash = builder.push(head, &body)?;
        if found != expected_hash {
            return Err(Error::Damaged {
                seq,
                path: old.to_owned(),
                offset: 0,
                found,
                expected: expected_hash,
            });
        }
        expected = seq.next();
    }
    builder.finish()
}

fn record(row: &Row<'_>) -> rusqlite::Result<(Head, Vec<u8>)> {
    let body: Vec<u8> = row.get(5)?;
    let head = Head {
        seq: Seq::new(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0)),
        at_ms: row.get(1)?,
        kind: row.get(2)?,
        subject: row.get(3)?,
        key: row.get(4)?,
        slot: None,
        hash: Digest::from_bytes(row.get::<_, [u8; 32]>(6)?),
        body_len: body.len(),
    };
    Ok((head, body))
}

/// Opens the database, with what its write-ahead log holds folded in.
fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(Error::database("open"))?;
    conn.pragma_update(None, "trusted_schema", false)
        .and_then(|()| conn.pragma_update(None, "cell_size_check", true))
        .map_err(Error::database("configure"))?;
    let id = pragma(&conn, "application_id")?;
    if id != APPLICATION_ID {
        return Err(Error::Foreign {
            path: path.to_owned(),
            found: id,
        });
    }
    let format = pragma(&conn, "user_version")?;
    if format != FORMAT {
        return Err(Error::Format {
            path: path.to_owned(),
            found: format,
            supported: FORMAT,
        });
    }
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(Error::database("checkpoint"))?;
    Ok(conn)
}

fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
        .map_err(Error::database("read the header of"))
}
