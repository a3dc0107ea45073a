//! Calls a plugin with made-up traffic, the same at every run, and writes down what it answered.
//!
//! Every answer goes through the checks that a host makes, so what is refused here would be refused there. Needs no model: where a
//! judge would ask one, every answer that it allows is tried. One file a world.

mod environment;
mod judge;
mod reward;

use plugin::{Plugin, World};
use rl::Seed;
use serde::Serialize;

use crate::visible;

/// One call, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Call {
    /// The function, as the contract names it.
    pub function: &'static str,
    /// What it was given, in words.
    pub given: String,
    /// What it answered.
    pub answer: Answer,
}

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "said")]
pub enum Answer {
    /// In words.
    Said(String),
    /// It refused what makes no sense, as it should.
    Refused(String),
    /// A fault, a trap, a limit, or an answer that the contract rules out.
    Failed(String),
}

impl Call {
    /// Whether a host would have had to do without an answer.
    pub fn is_failure(&self) -> bool {
        matches!(self.answer, Answer::Failed(_))
    }
}

/// The calls so far.
#[derive(Debug, Default)]
struct Transcript(Vec<Call>);

impl Transcript {
    /// Writes a call down; its answer, if there is one.
    fn note<T>(
        &mut self,
        function: &'static str,
        given: impl Into<String>,
        result: rl::Result<T>,
        say: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (answer, value) = match result {
            Ok(value) => (Answer::Said(say(&value)), Some(value)),
            // Which plugin and which function is said beside it.
            Err(rl::Error::Guest { why, .. }) => (Answer::Failed(why), None),
            Err(error) => (Answer::Failed(error.to_string()), None),
        };
        self.push(function, &given.into(), answer);
        value
    }

    /// Writes down a call that must be refused.
    fn must_refuse<T>(&mut self, function: &'static str, given: &str, result: rl::Result<T>) {
        let answer = match result {
            Err(rl::Error::Refused { why, .. }) => Answer::Refused(why),
            Err(error) => Answer::Failed(error.to_string()),
            Ok(_) => Answer::Failed("it was accepted, and must be refused".to_owned()),
        };
        self.push(function, given, answer);
    }

    /// Attack: a guest whose texts carry escape sequences for the terminal that shows them.
    fn push(&mut self, function: &'static str, given: &str, answer: Answer) {
        self.0.push(Call {
            function,
            given: visible::word(given),
            answer: match answer {
                Answer::Said(text) => Answer::Said(visible::word(&text)),
                Answer::Refused(text) => Answer::Refused(visible::word(&text)),
                Answer::Failed(text) => Answer::Failed(visible::word(&text)),
            },
        });
    }
}

/// Calls every function of a plugin's world, so many times over; the last time's calls. What a guest remembers shows in them.
///
/// # Errors
/// The plugin cannot be started at all.
pub fn drive(plugin: &Plugin, times: usize) -> anyhow::Result<Vec<Call>> {
    let mut last = Transcript::default();
    let mut each = |drive: &dyn Fn(&mut Transcript)| {
        for _ in 0..times {
            last = Transcript::default();
            drive(&mut last);
        }
    };
    match plugin.manifest().world {
        World::RewardPlugin => {
            let rule = plugin::GuestReward::new(plugin)?;
            let is_token_level = plugin.manifest().token_level;
            each(&|calls| reward::drive(&rule, is_token_level, calls));
        }
        World::JudgePlugin => {
            let judge = plugin::GuestJudge::new(plugin)?;
            each(&|calls| judge::drive(&judge, calls));
        }
        World::EnvironmentPlugin => {
            let environment = plugin::GuestEnvironment::new(plugin, Seed::new(1))?;
            each(&|calls| environment::drive(&environment, calls));
        }
    }
    Ok(last.0)
}

/// Most characters of a text in a line.
const SHOWN: usize = 160;

/// A text, quoted, and shortened for a line.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}

/// The same with its end instead of its beginning.
fn quoted_end(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(SHOWN);
    let short: String = text.chars().skip(skipped).collect();
    let rest = if skipped > 0 { "…" } else { "" };
    format!("{rest}{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_cannot_steer_the_terminal() {
        let mut calls = Transcript::default();
        let said = "a\u{1b}[2J\nb".to_owned();
        calls.note("tasks", "\u{7}train", Ok(said), String::clone);
        assert_eq!(calls.0[0].given, "\u{fffd}train");
        assert_eq!(
            calls.0[0].answer,
            Answer::Said("a\u{fffd}[2J\u{fffd}b".to_owned())
        );
    }
}
