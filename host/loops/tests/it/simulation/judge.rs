//! A judge that is at times silent and at times fails, by the turn that it is asked about.

use rl::{
    Answer, Hint, Judge, JudgePrompt, Message, NextState, Question, Seed, Turn, VoteValue,
    seam::WordJudge,
};

/// [`WordJudge`] with moods.
pub(super) struct Moody;

fn mood(turn: &Turn) -> u64 {
    turn.id.as_str().bytes().map(u64::from).sum::<u64>() % 10
}

impl Judge for Moody {
    fn name(&self) -> String {
        "moody native".into()
    }

    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> rl::Result<Question> {
        match mood(turn) {
            0 => Err(rl::Error::Guest {
                plugin: "moody".into(),
                function: "evaluate".into(),
                why: "not in the mood".into(),
            }),
            1 => Ok(Question::Skip),
            _ => WordJudge.evaluate(turn, next, seed),
        }
    }

    fn read_vote(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> rl::Result<Option<(VoteValue, Option<f32>)>> {
        match mood(turn) {
            2 => Ok(None),
            _ => WordJudge.read_vote(turn, next, answer),
        }
    }

    fn ask_hint(
        &self,
        turn: &Turn,
        next: &NextState,
        seed: Seed,
    ) -> rl::Result<Option<JudgePrompt>> {
        WordJudge.ask_hint(turn, next, seed)
    }

    fn read_hint(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> rl::Result<Option<Hint>> {
        WordJudge.read_hint(turn, next, answer)
    }

    fn place_hint(&self, messages: &[Message], hint: &Hint) -> rl::Result<Vec<Message>> {
        WordJudge.place_hint(messages, hint)
    }
}
