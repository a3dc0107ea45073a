//! What the ledger promises, one sentence a test. Crashes are in `crash.rs` and `simulated.rs`, damage in `damage.rs`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
};

use ledger::{
    Digest, Entry, Error, Ledger, Options, Record, Seq,
    lineage::{Lineage, VersionRecord},
    verify,
};
use tempfile::{TempDir, tempdir};

fn open(dir: &TempDir) -> Ledger {
    Ledger::open(dir.path(), Options::default()).unwrap()
}

fn turn(id: &str) -> Entry {
    Entry::new("turn", id, format!("body of {id}").into_bytes())
}

fn all(ledger: &Ledger) -> Vec<Record> {
    ledger.scan(Seq::FIRST).collect::<Result<_, _>>().unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_reopening_in_the_same_order() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    for i in 0..300 {
        let receipt = ledger.append(turn(&format!("t{i}"))).wait().unwrap();
        assert_eq!((receipt.seq.get(), receipt.fresh), (i + 1, true));
    }
    let before = all(&ledger);
    drop(ledger);
    let ledger = open(&dir);
    assert_eq!(all(&ledger), before);
    assert_eq!(before.len(), 300);
    assert_eq!(before[7].body, b"body of t7");
    assert_eq!(ledger.get(Seq::new(8)).unwrap().as_ref(), Some(&before[7]));
    assert_eq!(ledger.get(Seq::new(301)).unwrap(), None);
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn bodies_of_any_length_read_alike_alone_in_one_scan_and_in_several_that_reuse_memory() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    // Around what one read takes, and past it.
    let lengths = [
        0, 1, 4_000, 5_000, 262_000, 262_144, 300_000, 3, 900_000, 70_000,
    ];
    let entry = |at: usize| {
        let subject = format!("s{}", at % 7);
        let body: Vec<u8> = (0..lengths[at % lengths.len()])
            .map(|byte| (byte * 31 + at) as u8)
            .collect();
        let entry = Entry::new("blob", subject, body);
        if at.is_multiple_of(3) {
            entry
        } else {
            entry.sealed()
        }
    };
    for at in 0..60 {
        ledger.append(entry(at)).wait().unwrap();
    }
    ledger.destroy_keys(&["s3".to_owned()]).unwrap();
    let whole = all(&ledger);
    assert!(whole.iter().any(|record| record.erased));
    for (at, record) in whole.iter().enumerate() {
        assert_eq!(ledger.get(record.seq).unwrap().as_ref(), Some(record));
        if !record.erased {
            assert_eq!(record.body, entry(at).body, "{at}");
        }
    }
    let mut parts = Vec::new();
    for first in (1..=60).step_by(13) {
        let mut records = ledger.scan_to(Seq::new(first), Seq::new(first + 12));
        while let Some(record) = records.next() {
            let record = record.unwrap();
            parts.push(record.clone());
            records.reuse(record);
        }
    }
    assert_eq!(parts, whole);
}

#[test]
fn records_are_found_by_kind_by_subject_and_by_key() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    for i in 0..4 {
        ledger.append(turn(&format!("t{i}"))).wait().unwrap();
        let vote = Entry::new("vote", format!("t{i}"), vec![i]).with_key(format!("vote/t{i}"));
        ledger.append(vote).wait().unwrap();
    }
    let kinds: Vec<_> = ledger
        .by_kind("vote", Seq::new(4))
        .map(|r| r.unwrap().seq.get())
        .collect();
    assert_eq!(kinds, [4, 6, 8]);
    let about: Vec<_> = ledger.by_subject("t2").map(|r| r.unwrap().kind).collect();
    assert_eq!(about, ["turn", "vote"]);
    assert_eq!(ledger.by_key("vote/t3").unwrap().unwrap().body, [3]);
    assert_eq!(ledger.by_key("vote/t9").unwrap(), None);
}

#[test]
fn a_second_append_with_the_same_key_returns_the_first_place() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let first = ledger.append(turn("t").with_key("k")).wait().unwrap();
    let again = Entry::new("turn", "t", b"another body".to_vec()).with_key("k");
    let second = ledger.append(again.clone()).wait().unwrap();
    assert_eq!((second.seq, second.fresh), (first.seq, false));
    drop(ledger);
    let ledger = open(&dir);
    assert!(!ledger.append(again.clone()).wait().unwrap().fresh);
    // Also when both are in one group.
    let other = Entry::new("turn", "u", vec![]).with_key("u");
    let receipts = ledger
        .append_all(vec![other.clone(), again, other])
        .wait()
        .unwrap();
    let fresh: Vec<_> = receipts.iter().map(|r| (r.seq.get(), r.fresh)).collect();
    assert_eq!(fresh, [(2, true), (1, false), (2, false)]);
    assert_eq!(all(&ledger).len(), 2);
}

#[test]
fn many_writers_share_commits_and_every_receipt_is_true() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let ledger = ledger.clone();
            thread::spawn(move || {
                let sent: Vec<_> = (0..50)
                    .map(|i| ledger.append(turn(&format!("{w}-{i}"))))
                    .collect();
                sent.into_iter()
                    .map(|p| p.wait().unwrap().seq)
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let receipts: Vec<Vec<Seq>> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    for (w, places) in receipts.iter().enumerate() {
        assert!(
            places.is_sorted(),
            "a writer's own entries stay in its order"
        );
        for (i, seq) in places.iter().enumerate() {
            assert_eq!(
                ledger.get(*seq).unwrap().unwrap().subject,
                format!("{w}-{i}")
            );
        }
    }
    assert_eq!(ledger.durable().get(), 400);
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn an_append_can_be_awaited_without_any_runtime_of_ours() {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut pending = std::pin::pin!(ledger.append(turn("t")));
    let receipt = loop {
        match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(receipt) => break receipt.unwrap(),
            Poll::Pending => thread::park(),
        }
    };
    assert_eq!(receipt.seq, Seq::FIRST);
}

/// A process that another thread starts holds every open file between its fork and its exec. Closing the lock's file
/// was once all that ended the lock, and a host could not open the folder it had just closed.
#[test]
fn a_folder_can_be_opened_again_while_other_processes_are_being_started() {
    let dir = tempdir().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = std::process::Command::new("true").status();
                }
            });
        }
        let opened =
            (0..40).try_for_each(|_| Ledger::open(dir.path(), Options::default()).map(drop));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        opened.unwrap();
    });
}

#[test]
fn a_second_host_on_the_same_folder_is_refused() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let error = Ledger::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }));
    assert!(error.to_string().contains("in use"), "{error}");
    drop(ledger);
    open(&dir);
}

#[test]
fn a_full_disk_refuses_the_append_and_nothing_else() {
    let dir = tempdir().unwrap();
    let options = Options {
        max_bytes: Some(400_000),
        ..Options::default()
    };
    let ledger = Ledger::open(dir.path(), options).unwrap();
    ledger.append(turn("small")).wait().unwrap();
    let error = ledger
        .append(Entry::new("turn", "big", vec![7; 600_000]))
        .wait()
        .unwrap_err();
    assert!(matches!(error, Error::Full), "{error}");
    assert!(error.is_retryable());
    ledger.health().unwrap();
    let receipt = ledger.append(turn("after")).wait().unwrap();
    assert_eq!(receipt.seq.get(), 2);
    assert_eq!(all(&ledger).len(), 2);
    drop(ledger);
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn an_entry_that_breaks_a_limit_is_refused_before_it_is_written() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let error = ledger
        .append_all(vec![turn("good"), Entry::new("", "bad", vec![])])
        .wait()
        .unwrap_err();
    assert!(
        matches!(error, Error::Entry { field: "kind", .. }),
        "{error}"
    );
    assert_eq!(ledger.durable(), Seq::ZERO);
}

#[test]
fn a_clock_that_runs_backwards_changes_nothing_but_the_timestamps() {
    let dir = tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_000));
    let clock = now.clone();
    let options = Options {
        clock: Arc::new(move || clock.fetch_sub(400, Ordering::Relaxed)),
        ..Options::default()
    };
    let ledger = Ledger::open(dir.path(), options).unwrap();
    for i in 0..5 {
        ledger.append(turn(&format!("t{i}"))).wait().unwrap();
    }
    let records = all(&ledger);
    let times: Vec<_> = records.iter().map(|r| r.at_ms).collect();
    assert_eq!(times, [1_000, 600, 200, -200, -600]);
    assert!(records.iter().map(|r| r.seq).is_sorted());
}

#[test]
fn blobs_and_versions_are_checked_together() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    let blob = ledger.put_blob(b"weights of v1").unwrap();
    let version = VersionRecord {
        version: 1,
        adapter: "main".into(),
        parent: None,
        samples: vec!["s1".into()],
        seeds: BTreeMap::new(),
        settings: serde_json::json!({ "lr": 1e-4 }),
        metrics: BTreeMap::from([("loss".into(), 0.5)]),
        adapter_blob: Some(blob),
        optimizer_blob: None,
        ..VersionRecord::default()
    };
    ledger.append(version.to_entry().unwrap()).wait().unwrap();
    assert!(
        !ledger
            .append(version.to_entry().unwrap())
            .wait()
            .unwrap()
            .fresh
    );
    assert_eq!(
        Lineage::read(&ledger).unwrap().newest("main"),
        Some(&version)
    );
    assert_eq!(ledger.get_blob(&blob).unwrap(), b"weights of v1");
    let report = verify(dir.path()).unwrap();
    assert_eq!(
        (report.blobs, report.versions, report.is_sound()),
        (1, 1, true)
    );

    let name = blob.to_string();
    std::fs::write(
        dir.path().join("blobs").join(&name[..2]).join(&name[2..]),
        b"?",
    )
    .unwrap();
    let orphan = VersionRecord {
        version: 2,
        parent: Some(Digest::of(b"nobody")),
        ..version
    };
    ledger.append(orphan.to_entry().unwrap()).wait().unwrap();
    let report = verify(dir.path()).unwrap();
    let places: Vec<_> = report.damage.iter().map(|d| d.place.clone()).collect();
    assert_eq!(places.len(), 4, "{places:?}");
    assert_eq!(places[0], format!("blob {blob}"));
    assert!(report.damage[3].error.to_string().contains("parent"));
}

#[test]
fn a_folder_in_use_can_be_verified() {
    let dir = tempdir().unwrap();
    let ledger = open(&dir);
    ledger.append(turn("t")).wait().unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records, 1);
}
