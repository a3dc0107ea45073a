//! What the gateway's side sees: turns durable before they are acknowledged, next states, and reasons.

use std::sync::Arc;

use loops::records::{CLOSED, ClosedRecord, Closing, TURN, TurnRecord};
use rl::{
    Classification, Environment, Episode, FinishReason, Message, ModalityCard, NextState,
    NotTrainable, RequestView, Seed, TaskId, Turn, TurnKind, seam::Transcript,
};
use tokio::time::Duration;

use crate::rig::{Plugins, Rig, config, folder, request, serve, served};

#[tokio::test]
async fn a_turn_is_in_the_ledger_bit_for_bit_when_it_is_acknowledged() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let ticket = rig
        .sink()
        .begin(request("s", vec![Message::user("hi")]))
        .await
        .unwrap();
    let mut sent = served(Message::assistant("hello"), &rig.policy);
    sent.logprobs = vec![-0.1, -1e-30, -1.234_567_8, -f32::MIN_POSITIVE, 0.0];
    rig.sink()
        .finish(ticket.clone(), sent.clone())
        .await
        .unwrap();
    rig.kill().await;

    let rig = Rig::start(dir.path(), config());
    let turns: Vec<TurnRecord> = rig.records(TURN);
    assert_eq!(turns.len(), 1);
    let turn = &turns[0].turn;
    assert_eq!((&turn.id, turn.kind), (&ticket.turn, TurnKind::Main));
    let bits = |xs: &[f32]| xs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&turn.logprobs), bits(&sent.logprobs));
    assert_eq!(rig.handle.status().waiting, 1);
    rig.stop().await;
}

#[tokio::test]
async fn after_a_restart_a_conversation_goes_on_where_it_was() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let first = rig.talk("s", &["hi"]).await.remove(0);
    rig.kill().await;
    let rig = Rig::start(dir.path(), config());
    let messages = vec![
        Message::user("hi"),
        Message::assistant("re: hi"),
        Message::user("thank you"),
    ];
    let ticket = rig.sink().begin(request("s", messages)).await.unwrap();
    assert_eq!(ticket.parent.as_ref(), Some(&first));
    assert_ne!(
        ticket.turn, first,
        "names do not come again after a restart"
    );
    let closed: Vec<ClosedRecord> = rig.records(CLOSED);
    assert_eq!(
        (&closed[0].turn, closed[0].by.as_ref()),
        (&first, Some(&ticket.turn))
    );
    rig.stop().await;
}

#[tokio::test]
async fn every_turn_that_is_not_trained_has_its_reason_counted() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let hi = || vec![Message::user("hi")];
    let mut side = request("a", hi());
    side.kind = Some(TurnKind::Side);
    rig.say(side, "title").await;
    let mut base = request("b", hi());
    base.adapter = None;
    rig.say(base, "hello").await;
    let mut other = request("c", hi());
    other.adapter = Some("frozen".into());
    rig.say(other, "hello").await;
    rig.say(request("d", hi()), "").await;
    let ticket = rig.sink().begin(request("e", hi())).await.unwrap();
    let mut cut = served(Message::assistant("hel"), &rig.policy);
    cut.finish = FinishReason::Cancelled;
    rig.sink().finish(ticket, cut).await.unwrap();
    let mut last = request("f", hi());
    last.session_done = true;
    rig.say(last, "bye").await;

    let status = rig.handle.status();
    let expected = [
        NotTrainable::Side,
        NotTrainable::BaseWeights,
        NotTrainable::StaticAdapter,
        NotTrainable::Empty,
        NotTrainable::Cancelled,
        NotTrainable::NoNextState,
    ];
    assert_eq!(
        status.not_trainable,
        expected.map(|reason| (reason, 1)).into()
    );
    rig.stop().await;

    let rig = Rig::start(dir.path(), config());
    let again = rig.handle.status();
    assert_eq!(
        again.not_trainable, status.not_trainable,
        "the ledger tells the same"
    );
    assert_eq!((again.turns, again.waiting), (status.turns, status.waiting));
    rig.stop().await;
}

/// Cannot classify; its other functions fail.
struct Broken;

impl Environment for Broken {
    fn card(&self) -> ModalityCard {
        Transcript::default().card()
    }
    fn classify(&self, request: RequestView<'_>) -> rl::Result<Classification> {
        match request.messages[0].content.as_str() {
            "main" => Ok(Classification::Main),
            "unknown" => Ok(Classification::Unknown),
            _ => Err(guest("classify")),
        }
    }
    fn next_state(&self, _: &Turn, _: &[Message]) -> rl::Result<Option<NextState>> {
        Err(guest("next-state"))
    }
    fn session_ends(&self, _: &[Message]) -> rl::Result<bool> {
        Ok(false)
    }
    fn tasks(&self, _: &str) -> rl::Result<Vec<TaskId>> {
        Ok(Vec::new())
    }
    fn start(&self, _: &TaskId, _: Seed) -> rl::Result<Box<dyn Episode>> {
        Err(guest("start"))
    }
}

fn guest(function: &str) -> rl::Error {
    rl::Error::Guest {
        plugin: "broken".into(),
        function: function.into(),
        why: "trap".into(),
    }
}

#[tokio::test]
async fn a_plugin_that_fails_stops_no_reply_and_decides_nothing() {
    let dir = folder();
    let plugins = Plugins {
        environment: Arc::new(Broken),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    rig.say(request("a", vec![Message::user("unknown")]), "x")
        .await;
    rig.say(request("b", vec![Message::user("trap")]), "x")
        .await;
    let mut main = vec![Message::user("main")];
    rig.say(request("c", main.clone()), "x").await;
    main.extend([Message::assistant("x"), Message::user("thanks")]);
    rig.say(request("c", main), "y").await;
    let status = rig.handle.status();
    assert_eq!(
        status.not_trainable,
        [(NotTrainable::Unclassified, 2)].into()
    );
    assert_eq!(
        (status.waiting, status.reacted),
        (2, 0),
        "the turn goes on waiting"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_side_request_that_quotes_the_conversation_is_nobodys_reaction() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi"]).await;
    let quoted = vec![
        Message::user("hi"),
        Message::assistant("re: hi"),
        Message::user("Write a title for this conversation."),
    ];
    let mut side = request("s", quoted);
    side.kind = Some(TurnKind::Side);
    rig.say(side, "A greeting").await;
    assert_eq!(rig.handle.status().reacted, 0);
    let turns = rig.talk("s", &["hi"]).await;
    assert_eq!(turns.len(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn the_same_request_sent_twice_closes_a_turn_once() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi"]).await;
    let messages = vec![
        Message::user("hi"),
        Message::assistant("re: hi"),
        Message::user("thank you"),
    ];
    let sink = rig.sink();
    let (a, b) = tokio::join!(
        sink.begin(request("s", messages.clone())),
        sink.begin(request("s", messages))
    );
    assert_ne!(a.unwrap().turn, b.unwrap().turn);
    assert_eq!(rig.records::<ClosedRecord>(CLOSED).len(), 1);
    assert_eq!(rig.handle.status().reacted, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_idle_is_closed_without_a_next_state_but_not_during_a_generation() {
    let dir = folder();
    let mut config = config();
    config.serve.idle_timeout = Duration::from_secs(30 * 60);
    let rig = Rig::start(dir.path(), config);
    let slow = request("slow", vec![Message::user("write a book")]);
    let begun = rig.sink().begin(slow).await;
    rig.talk("idle", &["hi"]).await;
    let status = rig.until(|s| !s.not_trainable.is_empty()).await;
    assert_eq!(
        status.not_trainable,
        [(NotTrainable::NoNextState, 1)].into()
    );
    assert_eq!(rig.handle.serve().sessions(), 1);
    let sink = rig.sink();
    sink.finish(
        begun.unwrap(),
        served(Message::assistant("a book"), &rig.policy),
    )
    .await
    .unwrap();
    let closed: Vec<ClosedRecord> = rig.records(CLOSED);
    assert_eq!(
        closed[0].closing,
        Closing::Without(NotTrainable::NoNextState)
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_turn_that_was_never_begun_or_has_impossible_numbers_is_refused() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let sink = rig.sink();
    let mut ticket = sink
        .begin(request("s", vec![Message::user("hi")]))
        .await
        .unwrap();
    let mut bad = served(Message::assistant("hello"), &rig.policy);
    bad.logprobs[3] = f32::NAN;
    let error = sink
        .finish(ticket.clone(), bad)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("at token 3"), "{error}");
    ticket.turn = "chatcmpl-made-up".into();
    let good = served(Message::assistant("hello"), &rig.policy);
    let error = sink.finish(ticket, good).await.unwrap_err().to_string();
    assert!(error.contains("chatcmpl-made-up"), "{error}");
    assert_eq!(rig.records::<TurnRecord>(TURN).len(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_reaction_that_no_request_brings_can_be_handed_over() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turn = serve(
        &*rig.sink(),
        request("s", vec![Message::user("hi")]),
        Message::assistant("x"),
        rig.policy.clone(),
    )
    .await;
    rig.handle
        .serve()
        .react(&turn, vec![Message::user("thank you")], true)
        .await
        .unwrap();
    let status = rig.until(|s| s.judged == 1).await;
    assert_eq!((status.reacted, status.samples), (1, 1));
    assert_eq!(rig.handle.serve().sessions(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn the_ledgers_sink_conforms() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rl::seam::conformance::turn_sink(&*rig.sink())
        .await
        .unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_reply_of_other_weights_than_the_ledger_has_for_its_version_is_recorded_and_not_trained()
{
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    rig.talk("s", &["hi", "thank you", "great"]).await;
    rig.until(|s| s.live.get() == 1).await;
    let lineage = ledger::lineage::Lineage::read(&rig.ledger).unwrap();
    let newest = lineage.newest("main").unwrap();
    let right = newest.fingerprint().unwrap().to_owned();
    let of_weights = |version: u64, digest: &str| rl::Served {
        version: rl::PolicyVersion::new(version),
        adapter_digest: digest.into(),
        ..served(Message::assistant("hello"), &rig.policy)
    };
    let before =
        |outcome: &str| rig.counter(&format!("loops_fingerprints_total{{value=\"{outcome}\"}}"));
    let counted = ["same", "other", "none"].map(before);
    for (session, version, digest, trainable) in [
        ("right", 1, right.as_str(), true),
        ("again", 1, right.as_str(), true),
        ("another", 1, "00ff", false),
        ("base", 0, "", true),
        ("not the base", 0, right.as_str(), false),
        ("unheard of", 9, right.as_str(), false),
        ("nameless", 1, "", false),
        ("unheard of and nameless", 9, "", false),
    ] {
        let asked = request(session, vec![Message::user("hi")]);
        let ticket = rig.sink().begin(asked).await.unwrap();
        let turn = ticket.turn.clone();
        rig.sink()
            .finish(ticket, of_weights(version, digest))
            .await
            .unwrap();
        let turns: Vec<TurnRecord> = rig.records(TURN);
        let recorded = turns.iter().find(|t| t.turn.id == turn).unwrap();
        let reason = (!trainable).then_some(NotTrainable::OtherWeights);
        assert_eq!(recorded.not_trainable, reason, "{session}");
    }
    let now = ["same", "other", "none"].map(before);
    let more: Vec<u64> = now
        .iter()
        .zip(counted)
        .map(|(now, then)| now - then)
        .collect();
    assert_eq!(more, [3, 3, 2]);
    let status = rig.handle.status();
    assert_eq!(status.not_trainable[&NotTrainable::OtherWeights], 5);
    rig.stop().await;
}
