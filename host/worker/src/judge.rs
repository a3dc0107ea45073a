//! The seam `Judge` over worker processes.

use std::borrow::Cow;

use rl::{Answer, Hint, Judge, JudgePrompt, Message, NextState, Question, Seed, Turn, VoteValue};

use crate::{answers, wire::Call, workers::Workers};

/// A judge plugin in processes of its own.
#[derive(Debug)]
pub struct SealedJudge {
    workers: Workers,
}

impl SealedJudge {
    /// The judge that these workers have loaded.
    ///
    /// # Errors
    /// [`plugin::Error::Load`] when it is another kind of plugin.
    pub fn new(workers: Workers) -> Result<Self, plugin::Error> {
        workers.check_world(plugin::World::JudgePlugin)?;
        Ok(Self { workers })
    }

    fn checked<T>(&self, call: &Call<'_>, checked: Result<T, String>) -> rl::Result<T> {
        checked.map_err(|what| self.workers.refuse(call, what))
    }
}

impl Judge for SealedJudge {
    fn name(&self) -> String {
        self.workers.name()
    }

    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> rl::Result<Question> {
        let call = Call::Evaluate(Cow::Borrowed(turn), Cow::Borrowed(next), seed);
        let question: Question = self.workers.call(&call)?;
        let checked = match &question {
            Question::Decided(_, score) => answers::score(*score),
            Question::Ask(prompt) => answers::prompt(prompt),
            Question::Skip => Ok(()),
        };
        self.checked(&call, checked)?;
        Ok(question)
    }

    fn read_vote(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> rl::Result<Option<(VoteValue, Option<f32>)>> {
        let call = Call::ReadVote(
            Cow::Borrowed(turn),
            Cow::Borrowed(next),
            Cow::Borrowed(answer),
        );
        let vote: Option<(VoteValue, Option<f32>)> = self.workers.call(&call)?;
        let score = vote.and_then(|(_, score)| score);
        self.checked(&call, answers::score(score))?;
        Ok(vote)
    }

    fn ask_hint(
        &self,
        turn: &Turn,
        next: &NextState,
        seed: Seed,
    ) -> rl::Result<Option<JudgePrompt>> {
        let call = Call::AskHint(Cow::Borrowed(turn), Cow::Borrowed(next), seed);
        let prompt: Option<JudgePrompt> = self.workers.call(&call)?;
        let checked = prompt.as_ref().map_or(Ok(()), answers::prompt);
        self.checked(&call, checked)?;
        Ok(prompt)
    }

    fn read_hint(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> rl::Result<Option<Hint>> {
        let call = Call::ReadHint(
            Cow::Borrowed(turn),
            Cow::Borrowed(next),
            Cow::Borrowed(answer),
        );
        let hint: Option<Hint> = self.workers.call(&call)?;
        let checked = hint.as_ref().map_or(Ok(()), answers::hint);
        self.checked(&call, checked)?;
        Ok(hint)
    }

    fn place_hint(&self, messages: &[Message], hint: &Hint) -> rl::Result<Vec<Message>> {
        let call = Call::PlaceHint(messages.into(), Cow::Borrowed(hint));
        let placed: Vec<Message> = self.workers.call(&call)?;
        self.checked(&call, answers::placed(&placed, messages))?;
        Ok(placed)
    }
}
