//! Checkpoints: a start with one is the start without it, and none outlives what it was made of.

use std::{fs, path::Path};

use ledger::{Digest, Ledger, Options, Record, Seq, open_blob, repair};
use loops::{
    Config,
    audit::audit,
    forget::Selector,
    orders::Done,
    records::{self, CHECKPOINT, CheckpointRecord, FORGET, TURN},
    recovery::{Recovered, recover},
};
use rl::PolicyVersion;

use crate::{
    history::{adapter, replayed, two_people},
    rig::{Rig, config, folder, open},
};

fn often() -> Config {
    let mut config = config();
    config.checkpoint.every = 6;
    config
}

/// The checkpoint that a start would begin at, with its blob.
fn newest(ledger: &Ledger) -> Option<(CheckpointRecord, Digest)> {
    let all = ledger
        .by_kind(CHECKPOINT, Seq::FIRST)
        .map(Result::unwrap)
        .filter(|record| !record.erased);
    let last: Record = all.last()?;
    let blob: Digest = last.subject.split('/').nth(1).unwrap().parse().unwrap();
    Some((records::decode(&last).unwrap(), blob))
}

/// What a start finds.
fn found(ledger: &Ledger) -> String {
    let Recovered {
        sessions,
        places,
        status,
        line,
        ..
    } = recover(ledger, &"main".into(), config().train.rules()).unwrap();
    let (schedule, head) = (line.schedule().place(), line.head());
    let (refs, gates) = (line.lineage().all().len(), line.gate(PolicyVersion::new(1)));
    format!(
        "{} {places:?} {status:?} {schedule:?} {head:?} {refs} {gates:?} {:?} {} {:?}",
        sessions.len(),
        line.forgotten(),
        line.waiting(),
        line.next_version()
    )
}

/// How many checkpoints were compared with their records, and how many differ.
fn agreement(ledger: &Ledger) -> (u64, u64) {
    let audit = audit(ledger, &"main".into()).unwrap();
    let check = audit.checks.iter().find(|check| check.id == "I4").unwrap();
    (check.checked, check.violated)
}

/// Takes a blob away, or damages it.
fn spoil(dir: &Path, blob: &Digest, spoil: impl Fn(&Path)) {
    let name = blob.to_string();
    spoil(&dir.join("blobs").join(&name[..2]).join(&name[2..]));
}

#[tokio::test]
async fn a_start_finds_the_same_with_a_checkpoint_and_without_and_with_a_damaged_one() {
    let dir = folder();
    let rig = Rig::start(dir.path(), often());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    rig.talk_as("eve", "open", &["hi", "hm", "well"]).await;
    rig.until(|s| s.judged == 10).await;
    rig.stop().await;

    let ledger = open(dir.path());
    let (record, blob) = newest(&ledger).unwrap();
    assert!(record.through > Seq::new(20), "{record:?}");
    assert_eq!(agreement(&ledger), (1, 0));
    let with = found(&ledger);
    for damage in [
        |path: &Path| fs::write(path, b"no blob at all").unwrap(),
        |path: &Path| fs::remove_file(path).unwrap(),
    ] {
        spoil(dir.path(), &blob, damage);
        assert_eq!(found(&ledger), with);
    }
    drop(ledger);

    // Whoever starts there goes on as if nothing had been; a conversation that was open is gone on with, and trained.
    let rig = Rig::start(dir.path(), often());
    rig.talk("t", &["hi", "great", "thank you"]).await;
    let status = rig.until(|s| s.live.get() >= 5).await;
    assert_eq!(status.turns.values().sum::<u64>(), 22);
    assert!(replayed(&rig.ledger).is_exact());
    rig.stop().await;
    assert_eq!(agreement(&open(dir.path())), (1, 0));
}

#[tokio::test]
async fn checkpoints_of_other_rules_or_of_another_chain_are_not_believed() {
    let dir = folder();
    let rig = Rig::start(dir.path(), often());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    rig.stop().await;
    let ledger = open(dir.path());
    let whole = found(&ledger);
    let mut rules = config().train.rules();
    rules.batch_size += 1;
    let other = recover(&ledger, &"main".into(), rules).unwrap();
    assert_eq!(other.places.to_judge, []);
    let (record, _) = newest(&ledger).unwrap();
    drop((other, ledger));

    // One record before the place is lost: everything behind it has another place and another hash.
    let lost = damage_first_turn(dir.path());
    let copy = folder();
    let report = repair(dir.path(), copy.path()).unwrap();
    assert!(report.lost_records >= 1 && lost > 0);
    let repaired = Ledger::open(copy.path(), Options::default()).unwrap();
    assert_eq!(newest(&repaired).unwrap().0, record);
    let turns = repaired.by_kind(TURN, Seq::FIRST).count() as u64;
    let after = recover(&repaired, &"main".into(), config().train.rules()).unwrap();
    assert_eq!(after.status.turns.values().sum::<u64>(), turns);
    assert_ne!(found(&repaired), whole);
    assert_eq!(agreement(&repaired), (0, 0));
}

/// Turns a byte of the first record's sealed body round; gives its place in the file.
fn damage_first_turn(dir: &Path) -> usize {
    let path = dir.join("log").join("00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"turn/").unwrap() + 200;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    at
}

#[tokio::test]
async fn forgetting_takes_every_checkpoint_away_and_the_next_one_knows_nothing_of_it() {
    let dir = folder();
    let rig = Rig::start(dir.path(), often());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    rig.stop().await;
    let rig = Rig::start(dir.path(), often());
    rig.until(|s| s.live.get() == 4).await;
    let (before, blob) = newest(&rig.ledger).unwrap();
    let names = |who: &str| -> Vec<String> {
        let turns = rig.records::<records::TurnRecord>(TURN).into_iter();
        let hers = turns.filter(|r| r.turn.user.as_deref() == Some(who));
        hers.map(|r| r.turn.id.to_string()).collect()
    };
    let anns = names("ann");
    let sealed = rig.ledger.get_blob(&blob).unwrap();
    let text = String::from_utf8(open_blob(&before.key, &sealed).unwrap()).unwrap();
    assert!(text.contains("\"ann\"") && anns.iter().any(|turn| text.contains(turn)));

    let selector = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    let control = rig.handle.control();
    let done = control.give(loops::orders::Order::Forget(selector), |_, _, _| {});
    assert!(matches!(done.await.unwrap(), Done::Forgotten(_)));
    let asked = rig.ledger.by_kind(FORGET, Seq::FIRST).next().unwrap();
    let asked = asked.unwrap().seq;
    assert!(!rig.ledger.has_blob(&blob));
    for record in rig.ledger.by_kind(CHECKPOINT, Seq::FIRST) {
        let record = record.unwrap();
        assert!(record.erased || record.seq > asked, "{record:?}");
    }

    rig.talk_as("bob", "later", &["hi", "thank you", "great", "nice"])
        .await;
    let weights = adapter(&rig.ledger);
    rig.stop().await;
    let ledger = open(dir.path());
    let (after, blob) = newest(&ledger).unwrap();
    assert!(after.through > asked);
    let sealed = ledger.get_blob(&blob).unwrap();
    let text = String::from_utf8(open_blob(&after.key, &sealed).unwrap()).unwrap();
    assert!(!text.contains("\"ann\"") && text.contains("\"bob\""));
    assert_eq!(agreement(&ledger), (1, 0));
    assert!(!weights.is_empty());
}
