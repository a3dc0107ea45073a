//! Hosted groups: paid together when all attempts are over and judged, once, and forgotten together.

use std::sync::Arc;

use loops::{
    forget::Selector,
    records::{GROUP, GroupRecord, JUDGED, JudgedRecord, PAID, PaidRecord},
    rollout::{Assignment, Config},
};
use parking_lot::Mutex;
use rl::{
    Action, Agent, AgentReply, AgentRequest, Classification, Done, Environment, Episode, Feedback,
    JudgedTurn, Message, ModalityCard, NextState, NotTrainable, Observation, Outcome, Rating,
    RequestView, RewardRule, Seed, Sees, Step, TaskId, TokenStreams, Turn, TurnReward, Verdict,
    Vote,
    algorithm::Method,
    seam::{MajorityRule, StepwiseRule, Transcript},
};

use crate::{
    rig::{Plugins, Rig, config, folder},
    rollout::agent,
};

/// Two turns an attempt; the seed's last digit is its outcome in tenths. From 5 on its user is content after the first turn.
struct Scored;

impl Environment for Scored {
    fn card(&self) -> ModalityCard {
        Transcript::default().card()
    }
    fn classify(&self, request: RequestView<'_>) -> rl::Result<Classification> {
        Transcript::default().classify(request)
    }
    fn next_state(&self, turn: &Turn, new: &[Message]) -> rl::Result<Option<NextState>> {
        Transcript::default().next_state(turn, new)
    }
    fn session_ends(&self, _: &[Message]) -> rl::Result<bool> {
        Ok(false)
    }
    fn tasks(&self, _: &str) -> rl::Result<Vec<TaskId>> {
        Ok(vec!["sum".into()])
    }
    fn start(&self, _: &TaskId, seed: Seed) -> rl::Result<Box<dyn Episode>> {
        Ok(Box::new(Attempt(seed.get(), 0)))
    }
}

struct Attempt(u64, u32);

impl Episode for Attempt {
    fn observe(&mut self) -> rl::Result<Observation> {
        let messages = vec![Message::user(format!("attempt {}", self.0))];
        Ok(Observation { messages })
    }
    fn act(&mut self, _: &Action) -> rl::Result<Step> {
        if self.0 == 13 {
            return Err(rl::Error::Failed {
                what: "attempt 13".into(),
                why: "on purpose".into(),
            });
        }
        self.1 += 1;
        let word = match self.0 >= 5 {
            true => "thank you",
            false => "That is wrong.",
        };
        let messages = match self.1 {
            1 => vec![Message::user(word)],
            _ => Vec::new(),
        };
        Ok(Step {
            observation: Observation { messages },
            done: (self.1 == 2).then_some(Done::Finished),
        })
    }
    fn outcome(&mut self) -> rl::Result<Option<Outcome>> {
        Ok(Some(Outcome {
            score: (self.0 % 10) as f64 / 10.0,
            metrics: Vec::new(),
        }))
    }
    fn snapshot(&mut self) -> rl::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

fn attempts(outcomes: &[u64]) -> Vec<Assignment> {
    let attempt = |outcome: &u64| Assignment {
        episode: format!("try-{outcome}").as_str().into(),
        task: "sum".into(),
        seed: Seed::new(*outcome),
        group: Some("sum-1".into()),
    };
    outcomes.iter().map(attempt).collect()
}

fn plugins(rule: impl RewardRule + 'static) -> Plugins {
    Plugins {
        rule: Arc::new(rule),
        ..Plugins::default()
    }
}

pub(crate) async fn play(rig: &Rig, outcomes: &[u64]) {
    let rollout = rig
        .handle
        .rollout(Config::default(), Arc::new(Scored), agent(rig, 99))
        .unwrap();
    let (_stop, shutdown) = loops::shutdown();
    rollout
        .run(attempts(outcomes), shutdown, Arc::new(|_| {}))
        .await
        .unwrap();
}

/// The last record of every turn of the group, in the order of its attempts.
fn last(rig: &Rig, paid: &PaidRecord) -> Vec<JudgedRecord> {
    let turns = paid.attempts.iter().flat_map(|attempt| &attempt.turns);
    turns.map(|turn| rig.judged(turn).pop().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_paid_when_all_its_attempts_are_over_and_judged() {
    let dir = folder();
    let mut config = config();
    config.algorithm.method = Method::Binary;
    let rig = Rig::with(dir.path(), config, plugins(StepwiseRule));
    play(&rig, &[9, 2, 13]).await;
    rig.until(|s| s.samples == 4).await;
    let paid: PaidRecord = rig.records(PAID).remove(0);
    // By name, not by which ended first; the one that failed is no part of it.
    let names: Vec<_> = paid.attempts.iter().map(|a| a.episode.as_str()).collect();
    assert_eq!(names, ["try-2", "try-9"]);
    // 0.2 - 1 and 0.9 + 1 after the first turn; the last turn has no reaction, and is paid by the outcome alone.
    let bad = &paid.attempts[0];
    let good = &paid.attempts[1];
    assert_eq!(bad.rewards, [Some(0.2 - 1.0), Some(0.2)]);
    assert_eq!(good.rewards, [Some(0.9 + 1.0), Some(0.9)]);
    // Two members lie one deviation (over n − 1) times 1/√2 from their mean.
    for (attempt, sign) in [(bad, -1.0), (good, 1.0)] {
        for advantage in attempt.advantages.iter().flatten() {
            let expected = sign * f32::sqrt(0.5);
            assert!((advantage - expected).abs() < 1e-3, "{advantage}");
        }
    }
    for record in last(&rig, &paid) {
        let advantage = record.paid.unwrap().advantage.unwrap();
        let sample = record.sample.unwrap();
        assert!(sample.advantage.iter().all(|a| *a == advantage));
        assert_eq!(record.not_trainable, None);
    }
    let status = rig.until(|s| s.trained == 4).await;
    assert_eq!(
        status.not_trainable.get(&NotTrainable::AwaitsGroup),
        Some(&0)
    );
    let audit = loops::audit::audit(&rig.ledger, &"main".into()).unwrap();
    assert!(audit.is_sound(), "{audit:?}");
    rig.stop().await;
    let report = ledger::verify(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_over_before_a_kill_is_paid_once_after_it() {
    let dir = folder();
    let rig = Rig::with(dir.path(), config(), plugins(StepwiseRule));
    rig.policy.door.shut();
    play(&rig, &[9, 2]).await;
    assert_eq!(rig.records::<GroupRecord>(GROUP).len(), 1);
    assert!(
        rig.records::<PaidRecord>(PAID).is_empty(),
        "nothing is judged"
    );
    rig.policy.door.open();
    rig.kill().await;
    for _ in 0..2 {
        let rig = Rig::with(dir.path(), config(), plugins(StepwiseRule));
        rig.until(|s| s.trained == 4).await;
        // Played again, it is found as it is.
        play(&rig, &[9, 2]).await;
        assert_eq!(rig.records::<PaidRecord>(PAID).len(), 1);
        let samples = rig.records::<JudgedRecord>(JUDGED);
        assert_eq!(samples.iter().filter(|r| r.sample.is_some()).count(), 4);
        rig.stop().await;
    }
    let report = ledger::verify(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_another_rule_has_paid_already_are_not_paid_again() {
    let dir = folder();
    let mut config = config();
    config.train.batch_size = 100;
    let rig = Rig::with(dir.path(), config.clone(), plugins(MajorityRule));
    play(&rig, &[9, 2]).await;
    rig.until(|s| s.samples == 2).await;
    let before = rig.records::<JudgedRecord>(JUDGED);
    rig.stop().await;
    let rig = Rig::with(dir.path(), config, plugins(StepwiseRule));
    play(&rig, &[9, 2]).await;
    // The last turns, which nobody had judged, are paid by the outcome.
    rig.until(|s| s.samples == 4).await;
    let after = rig.records::<JudgedRecord>(JUDGED);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 2);
    assert!(
        after[before.len()..]
            .iter()
            .all(|record| record.revision == 0)
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_after_the_payment_changes_nothing() {
    let dir = folder();
    let mut config = config();
    config.train.batch_size = 100;
    let rig = Rig::with(dir.path(), config, plugins(StepwiseRule));
    play(&rig, &[9, 2]).await;
    rig.until(|s| s.samples == 4).await;
    let paid: PaidRecord = rig.records(PAID).remove(0);
    let turn = paid.attempts[0].turns[0].clone();
    let before = rig.judged(&turn);
    let feedback = Feedback {
        tenant: "tenant".into(),
        turn: turn.clone(),
        rating: Some(Rating::Up),
        correction: None,
    };
    rig.sink().feedback(feedback).await.unwrap();
    // Something that is judged later than it: by then it has been looked at.
    rig.talk("s", &["hi", "thank you"]).await;
    rig.until(|s| s.samples == 5 && s.feedback == 1).await;
    assert_eq!(rig.judged(&turn), before);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_turns_are_paid_at_once_whatever_the_rule_sees() {
    let dir = folder();
    let rig = Rig::with(dir.path(), config(), plugins(StepwiseRule));
    // The session has the name of a hosted episode: that alone makes nobody wait.
    play(&rig, &[9, 2]).await;
    let turns = rig.talk("try-9", &["hi", "thank you"]).await;
    rig.until(|s| s.samples == 5).await;
    let judged = rig.judged(&turns[0]).pop().unwrap();
    assert_eq!((judged.revision, judged.paid), (0, None));
    assert_eq!(judged.reward.unwrap().reward, Some(1.0));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_did_equally_well_teach_nothing() {
    for drop_equal_groups in [false, true] {
        let dir = folder();
        let mut config = config();
        config.judge.drop_equal_groups = drop_equal_groups;
        let rig = Rig::with(dir.path(), config, plugins(StepwiseRule));
        play(&rig, &[7]).await;
        let status = rig
            .until(|s| s.not_trainable.get(&NotTrainable::NoAdvantage) == Some(&2))
            .await;
        assert_eq!(status.samples, 0, "one attempt alone is better than none");
        rig.stop().await;
        // The same outcome, and one user was content where the other was not: that counts unless the recipe says otherwise.
        let dir = folder();
        let mut config = crate::rig::config();
        config.judge.drop_equal_groups = drop_equal_groups;
        config.algorithm.method = Method::Binary;
        let rig = Rig::with(dir.path(), config, plugins(StepwiseRule));
        play(&rig, &[2, 102]).await;
        let nothing = if drop_equal_groups { 4 } else { 2 };
        let status = rig
            .until(|s| s.not_trainable.get(&NotTrainable::NoAdvantage) == Some(&nothing))
            .await;
        assert_eq!(status.samples, 4 - nothing);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_meet_the_same_environment_draw_tokens_of_their_own() {
    let dir = folder();
    let rig = Rig::with(dir.path(), config(), plugins(StepwiseRule));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let agent = Arc::new(Seeds(seen.clone(), agent(&rig, 99)));
    let rollout = rig
        .handle
        .rollout(Config::default(), Arc::new(Scored), agent)
        .unwrap();
    let mut attempts = attempts(&[9, 2]);
    for attempt in &mut attempts {
        attempt.seed = Seed::new(7);
    }
    let (_stop, shutdown) = loops::shutdown();
    let played = rollout.run(attempts, shutdown, Arc::new(|_| {})).await;
    assert_eq!(played.unwrap().len(), 2);
    let mut seeds = seen.lock().clone();
    assert_eq!(seeds.len(), 4);
    seeds.sort();
    seeds.dedup();
    assert_eq!(
        seeds.len(),
        4,
        "every turn of every attempt has a seed of its own"
    );
    drop(rollout);
    rig.stop().await;
}

/// Notes the seeds that are asked with.
struct Seeds(Arc<Mutex<Vec<u64>>>, Arc<dyn Agent>);

impl Agent for Seeds {
    fn reply(&self, request: AgentRequest) -> rl::Result<AgentReply> {
        self.0.lock().push(request.sampling.seed.get());
        self.1.reply(request)
    }
}

/// Fails, lies about numbers, or decides by token.
struct Odd(&'static str);

impl RewardRule for Odd {
    fn name(&self) -> String {
        self.0.into()
    }
    fn sees(&self) -> Sees {
        match self.0 {
            "by token" => Sees::Episode,
            _ => Sees::Group,
        }
    }
    fn verdict(&self, votes: &[Vote]) -> rl::Result<Option<Verdict>> {
        MajorityRule.verdict(votes)
    }
    fn turn_rewards(
        &self,
        turns: &[JudgedTurn],
        outcome: Option<f64>,
    ) -> rl::Result<Vec<TurnReward>> {
        StepwiseRule.turn_rewards(turns, outcome)
    }
    fn advantages(&self, rewards: &[Vec<Option<f32>>]) -> rl::Result<Vec<Vec<Option<f32>>>> {
        match self.0 {
            "too few" => Ok(rewards[1..].to_vec()),
            "not finite" => Ok(vec![vec![Some(f32::NAN); 2]; 2]),
            _ => Ok(rewards.to_vec()),
        }
    }
    fn token_advantages(&self, streams: &TokenStreams<'_>) -> rl::Result<Option<Vec<f32>>> {
        let n = streams.behaviour.len();
        Ok((self.0 == "by token").then(|| (0..n).map(|t| t as f32).collect()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_gives_impossible_advantages_pays_nobody_and_says_why() {
    for odd in ["too few", "not finite"] {
        let dir = folder();
        let rig = Rig::with(dir.path(), config(), plugins(Odd(odd)));
        play(&rig, &[9, 2]).await;
        let status = rig
            .until(|s| s.not_trainable.get(&NotTrainable::RewardRefused) == Some(&4))
            .await;
        assert_eq!(status.samples, 0);
        let paid: PaidRecord = rig.records(PAID).remove(0);
        assert!(
            paid.why.as_ref().unwrap().contains("not one a reward"),
            "{paid:?}"
        );
        assert!(last(&rig, &paid)[0].notes[0].contains("no reward"));
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_decide_the_advantage_of_every_token() {
    let dir = folder();
    let rig = Rig::with(dir.path(), config(), plugins(Odd("by token")));
    play(&rig, &[9, 2]).await;
    rig.until(|s| s.samples == 4).await;
    let paid: PaidRecord = rig.records(PAID).remove(0);
    for record in last(&rig, &paid) {
        let sample = record.sample.unwrap();
        let n = sample.response.len();
        let expected: Vec<f32> = (0..n).map(|t| t as f32).collect();
        assert_eq!(sample.advantage, expected);
        assert_eq!(
            sample.weight[0], 0.0,
            "an advantage of 0 leaves a token out"
        );
        assert!(sample.weight[1..].iter().all(|weight| *weight == 1.0));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forgets_an_attempt_forgets_its_whole_group() {
    let dir = folder();
    let rig = Rig::with(dir.path(), config(), plugins(StepwiseRule));
    play(&rig, &[9, 2]).await;
    rig.until(|s| s.trained == 4).await;
    let selector = Selector::Session {
        tenant: None,
        session: "try-9".into(),
    };
    let forgotten = rig
        .handle
        .control()
        .forget(selector, |_, _, _| {})
        .await
        .unwrap();
    assert_eq!(forgotten.request.turns.len(), 4);
    assert_eq!(forgotten.request.subjects, ["try-2", "try-9"]);
    rig.stop().await;
}
