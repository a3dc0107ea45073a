//! PRM prompts: asks, reads the vote, extracts and places hints. Cannot reach the model by itself: the host
//! calls it, counts the votes and records everything.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{FinishReason, Hint, Message, NextState, Result, Seed, Turn, VoteValue};

/// How the judge model may answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerForm {
    /// One of these texts; the host gives the log-prob of each.
    Choice(Vec<String>),
    /// Free text.
    Text {
        /// Most tokens.
        max_tokens: u32,
        /// Texts at which the answer ends.
        stop: Vec<String>,
        /// Sampling temperature; 0 is greedy.
        temperature: f32,
    },
}

/// A prompt for the judge model. Untrusted text in it is data: it never becomes special tokens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JudgePrompt {
    /// The conversation to show the model. Empty for a prompt without a chat template: the model then goes
    /// on from `reply_prefix` alone, encoded as plain text.
    pub messages: Vec<Message>,
    /// The answer's beginning, written for the model, for example `Verdict:`.
    pub reply_prefix: String,
    /// How it may answer.
    pub answer: AnswerForm,
}

/// One allowed answer with its log-prob.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// The sum of its tokens' log-probs, natural logarithm.
    pub logprob: f32,
}

/// What the judge model answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The text; for a choice, the most likely one.
    pub text: String,
    /// Every allowed answer with its log-prob; empty for free text.
    pub choices: Vec<Choice>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// What a judge makes of a turn before the model is asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Question {
    /// The turn is not for this judge.
    Skip,
    /// The model shall answer this.
    Ask(JudgePrompt),
    /// The evidence alone decides: one vote, with the judge's own score, and no model.
    Decided(VoteValue, Option<f32>),
}

impl Question {
    /// The prompt, when there is one.
    pub fn prompt(self) -> Option<JudgePrompt> {
        match self {
            Self::Ask(prompt) => Some(prompt),
            Self::Skip | Self::Decided(..) => None,
        }
    }
}

/// PRM prompts.
pub trait Judge: Send + Sync {
    /// The plugin's name and version, for the ledger.
    fn name(&self) -> String;

    /// What answers at this moment, where that can change: whoever asks several things about one turn asks the same one.
    fn now(&self) -> Option<Arc<dyn Judge>> {
        None
    }

    /// The question for one vote, or what is clear without one. `seed` differs by vote.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails; the vote is then absent.
    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Question>;

    /// The vote in an answer, with the judge's own score (higher is better), or none when it cannot be read.
    ///
    /// # Errors
    /// As [`Judge::evaluate`].
    fn read_vote(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>>;

    /// The question for one hint, or none when there is nothing to learn from this next state.
    ///
    /// # Errors
    /// As [`Judge::evaluate`].
    fn ask_hint(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Option<JudgePrompt>>;

    /// The hint in an answer, when it is acceptable.
    ///
    /// # Errors
    /// As [`Judge::evaluate`].
    fn read_hint(&self, turn: &Turn, next: &NextState, answer: &Answer) -> Result<Option<Hint>>;

    /// The teacher's context: the turn's messages with the hint in them.
    ///
    /// # Errors
    /// As [`Judge::evaluate`].
    fn place_hint(&self, messages: &[Message], hint: &Hint) -> Result<Vec<Message>>;
}
