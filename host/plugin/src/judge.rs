//! A guest as a judge.
//!
//! A prompt of the format `plain` becomes a [`JudgePrompt`] without messages, whose `reply_prefix` is the whole text.

use std::fmt;

use rl::{
    Answer, AnswerForm, Hint, Judge, JudgePrompt, Message, NextState, Question, Role, Seed, Turn,
    VoteValue,
};

use crate::{
    bindings::{
        judge::{JudgePlugin, exports::nextstate::plugin::judge as wit},
        types,
    },
    check, convert,
    error::Result,
    instance::Pool,
    load::Plugin,
    manifest::World,
};

/// A judge plugin behind the seam [`Judge`].
pub struct GuestJudge {
    pool: Pool<JudgePlugin>,
}

impl fmt::Debug for GuestJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestJudge")
            .field("plugin", &self.pool.plugin)
            .finish()
    }
}

impl GuestJudge {
    /// Starts a plugin as a judge.
    ///
    /// # Errors
    /// [`crate::Error::Load`] when it is no judge.
    pub fn new(plugin: &Plugin) -> Result<Self> {
        plugin.expect_world(World::JudgePlugin)?;
        Ok(Self {
            pool: Pool::new(plugin)?,
        })
    }

    fn prompt(
        &self,
        function: &'static str,
        prompt: Option<wit::Prompt>,
    ) -> Result<Option<JudgePrompt>> {
        let checked = prompt.map(judge_prompt).transpose();
        checked.map_err(|what| self.pool.refuse(function, what))
    }
}

fn observation(next: &NextState) -> types::Observation {
    let named = |(name, value): &(String, f64)| types::NamedValue {
        name: name.clone(),
        value: *value,
    };
    types::Observation {
        messages: convert::messages(&next.messages),
        evidence: next.evidence.iter().map(named).collect(),
    }
}

fn completion(answer: &Answer) -> wit::Completion {
    let scored = |choice: &rl::Choice| wit::ScoredAnswer {
        text: choice.text.clone(),
        log_prob: f64::from(choice.logprob),
    };
    wit::Completion {
        text: answer.text.clone(),
        answers: answer.choices.iter().map(scored).collect(),
        finish: convert::finish(answer.finish),
    }
}

impl Judge for GuestJudge {
    fn name(&self) -> String {
        self.pool.plugin.name()
    }

    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> rl::Result<Question> {
        let (turn, next) = (convert::turn(turn), observation(next));
        let question = self.pool.call("evaluate", seed, |guest, store| {
            guest
                .nextstate_plugin_judge()
                .call_evaluate(store, &turn, &next)
        })?;
        let refuse = |what| self.pool.refuse("evaluate", what);
        Ok(match question {
            wit::Question::Skip => Question::Skip,
            wit::Question::Ask(prompt) => Question::Ask(judge_prompt(prompt).map_err(refuse)?),
            wit::Question::Decided(vote) => {
                let (value, score) = read(vote).map_err(refuse)?;
                Question::Decided(value, score)
            }
        })
    }

    fn read_vote(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> rl::Result<Option<(VoteValue, Option<f32>)>> {
        let (turn, next, completion) = (convert::turn(turn), observation(next), completion(answer));
        let vote = self
            .pool
            .call("read-vote", Seed::default(), |guest, store| {
                guest
                    .nextstate_plugin_judge()
                    .call_read_vote(store, &turn, &next, &completion)
            })?;
        let vote = vote.map(read).transpose();
        Ok(vote.map_err(|what| self.pool.refuse("read-vote", what))?)
    }

    fn ask_hint(
        &self,
        turn: &Turn,
        next: &NextState,
        seed: Seed,
    ) -> rl::Result<Option<JudgePrompt>> {
        let (turn, next) = (convert::turn(turn), observation(next));
        let prompt = self.pool.call("ask-hint", seed, |guest, store| {
            guest
                .nextstate_plugin_judge()
                .call_ask_hint(store, &turn, &next)
        })?;
        Ok(self.prompt("ask-hint", prompt)?)
    }

    fn read_hint(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> rl::Result<Option<Hint>> {
        let (turn, next, completion) = (convert::turn(turn), observation(next), completion(answer));
        let hint = self
            .pool
            .call("read-hint", Seed::default(), |guest, store| {
                guest
                    .nextstate_plugin_judge()
                    .call_read_hint(store, &turn, &next, &completion)
            })?;
        let Some(hint) = hint else { return Ok(None) };
        let chars = hint.text.chars().count();
        if !(10..=400).contains(&chars) {
            let what = format!("a hint of {chars} characters, and 10 to 400 are allowed");
            return Err(self.pool.refuse("read-hint", what).into());
        }
        Ok(Some(Hint { text: hint.text }))
    }

    fn place_hint(&self, messages: &[Message], hint: &Hint) -> rl::Result<Vec<Message>> {
        let given = convert::messages(messages);
        let hint = wit::Hint {
            text: hint.text.clone(),
        };
        let placed = self
            .pool
            .call("place-hint", Seed::default(), |guest, store| {
                guest
                    .nextstate_plugin_judge()
                    .call_place_hint(store, &given, &hint)
            })?;
        let placed = convert::messages_back(placed);
        check_placed(messages, &placed).map_err(|what| self.pool.refuse("place-hint", what))?;
        Ok(placed)
    }
}

fn read(vote: types::Vote) -> Result<(VoteValue, Option<f32>), String> {
    let score = vote
        .score
        .map(|score| check::signed("a score", score))
        .transpose()?;
    Ok((convert::sign_back(vote.sign), score))
}

/// Attack: a guest that rewrites the conversation which the teacher sees, so that distillation teaches something else.
fn check_placed(before: &[Message], after: &[Message]) -> Result<(), String> {
    check::length("messages", after.len(), before.len())?;
    let mut extended = 0usize;
    for (old, new) in before.iter().zip(after) {
        if new == old {
            continue;
        }
        extended += 1;
        let same = Message {
            content: old.content.clone(),
            ..new.clone()
        } == *old;
        if !same || !new.content.contains(&old.content) {
            return Err("a message that it rewrote instead of extending it".into());
        }
        if new.content.len() > old.content.len() + 4_000 {
            return Err("a message that it extended by more than 4,000 bytes".into());
        }
    }
    if extended == 1 {
        Ok(())
    } else {
        Err(format!("{extended} extended messages where one is due"))
    }
}

fn judge_prompt(prompt: wit::Prompt) -> Result<JudgePrompt, String> {
    if prompt.messages.is_empty() || prompt.messages.len() > 64 {
        return Err(format!(
            "a prompt of {} messages, and 1 to 64 are allowed",
            prompt.messages.len()
        ));
    }
    let answer = answer_form(prompt.answer)?;
    let joined = |message: wit::PromptMessage| {
        // Both kinds of part are text that never becomes special tokens (see `rl::Policy::encode`).
        let text = |part| match part {
            wit::PromptPart::Instruction(text) | wit::PromptPart::Data(text) => text,
        };
        let content: String = message.parts.into_iter().map(text).collect();
        Message::new(convert::role_back(message.role), content)
    };
    let mut messages: Vec<_> = prompt.messages.into_iter().map(joined).collect();
    let reply_prefix = match prompt.format {
        wit::PromptFormat::Plain => messages.drain(..).map(|message| message.content).collect(),
        wit::PromptFormat::Chat => {
            let last = messages.pop_if(|last| last.role == Role::Assistant);
            last.map(|last| last.content).unwrap_or_default()
        }
    };
    if messages.is_empty() && reply_prefix.is_empty() {
        return Err("an empty prompt".into());
    }
    Ok(JudgePrompt {
        messages,
        reply_prefix,
        answer,
    })
}

fn answer_form(answer: wit::Answer) -> Result<AnswerForm, String> {
    match answer {
        wit::Answer::Choice(choices) => {
            let distinct: std::collections::BTreeSet<_> = choices.iter().collect();
            let count = choices.len();
            if !(2..=16).contains(&count)
                || distinct.len() != count
                || choices.iter().any(String::is_empty)
            {
                return Err(format!(
                    "{count} choices; 2 to 16 different ones are allowed, none of them empty"
                ));
            }
            Ok(AnswerForm::Choice(choices))
        }
        wit::Answer::Text(text) => {
            if !(1..=1_024).contains(&text.max_tokens) {
                return Err(format!(
                    "a limit of {} tokens, and 1 to 1,024 are allowed",
                    text.max_tokens
                ));
            }
            // Attack: each is looked for at every token, by the thread that answers everybody.
            let unfit = |stop: &String| !(1..=256).contains(&stop.len());
            if text.stop.len() > 8 || text.stop.iter().any(unfit) {
                let what = "more than 8 stop strings, an empty one, or one of more than 256 bytes";
                return Err(what.into());
            }
            let temperature = check::number("the temperature", text.temperature, 0.0, 2.0)?;
            Ok(AnswerForm::Text {
                max_tokens: text.max_tokens,
                stop: text.stop,
                temperature,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(after: &[&str]) -> Result<(), String> {
        let before = [Message::system("Be kind."), Message::user("Hello")];
        let mut messages = before.to_vec();
        messages.truncate(after.len());
        for (message, text) in messages.iter_mut().zip(after) {
            message.content = (*text).to_owned();
        }
        check_placed(&before, &messages)
    }

    #[test]
    fn a_hint_extends_one_message_and_changes_nothing_else() {
        assert_eq!(placed(&["Be kind.", "Hello\n\nHint"]), Ok(()));
        assert!(
            placed(&["Be kind.", "Hello"])
                .unwrap_err()
                .contains("0 extended")
        );
        assert!(
            placed(&["Be kind. Hint", "Hello Hint"])
                .unwrap_err()
                .contains("2 extended")
        );
        assert!(
            placed(&["Be kind.", "Goodbye"])
                .unwrap_err()
                .contains("rewrote")
        );
        assert!(
            placed(&["Be kind."])
                .unwrap_err()
                .contains("1 messages where 2")
        );
    }

    fn prompt(format: wit::PromptFormat, roles: &[(types::Role, &str)]) -> JudgePrompt {
        let message = |(role, text): &(types::Role, &str)| wit::PromptMessage {
            role: *role,
            parts: vec![
                wit::PromptPart::Instruction("<".into()),
                wit::PromptPart::Data((*text).to_owned()),
            ],
        };
        let answer = wit::Answer::Choice(vec!["yes".into(), "no".into()]);
        let messages = roles.iter().map(message).collect();
        judge_prompt(wit::Prompt {
            messages,
            format,
            answer,
        })
        .unwrap()
    }

    #[test]
    fn an_assistants_last_message_is_the_beginning_of_the_reply() {
        let roles = [
            (types::Role::User, "good?"),
            (types::Role::Assistant, "it is"),
        ];
        let chat = prompt(wit::PromptFormat::Chat, &roles);
        assert_eq!(
            (chat.messages.len(), chat.reply_prefix.as_str()),
            (1, "<it is")
        );
        let plain = prompt(wit::PromptFormat::Plain, &roles);
        assert_eq!(
            (plain.messages.len(), plain.reply_prefix.as_str()),
            (0, "<good?<it is")
        );
    }
}
