//! Samples that are longer than the learner's memory is planned for: a host that has less than the one that recorded them.

use std::collections::HashSet;

use ledger::lineage::Lineage;
use loops::{
    forget::Selector,
    records::{Fate, SPENT, SpentRecord, TURN, TurnRecord},
};
use rl::{NotTrainable, TurnId};
use tempfile::TempDir;

use crate::{
    history::{adapter, replayed},
    rig::{Rig, config, folder},
};

/// Everybody says a short thing, and then a long one.
const LINES: [&str; 4] = ["hi", "thank you for all of this", "great", "perfect"];
/// Between what the replies to these take.
const LONGEST: usize = 20;

fn is_set_aside(status: &loops::Status) -> bool {
    status.not_trainable.contains_key(&NotTrainable::TooLong)
}

/// The samples of every version.
fn trained(rig: &Rig) -> HashSet<String> {
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let all = lineage.all().iter().flat_map(|v| v.samples.clone());
    all.collect()
}

fn sample(turn: &TurnId) -> String {
    format!("sample-{turn}")
}

fn set_aside(rig: &Rig) -> Vec<TurnId> {
    let spent: Vec<SpentRecord> = rig.records(SPENT);
    let long = |s: &SpentRecord| matches!(s.fate, Fate::TooLong { .. });
    let long = spent.into_iter().filter(long);
    long.map(|s| s.turn).collect()
}

#[tokio::test]
async fn a_sample_that_there_is_no_memory_for_is_set_aside_and_the_others_are_trained() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.witness.lock().longest = Some(LONGEST);
    let turns = rig.talk_in_order("s", &LINES).await;
    let trains = |s: &loops::Status| is_set_aside(s) && s.live.get() == 1;
    let status = rig.until(trains).await;
    assert_eq!(status.not_trainable, [(NotTrainable::TooLong, 1)].into());
    assert_eq!((status.trained, status.steps_refused), (2, 0));
    assert_eq!(status.training_waits, None);
    let expected: HashSet<String> = [sample(&turns[0]), sample(&turns[2])].into();
    assert_eq!(trained(&rig), expected);
    assert_eq!(set_aside(&rig), [turns[1].clone()]);
    assert!(replayed(&rig.ledger).is_exact());
    rig.stop().await;

    // With more memory it stays out: the versions that came after would be others.
    let rig = Rig::start(dir.path(), config());
    let again = rig.handle.status();
    assert_eq!(again.not_trainable[&NotTrainable::TooLong], 1);
    assert_eq!(again.queues["train"].depth, 0);
    rig.talk("t", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 2).await;
    assert!(!trained(&rig).contains(&sample(&turns[1])));
    let replayed = replayed(&rig.ledger);
    assert!(replayed.is_exact(), "{:?}", replayed.steps);
    assert_eq!(replayed.adapter.unwrap(), adapter(&rig.ledger));
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    rig.stop().await;
}

/// Ann and bob talk to a host with memory enough, cat to one with less; then ann is forgotten.
async fn forgotten(cat: [&str; 4]) -> (TempDir, Rig, Vec<TurnId>, HashSet<String>) {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    for user in ["ann", "bob"] {
        rig.talk_in_order(user, &LINES).await;
    }
    rig.until(|s| s.live.get() == 3).await;
    rig.stop().await;

    // Less memory: what bob said is in steps that must be taken again, and what cat says is too long for this host.
    let rig = Rig::start(dir.path(), config());
    rig.witness.lock().longest = Some(LONGEST);
    let cats = rig.talk_in_order("cat", &cat).await;
    rig.until(|s| is_set_aside(s) && s.live.get() == 4).await;
    let anns = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    let forgotten = rig.handle.control().forget(anns, |_, _, _| {}).await;
    let forgotten = forgotten.unwrap();
    assert!(forgotten.record.computed > 0);
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let line = lineage.all().iter().filter(|v| {
        let number = rl::PolicyVersion::new(v.version);
        forgotten.record.line.contains(&number)
    });
    let taken = line.flat_map(|v| v.samples.clone()).collect();
    (dir, rig, cats, taken)
}

/// Now, and on a host with more memory.
async fn replays_the_same(dir: &TempDir, rig: Rig) {
    assert!(replayed(&rig.ledger).is_exact());
    let head = adapter(&rig.ledger);
    rig.stop().await;
    let rig = Rig::start(dir.path(), config());
    assert_eq!(replayed(&rig.ledger).adapter, Some(head));
    rig.stop().await;
}

#[tokio::test]
async fn forgetting_somebody_takes_old_long_samples_again_and_leaves_out_what_was_set_aside() {
    let (dir, rig, cats, taken) = forgotten(LINES).await;
    let turns: Vec<TurnRecord> = rig.records(TURN);
    let bobs = turns
        .iter()
        .filter(|t| t.turn.user.as_deref() == Some("bob"));
    let long = bobs.map(|t| sample(&t.turn.id)).nth(1).unwrap();
    assert!(taken.contains(&long), "{taken:?}");
    assert!(!taken.contains(&sample(&cats[1])), "{taken:?}");
    replays_the_same(&dir, rig).await;
}

/// Without ann's three samples everybody's batches are others: cat's first would be in one that was due before it was set aside.
#[tokio::test]
async fn what_was_set_aside_stays_out_also_where_forgetting_makes_it_due_earlier() {
    let lines = [LINES[1], "thank you", "great", "perfect"];
    let (dir, rig, cats, taken) = forgotten(lines).await;
    assert!(!taken.contains(&sample(&cats[0])), "{taken:?}");
    assert!(taken.contains(&sample(&cats[1])), "{taken:?}");
    replays_the_same(&dir, rig).await;
}
