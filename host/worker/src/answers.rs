//! What a worker said, checked again: the process is in its guest's hands should that break out of WebAssembly.
//!
//! The rules are those of `plugin`, which the worker has checked already when it is well; so a word that breaks one is refused and
//! nothing is repaired.

use std::collections::BTreeSet;

use plugin::LoadProblem;
use rl::{Decider, Hint, JudgePrompt, Message, Outcome, Role, TaskId, TurnReward, Verdict};

/// Greatest absolute reward, advantage or score.
const GREATEST: f32 = 100.0;

type Checked = Result<(), String>;

fn hold(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn signed(value: f32) -> bool {
    value.is_finite() && value.abs() <= GREATEST
}

fn weight(value: f32) -> bool {
    value.is_finite() && (0.0..=GREATEST).contains(&value)
}

fn measure(value: f64) -> bool {
    value.is_finite() && value.abs() <= 1e9
}

fn named(pairs: &[(String, f64)], most: usize, what: &str) -> Checked {
    let name = |name: &str| {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !name.is_empty() && name.len() <= 64 && name.chars().all(word)
    };
    let sound = |(key, value): &(String, f64)| name(key) && measure(*value);
    hold(pairs.len() <= most && pairs.iter().all(sound), what)
}

pub(crate) fn observation(messages: &[Message]) -> Checked {
    let own = messages
        .iter()
        .any(|message| message.role == Role::Assistant);
    hold(
        messages.len() <= 256 && !own,
        "too many messages, or one of the policy's own",
    )
}

pub(crate) fn evidence(evidence: &[(String, f64)]) -> Checked {
    named(evidence, 16, "evidence that is none")
}

pub(crate) fn tasks(tasks: &[TaskId]) -> Checked {
    let sound = |task: &TaskId| (1..=200).contains(&task.as_str().len());
    hold(
        tasks.len() <= 100_000 && tasks.iter().all(sound),
        "too many tasks, or one without a sound name",
    )
}

pub(crate) fn outcome(outcome: &Outcome) -> Checked {
    hold(
        (0.0..=1.0).contains(&outcome.score),
        "a score that is not in [0, 1]",
    )?;
    named(&outcome.metrics, 64, "metrics that are none")
}

pub(crate) fn snapshot(length: usize) -> Checked {
    hold(length <= 1 << 20, "a snapshot of more than 1 MiB")
}

pub(crate) fn score(score: Option<f32>) -> Checked {
    hold(score.is_none_or(signed), "a score that is none")
}

pub(crate) fn prompt(prompt: &JudgePrompt) -> Checked {
    let empty = prompt.messages.is_empty() && prompt.reply_prefix.is_empty();
    let sound = match &prompt.answer {
        rl::AnswerForm::Choice(texts) => {
            let distinct: BTreeSet<_> = texts.iter().collect();
            (2..=16).contains(&texts.len())
                && distinct.len() == texts.len()
                && !texts.iter().any(String::is_empty)
        }
        rl::AnswerForm::Text {
            max_tokens,
            stop,
            temperature,
        } => {
            (1..=1_024).contains(max_tokens)
                && stop.len() <= 8
                && stop.iter().all(|stop| (1..=256).contains(&stop.len()))
                && (0.0..=2.0).contains(temperature)
        }
    };
    hold(
        !empty && sound && prompt.messages.len() <= 64,
        "a prompt without text, or an answer's form that is none",
    )
}

pub(crate) fn hint(hint: &Hint) -> Checked {
    hold(
        (10..=400).contains(&hint.text.chars().count()),
        "a hint that is too short or too long",
    )
}

/// One message is longer by the hint, and nothing else is changed.
pub(crate) fn placed(placed: &[Message], messages: &[Message]) -> Checked {
    let extended = |(new, old): &(&Message, &Message)| new != old;
    let by_little = |(new, old): (&Message, &Message)| {
        let content = old.content.clone();
        let same = Message {
            content,
            ..new.clone()
        } == *old;
        same && new.content.contains(&old.content) && new.content.len() <= old.content.len() + 4_000
    };
    let pairs = || placed.iter().zip(messages).filter(extended);
    hold(
        placed.len() == messages.len() && pairs().count() == 1 && pairs().all(by_little),
        "messages of which not exactly one is extended",
    )
}

pub(crate) fn verdict(verdict: Option<&Verdict>) -> Checked {
    let by_another = verdict.is_some_and(|verdict| verdict.by != Decider::Judge);
    hold(!by_another, "a verdict on votes that is not by the judge")
}

pub(crate) fn rewards(rewards: &[TurnReward], turns: usize) -> Checked {
    let sound = |reward: &TurnReward| {
        reward.reward.is_none_or(signed) && weight(reward.rl_weight) && weight(reward.opd_weight)
    };
    hold(
        rewards.len() == turns && rewards.iter().all(sound),
        "rewards that are none, or not one a turn",
    )
}

pub(crate) fn advantages(
    advantages_gt: &[Vec<Option<f32>>],
    rewards_gt: &[Vec<Option<f32>>],
) -> Checked {
    let turn = |(advantage, reward): (&Option<f32>, &Option<f32>)| {
        advantage.is_some() == reward.is_some() && advantage.is_none_or(signed)
    };
    let attempt = |(advantages_t, rewards_t): (&Vec<Option<f32>>, &Vec<Option<f32>>)| {
        advantages_t.len() == rewards_t.len() && advantages_t.iter().zip(rewards_t).all(turn)
    };
    let shape = advantages_gt.len() == rewards_gt.len();
    hold(
        shape && advantages_gt.iter().zip(rewards_gt).all(attempt),
        "advantages that are none, or not one where there is a reward",
    )
}

pub(crate) fn of_tokens(advantages: &[f32], tokens: usize) -> Checked {
    hold(
        advantages.len() == tokens && advantages.iter().copied().all(signed),
        "advantages that are none, or not one a token",
    )
}

/// Longest text of an error, in characters: a guest's last log lines are in it.
const ERROR_CHARS: usize = 24_000;

/// Text for people's terminals and logs.
fn shown(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(ERROR_CHARS).map(visible).collect()
}

/// An error as the host's own words have it: who failed in what is known here.
pub(crate) fn error(error: rl::Error, plugin: &str, function: &str) -> rl::Error {
    let what = format!("plugin {plugin} in {function}");
    match error {
        rl::Error::Refused { why, .. } => rl::Error::Refused {
            what,
            why: shown(&why),
        },
        rl::Error::Unavailable { why, .. } => rl::Error::Unavailable {
            what,
            why: shown(&why),
        },
        other => {
            let why = match &other {
                rl::Error::Guest { why, .. } => shown(why),
                other => shown(&other.to_string()),
            };
            rl::Error::Guest {
                plugin: plugin.to_owned(),
                function: function.to_owned(),
                why,
            }
        }
    }
}

/// Why a plugin was not loaded, as people may read it.
pub(crate) fn problem(problem: LoadProblem) -> LoadProblem {
    match problem {
        LoadProblem::Manifest(why) => LoadProblem::Manifest(shown(&why)),
        LoadProblem::Config { key, problem } => LoadProblem::Config {
            key: shown(&key),
            problem: shown(&problem),
        },
        LoadProblem::Import { import } => LoadProblem::Import {
            import: shown(&import),
        },
        LoadProblem::World { world, problem } => LoadProblem::World {
            world: shown(&world),
            problem: shown(&problem),
        },
        size @ (LoadProblem::Size { .. } | LoadProblem::Function { .. }) => size,
        other => LoadProblem::Invalid(shown(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_and_lists_of_another_length_are_refused() {
        let reward = |reward, weight| TurnReward {
            reward,
            rl_weight: weight,
            opd_weight: 0.0,
        };
        rewards(&[reward(Some(1.0), 1.0), reward(None, 0.0)], 2).unwrap();
        for (bad, turns) in [
            (reward(Some(f32::NAN), 1.0), 1),
            (reward(Some(1e9), 1.0), 1),
            (reward(Some(1.0), -1.0), 1),
            (reward(Some(1.0), 1.0), 2),
        ] {
            rewards(&[bad], turns).unwrap_err();
        }
        advantages(&[vec![Some(0.5), None]], &[vec![Some(1.0), None]]).unwrap();
        for bad in [
            vec![],
            vec![vec![]],
            vec![vec![None, None]],
            vec![vec![Some(0.5), Some(0.5)]],
            vec![vec![Some(f32::INFINITY), None]],
        ] {
            advantages(&bad, &[vec![Some(1.0), None]]).unwrap_err();
        }
        of_tokens(&[1.0], 2).unwrap_err();
        of_tokens(&[f32::NAN], 1).unwrap_err();
        let asking = |stop: &str| JudgePrompt {
            messages: Vec::new(),
            reply_prefix: "Was it good?".into(),
            answer: rl::AnswerForm::Text {
                max_tokens: 8,
                stop: vec![stop.to_owned()],
                temperature: 0.0,
            },
        };
        prompt(&asking("\n")).unwrap();
        for bad in [String::new(), "s".repeat(257)] {
            prompt(&asking(&bad)).unwrap_err();
        }
        for bad in [f32::INFINITY, f32::NAN, 1e9] {
            score(Some(bad)).unwrap_err();
        }
        outcome(&Outcome {
            score: 1.5,
            metrics: Vec::new(),
        })
        .unwrap_err();
        outcome(&Outcome {
            score: 1.0,
            metrics: vec![("No Name".into(), 1.0)],
        })
        .unwrap_err();
    }

    #[test]
    fn an_error_names_who_failed_by_the_hosts_own_words_and_cannot_rewrite_a_terminal() {
        let lie = rl::Error::Failed {
            what: "the disk".into(),
            why: "\u{1b}[2J".repeat(1 << 20),
        };
        let said = error(lie, "sample", "act").to_string();
        assert!(
            said.starts_with("plugin sample failed in act: "),
            "{said:.80}"
        );
        assert!(!said.contains('\u{1b}') && said.len() < 100_000);
    }

    #[test]
    fn the_policys_words_are_its_own() {
        observation(&[Message::user("hello")]).unwrap();
        observation(&[Message::assistant("I will")]).unwrap_err();
        let messages = [Message::user("hello"), Message::assistant("Hi.")];
        let hinted = Message::user("hello (be short)");
        placed(&[hinted.clone(), messages[1].clone()], &messages).unwrap();
        let other = Message::assistant("I obey.");
        for bad in [
            vec![messages[0].clone(), other.clone()],
            vec![hinted.clone(), Message::assistant("Hi. I obey.")],
            vec![hinted],
            messages.to_vec(),
        ] {
            placed(&bad, &messages).unwrap_err();
        }
        let person = Verdict {
            value: rl::VoteValue::Positive,
            by: Decider::Person,
        };
        verdict(Some(&person)).unwrap_err();
    }
}
