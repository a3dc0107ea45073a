//! Reverting, promoting, replaying and forgetting.

use std::{
    collections::HashSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ledger::{Ledger, Options, Record, Seq, lineage::Lineage, verify};
use loops::{
    Line,
    bench::{Bench, MakeBench},
    forget::{self, Selector},
    records::{FORGOTTEN, JUDGED, JudgedRecord, RUN, TURN, TurnRecord},
    replay::{self, Replayed},
    status::LoopState,
};
use rl::{Batch, Learner, PolicyVersion, Proposal};

use crate::rig::{Rig, bench, config, folder, no_gate, open};

const NONE: &(dyn Fn(&str, u64, u64) + Send + Sync) = &|_, _, _| {};

pub(crate) fn line(ledger: &Ledger) -> Line {
    Line::read(ledger.clone(), "main".into(), config().train.rules()).unwrap()
}

pub(crate) fn replayed(ledger: &Ledger) -> Replayed {
    let options = replay::Options {
        gate: no_gate(),
        ..replay::Options::default()
    };
    let told = &|_: &str, _, _| ControlFlow::Continue(());
    replay::replay(&line(ledger), &bench(), options, told).unwrap()
}

pub(crate) fn adapter(ledger: &Ledger) -> Vec<u8> {
    let lineage = Lineage::read(ledger).unwrap();
    let live = lineage.live("main").unwrap();
    ledger.get_blob(&live.adapter_blob.unwrap()).unwrap()
}

/// Two people talk in turns; both are pleased every time.
pub(crate) async fn two_people(rig: &Rig) {
    for round in 0..4 {
        for person in ["ann", "bob"] {
            let session = format!("{person}-{round}");
            rig.talk_as(person, &session, &["hi", "thank you"]).await;
        }
        let judged = 2 * (round + 1);
        rig.until(|s| s.judged == judged).await;
    }
}

/// A ledger in which only records that `keep` accepts ever were.
pub(crate) fn counterfactual(
    from: &Ledger,
    to: &std::path::Path,
    keep: impl Fn(&Record) -> bool,
) -> Ledger {
    let ledger = Ledger::open(to, Options::default()).unwrap();
    for record in from.scan(Seq::FIRST).map(Result::unwrap) {
        if [TURN, JUDGED, RUN].contains(&&*record.kind) && keep(&record) {
            let mut entry = ledger::Entry::new(record.kind, record.subject, record.body);
            entry.key = record.key;
            ledger.append(entry).wait().unwrap();
        }
    }
    ledger
}

/// Large weights: a learner's, and as many bytes more as are padded with.
struct Padded(Box<dyn Learner>);

const PAD: usize = 4 << 20;

impl Learner for Padded {
    fn version(&self) -> PolicyVersion {
        self.0.version()
    }

    fn step(&mut self, batch: &Batch) -> rl::Result<Proposal> {
        let mut proposal = self.0.step(batch)?;
        for bytes in [&mut proposal.adapter, &mut proposal.optimizer] {
            bytes.resize(bytes.len() + PAD, 1);
        }
        Ok(proposal)
    }

    fn no_room_for(&self, sample: &rl::Sample) -> Option<String> {
        self.0.no_room_for(sample)
    }

    fn stage(&mut self) -> rl::Result<()> {
        self.0.stage()
    }

    fn unstage(&mut self) {
        self.0.unstage();
    }

    fn deploy(&mut self, version: PolicyVersion) -> rl::Result<()> {
        self.0.deploy(version)
    }

    fn reset(&mut self, version: PolicyVersion) -> rl::Result<()> {
        self.0.reset(version)
    }

    fn restore(
        &mut self,
        version: PolicyVersion,
        adapter: &[u8],
        optimizer: &[u8],
    ) -> rl::Result<()> {
        let whole = |bytes: &[u8]| bytes.len().checked_sub(PAD).unwrap();
        self.0.restore(
            version,
            &adapter[..whole(adapter)],
            &optimizer[..whole(optimizer)],
        )
    }
}

/// Bytes of memory that this process holds.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_long_replay_of_other_weights_holds_none_of_them_in_memory_and_goes_back_to_any() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let step = async |live: u64| {
        let session = format!("s{live}");
        rig.talk(&session, &["hi", "thank you", "great"]).await;
        rig.until(|s| s.live.get() == live).await;
    };
    for live in 1..=20 {
        step(live).await;
    }
    let control = rig.handle.control();
    control
        .revert(PolicyVersion::new(2), "worse")
        .await
        .unwrap();
    rig.until(|s| s.live.get() == 21).await;
    for live in 22..=41 {
        step(live).await;
    }

    let plain = bench();
    let padded: MakeBench = Arc::new(move |run| {
        let bench = plain(run)?;
        Ok(Bench {
            learner: Box::new(Padded(bench.learner)),
            ..bench
        })
    });
    let (before, most) = (resident(), AtomicUsize::new(0));
    let told = |_: &str, _, _| {
        most.fetch_max(resident(), Relaxed);
        ControlFlow::Continue(())
    };
    let options = replay::Options {
        gate: no_gate(),
        ..replay::Options::default()
    };
    let replayed = replay::replay(&line(&rig.ledger), &padded, options, &told).unwrap();
    assert_eq!(replayed.steps.len(), 40);
    // The same steps from the same weights, as far as that goes.
    let padded = replayed.adapter.unwrap();
    assert_eq!(padded[..padded.len() - PAD], adapter(&rig.ledger));
    let grown = most.into_inner() - before;
    assert!(grown < 80 * PAD / 3, "{} MiB", grown >> 20);
    rig.stop().await;
}

#[tokio::test]
async fn a_replay_that_nobody_waits_for_ends_after_the_step_that_it_is_at() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi", "thank you", "great", "nice", "perfect"])
        .await;
    rig.until(|s| s.live.get() == 2).await;
    let steps = AtomicUsize::new(0);
    let told = |_: &str, _, _| match steps.fetch_add(1, Relaxed) {
        0 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let options = replay::Options {
        gate: no_gate(),
        ..replay::Options::default()
    };
    let broken = replay::replay(&line(&rig.ledger), &bench(), options, &told);
    assert!(matches!(broken, Err(loops::Error::Unawaited)), "{broken:?}");
    assert_eq!(steps.into_inner(), 1);
    assert_eq!(replayed(&rig.ledger).steps.len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_revert_brings_back_weights_and_optimizer_bit_for_bit_and_is_live_at_once() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi", "thank you", "great", "nice", "perfect"])
        .await;
    rig.until(|s| s.live.get() == 2).await;
    let version = rig
        .handle
        .control()
        .revert(PolicyVersion::new(1), "worse")
        .await
        .unwrap();
    assert_eq!(version.version, 3);
    let status = rig.until(|s| s.live.get() == 3).await;
    assert_eq!(status.version.get(), 3);
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let (first, live) = (
        lineage.get("main", 1).unwrap(),
        lineage.live("main").unwrap(),
    );
    assert_eq!(
        (live.adapter_blob, live.optimizer_blob),
        (first.adapter_blob, first.optimizer_blob)
    );
    assert_eq!(
        lineage.ancestors(live).count(),
        3,
        "what was reverted stays in the history"
    );
    // Training goes on from the old weights, and trains nothing of the reverted version again.
    rig.talk("t", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 4).await;
    let batches = rig.witness.lock().batches.clone();
    let all: Vec<&String> = batches.iter().flatten().collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert!(replayed(&rig.ledger).is_exact());
    let before = adapter(&rig.ledger);
    rig.stop().await;
    let rig = Rig::start(dir.path(), config());
    assert_eq!(adapter(&rig.ledger), before);
    rig.stop().await;
}

#[tokio::test]
async fn a_revert_to_the_base_and_a_promotion_of_what_was_reverted() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 1).await;
    let control = rig.handle.control();
    let base = control.revert(PolicyVersion::BASE, "off").await.unwrap();
    assert_eq!((base.version, base.adapter_blob), (2, None));
    let again = control.promote(PolicyVersion::new(1), "on").await.unwrap();
    assert_eq!(again.version, 3);
    let lineage = Lineage::read(&rig.ledger).unwrap();
    assert_eq!(
        again.adapter_blob,
        lineage.get("main", 1).unwrap().adapter_blob
    );
    let missing = control
        .revert(PolicyVersion::new(9), "?")
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("v9"), "{missing}");
    rig.stop().await;
}

#[tokio::test]
async fn a_live_guard_takes_a_broken_version_back_at_once_and_says_why() {
    let dir = folder();
    let mut config = config();
    config.guard.enabled = true;
    let rig = Rig::start(dir.path(), config);
    rig.talk("s", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 1).await;
    // Version 1 answers nothing but one token again and again.
    for n in 0..20 {
        if rig.handle.status().live.get() != 1 {
            break;
        }
        rig.say_broken(&format!("b{n}")).await;
    }
    let status = rig.until(|s| s.live.get() == 2).await;
    assert_eq!(status.trips, 1);
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let head = lineage.heads().last().unwrap();
    assert!(head.why.starts_with("trip: burst"), "{}", head.why);
    assert_eq!(lineage.live("main").unwrap().steps(), 0, "the base answers");
    rig.stop().await;
}

#[tokio::test]
async fn versions_that_follow_each_other_fast_inherit_what_speaks_against_them() {
    let dir = folder();
    let mut config = config();
    config.guard.enabled = true;
    let rig = Rig::start(dir.path(), config);
    rig.talk("s", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 1).await;
    // No version lives long enough for five broken replies in a row.
    for n in 0..5_u64 {
        let turn = rig.say_broken(&format!("b{n}")).await;
        let feedback = rl::Feedback {
            turn,
            tenant: "tenant".into(),
            rating: Some(rl::Rating::Down),
            correction: None,
        };
        rig.sink().feedback(feedback).await.unwrap();
        let next = 1 + n.div_ceil(2);
        if n % 2 == 1 {
            rig.until(|s| s.live.get() == next).await;
        }
    }
    let status = rig.until(|s| s.live.get() == 4).await;
    assert_eq!(status.trips, 1);
    let lineage = Lineage::read(&rig.ledger).unwrap();
    let head = lineage.heads().last().unwrap();
    assert!(head.why.starts_with("trip: burst"), "{}", head.why);
    assert_eq!(
        lineage.live("main").unwrap().steps(),
        0,
        "all three versions are under suspicion, and the base is not"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_replay_gives_every_version_again() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    let replayed = replayed(&rig.ledger);
    assert_eq!(replayed.steps.len(), 4);
    assert!(replayed.is_exact(), "{:?}", replayed.steps);
    assert_eq!(replayed.adapter.unwrap(), adapter(&rig.ledger));
    rig.stop().await;
}

#[tokio::test]
async fn the_adapter_after_forgetting_is_the_one_of_a_ledger_in_which_the_user_never_was() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    let anns: HashSet<String> = rig
        .records::<TurnRecord>(TURN)
        .iter()
        .filter(|t| t.turn.user.as_deref() == Some("ann"))
        .map(|t| t.turn.id.to_string())
        .collect();
    let other = folder();
    let never = counterfactual(&rig.ledger, other.path(), |r| !anns.contains(&r.subject));
    let selector = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    let plan = forget::plan(&line(&rig.ledger), &selector).unwrap();
    assert_eq!((plan.turns.len(), plan.trained, plan.steps), (8, 4, 4));
    let old: Vec<_> = Lineage::read(&rig.ledger).unwrap().all().to_vec();
    let forgotten = rig
        .handle
        .control()
        .forget(selector.clone(), |_, _, _| {})
        .await
        .unwrap();
    assert_eq!(forgotten.record.erased.len(), 4);
    assert_eq!(forgotten.record.computed, 2);

    // The same fold, on a ledger that never saw her.
    let mut training = line(&never);
    training.pull().unwrap();
    let mut world = crate::rig::World::new(never.clone());
    let expected = world.train_all();
    assert_eq!(adapter(&rig.ledger), expected);
    assert!(replayed(&rig.ledger).is_exact());

    // Nothing of hers can be read, and no weights that knew her are left.
    for record in rig.ledger.scan(Seq::FIRST).map(Result::unwrap) {
        assert_eq!(
            record.erased,
            anns.contains(&record.subject) && record.kind != "spent",
            "{} {}",
            record.kind,
            record.subject
        );
    }
    for version in &old {
        assert!(!rig.ledger.has_blob(&version.adapter_blob.unwrap()));
    }
    let again = forget::plan(&line(&rig.ledger), &selector).unwrap_err();
    assert!(again.to_string().contains("nothing"), "{again}");
    let feedback = rl::Feedback {
        tenant: "tenant".into(),
        turn: anns.iter().next().unwrap().as_str().into(),
        rating: Some(rl::Rating::Up),
        correction: None,
    };
    let unknown = rig.sink().feedback(feedback).await.unwrap_err();
    assert!(matches!(unknown, rl::Error::Refused { .. }), "{unknown}");
    // She comes back; training goes on.
    rig.talk_as("ann", "ann-again", &["hi", "thank you", "great"])
        .await;
    let next = forgotten.record.after.get();
    rig.until(|s| s.live.get() > next).await;
    assert!(replayed(&rig.ledger).is_exact());
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    rig.stop().await;
    // The bytes are as they were written, but for the weights that were erased: two of each version that knew her.
    let report = verify(dir.path()).unwrap();
    let gone = |damage: &&ledger::Damage| matches!(damage.error, ledger::Error::NoBlob { .. });
    assert_eq!(
        report.damage.iter().filter(gone).count(),
        report.damage.len()
    );
}

#[tokio::test]
async fn a_batch_that_other_rules_make_due_is_replayed_where_it_was() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk_as("ann", "a", &["hi", "thank you"]).await;
    rig.talk_as("bob", "b", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 1 && s.judged == 3).await;
    rig.stop().await;
    // One sample has been read, and waits; with smaller batches it is one, without anybody's saying another word.
    let ledger = open(dir.path());
    let mut begun = line(&ledger);
    begun.pull().unwrap();
    assert_eq!((begun.due(), begun.waiting()), (None, 1));
    begun.revert(PolicyVersion::new(1), "again").unwrap();
    drop((begun, ledger));
    let mut smaller = config();
    smaller.train.batch_size = 1;
    let rig = Rig::start(dir.path(), smaller.clone());
    rig.until(|s| s.live.get() == 3).await;
    let again = replayed(&rig.ledger);
    assert_eq!((again.steps.len(), again.is_exact()), (2, true));
    assert_eq!(again.adapter, Some(adapter(&rig.ledger)));
    // Also on the line without her, and when the batches grow again before the next turn.
    let ann = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    let control = rig.handle.control();
    let done = control.forget(ann, |_, _, _| {}).await.unwrap();
    assert_ne!(done.record.after, done.record.before);
    let head = adapter(&rig.ledger);
    rig.stop().await;
    let rig = Rig::start(dir.path(), config());
    let again = replayed(&rig.ledger);
    assert!(again.is_exact(), "{again:?}");
    assert_eq!(again.adapter, Some(head));
    rig.stop().await;
}

#[tokio::test]
async fn a_kill_while_forgetting_is_finished_at_the_next_start() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    rig.stop().await;
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    let mut begun = line(&ledger);
    let selector = Selector::User {
        tenant: None,
        user: "bob".to_owned(),
    };
    // A ledger that was upgraded holds text that no key seals: it must not say that it was erased.
    let old = dir.path().join("ledger.db.v1");
    std::fs::write(&old, b"").unwrap();
    let refused = forget::begin(&mut begun, &selector).unwrap_err();
    assert!(refused.to_string().contains("unsealed"), "{refused}");
    std::fs::remove_file(old).unwrap();
    forget::begin(&mut begun, &selector).unwrap();
    assert!(forget::begin(&mut begun, &selector).is_err());
    drop((begun, ledger));
    let rig = Rig::start(dir.path(), config());
    rig.until(|s| s.live.get() > 4).await;
    let done: Vec<loops::records::ForgottenRecord> = rig.records(FORGOTTEN);
    assert_eq!(done.len(), 1);
    assert!(replayed(&rig.ledger).is_exact());
    rig.stop().await;
}

#[tokio::test]
async fn while_forgetting_waits_for_another_request_orders_are_obeyed_and_the_host_stops() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    let busy = rig.turn.clone().lock_owned().await;
    let control = rig.handle.control().clone();
    let selector = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    let asked = tokio::spawn(async move { control.forget(selector, |_, _, _| {}).await });
    let waits = |s: &loops::Status| s.training_waits.is_some();
    let status = rig.until(waits).await;
    assert!(status.training_waits.unwrap().contains("request computes"));
    // Nobody can read what she said by then.
    let erased = rig.ledger.scan(Seq::FIRST).map(Result::unwrap);
    assert!(erased.filter(|record| record.erased).count() > 0);
    let control = rig.handle.control();
    let back = control.revert(PolicyVersion::new(2), "broken").await;
    assert_eq!(back.unwrap().version, 5);
    assert_eq!(rig.handle.status().live.get(), 5);
    rig.stop().await;
    assert!(asked.await.unwrap().is_err(), "the host stops first");
    drop(busy);

    // The next start finishes it, with the revert.
    let rig = Rig::start(dir.path(), config());
    let moved = |s: &loops::Status| s.live.get() > 5;
    rig.until(moved).await;
    let lineage = Lineage::read(&rig.ledger).unwrap();
    for old in lineage.all().iter().filter(|v| v.version <= 5) {
        assert!(!rig.ledger.has_blob(&old.adapter_blob.unwrap()));
    }
    let again = replayed(&rig.ledger);
    assert_eq!(again.adapter, Some(adapter(&rig.ledger)));
    rig.stop().await;
}

#[tokio::test]
async fn a_judge_that_comes_to_forgotten_turns_passes_them_over() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let policy = rig.policy.clone();
    policy.door.shut();
    rig.talk_as("bob", "b", &["hi", "thank you"]).await;
    let hers = rig.talk_as("ann", "a", &["hi", "thank you"]).await;
    let feedback = rl::Feedback {
        tenant: "tenant".into(),
        turn: hers[0].clone(),
        rating: Some(rl::Rating::Up),
        correction: None,
    };
    rig.sink().feedback(feedback).await.unwrap();
    rig.talk_as("bob", "c", &["hi", "great"]).await;
    rig.kill().await;
    policy.door.open();
    // Nobody has been judged when she is forgotten.
    let ledger = open(dir.path());
    let mut line = line(&ledger);
    let selector = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    forget::begin(&mut line, &selector).unwrap();
    forget::finish(&mut line, &bench(), &no_gate(), NONE).unwrap();
    drop((line, ledger));
    let rig = Rig::start(dir.path(), config());
    let status = rig.until(|s| s.live.get() == 1).await;
    assert_eq!(
        (status.judged, status.loops["judge"].clone()),
        (2, LoopState::Running)
    );
    rig.stop().await;
}

#[tokio::test]
async fn forgetting_a_sample_takes_the_later_turns_that_quote_it() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig
        .talk("s", &["hi", "thank you", "great", "nice", "perfect"])
        .await;
    rig.until(|s| s.live.get() == 2).await;
    let selector = Selector::Sample(format!("sample-{}", turns[2]).as_str().into());
    let plan = forget::plan(&line(&rig.ledger), &selector).unwrap();
    assert_eq!(plan.turns, turns[2..]);
    assert_eq!(plan.versions, [PolicyVersion::new(2)]);
    let forgotten = rig
        .handle
        .control()
        .forget(selector, |_, _, _| {})
        .await
        .unwrap();
    assert_eq!(
        (forgotten.record.computed, forgotten.record.after.get()),
        (0, 1)
    );
    assert_eq!(rig.until(|s| s.live.get() == 1).await.live.get(), 1);
    let judged: Vec<JudgedRecord> = rig
        .ledger
        .by_kind(JUDGED, Seq::FIRST)
        .map(Result::unwrap)
        .filter(|r| !r.erased)
        .map(|r| loops::records::decode(&r).unwrap())
        .collect();
    assert_eq!(judged.len(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn forgetting_a_sample_takes_what_quotes_it_when_the_conversation_went_on_after_something_of_it_was_forgotten()
 {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig.talk("s", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.judged == 2).await;
    let control = rig.handle.control();
    let sample = |turn: &rl::TurnId| Selector::Sample(format!("sample-{turn}").as_str().into());
    control
        .forget(sample(&turns[2]), |_, _, _| {})
        .await
        .unwrap();
    // The client shows the whole conversation again; another one begins with the same words.
    let again = rig.talk("s", &["hi", "thank you", "great", "nice"]).await;
    let other = rig.talk("t", &["hi", "thank you"]).await;
    let plan = forget::plan(&line(&rig.ledger), &sample(&turns[1])).unwrap();
    let quoting = [&turns[1], &again[2], &again[3]];
    assert!(
        quoting.iter().all(|turn| plan.turns.contains(turn)),
        "{plan:?}"
    );
    assert!(
        other.iter().all(|turn| !plan.turns.contains(turn)),
        "{plan:?}"
    );
    rig.stop().await;
}

async fn forget_ann(rig: &Rig) -> u64 {
    let selector = Selector::User {
        tenant: None,
        user: "ann".to_owned(),
    };
    let forgotten = rig.handle.control().forget(selector, |_, _, _| {}).await;
    forgotten.unwrap().record.after.get()
}

#[tokio::test]
async fn a_revert_right_after_forgetting_comes_after_the_steps_that_were_taken_again() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    for (judged, (user, session)) in [("ann", "a"), ("bob", "b"), ("bob", "c")]
        .into_iter()
        .enumerate()
    {
        rig.talk_as(user, session, &["hi", "thank you"]).await;
        rig.until(|s| s.judged == judged as u64 + 1).await;
    }
    rig.until(|s| s.live.get() == 1).await;
    // Without her the batch is over one sample later: at a place where none was over before.
    assert_eq!(forget_ann(&rig).await, 2);
    let control = rig.handle.control();
    control.revert(PolicyVersion::BASE, "off").await.unwrap();
    assert_eq!(replayed(&rig.ledger).adapter, None, "the base answers");
    rig.stop().await;
}

#[tokio::test]
async fn the_base_model_that_forgetting_led_to_stays_the_base_model_in_a_replay() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let control = rig.handle.control();
    let lines = ["hi", "thank you", "great"];
    rig.talk_as("bob", "b", &lines).await;
    rig.until(|s| s.live.get() == 1).await;
    control.revert(PolicyVersion::BASE, "off").await.unwrap();
    rig.talk_as("ann", "a", &lines).await;
    rig.until(|s| s.live.get() == 3).await;
    let base = forget_ann(&rig).await;
    assert_eq!(base, 4);
    rig.talk_as("cat", "c", &lines).await;
    rig.until(|s| s.live.get() == 5).await;
    control
        .revert(PolicyVersion::new(base), "off")
        .await
        .unwrap();
    assert_eq!(replayed(&rig.ledger).adapter, None, "the base answers");
    rig.stop().await;
}

#[tokio::test]
async fn a_sample_of_a_step_that_forgetting_took_back_is_trained_again_and_the_audit_says_nothing()
{
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    for (judged, user) in ["ann", "bob"].into_iter().enumerate() {
        rig.talk_as(user, user, &["hi", "thank you"]).await;
        rig.until(|s| s.judged == judged as u64 + 1).await;
    }
    rig.until(|s| s.live.get() == 1).await;
    let control = rig.handle.control();
    control.revert(PolicyVersion::BASE, "off").await.unwrap();
    // The base answers already: no head moves, and what comes next has the step of both of them behind it.
    assert_eq!(forget_ann(&rig).await, 2);
    rig.talk_as("cat", "cat", &["hi", "thank you"]).await;
    rig.until(|s| s.live.get() == 3).await;
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    rig.stop().await;
}

#[tokio::test]
async fn whoever_goes_back_to_a_version_after_forgetting_gets_its_weights_also_in_a_replay() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let thanks = ["hi", "thank you"];
    rig.talk_as("ann", "ann", &thanks).await;
    rig.until(|s| s.judged == 1).await;
    rig.talk_as("bob", "bob-0", &thanks).await;
    rig.until(|s| s.live.get() == 1).await;
    let control = rig.handle.control();
    control.revert(PolicyVersion::BASE, "off").await.unwrap();
    rig.talk_as("bob", "bob-1", &thanks).await;
    rig.until(|s| s.judged == 3).await;
    rig.talk_as("bob", "bob-2", &thanks).await;
    rig.until(|s| s.live.get() == 3).await;
    let third = adapter(&rig.ledger);
    let user = "ann".to_owned();
    let ann = Selector::User { tenant: None, user };
    let forgotten = control.forget(ann, |_, _, _| {}).await.unwrap();
    // Without her the batches are others: the third version knew nothing of her, and is on the new line no more.
    assert_eq!(forgotten.record.line, [PolicyVersion::new(4)]);
    let back = control.revert(PolicyVersion::new(3), "as it was").await;
    assert_eq!(back.unwrap().version, 5);
    assert_eq!(adapter(&rig.ledger), third);
    let again = replayed(&rig.ledger);
    assert!(again.is_exact());
    assert_eq!(again.adapter.unwrap(), third);
    // What it has learned already is not trained again on top of it.
    rig.talk_as("bob", "bob-3", &thanks).await;
    rig.until(|s| s.judged == 5).await;
    rig.talk_as("bob", "bob-4", &thanks).await;
    rig.until(|s| s.live.get() == 6).await;
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    assert!(replayed(&rig.ledger).is_exact());
    rig.stop().await;
}

/// The learner kept the weights that knew, and each of its next steps was refused as one from another version: samples were lost.
#[tokio::test]
async fn a_learner_that_could_not_be_restored_after_forgetting_is_restored_before_its_next_step() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    two_people(&rig).await;
    rig.until(|s| s.live.get() == 4).await;
    rig.witness.lock().fail_restore = true;
    let user = "ann".to_owned();
    let ann = Selector::User { tenant: None, user };
    rig.handle
        .control()
        .forget(ann, |_, _, _| {})
        .await
        .unwrap();
    for session in ["bob-8", "bob-9"] {
        rig.talk_as("bob", session, &["hi", "thank you"]).await;
    }
    let before = line(&rig.ledger).version();
    let status = rig.until(|s| s.live > before).await;
    assert_eq!(status.steps_refused, 0);
    assert!(replayed(&rig.ledger).is_exact());
    rig.stop().await;
}
