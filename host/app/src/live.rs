//! A seam whose implementation can be exchanged while the host runs.
//!
//! Calls go to whatever is in place when they begin; a call that is under way ends where it began. It does not know why something
//! is exchanged ([`crate::guests`] does).

use std::sync::Arc;

use parking_lot::RwLock;
use rl::{
    Answer, Archive, Classification, Environment, Episode, Hint, Judge, JudgePrompt, JudgedTurn,
    Message, ModalityCard, NextState, Question, RequestView, Result, RewardRule, Seed, Sees,
    TaskId, TokenStreams, Turn, TurnReward, Verdict, Vote, VoteValue,
};

/// What is in place now.
pub struct Live<T: ?Sized> {
    current: RwLock<Arc<T>>,
}

impl<T: ?Sized> std::fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl<T: ?Sized> Live<T> {
    /// Begins with this one.
    pub fn new(first: Arc<T>) -> Self {
        Self {
            current: RwLock::new(first),
        }
    }

    /// Puts another in its place, for all calls that begin from now on.
    pub fn exchange(&self, next: Arc<T>) {
        *self.current.write() = next;
    }

    fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }
}

impl Environment for Live<dyn Environment> {
    fn card(&self) -> ModalityCard {
        self.get().card()
    }

    fn classify(&self, request: RequestView<'_>) -> Result<Classification> {
        self.get().classify(request)
    }

    fn next_state(&self, turn: &Turn, new_messages: &[Message]) -> Result<Option<NextState>> {
        self.get().next_state(turn, new_messages)
    }

    fn next_state_with(
        &self,
        turn: &Turn,
        new_messages: &[Message],
        archive: &dyn Archive,
    ) -> Result<Option<NextState>> {
        self.get().next_state_with(turn, new_messages, archive)
    }

    fn session_ends(&self, messages: &[Message]) -> Result<bool> {
        self.get().session_ends(messages)
    }

    fn tasks(&self, split: &str) -> Result<Vec<TaskId>> {
        self.get().tasks(split)
    }

    fn start(&self, task: &TaskId, seed: Seed) -> Result<Box<dyn Episode>> {
        self.get().start(task, seed)
    }

    fn start_with(
        &self,
        task: &TaskId,
        seed: Seed,
        archive: &dyn Archive,
    ) -> Result<Box<dyn Episode>> {
        self.get().start_with(task, seed, archive)
    }
}

impl Judge for Live<dyn Judge> {
    fn name(&self) -> String {
        self.get().name()
    }

    fn now(&self) -> Option<Arc<dyn Judge>> {
        Some(self.get())
    }

    fn evaluate(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Question> {
        self.get().evaluate(turn, next, seed)
    }

    fn read_vote(
        &self,
        turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>> {
        self.get().read_vote(turn, next, answer)
    }

    fn ask_hint(&self, turn: &Turn, next: &NextState, seed: Seed) -> Result<Option<JudgePrompt>> {
        self.get().ask_hint(turn, next, seed)
    }

    fn read_hint(&self, turn: &Turn, next: &NextState, answer: &Answer) -> Result<Option<Hint>> {
        self.get().read_hint(turn, next, answer)
    }

    fn place_hint(&self, messages: &[Message], hint: &Hint) -> Result<Vec<Message>> {
        self.get().place_hint(messages, hint)
    }
}

impl RewardRule for Live<dyn RewardRule> {
    fn name(&self) -> String {
        self.get().name()
    }

    fn now(&self) -> Option<Arc<dyn RewardRule>> {
        Some(self.get())
    }

    fn sees(&self) -> Sees {
        self.get().sees()
    }

    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>> {
        self.get().verdict(votes)
    }

    fn turn_rewards(&self, turns: &[JudgedTurn], outcome: Option<f64>) -> Result<Vec<TurnReward>> {
        self.get().turn_rewards(turns, outcome)
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>> {
        self.get().advantages(rewards_gt)
    }

    fn token_advantages(&self, streams: &TokenStreams<'_>) -> Result<Option<Vec<f32>>> {
        self.get().token_advantages(streams)
    }
}

#[cfg(test)]
mod tests {
    use rl::seam::{MajorityRule, NoJudge, StepwiseRule, WordJudge, conformance};

    use super::*;

    #[test]
    fn what_is_in_place_conforms_and_can_be_another() {
        let rule = Live::<dyn RewardRule>::new(Arc::new(MajorityRule));
        conformance::reward_rule(&rule).unwrap();
        let begun = rule.now().unwrap();
        rule.exchange(Arc::new(StepwiseRule));
        conformance::reward_rule(&rule).unwrap();
        assert_eq!(
            (rule.name(), begun.name()),
            ("step-wise native".into(), "majority native".into())
        );
        assert_eq!((rule.sees(), begun.sees()), (Sees::Group, Sees::Turn));
    }

    #[test]
    fn whoever_began_with_a_judge_ends_with_it() {
        let judge = Live::<dyn Judge>::new(Arc::new(WordJudge));
        conformance::judge(&judge).unwrap();
        let begun = judge.now().unwrap();
        judge.exchange(Arc::new(NoJudge));
        assert_eq!(
            (judge.name(), begun.name()),
            ("none native".into(), "word-judge native".into())
        );
    }
}
