//! The kit for plugin authors: three traits, one export macro each, and the host's capabilities as functions.
//!
//! Not a host, and not the contract: that is `wit/`, whose types are re-exported here under the same names.
//! Implement [`Environment`], [`Judge`] or [`Reward`] and end the crate with [`export_environment!`],
//! [`export_judge!`] or [`export_reward!`]. Away from WebAssembly (in a plugin's own unit tests) the macros expand to
//! nothing and the capabilities have stand-ins: see [`native`].
//!
//! ```
//! use sdk::{Decision, Fault, Reward, Trajectory, TurnReward, Vote};
//!
//! /// Rewards a turn by the oracle's word alone.
//! struct OutcomeOnly;
//!
//! impl Reward for OutcomeOnly {
//!     fn verdict(_votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
//!         Ok(None)
//!     }
//!     fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
//!         let reward = trajectory.outcome.map(|score| 2.0 * score - 1.0);
//!         let one = TurnReward { reward, rl_weight: 1.0, opd_weight: 0.0 };
//!         Ok(vec![one; trajectory.turns.len()])
//!     }
//! }
//! sdk::export_reward!(OutcomeOnly);
//! ```

pub mod answers;
pub mod bindings;
pub mod browser;
pub mod config;
mod environment;
mod fault;
pub mod groups;
pub mod http;
mod judge;
pub mod log;
pub mod majority;
pub mod model;
pub mod native;
pub mod random;
mod reward;
pub mod shell;
pub mod store;

#[doc(hidden)]
pub use environment::{Adapter as EnvironmentAdapter, EpisodeCell};
pub use environment::{Environment, Episode, NoEpisodes};
#[doc(hidden)]
pub use judge::Adapter as JudgeAdapter;
pub use judge::Judge;
#[doc(hidden)]
pub use reward::Adapter as RewardAdapter;
pub use reward::Reward;

pub use bindings::environment::exports::nextstate::plugin::environment::{
    Action, ActionKind, Capabilities, Done, Line, ModalityCard, ObservationKind, OutcomeScore,
    Request, Split, Step, ToolSpec,
};
pub use bindings::environment::nextstate::plugin::types::{
    Fault, Finish, Message, NamedValue, Observation, Role, Sign, ToolCall, Turn, Vote,
};
pub use bindings::judge::exports::nextstate::plugin::judge::{
    Answer, Completion, Hint, Prompt, PromptFormat, PromptMessage, PromptPart, Question,
    ScoredAnswer, TextAnswer,
};
pub use bindings::reward::exports::nextstate::plugin::reward::{
    Decider, Decision, JudgedTurn, TokenStreams, Trajectory, TurnReward,
};

impl Observation {
    /// What is shown, without evidence.
    pub fn new(messages: Vec<Message>) -> Self {
        let evidence = Vec::new();
        Self { messages, evidence }
    }

    /// The same with one more number that the environment vouches for.
    #[must_use]
    pub fn with_evidence(mut self, name: &str, value: f64) -> Self {
        let name = name.to_owned();
        self.evidence.push(NamedValue { name, value });
        self
    }

    /// The number of this name.
    pub fn evidence(&self, name: &str) -> Option<f64> {
        let named = self.evidence.iter().find(|number| number.name == name)?;
        Some(named.value)
    }
}

impl From<Option<Prompt>> for Question {
    /// A prompt is to be answered; none means that the turn is not for this judge.
    fn from(prompt: Option<Prompt>) -> Self {
        prompt.map_or(Self::Skip, Self::Ask)
    }
}

impl From<Option<Decision>> for JudgedTurn {
    /// A turn of which only the verdict is known: of live traffic, or of a test.
    fn from(verdict: Option<Decision>) -> Self {
        Self {
            verdict,
            process: None,
            tokens: 0,
            cut: false,
        }
    }
}
