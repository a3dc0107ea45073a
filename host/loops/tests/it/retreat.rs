//! The gate holds a version: what it was made from answers on, unless it was on the way there.

use std::sync::atomic::Ordering;

use ledger::lineage::{HEAD, HeadRecord, Lineage, VersionRecord};
use loops::{Config, Status, forget::Selector, gate::GateConfig};
use rl::{NotTrainable, PolicyVersion};

use crate::{
    history::replayed,
    rig::{Rig, config, folder},
};

const THANKS: [&str; 3] = ["hi", "thank you", "great"];

/// Versions are far apart from one nat a reply on.
const NATS: f64 = 1.0;

fn gated(retreat: f64) -> Config {
    let gate = GateConfig {
        retreat,
        ..GateConfig::default()
    };
    Config { gate, ..config() }
}

/// A version that is far from the one before it, or near, and breaks at so many of eight canaries: two are allowed.
async fn train(rig: &Rig, (far, broken): (bool, usize), done: impl Fn(&Status) -> bool + Send) {
    rig.policy.far.store(far, Ordering::SeqCst);
    rig.policy.broken.store(broken, Ordering::SeqCst);
    let session = format!("after {}", rig.ledger.durable().get());
    rig.talk(&session, &THANKS).await;
    rig.until(done).await;
}

fn answers(version: u64) -> impl Fn(&Status) -> bool {
    move |status| status.live.get() == version
}

/// Samples of one version are two.
fn held(status: &Status) -> bool {
    status.not_trainable.get(&NotTrainable::Held) == Some(&2)
}

fn version(rig: &Rig, number: u64) -> VersionRecord {
    let lineage = Lineage::read(&rig.ledger).unwrap();
    lineage.get("main", number).unwrap().clone()
}

fn sound(rig: &Rig) {
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    assert!(replayed(&rig.ledger).is_exact());
}

#[tokio::test]
async fn a_slide_is_taken_back_to_where_versions_are_far_enough_to_tell_them_apart() {
    let dir = folder();
    let rig = Rig::start(dir.path(), gated(NATS));
    train(&rig, (true, 0), answers(1)).await;
    train(&rig, (true, 0), answers(2)).await;
    train(&rig, (false, 0), answers(3)).await;
    // The held one is near the third, that one near the second, and the second is far from the first.
    train(&rig, (false, 3), answers(1)).await;
    let heads: Vec<HeadRecord> = rig.records(HEAD);
    let why = &heads.last().unwrap().why;
    assert!(why.starts_with("retreat: the gate held v4"), "{why}");
    assert_eq!(rig.policy.live.load(Ordering::SeqCst), 1);
    train(&rig, (true, 0), answers(5)).await;
    assert_eq!(version(&rig, 5).parent, Some(version(&rig, 1).hash()));
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn a_version_that_fails_far_from_what_answers_takes_nothing_with_it() {
    let dir = folder();
    let rig = Rig::start(dir.path(), gated(NATS));
    train(&rig, (true, 0), answers(1)).await;
    train(&rig, (false, 0), answers(2)).await;
    train(&rig, (true, 8), held).await;
    train(&rig, (true, 0), answers(4)).await;
    assert_eq!(version(&rig, 4).parent, Some(version(&rig, 2).hash()));
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn what_somebody_went_to_on_purpose_is_not_taken_back() {
    let dir = folder();
    let rig = Rig::start(dir.path(), gated(NATS));
    train(&rig, (true, 0), answers(1)).await;
    train(&rig, (false, 0), answers(2)).await;
    let control = rig.handle.control();
    control.revert(PolicyVersion::new(1), "mine").await.unwrap();
    control.revert(PolicyVersion::new(2), "mine").await.unwrap();
    train(&rig, (false, 3), held).await;
    assert_eq!(rig.handle.status().live.get(), 4);
    sound(&rig);
    rig.stop().await;
}

#[tokio::test]
async fn a_step_back_survives_a_kill_and_whoever_is_forgotten_takes_hers_along() {
    let dir = folder();
    let rig = Rig::start(dir.path(), gated(NATS));
    train(&rig, (true, 0), answers(1)).await;
    train(&rig, (true, 0), answers(2)).await;
    rig.policy.far.store(false, Ordering::SeqCst);
    rig.talk_as("bob", "slide 1", &THANKS).await;
    rig.until(answers(3)).await;
    rig.policy.broken.store(3, Ordering::SeqCst);
    rig.talk_as("bob", "slide 2", &THANKS).await;
    rig.until(answers(1)).await;
    rig.kill().await;
    let rig = Rig::start(dir.path(), gated(NATS));
    rig.until(answers(1)).await;
    sound(&rig);
    // Had he never been, nothing would have been held, and nobody would have gone back.
    let bob = Selector::User {
        tenant: None,
        user: "bob".to_owned(),
    };
    let control = rig.handle.control();
    let forgotten = control.forget(bob, |_, _, _| {}).await.unwrap();
    assert_eq!(forgotten.record.after.get(), 2, "{forgotten:?}");
    rig.until(answers(2)).await;
    sound(&rig);
    rig.stop().await;
}
