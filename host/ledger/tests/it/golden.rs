//! The ledgers that are in the repository, one for each format, can be read: by this version and by every later one.

use std::{fs, path::Path};

use ledger::{Ledger, Options, Record, Seq, lineage::Lineage, verify};
use tempfile::tempdir;

#[test]
fn the_golden_ledger_of_format_1_reads_as_it_was_written() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
    let dir = tempdir().unwrap();
    for name in ["ledger.db", "mark"] {
        fs::copy(format!("{golden}/{name}"), dir.path().join(name)).unwrap();
    }
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    let records: Vec<Record> = ledger.scan(Seq::FIRST).collect::<Result<_, _>>().unwrap();
    let lines: Vec<String> = records
        .iter()
        .map(|r| {
            let body = String::from_utf8_lossy(&r.body);
            let key = r.key.as_deref().unwrap_or("-");
            format!(
                "{} {} {} {:?} {key} {body} {}",
                r.seq, r.at_ms, r.kind, r.subject, r.hash
            )
        })
        .collect();
    let expected = fs::read_to_string(format!("{golden}/records.txt")).unwrap();
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
    let lineage = Lineage::read(&ledger).unwrap();
    let newest = lineage.newest("main").unwrap();
    assert_eq!((newest.version, lineage.ancestors(newest).count()), (2, 2));
    drop(ledger);
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.damaged, report.versions), (0, 2), "{report:?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn the_golden_ledger_of_format_2_reads_as_it_was_written() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2");
    let dir = tempdir().unwrap();
    copy(&golden, dir.path());
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.damaged, report.versions), (0, 2), "{report:?}");
    assert_eq!((report.sealed, report.erased, report.blobs), (1, 1, 2));
    assert!(report.segments > 1);
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    let lines: Vec<String> = ledger
        .scan(Seq::FIRST)
        .map(|r| {
            let r = r.unwrap();
            let body = String::from_utf8_lossy(&r.body);
            let key = r.key.as_deref().unwrap_or("-");
            format!(
                "{} {} {} {:?} {key} {body} {} {}",
                r.seq, r.at_ms, r.kind, r.subject, r.erased, r.hash
            )
        })
        .collect();
    let expected = fs::read_to_string(golden.join("records.txt")).unwrap();
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
    let lineage = Lineage::read(&ledger).unwrap();
    let newest = lineage.newest("main").unwrap();
    let weights = ledger.get_blob(&newest.adapter_blob.unwrap()).unwrap();
    assert_eq!(weights, b"weights 2");
}
