//! The loops are killed after every single record that they ever wrote, and go on from there.

use std::{collections::HashSet, path::Path};

use ledger::{
    Entry, Ledger, Options, Record, Seq,
    lineage::{self, Lineage, VersionRecord},
    verify,
};
use loops::records::{self, JUDGED, JudgedRecord, SPENT, SpentRecord, TURN};
use rl::{Feedback, Rating};

use crate::rig::{Rig, config, folder};

/// A ledger that holds the first `count` records of another.
fn truncated(records: &[Record], count: usize, from: &Path, to: &Path) {
    let ledger = Ledger::open(to, Options::default()).unwrap();
    let entries = records[..count]
        .iter()
        .map(|r| Entry {
            kind: r.kind.clone(),
            subject: r.subject.clone(),
            key: r.key.clone(),
            body: r.body.clone(),
            sealed: false,
        })
        .collect();
    ledger.append_all(entries).wait().unwrap();
    for shelf in std::fs::read_dir(from.join("blobs")).unwrap() {
        let shelf = shelf.unwrap().path();
        for blob in std::fs::read_dir(&shelf).unwrap() {
            ledger
                .put_blob(&std::fs::read(blob.unwrap().path()).unwrap())
                .unwrap();
        }
    }
}

fn spent(rig: &Rig) -> Vec<String> {
    rig.records::<SpentRecord>(SPENT)
        .iter()
        .map(|s| s.sample.to_string())
        .collect()
}

#[tokio::test]
async fn killed_after_any_record_the_loops_lose_nothing_and_train_nothing_twice() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig
        .talk(
            "s",
            &["hi", "thank you", "That is too long, please cut it.", "hm"],
        )
        .await;
    let rating = Some(Rating::Up);
    let feedback = Feedback {
        tenant: "tenant".into(),
        turn: turns[2].clone(),
        rating,
        correction: None,
    };
    rig.until(|s| s.judged == 3).await;
    rig.sink().feedback(feedback).await.unwrap();
    rig.talk("t", &["hello", "great"]).await;
    let before = rig.until(|s| s.live.get() == 2).await;
    assert_eq!(before.trained, 4);
    let records: Vec<Record> = rig.ledger.scan(Seq::FIRST).map(Result::unwrap).collect();
    let last = Lineage::read(&rig.ledger)
        .unwrap()
        .newest("main")
        .cloned()
        .unwrap();
    rig.stop().await;

    for count in 0..=records.len() {
        // A version, the ends of its samples and the new head are one group: no kill can separate them.
        let within = [SPENT, lineage::HEAD];
        if records
            .get(count)
            .is_some_and(|next| within.contains(&&*next.kind))
        {
            continue;
        }
        check(&records, count, dir.path(), &last).await;
    }
}

/// Starts the loops on what was written before the kill, and compares.
async fn check(records: &[Record], count: usize, from: &Path, last: &VersionRecord) {
    let copy = folder();
    truncated(records, count, from, copy.path());
    let kept = &records[..count];
    let rig = Rig::start(copy.path(), config());
    // Whatever had been recorded is worked through without any new request.
    let due = due(kept);
    let status = rig
        .until(|s| {
            s.judged >= due
                && s.live == s.version
                && s.queues["judge"].depth == 0
                && s.queues["train"].depth < 2
        })
        .await;
    let served = rig.records::<records::TurnRecord>(TURN).len();
    assert_eq!(
        served,
        kept.iter().filter(|r| r.kind == TURN).count(),
        "after {count}"
    );
    let trained = spent(&rig);
    let distinct: HashSet<_> = trained.iter().collect();
    assert_eq!(distinct.len(), trained.len(), "trained twice after {count}");
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let committed = lineage.newest("main").map_or(0, |v| v.version);
    assert_eq!(
        status.live.get(),
        committed,
        "the newest committed one, after {count}"
    );
    let live = rig
        .witness
        .lock()
        .live
        .last()
        .map_or(0, |(version, _)| *version);
    assert_eq!(live, committed);
    let samples: HashSet<String> = rig
        .records::<JudgedRecord>(JUDGED)
        .iter()
        .filter_map(|j| j.sample.as_ref().map(|s| s.id.to_string()))
        .collect();
    let waiting = samples.len() - distinct.len();
    assert_eq!(
        status.queues["train"].depth, waiting as u64,
        "none lost after {count}"
    );
    if count == records.len() {
        assert_eq!(lineage.newest("main"), Some(last));
    }
    rig.stop().await;
    assert!(verify(copy.path()).unwrap().is_sound());
}

/// Turns that a reaction or feedback has made due.
fn due(kept: &[Record]) -> u64 {
    let told: HashSet<&str> = kept
        .iter()
        .filter(|r| r.kind == records::CLOSED || r.kind == records::FEEDBACK)
        .map(|r| r.subject.as_str())
        .collect();
    told.len() as u64
}

#[tokio::test]
async fn a_restart_counts_what_the_running_host_counted() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi", "thank you", "hm", "great", "nice"])
        .await;
    // A turn is counted as judged a moment before it leaves the queue.
    let done =
        |s: &loops::Status| s.judged == 4 && s.live.get() == 1 && s.queues["judge"].depth == 0;
    let before = rig.until(done).await;
    rig.stop().await;
    let rig = Rig::start(dir.path(), config());
    let mut after = rig.until(done).await;
    after.loops.clone_from(&before.loops);
    let seconds = |status: &mut loops::Status| {
        for queue in status.queues.values_mut() {
            queue.oldest_seconds = 0.0;
        }
    };
    let mut before = before;
    seconds(&mut before);
    seconds(&mut after);
    assert_eq!(after, before);
    rig.stop().await;
}
