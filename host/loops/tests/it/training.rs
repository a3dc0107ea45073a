//! Batches, versions, staleness and refusals.

use ledger::{lineage::Lineage, verify};
use loops::records::{Fate, SPENT, STEP_REFUSED, SpentRecord, StepRefusedRecord};
use rl::{NotTrainable, PolicyVersion};

use crate::rig::{Failure, Rig, config, folder};

const THANKS: [&str; 5] = ["hi", "thank you", "great", "nice", "perfect"];

#[tokio::test]
async fn samples_become_versions_that_are_live_as_soon_as_they_are_committed() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig.talk("s", &THANKS).await;
    let status = rig.until(|s| s.live.get() == 2).await;
    assert_eq!((status.version.get(), status.trained), (2, 4));
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let newest = lineage.newest("main").unwrap();
    assert_eq!(lineage.ancestors(newest).count(), 2);
    let mut samples: Vec<_> = lineage
        .all()
        .iter()
        .flat_map(|v| v.samples.clone())
        .collect();
    let mut expected: Vec<_> = turns[..4]
        .iter()
        .map(|turn| format!("sample-{turn}"))
        .collect();
    // Two turns are judged at once, and the one that is judged first is trained first.
    samples.sort();
    expected.sort();
    assert_eq!(samples, expected, "each turn once");
    let adapter = rig.ledger.get_blob(&newest.adapter_blob.unwrap()).unwrap();
    let live = rig.witness.lock().live.last().cloned();
    assert_eq!(live, Some((2, adapter)), "served = stored");
    let counted = ["fresh", "mismatched", "rechecked", "uncompared"]
        .map(|n| rig.counter(&format!("loops_{n}_tokens_total")));
    assert_eq!(
        counted,
        [2 * 7, 2 * 3, 2 * 2, 2 * 5],
        "what the learner said of two steps"
    );
    rig.stop().await;
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[tokio::test]
async fn a_sample_that_lags_too_far_behind_is_dropped_and_counted() {
    let dir = folder();
    let mut config = config();
    config.train.max_lag = 0;
    let rig = Rig::start(dir.path(), config.clone());
    // Served by version 0, its reaction comes after version 1.
    let early = rig.talk("late", &["slow"]).await;
    rig.talk("s", &THANKS[..3]).await;
    rig.until(|s| s.live.get() == 1).await;
    let messages = vec![
        rl::Message::user("slow"),
        rl::Message::assistant("re: slow"),
        rl::Message::user("thank you"),
    ];
    rig.say(crate::rig::request("late", messages), "welcome")
        .await;
    rig.talk("fresh", &THANKS[..2]).await;
    let status = rig
        .until(|s| s.not_trainable.contains_key(&NotTrainable::Stale))
        .await;
    assert_eq!(status.not_trainable[&NotTrainable::Stale], 1);
    let spent: Vec<SpentRecord> = rig.records(SPENT);
    let stale = spent.iter().find(|s| s.turn == early[0]).unwrap();
    assert_eq!(
        stale.fate,
        Fate::Stale {
            newest: PolicyVersion::new(1)
        }
    );
    rig.stop().await;
    let rig = Rig::start(dir.path(), config);
    let again = rig.handle.status();
    assert_eq!(
        again.not_trainable[&NotTrainable::Stale],
        1,
        "and it stays dropped"
    );
    assert_eq!(again.queues["train"].depth, 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_step_is_recorded_and_the_version_does_not_move() {
    for failure in [Failure::NotFinite, Failure::BadMetric] {
        let dir = folder();
        let rig = Rig::start(dir.path(), config());
        rig.witness.lock().fail.push(failure);
        rig.talk("s", &THANKS).await;
        let status = rig.until(|s| s.trained == 2 && s.steps_refused == 1).await;
        assert_eq!(
            status.not_trainable,
            [(NotTrainable::StepRefused, 2)].into()
        );
        let status = rig.until(|s| s.live.get() == 1).await;
        assert_eq!(status.version.get(), 1);
        let refused: Vec<StepRefusedRecord> = rig.records(STEP_REFUSED);
        assert_eq!(
            (refused[0].parent, refused[0].samples.len()),
            (PolicyVersion::BASE, 2)
        );
        // What such a step had found out counts; of one that says nothing, nothing was compared: replies of 6 and 13 bytes.
        let counted =
            ["fresh", "uncompared"].map(|n| rig.counter(&format!("loops_{n}_tokens_total")));
        let expected = match failure {
            Failure::NotFinite => [7, 19 + 5],
            _ => [7 + 7, 5 + 5],
        };
        assert_eq!(counted, expected);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_learner_that_is_busy_is_asked_again_and_nothing_is_lost() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.witness.lock().fail.push(Failure::NotNow);
    rig.talk("s", &THANKS[..3]).await;
    let status = rig.until(|s| s.live.get() == 1).await;
    assert_eq!((status.trained, status.steps_refused), (2, 0));
    rig.stop().await;
}

#[tokio::test]
async fn after_a_panic_or_a_failed_swap_the_loop_starts_again_and_trains_nothing_twice() {
    for failure in [Failure::Panic, Failure::Deploy] {
        let dir = folder();
        let rig = Rig::start(dir.path(), config());
        rig.witness.lock().fail.push(failure);
        rig.talk("s", &THANKS).await;
        let status = rig.until(|s| s.live.get() == 2).await;
        assert_eq!(
            (status.trained, status.version.get()),
            (4, 2),
            "{failure:?}"
        );
        let lineage = Lineage::read(&rig.ledger).unwrap();
        let mut samples: Vec<_> = lineage
            .all()
            .iter()
            .flat_map(|v| v.samples.clone())
            .collect();
        samples.sort();
        samples.dedup();
        assert_eq!(samples.len(), 4);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_ledger_that_cannot_write_any_more_ends_the_loops_and_says_why() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    std::fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    std::fs::write(dir.path().join("blobs"), b"in the way").unwrap();
    rig.talk("s", &THANKS[..3]).await;
    let sink = rig.sink();
    let handle = rig.handle.clone();
    let why = rig.ended().await.unwrap_err().chain();
    assert!(why.contains("next version's weights"), "{why}");
    assert!(why.contains("stopped accepting"), "{why}");
    let request = crate::rig::request("t", vec![rl::Message::user("hi")]);
    let refused = sink.begin(request).await.unwrap_err();
    assert!(!refused.is_retryable(), "{refused}");
    assert!(handle.status().ledger_error.unwrap().contains("restart"));
}
