//! The head moves while something else happens: a step in progress, a version that the gate holds, other settings.

use std::{collections::HashSet, ops::ControlFlow};

use ledger::{
    Seq,
    lineage::{Lineage, Origin},
};
use loops::{
    gate::GateConfig,
    guard::{GuardConfig, LiveGuard, Trip},
    orders::{Done, Order},
    records::{GATE, GateRecord, TURN, TurnRecord},
    replay,
    schedule::Schedule,
};
use rl::PolicyVersion;

use crate::{
    history::{counterfactual, line, replayed, two_people},
    rig::{Rig, World, bench, config, folder, no_gate},
};

const THANKS: [&str; 3] = ["hi", "thank you", "great"];

#[tokio::test]
async fn a_version_that_the_gate_cannot_examine_is_kept_and_never_answers() {
    let dir = folder();
    let mut config = config();
    config.gate = GateConfig::default();
    let rig = Rig::start(dir.path(), config.clone());
    rig.policy
        .mute
        .store(true, std::sync::atomic::Ordering::SeqCst);
    rig.talk("s", &THANKS).await;
    let held = |s: &loops::Status| s.not_trainable.contains_key(&rl::NotTrainable::Held);
    let status = rig.until(held).await;
    assert_eq!(status.live, PolicyVersion::BASE);
    let found: Vec<GateRecord> = rig.records(GATE);
    assert!(!found[0].passed);
    let why = found[0].examination["error"].as_str().unwrap();
    assert!(why.contains("mute"), "{why}");
    let lineage = Lineage::read(&rig.ledger).unwrap();
    assert!(lineage.live("main").is_none());
    // A person may serve it all the same.
    let control = rig.handle.control();
    let served = control.promote(PolicyVersion::new(1), "by hand").await;
    assert_eq!(served.unwrap().version, 2);
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_revert_in_the_middle_of_a_step_answers_at_once_and_the_step_is_taken_again_from_there() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &THANKS).await;
    rig.until(|s| s.live.get() == 1).await;
    rig.policy.step_door.shut();
    rig.talk("t", &THANKS).await;
    while rig.witness.lock().batches.len() < 2 {
        tokio::task::yield_now().await;
    }
    let control = rig.handle.control();
    control.revert(PolicyVersion::BASE, "now").await.unwrap();
    assert_eq!(rig.handle.status().live.get(), 2, "the step still runs");
    rig.policy.step_door.open();
    rig.until(|s| s.live.get() == 3).await;
    let lineage = Lineage::read(&rig.ledger).unwrap();
    assert_eq!(lineage.live("main").unwrap().steps(), 1, "from the base");
    assert!(replayed(&rig.ledger).is_exact());
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_due_and_not_trained_yet_is_no_difference_of_a_replay() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.policy.step_door.shut();
    rig.talk("s", &THANKS).await;
    rig.until(|s| s.judged == 2).await;
    let before = replayed(&rig.ledger);
    // Before anything can fail: a step behind a shut door would keep the test from ending.
    rig.policy.step_door.open();
    let last = before.steps.last().unwrap();
    assert!(before.is_exact() && last.pending, "{:?}", before.steps);
    rig.until(|s| s.live.get() == 1).await;
    let after = replayed(&rig.ledger);
    let pending = after.steps.iter().any(|step| step.pending);
    assert!(after.is_exact() && !pending, "{:?}", after.steps);
    rig.stop().await;
}

#[tokio::test]
async fn a_version_that_was_not_trained_from_what_the_ledger_says_is_a_difference() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &THANKS).await;
    rig.until(|s| s.live.get() == 1).await;
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let mut other = lineage.get("main", 1).unwrap().clone();
    rig.stop().await;
    // The same ledger, in which the version says that it had its samples the other way round.
    other.samples.reverse();
    let (elsewhere, from) = (
        folder(),
        ledger::Ledger::open(dir.path(), Default::default()),
    );
    let from = from.unwrap();
    let to = counterfactual(&from, elsewhere.path(), |_| true);
    for digest in [other.adapter_blob, other.optimizer_blob] {
        to.put_blob(&from.get_blob(&digest.unwrap()).unwrap())
            .unwrap();
    }
    to.append(other.to_entry().unwrap()).wait().unwrap();
    let replayed = replayed(&to);
    assert!(!replayed.is_exact(), "{:?}", replayed.steps);
}

#[tokio::test]
async fn a_trip_takes_back_what_was_made_from_its_version_meanwhile_and_nothing_else() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &THANKS).await;
    rig.until(|s| s.live.get() == 1).await;
    rig.talk("t", &THANKS).await;
    rig.until(|s| s.live.get() == 2).await;
    let trip = Trip {
        version: PolicyVersion::new(1),
        since: PolicyVersion::new(1),
        guard: "burst".into(),
        why: "a test".into(),
        bad_replies: 5,
        seen: 5,
    };
    let trip = || {
        rig.handle
            .control()
            .give(Order::Trip(trip.clone()), |_, _, _| {})
    };
    let Done::Version(back) = trip().await.unwrap() else {
        panic!("the second version was made from the first");
    };
    assert_eq!((back.version, back.steps()), (3, 0));
    assert_eq!(rig.handle.status().live.get(), 3);
    // What answers now has the first version among its ancestors, and nothing of its weights.
    assert!(matches!(trip().await.unwrap(), Done::Nothing));
    rig.stop().await;
}

#[tokio::test]
async fn a_trip_after_a_revert_goes_to_older_weights_and_not_to_what_was_gone_back_from() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    for (session, version) in [("s", 1), ("t", 2), ("u", 3)] {
        rig.talk(session, &THANKS).await;
        rig.until(|s| s.live.get() == version).await;
    }
    let control = rig.handle.control();
    control.revert(PolicyVersion::new(2), "bad").await.unwrap();
    let trip = Trip {
        version: PolicyVersion::new(4),
        since: PolicyVersion::new(4),
        guard: "burst".into(),
        why: "a test".into(),
        bad_replies: 5,
        seen: 5,
    };
    let back = control.give(Order::Trip(trip), |_, _, _| {}).await.unwrap();
    let Done::Version(back) = back else {
        panic!("the fourth version answered");
    };
    assert_eq!(back.origin, Origin::Reverted { to: 1 });
    rig.stop().await;
}

#[tokio::test]
async fn a_revert_has_the_optimizer_state_of_its_source() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &THANKS).await;
    rig.until(|s| s.live.get() == 1).await;
    let control = rig.handle.control();
    control.revert(PolicyVersion::BASE, "off").await.unwrap();
    let again = control.promote(PolicyVersion::new(1), "on").await.unwrap();
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let first = lineage.get("main", 1).unwrap();
    assert_eq!(again.optimizer_blob, first.optimizer_blob);
    assert!(again.optimizer_blob.is_some());
    rig.stop().await;
}

#[test]
fn a_word_about_a_turn_that_was_trained_trains_it_no_second_time() {
    let rules = config().train.rules();
    let mut schedule = Schedule::new(rules);
    let steps = |_: PolicyVersion| 0;
    let say = |schedule: &mut Schedule, at, turn: &str| {
        let sample = Some((
            format!("sample-{turn}").as_str().into(),
            PolicyVersion::BASE,
        ));
        schedule.judged(Seq::new(at), &turn.into(), sample);
        schedule.due(0, &steps)
    };
    assert_eq!(say(&mut schedule, 1, "a"), None);
    let due = say(&mut schedule, 2, "b").unwrap();
    schedule.done(due.samples.iter().map(|w| &w.sample));
    assert_eq!(say(&mut schedule, 3, "a"), None);
    assert_eq!(say(&mut schedule, 4, "b"), None);
}

#[tokio::test]
async fn a_replay_without_somebody_gives_the_weights_of_a_world_in_which_she_never_was() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    let turns: Vec<TurnRecord> = rig.records(TURN);
    let hers = turns.into_iter().map(|t| t.turn);
    let hers = hers.filter(|turn| turn.user.as_deref() == Some("ann"));
    let without: HashSet<rl::TurnId> = hers.map(|turn| turn.id).collect();
    let other = folder();
    let never = counterfactual(&rig.ledger, other.path(), |record| {
        !without.contains(&rl::TurnId::new(record.subject.clone()))
    });
    let options = replay::Options {
        without,
        gate: no_gate(),
        ..replay::Options::default()
    };
    let told = &|_: &str, _, _| ControlFlow::Continue(());
    let replayed = replay::replay(&line(&rig.ledger), &bench(), options, told).unwrap();
    assert_eq!(replayed.adapter.unwrap(), World::new(never).train_all());
    rig.stop().await;
}

#[test]
fn a_guard_counts_only_replies_of_the_version_that_it_watches() {
    let mut guard = LiveGuard::new(GuardConfig::default(), PolicyVersion::new(7));
    let turn = broken_turn();
    assert_ne!(turn.version, guard.version());
    for _ in 0..100 {
        assert_eq!(guard.served(&turn), None);
    }
    guard.promoted(turn.version);
    let trips = (0..100).filter_map(|_| guard.served(&turn)).count();
    assert_eq!(trips, 1);
}

/// One token again and again.
fn broken_turn() -> rl::Turn {
    let reply = rl::Message::assistant("x".repeat(64));
    let served = crate::rig::served(reply, &crate::rig::Arithmetic::default());
    rl::Turn {
        id: "t".into(),
        tenant: "tenant".into(),
        session: "s".into(),
        user: None,
        parent: None,
        kind: rl::TurnKind::Main,
        adapter: Some("main".into()),
        version: served.version,
        adapter_digest: served.adapter_digest,
        messages: vec![rl::Message::user("hi")],
        tools: Vec::new(),
        prompt: served.prompt,
        response: served.response,
        logprobs: served.logprobs,
        sampling: served.sampling,
        reply: served.reply,
        finish: served.finish,
    }
}
