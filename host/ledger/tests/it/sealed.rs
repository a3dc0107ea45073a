//! Bodies that can be erased, and blobs that can be removed.

use std::fs;

use ledger::{Entry, Error, Ledger, Options, Seq, verify};
use tempfile::{TempDir, tempdir};

fn open(dir: &TempDir) -> Ledger {
    Ledger::open(dir.path(), Options::default()).unwrap()
}

fn secret(user: &str, text: &str) -> Entry {
    Entry::new("turn", user, text.as_bytes().to_vec()).sealed()
}

fn folder_holds(dir: &TempDir, text: &str) -> bool {
    fn walk(path: &std::path::Path, text: &[u8]) -> bool {
        fs::read_dir(path).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return walk(&path, text);
            }
            fs::read(&path)
                .unwrap()
                .windows(text.len())
                .any(|w| w == text)
        })
    }
    walk(dir.path(), text.as_bytes())
}

#[test]
fn a_sealed_body_is_read_back_and_its_text_is_nowhere_on_the_disk() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    ledger
        .append(secret("ann", "the plain text"))
        .wait()
        .unwrap();
    ledger
        .append(Entry::new("turn", "ann", b"open text".to_vec()))
        .wait()
        .unwrap();
    let bodies = |ledger: &Ledger| -> Vec<Vec<u8>> {
        ledger.by_subject("ann").map(|r| r.unwrap().body).collect()
    };
    let expected = [b"the plain text".to_vec(), b"open text".to_vec()];
    assert_eq!(bodies(&ledger), expected);
    drop(ledger);
    assert_eq!(bodies(&open(&dir)), expected);
    assert!(!folder_holds(&dir, "the plain text"));
    assert!(folder_holds(&dir, "open text"));
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.sealed, report.is_sound()), (1, true), "{report:?}");
}

#[test]
fn a_destroyed_key_erases_all_bodies_of_its_subject_and_no_others_for_ever() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    for (user, text) in [("ann", "a1"), ("bob", "b1"), ("ann", "a2")] {
        ledger.append(secret(user, text)).wait().unwrap();
    }
    let hashes: Vec<_> = ledger.scan(Seq::FIRST).map(|r| r.unwrap().hash).collect();
    let subjects = ["ann".to_owned(), "nobody".to_owned()];
    assert_eq!(ledger.destroy_keys(&subjects).unwrap(), 1);
    assert_eq!(ledger.destroy_keys(&subjects).unwrap(), 0);
    let check = |ledger: &Ledger| {
        let records: Vec<_> = ledger.scan(Seq::FIRST).map(Result::unwrap).collect();
        let seen: Vec<_> = records.iter().map(|r| (&r.body[..], r.erased)).collect();
        assert_eq!(seen, [(&b""[..], true), (b"b1", false), (b"", true)]);
        let now: Vec<_> = records.iter().map(|r| r.hash).collect();
        assert_eq!(now, hashes);
        let error = ledger.append(secret("ann", "a3")).wait().unwrap_err();
        assert!(
            matches!(&error, Error::Erased { subject } if subject == "ann"),
            "{error}"
        );
        ledger.health().unwrap();
    };
    check(&ledger);
    drop(ledger);
    check(&open(&dir));
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.sealed, report.erased), (1, 2), "{report:?}");
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn an_old_copy_of_the_log_is_erased_with_the_key() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    ledger.append(secret("ann", "a1")).wait().unwrap();
    drop(ledger);
    let log = fs::read(dir.path().join("log/00000001.seg")).unwrap();
    let ledger = open(&dir);
    ledger.destroy_keys(&["ann".into()]).unwrap();
    drop(ledger);
    fs::write(dir.path().join("log/00000001.seg"), log).unwrap();
    assert!(open(&dir).get(Seq::FIRST).unwrap().unwrap().erased);
}

#[test]
fn many_subjects_have_keys_of_their_own_across_reopenings() {
    let dir = tempdir().unwrap();
    for round in 0..3 {
        let ledger = open(&dir);
        let sent: Vec<_> = (0..300)
            .map(|i| ledger.append(secret(&format!("u{round}-{i}"), &format!("{i}"))))
            .collect();
        sent.into_iter().for_each(|p| {
            p.wait().unwrap();
        });
    }
    let ledger = open(&dir);
    ledger.destroy_keys(&["u1-7".into()]).unwrap();
    for record in ledger.scan(Seq::FIRST) {
        let record = record.unwrap();
        let i = record.subject.split('-').nth(1).unwrap();
        assert_eq!(record.erased, record.subject == "u1-7");
        assert!(record.erased || record.body == i.as_bytes());
    }
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn damaged_or_missing_keys_are_refused_and_named() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    ledger.append(secret("ann", "a1")).wait().unwrap();
    ledger.append(secret("bob", "b1")).wait().unwrap();
    drop(ledger);
    let path = dir.path().join("keys");
    let good = fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes[4096 + 5] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let ledger = open(&dir);
    let error = ledger.get(Seq::FIRST).unwrap_err();
    assert!(
        matches!(error, Error::KeysDamaged { slot: Some(0), .. }),
        "{error}"
    );
    assert!(error.is_damage());
    assert_eq!(ledger.get(Seq::new(2)).unwrap().unwrap().body, b"b1");
    // It concerns this subject alone.
    assert!(ledger.append(secret("ann", "a2")).wait().is_err());
    ledger.append(secret("bob", "b2")).wait().unwrap();
    drop(ledger);
    assert_eq!(verify(dir.path()).unwrap().damage[0].place, "record 1");
    fs::remove_file(&path).unwrap();
    let error = Ledger::open(dir.path(), Options::default()).unwrap_err();
    assert!(
        matches!(error, Error::KeysDamaged { slot: None, .. }),
        "{error}"
    );
}

#[test]
fn a_repair_saves_the_keys_that_are_whole_and_counts_the_others_as_destroyed() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    for user in ["ann", "bob", "eve"] {
        ledger.append(secret(user, user)).wait().unwrap();
    }
    ledger.destroy_keys(&["eve".into()]).unwrap();
    drop(ledger);
    let path = dir.path().join("keys");
    let mut bytes = fs::read(&path).unwrap();
    // The header, and ann's key.
    bytes[3] ^= 1;
    bytes[4096] ^= 1;
    let erased = |damage: Option<&[u8]>| {
        match damage {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        assert!(Ledger::open(dir.path(), Options::default()).is_err());
        let to = tempdir().unwrap();
        let report = ledger::repair(dir.path(), to.path()).unwrap();
        assert!(verify(to.path()).unwrap().is_sound());
        let ledger = open(&to);
        ledger.append(secret("new", "new")).wait().unwrap();
        let erased = ledger.scan(Seq::FIRST).map(|r| r.unwrap().erased);
        (report.lost_keys, erased.collect::<Vec<_>>())
    };
    assert_eq!(erased(Some(&bytes)), (1, vec![true, false, true, false]));
    assert_eq!(erased(None), (3, vec![true, true, true, false]));
}

#[test]
fn a_removed_blob_is_gone_and_the_others_are_listed() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let (a, b) = (
        ledger.put_blob(b"a").unwrap(),
        ledger.put_blob(b"b").unwrap(),
    );
    let mut both = [a, b];
    both.sort();
    assert_eq!(ledger.blobs().unwrap(), both);
    assert!(ledger.remove_blob(&a).unwrap());
    assert!(!ledger.remove_blob(&a).unwrap());
    assert_eq!(ledger.blobs().unwrap(), [b]);
    assert!(matches!(ledger.get_blob(&a), Err(Error::NoBlob { .. })));
}

#[test]
fn a_subjects_key_is_durable_before_it_is_used() {
    use std::sync::Arc;

    use ledger::disk::Simulated;
    let disk = Simulated::new();
    let open = |disk: &Simulated| {
        let options = Options {
            disk: Arc::new(disk.clone()),
            ..Options::default()
        };
        Ledger::open("/data", options).unwrap()
    };
    let ledger = open(&disk);
    // More than one batch of keys, so that the file grows while it is in use.
    for i in 0..600 {
        ledger
            .append(secret(&format!("u{i}"), "text"))
            .wait()
            .unwrap();
        if i % 50 == 0 || i > 595 {
            let after = open(&disk.crash(0));
            let record = after.scan(Seq::FIRST).last().unwrap().unwrap();
            assert_eq!((record.seq.get(), &record.body[..]), (i + 1, &b"text"[..]));
        }
    }
}
