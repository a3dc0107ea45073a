//! Votes, verdicts, hints and feedback: missing is not zero, and a person outranks the judge.

use std::sync::Arc;

use loops::records::{JUDGED, JudgedRecord};
use rl::{
    Answer, Decider, Feedback, Hint, Judge, JudgePrompt, JudgedTurn, Message, NextState,
    NotTrainable, Question, Rating, Result, RewardRule, Seed, Turn, TurnReward, Verdict, Vote,
    VoteValue,
    algorithm::Method,
    seam::{MajorityRule, WordJudge},
};
use tokio::time::{Duration, advance, pause};

use crate::rig::{Plugins, Rig, config, folder};

#[tokio::test]
async fn a_complaint_becomes_votes_a_verdict_a_hint_and_a_sample_with_both_terms() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig
        .talk(
            "s",
            &["hi", "That is too long, please answer in one sentence."],
        )
        .await;
    rig.until(|s| s.judged == 1).await;
    let judged = rig.judged(&turns[0]).remove(0);
    assert_eq!(judged.votes.len(), 3);
    assert!(
        judged
            .votes
            .iter()
            .all(|v| v.value == Some(VoteValue::Negative))
    );
    assert_eq!(
        judged.votes[0].answers.len(),
        2,
        "the log-probs of the allowed answers are kept"
    );
    let seeds: std::collections::HashSet<u64> = judged.votes.iter().map(|v| v.seed.get()).collect();
    assert_eq!(seeds.len(), 3);
    let verdict = Verdict {
        value: VoteValue::Negative,
        by: Decider::Judge,
    };
    assert_eq!((judged.verdict, judged.asks.len()), (Some(verdict), 3));
    assert_eq!(
        judged.teachers.len(),
        1,
        "the same hint three times is one hint"
    );
    let n = "re: hi".len();
    assert_eq!(
        judged.teachers[0].logprobs.len(),
        n,
        "every token, the first included"
    );
    let sample = judged.sample.unwrap();
    let teacher = &judged.teachers[0].logprobs;
    let expected = teacher
        .iter()
        .zip(&sample.behaviour)
        .map(|(t, b)| -1.0 + (t - b).clamp(-2.0, 2.0));
    assert_eq!(sample.advantage, expected.collect::<Vec<_>>());
    assert_eq!(rig.handle.status().last_trainable.unwrap().turn, turns[0]);
    rig.stop().await;
}

#[tokio::test]
async fn praise_and_silence_make_a_positive_sample_and_a_stated_reason() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig.talk("s", &["hi", "thank you", "hm", "hm"]).await;
    let status = rig.until(|s| s.judged == 3).await;
    assert_eq!(
        rig.judged(&turns[0])[0].sample.as_ref().unwrap().advantage,
        [1.0; 6]
    );
    assert_eq!(
        rig.judged(&turns[1])[0].not_trainable,
        Some(NotTrainable::Ambiguous)
    );
    assert_eq!(status.not_trainable, [(NotTrainable::Ambiguous, 2)].into());
    assert_eq!((status.votes_present, status.votes_absent), (9, 0));
    rig.stop().await;
}

/// Fails the first vote, cannot read the second, and finds the others positive.
struct Fickle(&'static str);

impl Judge for Fickle {
    fn name(&self) -> String {
        "fickle".into()
    }
    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Question> {
        let votes: Vec<Seed> = (0..3)
            .map(|i| {
                rl::Seed::new(0)
                    .derive("judge")
                    .derive(&format!("vote/{}/{i}", turn.id))
            })
            .collect();
        let trap = rl::Error::Guest {
            plugin: "fickle".into(),
            function: "evaluate".into(),
            why: "trap".into(),
        };
        match votes.iter().position(|s| *s == seed) {
            Some(0) => Err(trap),
            _ if self.0 == "all fail" => Err(trap),
            Some(1) => Ok(WordJudge.evaluate(turn, &text("unreadable"), seed)?),
            _ => WordJudge.evaluate(turn, next, seed),
        }
    }
    fn read_vote(
        &self,
        _: &Turn,
        _: &NextState,
        answer: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>> {
        let odd = answer.choices[0].logprob > -5.0;
        Ok((!odd).then_some((VoteValue::Positive, Some(f32::NAN))))
    }
    fn ask_hint(&self, _: &Turn, _: &NextState, _: Seed) -> Result<Option<JudgePrompt>> {
        Ok(None)
    }
    fn read_hint(&self, _: &Turn, _: &NextState, _: &Answer) -> Result<Option<Hint>> {
        Ok(None)
    }
    fn place_hint(&self, messages: &[Message], _: &Hint) -> Result<Vec<Message>> {
        Ok(messages.to_vec())
    }
}

fn text(text: &str) -> NextState {
    NextState {
        text: text.into(),
        ..NextState::of(Vec::new())
    }
}

#[tokio::test]
async fn a_failed_vote_is_absent_and_the_others_decide() {
    let dir = folder();
    let plugins = Plugins {
        judge: Arc::new(Fickle("")),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    let turns = rig.talk("s", &["hi", "ok"]).await;
    rig.until(|s| s.judged == 1).await;
    let judged = rig.judged(&turns[0]).remove(0);
    assert_eq!(judged.votes[0].value, None);
    assert!(judged.votes[0].absent.as_ref().unwrap().contains("trap"));
    assert_eq!(judged.votes[2].value, Some(VoteValue::Positive));
    assert_eq!(
        judged.votes[2].score, None,
        "a score that is not a number is none"
    );
    assert_eq!(judged.verdict.unwrap().value, VoteValue::Positive);
    rig.stop().await;
}

/// Sees an error in the evidence, and asks nobody; but only the second time it looks.
struct Evident;

impl Judge for Evident {
    fn name(&self) -> String {
        "evident".into()
    }
    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Question> {
        let judge = rl::Seed::new(0).derive("judge");
        if seed == judge.derive(&format!("vote/{}/1", turn.id)) {
            return Ok(Question::Decided(VoteValue::Negative, Some(f32::INFINITY)));
        }
        WordJudge.evaluate(turn, next, seed)
    }
    fn read_vote(
        &self,
        _: &Turn,
        _: &NextState,
        _: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>> {
        Ok(Some((VoteValue::Positive, None)))
    }
    fn ask_hint(&self, _: &Turn, _: &NextState, _: Seed) -> Result<Option<JudgePrompt>> {
        Ok(None)
    }
    fn read_hint(&self, _: &Turn, _: &NextState, _: &Answer) -> Result<Option<Hint>> {
        Ok(None)
    }
    fn place_hint(&self, messages: &[Message], _: &Hint) -> Result<Vec<Message>> {
        Ok(messages.to_vec())
    }
}

#[tokio::test]
async fn evidence_that_decides_is_one_vote_however_many_are_asked_for() {
    let dir = folder();
    let plugins = Plugins {
        judge: Arc::new(Evident),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    let turns = rig.talk("s", &["hi", "thank you"]).await;
    rig.until(|s| s.judged == 1).await;
    let judged = rig.judged(&turns[0]).remove(0);
    let [vote] = judged.votes.as_slice() else {
        panic!("{:?}", judged.votes);
    };
    assert_eq!(vote.value, Some(VoteValue::Negative));
    assert_eq!((vote.score, vote.answers.len()), (None, 0));
    assert_eq!(judged.verdict.unwrap().value, VoteValue::Negative);
    rig.stop().await;
}

#[tokio::test]
async fn no_vote_present_is_no_verdict_and_never_a_reward_of_zero() {
    let dir = folder();
    let plugins = Plugins {
        judge: Arc::new(Fickle("all fail")),
        ..Plugins::default()
    };
    let rig = Rig::with(dir.path(), config(), plugins);
    let turns = rig.talk("s", &["hi", "thank you"]).await;
    let status = rig.until(|s| s.judged == 1).await;
    let judged = rig.judged(&turns[0]).remove(0);
    assert_eq!(
        (judged.verdict, judged.reward.unwrap().reward),
        (None, None)
    );
    assert_eq!(judged.not_trainable, Some(NotTrainable::NoVerdict));
    assert_eq!((status.votes_present, status.votes_absent), (0, 3));
    rig.stop().await;
}

/// Gives numbers that the host must not believe.
struct BadRule(f32, usize);

impl RewardRule for BadRule {
    fn name(&self) -> String {
        "bad".into()
    }
    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>> {
        MajorityRule.verdict(votes)
    }
    fn turn_rewards(&self, _: &[JudgedTurn], _: Option<f64>) -> Result<Vec<TurnReward>> {
        let reward = TurnReward {
            reward: Some(self.0),
            rl_weight: 1.0,
            opd_weight: 1.0,
        };
        Ok(vec![reward; self.1])
    }
    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>> {
        Ok(rewards_gt.to_vec())
    }
}

#[tokio::test]
async fn a_reward_rule_with_impossible_numbers_makes_no_sample() {
    for rule in [BadRule(f32::NAN, 1), BadRule(1.0, 2), BadRule(1.0, 0)] {
        let dir = folder();
        let plugins = Plugins {
            rule: Arc::new(rule),
            ..Plugins::default()
        };
        let rig = Rig::with(dir.path(), config(), plugins);
        let turns = rig.talk("s", &["hi", "thank you"]).await;
        rig.until(|s| s.judged == 1).await;
        let judged = rig.judged(&turns[0]).remove(0);
        assert_eq!(judged.not_trainable, Some(NotTrainable::RewardRefused));
        assert!(judged.notes[0].contains("no reward"), "{:?}", judged.notes);
        rig.stop().await;
    }
}

/// Says the opposite of the votes, or pays for the opposite of the verdict.
struct Inverted {
    verdicts: bool,
}

impl RewardRule for Inverted {
    fn name(&self) -> String {
        "inverted".into()
    }
    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>> {
        let turn = |verdict: Verdict| Verdict {
            value: match verdict.value {
                VoteValue::Positive => VoteValue::Negative,
                VoteValue::Negative => VoteValue::Positive,
                VoteValue::Ambiguous => VoteValue::Ambiguous,
            },
            ..verdict
        };
        let verdict = MajorityRule.verdict(votes)?;
        Ok(verdict.map(|verdict| {
            if self.verdicts {
                turn(verdict)
            } else {
                verdict
            }
        }))
    }
    fn turn_rewards(&self, v: &[JudgedTurn], outcome: Option<f64>) -> Result<Vec<TurnReward>> {
        let mut rewards = MajorityRule.turn_rewards(v, outcome)?;
        if !self.verdicts {
            for reward in &mut rewards {
                reward.reward = reward.reward.map(|reward| -reward);
            }
        }
        Ok(rewards)
    }
    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>> {
        Ok(rewards_gt.to_vec())
    }
}

#[tokio::test]
async fn a_rule_that_turns_round_what_was_said_trains_nothing() {
    for (verdicts, why) in [
        (true, "where the votes give"),
        (false, "pays for the opposite"),
    ] {
        let dir = folder();
        let plugins = Plugins {
            rule: Arc::new(Inverted { verdicts }),
            ..Plugins::default()
        };
        let rig = Rig::with(dir.path(), config(), plugins);
        let turns = rig
            .talk("s", &["hi", "thank you", "That is too long."])
            .await;
        rig.until(|s| s.judged == 2).await;
        for turn in &turns[..2] {
            let judged = rig.judged(turn).remove(0);
            assert_eq!(judged.not_trainable, Some(NotTrainable::RewardRefused));
            assert_eq!((judged.sample, judged.verdict), (None, None));
            assert!(judged.notes[0].contains(why), "{:?}", judged.notes);
            assert!(judged.notes[0].contains("contrary-rewards"));
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_rule_that_is_meant_to_decide_otherwise_may() {
    let dir = folder();
    let plugins = Plugins {
        rule: Arc::new(Inverted { verdicts: false }),
        ..Plugins::default()
    };
    let mut config = config();
    config.judge.contrary_rewards = true;
    let rig = Rig::with(dir.path(), config, plugins);
    let turns = rig.talk("s", &["hi", "thank you"]).await;
    rig.until(|s| s.judged == 1).await;
    let judged = rig.judged(&turns[0]).remove(0);
    assert_eq!(judged.reward.unwrap().reward, Some(-1.0));
    assert!(judged.sample.is_some(), "{:?}", judged.notes);
    rig.stop().await;
}

#[tokio::test]
async fn praise_of_everything_counts_less_and_less_also_after_a_restart() {
    let dir = folder();
    let weights = |rig: &Rig, turns: &[rl::TurnId]| -> Vec<f32> {
        let judged = turns.iter().map(|turn| rig.judged(turn).remove(0));
        judged.map(|j| j.sample.unwrap().advantage[0]).collect()
    };
    let rig = Rig::start(dir.path(), config());
    // Whoever is alone is believed: there must be somebody else.
    rig.talk_as("ben", "b", &["hi", "That is too long."]).await;
    let all = ["hi"; 1].into_iter().chain(["thank you"; 8]);
    let turns = rig.talk("s", &all.collect::<Vec<_>>()).await;
    rig.until(|s| s.judged == 9).await;
    let mut sorted = weights(&rig, &turns[..8]);
    sorted.sort_by(f32::total_cmp);
    assert_eq!(sorted[3..], [1.0; 5], "{sorted:?}");
    assert!(sorted[0] < 0.75, "{sorted:?}");
    rig.stop().await;
    let rig = Rig::start(dir.path(), config());
    let turns = rig
        .talk("t", &["hi", "thank you", "That is too long."])
        .await;
    rig.until(|s| s.judged == 11).await;
    let judged = rig.judged(&turns[0]).remove(0);
    assert!(
        judged.notes[0].contains("praise counts"),
        "{:?}",
        judged.notes
    );
    assert!(weights(&rig, &turns[..1])[0] < sorted[0]);
    // A complaint counts in full: its reward is there beside the hint's term.
    let complaint = rig.judged(&turns[1]).remove(0);
    assert_eq!(complaint.reward.unwrap().reward, Some(-1.0));
    assert!(complaint.notes.is_empty(), "{:?}", complaint.notes);
    rig.stop().await;
}

fn feedback(turn: &rl::TurnId, rating: Option<Rating>, correction: Option<&str>) -> Feedback {
    Feedback {
        tenant: "tenant".into(),
        turn: turn.clone(),
        rating,
        correction: correction.map(str::to_owned),
    }
}

#[tokio::test]
async fn explicit_feedback_outranks_the_judge_before_and_after_it_has_judged() {
    let dir = folder();
    let mut big = config();
    big.train.batch_size = 100;
    let rig = Rig::start(dir.path(), big);
    let turns = rig.talk("s", &["hi", "thank you", "thank you"]).await;
    rig.until(|s| s.judged == 2).await;
    // After: the first turn was judged positive.
    rig.sink()
        .feedback(feedback(&turns[0], Some(Rating::Down), None))
        .await
        .unwrap();
    // Before: nothing has come back to the last turn yet.
    rig.sink()
        .feedback(feedback(&turns[2], Some(Rating::Up), None))
        .await
        .unwrap();
    let status = rig
        .until(|s| s.judged == 3 && s.queues["judge"].depth == 0)
        .await;
    let history = rig.judged(&turns[0]);
    let verdicts: Vec<_> = history
        .iter()
        .map(|j| (j.revision, j.verdict.unwrap()))
        .collect();
    let by = |value, by| Verdict { value, by };
    assert_eq!(
        verdicts,
        [
            (0, by(VoteValue::Positive, Decider::Judge)),
            (1, by(VoteValue::Negative, Decider::Person))
        ]
    );
    assert_eq!(
        history[1].votes, history[0].votes,
        "what the judge said is kept"
    );
    assert_eq!(history[1].sample.as_ref().unwrap().advantage, [-1.0; 6]);
    let open = rig.judged(&turns[2]).remove(0);
    assert_eq!(
        open.verdict.unwrap(),
        by(VoteValue::Positive, Decider::Person)
    );
    assert_eq!(
        (status.samples, status.feedback),
        (3, 2),
        "a turn is one sample"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_correction_is_the_hint_and_feedback_to_a_turn_of_another_tenant_is_unknown() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig.talk("s", &["hi"]).await;
    let correction = feedback(&turns[0], None, Some("Greet me by my name."));
    let foreign = Feedback {
        tenant: "other".into(),
        ..correction.clone()
    };
    let error = rig.sink().feedback(foreign).await.unwrap_err().to_string();
    assert!(error.contains("there is no reply"), "{error}");
    let long = "x".repeat(2_001);
    let error = rig
        .sink()
        .feedback(feedback(&turns[0], None, Some(&long)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("2001 characters"), "{error}");
    rig.sink().feedback(correction).await.unwrap();
    rig.until(|s| s.judged == 1).await;
    let judged = rig.judged(&turns[0]).remove(0);
    assert_eq!(judged.teachers[0].hint.text, "Greet me by my name.");
    assert_eq!((judged.verdict, judged.votes.len()), (None, 0));
    assert!(judged.sample.is_some(), "the hint alone is a signal");
    rig.stop().await;
}

#[tokio::test]
async fn each_method_asks_only_for_what_it_uses() {
    for (method, votes, asks) in [(Method::Binary, 3, 0), (Method::Opd, 0, 3)] {
        let dir = folder();
        let mut config = config();
        config.algorithm.method = method;
        let rig = Rig::start(dir.path(), config);
        rig.talk("s", &["hi", "That is too long, please shorten it."])
            .await;
        rig.until(|s| s.judged == 1).await;
        let judged = rig.records::<JudgedRecord>(JUDGED).remove(0);
        assert_eq!(
            (judged.votes.len(), judged.asks.len()),
            (votes, asks),
            "{method:?}"
        );
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_judge_that_never_answers_does_not_stop_training() {
    let dir = folder();
    let rig = Rig::start(dir.path(), config());
    let turns = rig.talk("s", &["a", "b", "c", "d"]).await;
    // The first three are judged; then the model hangs.
    rig.until(|s| s.judged == 3).await;
    rig.policy.door.shut();
    let lost = rig.talk("hung", &["x", "thank you"]).await.remove(0);
    // A person's word needs no model: two samples and a step, while the judge hangs.
    for turn in &turns[..2] {
        let up = feedback(turn, Some(Rating::Up), None);
        rig.sink().feedback(up).await.unwrap();
    }
    let status = rig.until(|s| s.live.get() == 1).await;
    assert_eq!((status.trained, status.judged), (2, 3));
    // The turn that hangs is given up after the time limit, not before. (The hanging calls keep the paused clock still.)
    pause();
    advance(Duration::from_secs(121)).await;
    rig.until(|s| s.judged == 4).await;
    let judged = rig.judged(&lost).remove(0);
    assert_eq!(judged.not_trainable, Some(NotTrainable::NoVerdict));
    assert!(
        judged
            .votes
            .iter()
            .all(|v| v.absent.as_ref().unwrap().contains("120000 ms"))
    );
    rig.policy.door.open();
    rig.stop().await;
}
