//! The database: its settings, its one table, and the statements. Nothing else in the crate writes SQL.
//!
//! It checks what it reads against the hash chain, but knows nothing of groups, marks or waiters.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};

use crate::{Digest, Entry, Error, Record, Result, Seq, entry, keys::Keys, mark::Position};

/// "NSLG": says in the file's header whose it is.
const APPLICATION_ID: i64 = 0x4E53_4C47;
/// The format that this program writes.
pub(crate) const FORMAT: i64 = 2;
/// A checkpoint of the write-ahead log costs a sync of the whole database: every 4,000 pages (16 MB) instead of SQLite's 1,000.
const CHECKPOINT_PAGES: i64 = 4_000;
/// What is kept of the write-ahead log after a checkpoint.
const WAL_KEPT_BYTES: i64 = 64 << 20;
/// A reader waits this long for a lock that only a checkpoint or recovery holds.
const LOCK_WAIT_MS: i64 = 10_000;

const SCHEMA: &str = "
    CREATE TABLE records (
        seq     INTEGER PRIMARY KEY,
        at_ms   INTEGER NOT NULL,
        kind    TEXT    NOT NULL,
        subject TEXT    NOT NULL,
        key     TEXT,
        body    BLOB    NOT NULL,
        hash    BLOB    NOT NULL,
        slot    INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX records_by_key ON records (key) WHERE key IS NOT NULL;
    CREATE INDEX records_by_subject ON records (subject, seq) WHERE subject <> '';
    CREATE INDEX records_by_kind ON records (kind, seq);
";

/// Every read joins the record's predecessor, whose hash its own is checked against.
macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT r.seq, r.at_ms, r.kind, r.subject, r.key, r.body, r.hash, p.hash, r.slot \
             FROM records r LEFT JOIN records p ON p.seq = r.seq - 1 ",
            "WHERE ",
            $condition
        )
    };
}

/// Which records a read wants.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    All,
    Kind(String),
    Subject(String),
}

pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("ledger.db")
}

/// Opens the database for writing, creating it when it is not there.
pub(crate) fn open_writer(dir: &Path, max_bytes: Option<u64>) -> Result<Connection> {
    let path = path_in(dir);
    let conn = Connection::open(&path).map_err(Error::database("open"))?;
    configure(&conn, max_bytes).map_err(Error::database("configure"))?;
    let id: i64 = pragma(&conn, "application_id")?;
    let format: i64 = pragma(&conn, "user_version")?;
    if id == 0 && format == 0 && is_empty(&conn)? {
        let create = format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
        );
        conn.execute_batch(&create)
            .map_err(Error::database("create"))?;
        return Ok(conn);
    }
    if id == APPLICATION_ID && format == 1 {
        // Format 2 adds the key's slot; a record of format 1 has none.
        let upgrade = format!(
            "BEGIN IMMEDIATE; ALTER TABLE records ADD COLUMN slot INTEGER; PRAGMA user_version = {FORMAT}; COMMIT;"
        );
        conn.execute_batch(&upgrade)
            .map_err(Error::database("upgrade"))?;
        return Ok(conn);
    }
    check_header(&path, id, format)?;
    Ok(conn)
}

/// Opens the database for reading only.
pub(crate) fn open_reader(dir: &Path) -> Result<Connection> {
    let path = path_in(dir);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(Error::database("open"))?;
    conn.pragma_update(None, "busy_timeout", LOCK_WAIT_MS)
        .and_then(|()| conn.pragma_update(None, "trusted_schema", false))
        .map_err(Error::database("configure"))?;
    check_header(
        &path,
        pragma(&conn, "application_id")?,
        pragma(&conn, "user_version")?,
    )?;
    Ok(conn)
}

fn check_header(path: &Path, id: i64, format: i64) -> Result<()> {
    if id != APPLICATION_ID {
        return Err(Error::Foreign {
            path: path.to_owned(),
            found: id,
        });
    }
    if format != FORMAT {
        return Err(Error::Format {
            path: path.to_owned(),
            found: format,
            supported: FORMAT,
        });
    }
    Ok(())
}

fn configure(conn: &Connection, max_bytes: Option<u64>) -> rusqlite::Result<()> {
    conn.pragma_update(None, "busy_timeout", LOCK_WAIT_MS)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the write-ahead log at every commit: that is the whole point.
    let level = match crate::mutant::on("commit-without-sync") {
        true => "NORMAL",
        false => "FULL",
    };
    conn.pragma_update(None, "synchronous", level)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    if let Some(bytes) = max_bytes {
        let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        conn.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))?;
        conn.query_row(
            &format!("PRAGMA max_page_count = {}", pages.max(1)),
            [],
            |_| Ok(()),
        )?;
    }
    Ok(())
}

fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
        .map_err(Error::database("read the header of"))
}

fn is_empty(conn: &Connection) -> Result<bool> {
    conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })
    .map_err(Error::database("read the schema of"))
}

/// Makes everything that is in the write-ahead log durable, also what a killed process had written but not synced.
pub(crate) fn checkpoint(conn: &Connection) -> Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(Error::database("checkpoint"))
}

/// The last record's place; zero when there is none.
pub(crate) fn last(conn: &Connection) -> Result<Seq> {
    conn.query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| {
        seq_at(row, 0)
    })
    .map_err(Error::database("read the end of"))
}

pub(crate) fn hash_at(conn: &Connection, seq: Seq) -> Result<Option<Digest>> {
    conn.prepare_cached("SELECT hash FROM records WHERE seq = ?1")
        .and_then(|mut s| s.query_row([sql(seq)], |row| digest_at(row, 0)).optional())
        .map_err(Error::database("read from"))
}

/// Where the record with this key is.
pub(crate) fn find_key(conn: &Connection, key: &str) -> rusqlite::Result<Option<Seq>> {
    conn.prepare_cached("SELECT seq FROM records WHERE key = ?1")?
        .query_row([key], |row| seq_at(row, 0))
        .optional()
}

/// Inserts `entry` after `end` and returns the new end.
pub(crate) fn insert(
    conn: &Connection,
    end: &Position,
    at_ms: i64,
    entry: &Entry,
    sealed: Option<(u64, &[u8])>,
) -> rusqlite::Result<Position> {
    let seq = end.seq.next();
    let key = entry.key.as_deref();
    let body = sealed.map_or(&entry.body[..], |(_, body)| body);
    let hash = entry::chain(
        &end.hash,
        seq,
        at_ms,
        &entry.kind,
        &entry.subject,
        key,
        body,
    );
    let slot = sealed.map(|(slot, _)| i64::try_from(slot).unwrap_or(i64::MAX));
    conn.prepare_cached(
        "INSERT INTO records (seq, at_ms, kind, subject, key, body, hash, slot) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![sql(seq), at_ms, entry.kind, entry.subject, key, body, &hash.as_bytes()[..], slot])?;
    Ok(Position { seq, hash })
}

/// The slot of a subject's key, if anything about it is sealed.
pub(crate) fn slot_of(conn: &Connection, subject: &str) -> rusqlite::Result<Option<u64>> {
    let slot: Option<i64> = conn
        .prepare_cached(
            "SELECT slot FROM records WHERE subject = ?1 AND subject <> '' AND slot IS NOT NULL ORDER BY seq LIMIT 1",
        )?
        .query_row([subject], |row| row.get(0))
        .optional()?;
    Ok(slot.and_then(|slot| u64::try_from(slot).ok()))
}

/// The first slot that no record has used.
pub(crate) fn free_slot(conn: &Connection) -> Result<u64> {
    let last: Option<i64> = conn
        .query_row("SELECT max(slot) FROM records", [], |row| row.get(0))
        .map_err(Error::database("read the keys' slots of"))?;
    Ok(last.map_or(0, |last| u64::try_from(last).unwrap_or(0) + 1))
}

/// A record as it is stored: its body is sealed when it has a slot.
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) slot: Option<u64>,
}

impl Stored {
    /// The record as it was written, or erased.
    pub(crate) fn opened(self, keys: &Keys) -> Result<Record> {
        let Self { mut record, slot } = self;
        if let Some(slot) = slot {
            let body = keys.unseal(slot, record.seq, &record.body)?;
            record.erased = body.is_none();
            record.body = body.unwrap_or_default();
        }
        Ok(record)
    }
}

/// At most `limit` records from `from` to `to`, in order, each checked against its predecessor.
pub(crate) fn read(
    conn: &Connection,
    filter: &Filter,
    from: Seq,
    to: Seq,
    limit: usize,
) -> Result<Vec<Stored>> {
    let range = (sql(from), sql(to), i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = match filter {
        Filter::All => collect(
            conn,
            select!("r.seq >= ?1 AND r.seq <= ?2 ORDER BY r.seq LIMIT ?3"),
            params![range.0, range.1, range.2],
        ),
        Filter::Kind(kind) => collect(
            conn,
            select!("r.kind = ?4 AND r.seq >= ?1 AND r.seq <= ?2 ORDER BY r.seq LIMIT ?3"),
            params![range.0, range.1, range.2, kind],
        ),
        Filter::Subject(subject) => collect(
            conn,
            select!(
                "r.subject = ?4 AND r.subject <> '' AND r.seq >= ?1 AND r.seq <= ?2 ORDER BY r.seq LIMIT ?3"
            ),
            params![range.0, range.1, range.2, subject],
        ),
    };
    rows.map_err(Error::database("read from"))?
        .into_iter()
        .map(Row8::checked)
        .collect::<Result<Vec<Stored>>>()
}

/// A record whose predecessor is not there, so that its hash cannot be checked against it. For a repair.
pub(crate) fn read_alone(conn: &Connection, seq: Seq) -> Result<Option<Stored>> {
    let rows = collect(conn, select!("r.seq = ?1"), params![sql(seq)])
        .map_err(Error::database("read from"))?;
    let alone = |row: Row8| Stored {
        record: row.record,
        slot: row.slot,
    };
    Ok(rows.into_iter().next().map(alone))
}

/// The record with this key, if it is not after `to`.
pub(crate) fn read_key(conn: &Connection, key: &str, to: Seq) -> Result<Option<Stored>> {
    let rows = collect(
        conn,
        select!("r.key = ?1 AND r.seq <= ?2"),
        params![key, sql(to)],
    )
    .map_err(Error::database("read from"))?;
    rows.into_iter().next().map(Row8::checked).transpose()
}

/// A record and its predecessor's hash, not yet checked.
struct Row8 {
    record: Record,
    prev: Option<Digest>,
    slot: Option<u64>,
}

impl Row8 {
    fn checked(self) -> Result<Stored> {
        let Self { record, prev, slot } = self;
        let prev = match (prev, record.seq) {
            (Some(prev), _) => prev,
            (None, Seq::FIRST) => entry::genesis(),
            (None, seq) => {
                return Err(Error::Missing {
                    seq: Seq::new(seq.get() - 1),
                    last: seq,
                });
            }
        };
        let expected = record.chained(&prev);
        if record.hash == expected || crate::mutant::on("no-chain-check") {
            Ok(Stored { record, slot })
        } else {
            Err(Error::Damaged {
                seq: record.seq,
                found: record.hash,
                expected,
            })
        }
    }
}

fn collect(
    conn: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Row8>> {
    let mut statement = conn.prepare_cached(statement)?;
    let rows = statement.query_map(params, |row| {
        let prev = match row.get_ref(7)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(digest_at(row, 7)?),
        };
        let record = Record {
            erased: false,
            seq: seq_at(row, 0)?,
            at_ms: row.get(1)?,
            kind: row.get(2)?,
            subject: row.get(3)?,
            key: row.get(4)?,
            body: row.get(5)?,
            hash: digest_at(row, 6)?,
        };
        let slot: Option<i64> = row.get(8)?;
        let slot = slot.and_then(|slot| u64::try_from(slot).ok());
        Ok(Row8 { record, prev, slot })
    })?;
    rows.collect()
}

fn seq_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    row.get::<_, i64>(column)
        .map(|seq| Seq::new(u64::try_from(seq).unwrap_or(0)))
}

fn digest_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}

/// SQLite's integers are signed; a ledger ends long before 2^63.
fn sql(seq: Seq) -> i64 {
    i64::try_from(seq.get()).unwrap_or(i64::MAX)
}

pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// What SQLite itself finds wrong with its file, at most 20 lines.
pub(crate) fn integrity(conn: &Connection) -> Result<Vec<String>> {
    conn.prepare("PRAGMA integrity_check(20)")
        .and_then(|mut s| {
            s.query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        })
        .map(|lines| lines.into_iter().filter(|line| line != "ok").collect())
        .map_err(Error::database("check"))
}
