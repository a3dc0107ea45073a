//! The small native implementations of the seams: what runs where no plugin is configured, and the second
//! implementation that keeps every trait honest.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::{
    Action, Answer, AnswerForm, BoxFuture, Choice, Classification, Decider, Done, Environment,
    Episode, Error, Feedback, FinishReason, Hint, Judge, JudgePrompt, JudgedTurn, Message,
    ModalityCard, NextState, Observation, Outcome, PolicyVersion, Question, RequestView, Result,
    RewardRule, Role, Seed, Sees, Served, Shelf, Step, Stored, TaskId, Ticket, Turn, TurnId,
    TurnKind, TurnRequest, TurnReward, TurnSink, Verdict, Vote, VoteValue, majority,
};

/// An environment whose user says fixed lines, whatever the reply.
///
/// Task ids are the indices of the transcripts. Every request is a main turn.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    conversations: Vec<Vec<String>>,
}

impl Transcript {
    /// One conversation a list; each line is one user message.
    pub fn new(conversations: Vec<Vec<String>>) -> Self {
        Self { conversations }
    }
}

impl Environment for Transcript {
    fn card(&self) -> ModalityCard {
        ModalityCard {
            name: "transcript".into(),
            version: "native".into(),
            tools: Vec::new(),
        }
    }

    fn classify(&self, _request: RequestView<'_>) -> Result<Classification> {
        Ok(Classification::Main)
    }

    fn next_state(&self, _turn: &Turn, new_messages: &[Message]) -> Result<Option<NextState>> {
        if new_messages.is_empty() {
            return Ok(None);
        }
        Ok(Some(NextState::of(new_messages.to_vec())))
    }

    fn session_ends(&self, _messages: &[Message]) -> Result<bool> {
        Ok(false)
    }

    fn tasks(&self, _split: &str) -> Result<Vec<TaskId>> {
        Ok((0..self.conversations.len())
            .map(|i| TaskId::new(i.to_string()))
            .collect())
    }

    fn start(&self, task: &TaskId, _seed: Seed) -> Result<Box<dyn Episode>> {
        let lines = task
            .as_str()
            .parse::<usize>()
            .ok()
            .and_then(|index| self.conversations.get(index))
            .ok_or_else(|| Error::Refused {
                what: "environment transcript".into(),
                why: format!("there is no task {task}"),
            })?;
        Ok(Box::new(TranscriptEpisode {
            lines: lines.clone(),
            next: 0,
        }))
    }
}

struct TranscriptEpisode {
    lines: Vec<String>,
    next: usize,
}

impl TranscriptEpisode {
    fn say(&mut self) -> Observation {
        let line = self.lines.get(self.next).cloned();
        self.next += 1;
        Observation {
            messages: line.into_iter().map(Message::user).collect(),
        }
    }
}

impl Episode for TranscriptEpisode {
    fn observe(&mut self) -> Result<Observation> {
        Ok(self.say())
    }

    fn act(&mut self, _action: &Action) -> Result<Step> {
        if self.next > self.lines.len() {
            return Err(Error::Refused {
                what: "environment transcript".into(),
                why: "the episode is over".into(),
            });
        }
        let observation = self.say();
        let done = observation.messages.is_empty().then_some(Done::Finished);
        Ok(Step { observation, done })
    }

    fn outcome(&mut self) -> Result<Option<Outcome>> {
        Ok(None)
    }

    fn snapshot(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A judge that reads thanks and complaints from word lists. Needs no model that understands language, so it
/// also serves tiny random models; far less accurate than a model on people's real words.
#[derive(Clone, Debug, Default)]
pub struct WordJudge;

const THANKS: [&str; 8] = [
    "thank",
    "perfect",
    "great",
    "nice",
    "exactly",
    "love it",
    "well done",
    "good answer",
];
const COMPLAINTS: [&str; 10] = [
    "too ", "not what", "please ", "don't", "wrong", "instead", "shorter", "without", "hard to",
    "no,",
];

impl WordJudge {
    fn lean(text: &str) -> i32 {
        let text = text.to_lowercase();
        let count = |words: &[&str]| words.iter().filter(|w| text.contains(**w)).count() as i32;
        count(&THANKS) - count(&COMPLAINTS)
    }
}

impl Judge for WordJudge {
    fn name(&self) -> String {
        "word-judge native".into()
    }

    fn evaluate(&self, _turn: &Turn, next: &NextState, _seed: Seed) -> Result<Question> {
        // The question is asked so that the model's log-probs are recorded; the vote is read from the words.
        Ok(Question::Ask(JudgePrompt {
            messages: vec![Message::user(next.text.clone())],
            reply_prefix: String::new(),
            answer: AnswerForm::Choice(vec![" good".into(), " bad".into()]),
        }))
    }

    fn read_vote(
        &self,
        _turn: &Turn,
        next: &NextState,
        answer: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>> {
        if answer
            .choices
            .iter()
            .any(|Choice { logprob, .. }| logprob.is_nan())
        {
            return Ok(None);
        }
        let lean = Self::lean(&next.text);
        let value = match lean.signum() {
            1 => VoteValue::Positive,
            -1 => VoteValue::Negative,
            _ => VoteValue::Ambiguous,
        };
        Ok(Some((value, Some(lean as f32))))
    }

    fn ask_hint(&self, _turn: &Turn, next: &NextState, _seed: Seed) -> Result<Option<JudgePrompt>> {
        if Self::lean(&next.text) >= 0 {
            return Ok(None);
        }
        Ok(Some(JudgePrompt {
            messages: vec![Message::user(next.text.clone())],
            reply_prefix: String::new(),
            answer: AnswerForm::Choice(vec![" yes".into(), " no".into()]),
        }))
    }

    fn read_hint(&self, _turn: &Turn, next: &NextState, _answer: &Answer) -> Result<Option<Hint>> {
        let text: String = next.text.chars().take(400).collect();
        Ok((text.chars().count() >= 10).then_some(Hint { text }))
    }

    fn place_hint(&self, messages: &[Message], hint: &Hint) -> Result<Vec<Message>> {
        let mut messages = messages.to_vec();
        let last = messages
            .iter_mut()
            .rev()
            .find(|m| m.role == Role::User)
            .ok_or_else(|| Error::Refused {
                what: self.name(),
                why: "the conversation has no user message".into(),
            })?;
        last.content.push_str("\n\n[Hint for this reply]\n");
        last.content.push_str(&hint.text);
        Ok(messages)
    }
}

/// A judge that asks nobody: for reward rules that go by outcomes alone.
#[derive(Clone, Debug, Default)]
pub struct NoJudge;

impl Judge for NoJudge {
    fn name(&self) -> String {
        "none native".into()
    }

    fn evaluate(&self, _turn: &Turn, _next: &NextState, _seed: Seed) -> Result<Question> {
        Ok(Question::Skip)
    }

    fn read_vote(
        &self,
        _turn: &Turn,
        _next: &NextState,
        _answer: &Answer,
    ) -> Result<Option<(VoteValue, Option<f32>)>> {
        Ok(None)
    }

    fn ask_hint(
        &self,
        _turn: &Turn,
        _next: &NextState,
        _seed: Seed,
    ) -> Result<Option<JudgePrompt>> {
        Ok(None)
    }

    fn read_hint(&self, _turn: &Turn, _next: &NextState, _answer: &Answer) -> Result<Option<Hint>> {
        Ok(None)
    }

    fn place_hint(&self, messages: &[Message], hint: &Hint) -> Result<Vec<Message>> {
        WordJudge.place_hint(messages, hint)
    }
}

/// Binary reward by majority, without a plugin.
#[derive(Clone, Debug, Default)]
pub struct MajorityRule;

impl RewardRule for MajorityRule {
    fn name(&self) -> String {
        "majority native".into()
    }

    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>> {
        let value = majority(votes.iter().map(|vote| vote.value));
        Ok(value.map(|value| Verdict {
            value,
            by: Decider::Judge,
        }))
    }

    fn turn_rewards(&self, turns: &[JudgedTurn], _outcome: Option<f64>) -> Result<Vec<TurnReward>> {
        Ok(turns
            .iter()
            .map(|turn| TurnReward {
                reward: turn.verdict.map(|v| v.value.sign()),
                rl_weight: 1.0,
                opd_weight: 1.0,
            })
            .collect())
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>> {
        Ok(rewards_gt.to_vec())
    }
}

/// Outcome and process together, standardised by turn index over a group (algorithms §6), without a plugin.
#[derive(Clone, Debug, Default)]
pub struct StepwiseRule;

impl RewardRule for StepwiseRule {
    fn name(&self) -> String {
        "step-wise native".into()
    }

    fn sees(&self) -> Sees {
        Sees::Group
    }

    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>> {
        MajorityRule.verdict(votes)
    }

    fn turn_rewards(&self, turns: &[JudgedTurn], outcome: Option<f64>) -> Result<Vec<TurnReward>> {
        let outcome = outcome.map(|outcome| outcome as f32);
        let sum = |turn: &JudgedTurn| match (outcome, turn.process) {
            (None, None) => None,
            (outcome, process) => Some(outcome.unwrap_or(0.0) + process.unwrap_or(0.0)),
        };
        Ok(turns
            .iter()
            .map(|turn| TurnReward {
                reward: sum(turn),
                rl_weight: 1.0,
                opd_weight: 1.0,
            })
            .collect())
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>> {
        Ok(crate::advantage::by_turn_index(rewards_gt))
    }
}

/// Keeps turns in memory: for commands that serve without a ledger, and for tests.
#[derive(Debug, Default)]
pub struct MemorySink {
    state: Mutex<MemoryState>,
}

#[derive(Debug, Default)]
struct MemoryState {
    begun: u64,
    turns: Vec<(Ticket, Served)>,
    feedback: Vec<Feedback>,
}

impl MemorySink {
    /// The turns recorded so far.
    pub fn turns(&self) -> Vec<(Ticket, Served)> {
        self.lock().turns.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TurnSink for MemorySink {
    fn begin(&self, request: TurnRequest) -> BoxFuture<'_, Result<Ticket>> {
        let mut state = self.lock();
        state.begun += 1;
        let turn = TurnId::new(format!("chatcmpl-{:016x}", state.begun));
        let session = request.session.unwrap_or_else(|| {
            format!("{}-{}", request.tenant, request.key)
                .as_str()
                .into()
        });
        let kind = request.kind.unwrap_or(TurnKind::Unclassified);
        Box::pin(std::future::ready(Ok(Ticket {
            turn,
            session,
            kind,
            parent: None,
        })))
    }

    fn finish(&self, ticket: Ticket, served: Served) -> BoxFuture<'_, Result<()>> {
        self.lock().turns.push((ticket, served));
        Box::pin(std::future::ready(Ok(())))
    }

    fn feedback(&self, feedback: Feedback) -> BoxFuture<'_, Result<()>> {
        let mut state = self.lock();
        let known = state
            .turns
            .iter()
            .any(|(ticket, _)| ticket.turn == feedback.turn);
        let result = if known {
            state.feedback.push(feedback);
            Ok(())
        } else {
            Err(Error::Refused {
                what: "feedback".into(),
                why: format!("there is no reply {}", feedback.turn),
            })
        };
        Box::pin(std::future::ready(result))
    }
}

/// Which version answers, as numbers and bytes: for tests, and for hosts that serve no weights of their own.
#[derive(Debug, Default)]
pub struct MemoryShelf {
    state: Mutex<ShelfState>,
}

#[derive(Debug, Default)]
struct ShelfState {
    live: PolicyVersion,
    held: Vec<(PolicyVersion, Vec<u8>)>,
    trial: Option<(PolicyVersion, f64)>,
}

impl MemoryShelf {
    /// The version that a session of this bucket gets.
    pub fn served(&self, bucket: u64) -> PolicyVersion {
        let state = self.lock();
        let place = bucket as f64 * 2f64.powi(-64);
        match state.trial {
            Some((version, share)) if place < share => version,
            _ => state.live,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ShelfState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the version from now on, or says why it cannot.
    fn find(
        state: &mut ShelfState,
        version: PolicyVersion,
        adapter: Option<Stored<'_>>,
    ) -> Result<()> {
        let refused = |why: String| Error::Refused {
            what: format!("serving {version}"),
            why,
        };
        let held = state.held.iter().find(|(held, _)| *held == version);
        let bytes = match (held, adapter) {
            (Some((_, bytes)), _) => bytes.clone(),
            (None, Some(stored)) => stored.bytes.to_vec(),
            (None, None) if version == PolicyVersion::BASE => return Ok(()),
            (None, None) => return Err(refused("no bytes were given".into())),
        };
        if bytes.is_empty() {
            return Err(refused("an adapter has no bytes".into()));
        }
        if let Some(digest) = adapter.and_then(|stored| stored.digest)
            && digest != hex::encode(Sha256::digest(&bytes))
        {
            return Err(refused(format!("its digest is not {digest}")));
        }
        state.held.retain(|(held, _)| *held != version);
        state.held.push((version, bytes));
        Ok(())
    }
}

impl Shelf for MemoryShelf {
    fn show_as(&self, version: PolicyVersion, of: PolicyVersion) -> bool {
        let mut state = self.lock();
        let held = state.held.iter().find(|(held, _)| *held == of).cloned();
        match held {
            Some((_, bytes)) => state.held.push((version, bytes)),
            None if of == PolicyVersion::BASE => {}
            None => return false,
        }
        state.live = version;
        state.trial = None;
        true
    }

    fn show(&self, version: PolicyVersion, adapter: Option<Stored<'_>>) -> Result<()> {
        let mut state = self.lock();
        Self::find(&mut state, version, adapter)?;
        (state.live, state.trial) = (version, None);
        Ok(())
    }

    fn holds(&self, version: PolicyVersion) -> bool {
        let state = self.lock();
        version == PolicyVersion::BASE || state.held.iter().any(|(held, _)| *held == version)
    }

    fn try_out(
        &self,
        version: PolicyVersion,
        adapter: Option<Stored<'_>>,
        share: f64,
    ) -> Result<()> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::Refused {
                what: format!("trying out {version}"),
                why: format!("a share of {share} is not above 0 and at most 1"),
            });
        }
        let mut state = self.lock();
        Self::find(&mut state, version, adapter)?;
        state.trial = Some((version, share));
        Ok(())
    }

    fn end_trial(&self) {
        self.lock().trial = None;
    }

    fn forget(&self) {
        let mut state = self.lock();
        let live = state.live;
        state.trial = None;
        state.held.retain(|(held, _)| *held == live);
    }
}

/// So that [`FinishReason`] of a choice is written once.
impl Answer {
    /// The answer to an [`AnswerForm::Choice`]: the most likely of the choices, the first wins a tie.
    pub fn chosen(choices: Vec<Choice>) -> Option<Self> {
        let best = choices.iter().enumerate().reduce(|best, next| {
            if next.1.logprob > best.1.logprob {
                next
            } else {
                best
            }
        })?;
        Some(Self {
            text: best.1.text.clone(),
            finish: FinishReason::Stop,
            choices,
        })
    }
}
