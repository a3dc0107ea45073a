//! Disks that fill up.

use std::{sync::Arc, thread};

use ledger::{Entry, Error, Ledger, Options, Seq, disk::Simulated};

fn entry(i: usize) -> Entry {
    Entry::new("turn", format!("t{i}"), vec![3; 500])
}

fn open(disk: &Simulated) -> Ledger {
    let options = Options {
        segment_bytes: 8192,
        disk: Arc::new(disk.clone()),
        ..Options::default()
    };
    Ledger::open("/data", options).unwrap()
}

#[test]
fn a_full_disk_is_noticed_while_what_is_begun_can_still_be_finished() {
    let disk = Simulated::new();
    let ledger = open(&disk);
    // Room for the first segment, the mark, and one more segment.
    disk.limit(Some(disk.used() + 8192 + 4096));
    let mut sent = 0;
    while ledger.room().is_ok() {
        ledger.append(entry(sent)).wait().unwrap();
        sent += 1;
        assert!(sent < 100, "the disk never filled");
    }
    assert!(matches!(ledger.room(), Err(Error::Full)));
    // New work is refused from here on, but what is begun goes on.
    for i in 0..4 {
        ledger.append(entry(sent + i)).wait().unwrap();
    }
    sent += 4;
    let error = loop {
        match ledger.append(entry(sent)).wait() {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100, "the disk never filled");
    };
    assert!(matches!(error, Error::Full), "{error}");
    assert!(error.is_retryable());
    ledger.health().unwrap();
    assert_eq!(ledger.scan(Seq::FIRST).filter(Result::is_ok).count(), sent);
    assert!(matches!(ledger.put_blob(&[1; 10_000]), Err(Error::Full)));
    // A smaller one still fits into what is left of the segment.
    let small = Entry::new("turn", "small", vec![]);
    ledger.append(small).wait().unwrap();

    disk.limit(None);
    while ledger.room().is_err() {
        thread::yield_now();
    }
    ledger.append(entry(sent)).wait().unwrap();
    ledger.put_blob(&[1; 10_000]).unwrap();
    drop(ledger);
    let ledger = open(&disk);
    assert_eq!(
        ledger.scan(Seq::FIRST).filter(Result::is_ok).count(),
        sent + 2
    );
}

#[test]
fn a_request_that_does_not_fit_does_not_take_others_of_its_group_with_it() {
    let disk = Simulated::new();
    let ledger = open(&disk);
    disk.limit(Some(disk.used() + 1024));
    let sent: Vec<_> = [500, 200_000, 500]
        .into_iter()
        .map(|len| ledger.append(Entry::new("turn", "t", vec![1; len])))
        .collect();
    let outcomes: Vec<bool> = sent.into_iter().map(|p| p.wait().is_ok()).collect();
    assert_eq!(outcomes, [true, false, true]);
    ledger.health().unwrap();
}

#[test]
fn a_repeated_append_needs_no_room() {
    let disk = Simulated::new();
    let ledger = open(&disk);
    let keyed = || entry(0).with_key("k");
    ledger.append(keyed()).wait().unwrap();
    disk.limit(Some(disk.used()));
    while ledger.append(entry(1)).wait().is_ok() {}
    assert!(!ledger.append(keyed()).wait().unwrap().fresh);
}

#[test]
fn entries_that_belong_together_are_limited_before_anything_is_written() {
    let disk = Simulated::new();
    let ledger = open(&disk);
    let huge = Entry::new("turn", "t", vec![0; 64 << 20]);
    let error = ledger.append_all(vec![huge; 17]).wait().unwrap_err();
    assert!(
        matches!(error, Error::Together { entries: 17, .. }),
        "{error}"
    );
    assert_eq!(ledger.durable(), Seq::ZERO);
}
