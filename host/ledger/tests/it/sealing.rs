//! Sealed bodies: each subject has a key of its own, and a destroyed key stays destroyed.

use ledger::{Entry, Error, Ledger, Options, Seq, verify};
use tempfile::tempdir;

fn sealed(subject: &str, text: &str) -> Entry {
    Entry::new("turn", subject, text.as_bytes().to_vec()).sealed()
}

#[test]
fn what_is_sealed_is_read_like_anything_else_and_its_text_is_in_no_file() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    let text = "the quick brown fox";
    ledger.append(sealed("ann", text)).wait().unwrap();
    let read = ledger.get(Seq::FIRST).unwrap().unwrap();
    assert_eq!((&read.body[..], read.erased), (text.as_bytes(), false));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = if path.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            continue;
        };
        let found = bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

#[test]
fn a_destroyed_key_stays_destroyed_and_takes_only_its_own_subject_with_it() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    for (subject, text) in [("ann", "one"), ("bob", "two"), ("ann", "three")] {
        ledger.append(sealed(subject, text)).wait().unwrap();
    }
    assert_eq!(ledger.destroy_keys(&["ann".to_owned()]).unwrap(), 1);
    let erased = |ledger: &Ledger| -> Vec<bool> {
        let records = ledger.scan(Seq::FIRST);
        records.map(|record| record.unwrap().erased).collect()
    };
    assert_eq!(erased(&ledger), [true, false, true]);
    drop(ledger);
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert_eq!(erased(&ledger), [true, false, true]);
    assert_eq!(ledger.get(Seq::FIRST).unwrap().unwrap().body, b"");
    assert_eq!(ledger.get(Seq::new(2)).unwrap().unwrap().body, b"two");
    drop(ledger);
    assert!(
        verify(dir.path()).unwrap().is_sound(),
        "the bytes are whole"
    );
}

#[test]
fn more_about_a_forgotten_subject_is_refused_and_everybody_else_goes_on() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    ledger.append(sealed("ann", "one")).wait().unwrap();
    ledger.destroy_keys(&["ann".to_owned()]).unwrap();
    let error = ledger.append(sealed("ann", "two")).wait().unwrap_err();
    assert!(matches!(error, Error::KeyDestroyed { .. }), "{error}");
    ledger.health().unwrap();
    assert_eq!(
        ledger
            .append(sealed("bob", "three"))
            .wait()
            .unwrap()
            .seq
            .get(),
        2
    );
}
