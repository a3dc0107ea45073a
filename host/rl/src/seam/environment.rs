//! A modality: reads live traffic, and can host episodes of its own tasks.

use serde::{Deserialize, Serialize};

use crate::{Archive, Message, NextState, Result, Seed, TaskId, ToolSpec, Turn};

/// What an environment is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModalityCard {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// Tools that the policy gets in hosted episodes.
    pub tools: Vec<ToolSpec>,
}

/// A request, as far as an environment needs it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// All messages of the request.
    pub messages: &'a [Message],
    /// The tools that the client offers.
    pub tools: &'a [ToolSpec],
}

/// Main line or side. `Unknown` is an answer, not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Classification {
    /// A reply to the user, or a call inside its tool loop.
    Main,
    /// Title, memory, heartbeat, cron.
    Side,
    /// The plugin cannot tell.
    Unknown,
}

/// What an episode shows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Observation {
    /// Messages that are new since the last action.
    pub messages: Vec<Message>,
}

/// What the policy does in an episode.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Action {
    /// The reply: text, tool calls, or both.
    pub message: Message,
    /// Whether the reply was cut by its token limit.
    pub truncated: bool,
}

/// Why an episode ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// The task is over by its own rules.
    Finished,
    /// A limit of turns was reached.
    TurnLimit,
    /// The environment gave up.
    Aborted,
}

/// What came back after an action.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The next state.
    pub observation: Observation,
    /// Set when the episode is over; it takes no further action.
    pub done: Option<Done>,
}

/// The programmatic oracle's word on an episode so far.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// From 0 to 1.
    pub score: f64,
    /// Named guards and parts, each from 0 to 1 unless its name carries a unit.
    pub metrics: Vec<(String, f64)>,
}

/// A modality.
pub trait Environment: Send + Sync {
    /// What it is.
    fn card(&self) -> ModalityCard;

    /// Main line, side, or unknown.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn classify(&self, request: RequestView<'_>) -> Result<Classification>;

    /// What followed `turn`: `new_messages` are all messages after its reply, before the next model call.
    /// Strips synthetic messages, joins all tool results. None when only synthetic messages came.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn next_state(&self, turn: &Turn, new_messages: &[Message]) -> Result<Option<NextState>>;

    /// The same for an environment whose plugin stores something: `archive` has what it stored for the turn's tenant. Whatever stands in
    /// front of another environment hands this on. By default nothing is stored.
    ///
    /// # Errors
    /// As [`Environment::next_state`], and the archive's.
    fn next_state_with(
        &self,
        turn: &Turn,
        new_messages: &[Message],
        archive: &dyn Archive,
    ) -> Result<Option<NextState>> {
        let _ = archive;
        self.next_state(turn, new_messages)
    }

    /// Whether these messages end the session.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn session_ends(&self, messages: &[Message]) -> Result<bool>;

    /// The tasks of a split (`train`, `held-out`, …), in a fixed order.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for an unknown split.
    fn tasks(&self, split: &str) -> Result<Vec<TaskId>>;

    /// Starts one episode of a task. Episodes are single-use: there is no reset.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for an unknown task.
    fn start(&self, task: &TaskId, seed: Seed) -> Result<Box<dyn Episode>>;

    /// The same for an environment whose plugin stores something from episode to episode: `archive` has it. Whatever stands in front of
    /// another environment hands this on. By default nothing is stored.
    ///
    /// # Errors
    /// As [`Environment::start`], and the archive's.
    fn start_with(
        &self,
        task: &TaskId,
        seed: Seed,
        archive: &dyn Archive,
    ) -> Result<Box<dyn Episode>> {
        let _ = archive;
        self.start(task, seed)
    }
}

/// One run of an environment through one task.
pub trait Episode: Send {
    /// The messages to begin with.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn observe(&mut self) -> Result<Observation>;

    /// Takes an action.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] after the episode is over.
    fn act(&mut self, action: &Action) -> Result<Step>;

    /// The oracle's word on the last action; none when the environment has no oracle.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails or its numbers are not finite.
    fn outcome(&mut self) -> Result<Option<Outcome>>;

    /// The state as bytes, when the environment offers it; else the host replays the recorded actions.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn snapshot(&mut self) -> Result<Option<Vec<u8>>>;
}
