//! Ledgers of format 1: upgraded once, whole, also after an interruption; or refused as they were.

use std::{fs, path::Path};

use ledger::{Entry, Error, Ledger, Options, Seq, verify};
use rusqlite::Connection;
use tempfile::{TempDir, tempdir};

fn golden() -> TempDir {
    let dir = tempdir().unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
    for name in ["ledger.db", "mark"] {
        fs::copy(format!("{golden}/{name}"), dir.path().join(name)).unwrap();
    }
    dir
}

fn sql(dir: &Path, statement: &str) {
    let conn = Connection::open(dir.join("ledger.db")).unwrap();
    conn.execute_batch(statement).unwrap();
}

fn refused(dir: &TempDir) -> Error {
    Ledger::open(dir.path(), Options::default()).unwrap_err()
}

#[test]
fn a_walk_over_a_ledger_of_format_1_says_that_it_must_be_upgraded_first() {
    let dir = golden();
    let error = verify(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Old { .. }), "{error}");
    assert!(error.to_string().contains("open it once"));
}

#[test]
fn an_upgraded_ledger_keeps_its_old_file_and_goes_on() {
    let dir = golden();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert_eq!(ledger.durable().get(), 6);
    assert!(!dir.path().join("ledger.db").exists());
    assert!(dir.path().join("ledger.db.v1").exists());
    let again = Entry::new("vote", "t-1", vec![]).with_key("vote/t-1/2");
    assert_eq!(ledger.append(again).wait().unwrap().seq.get(), 4);
    let next = ledger.append(Entry::new("turn", "new", vec![])).wait();
    assert_eq!(next.unwrap().seq.get(), 7);
    drop(ledger);
    assert!(verify(dir.path()).unwrap().is_sound());
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert_eq!(ledger.scan(Seq::FIRST).count(), 7);
}

#[test]
fn an_upgrade_that_was_interrupted_is_started_again_or_finished() {
    // While it wrote.
    let dir = golden();
    fs::create_dir(dir.path().join("log.new")).unwrap();
    fs::write(dir.path().join("log.new/00000001.seg"), b"half").unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert_eq!(ledger.scan(Seq::FIRST).count(), 6);
    drop(ledger);
    // Between the log's rename and the old file's.
    fs::rename(
        dir.path().join("ledger.db.v1"),
        dir.path().join("ledger.db"),
    )
    .unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert_eq!(ledger.scan(Seq::FIRST).count(), 6);
    assert!(dir.path().join("ledger.db.v1").exists());
}

#[test]
fn a_damaged_ledger_of_format_1_is_refused_and_left_as_it_is() {
    for (statement, record) in [
        ("UPDATE records SET body = zeroblob(3) WHERE seq = 2", 2),
        ("DELETE FROM records WHERE seq = 4", 4),
    ] {
        let dir = golden();
        sql(dir.path(), statement);
        let error = refused(&dir);
        assert!(error.is_damage(), "{error}");
        assert!(
            error.to_string().contains(&format!("record {record}")),
            "{error}"
        );
        assert!(dir.path().join("ledger.db").exists());
        assert!(!dir.path().join("log").exists());
    }
}

#[test]
fn a_ledger_of_format_1_that_lost_its_acknowledged_tail_is_refused() {
    let dir = golden();
    sql(dir.path(), "DELETE FROM records WHERE seq > 4");
    let error = refused(&dir);
    assert!(
        matches!(error, Error::Lost { mark, last, .. } if (mark.get(), last.get()) == (6, 4)),
        "{error}"
    );
}

#[test]
fn a_database_that_is_not_a_ledger_and_one_of_another_format_are_refused() {
    let dir = tempdir().unwrap();
    sql(
        dir.path(),
        "CREATE TABLE cats (name TEXT); PRAGMA application_id = 7;",
    );
    assert!(matches!(refused(&dir), Error::Foreign { found: 7, .. }));
    let dir = golden();
    sql(dir.path(), "PRAGMA user_version = 9");
    assert!(matches!(refused(&dir), Error::Format { found: 9, .. }));
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("ledger.db"), "not a database ".repeat(400)).unwrap();
    assert!(refused(&dir).is_damage());
}
