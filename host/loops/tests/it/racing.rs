//! What is forgotten while somebody works on it: whoever works on it finds nothing to do, and everybody else goes on.

use std::{path::Path, sync::Arc};

use loops::{
    forget::Selector,
    records::{CLOSED, ClosedRecord, PAID, PaidRecord},
};
use rl::{
    Answer, Classification, Environment, Episode, Hint, Judge, JudgePrompt, JudgedTurn, Message,
    ModalityCard, NextState, Question, RequestView, Result, RewardRule, SampleId, Seed, Sees,
    TaskId, Turn, TurnReward, Verdict, Vote, VoteValue,
    seam::{StepwiseRule, Transcript, WordJudge},
};
use tokio::sync::Notify;

use crate::{
    paying::play,
    rig::{Door, Plugins, Rig, config, folder, request},
};

/// A plugin that says when it is asked, and then waits behind a door.
#[derive(Clone)]
struct Held<T> {
    of: T,
    asked: Arc<Notify>,
    door: Door,
}

impl<T> Held<T> {
    fn new(of: T) -> Self {
        let (asked, door) = (Arc::default(), Door::default());
        door.shut();
        Self { of, asked, door }
    }

    fn knock(&self) {
        self.asked.notify_one();
        self.door.pass();
    }
}

impl Judge for Held<WordJudge> {
    fn name(&self) -> String {
        self.of.name()
    }
    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Question> {
        self.knock();
        self.of.evaluate(turn, next, seed)
    }
    fn read_vote(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>> {
        self.of.read_vote(turn, next, answer)
    }
    fn ask_hint(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Option<JudgePrompt>> {
        self.of.ask_hint(turn, next, seed)
    }
    fn read_hint(&self, turn: &Turn, next: &NextState, answer: &Answer) -> Result<Option<Hint>> {
        self.of.read_hint(turn, next, answer)
    }
    fn place_hint(&self, messages: &[Message], hint: &Hint) -> Result<Vec<Message>> {
        self.of.place_hint(messages, hint)
    }
}

impl Environment for Held<Transcript> {
    fn card(&self) -> ModalityCard {
        self.of.card()
    }
    fn classify(&self, request: RequestView<'_>) -> Result<Classification> {
        self.of.classify(request)
    }
    fn next_state(&self, turn: &Turn, new: &[Message]) -> Result<Option<NextState>> {
        self.knock();
        self.of.next_state(turn, new)
    }
    fn session_ends(&self, messages: &[Message]) -> Result<bool> {
        self.of.session_ends(messages)
    }
    fn tasks(&self, split: &str) -> Result<Vec<TaskId>> {
        self.of.tasks(split)
    }
    fn start(&self, task: &TaskId, seed: Seed) -> Result<Box<dyn Episode>> {
        self.of.start(task, seed)
    }
}

impl RewardRule for Held<StepwiseRule> {
    fn name(&self) -> String {
        self.of.name()
    }
    fn sees(&self) -> Sees {
        self.of.sees()
    }
    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>> {
        self.of.verdict(votes)
    }
    fn turn_rewards(&self, turns: &[JudgedTurn], outcome: Option<f64>) -> Result<Vec<TurnReward>> {
        self.of.turn_rewards(turns, outcome)
    }
    fn advantages(&self, rewards: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>> {
        self.knock();
        self.of.advantages(rewards)
    }
}

/// A host whose environment waits before it reads a next state.
fn reading(dir: &Path) -> (Rig, Held<Transcript>) {
    let environment = Held::new(Transcript::default());
    let plugins = Plugins {
        environment: Arc::new(environment.clone()),
        ..Plugins::default()
    };
    (Rig::with(dir, config(), plugins), environment)
}

async fn forget(rig: &Rig, session: &str) {
    let selector = Selector::Session {
        tenant: None,
        session: session.into(),
    };
    let control = rig.handle.control();
    control.forget(selector, |_, _, _| {}).await.unwrap();
}

/// Somebody who comes now is judged, and the judge has never failed.
async fn the_judge_goes_on(rig: &Rig) {
    let before = rig.handle.status().judged;
    rig.talk("another", &["hi", "thank you"]).await;
    rig.until(|s| s.judged > before).await;
    let failed = rig.counter("loops_restarts_total{value=\"judge\"}");
    assert_eq!(failed, 0, "the judge loop failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_forgotten_while_it_is_judged_ends_nothing_else() {
    let dir = folder();
    let judge = Held::new(WordJudge);
    let plugins = Plugins {
        judge: Arc::new(judge.clone()),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    let turns = rig.talk("ann", &["hi", "thank you"]).await;
    judge.asked.notified().await;
    forget(&rig, "ann").await;
    judge.door.open();
    the_judge_goes_on(&rig).await;
    assert_eq!(rig.judged(&turns[0]).len(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_forgotten_while_its_next_state_is_read_fails_no_request() {
    let dir = folder();
    let (rig, environment) = reading(dir.path());
    rig.talk("ann", &["hi"]).await;
    let (sink, messages) = (
        rig.sink(),
        vec![
            Message::user("hi"),
            Message::assistant("re: hi"),
            Message::user("thank you"),
        ],
    );
    let begins = tokio::spawn(async move { sink.begin(request("ann", messages)).await });
    environment.asked.notified().await;
    forget(&rig, "ann").await;
    environment.door.open();
    begins.await.unwrap().unwrap();
    the_judge_goes_on(&rig).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_turns_that_end_together_those_that_are_not_forgotten_end() {
    let dir = folder();
    let (rig, environment) = reading(dir.path());
    environment.door.open();
    // The same question twice: who continues the second reply leaves the first one without a next state.
    let first = rig.talk("ann", &["hi", "more"]).await.remove(1);
    environment.asked.notified().await;
    let mut messages = vec![
        Message::user("hi"),
        Message::assistant("re: hi"),
        Message::user("more"),
    ];
    let second = rig.say(request("ann", messages.clone()), "another").await;
    messages.extend([Message::assistant("another"), Message::user("thank you")]);
    environment.door.shut();
    let sink = rig.sink();
    let begins = tokio::spawn(async move { sink.begin(request("ann", messages)).await });
    environment.asked.notified().await;
    let sample = Selector::Sample(SampleId::new(format!("sample-{second}")));
    let control = rig.handle.control();
    control.forget(sample, |_, _, _| {}).await.unwrap();
    environment.door.open();
    begins.await.unwrap().unwrap();
    let closed: Vec<ClosedRecord> = rig.records(CLOSED);
    let closed: Vec<_> = closed.iter().map(|closed| &closed.turn).collect();
    assert!(closed.contains(&&first) && !closed.contains(&&second));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_forgotten_while_its_group_is_paid_is_left_out() {
    let dir = folder();
    let rule = Held::new(StepwiseRule);
    let plugins = Plugins {
        rule: Arc::new(rule.clone()),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    play(&rig, &[9, 2]).await;
    rule.asked.notified().await;
    forget(&rig, "try-9").await;
    rule.door.open();
    the_judge_goes_on(&rig).await;
    let paid: PaidRecord = rig.records(PAID).remove(0);
    let names: Vec<_> = paid.attempts.iter().map(|a| a.episode.as_str()).collect();
    assert_eq!(names, ["try-2"], "as if the other had never been");
    rig.stop().await;
}
