//! The field's vocabulary and arithmetic: what every loop of nextstate talks about.
//!
//! Data types (turn, next state, vote, verdict, hint, sample), pure functions on them (majority,
//! advantages, algorithms) and the *seams*: the traits between loops. Nothing here does I/O, reads a
//! clock, touches a GPU or knows that Wasm and HTTP exist.
//!
//! # Glossary
//! *turn*: one model call of a session · *next state*: everything that came back after it · *vote*: one
//! answer of the judge model · *verdict*: what the votes, an oracle or a person decided · *hint*: how the
//! reply should have been different · *sample*: a turn with an advantage per token · *version*: the
//! policy's weights after a number of steps · *pass*: one walk of the optimizer over a batch.
//!
//! Start at [`turn`], then [`verdict`], [`sample`] and [`algorithm`]; the traits are in [`seam`].

pub mod advantage;
pub mod algorithm;
pub mod error;
pub mod id;
pub mod message;
pub mod sample;
pub mod sampling;
pub mod seam;
pub mod store;
pub mod turn;
pub mod verdict;

pub use error::{Error, Result};
pub use id::{
    AdapterName, EpisodeId, PolicyVersion, SampleId, Seed, SessionId, TaskId, TenantId, TokenId,
    TurnId,
};
pub use message::{Message, Role, ToolCall, ToolSpec};
pub use sample::{Batch, PolicyLoss, Sample, StepMetrics};
pub use sampling::{LEAST_TEMPERATURE, Sampling};
pub use seam::{
    Action, Agent, AgentReply, AgentRequest, Answer, AnswerForm, Archive, BoxFuture, Choice,
    Classification, Completion, Done, Environment, Episode, Feedback, FinishReason, Judge,
    JudgePrompt, JudgedTurn, Learner, ModalityCard, Observation, Outcome, Policy, PolicyCard,
    Proposal, Question, RequestView, RewardRule, SampleRequest, SampledToken, ScoreRequest, Sees,
    Served, Shelf, Step, Stored, Ticket, TokenFlow, TokenStreams, TurnRequest, TurnReward,
    TurnSink, Weights, candidate_of, is_candidate,
};
pub use turn::{NextState, NotTrainable, Turn, TurnKind};
pub use verdict::{Decider, Hint, Rating, Verdict, Vote, VoteValue, majority};
