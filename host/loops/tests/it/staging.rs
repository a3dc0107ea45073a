//! Staged promotion: a version answers a share of the sessions first, and everybody or nobody afterwards.

use ledger::lineage::{HEAD, HeadRecord};
use loops::{
    Config, Status,
    forget::Selector,
    guard::StageConfig,
    records::{TRIAL, TrialRecord},
};
use rl::PolicyVersion;

use crate::{
    history::{adapter, counterfactual, line, replayed},
    rig::{Rig, World, config, folder},
};

const THANKS: [&str; 3] = ["hi", "thank you", "great"];

/// Half of the sessions, until the candidate has given four replies.
fn staged() -> Config {
    let stage = StageConfig {
        share: Some(0.5),
        turns: 4,
    };
    Config { stage, ..config() }
}

fn tries(version: u64) -> impl Fn(&Status) -> bool {
    move |s| {
        s.trial
            .is_some_and(|(on_trial, _)| on_trial.get() == version)
    }
}

/// Sound replies of both sides, so many of each.
async fn both(rig: &Rig, live: u64, candidate: u64, count: usize) {
    for at in 0..count {
        for version in [live, candidate] {
            let session = format!("both-{live}-{candidate}-{at}-{version}-{count}");
            rig.say_by(version, &session, "a sound reply").await;
        }
    }
}

fn sound(rig: &Rig) {
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    assert!(replayed(&rig.ledger).is_exact());
}

#[tokio::test]
async fn a_version_on_trial_answers_its_share_and_nothing_is_trained_until_it_is_promoted() {
    let dir = folder();
    let rig = Rig::start(dir.path(), staged());
    rig.talk("s", &THANKS).await;
    let status = rig.until(tries(1)).await;
    assert_eq!((status.live.get(), status.version.get()), (0, 0));
    assert_eq!(*rig.policy.trial.lock(), Some((1, 0.5)));
    rig.talk("t", &THANKS).await;
    let waits = |s: &Status| s.queues["train"].depth == 2;
    rig.until(waits).await;
    both(&rig, 0, 1, 3).await;
    assert_eq!(line(&rig.ledger).next_version().get(), 2, "a batch waits");
    both(&rig, 0, 1, 1).await;
    let status = rig.until(tries(2)).await;
    assert_eq!((status.live.get(), status.version.get()), (1, 1));
    let heads: Vec<HeadRecord> = rig.records(HEAD);
    let of = |head: &HeadRecord| (head.version, head.share);
    assert_eq!(
        heads.iter().map(of).collect::<Vec<_>>(),
        [(1, Some(0.5)), (1, None), (2, Some(0.5))]
    );
    assert!(heads[1].why.contains("promoted"), "{}", heads[1].why);
    let ended: Vec<TrialRecord> = rig.records(TRIAL);
    assert!(ended[0].ended.promoted);
    assert_eq!(ended[0].ended.candidate.replies, 4);
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn a_version_that_is_worse_in_its_trial_answers_nobody_and_the_next_one_starts_before_it() {
    let dir = folder();
    let rig = Rig::start(dir.path(), staged());
    rig.talk("s", &THANKS).await;
    rig.until(tries(1)).await;
    for at in 0..5 {
        rig.say_by(1, &format!("bad-{at}"), &"x".repeat(64)).await;
    }
    let status = rig.until(|s| s.trial.is_none()).await;
    assert_eq!((status.live.get(), status.version.get()), (0, 0));
    assert_eq!(*rig.policy.trial.lock(), None);
    let heads: Vec<HeadRecord> = rig.records(HEAD);
    assert_eq!((heads[1].version, heads[1].share), (0, None));
    assert!(heads[1].why.contains("burst"), "{}", heads[1].why);
    rig.talk("t", &THANKS).await;
    rig.until(tries(2)).await;
    let line = line(&rig.ledger);
    let second = line.lineage().get("main", 2).unwrap();
    assert_eq!((second.parent, second.steps()), (None, 1));
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn a_trial_goes_on_where_it_was_after_a_kill() {
    let dir = folder();
    let rig = Rig::start(dir.path(), staged());
    rig.talk("s", &THANKS).await;
    rig.until(tries(1)).await;
    both(&rig, 0, 1, 2).await;
    rig.kill().await;
    let rig = Rig::start(dir.path(), staged());
    rig.until(tries(1)).await;
    assert_eq!(*rig.policy.trial.lock(), Some((1, 0.5)));
    both(&rig, 0, 1, 1).await;
    assert!(rig.handle.status().trial.is_some(), "three of four");
    rig.say_by(1, "the last", "a sound reply").await;
    let status = rig.until(|s| s.live.get() == 1).await;
    assert_eq!((status.trial, status.version.get()), (None, 1));
    let ended: Vec<TrialRecord> = rig.records(TRIAL);
    let shown = &ended[0].ended;
    assert_eq!((shown.candidate.replies, shown.live.replies), (4, 3));
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn whoever_moves_the_head_ends_the_trial() {
    let dir = folder();
    let rig = Rig::start(dir.path(), staged());
    rig.talk("s", &THANKS).await;
    rig.until(tries(1)).await;
    let control = rig.handle.control();
    let by_hand = control.promote(PolicyVersion::new(1), "by hand").await;
    assert_eq!(by_hand.unwrap().version, 2);
    let status = rig.until(|s| s.live.get() == 2).await;
    assert_eq!(status.trial, None);
    both(&rig, 0, 1, 6).await;
    assert!(rig.records::<TrialRecord>(TRIAL).is_empty());
    rig.talk("t", &THANKS).await;
    rig.until(tries(3)).await;
    control.revert(PolicyVersion::BASE, "off").await.unwrap();
    assert_eq!(rig.until(|s| s.live.get() == 4).await.trial, None);
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn forgetting_ends_the_trial_of_weights_that_knew_and_no_other() {
    let dir = folder();
    let rig = Rig::start(dir.path(), staged());
    rig.talk_as("bob", "b", &THANKS).await;
    rig.until(tries(1)).await;
    rig.talk_as("ann", "a", &THANKS).await;
    rig.until(|s| s.queues["train"].depth == 2).await;
    let control = rig.handle.control();
    let forget = |user: &str| {
        let user = user.to_owned();
        control.forget(Selector::User { tenant: None, user }, |_, _, _| {})
    };
    forget("ann").await.unwrap();
    assert!(tries(1)(&rig.handle.status()), "it knew nothing of her");
    assert_eq!(*rig.policy.trial.lock(), Some((1, 0.5)));
    both(&rig, 0, 1, 4).await;
    rig.until(|s| s.live.get() == 1).await;
    rig.talk_as("cid", "c", &THANKS).await;
    rig.until(tries(2)).await;
    let forgotten = forget("cid").await.unwrap();
    assert_eq!(forgotten.record.erased, [PolicyVersion::new(2)]);
    assert_eq!(rig.handle.status().trial, None);
    assert_eq!(*rig.policy.trial.lock(), None);
    sound(&rig);
    let other = folder();
    let gone = line(&rig.ledger).forgotten().to_vec();
    let never = counterfactual(&rig.ledger, other.path(), |record| {
        !gone.iter().any(|turn| turn.as_str() == record.subject)
    });
    assert_eq!(adapter(&rig.ledger), World::new(never).train_all());
    rig.stop().await;
}
