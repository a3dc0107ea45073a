//! Bodies that can be erased: sealed under a key of their subject.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use ledger::{Entry, Error, Ledger, Options, Record, Seq, repair, verify};
use tempfile::tempdir;

fn open(dir: &std::path::Path) -> Ledger {
    Ledger::open(dir, Options::default()).unwrap()
}

fn said(subject: &str, text: &str) -> Entry {
    Entry::new("turn", subject, text.as_bytes().to_vec()).sealed()
}

fn all(ledger: &Ledger) -> Vec<Record> {
    ledger.scan(Seq::FIRST).map(Result::unwrap).collect()
}

#[test]
fn what_is_sealed_reads_as_it_was_written_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.append(said("a", "one")).wait().unwrap();
    ledger
        .append_all(vec![said("b", "two"), said("a", "three").with_key("k")])
        .wait()
        .unwrap();
    drop(ledger);
    let ledger = open(dir.path());
    let bodies: Vec<_> = all(&ledger).into_iter().map(|r| r.body).collect();
    assert_eq!(
        bodies,
        [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
    );
    assert_eq!(ledger.by_key("k").unwrap().unwrap().body, b"three");
    assert_eq!(ledger.by_subject("a").count(), 2);
    drop(ledger);
    let stored = fs::read(dir.path().join("ledger.db")).unwrap();
    assert!(
        !stored.windows(5).any(|w| w == b"three"),
        "the text itself is nowhere"
    );
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn a_destroyed_key_erases_everything_about_its_subject_and_nothing_else() {
    let dir = tempdir().unwrap();
    let ledger = open(dir.path());
    for (subject, text) in [("a", "one"), ("b", "two"), ("a", "three")] {
        ledger.append(said(subject, text)).wait().unwrap();
    }
    assert_eq!(
        ledger.destroy_keys(&["a".into(), "nobody".into()]).unwrap(),
        1
    );
    assert_eq!(
        ledger.destroy_keys(&["a".into()]).unwrap(),
        0,
        "again without harm"
    );
    let check = |ledger: &Ledger| {
        let records = all(ledger);
        let erased: Vec<bool> = records.iter().map(|r| r.erased).collect();
        assert_eq!(erased, [true, false, true]);
        assert!(records[0].body.is_empty());
        assert_eq!(records[1].body, b"two");
    };
    check(&ledger);
    drop(ledger);
    let ledger = open(dir.path());
    check(&ledger);
    let refused = ledger.append(said("a", "more")).wait().unwrap_err();
    assert!(matches!(refused, Error::KeyDestroyed { .. }), "{refused}");
    ledger.append(said("b", "more")).wait().unwrap();
    ledger.append(said("c", "new")).wait().unwrap();
    assert_eq!(all(&ledger).len(), 5, "the refusal harmed nobody");
    drop(ledger);
    assert!(
        verify(dir.path()).unwrap().is_sound(),
        "the chain holds without the text"
    );
}

#[test]
fn a_copy_of_the_database_is_as_unreadable_as_the_original() {
    let (dir, backup) = (tempdir().unwrap(), tempdir().unwrap());
    let ledger = open(dir.path());
    ledger.append(said("a", "secret")).wait().unwrap();
    drop(ledger);
    for name in ["ledger.db", "mark"] {
        fs::copy(dir.path().join(name), backup.path().join(name)).unwrap();
    }
    let ledger = open(dir.path());
    ledger.destroy_keys(&["a".into()]).unwrap();
    drop(ledger);
    fs::copy(dir.path().join("keys"), backup.path().join("keys")).unwrap();
    assert!(all(&open(backup.path()))[0].erased);
}

#[test]
fn a_repair_keeps_all_but_what_is_damaged() {
    let (dir, to) = (tempdir().unwrap(), tempdir().unwrap());
    let ledger = open(dir.path());
    let blob = ledger.put_blob(b"weights").unwrap();
    let bad = ledger.put_blob(b"moments").unwrap();
    for n in 0..5 {
        let text = format!("text {n}");
        ledger.append(said(&format!("s{n}"), &text)).wait().unwrap();
        let note = Entry::new("note", "", format!("note {n}").into_bytes());
        ledger
            .append(note.with_key(format!("n{n}")))
            .wait()
            .unwrap();
    }
    ledger.destroy_keys(&["s4".into()]).unwrap();
    drop(ledger);
    // A byte of note 1 and of one blob are not what was written.
    let path = dir.path().join("ledger.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|w| w == b"note 1").unwrap();
    bytes[at + 5] = b'9';
    fs::write(&path, bytes).unwrap();
    let name = bad.to_string();
    fs::write(
        dir.path().join("blobs").join(&name[..2]).join(&name[2..]),
        b"m",
    )
    .unwrap();
    assert!(!verify(dir.path()).unwrap().is_sound());

    let target = to.path().join("new");
    let report = repair(dir.path(), &target).unwrap();
    let lost: Vec<&str> = report.lost.iter().map(|l| &*l.place).collect();
    assert_eq!(lost, ["record 4", &format!("blob {bad}")], "{report:?}");
    assert_eq!((report.records, report.blobs), (9, 1));
    assert!(verify(&target).unwrap().is_sound());
    let ledger = open(&target);
    let records = all(&ledger);
    assert_eq!(records[0].body, b"text 0");
    assert!(records[7].erased, "what was erased stays erased");
    assert!(ledger.by_key("n1").unwrap().is_none());
    assert_eq!(ledger.get_blob(&blob).unwrap(), b"weights");
    ledger.append(said("s9", "on")).wait().unwrap();
    drop(ledger);
    let again = repair(dir.path(), &target).unwrap_err();
    assert!(again.to_string().contains("new folder"), "{again}");
}
